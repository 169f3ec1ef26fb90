package native

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// namespacesVariable is set to "none" for tests that are to go without.
const namespacesVariable = "NATIVE_TEST_NAMESPACES"

// TestAsOrdinaryUser runs the tests of what holds for a worker that is not
// root, with and without namespaces for users.
func TestAsOrdinaryUser(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	// The directory of the test's binary is closed to others, the file is not.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	for namespaces, except := range map[string]string{
		"all": "^$",
		// Without a root of its own, the task sees the files that the worker
		// sees, and its directory is no mount that would have to stay.
		"none": "TestConformance/FollowsNoLinkOutOfSandbox|TestHowCommandsEnd/the_task_directory_cannot_go",
	} {
		t.Run(namespaces, func(t *testing.T) {
			tests := "^(TestConformance|TestHowCommandsEnd|TestNothingOutlivesTask|TestSupervisorIsSparedFromSignals|TestOutputIsFollowedWhileTheTaskRuns|TestDirectoryIsOneWorkers)$"
			c := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run="+tests, "-test.skip="+except, "-test.v")
			c.ExtraFiles = []*os.File{self}
			c.Dir = "/"
			c.Env = []string{"PATH=" + defaultPath, namespacesVariable + "=" + namespaces}
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestHowCommandsEnd ") {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

func TestUsersAreNotSharedBetweenWorkers(t *testing.T) {
	first, second := open(t, Config{}), open(t, Config{})
	taken := map[string]bool{}
	for _, e := range []*Engine{first, second} {
		b, err := e.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer e.discard(b)
		if taken[b.account.name] {
			t.Errorf("two workers have the user %s", b.account.name)
		}
		taken[b.account.name] = true
	}
}

func TestUserOfTheSystemIsRefused(t *testing.T) {
	u, err := newUsers("roo")
	if err != nil {
		t.Fatal(err)
	}
	if a, err := u.claim(t.Context(), "root"); err == nil {
		t.Errorf("tasks would run as %s", a.name)
	}
}

// TestUserIsMadeWithItsGroup has the engine closed in the middle.
func TestUserIsMadeWithItsGroup(t *testing.T) {
	const name = "tasktest_halfway"
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "userdel", name).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := useradd(ctx, name); err != nil {
		t.Fatal(err)
	}
	if _, err := user.LookupGroup(name); err != nil {
		t.Error(err)
	}
}

// Users take long to make, so those for the first tasks are there before these
// come.
func TestUsersAreMadeAhead(t *testing.T) {
	const capacity = 3
	e := open(t, Config{Capacity: capacity, Warm: 1})
	e.users.mu.Lock()
	defer e.users.mu.Unlock()
	if n := len(e.users.free); n < capacity {
		t.Errorf("%d users are there for the tasks to come, want %d", n, capacity)
	}
}
