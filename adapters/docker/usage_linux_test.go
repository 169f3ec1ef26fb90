package docker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/docker"
)

// busy is a script that computes for a while, and holds some memory.
const busy = `x=$(head -c 20000000 /dev/zero | tr '\0' x); i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done`

func TestUsageIsMeasured(t *testing.T) {
	for _, tt := range []struct {
		title    string
		alone    bool // without groups
		commands [][]string
	}{
		{"of one command", false, [][]string{{"sh", "-c", busy}}},
		{"of several commands", false, [][]string{{"true"}, {"sh", "-c", busy}, {"true"}}},
		{"of one command, by the first process", true, [][]string{{"sh", "-c", busy}}},
		{"of several commands, by the first process", true, [][]string{{"true"}, {"sh", "-c", busy}, {"true"}}},
	} {
		t.Run(tt.title, func(t *testing.T) {
			e := open(t, docker.Config{Egress: docker.EgressNone})
			if tt.alone {
				e.LeaveGroups()
			}
			r, log := run(t, e, map[string]any{"command": tt.commands})
			got := r.Result()
			// The two ends of the pipe may compute at once.
			if got.User < 100*time.Millisecond || got.User+got.Kernel > 2*got.Wall {
				t.Errorf("it has computed for %v and %v of %v", got.User, got.Kernel, got.Wall)
			}
			if got.PeakMemory < 20_000_000 || got.PeakMemory > 1<<30 {
				t.Errorf("it has used %d bytes of memory", got.PeakMemory)
			}
			if n := strings.Count(log.String(), "Peak Memory: "); n < 1 || !strings.Contains(log.String(), "User Time: "+got.User.String()) && len(tt.commands) == 1 {
				t.Errorf("the log does not tell:\n%s", log)
			}
			if len(tt.commands) > 1 && strings.Count(log.String(), "User Time: ") != len(tt.commands) {
				t.Errorf("the log does not tell of each command:\n%s", log)
			}
		})
	}
}

func TestControlGroupsGoWithTheirContainers(t *testing.T) {
	const instance = "groups"
	sum := sha256.Sum256([]byte(instance))
	pattern := "/sys/fs/cgroup/*/taskcluster-worker-" + hex.EncodeToString(sum[:8]) + "/fN1SbArXTPSVFNUvaOlinQ-0-*"
	groups := func() []string {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	e, shut, err := docker.New(t.Context(), docker.Config{Host: daemon.Host(), Egress: docker.EgressNone, Instance: instance}, newLocalImages, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	log := newRecord()
	s := begin(t, e, shell("echo rea''dy; sleep 1000"), log)
	log.has(t.Context(), t, "ready")
	if len(groups()) == 0 {
		t.Error("there is no group of the task")
	}
	if err := s.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	shut()
	if left := groups(); len(left) > 0 {
		t.Errorf("groups are left: %v", left)
	}
}
