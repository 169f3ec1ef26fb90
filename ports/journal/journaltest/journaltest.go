// Package journaltest tests implementations of the journal port, and has a
// journal in memory for the tests of everything else.
package journaltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// Harness sets up the journal under test. Its methods may fail the test.
type Harness interface {
	// Next returns the journal as the next process finds it, after the last
	// one was killed. What was returned before is used no more.
	Next(tb testing.TB) journal.Journal
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if err := c.check(t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// checks return an error rather than fail the test, so that the tests of this
// package can show that each check catches what it is for.
var checks = []struct {
	name  string
	check func(testing.TB, Harness) error
}{
	{"is empty at first", isEmptyAtFirst},
	{"keeps what was claimed", keepsWhatWasClaimed},
	{"keeps each record", keepsEachRecord},
	{"keeps the order of records", keepsTheOrder},
	{"keeps runs apart", keepsRunsApart},
	{"goes on with an entry", goesOn},
	{"goes on only with what there is", goesOnOnlyWithWhatThereIs},
	{"begins anew", beginsAnew},
	{"forgets", forgets},
	{"adds nothing to what is forgotten", addsNothingToForgotten},
	{"owns what it is given", ownsWhatItIsGiven},
	{"may be used concurrently", mayBeUsedConcurrently},
}

// now is a time as queues write it: in UTC, with milliseconds.
var now = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

// claimed returns the n-th run, as it is claimed.
func claimed(n int) journal.Saved {
	return journal.Saved{Saved: queue.Saved{
		Run:         task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: n},
		Definition:  json.RawMessage(`{"payload":{"command":["<&>"]},  "extra":1}`),
		TakenUntil:  now.Add(time.Duration(n) * time.Minute),
		Credentials: task.Credentials{ClientID: "c", AccessToken: "t", Certificate: `{"v":1}`},
	}}
}

// records are one of each kind, and some that undo others.
var records = []journal.Record{
	journal.Reached{State: run.Preparing},
	journal.Leased{TakenUntil: now.Add(time.Hour), Credentials: task.Credentials{ClientID: "d", AccessToken: "u"}},
	journal.Held{Volume: "v-1", Cache: "a cache"},
	journal.Held{Volume: "v-2", Cache: "another"},
	journal.Started{At: now.Add(time.Second)},
	journal.Reached{State: run.Running},
	journal.Uploaded{Artifact: journal.Artifact{
		Meta: artifact.Meta{Name: "public/ü.log", ContentType: "text/plain", Expires: now.Add(time.Hour)}, SHA256: "ab", Size: 3,
	}},
	journal.Released{Volume: "v-1"},
	journal.Resolving{Resolution: run.Resolution{Outcome: run.Exception, Reason: run.IntermittentTask}},
	journal.Reached{State: run.Reporting},
}

// expect returns an error unless j has just what is wanted.
func expect(j journal.Journal, want ...journal.Saved) error {
	got, err := j.Runs()
	if err != nil {
		return fmt.Errorf("Runs: %w", err)
	}
	less := func(a, b journal.Saved) bool { return a.Run.String() < b.Run.String() }
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.SortSlices(less)); diff != "" {
		return fmt.Errorf("runs (-want +got):\n%s", diff)
	}
	return nil
}

// added adds records to an entry and returns what the run is then.
func added(e journal.Entry, s journal.Saved, all ...journal.Record) journal.Saved {
	for _, r := range all {
		e.Add(r)
		s = s.After(r)
	}
	return s
}

func isEmptyAtFirst(tb testing.TB, h Harness) error {
	tb.Helper()
	return expect(h.Next(tb))
}

func keepsWhatWasClaimed(tb testing.TB, h Harness) error {
	tb.Helper()
	h.Next(tb).Begin(claimed(0))
	return errors.Join(expect(h.Next(tb), claimed(0)), expect(h.Next(tb), claimed(0)))
}

