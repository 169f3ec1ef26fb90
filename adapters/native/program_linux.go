package native

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// The standalone supervisor is there if it was generated before the worker was
// built.
//
//go:generate env GOOS=linux CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o embedded/supervisor_linux_$GOARCH ./supervisor/standalone
//go:embed embedded
var embedded embed.FS

// openProgram returns the program to start supervisors from: the embedded one,
// or else this very program.
func openProgram() (*os.File, error) {
	program, err := embedded.ReadFile("embedded/supervisor_linux_" + runtime.GOARCH)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Open("/proc/self/exe")
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("taskcluster-supervisor", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err != nil {
		return nil, fmt.Errorf("store supervisor: %w", err)
	}
	writable := os.NewFile(uintptr(fd), "supervisor")
	defer func() { _ = writable.Close() }() // what is open for writing cannot be executed
	if _, err := writable.Write(program); err != nil {
		return nil, fmt.Errorf("store supervisor: %w", err)
	}
	return os.Open(descriptor(int(writable.Fd())))
}

// descriptor returns a path of the open file with the given descriptor.
func descriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
