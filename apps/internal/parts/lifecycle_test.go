package parts

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/activity"
	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/native"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

var _ interface{ DataRoot() string } = (*docker.Engine)(nil)

// rooted is an engine with a daemon that keeps things in a directory.
type rooted struct {
	engine.Engine
	dir string
}

func (r rooted) DataRoot() string { return r.dir }

// There has to be space on the disk of a daemon, too.
func TestDisksThatAreMeasured(t *testing.T) {
	dir := t.TempDir()
	c := section.Linux{Native: section.Native{Dir: dir}}
	// What cannot be measured is refused, with its name.
	unmeasurable := filepath.Join(dir, "file", "docker")
	if err := os.WriteFile(filepath.Dir(unmeasurable), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		engine engine.Engine
		refuse bool
	}{
		{"without a daemon", new(native.Engine), false},
		{"with one elsewhere", rooted{}, false},
		{"with one here", rooted{dir: filepath.Join(dir, "docker")}, false},
		{"with one whose disk cannot be measured", rooted{dir: unmeasurable}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, shut := activity.New(activity.Config{})
			defer shut()
			_, err := NewLifecycle(section.Lifecycle{MinDisk: 1}, section.Worker{}, c, Deployment{}, Hooks{State: dir, Service: true}, a, nil, tt.engine, slog.New(slog.DiscardHandler))
			if refused := err != nil && strings.Contains(err.Error(), unmeasurable); refused != tt.refuse {
				t.Errorf("returned %v", err)
			}
		})
	}
}
