// Package auth knows who may do what: clients, roles, temporary credentials,
// and the identity behind a signed request.
package auth

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/hawk"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Status says how a request was authenticated.
type Status string

// The statuses of requests: signed well, signed badly, not signed.
const (
	Success Status = "auth-success"
	Refused Status = "auth-failed"
	Unknown Status = "no-auth"
)

// Identity is who sent a request.
type Identity struct {
	Status   Status
	Message  string // why it was refused
	ClientID string
	Scopes   task.Scopes // expanded
	Expires  time.Time
	Hash     string // of the payload, empty if it is not signed
}

// Client is a permanent client.
type Client struct {
	AccessToken string      `json:"accessToken"`
	Scopes      task.Scopes `json:"scopes"`
	Expires     time.Time   `json:"expires"`
	Disabled    bool        `json:"disabled"`
}

// Directory finds clients and roles.
type Directory interface {
	Client(id string) (Client, bool, error)
	Roles() (Roles, error)
}

// principal is a client with all its scopes.
type principal struct {
	id          string
	accessToken string
	scopes      task.Scopes
	expires     time.Time
}

// service is the client in whose name the deployment gives out credentials. It
// is known to this process and the database alone.
const service = "static/devqueue"

// Authority authenticates requests and gives out credentials.
type Authority struct {
	directory Directory
	secret    string // access token of service
}

// New returns an authority over the clients and roles of directory. The secret
// signs temporary credentials: with the same secret they are good after a
// restart.
func New(directory Directory, secret string) *Authority { return &Authority{directory, secret} }

// Token returns an access token that cannot be guessed: 44 characters of
// URL-safe base64.
func Token() (string, error) {
	token := make([]byte, 33)
	if _, err := rand.Read(token); err != nil {
		return "", fmt.Errorf("make an access token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(token), nil
}

// Issue returns temporary credentials for clientID with the given scopes.
func (a *Authority) Issue(clientID string, start, expiry time.Time, scopes ...string) (task.Credentials, error) {
	return issue(clientID, start, expiry, scopes, principal{id: service, accessToken: a.secret})
}

// Expand returns scopes and all that they imply through roles.
func (a *Authority) Expand(scopes task.Scopes) (task.Scopes, error) {
	roles, err := a.directory.Roles()
	if err != nil {
		return nil, err
	}
	return roles.Expand(scopes), nil
}

// Authenticate says who signed the request. The authorization is the header of
// that name, empty if there is none. An error is one of this process, not of
// the client.
func (a *Authority) Authenticate(r hawk.Request, authorization string, now time.Time) (Identity, error) {
	roles, err := a.directory.Roles()
	if err != nil {
		return Identity{}, err
	}
	signature, bewit, err := hawk.FromURL(r)
	switch {
	case bewit && authorization != "":
		return refuse(errors.New("cannot use two authentication schemes at once: this request has both a bewit in its query and an authorization header")), nil
	case authorization != "":
		signature, err = hawk.FromHeader(r, authorization)
	case !bewit:
		return Identity{Status: Unknown, Scopes: roles.Expand(anonymous()), Expires: now.Add(15 * time.Minute)}, nil
	}
	if err != nil {
		return refuse(err), nil
	}
	who, refusal, err := a.principal(signature, roles, now)
	if err != nil {
		return Identity{}, err
	}
	if refusal == nil {
		refusal = signature.Verify(who.accessToken, now)
	}
	if refusal != nil {
		return refuse(refusal), nil
	}
	return Identity{
		Status: Success, ClientID: signature.ClientID, Expires: who.expires, Hash: signature.Hash,
		// Whoever limits itself still is at least anybody.
		Scopes: roles.Expand(append(who.scopes, anonymous()...)),
	}, nil
}

// anonymous is what anybody may do.
func anonymous() task.Scopes { return task.Scopes{"assume:anonymous"} }

func refuse(err error) Identity { return Identity{Status: Refused, Message: err.Error()} }

// limits are what a client imposes on its own request, in the signature's ext.
type limits struct {
	Certificate      *certificate `json:"certificate"`
	AuthorizedScopes task.Scopes  `json:"authorizedScopes"`
}

// principal returns what the signer of a request may do and the token it must
// have signed with.
func (a *Authority) principal(s hawk.Signature, roles Roles, now time.Time) (who principal, refusal, err error) {
	var limit limits
	if s.Ext != "" {
		raw, err := base64.StdEncoding.DecodeString(s.Ext)
		if err != nil {
			return principal{}, errors.New("failed to parse ext"), nil
		}
		if err := json.Unmarshal(raw, &limit); err != nil {
			return principal{}, errors.New("failed to parse ext"), nil
		}
	}
	id := s.ClientID
	if limit.Certificate != nil && limit.Certificate.Issuer != "" {
		if id = limit.Certificate.Issuer; id == s.ClientID {
			return principal{}, errors.New("ext.certificate.issuer must differ from the supplied clientId"), nil
		}
	}
	who, refusal, err = a.permanent(id, roles, now)
	if err != nil || refusal != nil {
		return principal{}, refusal, err
	}
	if c := limit.Certificate; c != nil {
		if refusal := c.check(s.ClientID, who, now); refusal != nil {
			return principal{}, refusal, nil
		}
		who = principal{id: s.ClientID, accessToken: c.accessToken(who.accessToken), scopes: c.Scopes, expires: time.UnixMilli(c.Expiry)}
	}
	if limit.AuthorizedScopes != nil {
		have := roles.Expand(append(who.scopes, anonymous()...))
		if !validScopes(limit.AuthorizedScopes) || !have.Satisfy(limit.AuthorizedScopes...) {
			return principal{}, fmt.Errorf("supplied credentials do not satisfy authorizedScopes; credentials have scopes: %q; authorizedScopes are: %q",
				have, limit.AuthorizedScopes), nil
		}
		who.scopes = limit.AuthorizedScopes
	}
	return who, nil, nil
}

// permanent returns the client with the given id and all its scopes.
func (a *Authority) permanent(id string, roles Roles, now time.Time) (who principal, refusal, err error) {
	if id == service {
		return principal{id: service, accessToken: a.secret, scopes: task.Scopes{"*"}, expires: now.Add(maxLifetime)}, nil, nil
	}
	client, ok, err := a.directory.Client(id)
	switch {
	case err != nil:
		return principal{}, nil, err
	case !ok:
		return principal{}, fmt.Errorf("client with clientId '%s' not found", id), nil
	case client.Disabled:
		return principal{}, fmt.Errorf("client with clientId '%s' is disabled", id), nil
	case !client.Expires.IsZero() && client.Expires.Before(now):
		return principal{}, fmt.Errorf("client with clientId: '%s' has expired", id), nil
	}
	who = principal{
		id: id, accessToken: client.AccessToken, expires: client.Expires,
		scopes: roles.Expand(append(append(task.Scopes{}, client.Scopes...), assume+"client-id:"+id)),
	}
	if who.expires.IsZero() {
		who.expires = now.Add(maxLifetime)
	}
	return who, nil, nil
}