func keepsEachRecord(tb testing.TB, h Harness) error {
	tb.Helper()
	j := h.Next(tb)
	var want []journal.Saved
	for i, r := range records {
		held := journal.Held{Volume: "v-1", Cache: "held before"}
		want = append(want, added(j.Begin(claimed(i)), claimed(i), held, r))
	}
	return expect(h.Next(tb), want...)
}

func keepsTheOrder(tb testing.TB, h Harness) error {
	tb.Helper()
	want := added(h.Next(tb).Begin(claimed(0)), claimed(0), records...)
	return expect(h.Next(tb), want)
}

func keepsRunsApart(tb testing.TB, h Harness) error {
	tb.Helper()
	j := h.Next(tb)
	a, b := j.Begin(claimed(0)), j.Begin(claimed(1))
	first, second := claimed(0), claimed(1)
	for i, r := range records {
		if i%2 == 0 {
			first = added(a, first, r)
		} else {
			second = added(b, second, r)
		}
	}
	return expect(h.Next(tb), first, second)
}

func goesOn(tb testing.TB, h Harness) error {
	tb.Helper()
	want := added(h.Next(tb).Begin(claimed(0)), claimed(0), records[:5]...)
	for _, r := range records[5:] {
		j := h.Next(tb)
		if err := expect(j, want); err != nil {
			return err
		}
		e, err := j.Resume(claimed(0).Run)
		if err != nil {
			return fmt.Errorf("Resume: %w", err)
		}
		want = added(e, want, r)
	}
	return expect(h.Next(tb), want)
}

func goesOnOnlyWithWhatThereIs(tb testing.TB, h Harness) error {
	tb.Helper()
	h.Next(tb).Begin(claimed(0))
	if _, err := h.Next(tb).Resume(claimed(1).Run); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("Resume of an unknown run returned %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	return nil
}

func beginsAnew(tb testing.TB, h Harness) error {
	tb.Helper()
	added(h.Next(tb).Begin(claimed(0)), claimed(0), records...)
	want := added(h.Next(tb).Begin(claimed(0)), claimed(0), records[0])
	return expect(h.Next(tb), want)
}

func forgets(tb testing.TB, h Harness) error {
	tb.Helper()
	j := h.Next(tb)
	gone := j.Begin(claimed(0))
	j.Begin(claimed(1))
	gone.Forget()
	gone.Forget()
	j = h.Next(tb)
	if err := expect(j, claimed(1)); err != nil {
		return err
	}
	e, err := j.Resume(claimed(1).Run)
	if err != nil {
		return fmt.Errorf("Resume: %w", err)
	}
	e.Forget()
	return expect(h.Next(tb))
}

func addsNothingToForgotten(tb testing.TB, h Harness) error {
	tb.Helper()
	e := h.Next(tb).Begin(claimed(0))
	e.Forget()
	for _, r := range records {
		e.Add(r)
	}
	return expect(h.Next(tb))
}

func ownsWhatItIsGiven(tb testing.TB, h Harness) error {
	tb.Helper()
	given := claimed(0)
	h.Next(tb).Begin(given)
	copy(given.Definition, "xxxx")
	return expect(h.Next(tb), claimed(0))
}

func mayBeUsedConcurrently(tb testing.TB, h Harness) error {
	tb.Helper()
	const runs, volumes = 4, 20
	j := h.Next(tb)
	var want []journal.Saved
	var wg sync.WaitGroup
	for n := range runs {
		s := claimed(n)
		for i := range volumes {
			s = s.After(journal.Held{Volume: strconv.Itoa(i), Cache: "c"})
		}
		want = append(want, s)
		wg.Go(func() {
			e := j.Begin(claimed(n))
			var adding sync.WaitGroup
			for i := range volumes {
				adding.Go(func() { e.Add(journal.Held{Volume: strconv.Itoa(i), Cache: "c"}) })
			}
			adding.Wait()
		})
	}
	wg.Wait()
	return expect(h.Next(tb), want...)
}
