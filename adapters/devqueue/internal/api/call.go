package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/hawk"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Call is one call of an endpoint.
type Call struct {
	Name    string
	Params  map[string]string // of the route, unescaped
	Query   url.Values
	Request *http.Request

	body       []byte
	scopes     Expression
	handler    *Handler
	identity   *auth.Identity
	authorized bool
}

// Decode reads the input, which has been validated before, into v.
func (c *Call) Decode(v any) error {
	if err := json.Unmarshal(c.body, v); err != nil {
		return &Error{"MalformedPayload", "Failed to parse the payload: " + err.Error()}
	}
	return nil
}

// Identity returns who calls.
func (c *Call) Identity() (auth.Identity, error) {
	if c.identity != nil {
		return *c.identity, nil
	}
	who, err := c.handler.authority.Authenticate(signed(c.Request), c.Request.Header.Get("Authorization"), time.Now())
	if err != nil {
		return auth.Identity{}, fmt.Errorf("authenticate: %w", err)
	}
	if computed := hawk.PayloadHash(c.Request.Header.Get("Content-Type"), c.body); who.Hash != "" && who.Hash != computed {
		who = auth.Identity{Status: auth.Refused, Message: fmt.Sprintf("Invalid payload hash: %s\nComputed payload hash: %s", who.Hash, computed)}
	}
	c.identity = &who
	return who, nil
}

// Authorize checks that the caller has the scopes of the endpoint. The
// parameters of the route need not be given again.
func (c *Call) Authorize(more Params) error {
	params := Params{}
	for name, value := range c.Params {
		params[name] = value
	}
	maps.Copy(params, more)
	required, ok := c.scopes.render(params)
	if !ok {
		return fmt.Errorf("the scopes of %s have unknown parameters", c.Name)
	}
	who, err := c.Identity()
	if err != nil {
		return err
	}
	c.authorized = true
	switch {
	case who.Status == auth.Refused:
		return &Error{"AuthenticationFailed", who.Message}
	case required.satisfied(who.Scopes):
		return nil
	case who.Status == auth.Unknown:
		return &Error{"InsufficientScopes", "This request requires Taskcluster credentials that satisfy the following scope expression:\n\n```\n" + text(required) + "\n```"}
	}
	return &Error{"InsufficientScopes", fmt.Sprintf("Client ID %s does not have sufficient scopes and is missing the following scopes:\n\n"+
		"```\n%s\n```\n\nThis request requires the client to satisfy the following scope expression:\n\n```\n%s\n```",
		who.ClientID, text(missing(required, who.Scopes)), text(required))}
}

// Run returns the parameter runId.
func (c *Call) Run() (int, error) {
	run, err := strconv.Atoi(c.Params["runId"])
	if err != nil {
		return 0, InvalidArguments("runId %q is no number", c.Params["runId"])
	}
	return run, nil
}

// Paging returns the key after which a listing goes on and how many entries it
// may have.
func (c *Call) Paging() (after string, limit int, err error) {
	limit = 1000
	if text := c.Query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return "", 0, InvalidArguments("Query-string parameter 'limit' given as %q must be a positive number", text)
		}
		limit = min(limit, n)
	}
	token, err := base64.RawURLEncoding.DecodeString(c.Query.Get("continuationToken"))
	if err != nil {
		return "", 0, InvalidArguments("Query-string parameter 'continuationToken' is none that was given out")
	}
	return string(token), limit, nil
}

// Listing returns the answer to a call that lists something, under the given
// name.
func Listing[T, V any](name string, page store.Page[T], view func(key string, value T) V) map[string]any {
	list := make([]V, 0, len(page.Keys))
	for i, key := range page.Keys {
		list = append(list, view(key, page.Values[i]))
	}
	answer := map[string]any{name: list}
	if page.Next != "" {
		answer["continuationToken"] = base64.RawURLEncoding.EncodeToString([]byte(page.Next))
	}
	return answer
}

// Credentials is the form in which the APIs give out temporary credentials.
type Credentials struct {
	ClientID    string `json:"clientId"`
	AccessToken string `json:"accessToken"`
	Certificate string `json:"certificate"`
}

// View returns the form of c for an answer.
func View(c task.Credentials) Credentials {
	return Credentials{c.ClientID, c.AccessToken, c.Certificate}
}

// isJSON reports whether a content type is that of JSON.
func isJSON(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "application/json")
}
