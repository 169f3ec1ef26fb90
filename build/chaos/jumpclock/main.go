// Command jumpclock builds a program whose clock can jump: jumpclock OUT PACKAGE.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/taskcluster/taskcluster-worker/build/chaos/internal/clock"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: jumpclock OUT PACKAGE")
		os.Exit(64)
	}
	if err := build(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "jumpclock:", err)
		os.Exit(1)
	}
}

// build builds a program from a package.
func build(out, pkg string) (err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output() //nolint:noctx // it ends by itself
	if err != nil {
		return fmt.Errorf("find Go: %w", err)
	}
	dir, err := os.MkdirTemp("", "jumpclock-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := clock.Overlay(strings.TrimSpace(string(root)), dir)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-overlay", overlay, "-o", out, pkg) //nolint:noctx,gosec // as above; the caller's own arguments
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
