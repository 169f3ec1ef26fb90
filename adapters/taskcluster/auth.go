package taskcluster

import (
	"context"
	"net/http"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
)

// Auth expands scopes with the roles of a deployment.
type Auth struct{ c *Client }

var _ auth.Expander = (*Auth)(nil)

// NewAuth returns the auth service of c's deployment.
func NewAuth(c *Client) *Auth { return &Auth{c} }

// scopeset is a set of scopes in requests and answers.
type scopeset struct {
	Scopes task.Scopes `json:"scopes"`
}

// Expand implements auth.Expander.
func (a *Auth) Expand(ctx context.Context, s task.Scopes) (task.Scopes, error) {
	if len(s) == 0 {
		return s, nil
	}
	var answer scopeset
	err := a.c.repeat(ctx, call{
		service: "auth", name: "expandScopes", method: http.MethodPost,
		path: "/scopes/expand", creds: a.c.credentials(), in: scopeset{s}, out: &answer,
	})
	if err != nil {
		return nil, err
	}
	return answer.Scopes, nil
}

// Verify asks the deployment, once, whether it is there and whether the
// worker's credentials let it claim. It is meant for a start that should rather
// fail than wait.
//
// Errors: an [UnreachableError]; a [CredentialsError]; an [Error]; and that of
// ctx. Each of them is one line that says what is wrong.
func (c *Client) Verify(ctx context.Context) error {
	if err := c.do(ctx, call{service: "queue", name: "ping", method: http.MethodGet, path: "/ping"}); err != nil {
		return err
	}
	var answer scopeset
	current := call{
		service: "auth", name: "currentScopes", method: http.MethodGet,
		path: "/scopes/current", creds: c.credentials(), out: &answer,
	}
	if err := c.do(ctx, current); err != nil {
		return err
	}
	for _, scope := range []string{
		"queue:claim-work:" + c.cfg.TaskQueueID,
		"queue:worker-id:" + c.cfg.WorkerGroup + "/" + c.cfg.WorkerID,
	} {
		if !answer.Scopes.Satisfy(scope) {
			return &CredentialsError{RootURL: c.cfg.RootURL, ClientID: current.creds.ClientID, Err: &Error{
				Op: current.op(), Status: http.StatusForbidden, Code: "InsufficientScopes",
				Message: "claiming work needs the scope " + scope,
			}}
		}
	}
	return nil
}
