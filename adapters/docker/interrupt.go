package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// interruptionFile is where the interruption file is in a container.
const interruptionFile = ownDir + "interruption.json"

// tellTime is how long the signal that tells a task to stop may wait for the
// interruption file.
const tellTime = 5 * time.Second

var _ engine.Interrupter = (*sandbox)(nil)

// Interrupt implements engine.Interrupter. The signal is for the first process
// of the container, which passes it on to the command.
func (s *sandbox) Interrupt(ctx context.Context, i engine.Interruption) error {
	select {
	case <-s.ended:
		return nil
	default:
	}
	s.mu.Lock()
	if s.aborted || s.yielded || s.e.detached.Load() {
		s.mu.Unlock()
		return nil
	}
	signal := i.Stop && !s.stopped
	s.stopped = s.stopped || i.Stop
	s.mu.Unlock()

	err := s.tell(ctx, i.File())
	if signal && !s.signal(ctx, "TERM", s.transcript.Stop) {
		err = errors.Join(err, errors.New("signal container: it was not reached"))
	}
	return err
}

// stopping reports whether the task was told to stop.
func (s *sandbox) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// tell writes the interruption file. It appears complete, since it is written
// under another name and then linked to its own.
func (s *sandbox) tell(ctx context.Context, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	name := strings.TrimPrefix(interruptionFile, "/")
	fresh := name + ".new"
	var archive bytes.Buffer
	t := tar.NewWriter(&archive)
	err := errors.Join(
		t.WriteHeader(&tar.Header{Name: path.Dir(name) + "/", Typeflag: tar.TypeDir, Mode: 0o755}),
		t.WriteHeader(&tar.Header{Name: fresh, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}),
	)
	if err == nil {
		_, err = t.Write(content)
	}
	link := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: fresh, Mode: 0o644})
	if err := errors.Join(err, link, t.Close()); err != nil {
		return fmt.Errorf("pack interruption file: %w", err)
	}
	if _, err := s.e.daemon.CopyToContainer(ctx, s.id, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive}); err != nil {
		return fmt.Errorf("put interruption file into container: %w", err)
	}
	return nil
}
