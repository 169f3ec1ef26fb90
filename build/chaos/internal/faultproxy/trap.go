package faultproxy

import (
	"net/http"
	"strings"
)

// Call is a kind of request.
type Call string

// The calls that a worker makes about runs.
const (
	Claim   Call = "claim"
	Reclaim Call = "reclaim"
	Create  Call = "createArtifact"
	Upload  Call = "upload"
	Report  Call = "report"
)

// Calls returns all calls.
func Calls() []Call { return []Call{Claim, Reclaim, Create, Upload, Report} }

// Matches reports whether a request is such a call.
func (c Call) Matches(r *http.Request) bool {
	path := r.URL.Path
	switch c {
	case Claim:
		return strings.Contains(path, "/claim-work/")
	case Reclaim:
		return strings.HasSuffix(path, "/reclaim")
	case Create:
		return r.Method == http.MethodPost && strings.Contains(path, "/artifacts/")
	case Upload:
		return r.Method == http.MethodPut && strings.HasPrefix(path, "/content/")
	case Report:
		return strings.HasSuffix(path, "/completed") || strings.HasSuffix(path, "/failed") || strings.HasSuffix(path, "/exception")
	}
	return false
}

// Moment is how far a call has come.
type Moment string

// The moments of a call.
const (
	Asked    Moment = "asked"    // the service does not have the request yet
	Done     Moment = "done"     // the service has done it, and the worker does not know
	Answered Moment = "answered" // the worker has the answer
)

// Moments returns all moments, in order.
func Moments() []Moment { return []Moment{Asked, Done, Answered} }

// Trap is what happens once, at a moment of the next call of a kind.
type Trap struct {
	Call   Call
	Moment Moment
	Do     func()
}

// Set sets a trap in place of any other, or none if t is nil.
func (p *Proxy) Set(t *Trap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = t
}

// spring springs the trap if it is for this moment of a request, and reports
// whether it did.
func (p *Proxy) spring(r *http.Request, m Moment) bool {
	p.mu.Lock()
	t := p.trap
	if t == nil || t.Moment != m || !t.Call.Matches(r) {
		p.mu.Unlock()
		return false
	}
	p.trap = nil
	p.mu.Unlock()
	t.Do()
	return true
}
