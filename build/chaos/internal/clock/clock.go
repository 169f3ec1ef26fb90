// Package clock lets the clock of one program jump. A clock is the machine's, and
// no namespace has one of its own; so the program is built with a package time
// of the standard library that adds what is in a file to the time of the day.
// The monotonic clock goes on evenly, as it does when a clock is set.
package clock

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Variable is that of the program's environment which names the file.
const Variable = "CHAOS_CLOCK"

// Set has the clock of a program be ahead from now on. The file is made if there
// is none.
func Set(file string, ahead time.Duration) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // there is nothing to keep secret
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), 0) //nolint:gosec // read as signed
	return errors.Join(err, f.Close())
}

// addition is the file that is added to package time.
const addition = `package time

import (
	"syscall"
	"unsafe"
)

// jump is by how many seconds the time of the day is ahead.
var jump = mapJump()

func mapJump() *int64 {
	name, _ := syscall.Getenv("` + Variable + `")
	if name == "" {
		return new(int64)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("open clock " + name + ": " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map clock " + name + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}
`

// reading is where package time reads the clock of the day.
const reading = "sec, nsec, mono := runtimeNow()\n"

// Overlay writes what "go build -overlay" needs to a directory, and returns the
// file to name there. root is GOROOT.
func Overlay(root, dir string) (string, error) {
	original := filepath.Join(root, "src", "time", "time.go")
	source, err := os.ReadFile(original) //nolint:gosec // the standard library
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), reading); n != 1 {
		return "", fmt.Errorf("%s reads the clock in %d places, want 1: another version of Go needs another overlay", original, n)
	}
	patched := strings.Replace(string(source), reading, reading+"\tsec += *jump\n", 1)
	files := map[string]string{"time.go": patched, "jump.go": addition}
	replace := map[string]string{}
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil { //nolint:gosec // there is nothing to keep secret
			return "", err
		}
		replace[filepath.Join(root, "src", "time", name)] = at
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, overlay, 0o644) //nolint:gosec // there is nothing to keep secret
}
