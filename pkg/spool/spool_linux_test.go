package spool_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/taskcluster/taskcluster-worker/pkg/spool"
)

const inMemory = 4 << 10

// noise returns n bytes that cannot be compressed.
func noise(n int) string {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return string(p)
}

func opener(content string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		return io.NopCloser(iotest.HalfReader(strings.NewReader(content))), nil
	}
}

// fullDisk returns a directory on a file system with next to no room.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestGzip(t *testing.T) {
	for _, tt := range []struct {
		name    string
		content string
		dir     func(*testing.T) string
	}{
		{"nothing", "", (*testing.T).TempDir},
		{"a little, in memory, without a directory", "log", func(*testing.T) string { return "/nonexistent" }},
		{"a chunk", strings.Repeat("a", 64<<10), (*testing.T).TempDir},
		{"a lot, in a file", noise(1 << 20), (*testing.T).TempDir},
		{"a lot, and no directory to keep it in", noise(1 << 20), func(*testing.T) string { return "/nonexistent" }},
		{"a lot, and a full disk", noise(1 << 20), fullDisk},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.dir(t)
			g, err := spool.New(t.Context(), dir, inMemory, opener(tt.content))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := g.Length(), int64(len(tt.content)); got != want {
				t.Errorf("length %d, want %d", got, want)
			}
			for range 2 { // as a retry does
				r, err := g.Open()
				if err != nil {
					t.Fatal(err)
				}
				compressed, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil {
					t.Fatal(err)
				}
				if got, want := int64(len(compressed)), g.Size(); got != want {
					t.Errorf("%d bytes, want %d", got, want)
				}
				if got := gunzip(t, compressed); got != tt.content {
					t.Errorf("content of %d bytes comes back as %d others", len(tt.content), len(got))
				}
			}
			if err := errors.Join(g.Close(), g.Close()); err != nil {
				t.Error(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
				t.Errorf("%v is left behind", left)
			}
		})
	}
}

func gunzip(t *testing.T, compressed []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestErrorsOfTheSource(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		open func() (io.ReadCloser, error)
	}{
		{"when it is opened", func() (io.ReadCloser, error) { return nil, broken }},
		{"at once", func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(broken)), nil }},
		{"half-way", func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(noise(1<<20)), iotest.ErrReader(broken))), nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := spool.New(t.Context(), dir, inMemory, tt.open); !errors.Is(err, broken) {
				t.Errorf("error %v, want that of the source", err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%v is left behind", left)
			}
		})
	}
}

func TestSourceThatBreaksLater(t *testing.T) {
	broken, times := errors.New("broken"), 0
	g, err := spool.New(t.Context(), "/nonexistent", 0, func() (io.ReadCloser, error) {
		if times++; times > 1 {
			return nil, broken
		}
		return io.NopCloser(strings.NewReader("text")), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Open(); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the source", err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := func() (io.ReadCloser, error) {
		return io.NopCloser(readerFunc(func(p []byte) (int, error) {
			cancel()
			return len(p), nil
		})), nil
	}
	if _, err := spool.New(ctx, t.TempDir(), inMemory, endless); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func BenchmarkGzip(b *testing.B) {
	line := "[task 2026-11-24T00:00:00.000Z] compiling package number " + noise(8) + "\n"
	content := strings.Repeat(line, (64<<20)/len(line))
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		g, err := spool.New(b.Context(), b.TempDir(), inMemory, func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		})
		if err != nil {
			b.Fatal(err)
		}
		_ = g.Close()
	}
}
