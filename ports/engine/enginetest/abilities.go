package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

func hasDeclaredAbilities(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	var got Abilities
	_, got.Volumes = h.Engine(tb).(engine.Volumes)
	_, got.Reattach = h.Engine(tb).(engine.Reattacher)
	b, log, err := build(ctx, tb, h, Step{Do: Hang, Text: mark(tb)})
	if err != nil {
		return err
	}
	_, got.Proxies = b.(engine.ProxyAttacher)
	if _, ok := b.(engine.VolumeAttacher); ok != got.Volumes {
		return fmt.Errorf("the engine makes volumes: %t, its builders attach them: %t", got.Volumes, ok)
	}
	s, err := b.Start(ctx)
	if err != nil {
		return fmt.Errorf("Start: %w", err)
	}
	_, got.Shells = s.(engine.Shells)
	_, got.Interrupts = s.(engine.Interrupter)
	if err := errors.Join(log.hanging(ctx), s.Abort(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	got.Images = h.Abilities().Images // only results tell: see identifiesImage
	if want := h.Abilities(); got != want {
		return fmt.Errorf("the engine has the abilities %+v, but declares %+v", got, want)
	}
	return nil
}

func servesProxies(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Proxies {
		return nil
	}
	b, log, err := build(ctx, tb, h, Step{Do: Fetch, Text: "PROXY_URL"})
	if err != nil {
		return err
	}
	url, err := b.(engine.ProxyAttacher).AttachProxy("proxy", http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "answer to "+r.Method) }))
	if err != nil {
		return errors.Join(fmt.Errorf("AttachProxy: %w", err), b.Close())
	}
	if err := b.SetEnv("PROXY_URL", url); err != nil {
		return errors.Join(err, b.Close())
	}
	s, err := b.Start(ctx)
	if err != nil {
		return fmt.Errorf("Start: %w", err)
	}
	if _, err := finish(ctx, tb, s); err != nil {
		return err
	}
	if !strings.Contains(log.String(), "answer to GET") {
		return fmt.Errorf("the task got no answer from %s:\n%s", url, log)
	}
	return nil
}

func mountsVolumes(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Volumes {
		return nil
	}
	volumes := h.Engine(tb).(engine.Volumes)
	v, err := volumes.NewVolume(ctx)
	if err != nil {
		return fmt.Errorf("NewVolume: %w", err)
	}
	tb.Cleanup(func() {
		if err := v.Close(); err != nil {
			tb.Errorf("Volume.Close: %v", err)
		}
	})
	id := v.ID()
	for _, use := range []struct {
		title    string
		readOnly bool
		step     Step
		success  bool
	}{
		{"writing to a volume", false, Step{Do: Write, Path: "cache/file", Text: "kept"}, true},
		{"reading what an earlier task has written", true, Step{Do: Read, Path: "cache/file"}, true},
		{"writing to a read-only volume", true, Step{Do: Write, Path: "cache/file", Text: "x"}, false},
	} {
		// As another process would, each use finds the volume by its ID.
		if v, err = volumes.OpenVolume(ctx, id); err != nil {
			return fmt.Errorf("OpenVolume: %w", err)
		}
		b, log, err := build(ctx, tb, h, use.step)
		if err != nil {
			return err
		}
		if err := b.(engine.VolumeAttacher).AttachVolume("cache", v, use.readOnly); err != nil {
			return errors.Join(fmt.Errorf("AttachVolume: %w", err), b.Close())
		}
		s, err := b.Start(ctx)
		if err != nil {
			return fmt.Errorf("Start: %w", err)
		}
		r, err := finish(ctx, tb, s)
		if err != nil {
			return err
		}
		if got := r.Result(); got.Success != use.success {
			return fmt.Errorf("%s has the result %+v:\n%s", use.title, got, log)
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return keepsVolumes(ctx, volumes, id)
}

// keepsVolumes checks what becomes of a volume that is to be kept, and of
// others.
func keepsVolumes(ctx context.Context, volumes engine.Volumes, id string) error {
	other, err := volumes.NewVolume(ctx)
	if err != nil {
		return fmt.Errorf("NewVolume: %w", err)
	}
	defer func() { _ = other.Close() }()
	if err := volumes.KeepVolumes(ctx, []string{id}); err != nil {
		return fmt.Errorf("KeepVolumes: %w", err)
	}
	if _, err := volumes.OpenVolume(ctx, other.ID()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("OpenVolume of a volume that was not kept: got %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	kept, err := volumes.OpenVolume(ctx, id)
	if err != nil {
		return fmt.Errorf("OpenVolume of a volume that was kept: %w", err)
	}
	for i := range 2 {
		if err := kept.Close(); err != nil {
			return fmt.Errorf("Volume.Close, call %d: %w", i+1, err)
		}
	}
	if _, err := volumes.OpenVolume(ctx, id); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("OpenVolume of a closed volume: got %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	return nil
}

func opensShells(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	if !h.Abilities().Shells {
		return nil
	}
	s, log, err := start(ctx, tb, h, Step{Do: Hang, Text: mark(tb)})
	if err != nil {
		return err
	}
	defer func() { _ = s.Abort(context.WithoutCancel(ctx)) }()
	if err := log.hanging(ctx); err != nil {
		return err
	}
	shell, err := s.(engine.Shells).OpenShell(ctx, engine.ShellOptions{})
	if err != nil {
		return fmt.Errorf("OpenShell: %w", err)
	}
	defer func() { _ = shell.Close() }()
	if _, err := io.WriteString(shell.Stdin(), "echo said\nexit 3\n"); err != nil {
		return fmt.Errorf("write to the shell: %w", err)
	}
	said, err := io.ReadAll(shell.Stdout())
	if err != nil || !strings.Contains(string(said), "said") {
		return fmt.Errorf("the shell printed %q, %q", said, fmt.Sprint(err))
	}
	if code, err := shell.Wait(ctx); code != 3 || err != nil {
		return fmt.Errorf("a shell that exits with 3 ended with %d, %q", code, fmt.Sprint(err))
	}
	for i := range 2 {
		if err := shell.Close(); err != nil {
			return fmt.Errorf("Shell.Close, call %d: %w", i+1, err)
		}
	}
	// A shell ends with its sandbox.
	left, err := s.(engine.Shells).OpenShell(ctx, engine.ShellOptions{})
	if err != nil {
		return fmt.Errorf("OpenShell: %w", err)
	}
	defer func() { _ = left.Close() }()
	if err := s.Abort(ctx); err != nil {
		return fmt.Errorf("Abort: %w", err)
	}
	if code, err := left.Wait(ctx); code == 0 || ctx.Err() != nil {
		return fmt.Errorf("a shell in an aborted sandbox ended with %d, %q", code, fmt.Sprint(err))
	}
	return nil
}
