package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// interruptionName is the name, in the directory with what a task is told, of
// the interruption file.
const interruptionName = "interruption.json"

// Interrupt implements engine.Interrupter.
func (s *sandbox) Interrupt(_ context.Context, i engine.Interruption) error {
	select {
	case <-s.ended:
		return nil
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted || s.yielded || s.e.leaving.Load() {
		return nil
	}
	err := s.berth.tell(i.File())
	if i.Stop {
		if e := s.berth.request(supervisor.Request{Stop: true}); e != nil {
			err = errors.Join(err, fmt.Errorf("tell supervisor to stop: %w", e))
		}
	}
	return err
}

// tell writes the interruption file. Only the worker can write to its directory,
// and it is not in there before it is complete.
func (b *berth) tell(content []byte) error {
	name := filepath.Join(b.dir, tellingName, interruptionName)
	fresh := filepath.Join(b.dir, interruptionName+".new")
	if err := os.WriteFile(fresh, content, 0o600); err != nil {
		return fmt.Errorf("write interruption file: %w", err)
	}
	if err := os.Chmod(fresh, 0o644); err != nil { //nolint:gosec // for the task's user, and not by the umask
		return fmt.Errorf("write interruption file: %w", err)
	}
	if err := os.Rename(fresh, name); err != nil {
		return fmt.Errorf("write interruption file: %w", err)
	}
	return nil
}
