package docker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// makeDevices makes devices that are as /dev/null, and returns their paths.
func makeDevices(tb testing.TB, names ...string) []string {
	tb.Helper()
	dir := tb.TempDir()
	var paths []string
	for _, name := range names {
		paths = append(paths, filepath.Join(dir, name))
		if err := unix.Mknod(paths[len(paths)-1], unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			tb.Fatal(err)
		}
	}
	return paths
}

func TestCapabilitiesNeedPoolAndScope(t *testing.T) {
	const pool = "proj/linux"
	const capability = "docker-worker:capability:"
	device := func(name string) map[string]any { return map[string]any{"devices": map[string]bool{name: true}} }
	pooled := func(scope string) []string { return []string{scope, scope + ":" + pool} }
	for _, tt := range []struct {
		name   string
		wish   map[string]any
		scopes []string // any of them will do
		config docker.Config
	}{
		{"privileged", map[string]any{"privileged": true}, pooled(capability + "privileged"), docker.Config{Allow: docker.Allow{Privileged: true}}},
		{"disableSeccomp", map[string]any{"disableSeccomp": true}, []string{capability + "disableSeccomp"}, docker.Config{Allow: docker.Allow{DisableSeccomp: true}}},
		{"ptrace", map[string]any{"ptrace": true}, []string{"docker-worker:feature:allowPtrace"}, docker.Config{Allow: docker.Allow{Ptrace: true}}},
		{"devices.kvm", device("kvm"), pooled(capability + "device:kvm"), docker.Config{Allow: docker.Allow{KVM: true}}},
		{"devices.loopbackVideo", device("loopbackVideo"), pooled(capability + "device:loopbackVideo"), docker.Config{Allow: docker.Allow{LoopbackVideo: true}, Devices: docker.Devices{Video: makeDevices(t, "video0")}}},
		{"devices.loopbackAudio", device("loopbackAudio"), pooled(capability + "device:loopbackAudio"), docker.Config{Allow: docker.Allow{LoopbackAudio: true}, Devices: docker.Devices{Audio: makeDevices(t, "controlC0")}}},
		{"devices.hostSharedMemory", device("hostSharedMemory"), pooled(capability + "device:hostSharedMemory"), docker.Config{Allow: docker.Allow{SharedMemory: true}}},
		{"devices.gpus", map[string]any{"devices": map[string]any{"gpus": 1}}, pooled(capability + "device:gpus"), docker.Config{Devices: docker.Devices{GPUs: []string{"0"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, map[string]any{"command": [][]string{{"true"}}, "capabilities": tt.wish}, newRecord())
			try := func(c docker.Config, scopes task.Scopes) error {
				t.Helper()
				c.Egress, c.Pool = docker.EgressNone, pool
				e := open(t, c)
				o.Authorize = func(_ context.Context, anyOf ...task.Scopes) error {
					if !scopes.SatisfyAny(anyOf...) {
						return fault.Malformedf("needs %v", anyOf)
					}
					return nil
				}
				b, err := e.NewBuilder(t.Context(), o)
				if err == nil {
					err = b.Close()
				}
				return err
			}
			want := "payload.capabilities." + tt.name + " is not available on worker pool " + pool
			if err := try(docker.Config{Instance: "strict"}, task.Scopes{"*"}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("on a pool that does not allow it: %v", err)
			}
			for _, scopes := range []task.Scopes{nil, {tt.scopes[0] + ":other/pool"}, {capability + "other"}} {
				err := try(tt.config, scopes)
				if f := fault.Classify(err); f == nil || f.Kind != fault.Malformed {
					t.Errorf("with the scopes %v: %v", scopes, err)
				}
				for _, s := range tt.scopes {
					if err != nil && !strings.Contains(err.Error(), s) {
						t.Errorf("the fault does not name %s: %v", s, err)
					}
				}
			}
			for _, s := range tt.scopes {
				if err := try(tt.config, task.Scopes{s}); err != nil {
					t.Errorf("with the scope %s: %v", s, err)
				}
			}
		})
	}
}

// asking is a payload that asks for a device.
func asking(script, device string) map[string]any {
	p := shell(script)
	p["capabilities"] = map[string]any{"devices": map[string]any{device: true}}
	return p
}

func TestDevicesAreOfOneTaskAtATime(t *testing.T) {
	videos := makeDevices(t, "video3", "video7")
	e := open(t, docker.Config{Egress: docker.EgressNone, Allow: docker.Allow{LoopbackVideo: true}, Devices: docker.Devices{Video: videos}})
	script := "test -c $TASKCLUSTER_VIDEO_DEVICE && echo ha''s: $TASKCLUSTER_VIDEO_DEVICE; ls -d " + videos[0] + " " + videos[1] + " 2>/dev/null | wc -l; sleep 1000"
	logs := []*record{newRecord(), newRecord()}
	seen := map[string]bool{}
	var end func() error
	for _, log := range logs {
		s := begin(t, e, asking(script, "loopbackVideo"), log)
		end = func() error { return s.Abort(context.Background()) }
		log.has(t.Context(), t, "\n1\n")
		_, after, _ := strings.Cut(log.String(), "has: ")
		seen[strings.Fields(after)[0]] = true
	}
	if len(seen) != 2 || !seen[videos[0]] {
		t.Errorf("two tasks have %v, want each of %v", seen, videos)
	}

	// The third waits, for as long as it may.
	log := newRecord()
	short, cancel := context.WithCancel(t.Context())
	refused := make(chan error)
	go func() {
		_, err := e.NewBuilder(short, options(t, asking("true", "loopbackVideo"), log))
		refused <- err
	}()
	log.has(t.Context(), t, "Waiting for payload.capabilities.devices.loopbackVideo")
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Errorf("a task that does not wait any longer: %v", err)
	}

	// The next one gets what is given back.
	log = newRecord()
	done := make(chan error)
	go func() {
		b, err := e.NewBuilder(t.Context(), options(t, asking("true", "loopbackVideo"), log))
		if err == nil {
			err = b.Close()
		}
		done <- err
	}()
	log.has(t.Context(), t, "Waiting for")
	if err := end(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSoundCardsHaveSeveralDevices(t *testing.T) {
	paths := makeDevices(t, "controlC0", "pcmC0D0p", "controlC1", "pcmC1D0p", "pcmC1D0c", "pcmC10D0p", "timer")
	dir := filepath.Dir(paths[0])
	e := open(t, docker.Config{Egress: docker.EgressNone, Allow: docker.Allow{LoopbackAudio: true}, Devices: docker.Devices{Audio: []string{dir + "/controlC1"}}})
	_, log := run(t, e, asking("ls "+dir+" | xargs echo has:", "loopbackAudio"))
	if !strings.Contains(log.String(), "has: controlC1 pcmC1D0c pcmC1D0p\n") {
		t.Errorf("a task has other devices:\n%s", log)
	}
}

func TestDevicesThatAreNotThere(t *testing.T) {
	for _, d := range []docker.Devices{{Video: []string{"/dev/no-such-device"}}, {Audio: []string{"/etc/passwd"}}} {
		c := docker.Config{Host: daemon.Host(), Egress: docker.EgressNone, Instance: "devices", Devices: d}
		if _, _, err := docker.New(t.Context(), c, newLocalImages, testLog(t)); err == nil || !strings.Contains(err.Error(), "find device") {
			t.Errorf("%+v: %v", d, err)
		}
	}
	e := open(t, docker.Config{Egress: docker.EgressNone, Pool: "proj/linux", Devices: docker.Devices{GPUs: []string{"0", "1"}}, Allow: docker.Allow{LoopbackAudio: true}})
	p := asking("true", "loopbackAudio")
	if found, _ := filepath.Glob("/dev/snd/controlC*"); len(found) == 0 {
		_, err := e.NewBuilder(t.Context(), options(t, p, newRecord()))
		if f := fault.Classify(err); f == nil || f.Kind != fault.Unavailable {
			t.Errorf("without any device: %v", err)
		}
	}
	p["capabilities"] = map[string]any{"devices": map[string]any{"gpus": 3}}
	_, err := e.NewBuilder(t.Context(), options(t, p, newRecord()))
	if f := fault.Classify(err); f == nil || f.Kind != fault.Malformed || !strings.Contains(f.Message, "3 are too many, workers of pool proj/linux have 2") {
		t.Errorf("more than there are: %v", err)
	}
}

func TestSharedMemoryOfTheHost(t *testing.T) {
	f, err := os.CreateTemp("/dev/shm", "dockertest-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	e := open(t, docker.Config{Egress: docker.EgressNone, Allow: docker.Allow{SharedMemory: true}})
	script := fmt.Sprintf("test -e %s && echo shared || echo apart", f.Name())
	if _, log := run(t, e, asking(script, "hostSharedMemory")); !strings.Contains(log.String(), "shared\n") {
		t.Errorf("a task that asks for it:\n%s", log)
	}
	if _, log := run(t, e, shell(script)); !strings.Contains(log.String(), "apart\n") {
		t.Errorf("a task that does not:\n%s", log)
	}
}
