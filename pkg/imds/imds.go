// Package imds reads the metadata service of a cloud's instance.
package imds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// maxBody is how much of an answer is read, in bytes.
const maxBody = 4 << 20

// Config says how a cloud's service is asked. Values that are zero get the
// default that is given with them.
type Config struct {
	URL     string        // such as http://169.254.169.254
	Header  [2]string     // name and value, without which the service does not answer
	Timeout time.Duration // of one attempt; 10 seconds
	Tries   int           // attempts; 5
	Pause   time.Duration // between attempts; 1 second
}

// Client asks the service. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
}

// New returns a client, and what closes its connections.
func New(cfg Config) (*Client, func()) {
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.Tries = cmp.Or(cfg.Tries, 5)
	cfg.Pause = cmp.Or(cfg.Pause, time.Second)
	// The service is on the link, where no proxy is, and does not redirect.
	transport := &http.Transport{MaxIdleConns: 2, IdleConnTimeout: time.Minute}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Client{cfg, client}, transport.CloseIdleConnections
}

// Answer is what the service says.
type Answer struct {
	Body []byte
	ETag string
}

// statusError is an answer that says no.
type statusError struct {
	code int
	body string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("answer is %d %s: %.200q", e.code, http.StatusText(e.code), e.body)
}

// Missing reports whether err says that there is nothing at the path.
func Missing(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	return ok && e.code == http.StatusNotFound
}

// Get returns what is at a path. It repeats what fails for a reason that may
// pass.
func (c *Client) Get(ctx context.Context, path string, query url.Values) (Answer, error) {
	for n := 1; ; n++ {
		attempt, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		answer, err := c.Once(attempt, path, query)
		cancel()
		if err == nil || n >= c.cfg.Tries || !transient(err) || ctx.Err() != nil {
			return answer, err
		}
		select {
		case <-time.After(c.cfg.Pause):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// transient reports whether a repetition is worth it: unless the service says
// that the request is wrong.
func transient(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	return !ok || e.code >= 500 || e.code == http.StatusTooManyRequests || e.code == http.StatusGone
}

// Once makes one attempt, which takes as long as ctx lasts.
func (c *Client) Once(ctx context.Context, path string, query url.Values) (Answer, error) {
	target := c.cfg.URL + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set(c.cfg.Header[0], c.cfg.Header[1])
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return Answer{}, fmt.Errorf("read metadata %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("read metadata %s: %w", path, &statusError{resp.StatusCode, string(body)})
	}
	return Answer{body, resp.Header.Get("ETag")}, nil
}
