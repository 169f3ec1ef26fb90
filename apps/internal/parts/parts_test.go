package parts_test

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/taskcluster/taskcluster-worker/apps/internal/parts"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// The state is below the native engine's directory unless it is configured, and
// whichever of the two is made first, the users of tasks must be able to pass.
func TestTasksPassThroughWhatIsAboveTheState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "native")
	state := filepath.Join(dir, "state")
	_, shut, err := parts.NewJournal(t.Context(), parts.Hooks{State: state}, telemetry.Off{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer shut()
	for name, want := range map[string]fs.FileMode{dir: 0o755, state: 0o700} {
		s, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
	}
}
