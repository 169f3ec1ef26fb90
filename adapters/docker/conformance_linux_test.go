package docker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/engine/enginetest"
)

func TestConformance(t *testing.T) {
	enginetest.Test(t, func(tb testing.TB) enginetest.Harness {
		tb.Helper()
		return newHarness(tb, daemon, docker.Config{Capacity: 2, Egress: docker.EgressNone})
	})
}

// server is a daemon, of Docker or of Podman.
type server interface {
	Host() string
	Client() (*client.Client, error)
}

// config returns a configuration for the test's daemon.
func config(tb testing.TB, on server, c docker.Config) docker.Config {
	tb.Helper()
	c.Host = on.Host()
	if c.Instance == "" {
		c.Instance = strings.ReplaceAll(tb.Name(), "/", "-")
	}
	if c.Dir == "" {
		c.Dir = tb.TempDir()
	}
	return c
}

// open returns an engine that is closed with the test, and checks that it leaves
// nothing.
func open(tb testing.TB, c docker.Config) *docker.Engine {
	tb.Helper()
	return openOn(tb, daemon, c)
}

// openOn is open, on another daemon than that of all tests.
func openOn(tb testing.TB, on server, c docker.Config) *docker.Engine {
	tb.Helper()
	c = config(tb, on, c)
	e, shut, err := docker.New(tb.Context(), c, newLocalImages, testLog(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		shut()
		leavesNothing(tb, on, c)
	})
	return e
}

func leavesNothing(tb testing.TB, on server, c docker.Config) {
	tb.Helper()
	if left := leftoversOn(tb, on, c.Instance); len(left) > 0 {
		tb.Errorf("the engine has left %v", left)
	}
	if left, err := os.ReadDir(filepath.Join(c.Dir, "transcripts")); err != nil || len(left) > 0 {
		tb.Errorf("the engine has left transcripts: %v, %v", left, err)
	}
}

// leftovers returns what an instance has on the daemon.
func leftovers(tb testing.TB, instance string) (found []string) {
	tb.Helper()
	return leftoversOn(tb, daemon, instance)
}

func leftoversOn(tb testing.TB, on server, instance string) (found []string) {
	tb.Helper()
	c, err := on.Client()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	mine := client.Filters{}.Add("label", "taskcluster-worker.instance="+instance)
	ctx := context.Background()
	containers, err1 := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	networks, err2 := c.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	volumes, err3 := c.VolumeList(ctx, client.VolumeListOptions{Filters: mine})
	if err := errors.Join(err1, err2, err3); err != nil {
		tb.Fatal(err)
	}
	for _, x := range containers.Items {
		found = append(found, "container "+x.ID)
	}
	for _, x := range networks.Items {
		found = append(found, "network "+x.ID)
	}
	for _, x := range volumes.Items {
		found = append(found, "volume "+x.Name)
	}
	return found
}

