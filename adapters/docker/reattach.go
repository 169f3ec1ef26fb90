package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// Labels tell what this worker has made, and the next worker what it has to know
// of a container: unlike the transcript, a task cannot change them.
const (
	labelInstance   = "taskcluster-worker.instance"
	labelTask       = "taskcluster-worker.task"
	labelRun        = "taskcluster-worker.run"
	labelStarted    = "taskcluster-worker.started" // in nanoseconds since the host was started
	labelTranscript = "taskcluster-worker.transcript"
	labelWorkDir    = "taskcluster-worker.workdir"
	labelEgress     = "taskcluster-worker.egress"
	labelNetwork    = "taskcluster-worker.network"
	labelResting    = "taskcluster-worker.resting"
	labelSpoils     = "taskcluster-worker.spoils"
	labelGroup      = "taskcluster-worker.group"
	labelArchive    = "taskcluster-worker.archive"
	labelDevices    = "taskcluster-worker.devices"
)

func (e *Engine) labels() map[string]string {
	return map[string]string{labelInstance: e.config.Instance}
}

// labels returns those of the sandbox's container.
func (s *sandbox) labels(id task.RunID) map[string]string {
	labels := s.e.labels()
	labels[labelTask], labels[labelRun] = string(id.Task), strconv.Itoa(id.Run)
	labels[labelStarted] = strconv.FormatInt(int64(sinceBoot()), 10)
	labels[labelTranscript], labels[labelWorkDir] = filepath.Base(s.transcript.Path()), s.workDir
	labels[labelEgress], labels[labelNetwork], labels[labelResting] = string(s.place.egress), s.place.network, s.place.resting
	labels[labelSpoils], labels[labelGroup] = strconv.FormatBool(s.spoils), s.meter.parent
	labels[labelArchive], labels[labelDevices] = s.image.ArchiveHash, strings.Join(s.devices, ",")
	return labels
}

// orphan is a container with a task of an earlier worker.
type orphan struct {
	run        task.RunID
	id         string
	started    time.Duration // since the host was started
	transcript string        // path
	workDir    string
	place      place // empty if the container has ended
	spoils     bool
	group      string
	image      engine.Image
	devices    []string
	loans      []loan // of the devices
	release    func() // frees the image and devices, once
}

// orphanOf returns the orphan that a container is, or nil if nobody can reattach
// to it.
func (e *Engine) orphanOf(c container.Summary) *orphan {
	run, err := strconv.Atoi(c.Labels[labelRun])
	started, startedErr := strconv.ParseInt(c.Labels[labelStarted], 10, 64)
	name := c.Labels[labelTranscript]
	if err != nil || startedErr != nil || name == "" || name != filepath.Base(name) {
		return nil
	}
	o := &orphan{
		run: task.RunID{Task: task.ID(c.Labels[labelTask]), Run: run}, id: c.ID, started: time.Duration(started),
		transcript: filepath.Join(e.dir, transcripts, name), workDir: c.Labels[labelWorkDir],
		spoils: c.Labels[labelSpoils] == strconv.FormatBool(true), group: c.Labels[labelGroup],
		image: engine.Image{Hash: c.ImageID, ArchiveHash: c.Labels[labelArchive]}, devices: strings.Split(c.Labels[labelDevices], ","),
	}
	switch c.State {
	case container.StateRunning, container.StatePaused, "stopping":
		o.place = place{egress: Egress(c.Labels[labelEgress]), network: c.Labels[labelNetwork], resting: c.Labels[labelResting]}
	case container.StateExited, "stopped": // as Podman says before it has tidied up
	default:
		return nil // it was never started, say
	}
	t, err := transcript.Open(o.transcript)
	if err != nil {
		e.log.Warn("a task of an earlier worker cannot be reattached", slog.String("run", o.run.String()), slog.Any("error", err))
		return nil
	}
	_ = t.Close() // it was opened to be read
	return o
}

// holdForOrphans keeps the images of orphans.
func (e *Engine) holdForOrphans() {
	for _, o := range e.orphans {
		free := e.images.Hold(o.image.Hash)
		o.release = sync.OnceFunc(func() {
			free()
			release(o.loans)
		})
	}
}

// Orphans implements engine.Reattacher.
func (e *Engine) Orphans(context.Context) ([]task.RunID, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.orphans)), nil
}

// orphanGroups returns the control groups of orphans.
func (e *Engine) orphanGroups() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var groups []string
	for _, o := range e.orphans {
		groups = append(groups, o.group)
	}
	return groups
}

// takeOrphan removes the orphan of a run from the engine's.
func (e *Engine) takeOrphan(run task.RunID) *orphan {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.orphans[run]
	delete(e.orphans, run)
	return o
}

func (e *Engine) putOrphan(o *orphan) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.orphans[o.run] = o
}

// Reattach implements engine.Reattacher. It does not need the daemon, which may
// be away.
func (e *Engine) Reattach(_ context.Context, o engine.Options, from tasklog.Position) (engine.Reattached, error) {
	found := e.takeOrphan(o.Run)
	if found == nil {
		return nil, &fs.PathError{Op: "reattach", Path: o.Run.String(), Err: fs.ErrNotExist}
	}
	s, err := e.adopt(found, o.Log)
	if err != nil {
		e.putOrphan(found)
		return nil, fmt.Errorf("reattach to the container of %s: %w", o.Run, err)
	}
	e.background.Go(func() { s.follow(from) })
	return reattached{s}, nil
}

// adopt returns the sandbox of an orphan.
func (e *Engine) adopt(o *orphan, log *tasklog.Log) (*sandbox, error) {
	t, err := transcript.Open(o.transcript)
	if err != nil {
		return nil, err
	}
	if !t.Gone() {
		return nil, errors.Join(errors.New("its commands wait for a worker that has ended"), t.Close())
	}
	s := newSandbox(e, log)
	s.transcript, s.id, s.workDir, s.place, s.spoils = t, o.id, o.workDir, o.place, o.spoils
	s.began = time.Now().Add(-max(0, sinceBoot()-o.started)) // by the clock of today
	s.image, s.meter = o.image, meter{e: e, parent: o.group}
	s.release = o.release
	return s, nil
}

// Discard implements engine.Reattacher.
func (e *Engine) Discard(ctx context.Context, run task.RunID) error {
	o := e.takeOrphan(run)
	if o == nil {
		return nil
	}
	s := newSandbox(e, nil)
	s.id, s.place, s.spoils, s.meter = o.id, o.place, o.spoils, meter{e: e, parent: o.group}
	s.release = o.release
	if t, err := transcript.Open(o.transcript); err == nil {
		s.transcript = t
	}
	select {
	case <-s.discard():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Detach implements engine.Reattacher. Networks and resting containers stay: the
// next worker takes those of tasks over, and removes the others.
func (e *Engine) Detach() error {
	e.detached.Store(true)
	e.cancel()
	e.background.Wait()
	const patience = 5 * time.Second // the next worker waits for this one to end
	e.trash.close(patience)
	e.watcher.close()
	return errors.Join(e.removeDir(), e.daemon.Close())
}

// reattached is a sandbox of an earlier worker.
type reattached struct{ *sandbox }

var _ engine.Shells = reattached{}

// Started implements engine.Reattached.
func (r reattached) Started() time.Time { return r.began }
