package docker

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	systemtypes "github.com/moby/moby/api/types/system"
)

func TestRightsOfUsers(t *testing.T) {
	t.Parallel()
	root := fstest.MapFS{
		"etc/passwd": {Data: []byte("root:x:0:0:root:/root:/bin/sh\nbroken\nworker:x:1000:100::/home:/bin/sh\nadmin:x:0:0::/:/bin/sh\n")},
		"etc/group":  {Data: []byte("root:x:0:\nvideo:x:44:other,worker\naudio:x:63:worker\nbroken\nstaff:x:50:other\n")},
	}
	for user, want := range map[string]rights{
		"":              {all: true},
		"root":          {all: true},
		"0":             {all: true},
		"0:50":          {all: true},
		"admin":         {all: true},
		"worker":        {uid: 1000, gid: 100, groups: []int{44, 63}},
		"1000":          {uid: 1000, gid: 100, groups: []int{44, 63}},
		"worker:staff":  {uid: 1000, gid: 50},
		"worker:77":     {uid: 1000, gid: 77},
		"4711":          {uid: 4711},
		"4711:4712":     {uid: 4711, gid: 4712},
		"nobody-knows":  {},
		"nobody:nobody": {},
	} {
		if diff := cmp.Diff(want, rightsOf(user, root), cmp.AllowUnexported(rights{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", user, diff)
		}
	}
	want := rights{uid: 1000}
	if diff := cmp.Diff(want, rightsOf("1000", fstest.MapFS{}), cmp.AllowUnexported(rights{})); diff != "" {
		t.Errorf("without tables (-want +got):\n%s", diff)
	}
}

func TestRightsToFiles(t *testing.T) {
	t.Parallel()
	user := rights{uid: 1000, gid: 100, groups: []int{44}}
	for _, tt := range []struct {
		title    string
		uid, gid int
		mode     fs.FileMode
		want     bool
	}{
		{"one's own", 1000, 0, 0o400, true},
		{"one's own, for others alone", 1000, 0, 0o044, false},
		{"of the group", 0, 100, 0o040, true},
		{"of another group", 0, 44, 0o040, true},
		{"of the group, for others alone", 0, 100, 0o604, false},
		{"of others", 0, 0, 0o604, true},
		{"of others, not for all", 0, 0, 0o660, false},
	} {
		n := &node{uid: tt.uid, gid: tt.gid, mode: tt.mode}
		if got := user.may(n, mayRead); got != tt.want {
			t.Errorf("%s: got %t", tt.title, got)
		}
		if !(rights{all: true}).may(n, mayRead) {
			t.Errorf("%s: root may not", tt.title)
		}
	}
}

func TestShiftOfUsers(t *testing.T) {
	t.Parallel()
	remapped := systemtypes.Info{SecurityOptions: []string{"name=seccomp,profile=default", "name=userns"}, DockerRootDir: "/var/lib/docker/100000.200000"}
	for _, tt := range []struct {
		title     string
		info      systemtypes.Info
		namespace string
		want      shift
	}{
		{"a daemon that remaps", remapped, "", shift{100000, 200000}},
		{"a container that is exempt", remapped, "host", shift{}},
		{"a daemon that does not", systemtypes.Info{DockerRootDir: "/var/lib/1.2"}, "", shift{}},
	} {
		if got := shiftOf(tt.info, tt.namespace); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.title, got, tt.want)
		}
	}
}
