// Package identitytest tests implementations of the identity port, and has a
// provider in memory for the tests of everything else.
package identitytest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/identity"
)

// Harness sets up the provider under test. Its methods may fail the test.
type Harness interface {
	// Provider returns the provider of a worker that is there. Every call
	// during a test returns the same one.
	Provider(tb testing.TB) identity.Provider

	// Worker returns who that worker is.
	Worker() identity.Worker

	// Accepted reports whether credentials are good for the worker's calls.
	Accepted(tb testing.TB, c task.Credentials) bool

	// Renew returns once it was time to renew credentials, if they are.
	Renew(tb testing.TB)

	// Removed reports whether the worker was removed.
	Removed(tb testing.TB) bool

	// Reports returns what was reported.
	Reports(tb testing.TB) []identity.Report
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	t.Helper()
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
	{"knows who the worker is", knowsTheWorker},
	{"has credentials", hasCredentials},
	{"has credentials after a renewal", hasCredentialsAfterRenewal},
	{"removes the worker, or says that it cannot", removes},
	{"reports errors, or says that it cannot", reportsErrors},
}

func knowsTheWorker(_ context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if diff := cmp.Diff(h.Worker(), h.Provider(tb).Worker()); diff != "" {
		return fmt.Errorf("worker (-want +got):\n%s", diff)
	}
	return nil
}

func hasCredentials(_ context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if c := h.Provider(tb).Credentials(); !h.Accepted(tb, c) {
		return fmt.Errorf("%v are not accepted", c)
	}
	return nil
}

func hasCredentialsAfterRenewal(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.Provider(tb)
	h.Renew(tb)
	return hasCredentials(ctx, tb, h)
}

func removes(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	err := h.Provider(tb).Remove(ctx)
	removed := h.Removed(tb)
	if err == nil && removed || errors.Is(err, errors.ErrUnsupported) && !removed {
		return nil
	}
	return fmt.Errorf("Remove returned %q, and the worker is removed: %t", fmt.Sprint(err), removed)
}

func reportsErrors(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	want := []identity.Report{
		{Kind: "disk-full", Title: "The disk is full", Description: "It has *0* bytes.", Extra: map[string]any{"bytes": 0.0}},
		{Kind: "other", Title: "t", Description: "d"},
	}
	for _, r := range want {
		err := h.Provider(tb).ReportError(ctx, r)
		if errors.Is(err, errors.ErrUnsupported) {
			if got := h.Reports(tb); len(got) > 0 {
				return fmt.Errorf("ReportError returned %w, and reported %v", err, got)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("ReportError: %w", err)
		}
	}
	got := h.Reports(tb)
	if len(got) == len(want) {
		for i := range want {
			// Whoever takes a report may add to what is extra.
			for key := range got[i].Extra {
				if _, ok := want[i].Extra[key]; !ok {
					delete(got[i].Extra, key)
				}
			}
			if len(got[i].Extra) == 0 {
				got[i].Extra = nil
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("reports (-want +got):\n%s", diff)
	}
	return nil
}

// Memory is a provider in memory. Its fields are set before it is used.
type Memory struct {
	Is identity.Worker

	mu      sync.Mutex
	current task.Credentials
	removed bool
	reports []identity.Report
}

var _ identity.Provider = (*Memory)(nil)

// Worker implements identity.Provider.
func (m *Memory) Worker() identity.Worker { return m.Is }

// Set renews the credentials.
func (m *Memory) Set(c task.Credentials) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = c
}

// Credentials implements identity.Provider.
func (m *Memory) Credentials() task.Credentials {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// Remove implements identity.Provider.
func (m *Memory) Remove(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removed = true
	return nil
}

// Removed reports whether Remove was called.
func (m *Memory) Removed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removed
}

// ReportError implements identity.Provider.
func (m *Memory) ReportError(_ context.Context, r identity.Report) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reports = append(m.reports, r)
	return nil
}

// Reports returns what was reported.
func (m *Memory) Reports() []identity.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]identity.Report(nil), m.reports...)
}
