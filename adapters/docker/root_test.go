package docker

import (
	"path/filepath"
	"testing"

	systemtypes "github.com/moby/moby/api/types/system"
)

func TestLocalRoot(t *testing.T) {
	t.Parallel()
	here := t.TempDir()
	for _, tt := range []struct {
		name, host, root, want string
	}{
		{"a daemon on this machine", "unix:///run/docker.sock", here, here},
		{"one in a virtual machine", "unix:///run/docker.sock", filepath.Join(here, "elsewhere"), ""},
		{"one on another machine", "tcp://10.0.0.1:2376", here, ""},
		{"one that does not say", "unix:///run/docker.sock", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := localRoot(tt.host, systemtypes.Info{DockerRootDir: tt.root}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
