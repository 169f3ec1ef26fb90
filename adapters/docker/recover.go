package docker

import (
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// awaitEnd waits for the end of the container. Where the daemon is lost
// meanwhile, it waits for it to come back: the task may well go on without it.
func (s *sandbox) awaitEnd() (container.State, error) {
	ended, code := s.await()
	if ended && code == 0 {
		return container.State{}, nil
	}
	giveUp := time.Now().Add(s.e.config.DaemonPatience)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		state, err := s.inspect()
		switch {
		case s.ctx.Err() != nil:
			return state, s.ctx.Err()
		case errdefs.IsNotFound(err):
			return state, shutdown(err, "the Docker daemon has lost the task's container")
		case err != nil && time.Now().After(giveUp):
			return state, shutdown(err, "the Docker daemon is gone")
		case err == nil && !state.Running:
			return state, nil
		case err == nil:
			ended, _ := s.await()
			giveUp = time.Now().Add(s.e.config.DaemonPatience)
			if ended {
				continue
			}
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// await waits for the end of the container's first process, or of the connection
// to the daemon.
func (s *sandbox) await() (ended bool, code int) {
	wait := s.e.daemon.ContainerWait(s.ctx, s.id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case r := <-wait.Result:
		return true, int(r.StatusCode)
	case err := <-wait.Error:
		if s.ctx.Err() == nil {
			s.e.log.WarnContext(s.ctx, "the Docker daemon was lost", slog.String("container", s.id), slog.Any("error", err))
		}
		return false, 0
	}
}

// shutdown is a fault of the host: another run may well succeed.
func shutdown(err error, message string) error {
	return &fault.Error{Kind: fault.Shutdown, Message: message, Err: err}
}

// oomKilled reports whether the OOM killer has ended the container, of which the
// daemon has not said so with its end: it learns of either by itself, in any order.
func (s *sandbox) oomKilled() bool {
	const attempts, pause = 10, 50 * time.Millisecond
	for range attempts {
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return false
		}
		if state, err := s.inspect(); err != nil || state.OOMKilled {
			return err == nil
		}
	}
	return false
}
