package docker

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
)

// A task that has freed its transcript, and filled the disk then, is killed all
// the same.
func TestTaskIsSignaledThoughThatCannotBeNoted(t *testing.T) {
	var signals []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/kill") {
			signals = append(signals, r.URL.Query().Get("signal"))
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	daemon, err := client.New(client.WithHost("tcp://"+server.Listener.Addr().String()), client.WithAPIVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = daemon.Close() }()
	file, err := transcript.Create(filepath.Join(t.TempDir(), "transcript"), transcript.Spec{}, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil { // nothing can be written to it
		t.Fatal(err)
	}
	s := &sandbox{e: &Engine{daemon: daemon, log: slog.New(slog.DiscardHandler)}, id: "task", transcript: file}
	if !s.signal(t.Context(), "KILL") || len(signals) != 1 || signals[0] != "KILL" {
		t.Errorf("the container has got %v", signals)
	}
}
