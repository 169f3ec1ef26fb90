package native

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

const forever = "sleep 1000000"

func TestTaskSeesNothingOfAnotherTask(t *testing.T) {
	e := open(t, Config{Capacity: 2})
	log := &safeBuffer{}
	b, err := e.NewBuilder(t.Context(), engine.Options{
		Payload: payloadOf(t, []string{
			"sh", "-c",
			"umask 0; for d in . /tmp /var/tmp /dev/shm /run/lock; do echo mine > $d/secret-file; done; pwd; id -un; echo ready; " + forever,
		}),
		Log: tasklog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetEnv("SECRET", "secret-value"); err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Abort(context.WithoutCancel(t.Context())) }()
	log.await(t, "ready\n")

	_, seen := run(t, e, `
ls -R $PWD/.. /tmp /var/tmp /dev/shm /run/lock 2>&1
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -v grep
kill -9 -1 2>&1
ls /proc | grep -c '^[0-9]'`)
	for _, secret := range []string{"secret-file", "secret-value", forever} {
		if strings.Contains(seen, secret) {
			t.Errorf("a task sees %q of another one:\n%s", secret, seen)
		}
	}
	select {
	case <-s.(*sandbox).ended:
		t.Errorf("one task has ended another one:\n%s", log)
	default:
	}
}

func TestTaskSeesNothingOfTheWorker(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "credentials"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := open(t, Config{Dir: dir})
	r, log := run(t, e, "test ! -e "+dir+"/credentials && test ! -e "+dir+"/sandboxes && ls /proc/self/fd | wc -l && cat /proc/self/environ")
	if !r.Result().Success || !strings.Contains(log, "\n4\n") {
		t.Errorf("the task sees the worker's directory or descriptors:\n%s", log)
	}
	if got, want := strings.Count(log, "="), 4; strings.Contains(log, "GOMAXPROCS") {
		t.Errorf("the task has the supervisor's environment, with %d variables rather than %d:\n%s", got, want, log)
	}
	if _, log := run(t, e, "echo x >> "+filepath.Dir(dir)+"/x; cat /etc/shadow; id -G; umount /proc; mount -t tmpfs x /tmp; kill -9 1; echo alive"); strings.Contains(log, "root:") || !strings.Contains(log, "alive") {
		t.Errorf("the task has rights of the worker:\n%s", log)
	}
}

func TestNextTaskFindsNothingOfTheLast(t *testing.T) {
	e := open(t, Config{Capacity: 1, Warm: 1})
	for range 4 {
		r, log := run(t, e, "for d in . /tmp /var/tmp /dev/shm; do test ! -e $d/left && touch $d/left || exit 1; done; setsid "+forever+" &")
		if !r.Result().Success {
			t.Fatalf("a task has found what another one left:\n%s", log)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The kernel keeps keys for a user, whichever processes it has.
func TestNextTaskFindsNoKeysOfTheLast(t *testing.T) {
	e := open(t, Config{Capacity: 1, Warm: 1})
	// The one of sessions has the user's own in it.
	const session, ofSessions, own = unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING
	script := fmt.Sprintf(`
		($type, $name, $secret) = ("user", "left", "secret");
		for $keyring (%d, %d, %d) {
			print "found ", "in $keyring\n" if syscall(%d, %d, $keyring, $type, $name, 0) >= 0;
			print "added to $keyring\n" if syscall(%d, $type, $name, $secret, 6, $keyring) >= 0;
		}
		$persistent = syscall(%d, %d, -1, $session = %d);
		print "found ", "in the persistent one\n" if syscall(%d, %d, $persistent, $type, $name, 0) >= 0;
		syscall(%d, $type, $name, $secret, 6, $persistent) if $persistent >= 0;`,
		session, ofSessions, own, unix.SYS_KEYCTL, unix.KEYCTL_SEARCH, unix.SYS_ADD_KEY,
		unix.SYS_KEYCTL, unix.KEYCTL_GET_PERSISTENT, session, unix.SYS_KEYCTL, unix.KEYCTL_SEARCH, unix.SYS_ADD_KEY)
	for range 3 {
		r, log := run(t, e, "perl -e '"+script+"'")
		if !r.Result().Success || strings.Count(log, "added to -") != 3 || strings.Contains(log, "found in") {
			t.Fatalf("a task has found keys of another one, or could not add any:\n%s", log)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForkBombIsContained(t *testing.T) {
	e := open(t, Config{Capacity: 2, Limits: Limits{PIDs: 32}})
	log := &safeBuffer{}
	s := start(t, e, log, []string{"sh", "-c", "b() { b | b & }; b; echo started; " + forever})
	log.await(t, "ork") // "Cannot fork", or "Resource temporarily unavailable" after "fork"
	if r, log := run(t, e, "echo fine"); !r.Result().Success {
		t.Errorf("another task did not run:\n%s", log)
	}
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := wait(t, s).Result(); r.Success || !r.Killed && r.ExitCode == 0 {
		t.Errorf("the result is %+v", r)
	}
}

func TestMemoryHogIsKilledAndNamed(t *testing.T) {
	e := open(t, Config{Limits: Limits{MemoryBytes: 32 << 20}})
	r, log := run(t, e, "exec tail /dev/zero")
	if got := r.Result(); got.Success || !got.OOM || got.Signal != "killed" || got.PeakMemory < 16<<20 {
		t.Errorf("the result is %+v", got)
	}
	if want := "[taskcluster:error] The OOM killer ended 1 of the task's processes: the task has a limit of 32 MiB of memory\n"; !strings.Contains(log, want) {
		t.Errorf("the log lacks %q:\n%s", want, log)
	}
	if r, log := run(t, e, "head -c 67108864 /dev/zero > /dev/shm/x"); r.Result().Success {
		t.Errorf("/dev/shm has taken more than the limit:\n%s", log)
	}
}

func TestProcessorTimeIsLimited(t *testing.T) {
	e := open(t, Config{Limits: Limits{CPUs: 0.1}})
	r, _ := run(t, e, "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done")
	if got := r.Result(); !got.Success || got.User+got.Kernel > got.Wall/2 {
		t.Errorf("the result of a busy loop at a tenth of a processor is %+v", got)
	}
}

func TestNothingOutlivesTask(t *testing.T) {
	for name, script := range map[string]string{
		"a grandchild in its own session":   `setsid sh -c 'trap "" TERM HUP; sleep 1000000; :' MARK & echo ready`,
		"a daemon that closed its output":   `setsid sh -c 'exec >&- 2>&- <&-; sleep 1000000; :' MARK & echo ready`,
		"a stopped process":                 `sh -c 'kill -STOP $$; :' MARK & echo ready`,
		"processes that start each other":   `setsid sh -c 'f() { sleep 0.01; f & }; f; sleep 1000000' MARK & echo ready`,
		"a process that lost its directory": `mkdir d; cd d; rmdir ../d; setsid sh -c 'sleep 1000000; :' MARK & echo ready`,
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, Config{})
			const mark = "native-nothing-outlives"
			r, log := run(t, e, strings.ReplaceAll(script, "MARK", mark))
			if !r.Result().Success || !strings.Contains(log, "ready") {
				t.Errorf("the result is %+v:\n%s", r.Result(), log)
			}
			if left := processes(t, mark); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

// TestSupervisorIsSparedFromSignals has a task send all signals to the first
// process of its namespace, as it may if the worker's user is its own.
func TestSupervisorIsSparedFromSignals(t *testing.T) {
	e := open(t, Config{})
	r, log := run(t, e, `for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; echo alive; exit 3`)
	if r.Result().ExitCode != 3 || !strings.Contains(log, "alive\n") {
		t.Errorf("the result is %+v:\n%s", r.Result(), log)
	}
}

func TestHowCommandsEnd(t *testing.T) {
	e := open(t, Config{})
	for name, c := range map[string]struct {
		commands [][]string
		code     int
		signal   string
		success  bool
		log      string
	}{
		"all succeed":                          {[][]string{{"true"}, {"/bin/true"}}, 0, "", true, "Executing command 1: [\"/bin/true\"]"},
		"the first fails, and no other runs":   {[][]string{{"false"}, {"echo", "later"}}, 1, "", false, "Result: FAILED"},
		"killed by a signal":                   {[][]string{{"sh", "-c", "kill -SEGV $$"}}, -1, "segmentation fault", false, "Exit Code: -1 (segmentation fault)"},
		"the program does not exist":           {[][]string{{"no-such-program"}}, -1, "", false, "Command 0 cannot be executed: \"no-such-program\": executable file not found in PATH"},
		"the path does not exist":              {[][]string{{"./missing"}}, -1, "", false, "./missing: no such file or directory"},
		"the program is a directory":           {[][]string{{"/tmp"}}, -1, "", false, "/tmp: permission denied"},
		"the program is not executable":        {[][]string{{"/etc/passwd"}}, -1, "", false, "/etc/passwd: permission denied"},
		"the program has no format":            {[][]string{{"sh", "-c", "echo x > f; chmod +x f"}, {"./f"}}, -1, "", false, "./f: exec format error"},
		"a program made by an earlier command": {[][]string{{"sh", "-c", "printf '#!/bin/sh\\necho made' > f; chmod +x f"}, {"./f"}}, 0, "", true, "made\n"},
		"output of no text":                    {[][]string{{"printf", `\377\000\376`}}, 0, "", true, "\xff\x00\xfe\n[taskcluster "},
		"errors are output, too":               {[][]string{{"sh", "-c", "echo problem >&2"}}, 0, "", true, "problem\n"},
		"output is opened by name":             {[][]string{{"sh", "-c", "echo one > /dev/stdout; echo two > /dev/stderr"}}, 0, "", true, "one\ntwo\n"},
		"output is closed":                     {[][]string{{"sh", "-c", "exec >&- 2>&-; sleep 0.01"}}, 0, "", true, "SUCCEEDED"},
		"the task directory cannot go":         {[][]string{{"sh", "-c", `rm -rf "$HOME"; test -d "$HOME"`}}, 0, "", true, ""},
		"the input is empty":                   {[][]string{{"cat"}}, 0, "", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			log := &safeBuffer{}
			r := wait(t, start(t, e, log, c.commands...)).Result()
			if r.ExitCode != c.code || r.Signal != c.signal || r.Success != c.success {
				t.Errorf("the result is %+v", r)
			}
			if !strings.Contains(log.String(), c.log) || strings.Contains(log.String(), "later\n") {
				t.Errorf("the log lacks %q, or has more:\n%s", c.log, log)
			}
		})
	}
}

func TestOutputIsFollowedWhileTheTaskRuns(t *testing.T) {
	e := open(t, Config{})
	log := &safeBuffer{}
	s := start(t, e, log, []string{"sh", "-c", "printf begun; " + forever})
	log.await(t, "begun")
	if err := s.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOSGroups(t *testing.T) {
	e := open(t, Config{})
	build := func(group string, authorize error) (engine.Builder, error) {
		p, err := json.Marshal(payload{Command: [][]string{{"id", "-Gn"}}, OSGroups: []string{group}})
		if err != nil {
			t.Fatal(err)
		}
		return e.NewBuilder(t.Context(), engine.Options{
			Payload: p, Log: tasklog.New(&safeBuffer{}), Definition: task.Definition{TaskQueueID: "pool/queue"},
			Authorize: func(_ context.Context, sets ...task.Scopes) error {
				if len(sets) != 1 || len(sets[0]) != 1 || sets[0][0] != "generic-worker:os-group:pool/queue/"+group {
					t.Errorf("asked for the scopes %v", sets)
				}
				return authorize
			},
		})
	}
	if _, err := build("no-such-group", nil); fault.Classify(err).Kind != fault.Malformed {
		t.Errorf("a group that does not exist: %v", err)
	}
	if _, err := build("games", fault.Malformedf("no scopes")); fault.Classify(err).Kind != fault.Malformed {
		t.Errorf("a group without scopes: %v", err)
	}
	b, err := build("games", nil)
	if err != nil {
		t.Fatal(err)
	}
	log := &safeBuffer{}
	b.(*builder).o.Log = tasklog.New(log)
	s, err := b.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := wait(t, s); !r.Result().Success || !strings.Contains(log.String(), " games\n") {
		t.Errorf("the user is not in the group:\n%s", log)
	}
}

func TestFilesAreReadWithTheRightsOfTheTask(t *testing.T) {
	e := open(t, Config{})
	r, log := run(t, e, `
echo private > /tmp/private; echo none > none; chmod 0 none
ln -s /etc/shadow shadow; ln -s /proc/1/environ environ; ln -s /tmp/private link; ln -s loop loop
ln -s ../../../../../../../../../../../../etc/shadow up; ln -s /proc/self/root/etc/shadow magic
mkfifo pipe; ln -s /dev/zero device; mkdir closed; touch closed/x; chmod 0 closed`)
	if !r.Result().Success {
		t.Fatal(log)
	}
	for name, want := range map[string]error{
		"shadow": fs.ErrPermission, "up": fs.ErrPermission, "none": fs.ErrPermission, "closed": fs.ErrPermission,
		"closed/x": fs.ErrPermission, "missing": fs.ErrNotExist, "magic": nil, "environ": nil, "loop": nil, "pipe": nil, "device": nil,
	} {
		got, err := fs.ReadFile(r.FS(), path.Join(r.Dir(), name))
		if err == nil {
			t.Errorf("%s has the content %q", name, got)
		}
		if want != nil && !isError(err, want) {
			t.Errorf("reading %s returned %q, want %q", name, err, want)
		}
	}
	for _, name := range []string{"tmp/private", path.Join(r.Dir(), "link")} {
		if got, err := fs.ReadFile(r.FS(), name); err != nil || string(got) != "private\n" {
			t.Errorf("%s has the content %q, %v", name, got, err)
		}
	}
}
