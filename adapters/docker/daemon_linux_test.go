package docker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/adapters/docker/dockertest"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// frozen is for how long a daemon does nothing.
const frozen = 30 * time.Second

// Tasks that are running when something happens to the daemon, and say "ready":
// those that last until they are told to end, and those that count for some
// seconds, whatever happens to the daemon.
var (
	lasting = map[string]map[string]any{
		"that would go on":                  shell("echo rea''dy; sleep 1000"),
		"that ignores signals":              shell("trap '' TERM INT HUP; echo rea''dy; while :; do sleep 0.1; done"),
		"that ends well if it is to end":    shell("trap 'exit 0' TERM; echo rea''dy; while :; do sleep 0.1; done"),
		"that ends in its way if it is to":  shell("trap 'exit 3' TERM; echo rea''dy; while :; do sleep 0.1; done"),
		"of several commands":               {"command": [][]string{{"true"}, {"sh", "-c", "echo rea''dy; sleep 1000"}, {"true"}}},
		"of several commands, without fuss": {"command": [][]string{{"sh", "-c", "trap 'exit 0' TERM; echo rea''dy; while :; do sleep 0.1; done"}, {"true"}}},
	}
	counters = map[string]map[string]any{
		"that counts": shell("echo rea''dy; i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo n$i; sleep 0.1; done; echo la''st"),
		"that counts, in several commands": {"command": [][]string{
			{"true"}, {"sh", "-c", "echo rea''dy; i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo n$i; sleep 0.1; done"}, {"sh", "-c", "echo la''st"},
		}},
	}
)

// counting is a task that prints numbers up to 30, one every 100 ms.
func counting() map[string]any {
	return shell("i=0; while [ $i -lt 30 ]; do echo n$i; i=$((i+1)); sleep 0.1; done; echo la''st")
}

// running is a task in trouble.
type running struct {
	title   string
	log     *record
	sandbox engine.Sandbox
}

// beginAll starts tasks, each with a volume, and waits until they run.
func beginAll(t *testing.T, e *docker.Engine, payloads ...map[string]map[string]any) (all []running) {
	t.Helper()
	for _, some := range payloads {
		for title, p := range some {
			v, err := e.NewVolume(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			log := newRecord()
			b, err := e.NewBuilder(t.Context(), options(t, p, log))
			if err == nil {
				err = b.(engine.VolumeAttacher).AttachVolume("/volume", v, false)
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := b.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := errors.Join(s.Abort(context.Background()), v.Close()); err != nil {
					t.Error(err)
				}
			})
			all = append(all, running{title, log, s})
		}
	}
	for _, r := range all {
		r.log.has(t.Context(), t, "ready\n")
	}
	return all
}

// wantCounted checks that tasks come to their end, with all of their output.
func wantCounted(t *testing.T, tasks []running) {
	t.Helper()
	for _, r := range tasks {
		result, err := r.sandbox.Wait(t.Context())
		if err != nil {
			t.Errorf("a task %s: %v", r.title, err)
			continue
		}
		_, output, _ := strings.Cut(r.log.String(), "ready\n")
		if got := strings.Count(output, "\nn"); !result.Result().Success || got != 79 || strings.Count(output, "last\n") != 1 {
			t.Errorf("a task %s has the result %+v:\n%s", r.title, result.Result(), r.log)
		}
		if err := result.Close(); err != nil {
			t.Error(err)
		}
	}
}

