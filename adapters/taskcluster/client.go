package taskcluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// Bounds on what is read of an answer, in bytes. Definitions of tasks, of which
// claimWork returns up to 32, may have 1 MiB each.
const (
	maxAnswer = 64 << 20
	maxError  = 64 << 10
)

// Client is a worker's connection to a deployment, which all that is made from
// it shares. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
	tel  telemetry.Telemetry
	log  *slog.Logger

	creds *atomic.Pointer[task.Credentials] // the worker's own

	// What the deployment turned out to be too old for.
	noContentLength, noBootTime atomic.Bool
}

// NewClient returns a connection as cfg says, without making any call. The
// returned function closes connections that are kept open for later calls.
func NewClient(cfg Config, tel telemetry.Telemetry, log *slog.Logger) (*Client, func(), error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, nil, fmt.Errorf("connect to Taskcluster: %w", err)
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		// Each of 250 tasks may be calling, and all of them at once.
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		// A second line of defense behind the time-outs of each call.
		ResponseHeaderTimeout: 2 * max(cfg.CallTimeout, cfg.PollTimeout, cfg.StallTimeout),
		WriteBufferSize:       64 << 10,
	}
	c := &Client{
		cfg: cfg,
		http: &http.Client{
			Transport: transport,
			// No API redirects, and content goes where the queue said.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		tel:   tel,
		log:   log,
		creds: &atomic.Pointer[task.Credentials]{},
	}
	if cfg.As != nil {
		c.creds = cfg.As.creds
	} else {
		c.SetCredentials(cfg.Credentials)
	}
	return c, transport.CloseIdleConnections, nil
}

// SetCredentials replaces the worker's own credentials, for all calls that
// begin afterwards, also those of clients that share them. Calls about a run use those of its claim, and go on.
func (c *Client) SetCredentials(creds task.Credentials) { c.creds.Store(&creds) }

// credentials returns the worker's own credentials.
func (c *Client) credentials() task.Credentials { return *c.creds.Load() }

// call is a call of an API.
type call struct {
	service string // such as "queue"
	name    string // the API's name of the method
	method  string // of HTTP
	path    string // below the service's root, escaped
	query   url.Values
	creds   task.Credentials // the zero Credentials call anonymously
	in      any              // marshaled as the body, unless nil
	out     any              // the answer is unmarshaled to it, unless nil
	clocks  *reading         // set to what comes with the answer, unless nil
	timeout time.Duration    // Config.CallTimeout if zero
}

func (r *call) op() string { return r.service + "." + r.name }

// do makes one attempt of r. Its errors are an [Error], which may be in a
// [CredentialsError]; an [UnreachableError]; and that of ctx.
func (c *Client) do(ctx context.Context, r call) (err error) {
	ctx, end := c.tel.Span(ctx, "taskcluster."+r.op())
	defer func() { end(err) }()

	timed, cancel := context.WithTimeoutCause(ctx, cmp.Or(r.timeout, c.cfg.CallTimeout), errTimeout)
	defer cancel()
	req, err := c.request(timed, r)
	if err != nil {
		return fmt.Errorf("%s: %w", r.op(), err)
	}
	asked := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return unreachable(ctx, timed, c.cfg.RootURL, r.op(), err)
	}
	defer resp.Body.Close()
	if r.clocks != nil {
		*r.clocks = readClocks(resp, asked)
	}
	if resp.StatusCode >= 300 {
		e, err := c.refused(resp, r)
		if err != nil {
			return unreachable(ctx, timed, c.cfg.RootURL, r.op(), err)
		}
		return e
	}
	if r.out == nil {
		// Reading to the end lets the connection be used again; that fails at
		// nobody's cost.
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxError))
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return unreachable(ctx, timed, c.cfg.RootURL, r.op(), err)
	}
	if len(body) > maxAnswer {
		return &Error{Op: r.op(), Status: resp.StatusCode, Message: "answer is too long"}
	}
	if err := json.Unmarshal(body, r.out); err != nil {
		return &Error{Op: r.op(), Status: resp.StatusCode, Message: "answer not understood: " + err.Error()}
	}
	return nil
}

// request returns r, signed.
func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	var body io.Reader = http.NoBody
	if r.in != nil {
		raw, err := json.Marshal(r.in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	target := strings.TrimRight(c.cfg.RootURL, "/") + "/api/" + r.service + "/v1" + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	if r.in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.creds.ClientID == "" {
		return req, nil
	}
	creds := tcclient.Credentials{
		ClientID:    r.creds.ClientID,
		AccessToken: r.creds.AccessToken,
		Certificate: r.creds.Certificate,
	}
	if err := creds.SignRequest(req); err != nil {
		return nil, errors.New("credentials cannot sign: the certificate is malformed")
	}
	return req, nil
}

// refused reads the answer of a service that refuses r. What follows from a
// refusal depends on its words, so one that does not come whole is none.
func (c *Client) refused(resp *http.Response, r call) (refusal, err error) {
	e := &Error{Op: r.op(), Status: resp.StatusCode, retryAfter: retryAfter(resp.Header)}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Message != "" {
		// Services append a description of the request.
		message, _, _ := strings.Cut(answer.Message, "\n---\n")
		e.Code, e.Message = answer.Code, strings.TrimSpace(message)
	}
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return &CredentialsError{RootURL: c.cfg.RootURL, ClientID: r.creds.ClientID, Err: e}, nil
	}
	return e, nil
}

// retryAfter returns how long h asks to wait, or 0.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 16); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// segments returns the path made of literal and escaped segments: those at odd
// places are escaped.
func segments(parts ...string) string {
	var b strings.Builder
	for i, p := range parts {
		if i%2 == 1 {
			p = url.PathEscape(p)
		}
		b.WriteString(p)
	}
	return b.String()
}
