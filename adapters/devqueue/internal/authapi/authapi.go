// Package authapi is Taskcluster's auth service: clients, roles, scopes, and
// tokens for other services.
package authapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/hawk"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// tunnelLife is how long a token for a web socket tunnel is good for.
const tunnelLife = 96 * time.Hour

// Service is the service.
type Service struct {
	directory    *Directory
	authority    *auth.Authority
	tunnelSecret string // signs tokens for web socket tunnels
}

// New returns the service over the clients and roles of directory.
func New(directory *Directory, authority *auth.Authority, tunnelSecret string) *Service {
	return &Service{directory, authority, tunnelSecret}
}

// API returns the endpoints of the service.
func (s *Service) API() api.Service {
	granting := func(verb string) api.Expression {
		return api.AllOf{api.Scope("auth:" + verb), api.Each{For: "scope", In: "scopes", Scope: "<scope>"}}
	}
	return api.Service{
		Name: "auth",
		Endpoints: []api.Endpoint{
			{Name: "expandScopes", Method: "POST", Route: "/scopes/expand", Scopes: api.Scope("auth:expand-scopes"), Input: "auth/scopes", Serve: s.expandScopes},
			{Name: "currentScopes", Method: "GET", Route: "/scopes/current", Scopes: api.Scope("auth:current-scopes"), Serve: s.currentScopes},
			{Name: "authenticateHawk", Method: "POST", Route: "/authenticate-hawk", Input: "auth/hawk", Serve: s.authenticateHawk},
			{Name: "websocktunnelToken", Method: "GET", Route: "/websocktunnel/<wstAudience>/<wstClient>", Scopes: api.Scope("auth:websocktunnel-token:<wstAudience>/<wstClient>"), Serve: s.websocktunnelToken},
			{Name: "listClients", Method: "GET", Route: "/clients/", Scopes: api.Scope("auth:list-clients"), Serve: s.listClients},
			{Name: "client", Method: "GET", Route: "/clients/<clientId*>", Scopes: api.Scope("auth:get-client:<clientId>"), Serve: s.client},
			{Name: "createClient", Method: "PUT", Route: "/clients/<clientId*>", Scopes: granting("create-client:<clientId>"), Input: "auth/client", Serve: s.createClient},
			{Name: "deleteClient", Method: "DELETE", Route: "/clients/<clientId*>", Scopes: api.Scope("auth:delete-client:<clientId>"), Serve: s.deleteClient},
			{Name: "role", Method: "GET", Route: "/roles/<roleId*>", Scopes: api.Scope("auth:get-role:<roleId>"), Serve: s.role},
			{Name: "createRole", Method: "PUT", Route: "/roles/<roleId*>", Scopes: granting("create-role:<roleId>"), Input: "auth/role", Serve: s.createRole},
			{Name: "deleteRole", Method: "DELETE", Route: "/roles/<roleId*>", Scopes: api.Scope("auth:delete-role:<roleId>"), Serve: s.deleteRole},
		},
		Params: map[string]*regexp.Regexp{
			"clientId":    regexp.MustCompile(`^[A-Za-z0-9!@/:.+|_-]+$`),
			"roleId":      regexp.MustCompile(`^[\x20-\x7e]+$`),
			"wstAudience": regexp.MustCompile(`^[a-zA-Z0-9_-]{1,38}$`),
			"wstClient":   regexp.MustCompile(`^[a-zA-Z0-9_~.%-]+$`),
		},
	}
}

func (s *Service) expandScopes(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		Scopes task.Scopes `json:"scopes"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	expanded, err := s.authority.Expand(input.Scopes)
	return map[string]any{"scopes": expanded}, err
}

func (s *Service) currentScopes(_ context.Context, c *api.Call) (any, error) {
	who, err := c.Identity()
	return map[string]any{"scopes": who.Scopes}, err
}

func (s *Service) authenticateHawk(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		Method        string `json:"method"`
		Resource      string `json:"resource"`
		Host          string `json:"host"`
		Port          int    `json:"port"`
		Authorization string `json:"authorization"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	who, err := s.authority.Authenticate(hawk.Request{
		Method: strings.ToUpper(input.Method), Resource: input.Resource, Host: input.Host, Port: strconv.Itoa(input.Port),
	}, input.Authorization, time.Now())
	if err != nil {
		return nil, fmt.Errorf("authenticate: %w", err)
	}
	if who.Status == auth.Refused {
		return map[string]any{"status": who.Status, "message": who.Message}, nil
	}
	if who.Status == auth.Unknown {
		return map[string]any{"status": who.Status, "scheme": "none", "scopes": who.Scopes, "expires": api.Date(who.Expires)}, nil
	}
	answer := map[string]any{
		"status": who.Status, "scheme": "hawk", "scopes": who.Scopes, "clientId": who.ClientID, "expires": api.Date(who.Expires),
	}
	if who.Hash != "" {
		answer["hash"] = who.Hash
	}
	return answer, nil
}

func (s *Service) websocktunnelToken(_ context.Context, c *api.Call) (any, error) {
	who, err := c.Identity()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	expires := now.Add(tunnelLife)
	token, err := sign(map[string]any{
		"tid": c.Params["wstClient"], "aud": c.Params["wstAudience"], "sub": who.ClientID, "iss": "taskcluster-auth",
		"iat": now.Unix(), "exp": expires.Unix(), "nbf": now.Add(-15 * time.Minute).Unix(),
	}, s.tunnelSecret)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"wstClient": c.Params["wstClient"], "wstAudience": c.Params["wstAudience"], "token": token, "expires": api.Date(expires),
	}, nil
}

// sign returns claims as a JSON web token with an HMAC.
func sign(claims map[string]any, secret string) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}
