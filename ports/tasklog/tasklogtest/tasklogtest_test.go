package tasklogtest

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	Test(t, func(testing.TB) tasklog.Recorder { return new(Memory) })
}

func TestTextOutlivesClose(t *testing.T) {
	var m Memory
	if got := m.Text(runA); got != "" {
		t.Errorf("text of no recording is %q", got)
	}
	err := record(&m, runA, func(r tasklog.Recording) error { return write(r, "kept") })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Text(runA), "kept"; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
}

// TestChecks shows that every check can fail. Time is simulated, so that a
// check which hangs on a broken recorder is over at once.
func TestChecks(t *testing.T) {
	defects := map[string]defects{
		"OpensFromTheFirstByte":      {openAtEnd: true},
		"OpensWhileItIsWritten":      {openLate: true},
		"TakesNothingOnceSealed":     {unsealed: true},
		"KeepsRunsApart":             {oneForAll: true},
		"StartsAgainEmpty":           {oneForAll: true},
		"KeepsWritesWhole":           {halves: true},
		"OwnsNoBuffer":               {borrow: true},
		"FollowsFromTheFirstByte":    {followAtEnd: true},
		"FollowsToTheSeal":           {endless: true},
		"FollowsWhatIsSealed":        {followAtEnd: true},
		"StopsFollowingWithContext":  {deaf: true},
		"StalledReaderHoldsUpNobody": {waitForReaders: true},
		"ClosesOnce":                 {closeTwice: errors.New("already closed")},
		"CloseEndsFollowers":         {endless: true},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			d, ok := defects[c.name]
			if !ok {
				t.Fatal("no defect that this check should catch")
			}
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				b := &broken{defects: d, quit: make(chan struct{})}
				defer close(b.quit)
				if err := c.check(ctx, b); err == nil {
					t.Error("the check passed a broken recorder")
				}
			})
		})
	}
}

type defects struct {
	openAtEnd, openLate, unsealed, oneForAll, halves, borrow bool
	followAtEnd, endless, deaf, waitForReaders               bool
	closeTwice                                               error
}

// broken is a recorder with defects.
type broken struct {
	defects
	Memory
	one  tasklog.Recording
	quit chan struct{}
}

func (b *broken) Record(id task.RunID) (tasklog.Recording, error) {
	if b.oneForAll {
		id = runA
		if b.one != nil {
			return b.one, nil
		}
	}
	r, err := b.Memory.Record(id)
	b.one = &brokenRecording{recording: r.(*recording), b: b}
	return b.one, err
}

type brokenRecording struct {
	*recording
	b      *broken
	closed int
}

func (r *brokenRecording) Write(p []byte) (int, error) {
	switch {
	case r.b.waitForReaders:
		<-r.b.quit
	case r.b.unsealed, r.b.oneForAll:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.text = append(r.text, p...)
		return len(p), nil
	case r.b.borrow && len(p) > 1:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.text = p
		return len(p), nil
	case r.b.halves:
		_, _ = r.recording.Write(p[:len(p)/2])
		<-time.After(time.Second) // simulated: lets the other writers in
		_, _ = r.recording.Write(p[len(p)/2:])
		return len(p), nil
	}
	return r.recording.Write(p)
}

func (r *brokenRecording) Open() (io.ReadCloser, error) {
	f, err := r.recording.Open()
	if r.b.openAtEnd || r.b.openLate && !r.sealed {
		_, _ = io.Copy(io.Discard, f)
	}
	return f, err
}

func (r *brokenRecording) Follow(ctx context.Context) (io.ReadCloser, error) {
	if r.b.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	f := &follower{ctx: ctx, r: r.recording}
	if r.b.followAtEnd {
		f.offset = len(r.text)
	}
	return f, nil
}

func (r *brokenRecording) Seal() error {
	if r.b.endless {
		return nil
	}
	return r.recording.Seal()
}

func (r *brokenRecording) Close() error {
	if r.b.endless {
		return nil
	}
	if r.closed++; r.closed == 2 && r.b.closeTwice != nil {
		return r.b.closeTwice
	}
	return r.recording.Close()
}
