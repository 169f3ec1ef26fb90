// Package content keeps the contents of artifacts and objects as files, and
// serves them the way S3 does: at URLs that whoever holds them may PUT to or
// GET from until they expire.
package content

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// Path is where contents are served.
const Path = "/content/"

// Store keeps contents by key. Keys are arbitrary text.
type Store struct {
	root   *os.Root
	db     *store.DB
	secret string
	base   string
}

// blob describes a content that has arrived.
type blob struct {
	File        string    `json:"file"`
	ContentType string    `json:"contentType"`
	Encoding    string    `json:"encoding,omitempty"`
	Length      int64     `json:"length"`
	Stored      time.Time `json:"stored"`
}

const blobs store.Bucket[blob] = "content"

// incoming begins the names of files that are still being written.
const incoming = "incoming-"

// Open returns the store in the directory, which is made if it is missing. URLs
// begin with base and are signed with secret: they are good as long as it is
// the same.
func Open(dir string, db *store.DB, base, secret string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make content directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open content directory: %w", err)
	}
	s := &Store{root, db, secret, base}
	if err := s.sweep(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// Close releases the directory.
func (s *Store) Close() error {
	if err := s.root.Close(); err != nil {
		return fmt.Errorf("close content directory: %w", err)
	}
	return nil
}

// sweep removes what an earlier process did not finish writing.
func (s *Store) sweep() error {
	names, err := fs.Glob(s.root.FS(), incoming+"*")
	if err != nil {
		return fmt.Errorf("list unfinished contents: %w", err)
	}
	for _, name := range names {
		if err := s.root.Remove(name); err != nil {
			return fmt.Errorf("remove unfinished content: %w", err)
		}
	}
	return nil
}

// PutURL returns a URL to which a content of the given type can be PUT until
// the given time. A negative length stands for any.
func (s *Store) PutURL(key, contentType string, length int64, until time.Time) string {
	return s.url(grant{"PUT", key, contentType, length, until.Unix()})
}

// GetURL returns a URL from which the content can be had until the given time.
func (s *Store) GetURL(key string, until time.Time) string {
	return s.url(grant{"GET", key, "", -1, until.Unix()})
}

// grant is what a URL allows.
type grant struct {
	method      string
	key         string
	contentType string
	length      int64
	expires     int64 // seconds since 1970
}

func (s *Store) url(g grant) string {
	query := url.Values{"expires": {strconv.FormatInt(g.expires, 10)}, "signature": {s.sign(g)}}
	if g.method == "PUT" {
		query.Set("type", g.contentType)
		query.Set("length", strconv.FormatInt(g.length, 10))
	}
	return s.base + Path + url.PathEscape(g.key) + "?" + query.Encode()
}

func (s *Store) sign(g grant) string {
	mac := hmac.New(sha256.New, []byte(s.secret))
	fmt.Fprintf(mac, "%s %q %q %d %d", g.method, g.key, g.contentType, g.length, g.expires)
	return hex.EncodeToString(mac.Sum(nil))
}

// Has reports whether a content has arrived for the key.
func (s *Store) Has(tx *store.Tx, key string) (bool, error) {
	_, ok, err := blobs.Get(tx, key)
	return ok, err
}

// Put stores a content that is at hand.
func (s *Store) Put(key, contentType string, data []byte) error {
	return s.write(key, blob{ContentType: contentType, Length: int64(len(data))}, strings.NewReader(string(data)))
}

// errShort says that fewer or more bytes came than were announced.
var errShort = errors.New("the content's length is not as announced")

// write stores the content once all of it has come, in place of any earlier
// one.
func (s *Store) write(key string, b blob, from io.Reader) (err error) {
	b.File = rand.Text()
	b.Stored = time.Now().UTC().Truncate(time.Second)
	file, err := s.root.OpenFile(incoming+b.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("store content: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove(incoming+b.File))
		}
	}()
	n, err := io.Copy(file, io.LimitReader(from, b.Length+1))
	if err == nil && n != b.Length {
		err = errShort
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("store content: %w", err)
	}
	if err := s.root.Rename(incoming+b.File, b.File); err != nil {
		return fmt.Errorf("store content: %w", err)
	}
	var old blob
	var replaced bool
	err = s.db.Update(func(tx *store.Tx) (err error) {
		if old, replaced, err = blobs.Get(tx, key); err != nil {
			return err
		}
		return blobs.Put(tx, key, b)
	})
	if err == nil && replaced {
		err = s.remove(old.File)
	}
	return err
}

// remove deletes a file that may be gone already.
func (s *Store) remove(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove content: %w", err)
	}
	return nil
}
