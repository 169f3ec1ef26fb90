package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

var update = flag.Bool("update", false, "write the table of the manual instead of comparing with it")

// ownSettings returns the table of the settings that not all workers for Linux
// have.
func ownSettings() string {
	table := settings().Markdown()
	for line := range strings.Lines(setting.Of[section.Linux]("EC2_SPOT_WORKER_").Markdown()) {
		if strings.HasPrefix(line, "| `") {
			table = strings.Replace(table, line, "", 1)
		}
	}
	return table
}

// The manual has what the program knows of its settings.
func TestManual(t *testing.T) {
	const file, begin, end = "../../docs/operators/ec2.md", "<!-- settings -->\n", "<!-- end of settings -->\n"
	manual, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(manual), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks %q or %q", file, begin, end)
	}
	want := head + begin + ownSettings() + end + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(manual)); diff != "" {
		t.Errorf("the manual's table is out of date; run this test with -update (-want +manual):\n%s", diff)
	}
}

// The pool has precedence over the file, and the environment over both.
func TestLoadPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "worker.yml")
	if err := os.WriteFile(file, []byte("worker: {capacity: 2, maxTaskRunTime: 2h}\nlifecycle: {maxIdle: 2m}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := load(setting.Sources{
		File:      file,
		Documents: []setting.Document{{Name: "pool", Content: map[string]any{"worker": map[string]any{"capacity": 3, "maxTaskRunTime": "3h"}}}},
		Environ:   []string{"EC2_SPOT_WORKER_WORKER_CAPACITY=4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.Worker.Capacity != 4 || l.Worker.MaxTaskRunTime != 3*time.Hour || l.Lifecycle.MaxIdle != 2*time.Minute {
		t.Errorf("configuration is %+v, %+v", l.Worker, l.Lifecycle)
	}
	if got, want := l.values["worker.maxTaskRunTime"].Origin, "pool"; got != want {
		t.Errorf("origin is %s, want %s", got, want)
	}
}
