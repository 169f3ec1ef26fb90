// Package client is a queue as the author of a task sees it: it creates tasks,
// follows them, and fetches their artifacts.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tent/hawk-go"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// The longest answer that is read, in bytes, and the time that a call takes at
// most.
const (
	maxAnswer   = 16 << 20
	callTimeout = 30 * time.Second
)

// Client calls the queue of one deployment. It is safe for concurrent use.
type Client struct {
	rootURL string
	creds   task.Credentials // permanent ones
	http    *http.Client
}

// New returns a client of the deployment. The returned function closes its
// connections.
func New(rootURL string, creds task.Credentials) (*Client, func()) {
	transport := &http.Transport{DisableCompression: true} // contents are wanted as they are stored
	return &Client{
		rootURL: strings.TrimRight(rootURL, "/"),
		creds:   creds,
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, transport.CloseIdleConnections
}

// Status is that of a task.
type Status struct {
	TaskID task.ID `json:"taskId"`
	State  string  `json:"state"`
	Runs   []Run   `json:"runs"`
}

// Run is one run in a [Status].
type Run struct {
	State          string    `json:"state"`
	ReasonResolved string    `json:"reasonResolved"`
	Scheduled      time.Time `json:"scheduled"`
	Started        time.Time `json:"started"`
	Resolved       time.Time `json:"resolved"`
}

// Error is the answer of a queue that did not do what it was asked.
type Error struct {
	Status  int
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// NewTaskID makes an id for a task: a random UUID whose first bit is 0, so that
// the id does not begin with a dash.
func NewTaskID() task.ID {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return task.ID(base64.RawURLEncoding.EncodeToString(id[:]))
}

// Create creates a task.
//
// Errors: *Error, if the queue refuses the definition.
func (c *Client) Create(ctx context.Context, id task.ID, definition json.RawMessage) error {
	return c.call(ctx, http.MethodPut, "/task/"+string(id), definition, nil)
}

// Status returns the status of a task.
func (c *Client) Status(ctx context.Context, id task.ID) (Status, error) {
	var answer struct {
		Status Status `json:"status"`
	}
	err := c.call(ctx, http.MethodGet, "/task/"+string(id)+"/status", nil, &answer)
	return answer.Status, err
}

func (c *Client) call(ctx context.Context, method, path string, in json.RawMessage, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of the queue: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp.StatusCode, body)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read answer of the queue: %w", err)
	}
	return nil
}

// send sends a signed request.
func (c *Client) send(ctx context.Context, method, path string, in json.RawMessage) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.rootURL+"/api/queue/v1"+path, bytes.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("call the queue: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	signature := hawk.NewRequestAuth(req, &hawk.Credentials{ID: c.creds.ClientID, Key: c.creds.AccessToken, Hash: sha256.New}, 0)
	req.Header.Set("Authorization", signature.RequestHeader())
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call the queue: %w", withoutURL(err))
	}
	return resp, nil
}

func refusal(status int, body []byte) error {
	var answer struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Message == "" {
		answer.Message = http.StatusText(status)
	}
	// Services append a description of the request.
	message, _, _ := strings.Cut(answer.Message, "\n---\n")
	return &Error{status, strings.TrimSpace(message)}
}

// withoutURL returns err without the URL that http adds, which may be signed.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
