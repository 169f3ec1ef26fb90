package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processRecord tells a process from every other one that has had or will have
// its number.
type processRecord struct {
	PID   int
	Start string // in clock ticks since the host was started
}

// recordProcess stores which process the supervisor is.
func (e *Engine) recordProcess(b *berth) error {
	start, err := processStart(b.process.Pid)
	if err != nil {
		return err
	}
	record, err := json.Marshal(processRecord{PID: b.process.Pid, Start: start})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, processName), record, 0o600)
}

// processStart returns when a process was started.
func processStart(pid int) (string, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The second field is the program's name, which may contain anything.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	const start = 22 - 3 // of the fields from the third on
	if fields := strings.Fields(rest); len(fields) > start {
		return fields[start], nil
	}
	return "", errors.New("the kernel does not tell when a process was started")
}

// sweep ends and removes what an earlier worker has left. Supervisors end by
// themselves without a worker; this is for those that were stopped.
func (e *Engine) sweep(ctx context.Context) error {
	sandboxes := filepath.Join(e.config.Dir, sandboxesName)
	entries, err := os.ReadDir(sandboxes)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		dir := filepath.Join(sandboxes, entry.Name())
		if err := killRecorded(filepath.Join(dir, processName)); err != nil {
			return err
		}
		e.background.Go(func() { e.removeDir(ctx, dir) })
	}
	if e.cgroups == nil {
		return nil
	}
	return e.cgroups.Sweep(ctx)
}

// killRecorded kills the process recorded in a file, if it is still there.
func killRecorded(name string) error {
	b, err := os.ReadFile(name) //nolint:gosec // made of the configuration
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var r processRecord
	if err := json.Unmarshal(b, &r); err != nil || r.PID <= 1 {
		return nil // the worker was killed while it wrote it
	}
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return nil // it has ended
	}
	defer func() { _ = unix.Close(fd) }()
	// The process that fd stands for cannot change any more, so this is no race.
	if start, err := processStart(r.PID); err != nil || start != r.Start {
		return nil // it has ended
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill supervisor %d: %w", r.PID, err)
	}
	// It has not ended before all processes in its namespace have, which could
	// write to the directory that is removed next.
	const patience = 10_000 // milliseconds
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience) //nolint:gosec // a descriptor
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for supervisor %d: %w", r.PID, err)
		case n == 0:
			return fmt.Errorf("supervisor %d of an earlier worker does not end", r.PID)
		default:
			return nil
		}
	}
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
