package enginetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// mark returns a mark for the processes of one check.
func mark(tb testing.TB) string {
	tb.Helper()
	return strings.ToLower(rand.Text())
}

// hasFile checks the content of a file in the working directory.
func hasFile(r engine.ResultSet, name, want string) error {
	got, err := fs.ReadFile(r.FS(), path.Join(r.Dir(), name))
	if err != nil {
		return fmt.Errorf("read %s in FS: %w", name, err)
	}
	if string(got) != want {
		return fmt.Errorf("%s has the content %q, want %q", name, got, want)
	}
	return nil
}

func logsInOrder(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	_, log, err := run(ctx, tb, h, Step{Do: Print, Text: "one\n"}, Step{Do: Print, Text: "two\n"})
	if err != nil {
		return err
	}
	rest := log.String()
	for _, want := range []string{"Executing command 0: ", "\none\n", "two\n", "Exit Code: 0\n", "Wall Time: ", "Result: SUCCEEDED\n"} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			return fmt.Errorf("the log lacks %q in its place:\n%s", want, log)
		}
		rest = after
	}
	return nil
}

func logsAllOutput(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	const size = 8 << 20
	_, log, err := run(ctx, tb, h, Step{Do: Flood, N: size}, Step{Do: Print, Text: "tail"})
	if err != nil {
		return err
	}
	written := []byte(log.String())
	if !bytes.Contains(written, append(bytes.Repeat([]byte("x"), size), "tail"...)) {
		return fmt.Errorf("of %d bytes and a tail, the log has %d and %d when Wait returns",
			size, bytes.Count(written, []byte("x")), bytes.Count(written, []byte("tail")))
	}
	return nil
}

func showsFiles(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	r, _, err := run(ctx, tb, h,
		Step{Do: Write, Path: "file", Text: "content"}, Step{Do: Write, Path: "sub/dir/file", Text: "deep"},
		Step{Do: Link, Path: "link", Text: "sub/dir"})
	if err != nil {
		return err
	}
	if !fs.ValidPath(r.Dir()) {
		return fmt.Errorf("Dir is %q, want a path in FS", r.Dir())
	}
	err = errors.Join(hasFile(r, "file", "content"), hasFile(r, "sub/dir/file", "deep"), hasFile(r, "link/file", "deep"))
	if err != nil {
		return err
	}
	var names []string
	err = fs.WalkDir(r.FS(), path.Join(r.Dir(), "sub"), func(name string, _ fs.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(name, r.Dir()+"/"))
		return err
	})
	if err != nil {
		return fmt.Errorf("walk FS: %w", err)
	}
	if got, want := strings.Join(names, " "), "sub sub/dir sub/dir/file"; got != want {
		return fmt.Errorf("a walk of FS finds %q, want %q", got, want)
	}
	if _, err := fs.Stat(r.FS(), path.Join(r.Dir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finding a missing file returned %q, want fs.ErrNotExist", fmt.Sprint(err))
	}
	for _, name := range []string{"../x", "/etc", "a//b", ""} {
		if f, err := r.FS().Open(name); err == nil {
			return errors.Join(fmt.Errorf("Open(%q) did not fail", name), f.Close())
		}
	}
	for i := range 2 {
		if err := r.Close(); err != nil {
			return fmt.Errorf("ResultSet.Close, call %d: %w", i+1, err)
		}
	}
	return nil
}

func followsNoLinkOut(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	const content = "of the host"
	host := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(host, []byte(content), 0o600); err != nil {
		return err
	}
	up := strings.Repeat("../", 40) + strings.TrimPrefix(host, "/")
	r, _, err := run(ctx, tb, h,
		Step{Do: Link, Path: "absolute", Text: host}, Step{Do: Link, Path: "relative", Text: up},
		Step{Do: Link, Path: "dir", Text: filepath.Dir(host)})
	if err != nil {
		return err
	}
	for _, name := range []string{"absolute", "relative", "dir/secret"} {
		if got, err := fs.ReadFile(r.FS(), path.Join(r.Dir(), name)); err == nil {
			return fmt.Errorf("%s, which leads out of the sandbox, has the content %q", name, got)
		}
	}
	return nil
}

func separatesSandboxes(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	mark := mark(tb)
	first, log, err := start(ctx, tb, h, Step{Do: Write, Path: "file", Text: "first"}, Step{Do: Hang, Text: mark})
	if err != nil {
		return err
	}
	defer func() { _ = first.Abort(context.WithoutCancel(ctx)) }()
	if err := log.hanging(ctx); err != nil {
		return err
	}
	second, _, err := run(ctx, tb, h, Step{Do: Read, Path: "file"})
	if err != nil {
		return err
	}
	if second.Result().Success {
		return errors.New("a task sees a file in the working directory of another one")
	}
	if !h.Alive(tb, mark) {
		return errors.New("the end of one sandbox has ended another one")
	}
	return nil
}
