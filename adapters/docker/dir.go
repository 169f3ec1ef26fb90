package docker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What is in the engine's directory. Containers have programs and transcripts
// mounted.
const (
	transcripts = "transcripts"
	programs    = "programs"
)

// openDir makes the engine's directory, with the program that is the first
// process of containers. Everybody may pass through it, as a user of a container
// may be any user of the host, but nobody can list it.
func (e *Engine) openDir() (err error) {
	if e.dir = e.config.Dir; e.dir == "" {
		e.temporary = true
		if e.dir, err = os.MkdirTemp("", "taskcluster-docker-"); err != nil {
			return err
		}
	}
	program, err := readProgram()
	if err != nil {
		return err
	}
	for _, dir := range []string{e.dir, filepath.Join(e.dir, transcripts), filepath.Join(e.dir, programs)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // see above
			return err
		}
	}
	sum := sha256.Sum256(program)
	e.program = filepath.Join(e.dir, programs, hex.EncodeToString(sum[:8]))
	return putProgram(e.program, program)
}

// putProgram puts a program in its place, at once.
func putProgram(path string, program []byte) (err error) {
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, program) { //nolint:gosec // made of the configuration
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("put program in place: %w", err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(program)
	if err = errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// clearDir removes what no container has mounted.
func (e *Engine) clearDir(mounted map[string]bool) error {
	for _, dir := range []string{transcripts, programs} {
		files, err := os.ReadDir(filepath.Join(e.dir, dir))
		if err != nil {
			return err
		}
		for _, f := range files {
			path := filepath.Join(e.dir, dir, f.Name())
			if mounted[path] || path == e.program || strings.HasPrefix(dir, programs) && len(mounted) > 0 {
				continue
			}
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeDir removes a temporary directory.
func (e *Engine) removeDir() error {
	if !e.temporary || e.dir == "" {
		return nil
	}
	return os.RemoveAll(e.dir)
}
