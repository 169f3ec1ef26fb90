package docker

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker/internal/transcript"
)

// answer returns a client of a daemon that answers as a function does.
func answer(t *testing.T, f http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	daemon, err := client.New(client.WithHost("tcp://"+server.Listener.Addr().String()), client.WithAPIVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Close() })
	return daemon
}

// The daemon may learn of the OOM killer after the end of the container.
func TestOOMKillerIsToldOfAfterTheEnd(t *testing.T) {
	for _, tt := range []struct {
		title  string
		states []string // each for one question; the last for all that follow
		want   bool
	}{
		{"with the second answer", []string{"false", "true"}, true},
		{"never", []string{"false"}, false},
		{"the daemon goes away", []string{"false", ""}, false},
	} {
		t.Run(tt.title, func(t *testing.T) {
			asked := 0
			daemon := answer(t, func(w http.ResponseWriter, _ *http.Request) {
				state := tt.states[min(asked, len(tt.states)-1)]
				asked++
				if state == "" {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"State": {"ExitCode": 137, "OOMKilled": `+state+`}}`)
			})
			s := &sandbox{e: &Engine{daemon: daemon}, id: "task", ctx: t.Context()}
			if got := s.oomKilled(); got != tt.want {
				t.Errorf("the OOM killer has ended it: %v, want %v", got, tt.want)
			}
		})
	}
}

// A task that has freed its transcript, and filled the disk then, is killed all
// the same.
func TestTaskIsSignaledThoughThatCannotBeNoted(t *testing.T) {
	var signals []string
	daemon := answer(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/kill") {
			signals = append(signals, r.URL.Query().Get("signal"))
		}
		w.WriteHeader(http.StatusNoContent)
	})
	file, err := transcript.Create(filepath.Join(t.TempDir(), "transcript"), transcript.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil { // nothing can be written to it
		t.Fatal(err)
	}
	s := &sandbox{e: &Engine{daemon: daemon, log: slog.New(slog.DiscardHandler)}, id: "task", transcript: file}
	if !s.signal(t.Context(), "KILL", file.Kill) || len(signals) != 1 || signals[0] != "KILL" {
		t.Errorf("the container has got %v", signals)
	}
}
