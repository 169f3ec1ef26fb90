package queuetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

func claimsAtMostN(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	for range 3 {
		h.AddTask(tb, task.Definition{})
	}
	claims, err := h.Queue(tb).Claim(ctx, 2)
	if err != nil {
		return err
	}
	if len(claims) == 0 || len(claims) > 2 {
		return fmt.Errorf("Claim(2) with 3 tasks pending granted %d claims", len(claims))
	}
	return nil
}

func claimsEachRunOnce(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	want := make(map[task.RunID]bool)
	for range 5 {
		want[task.RunID{Task: h.AddTask(tb, task.Definition{})}] = true
	}
	for len(want) > 0 {
		claims, err := h.Queue(tb).Claim(ctx, 2)
		if err != nil {
			return err
		}
		for _, c := range claims {
			if !want[c.Run()] {
				return fmt.Errorf("claimed run %v, which was not pending", c.Run())
			}
			delete(want, c.Run())
		}
	}
	return nil
}

func handsOutTheDefinition(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	want := task.Definition{
		Payload:  json.RawMessage(`{"command":[["true"]],"env":{"A":"<&>"}}`),
		Scopes:   task.Scopes{"test:scope:a", "test:scope:b"},
		Metadata: task.Metadata{Name: "definition", Description: "of a test", Owner: "owner@example.com", Source: "https://example.com"},
	}
	h.AddTask(tb, want)
	claims, err := claimAll(ctx, tb, h, 1)
	if err != nil {
		return err
	}
	got := claims[0].Task()
	if !sameJSON(got.Payload, want.Payload) || got.Metadata != want.Metadata || !slices.Equal(got.Scopes, want.Scopes) {
		return fmt.Errorf("claimed a task with payload %s, scopes %v and metadata %v; want %s, %v and %v",
			got.Payload, got.Scopes, got.Metadata, want.Payload, want.Scopes, want.Metadata)
	}
	var raw struct {
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(got.Raw, &raw); err != nil {
		return fmt.Errorf("raw definition %s: %w", got.Raw, err)
	}
	if !sameJSON(raw.Payload, want.Payload) {
		return fmt.Errorf("raw definition is %s, want one with payload %s", got.Raw, want.Payload)
	}
	if got.Deadline.IsZero() || got.Expires.Before(got.Deadline) {
		return fmt.Errorf("deadline %v and expiry %v make no sense", got.Deadline, got.Expires)
	}
	return nil
}

// sameJSON reports whether a and b are the same but for their layout.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, errP := json.Marshal(x)
	q, errQ := json.Marshal(y)
	return errP == nil && errQ == nil && bytes.Equal(p, q)
}

func returnsNoClaims(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	claims, err := h.Queue(tb).Claim(ctx, 1)
	if err != nil {
		return fmt.Errorf("Claim with nothing pending: %w", err)
	}
	if len(claims) != 0 {
		return fmt.Errorf("Claim with nothing pending returned %d claims", len(claims))
	}
	return nil
}

func waitsForATask(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	answer := claimInBackground(ctx, tb, h)
	id := h.AddTask(tb, task.Definition{})
	got := <-answer
	if got.err == nil && len(got.claims) == 0 {
		// The poll may have ended before there was a task.
		got.claims, got.err = h.Queue(tb).Claim(ctx, 1)
	}
	if got.err != nil {
		return got.err
	}
	if len(got.claims) != 1 || got.claims[0].Run().Task != id {
		return fmt.Errorf("a waiting Claim(1) granted %d claims when task %s became pending", len(got.claims), id)
	}
	return nil
}

func endsTheWait(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	canceled, cancel := context.WithCancel(ctx)
	answer := claimInBackground(canceled, tb, h)
	cancel()
	select {
	case got := <-answer:
		if len(got.claims) != 0 {
			return fmt.Errorf("granted %d claims with nothing pending", len(got.claims))
		}
		return nil
	case <-ctx.Done():
		return errors.New("Claim still waits after its context was canceled")
	}
}

// keepsWhatWasGranted races tasks that become pending against cancellation:
// whatever a canceled Claim does not return must still be pending.
func keepsWhatWasGranted(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	for round := range 8 {
		canceled, cancel := context.WithCancel(ctx)
		var answer <-chan granted
		if round%2 == 0 {
			answer = claimInBackground(canceled, tb, h)
			h.AddTask(tb, task.Definition{})
			cancel()
		} else {
			h.AddTask(tb, task.Definition{})
			cancel()
			answer = claimInBackground(canceled, tb, h)
		}
		got := <-answer
		switch {
		case len(got.claims) > 0 && got.err != nil:
			return fmt.Errorf("Claim returned %d claims with error %w", len(got.claims), got.err)
		case len(got.claims) > 0:
			continue
		}
		left, err := h.Queue(tb).Claim(ctx, 1)
		if err != nil {
			return err
		}
		if len(left) != 1 {
			return fmt.Errorf("a claim was dropped as its context was canceled (round %d)", round)
		}
	}
	return nil
}

func refusesNumbersOutOfRange(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	h.AddTask(tb, task.Definition{})
	for _, n := range []int{-1, 0, queue.MaxClaims + 1} {
		claims, err := h.Queue(tb).Claim(ctx, n)
		if err == nil {
			return fmt.Errorf("Claim(%d) returned %d claims and no error", n, len(claims))
		}
	}
	return nil
}

// granted is what a Claim returned.
type granted struct {
	claims []queue.Claim
	err    error
}

// claimInBackground calls Claim(1) and gives it a moment to begin waiting.
func claimInBackground(ctx context.Context, tb testing.TB, h Harness) <-chan granted {
	tb.Helper()
	q := h.Queue(tb)
	answer := make(chan granted, 1)
	go func() {
		claims, err := q.Claim(ctx, 1)
		answer <- granted{claims, err}
	}()
	// Nothing depends on Claim having begun, but the check is worth more.
	pause(ctx)
	return answer
}

// pause lets time pass, and more than the milliseconds that times in a queue's
// answers have.
func pause(ctx context.Context) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
	}
}
