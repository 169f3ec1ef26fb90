package docker

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// stubborn is a daemon that has a container, a network and a volume of an earlier
// worker, and removes each of them when it is asked again only.
type stubborn struct {
	mu    sync.Mutex
	asked map[string]int
}

func (s *stubborn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	name := path.Base(r.URL.Path)
	if r.Method == http.MethodDelete {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.asked[name]++; s.asked[name] == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"message": "device or resource busy"}`)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_, _ = io.WriteString(w, map[string]string{
		"json":     `[{"Id": "container", "State": "dead"}]`,
		"networks": `[{"Id": "network"}]`,
		"volumes":  `{"Volumes": [{"Name": "taskcluster-volume"}]}`,
	}[name])
}

// What cannot be removed yet keeps the worker from nothing.
func TestSweepGoesOnWithoutWhatCannotBeRemovedYet(t *testing.T) {
	daemon := &stubborn{asked: map[string]int{}}
	e := &Engine{
		config: Config{}.withDefaults(), daemon: answer(t, daemon.ServeHTTP), ctx: t.Context(), dir: t.TempDir(),
		log: slog.New(slog.DiscardHandler),
	}
	e.trash, e.networks = newTrash(e), newNetworks(e)
	for _, dir := range []string{transcripts, programs} {
		if err := os.Mkdir(filepath.Join(e.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if err := e.KeepVolumes(t.Context(), nil); err != nil {
		t.Error(err)
	}
	e.trash.close(time.Minute)
	for _, name := range []string{"container", "network", "taskcluster-volume"} {
		if n := daemon.asked[name]; n < 2 {
			t.Errorf("the daemon was asked %d times to remove the %s", n, name)
		}
	}
}
