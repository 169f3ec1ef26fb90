// Package api serves Taskcluster APIs from tables of endpoints: it routes
// calls, authenticates them, checks their scopes and input, and writes answers
// and errors in Taskcluster's form.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/hawk"
)

// maxBody is how many bytes the input of a call may have.
const maxBody = 10 << 20

// Endpoint is one call of a service.
type Endpoint struct {
	Name   string
	Method string // upper case
	Route  string // "/task/<taskId>"; "<name*>" may contain slashes
	// Scopes is what the caller needs, nil for nothing. If the route has all
	// its parameters, it is checked before Serve; otherwise Serve must call
	// Authorize.
	Scopes Expression
	// Input is the name of the schema of the input, empty if there is none.
	Input string
	// Serve returns what is sent as JSON, or a Reply.
	Serve func(context.Context, *Call) (any, error)
}

// Reply is an answer that is not just JSON with status 200.
type Reply struct {
	Status int
	Header map[string]string
	Body   any // sent as JSON; nothing is sent if nil
}

// NoContent is the empty answer.
func NoContent() Reply { return Reply{Status: http.StatusNoContent} }

// Service is an API: a name and its endpoints.
type Service struct {
	Name      string
	Endpoints []Endpoint
	// Params are the forms of the routes' parameters. Those that are not
	// listed may have any.
	Params map[string]*regexp.Regexp
}

// Handler serves a set of services at /api/<service>/v1/.
type Handler struct {
	services  map[string][]endpoint
	authority *auth.Authority
	log       *slog.Logger
}

type endpoint struct {
	Endpoint
	route    route
	params   map[string]*regexp.Regexp
	deferred bool // Serve authorizes
}

// NewHandler returns a handler of the services.
func NewHandler(authority *auth.Authority, log *slog.Logger, services ...Service) *Handler {
	h := &Handler{services: map[string][]endpoint{}, authority: authority, log: log}
	for _, s := range services {
		for _, e := range append(s.Endpoints, monitoring()...) {
			r := parseRoute(e.Route)
			known := Params{}
			for _, name := range r.params() {
				known[name] = ""
			}
			deferred := false
			if e.Scopes != nil {
				_, ok := e.Scopes.render(known)
				deferred = !ok
			}
			h.services[s.Name] = append(h.services[s.Name], endpoint{e, r, s.Params, deferred})
		}
	}
	return h
}

// monitoring returns the endpoints that every service has.
func monitoring() []Endpoint {
	alive := func(context.Context, *Call) (any, error) {
		return map[string]any{"alive": true, "uptime": 0}, nil
	}
	version := func(context.Context, *Call) (any, error) {
		return map[string]string{"source": "https://github.com/taskcluster/taskcluster-worker", "version": "44.23.4", "commit": "", "build": ""}, nil
	}
	return []Endpoint{
		{Name: "ping", Method: "GET", Route: "/ping", Serve: alive},
		{Name: "lbheartbeat", Method: "GET", Route: "/__lbheartbeat__", Serve: alive},
		{Name: "heartbeat", Method: "GET", Route: "/__heartbeat__", Serve: alive},
		{Name: "version", Method: "GET", Route: "/__version__", Serve: version},
	}
}

// ServeHTTP answers one call.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Tools in browsers call the API from other origins.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	path := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if len(path) < 4 || path[0] != "api" || path[2] != "v1" {
		h.fail(w, r, &Call{}, NotFound("There is no API at %s", r.URL.Path))
		return
	}
	for _, e := range h.services[path[1]] {
		if e.Method != r.Method && (e.Method != http.MethodGet || r.Method != http.MethodHead) {
			continue
		}
		params, ok := e.route.match(path[3:])
		if !ok {
			continue
		}
		call := &Call{Params: params, Name: e.Name, Query: r.URL.Query(), Request: r, scopes: e.Scopes, handler: h}
		answer, err := h.serve(r.Context(), e, call)
		if err != nil {
			h.fail(w, r, call, err)
			return
		}
		h.reply(w, r, answer)
		return
	}
	h.fail(w, r, &Call{}, NotFound("There is no %s %s", r.Method, r.URL.Path))
}

