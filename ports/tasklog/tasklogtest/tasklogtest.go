// Package tasklogtest tests implementations of the tasklog port, and has a
// recorder in memory for the tests of everything else.
package tasklogtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Test runs the conformance tests, each against a fresh recorder.
func Test(t *testing.T, newRecorder func(testing.TB) tasklog.Recorder) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.check(ctx, newRecorder(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// checks return an error rather than fail the test, so that the tests of this
// package can show that each check catches what it is for.
var checks = []struct {
	name  string
	check func(context.Context, tasklog.Recorder) error
}{
	{"OpensFromTheFirstByte", opensFromTheFirstByte},
	{"OpensWhileItIsWritten", opensWhileItIsWritten},
	{"TakesNothingOnceSealed", takesNothingOnceSealed},
	{"KeepsRunsApart", keepsRunsApart},
	{"StartsAgainEmpty", startsAgainEmpty},
	{"KeepsWritesWhole", keepsWritesWhole},
	{"OwnsNoBuffer", ownsNoBuffer},
	{"FollowsFromTheFirstByte", followsFromTheFirstByte},
	{"FollowsToTheSeal", followsToTheSeal},
	{"FollowsWhatIsSealed", followsWhatIsSealed},
	{"StopsFollowingWithContext", stopsFollowingWithContext},
	{"StalledReaderHoldsUpNobody", stalledReaderHoldsUpNobody},
	{"ClosesOnce", closesOnce},
	{"CloseEndsFollowers", closeEndsFollowers},
}

var (
	runA = task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: 0}
	runB = task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ", Run: 1}
)

func opensFromTheFirstByte(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		if err := write(r, "one\n", "", "two"); err != nil {
			return err
		}
		if err := r.Seal(); err != nil {
			return err
		}
		return errors.Join(expectText(r, "one\ntwo"), expectText(r, "one\ntwo"))
	})
}

func opensWhileItIsWritten(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		if err := errors.Join(write(r, "one\n"), expectText(r, "one\n")); err != nil {
			return err
		}
		return errors.Join(write(r, "two\n"), expectText(r, "one\ntwo\n"))
	})
}

func takesNothingOnceSealed(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		err := errors.Join(write(r, "one\n"), r.Seal(), r.Seal(), write(r, "late\n"))
		if err != nil {
			return err
		}
		return expectText(r, "one\n")
	})
}

func keepsRunsApart(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(a tasklog.Recording) error {
		return record(rec, runB, func(b tasklog.Recording) error {
			err := errors.Join(write(a, "a"), write(b, "b"), write(a, "A"), a.Close(), write(b, "B"))
			if err != nil {
				return err
			}
			return expectText(b, "bB")
		})
	})
}

func startsAgainEmpty(_ context.Context, rec tasklog.Recorder) error {
	first := record(rec, runA, func(r tasklog.Recording) error { return write(r, "first") })
	second := record(rec, runA, func(r tasklog.Recording) error {
		return errors.Join(write(r, "second"), expectText(r, "second"))
	})
	return errors.Join(first, second)
}

func keepsWritesWhole(_ context.Context, rec tasklog.Recorder) error {
	const writers, lines = 8, 100
	return record(rec, runA, func(r tasklog.Recording) error {
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for range lines {
					errs[w] = errors.Join(errs[w], write(r, strings.Repeat(string(rune('a'+w)), 50)+"\n"))
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		text, err := text(r)
		if err != nil {
			return err
		}
		got := map[string]int{}
		for line := range strings.Lines(text) {
			got[line]++
		}
		for w := range writers {
			line := strings.Repeat(string(rune('a'+w)), 50) + "\n"
			if got[line] != lines {
				return fmt.Errorf("found %d of %d lines that one of %d writers wrote", got[line], lines, writers)
			}
		}
		return nil
	})
}

func ownsNoBuffer(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		p := []byte("mine")
		if _, err := r.Write(p); err != nil {
			return err
		}
		copy(p, "xxxx")
		return errors.Join(write(r, "\n"), expectText(r, "mine\n"))
	})
}

func closesOnce(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		err := errors.Join(write(r, "one"), r.Close(), r.Close(), r.Seal())
		if err != nil {
			return fmt.Errorf("close again: %w", err)
		}
		return write(r, "late")
	})
}

// record has f use a recording, and closes it.
func record(rec tasklog.Recorder, id task.RunID, f func(tasklog.Recording) error) (err error) {
	r, err := rec.Record(id)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return f(r)
}

func write(w io.Writer, texts ...string) error {
	for _, s := range texts {
		if n, err := io.WriteString(w, s); n != len(s) || err != nil {
			return fmt.Errorf("Write of %d bytes returned %d, %w", len(s), n, err)
		}
	}
	return nil
}

func text(r tasklog.Recording) (string, error) {
	f, err := r.Open()
	if err != nil {
		return "", fmt.Errorf("open: %w", err)
	}
	b, err := io.ReadAll(f)
	return string(b), errors.Join(err, f.Close())
}

func expectText(r tasklog.Recording, want string) error {
	got, err := text(r)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("Open yields %q, want %q", got, want)
	}
	return nil
}
