package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

const workDirVariable = "TASK_WORKDIR"

// builder is a sandbox in the making. It holds an image.
type builder struct {
	e       *Engine
	o       engine.Options
	payload payload
	egress  Egress
	granted []wish
	image   Image
	release func() // frees the image and devices, once

	env     map[string]string
	mounts  []mount.Mount
	fresh   []string                // paths of volumes to be opened up
	proxies map[string]http.Handler // by host name
	closed  bool
}

// NewBuilder implements engine.Engine.
func (e *Engine) NewBuilder(ctx context.Context, o engine.Options) (engine.Builder, error) {
	p, err := parsePayload(o.Payload)
	if err != nil {
		return nil, err
	}
	egress, err := e.config.Egress.narrow(p.Network, e.config.Pool)
	if err != nil {
		return nil, err
	}
	granted, err := e.grant(ctx, p.Capabilities, o.Authorize)
	if err != nil {
		return nil, err
	}
	image, err := e.acquireImage(ctx, p.Image.ref, ImageOptions{Log: o.Log, Authorize: o.Authorize, Fetch: o.Fetch})
	if err != nil {
		return nil, err
	}
	loans, err := e.lend(ctx, granted, func(what string) {
		o.Log.Infof("[docker] Waiting for payload.capabilities.%s, which other tasks have", what)
	})
	if err != nil {
		image.Release()
		return nil, err
	}
	b := &builder{
		e: e, o: o, payload: p, egress: egress, granted: granted, image: image,
		env: map[string]string{}, proxies: map[string]http.Handler{},
	}
	b.release = sync.OnceFunc(func() {
		image.Release()
		release(loans)
	})
	return b, nil
}

