// Package authtest tests implementations of the auth port, and has an expander
// in memory for the tests of everything else.
package authtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/auth"
)

// Harness sets up the expander under test. Its methods may fail the test.
type Harness interface {
	// Expander returns the expander.
	Expander(tb testing.TB) auth.Expander

	// AddRole makes a role, such as "hook-id:*", that stands for scopes.
	AddRole(tb testing.TB, role string, scopes task.Scopes)
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.check(ctx, t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// checks return an error rather than fail the test, so that the tests of this
// package can show that each check catches what it is for.
var checks = []struct {
	name  string
	check func(context.Context, testing.TB, Harness) error
}{
	{"keeps what it is given", keepsWhatItIsGiven},
	{"adds the scopes of a role", addsTheScopesOfARole},
	{"adds nothing else", addsNothingElse},
	{"expands roles of roles", expandsRolesOfRoles},
	{"expands roles that assume each other", expandsCycles},
	{"a role may end in a star", roleMayEndInAStar},
	{"a scope may end in a star", scopeMayEndInAStar},
	{"ends when canceled", endsWhenCanceled},
	{"may be used concurrently", mayBeUsedConcurrently},
}

// want returns an error unless scopes expand to what satisfies all of has and
// none of lacks.
func want(ctx context.Context, tb testing.TB, h Harness, scopes, has, lacks task.Scopes) error {
	tb.Helper()
	got, err := h.Expander(tb).Expand(ctx, scopes)
	if err != nil {
		return err
	}
	for _, s := range has {
		if !got.Satisfy(s) {
			return fmt.Errorf("%v expanded to %v, which lacks %s", scopes, got, s)
		}
	}
	for _, s := range lacks {
		if got.Satisfy(s) {
			return fmt.Errorf("%v expanded to %v, which has %s", scopes, got, s)
		}
	}
	return nil
}

func keepsWhatItIsGiven(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	return errors.Join(
		want(ctx, tb, h, nil, nil, task.Scopes{"a"}),
		want(ctx, tb, h, task.Scopes{"a", "assume:unknown"}, task.Scopes{"a", "assume:unknown"}, nil),
	)
}

func addsTheScopesOfARole(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.AddRole(tb, "r", task.Scopes{"a", "b"})
	return want(ctx, tb, h, task.Scopes{"assume:r"}, task.Scopes{"a", "b", "assume:r"}, nil)
}

func addsNothingElse(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.AddRole(tb, "r", task.Scopes{"a"})
	h.AddRole(tb, "rr", task.Scopes{"b"})
	h.AddRole(tb, "other", task.Scopes{"c"})
	return errors.Join(
		want(ctx, tb, h, task.Scopes{"assume:r"}, nil, task.Scopes{"b", "c"}),
		want(ctx, tb, h, task.Scopes{"r", "x:assume:r"}, nil, task.Scopes{"a", "b", "c"}),
	)
}

func expandsRolesOfRoles(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.AddRole(tb, "r1", task.Scopes{"assume:r2"})
	h.AddRole(tb, "r2", task.Scopes{"assume:r3"})
	h.AddRole(tb, "r3", task.Scopes{"a"})
	return want(ctx, tb, h, task.Scopes{"assume:r1"}, task.Scopes{"a", "assume:r3"}, nil)
}

func expandsCycles(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	// A role that assumes one that is made later is no mistake.
	h.AddRole(tb, "r1", task.Scopes{"a", "assume:r2"})
	h.AddRole(tb, "r2", task.Scopes{"b", "assume:r1"})
	return want(ctx, tb, h, task.Scopes{"assume:r2"}, task.Scopes{"a", "b"}, nil)
}

func roleMayEndInAStar(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.AddRole(tb, "r:*", task.Scopes{"a"})
	return errors.Join(
		want(ctx, tb, h, task.Scopes{"assume:r:x"}, task.Scopes{"a"}, nil),
		want(ctx, tb, h, task.Scopes{"assume:q:x"}, nil, task.Scopes{"a"}),
	)
}

func scopeMayEndInAStar(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.AddRole(tb, "r:x", task.Scopes{"a"})
	h.AddRole(tb, "r:y", task.Scopes{"b"})
	h.AddRole(tb, "q:z", task.Scopes{"c"})
	return want(ctx, tb, h, task.Scopes{"assume:r:*"}, task.Scopes{"a", "b"}, task.Scopes{"c"})
}

func endsWhenCanceled(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if got, err := h.Expander(tb).Expand(ctx, task.Scopes{"assume:r"}); err == nil {
		return fmt.Errorf("Expand with a canceled context returned %v", got)
	}
	return nil
}

func mayBeUsedConcurrently(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.AddRole(tb, "r", task.Scopes{"a"})
	e := h.Expander(tb)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			got, err := e.Expand(ctx, task.Scopes{"assume:r"})
			if err == nil && !got.Satisfy("a") {
				err = fmt.Errorf("expanded to %v", got)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