func testLog(tb testing.TB) *slog.Logger {
	tb.Helper()
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// localImages are those that the daemon has.
type localImages struct{ daemon *client.Client }

func newLocalImages(_ context.Context, c *client.Client, _ *slog.Logger) (docker.Images, error) {
	return localImages{c}, nil
}

// Acquire implements docker.Images.
func (l localImages) Acquire(ctx context.Context, r docker.ImageRef, _ docker.ImageOptions) (docker.Image, error) {
	i, err := l.daemon.ImageInspect(ctx, r.Name)
	if err != nil {
		return docker.Image{}, fault.Malformedf("there is no image %s", r.Name)
	}
	image := docker.Image{ID: i.ID, Release: func() {}}
	if i.Config != nil {
		image.Entrypoint, image.Command, image.WorkDir = i.Config.Entrypoint, i.Config.Cmd, i.Config.WorkingDir
	}
	return image, nil
}

// Hold implements docker.Images.
func (l localImages) Hold(string) func() { return func() {} }

// harness has a shell take the steps.
type harness struct {
	c docker.Config
	e *docker.Engine
}

func newHarness(tb testing.TB, on server, c docker.Config) *harness {
	tb.Helper()
	h := &harness{c: config(tb, on, c)}
	h.Reopen(tb)
	tb.Cleanup(func() {
		if err := h.e.Close(); err != nil {
			tb.Error(err)
		}
		leavesNothing(tb, on, h.c)
	})
	return h
}

func (h *harness) Engine(testing.TB) engine.Engine { return h.e }

func (h *harness) Reopen(tb testing.TB) engine.Engine {
	tb.Helper()
	e, _, err := docker.New(tb.Context(), h.c, newLocalImages, testLog(tb))
	if err != nil {
		tb.Fatal(err)
	}
	h.e = e
	return e
}

func (h *harness) Last(tb testing.TB) engine.Engine {
	tb.Helper()
	if err := h.e.Close(); err != nil {
		tb.Error(err)
	}
	h.c.OrphanTimeout = -1
	return h.Reopen(tb)
}

func (h *harness) Abilities() enginetest.Abilities {
	return enginetest.Abilities{Proxies: true, Volumes: true, Shells: true, Reattach: true, Interrupts: true, Images: true}
}

func (h *harness) Payload(tb testing.TB, steps ...enginetest.Step) []byte {
	tb.Helper()
	script := "set -e\n"
	var commands, after [][]string
	for _, s := range steps {
		switch s.Do {
		case enginetest.Print:
			script += "printf %s " + quote(s.Text) + "\n"
		case enginetest.Flood:
			script += fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x\n", s.N)
		case enginetest.Count:
			script += fmt.Sprintf("seq %d\n", s.N)
		case enginetest.PrintEnv:
			script += "env\n"
		case enginetest.Exit:
			script += fmt.Sprintf("exit %d\n", s.N)
		case enginetest.Write:
			script += "mkdir -p " + quote(filepath.Dir(s.Path)) + "\nprintf %s " + quote(s.Text) + " > " + quote(s.Path) + "\n"
		case enginetest.Read:
			script += "cat " + quote(s.Path) + "\n"
		case enginetest.Link:
			script += "ln -s " + quote(s.Text) + " " + quote(s.Path) + "\n"
		case enginetest.Fetch:
			script += "wget -q -O - \"$" + s.Text + "\"\n"
		case enginetest.Missing:
			after = append(after, []string{"no-such-program"})
		case enginetest.Hang:
			script += "trap '' TERM INT HUP\nsetsid sh -c 'sleep 1000000; :' " + s.Text + " &\necho hang''ing\nsleep 1000000\nexit 0\n"
		case enginetest.Linger:
			script += "setsid sh -c 'sleep 1000000; :' " + s.Text + " &\n"
		case enginetest.Heed:
			script += heed
		case enginetest.Await:
			script += "echo await''ing\nuntil grep -q " + quote(s.Text) + " \"$TASKCLUSTER_INTERRUPTION_FILE\" 2>/dev/null; do sleep 0.02; done\ncat \"$TASKCLUSTER_INTERRUPTION_FILE\"\n"
		default:
			tb.Fatalf("no shell command for %q", s.Do)
		}
	}
	if len(after) == 0 || len(steps) > 1 {
		commands = [][]string{{"sh", "-c", script}}
	}
	return payloadOf(tb, map[string]any{"command": append(commands, after...), "workdir": "/work"})
}

// heed is what a shell does in a Heed step.
const heed = `told=
trap 'told=1' TERM
if [ -e "$TASKCLUSTER_INTERRUPTION_FILE" ]; then echo heed''ing again; else echo heed''ing; fi
while [ -z "$told" ]; do sleep 0.02; done
trap - TERM
cat "$TASKCLUSTER_INTERRUPTION_FILE"
`

func (h *harness) Alive(tb testing.TB, mark string) bool {
	tb.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range files {
		if line, err := os.ReadFile(name); err == nil && strings.Contains(string(line), mark) {
			return true
		}
	}
	return false
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// payloadOf returns a payload for the test image.
func payloadOf(tb testing.TB, properties map[string]any) []byte {
	tb.Helper()
	properties["image"] = dockertest.Image
	p, err := json.Marshal(properties)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}
