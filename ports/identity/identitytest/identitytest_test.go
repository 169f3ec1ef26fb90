package identitytest

import (
	"context"
	"errors"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
)

var (
	me     = identity.Worker{Pool: "p/w", Group: "g", ID: "i"}
	first  = task.Credentials{ClientID: "first"}
	second = task.Credentials{ClientID: "second"}
)

func TestMemory(t *testing.T) {
	Test(t, func(testing.TB) Harness { return newBroken() })
}

// TestChecks shows that every check can fail.
func TestChecks(t *testing.T) {
	boom := errors.New("boom")
	defects := map[string][]func(*broken){
		"knows who the worker is": {func(b *broken) { b.Is.ID = "another" }},
		"has credentials":         {func(b *broken) { b.Set(task.Credentials{}) }},
		"has credentials after a renewal": {
			func(b *broken) { b.renew = func() { b.valid = second } },
		},
		"removes the worker, or says that it cannot": {
			func(b *broken) { b.remove = func() error { return nil } },
			func(b *broken) { b.remove = func() error { return boom } },
			func(b *broken) {
				b.remove = func() error { return errors.Join(errors.ErrUnsupported, b.Remove(t.Context())) }
			},
		},
		"reports errors, or says that it cannot": {
			func(b *broken) { b.report = func(identity.Report) error { return nil } },
			func(b *broken) { b.report = func(identity.Report) error { return boom } },
			func(b *broken) {
				b.report = func(r identity.Report) error {
					r.Extra = nil
					return b.ReportError(t.Context(), r)
				}
			},
			func(b *broken) {
				b.report = func(r identity.Report) error {
					return errors.Join(errors.ErrUnsupported, b.ReportError(t.Context(), r))
				}
			},
		},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if len(defects[c.name]) == 0 {
				t.Fatal("no defect that this check should catch")
			}
			for i, damage := range defects[c.name] {
				b := newBroken()
				damage(b)
				if err := c.check(t.Context(), t, b); err == nil {
					t.Errorf("the check passed a provider with defect %d", i)
				}
			}
		})
		delete(defects, c.name)
	}
	for name := range defects {
		t.Errorf("there is no check %q", name)
	}
}

// broken is a provider, and its harness, with the defects that are not nil.
type broken struct {
	*Memory
	valid  task.Credentials
	renew  func()
	remove func() error
	report func(identity.Report) error
}

func newBroken() *broken {
	b := &broken{Memory: &Memory{Is: me}, valid: first}
	b.Set(first)
	return b
}

func (b *broken) Provider(testing.TB) identity.Provider          { return provider{b} }
func (b *broken) Worker() identity.Worker                        { return me }
func (b *broken) Accepted(_ testing.TB, c task.Credentials) bool { return c == b.valid }
func (b *broken) Removed(testing.TB) bool                        { return b.Memory.Removed() }
func (b *broken) Reports(testing.TB) []identity.Report           { return b.Memory.Reports() }

func (b *broken) Renew(testing.TB) {
	if b.renew != nil {
		b.renew()
		return
	}
	b.valid = second
	b.Set(second)
}

type provider struct{ b *broken }

func (p provider) Worker() identity.Worker       { return p.b.Is }
func (p provider) Credentials() task.Credentials { return p.b.Credentials() }

func (p provider) Remove(ctx context.Context) error {
	if p.b.remove != nil {
		return p.b.remove()
	}
	return p.b.Remove(ctx)
}

func (p provider) ReportError(ctx context.Context, r identity.Report) error {
	if p.b.report != nil {
		return p.b.report(r)
	}
	return p.b.ReportError(ctx, r)
}
