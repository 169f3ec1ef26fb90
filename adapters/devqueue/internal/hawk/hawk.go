// Package hawk checks Hawk signatures of HTTP requests: those in an
// Authorization header, and those in a URL (bewit).
package hawk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Skew is how far a client's clock may be off.
const Skew = 15 * time.Minute

// Request is what is signed of an HTTP request.
type Request struct {
	Method   string // upper case
	Resource string // path and query as they were sent
	Host     string // without the port
	Port     string
}

// Signature is a signature that was found in a request. It proves nothing
// until it is verified.
type Signature struct {
	ClientID string
	Ext      string // as sent; Taskcluster puts base64 of JSON into it
	Hash     string // base64 of the payload's hash, empty if the payload is not signed

	mac      string
	time     int64
	timeText string
	nonce    string
	app, dlg string
	request  Request
	bewit    bool
}

// Errors of requests that are not signed well.
var (
	ErrFormat = errors.New("malformed Hawk signature")
	ErrBewit  = errors.New("a bewit is for GET and HEAD alone")
	ErrMAC    = errors.New("bad mac")
	ErrStale  = errors.New("stale timestamp")
	ErrOver   = errors.New("access expired")
)

// FromHeader returns the signature in the value of an Authorization header.
func FromHeader(r Request, header string) (Signature, error) {
	fields, err := attributes(header)
	if err != nil {
		return Signature{}, err
	}
	s := Signature{
		ClientID: fields["id"], Ext: fields["ext"], Hash: fields["hash"],
		mac: fields["mac"], timeText: fields["ts"], nonce: fields["nonce"], app: fields["app"], dlg: fields["dlg"], request: r,
	}
	if s.ClientID == "" || s.mac == "" || s.nonce == "" || s.timeText == "" {
		return Signature{}, fmt.Errorf("%w: missing attributes", ErrFormat)
	}
	if s.time, err = strconv.ParseInt(s.timeText, 10, 64); err != nil {
		return Signature{}, fmt.Errorf("%w: ts is no number", ErrFormat)
	}
	return s, nil
}

// attributes splits `Hawk key="value", …`.
func attributes(header string) (map[string]string, error) {
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "hawk") {
		return nil, fmt.Errorf("%w: the scheme is not Hawk", ErrFormat)
	}
	fields := map[string]string{}
	for rest = strings.TrimLeft(rest, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
		key, after, ok := strings.Cut(rest, `="`)
		if !ok {
			return nil, fmt.Errorf("%w: bad attributes", ErrFormat)
		}
		value, after, ok := strings.Cut(after, `"`)
		if _, twice := fields[key]; !ok || twice || strings.ContainsFunc(value, unprintable) {
			return nil, fmt.Errorf("%w: bad attribute", ErrFormat)
		}
		fields[key], rest = value, after
	}
	return fields, nil
}

func unprintable(r rune) bool { return r < 0x20 || r > 0x7e || r == '\\' }

// FromURL returns the signature in the bewit parameter of the request's query,
// and whether there is that parameter.
func FromURL(r Request) (Signature, bool, error) {
	path, query, _ := strings.Cut(r.Resource, "?")
	var bewit string
	var found bool
	var rest []string
	for parameter := range strings.SplitSeq(query, "&") {
		if value, ok := strings.CutPrefix(parameter, "bewit="); ok && !found {
			bewit, found = value, true
			continue
		}
		rest = append(rest, parameter)
	}
	if !found {
		return Signature{}, false, nil
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return Signature{}, true, ErrBewit
	}
	r.Method = http.MethodGet
	r.Resource = path
	if len(rest) > 0 {
		r.Resource += "?" + strings.Join(rest, "&")
	}
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.ReplaceAll(bewit, "%3D", "="), "="))
	if err != nil {
		return Signature{}, true, fmt.Errorf("%w: bewit is no base64", ErrFormat)
	}
	parts := strings.SplitN(string(decoded), `\`, 4)
	if len(parts) != 4 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return Signature{}, true, fmt.Errorf("%w: bewit lacks parts", ErrFormat)
	}
	s := Signature{ClientID: parts[0], timeText: parts[1], mac: parts[2], Ext: parts[3], request: r, bewit: true}
	if s.time, err = strconv.ParseInt(s.timeText, 10, 64); err != nil {
		return Signature{}, true, fmt.Errorf("%w: the expiry of bewit is no number", ErrFormat)
	}
	return s, true, nil
}

// Verify returns nil if the signature was made with key, for this request and
// about now. The errors are ErrMAC, ErrStale and ErrOver.
func (s Signature) Verify(key string, now time.Time) error {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(s.normalized()))
	if !hmac.Equal([]byte(s.mac), []byte(base64.StdEncoding.EncodeToString(mac.Sum(nil)))) {
		return ErrMAC
	}
	if s.bewit {
		if now.Unix() >= s.time {
			return ErrOver
		}
		return nil
	}
	if now.Add(-Skew).Unix() > s.time || now.Add(Skew).Unix() < s.time {
		return ErrStale
	}
	return nil
}

// normalized returns the text that is signed.
func (s Signature) normalized() string {
	kind := "header"
	if s.bewit {
		kind = "bewit"
	}
	var b strings.Builder
	for _, line := range []string{
		"hawk.1." + kind, s.timeText, s.nonce, s.request.Method, s.request.Resource,
		strings.ToLower(s.request.Host), s.request.Port, s.Hash, s.Ext,
	} {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	if s.app != "" {
		b.WriteString(s.app + "\n" + s.dlg + "\n")
	}
	return b.String()
}

// PayloadHash returns the hash that a client puts into a signature to cover the
// payload too.
func PayloadHash(contentType string, payload []byte) string {
	contentType, _, _ = strings.Cut(contentType, ";")
	h := sha256.New()
	h.Write([]byte("hawk.1.payload\n" + strings.ToLower(strings.TrimSpace(contentType)) + "\n"))
	h.Write(payload)
	h.Write([]byte("\n"))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