// acquireImage acquires an image, again if the daemon went away meanwhile.
func (e *Engine) acquireImage(ctx context.Context, ref ImageRef, o ImageOptions) (Image, error) {
	giveUp := time.Now().Add(startPatience)
	for {
		i, err := e.images.Acquire(ctx, ref, o)
		if err == nil || !client.IsErrConnectionFailed(err) || ctx.Err() != nil {
			return i, err
		}
		if time.Now().After(giveUp) {
			return Image{}, shutdown(err, "the Docker daemon is gone")
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// SetEnv implements engine.Builder.
func (b *builder) SetEnv(name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
		return fault.Malformedf("environment variable %q cannot be set: a name is not empty and has no '=', and neither it nor its value contains a NUL character", name)
	}
	b.env[name] = value
	return nil
}

// AttachVolume implements engine.VolumeAttacher.
func (b *builder) AttachVolume(at string, v engine.Volume, readOnly bool) error {
	mine, ok := v.(*volume)
	if !ok || mine.e != b.e {
		return errors.New("docker: volume of another engine")
	}
	if strings.Contains(at, "\x00") {
		return fault.Malformedf("there can be no volume at %q", at)
	}
	if !path.IsAbs(at) {
		at = path.Join(b.workDir(), at)
	}
	at = path.Clean(at)
	for _, reserved := range []string{"/", "/proc", "/sys", "/dev", strings.TrimSuffix(ownDir, "/")} {
		if at == reserved || reserved != "/" && strings.HasPrefix(at, reserved+"/") {
			return fault.Malformedf("there can be no volume at %s", at)
		}
	}
	if slices.ContainsFunc(b.mounts, func(m mount.Mount) bool { return m.Target == at }) {
		return fault.Malformedf("there is another volume at %s already", at)
	}
	if mine.fresh {
		b.fresh = append(b.fresh, at)
	}
	b.mounts = append(b.mounts, mount.Mount{Type: mount.TypeVolume, Source: mine.name(), Target: at, ReadOnly: readOnly})
	return nil
}

var hostname = regexp.MustCompile(`^[a-z]{3,22}$`)

// AttachProxy implements engine.ProxyAttacher.
func (b *builder) AttachProxy(name string, h http.Handler) (string, error) {
	if !hostname.MatchString(name) {
		return "", fmt.Errorf("docker: %q cannot be the host name of a proxy", name)
	}
	if _, taken := b.proxies[name]; taken {
		return "", fmt.Errorf("docker: there is a proxy %s already", name)
	}
	b.proxies[name] = h
	return "http://" + name, nil
}

// workDir returns the absolute path of the directory in which commands start.
func (b *builder) workDir() string {
	if b.payload.WorkDir != "" {
		return path.Clean(b.payload.WorkDir)
	}
	if b.image.WorkDir != "" {
		return path.Clean(b.image.WorkDir)
	}
	return "/"
}

// ownNetwork reports whether the container cannot share the network namespace of
// another one, or might leave it changed.
func (b *builder) ownNetwork() bool { return len(b.proxies) > 0 || b.payload.Capabilities.Privileged }

// Start implements engine.Builder.
func (b *builder) Start(ctx context.Context) (engine.Sandbox, error) {
	if b.closed {
		return nil, errors.New("docker: builder is closed")
	}
	b.closed = true
	giveUp := time.Now().Add(startPatience)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		s := newSandbox(b.e, b.o.Log)
		err := s.start(ctx, b)
		if err == nil {
			s.release = b.release
			b.e.background.Go(func() { s.follow(0) })
			return s, nil
		}
		err = classify(err, "the container could not be started")
		if !passing(err) || ctx.Err() != nil || time.Now().After(giveUp) {
			s.release = b.release
			s.discard()
			return nil, err
		}
		s.discard()
		b.e.log.WarnContext(ctx, "a container could not be started, which is tried again",
			slog.String("run", b.o.Run.String()), slog.Any("error", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// startPatience bounds how long it is tried to start a container.
const startPatience = time.Minute

// passing reports whether what has failed may well succeed if it is tried again.
// A daemon that is about to end, or has just begun, fails in many ways, of which
// few say so: networks and containers are gone, its own files are closed.
func passing(err error) bool {
	switch fault.Classify(err).Kind {
	case fault.Internal, fault.Unavailable, fault.Shutdown:
		return !noDriver(err) && !errors.Is(err, context.Canceled)
	default:
		return false
	}
}

// Close implements engine.Builder.
func (b *builder) Close() error {
	if !b.closed {
		b.closed = true
		b.release()
	}
	return nil
}

// containerOptions returns what the container of a sandbox is created from.
func (b *builder) containerOptions(s *sandbox) client.ContainerCreateOptions {
	limits := b.e.config.Limits
	host := &container.HostConfig{
		NetworkMode: s.place.mode(),
		LogConfig:   container.LogConfig{Type: "none"}, // the transcript has it
		Runtime:     b.e.config.Runtime,
		UsernsMode:  container.UsernsMode(b.e.config.UserNamespace),
		ShmSize:     limits.SharedMemoryBytes,
		StorageOpt:  limits.storage(),
		Mounts: append(b.mounts,
			mount.Mount{Type: mount.TypeBind, Source: b.e.program, Target: firstProgram, ReadOnly: true},
			mount.Mount{Type: mount.TypeBind, Source: s.transcript.Path(), Target: transcriptFile}),
		Resources: container.Resources{
			CgroupParent: s.meter.parent,
			Memory:       limits.MemoryBytes,
			MemorySwap:   limits.MemoryBytes,
			NanoCPUs:     int64(limits.CPUs * 1e9),
		},
	}
	if limits.PIDs > 0 {
		host.PidsLimit = &limits.PIDs
	}
	if limits.OpenFiles > 0 {
		host.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: limits.OpenFiles, Hard: limits.OpenFiles}}
	}
	if !b.e.config.NewPrivileges {
		host.SecurityOpt = append(host.SecurityOpt, "no-new-privileges")
	}
	if b.e.config.SeccompProfile != "" && !b.payload.Capabilities.DisableSeccomp {
		host.SecurityOpt = append(host.SecurityOpt, "seccomp="+b.e.config.SeccompProfile)
	}
	for _, name := range slices.Sorted(maps.Keys(b.proxies)) {
		host.ExtraHosts = append(host.ExtraHosts, name+":127.0.0.1")
	}
	for _, w := range b.granted {
		w.apply(host, w.devices)
	}
	config := &container.Config{
		Image:      b.image.ID,
		Entrypoint: []string{firstProgram, transcriptFile},
		Env:        b.environment(),
		User:       b.payload.User,
		WorkingDir: b.payload.WorkDir,
		StopSignal: stopSignal,
		Labels:     s.labels(b.o.Run),
	}
	return client.ContainerCreateOptions{Config: config, HostConfig: host}
}

// stopSignal is by what the daemon ends a container, whatever the image says: the
// first process tells by it that not the task has ended the task.
const stopSignal = "SIGTERM"

func (b *builder) environment() []string {
	env := maps.Clone(b.env)
	env[workDirVariable] = b.workDir()
	for _, w := range b.granted {
		if w.pool == b.e.pools.video {
			env[videoVariable] = w.devices[0].name
		}
	}
	env[engine.InterruptionVariable] = interruptionFile
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// boundPatience is for how long a task goes on without a worker that is to end
// with it, where the first process cannot tell by a lock: some runtimes keep those
// of the host from containers.
const boundPatience = 5 * time.Minute

// newTranscript makes the transcript of a task.
func (e *Engine) newTranscript(b *builder) (*transcript.File, error) {
	spec := transcript.Spec{TTY: b.payload.TTY, Patience: e.config.OrphanTimeout, Backlog: e.config.Backlog}
	if spec.Patience < 0 {
		spec.Bound, spec.Patience = true, boundPatience
	}
	for _, argv := range b.payload.Command {
		spec.Commands = append(spec.Commands, slices.Concat(b.entrypoint(), argv))
	}
	if len(spec.Commands) == 0 {
		spec.Commands = [][]string{slices.Concat(b.entrypoint(), b.image.Command)}
	}
	for _, argv := range spec.Commands {
		if len(argv) == 0 || argv[0] == "" {
			return nil, fault.Malformedf("payload.command: there is no command, and the image has none either")
		}
	}
	t, err := transcript.Create(filepath.Join(e.dir, transcripts, strings.ToLower(rand.Text())), spec)
	if err != nil {
		return nil, fmt.Errorf("make a transcript: %w", err)
	}
	return t, nil
}

// entrypoint returns what comes before each command.
func (b *builder) entrypoint() []string {
	if b.payload.Entrypoint != nil {
		return *b.payload.Entrypoint
	}
	return b.image.Entrypoint
}

// classify turns an error of the daemon into a fault, unless it is one.
func classify(err error, message string) error {
	if f := fault.Classify(err); f == nil || f.Kind != fault.Internal {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case restEnded(err):
		return shutdown(err, message+": the Docker daemon has ended its network")
	case errdefs.IsInvalidArgument(err):
		return fault.Malformedf("%s: %v", message, err)
	case errdefs.IsUnavailable(err), client.IsErrConnectionFailed(err):
		// Another run, which the queue gives for a fault of the host alone, may
		// well find a daemon that works.
		return shutdown(err, message+": the Docker daemon is gone")
	case errdefs.IsDeadlineExceeded(err), errors.Is(err, context.DeadlineExceeded), noSpace(err), noDriver(err), errdefs.IsNotFound(err), errdefs.IsConflict(err):
		return fault.Unavailablef(err, "%s: the Docker daemon does not do its part", message)
	default:
		return fmt.Errorf("%s: %w", message, err)
	}
}

// noDriver reports whether the daemon does not know how to give a container GPUs.
func noDriver(err error) bool {
	return strings.Contains(err.Error(), "could not select device driver")
}
