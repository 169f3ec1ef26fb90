package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/domain/task"
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
	// One that an earlier berth has left is written over, which costs less than
	// to make a file, and is never shorter.
	f, err := os.OpenFile(filepath.Join(b.dir, processName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%-*s", processRecordSize, record)
	return errors.Join(err, f.Close())
}

// processRecordSize is what any record fits into.
const processRecordSize = 64

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

// sweep finds the orphans among what an earlier worker has left, and ends and
// removes the rest. Supervisors without a task end by themselves without a
// worker; this is for those that were stopped. What cannot be removed is left to
// the next worker, as it must not keep this one from going on with tasks.
func (e *Engine) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(e.places.dir)
	if err != nil {
		return err
	}
	e.orphans = map[task.RunID]*orphan{}
	var keep []string
	for _, entry := range entries {
		dir := filepath.Join(e.places.dir, entry.Name())
		if o := e.findOrphan(ctx, dir); o != nil {
			e.orphans[o.run] = o
			keep = append(keep, filepath.Base(dir))
			continue
		}
		if err := killRecorded(filepath.Join(dir, processName)); err != nil {
			// One that the kernel does not let go of, say. Until it ends, nobody
			// else gets its user.
			e.log.ErrorContext(ctx, "sandbox of an earlier worker not removed", slog.String("directory", dir), slog.Any("error", err))
			keep = append(keep, filepath.Base(dir))
			continue
		}
		e.background.Go(func() { e.removeDir(ctx, dir) })
	}
	if e.cgroups == nil {
		return nil
	}
	if err := e.cgroups.Sweep(ctx, keep); err != nil {
		e.log.ErrorContext(ctx, "control groups of an earlier worker not removed", slog.Any("error", err))
	}
	return nil
}

// recordedProcess opens the process recorded in a file, if it is still there.
// It returns nil if it has ended.
func recordedProcess(name string) (pidfd *os.File, pid int, err error) {
	b, err := os.ReadFile(name) //nolint:gosec // made of the configuration
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	var r processRecord
	if err := json.Unmarshal(b, &r); err != nil || r.PID <= 1 {
		return nil, 0, nil //nolint:nilerr // the worker was killed while it wrote it
	}
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return nil, 0, nil //nolint:nilerr // it has ended
	}
	pidfd = os.NewFile(uintptr(fd), "supervisor")
	// The process that fd stands for cannot change any more, so this is no race.
	if start, err := processStart(r.PID); err != nil || start != r.Start {
		return nil, 0, pidfd.Close() // it has ended
	}
	return pidfd, r.PID, nil
}

// killRecorded kills the process recorded in a file, if it is still there.
func killRecorded(name string) error {
	pidfd, pid, err := recordedProcess(name)
	if err != nil || pidfd == nil {
		return err
	}
	defer func() { _ = pidfd.Close() }()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill supervisor %d: %w", pid, err)
	}
	// It has not ended before all processes in its namespace have, which could
	// write to the directory that is removed next.
	ended, err := awaitProcess(pidfd, 10*time.Second)
	if err == nil && !ended {
		err = errors.New("it does not end")
	}
	if err != nil {
		return fmt.Errorf("supervisor %d of an earlier worker: %w", pid, err)
	}
	return nil
}

// awaitProcess waits for the end of a process for as long as patience, if that
// is not negative.
func awaitProcess(pidfd *os.File, patience time.Duration) (ended bool, err error) {
	milliseconds := int(patience.Milliseconds())
	if patience < 0 {
		milliseconds = -1
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, milliseconds) //nolint:gosec // a descriptor
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}
