package systemd

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen has the process notify a socket of the test's own, of which it returns
// the next message.
func listen(t *testing.T, path string) (next func() string) {
	t.Helper()
	name := path
	if strings.HasPrefix(path, "@") {
		name = "\x00" + path[1:]
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		message := make([]byte, 100)
		n, err := conn.Read(message)
		if err != nil {
			t.Fatal(err)
		}
		return string(message[:n])
	}
}

func TestNotify(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "notify"), "@taskcluster-worker-test-" + t.Name()} {
		next := listen(t, path)
		if err := Notify(t.Context(), Ready); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != Ready {
			t.Errorf("%s: systemd is told %q, want %q", path, got, Ready)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := Notify(t.Context(), Ready); err == nil {
		t.Error("no error although nobody listens")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(t.Context(), Ready); err != nil {
		t.Errorf("without systemd: %v", err)
	}
}

func TestKeepAlive(t *testing.T) {
	next := listen(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "20000")
	stop := KeepAlive(t.Context())
	for range 3 {
		if got := next(); got != alive {
			t.Errorf("systemd is told %q, want %q", got, alive)
		}
	}
	stop()
}

func TestWatchdog(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", "1", 0},
		{"30000000", "self", 30 * time.Second},
		{"-1", "", 0},
		{"soon", "", 0},
	} {
		if tt.pid == "self" {
			tt.pid = strconv.Itoa(os.Getpid())
		}
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		if got := watchdog(); got != tt.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %v", tt.usec, tt.pid, got, tt.want)
		}
	}
}

func TestLogHandler(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewLogHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	log = log.With(slog.String("a", "b")).WithGroup("g")
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		log.Log(t.Context(), level, "two\nlines", slog.Int("n", 1))
	}
	want := []string{"<7>", "<6>", "<4>", "<3>"}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("there are %d lines, want %d:\n%s", len(lines), len(want), out.String())
	}
	for i, line := range lines {
		record, ok := strings.CutPrefix(line, want[i])
		var fields map[string]any
		if err := json.Unmarshal([]byte(record), &fields); err != nil || !ok || fields["a"] != "b" || fields["msg"] != "two\nlines" {
			t.Errorf("line is %s, %v", line, err)
		}
	}
}

// Records that are written at once do not get each other's priority.
func TestLogHandlerIsSafeForConcurrentUse(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(NewLogHandler(&out, nil))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				log.Info("info")
				log.Error("error")
			}
		})
	}
	wg.Wait()
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "<6>") != strings.Contains(line, `"msg":"info"`) || strings.HasPrefix(line, "<3>") != strings.Contains(line, `"msg":"error"`) {
			t.Fatalf("line is %s", line)
		}
	}
}
