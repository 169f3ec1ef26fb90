package tasklogtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// TestResume runs the conformance tests of a recorder whose logs outlive its
// process, each against a fresh one. It takes a recording that is neither closed
// nor used any more for one whose process has ended.
func TestResume(t *testing.T, newRecorder func(testing.TB) tasklog.Recorder) {
	t.Helper()
	for _, c := range resumeChecks {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.check(ctx, newRecorder(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

var resumeChecks = []struct {
	name  string
	check func(context.Context, tasklog.Recorder) error
}{
	{"ResumesWhereItWas", resumesWhereItWas},
	{"ResumesWhatIsEmpty", resumesWhatIsEmpty},
	{"GoesOnAfterResume", goesOnAfterResume},
	{"ResumesWhatIsSealed", resumesWhatIsSealed},
	{"ResumesNothingElse", resumesNothingElse},
	{"KnowsWhetherALineHasEnded", knowsWhetherALineHasEnded},
	{"StartsAgainWithoutWhatIsLeft", startsAgainWithoutWhatIsLeft},
	{"KeepsWhatItIsTold", keepsWhatItIsTold},
	{"CountsEveryAppend", countsEveryAppend},
	{"LeavesOutADraft", leavesOutADraft},
	{"KeepsWhatIsADraftNoMore", keepsWhatIsADraftNoMore},
}

func resumesWhereItWas(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		r.Append([]byte("one\n"), 4)
		if err := errors.Join(write(r, "of the worker\n"), resumesAt(rec, 4, "one\nof the worker\n")); err != nil {
			return err
		}
		return again(rec, func(r tasklog.Recording) error {
			r.Append([]byte("tw\x00"), 1<<40)
			r.Append(nil, 1<<40+1)
			return resumesAt(rec, 1<<40+1, "one\nof the worker\ntw\x00")
		})
	})
}

func resumesWhatIsEmpty(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(tasklog.Recording) error { return resumesAt(rec, 0, "") })
}

func goesOnAfterResume(ctx context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		r.Append([]byte("one\n"), 4)
		return again(rec, func(r tasklog.Recording) error {
			f, err := r.Follow(ctx)
			if err != nil {
				return err
			}
			r.Append([]byte("two\n"), 8)
			if err := errors.Join(write(r, "three\n"), expectText(r, "one\ntwo\nthree\n"), r.Seal()); err != nil {
				return err
			}
			followed, err := io.ReadAll(f)
			if string(followed) != "one\ntwo\nthree\n" {
				err = errors.Join(err, fmt.Errorf("Follow of a recording that was resumed yields %q", followed))
			}
			return errors.Join(err, f.Close())
		})
	})
}

func resumesWhatIsSealed(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		r.Append([]byte("one\n"), 4)
		if err := r.Seal(); err != nil {
			return err
		}
		r.Append([]byte("late\n"), 9)
		return again(rec, func(r tasklog.Recording) error {
			return errors.Join(write(r, "two\n"), resumesAt(rec, 4, "one\ntwo\n"))
		})
	})
}

func resumesNothingElse(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		if err := errors.Join(write(r, "one"), nothingLeft(rec, runB), r.Close()); err != nil {
			return err
		}
		return nothingLeft(rec, runA)
	})
}

