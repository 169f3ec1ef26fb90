package clock

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Package time must still compile, and use what is added.
func TestOverlayFitsThisGo(t *testing.T) {
	dir := t.TempDir()
	file, err := Overlay(goroot(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "vet", "-overlay", file, "time").CombinedOutput()
	// The package has warnings of its own.
	if err != nil && strings.Contains(string(out), "jump") {
		t.Errorf("%v: %s", err, out)
	}
	patched, err := os.ReadFile(filepath.Join(dir, "time.go"))
	if err != nil || !strings.Contains(string(patched), reading+"\tsec += *jump\n") {
		t.Errorf("the clock is not patched: %v", err)
	}
}

func TestOverlayRefusesAnotherTime(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "src", "time"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "src", "time", "time.go"), []byte("package time\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Overlay(root, t.TempDir()); err == nil || !strings.Contains(err.Error(), "in 0 places") {
		t.Errorf("got %v", err)
	}
}

func TestSet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	for _, want := range []time.Duration{time.Minute, -time.Hour, 0} {
		if err := Set(file, want); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Duration(int64(binary.NativeEndian.Uint64(content))) * time.Second; got != want {
			t.Errorf("set %v, want %v", got, want)
		}
	}
}
