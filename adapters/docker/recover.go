package docker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
)

// recover waits for a daemon that was lost to come back, and sees the container
// through to its end. A container that the daemon ended, and not the task, says
// nothing of the task.
func (s *sandbox) recover(lost time.Time) (container.State, error) {
	if s.ctx.Err() == nil {
		s.e.log.WarnContext(s.ctx, "the Docker daemon was lost", slog.String("container", s.id))
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
		case err == nil && state.Running:
			if err := s.followAgain(true); err != nil {
				s.e.log.WarnContext(s.ctx, "follow container", slog.String("container", s.id), slog.Any("error", err))
			}
			w := <-s.watch()
			if w.lost.IsZero() {
				state, err = s.inspect()
				if err == nil {
					return state, nil
				}
			}
			lost, giveUp = time.Now(), time.Now().Add(s.e.config.DaemonPatience)
		case err == nil:
			if err := s.followAgain(false); err != nil {
				return state, shutdown(err, "the Docker daemon has lost the task's output")
			}
			return state, s.endedByDaemon(state, lost)
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// followAgain copies what the daemon has kept of the output, after what was
// copied before, and if the container is running all that follows.
func (s *sandbox) followAgain(running bool) error {
	if s.b.rests() {
		return nil // what is executed in it ends with the connection
	}
	logs, err := s.e.daemon.ContainerLogs(s.ctx, s.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: running})
	if err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	defer func() { _ = logs.Close() }()
	if err := s.stream.copy(logs); err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	return nil
}

// endedByDaemon returns a fault if a container has ended after the daemon was
// lost: the daemon ends containers when it stops or starts, unless it is told to
// leave them alone.
func (s *sandbox) endedByDaemon(state container.State, lost time.Time) error {
	finished, err := time.Parse(time.RFC3339Nano, state.FinishedAt)
	if err == nil && !lost.IsZero() && finished.Before(lost) {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, callTime)
	defer cancel()
	info, err := s.e.daemon.Info(ctx, client.InfoOptions{})
	if err == nil && info.Info.LiveRestoreEnabled {
		return nil
	}
	return shutdown(err, "the Docker daemon was restarted, which ended the task's container")
}

// shutdown is a fault of the host: another run may well succeed.
func shutdown(err error, message string) error {
	return &fault.Error{Kind: fault.Shutdown, Message: message, Err: err}
}
