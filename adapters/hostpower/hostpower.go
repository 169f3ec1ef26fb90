// Package hostpower ends the use of a host by turning it off, or on again.
package hostpower

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Action is what becomes of the host.
type Action string

// The actions.
const (
	PowerOff Action = "powerOff"
	Reboot   Action = "reboot"
)

// Config says what to do, and with what.
type Config struct {
	Action Action

	// Shutdown is the system's program for it, or one that takes the same
	// arguments. The default is "shutdown".
	Shutdown string
}

// Host is a machine that the worker's user may shut down.
type Host struct {
	program   string
	arguments func(why string) []string
}

var _ interrupt.Host = (*Host)(nil)

// New returns the host. It fails if the action is unknown or the system's
// program is missing, before the worker relies on it.
func New(cfg Config) (*Host, error) {
	if cfg.Shutdown == "" {
		cfg.Shutdown = "shutdown"
	}
	if cfg.Action != PowerOff && cfg.Action != Reboot {
		return nil, fmt.Errorf("host: action %q is neither %s nor %s", cfg.Action, PowerOff, Reboot)
	}
	program, err := exec.LookPath(cfg.Shutdown)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	return &Host{program, func(why string) []string { return arguments(cfg.Action, why) }}, nil
}

// Retire implements interrupt.Host. The machine goes down at once.
func (h *Host) Retire(ctx context.Context, why string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, h.program, h.arguments(message(why))...) //nolint:gosec // G204: the operator names the program
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("retire host: %w", ctx.Err())
	}
	if said := strings.TrimSpace(output.String()); said != "" {
		err = errors.Join(err, errors.New(said))
	}
	return fmt.Errorf("retire host: %s: %w", h.program, err)
}

// message returns why as one line that is no option.
func message(why string) string {
	return "taskcluster-worker: " + strings.Join(strings.Fields(why), " ")
}