func (h *Handler) serve(ctx context.Context, e endpoint, call *Call) (any, error) {
	for name, value := range call.Params {
		if form := e.params[name]; form != nil && !form.MatchString(value) {
			return nil, InvalidArguments("Invalid URL patterns:\nURL parameter '%s' given as %q must match regular expression: %q", name, value, form)
		}
	}
	body, err := io.ReadAll(io.LimitReader(call.Request.Body, maxBody+1))
	if err != nil {
		return nil, &Error{"MalformedPayload", "Failed to read the payload: " + err.Error()}
	}
	if len(body) > maxBody {
		return nil, &Error{"InputTooLarge", fmt.Sprintf("The payload is larger than %d bytes", maxBody)}
	}
	call.body = body
	if e.Scopes != nil && !e.deferred {
		if err := call.Authorize(nil); err != nil {
			return nil, err
		}
	}
	if e.Input != "" {
		if err := call.validate(e.Input); err != nil {
			return nil, err
		}
	}
	answer, err := e.Serve(ctx, call)
	if err == nil && e.deferred && !call.authorized {
		return nil, fmt.Errorf("%s did not check the caller's scopes", e.Name)
	}
	return answer, err
}

// signed returns what of r is covered by a Hawk signature.
func signed(r *http.Request) hawk.Request {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, "80"
	}
	return hawk.Request{Method: r.Method, Resource: r.RequestURI, Host: host, Port: port}
}

func (h *Handler) reply(w http.ResponseWriter, r *http.Request, answer any) {
	reply, ok := answer.(Reply)
	if !ok {
		reply = Reply{Status: http.StatusOK, Body: answer}
		if answer == nil {
			reply.Body = struct{}{}
		}
	}
	for key, value := range reply.Header {
		w.Header().Set(key, value)
	}
	if reply.Body == nil {
		w.WriteHeader(reply.Status)
		return
	}
	raw, err := json.Marshal(reply.Body)
	if err != nil {
		h.fail(w, r, &Call{}, fmt.Errorf("write the answer: %w", err))
		return
	}
	h.write(w, r, reply.Status, raw)
}

func (h *Handler) write(w http.ResponseWriter, r *http.Request, status int, raw []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write(raw); err != nil {
		h.log.DebugContext(r.Context(), "client went away before the answer", slog.String("error", err.Error()))
	}
}

// fail answers with an error in Taskcluster's form.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, call *Call, err error) {
	known, ok := errors.AsType[*Error](err)
	if !ok {
		if r.Context().Err() == nil {
			h.log.ErrorContext(r.Context(), "call failed", slog.String("endpoint", call.Name), slog.String("error", err.Error()))
		}
		known = &Error{"InternalServerError", "Internal Server Error: " + err.Error()}
	}
	if known.Code == "AuthenticationFailed" {
		w.Header().Set("WWW-Authenticate", "hawk")
	}
	now := Date(time.Now())
	var payload any = struct{}{}
	if json.Valid(call.body) {
		payload = json.RawMessage(call.body)
	}
	params := call.Params
	if params == nil {
		params = map[string]string{}
	}
	raw, err := json.Marshal(map[string]any{
		"code": known.Code,
		"message": fmt.Sprintf("%s\n\n---\n\n* method:     %s\n* errorCode:  %s\n* statusCode: %d\n* time:       %s",
			known.Message, call.Name, known.Code, known.status(), now),
		"requestInfo": map[string]any{"method": call.Name, "params": params, "payload": payload, "time": now},
	})
	if err != nil {
		http.Error(w, known.Message, known.status())
		return
	}
	h.write(w, r, known.status(), raw)
}