func knowsWhetherALineHasEnded(_ context.Context, rec tasklog.Recorder) error {
	for _, tt := range []struct {
		texts []string
		want  bool
	}{
		{nil, false},
		{[]string{"one"}, true},
		{[]string{"one", "\n"}, false},
		{[]string{"one\ntwo"}, true},
		{[]string{"one", ""}, true},
	} {
		ends := func(r tasklog.Recording) error {
			if got := r.MidLine(); got != tt.want {
				return fmt.Errorf("MidLine is %t after %q", got, tt.texts)
			}
			return nil
		}
		err := record(rec, runA, func(r tasklog.Recording) error {
			for i, text := range tt.texts {
				r.Append([]byte(text), tasklog.Position(i))
			}
			if err := ends(r); err != nil {
				return err
			}
			if err := again(rec, ends); err != nil {
				return fmt.Errorf("after Resume: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func startsAgainWithoutWhatIsLeft(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		r.Append([]byte("first"), 5)
		return record(rec, runA, func(r tasklog.Recording) error {
			return errors.Join(expectText(r, ""), write(r, "second"), resumesAt(rec, 0, "second"))
		})
	})
}

func keepsWhatItIsTold(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(a tasklog.Recording) error {
		return record(rec, runB, func(b tasklog.Recording) error {
			a.Append([]byte("a"), 1)
			b.Append([]byte("b"), 1)
			if err := rec.Keep(runA); err != nil {
				return fmt.Errorf("keep: %w", err)
			}
			if err := errors.Join(nothingLeft(rec, runB), resumesAt(rec, 1, "a"), rec.Keep()); err != nil {
				return err
			}
			return nothingLeft(rec, runA)
		})
	})
}

// countsEveryAppend has others write while an engine appends.
func countsEveryAppend(_ context.Context, rec tasklog.Recorder) error {
	const lines = 200
	return record(rec, runA, func(r tasklog.Recording) error {
		var wg sync.WaitGroup
		var failed error
		wg.Go(func() {
			for range lines {
				failed = errors.Join(failed, write(r, "worker\n"))
			}
		})
		for i := range lines {
			r.Append([]byte("task\n"), tasklog.Position(i+1))
		}
		wg.Wait()
		return errors.Join(failed, again(rec, func(r tasklog.Recording) error {
			got, err := text(r)
			if n := strings.Count(got, "task\n"); err == nil && (n != lines || strings.Count(got, "worker\n") != lines) {
				err = fmt.Errorf("after %d lines of each of two writers, %d and %d are left", lines, n, strings.Count(got, "worker\n"))
			}
			return errors.Join(err, resumesAt(rec, lines, got))
		}))
	})
}

func leavesOutADraft(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		r.Append([]byte("one\n"), 4)
		r.Draft(true)
		err := write(r, "draft\n")
		r.Draft(true) // changes nothing
		r.Append([]byte("two\n"), 8)
		if err := errors.Join(err, expectText(r, "one\ndraft\ntwo\n"), r.Seal()); err != nil {
			return err
		}
		return again(rec, func(r tasklog.Recording) error {
			if err := expectText(r, "one\n"); err != nil {
				return err
			}
			r.Append([]byte("two\n"), 8)
			return errors.Join(write(r, "again\n"), resumesAt(rec, 8, "one\ntwo\nagain\n"))
		})
	})
}

func keepsWhatIsADraftNoMore(_ context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		r.Append([]byte("one\n"), 4)
		r.Draft(true)
		r.Append([]byte("two\n"), 8)
		err := write(r, "of the worker\n")
		r.Draft(false)
		return errors.Join(err, resumesAt(rec, 8, "one\ntwo\nof the worker\n"))
	})
}

// again has f use the recording of run A as the next process would.
func again(rec tasklog.Recorder, f func(tasklog.Recording) error) error {
	r, _, err := rec.Resume(runA)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	return f(r)
}

// resumesAt checks where the next process would find run A.
func resumesAt(rec tasklog.Recorder, want tasklog.Position, text string) error {
	r, got, err := rec.Resume(runA)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if got != want {
		return fmt.Errorf("Resume returns the position %d, want %d", got, want)
	}
	return expectText(r, text)
}

func nothingLeft(rec tasklog.Recorder, id task.RunID) error {
	r, _, err := rec.Resume(id)
	if err == nil {
		return errors.Join(errors.New("Resume finds a log where there is none"), r.Close())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("Resume where there is no log returned %q, want fs.ErrNotExist", err.Error())
	}
	return nil
}