// wantEndedByHost checks that nothing is said of tasks but that the host has
// ended them, so that they are run again.
func wantEndedByHost(t *testing.T, tasks []running) {
	t.Helper()
	for _, r := range tasks {
		result, err := r.sandbox.Wait(t.Context())
		if f := fault.Classify(err); f == nil || f.Kind != fault.Shutdown {
			t.Errorf("a task %s: got %v, %v, want that the host has ended it:\n%s", r.title, result, err, r.log)
		}
		if err := r.sandbox.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// withDaemon calls a function with a daemon of its own and an engine on it, and
// checks that the engine works afterwards, and leaves nothing at all.
func withDaemon(t *testing.T, args []string, trouble func(*dockertest.Daemon, *docker.Engine)) {
	t.Helper()
	d := another(t, args...)
	t.Cleanup(func() {
		c, err := d.Client()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		ctx := context.Background()
		containers, err1 := c.ContainerList(ctx, client.ContainerListOptions{All: true})
		volumes, err2 := c.VolumeList(ctx, client.VolumeListOptions{})
		networks, err3 := c.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("type", "custom")})
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		if len(containers.Items)+len(volumes.Items)+len(networks.Items) > 0 {
			t.Errorf("left: %v, %v, %v", containers.Items, volumes.Items, networks.Items)
		}
	})
	e := openOn(t, d, docker.Config{Egress: docker.EgressInternet, Capacity: 2})
	trouble(d, e)
	for range 2 {
		if r, log := run(t, e, shell("ls /sys/class/net; echo again")); !r.Result().Success || !strings.Contains(log.String(), "eth0") {
			t.Errorf("afterwards, a task has the result %+v:\n%s", r.Result(), log)
		}
	}
}

func restart(t *testing.T, d *dockertest.Daemon, end func()) {
	t.Helper()
	end()
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
}

func TestDaemonThatIsStoppedAndStarted(t *testing.T) {
	t.Parallel()
	withDaemon(t, []string{"--shutdown-timeout=2"}, func(d *dockertest.Daemon, e *docker.Engine) {
		tasks := beginAll(t, e, lasting)
		restart(t, d, d.Terminate)
		wantEndedByHost(t, tasks)
	})
}

func TestDaemonThatIsKilledAndStarted(t *testing.T) {
	t.Parallel()
	withDaemon(t, nil, func(d *dockertest.Daemon, e *docker.Engine) {
		tasks := beginAll(t, e, lasting)
		restart(t, d, d.Kill)
		wantEndedByHost(t, tasks)
	})
}

// A daemon may leave containers running when it goes.
func TestDaemonThatRestoresContainers(t *testing.T) {
	t.Parallel()
	for title, end := range map[string]func(*dockertest.Daemon){"stopped": (*dockertest.Daemon).Terminate, "killed": (*dockertest.Daemon).Kill} {
		t.Run(title, func(t *testing.T) {
			withDaemon(t, []string{"--live-restore"}, func(d *dockertest.Daemon, e *docker.Engine) {
				tasks := beginAll(t, e, counters)
				restart(t, d, func() { end(d) })
				wantCounted(t, tasks)
			})
		})
	}
}

// Tasks that begin while the daemon is being started again wait for it.
func TestDaemonThatIsDownIsWaitedFor(t *testing.T) {
	t.Parallel()
	withDaemon(t, nil, func(d *dockertest.Daemon, e *docker.Engine) {
		d.Terminate()
		launched := make(chan error, 1)
		// What is too early without waiting is so for much longer than it takes
		// to begin a task.
		time.AfterFunc(500*time.Millisecond, func() { launched <- d.Launch() })
		for range 3 {
			if r, log := run(t, e, shell("echo here")); !r.Result().Success {
				t.Errorf("result %+v:\n%s", r.Result(), log)
			}
		}
		if err := <-launched; err != nil {
			t.Error(err)
		}
	})
}

func TestDaemonThatIsFrozen(t *testing.T) {
	t.Parallel()
	withDaemon(t, nil, func(d *dockertest.Daemon, e *docker.Engine) {
		tasks := beginAll(t, e, counters)
		killed := beginAll(t, e, map[string]map[string]any{"that is killed meanwhile": lasting["that ignores signals"]})
		if err := d.Freeze(); err != nil {
			t.Fatal(err)
		}
		// Nothing happens meanwhile, so that there is nothing to wait for.
		time.AfterFunc(frozen, func() {
			if err := d.Thaw(); err != nil {
				t.Error(err)
			}
		})
		if err := killed[0].sandbox.Kill(t.Context()); err != nil {
			t.Error(err)
		}
		// A task that is started meanwhile has to wait.
		if r, log := run(t, e, shell("echo meanwhile")); !r.Result().Success {
			t.Errorf("a task that was started meanwhile has the result %+v:\n%s", r.Result(), log)
		}
		if got := finish(t, killed[0].sandbox).Result(); !got.Killed || got.Success {
			t.Errorf("a task that was killed meanwhile has the result %+v", got)
		}
		wantCounted(t, tasks)
	})
}
