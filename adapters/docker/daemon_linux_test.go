package docker_test

import (
	"context"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// counting is a task that prints numbers up to 30, one every 100 ms.
func counting() map[string]any {
	return shell("i=0; while [ $i -lt 30 ]; do echo n$i; i=$((i+1)); sleep 0.1; done; echo la''st")
}

// wantOutcome checks that a task which met trouble has either come to its end,
// with all of its output, or is known to have been ended by the daemon.
func wantOutcome(t *testing.T, e *docker.Engine, trouble func()) {
	t.Helper()
	log := newRecord()
	s := begin(t, e, counting(), log)
	log.has(t.Context(), t, "n5\n")
	trouble()
	r, err := s.Wait(t.Context())
	if err != nil {
		if f := fault.Classify(err); f.Kind != fault.Shutdown {
			t.Errorf("got %v, want that the host ended it", err)
		}
		if err := s.Abort(context.Background()); err != nil {
			t.Error(err)
		}
	} else {
		if !r.Result().Success {
			t.Errorf("result %+v:\n%s", r.Result(), log)
		}
		log.has(t.Context(), t, "last\n")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	// The engine works on.
	if r, log := run(t, e, shell("echo again")); !r.Result().Success {
		t.Errorf("the next task has the result %+v:\n%s", r.Result(), log)
	}
}

func TestDaemonThatIsStoppedAndStarted(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressInternet})
	wantOutcome(t, e, func() {
		daemon.Terminate()
		if err := daemon.Launch(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDaemonThatIsKilledAndStarted(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressInternet})
	wantOutcome(t, e, func() {
		daemon.Kill()
		if err := daemon.Launch(); err != nil {
			t.Fatal(err)
		}
	})
}

// Tasks that begin while the daemon is being started again wait for it.
func TestDaemonThatIsDownIsWaitedFor(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressInternet})
	daemon.Terminate()
	launched := make(chan error, 1)
	// What is too early without waiting is so for much longer than it takes to
	// begin a task.
	time.AfterFunc(500*time.Millisecond, func() { launched <- daemon.Launch() })
	for range 3 {
		if r, log := run(t, e, shell("echo here")); !r.Result().Success {
			t.Errorf("result %+v:\n%s", r.Result(), log)
		}
	}
	if err := <-launched; err != nil {
		t.Error(err)
	}
}

func TestDaemonThatIsFrozen(t *testing.T) {
	e := open(t, docker.Config{Egress: docker.EgressInternet})
	const frozen = 30 * time.Second
	wantOutcome(t, e, func() {
		if err := daemon.Freeze(); err != nil {
			t.Fatal(err)
		}
		// Nothing happens meanwhile, so that there is nothing to wait for.
		time.AfterFunc(frozen, func() {
			if err := daemon.Thaw(); err != nil {
				t.Error(err)
			}
		})
	})
}
