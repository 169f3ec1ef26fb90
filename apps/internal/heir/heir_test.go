package heir

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
)

func TestMain(m *testing.M) {
	if supervisor.Invoked() {
		os.Exit(supervisor.Main())
	}
	if Invoked() {
		os.Exit(Main())
	}
	goleak.VerifyTestMain(m)
}

// appoint makes an estate in a directory of its own, with an engine that cannot be
// opened.
func appoint(t *testing.T) (dir string, leave func() error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "estate")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	leave, err := Appoint(dir, Will{Linux: section.Linux{Engine: "docker", State: filepath.Join(dir, "state"), Docker: section.Docker{
		Addresses: "10.213.0.0/16", Host: "unix://" + filepath.Join(dir, "docker.sock"),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return dir, leave
}

func exists(t *testing.T, dir string) bool {
	t.Helper()
	_, err := os.Lstat(dir)
	return err == nil
}

func TestWorkerLeavesNothingToItsHeir(t *testing.T) {
	dir, leave := appoint(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := leave(); err != nil { // waits for the heir, too
		t.Error(err)
	}
	if exists(t, dir) {
		t.Error("the estate is left")
	}
}

func TestEstateHasOneWorker(t *testing.T) {
	dir, leave := appoint(t)
	if _, err := Appoint(dir, Will{}); err == nil {
		t.Error("two workers have the same estate")
	}
	if err := leave(); err != nil {
		t.Error(err)
	}
}

// leftBy makes an estate whose worker, and whose heir, were killed.
func leftBy(t *testing.T, will string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "estate")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{lockName: "", willName: will, "file": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSweepRemovesWhatIsLeft(t *testing.T) {
	for title, will := range map[string]string{
		"of a worker whose engine others use":             `{"Linux": {"Engine": "docker"}, "Shared": true}`,
		"of a worker that was killed when it had a lock":  ``,
		"of a worker that was killed while it wrote that": `{"Linux": {"Engi`,
	} {
		t.Run(title, func(t *testing.T) {
			dir := leftBy(t, will)
			if err := Sweep(filepath.Join(filepath.Dir(dir), "est*")); err != nil {
				t.Fatal(err)
			}
			poll := time.NewTicker(time.Millisecond)
			defer poll.Stop()
			for exists(t, dir) {
				select {
				case <-poll.C:
				case <-t.Context().Done():
					t.Fatal("the estate is left")
				}
			}
		})
	}
}

func TestSweepLeavesWhatIsNotItsOwn(t *testing.T) {
	for title, change := range map[string]func(dir string) error{
		"without a will":           func(dir string) error { return os.Remove(filepath.Join(dir, willName)) },
		"that others can write to": func(dir string) error { return os.Chmod(dir, 0o777) },
		"of another user":          func(dir string) error { return os.Chown(dir, 12345, 12345) },
		"that is somewhere else": func(dir string) error {
			if err := os.Rename(dir, dir+"-elsewhere"); err != nil {
				return err
			}
			return os.Symlink(dir+"-elsewhere", dir)
		},
	} {
		t.Run(title, func(t *testing.T) {
			dir := leftBy(t, `{"Shared": true}`)
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			if abandoned(dir) {
				t.Error("the directory is believed to be an estate")
			}
		})
	}
	dir, leave := appoint(t)
	if abandoned(dir) {
		t.Error("the worker lives")
	}
	if err := leave(); err != nil {
		t.Error(err)
	}
}

// What the heir cannot remove now, the next one may.
func TestHeirKeepsWhatTellsTheNext(t *testing.T) {
	dir, leave := appoint(t)
	content, err := os.ReadFile(filepath.Join(dir, willName))
	if err != nil {
		t.Fatal(err)
	}
	if err := leave(); err != nil {
		t.Error(err)
	}
	dir = leftBy(t, string(content))
	if err := inherit(t.Context(), dir); err == nil {
		t.Error("an heir has an engine whose daemon is not there")
	}
	if !abandoned(dir) {
		t.Error("nothing is left to the next heir")
	}
}

// An heir waits for as long as the worker has the lock, whatever it is told.
func TestHeirHeedsNoSignal(t *testing.T) {
	dir := leftBy(t, `{"Shared": true}`)
	lock, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	heir, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Its name is the first thing that it changes once it heeds no signals.
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for comm := ""; comm != name[:15]+"\n"; {
		<-poll.C
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(heir.Pid), "comm"))
		if err != nil {
			t.Fatal(err)
		}
		comm = string(b)
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := heir.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if state, err := heir.Wait(); err != nil || !state.Success() || exists(t, dir) {
		t.Errorf("the heir has ended with %v, %v, and the estate is left: %t", state, err, exists(t, dir))
	}
}
