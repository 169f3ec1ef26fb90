package content

import (
	"crypto/hmac"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// problem is an error as S3 writes it.
type problem struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
	status  int
}

func (p *problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(p.status)
	// The connection may be gone, which concerns its client alone.
	_ = xml.NewEncoder(w).Encode(p)
}

// ServeHTTP answers PUT, GET and HEAD at the URLs that the store gave out.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	g, refusal := s.grant(r)
	if refusal == nil {
		switch r.Method {
		case http.MethodPut:
			refusal = s.receive(w, r, g)
		default:
			refusal = s.send(w, r, g.key)
		}
	}
	if refusal != nil {
		refusal.write(w)
	}
}

// grant returns what the URL of the request allows.
func (s *Store) grant(r *http.Request) (grant, *problem) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if method != http.MethodPut && method != http.MethodGet {
		return grant{}, &problem{Code: "MethodNotAllowed", Message: "The specified method is not allowed.", status: http.StatusMethodNotAllowed}
	}
	key, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), Path))
	query := r.URL.Query()
	g := grant{method: method, key: key, length: -1, contentType: query.Get("type")}
	g.expires, _ = strconv.ParseInt(query.Get("expires"), 10, 64)
	if length := query.Get("length"); length != "" {
		g.length, _ = strconv.ParseInt(length, 10, 64)
	}
	if err != nil || !hmac.Equal([]byte(s.sign(g)), []byte(query.Get("signature"))) {
		return grant{}, &problem{Code: "SignatureDoesNotMatch", Message: "The request signature we calculated does not match the signature you provided.", status: http.StatusForbidden}
	}
	if time.Now().Unix() > g.expires {
		return grant{}, &problem{Code: "AccessDenied", Message: "Request has expired", status: http.StatusForbidden}
	}
	return g, nil
}

// receive stores the body of a PUT.
func (s *Store) receive(w http.ResponseWriter, r *http.Request, g grant) *problem {
	switch {
	case len(r.TransferEncoding) > 0 || r.ContentLength < 0:
		return &problem{Code: "MissingContentLength", Message: "You must provide the Content-Length HTTP header.", status: http.StatusLengthRequired}
	case r.Header.Get("Content-Type") != g.contentType:
		return &problem{Code: "SignatureDoesNotMatch", Message: "The Content-Type is not the one that was signed.", status: http.StatusForbidden}
	case g.length >= 0 && r.ContentLength != g.length:
		return &problem{Code: "SignatureDoesNotMatch", Message: "The Content-Length is not the one that was signed.", status: http.StatusForbidden}
	}
	b := blob{ContentType: g.contentType, Encoding: r.Header.Get("Content-Encoding"), Length: r.ContentLength}
	if err := s.write(g.key, b, r.Body); err != nil {
		if errors.Is(err, errShort) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &problem{Code: "IncompleteBody", Message: "You did not provide the number of bytes specified by the Content-Length HTTP header.", status: http.StatusBadRequest}
		}
		return internal(err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// send answers GET and HEAD.
func (s *Store) send(w http.ResponseWriter, r *http.Request, key string) *problem {
	var b blob
	var ok bool
	err := s.db.View(func(tx *store.Tx) (err error) {
		b, ok, err = blobs.Get(tx, key)
		return err
	})
	if err != nil {
		return internal(err)
	}
	if !ok {
		return &problem{Code: "NoSuchKey", Message: "The specified key does not exist.", status: http.StatusNotFound}
	}
	file, err := s.root.Open(b.File)
	if err != nil {
		return internal(err)
	}
	defer file.Close()
	header := w.Header()
	header.Set("Content-Type", b.ContentType)
	header.Set("ETag", `"`+b.File+`"`)
	if b.Encoding != "" {
		header.Set("Content-Encoding", b.Encoding)
		if r.Header.Get("Range") == "" {
			// ServeContent omits the length of encoded contents; S3 does not.
			header.Set("Content-Length", strconv.FormatInt(b.Length, 10))
		}
	}
	http.ServeContent(w, r, "", b.Stored, file)
	return nil
}

func internal(err error) *problem {
	return &problem{Code: "InternalError", Message: err.Error(), status: http.StatusInternalServerError}
}
