package docker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// start creates the container and starts it. What it leaves when it fails,
// discard releases.
func (s *sandbox) start(ctx context.Context, b *builder) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	s.spoils, s.workDir, s.meter = b.ownNetwork(), b.workDir(), s.e.newMeter(b.o.Run)
	s.image = engine.Image{Hash: b.image.ID, ArchiveHash: b.image.ArchiveHash}
	for _, w := range b.granted {
		for _, d := range w.devices {
			s.devices = append(s.devices, d.name)
		}
	}
	var err error
	if s.place, err = s.e.networks.acquire(ctx, b.egress, s.spoils); err != nil {
		return err
	}
	err = s.e.awaitRoom(ctx, func() (err error) {
		s.transcript, err = s.e.newTranscript(b)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.create(ctx, b.containerOptions(s)); err != nil {
		return err
	}
	for _, at := range b.fresh {
		if err := s.openVolume(ctx, at); err != nil {
			return err
		}
	}
	s.began = time.Now()
	_, err = s.e.daemon.ContainerStart(ctx, s.id, client.ContainerStartOptions{})
	if refused(err) {
		return s.transcript.Refuse(err)
	}
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return s.serve(ctx, b)
}

// refused reports whether the daemon has understood a container and could not start
// it for what the task asks for: there is nobody to execute its commands, say.
func refused(err error) bool {
	return err != nil && !restEnded(err) && (errdefs.IsInvalidArgument(err) || strings.Contains(err.Error(), "unable to find user"))
}

// restEnded reports whether a container could not be started since the one that
// rests in its place had just ended: the daemon was ending, say.
func restEnded(err error) bool { return strings.Contains(err.Error(), "namespace path") }

// create creates the container. It goes on when ctx is canceled, lest there be a
// container that nobody knows of.
func (s *sandbox) create(ctx context.Context, options client.ContainerCreateOptions) error {
	calling, cancel := s.e.call(ctx)
	defer cancel()
	var created client.ContainerCreateResult
	err := s.e.awaitRoom(ctx, func() (err error) {
		created, err = s.e.daemon.ContainerCreate(calling, options)
		if noSpace(err) {
			// What another task has filled the disk with may be going away.
			s.e.trash.settle(ctx)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	s.id = created.ID
	return ctx.Err()
}

// awaitRoom calls f until the disk has room for what it does, or ctx is done:
// tasks that end, and whoever looks after the host, make room.
func (e *Engine) awaitRoom(ctx context.Context, f func() error) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if !noSpace(err) {
			return err
		}
		e.log.WarnContext(ctx, "a task waits for room on the disk", slog.Any("error", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func noSpace(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no space left on device")
}

// serve lets the commands of a container go ahead, once its proxies are served.
// They wait for the worker in any case: where the daemon goes away before it has
// said that the container is started, another container is tried, and the task
// must not be executed in both.
func (s *sandbox) serve(ctx context.Context, b *builder) error {
	if len(b.proxies) == 0 {
		return s.transcript.Go()
	}
	r, err := s.e.daemon.ContainerInspect(ctx, s.id, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect container: %w", err)
	}
	if s.proxies, err = serveProxies(r.Container.State.Pid, b.proxies, s.e.log); err != nil {
		return err
	}
	return s.transcript.Go()
}
