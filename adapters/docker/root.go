package docker

import (
	"os"
	"strings"

	systemtypes "github.com/moby/moby/api/types/system"
)

// DataRoot returns the directory where the daemon keeps images, containers and
// volumes, or nothing if that is not on this machine.
func (e *Engine) DataRoot() string { return e.dataRoot }

// localRoot returns the data root of a daemon, if it can be on this machine: a
// Unix socket may lead into a virtual machine, which has directories of its own.
func localRoot(host string, info systemtypes.Info) string {
	if !strings.HasPrefix(host, "unix://") {
		return ""
	}
	if s, err := os.Stat(info.DockerRootDir); err != nil || !s.IsDir() {
		return ""
	}
	return info.DockerRootDir
}
