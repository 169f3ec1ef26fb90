package ec2

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlanDisks(t *testing.T) {
	t.Parallel()
	const dir = "/var/lib/worker"
	for _, tt := range []struct {
		name   string
		layout layout
		binds  []string
		want   []string
	}{
		{name: "a machine without disks of its own", binds: []string{"/var/lib/docker"}},
		{
			name: "one disk", layout: layout{unused: []string{"/dev/nvme1n1"}},
			want: []string{
				"mkfs.ext4 -q -F -m 0 -E nodiscard /dev/nvme1n1",
				"e2label /dev/nvme1n1 taskcluster",
				"mkdir -p /var/lib/worker",
				"mount -o noatime /dev/nvme1n1 /var/lib/worker",
			},
		},
		{
			name: "several disks, and Docker on them", layout: layout{unused: []string{"/dev/nvme1n1", "/dev/nvme2n1"}},
			binds: []string{"/var/lib/docker"},
			want: []string{
				"mdadm --create /dev/md/taskcluster --run --level=0 --homehost=any --raid-devices=2 /dev/nvme1n1 /dev/nvme2n1",
				"mkfs.ext4 -q -F -m 0 -E nodiscard /dev/md/taskcluster",
				"e2label /dev/md/taskcluster taskcluster",
				"mkdir -p /var/lib/worker",
				"mount -o noatime /dev/md/taskcluster /var/lib/worker",
				"mkdir -p /var/lib/worker/bound/var-lib-docker /var/lib/docker",
				"mount --bind /var/lib/worker/bound/var-lib-docker /var/lib/docker",
			},
		},
		{
			name: "an array without a file system", layout: layout{array: "/dev/md127"},
			want: []string{
				"mkfs.ext4 -q -F -m 0 -E nodiscard /dev/md127",
				"e2label /dev/md127 taskcluster",
				"mkdir -p /var/lib/worker",
				"mount -o noatime /dev/md127 /var/lib/worker",
			},
		},
		{
			name: "an array with its file system", layout: layout{array: "/dev/md127", labeled: "/dev/md127"},
			want: []string{"mkdir -p /var/lib/worker", "mount -o noatime /dev/md127 /var/lib/worker"},
		},
		{
			name: "after a reboot", layout: layout{labeled: "/dev/md127"},
			want: []string{"mkdir -p /var/lib/worker", "mount -o noatime /dev/md127 /var/lib/worker"},
		},
		{
			name: "once it is done", binds: []string{"/var/lib/docker"},
			layout: layout{labeled: "/dev/md127", mounted: map[string]bool{dir: true, "/var/lib/docker": true}},
		},
		{
			name: "when only a bind is missing", binds: []string{"/var/lib/docker"},
			layout: layout{mounted: map[string]bool{dir: true}},
			want: []string{
				"mkdir -p /var/lib/worker/bound/var-lib-docker /var/lib/docker",
				"mount --bind /var/lib/worker/bound/var-lib-docker /var/lib/docker",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, step := range planDisks(tt.layout, DiskConfig{Dir: dir, Binds: tt.binds}) {
				got = append(got, strings.Join(step, " "))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

// machine makes the part of a machine's file system that tells its layout. Files
// are made with their content, and links with what follows "-> ".
func machine(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadLayout(t *testing.T) {
	t.Parallel()
	const store = diskModel + "        \n"
	root := machine(t, map[string]string{
		"proc/self/mounts":                       "/dev/nvme0n1p1 / ext4 rw 0 0\n/dev/nvme3n1 /scratch ext4 rw 0 0\n",
		"proc/swaps":                             "Filename Type Size Used Priority\n/dev/nvme4n1 partition 1 0 -2\n",
		"sys/block/nvme0n1/device/model":         "Amazon Elastic Block Store              \n",
		"sys/block/nvme0n1/nvme0n1p1/partition":  "1\n",
		"sys/block/nvme1n1/device/model":         store,
		"sys/block/nvme2n1/device/model":         store,
		"sys/block/nvme3n1/device/model":         store,
		"sys/block/nvme4n1/device/model":         store,
		"sys/block/nvme5n1/device/model":         store,
		"sys/block/nvme5n1/nvme5n1p1/partition":  "1\n",
		"sys/block/nvme6n1/device/model":         store,
		"sys/block/nvme6n1/holders/md127":        "",
		"sys/block/loop0/size":                   "0\n",
		"dev/disk/by-label/" + diskLabel:         "-> ../../md127",
		arrayName:                                "-> ../md127",
		"dev/disk/by-label/cloudimg-rootfs-what": "-> ../../nvme0n1p1",
	})
	got, err := readLayout(root)
	if err != nil {
		t.Fatal(err)
	}
	want := layout{
		unused:  []string{"/dev/nvme1n1", "/dev/nvme2n1"},
		labeled: "/dev/md127",
		array:   "/dev/md127",
		mounted: map[string]bool{"/": true, "/scratch": true},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(layout{})); diff != "" {
		t.Errorf("layout (-want +got):\n%s", diff)
	}
}

func TestReadLayoutLeavesAnArrayThatIsUsed(t *testing.T) {
	t.Parallel()
	got, err := readLayout(machine(t, map[string]string{
		"proc/self/mounts": "/dev/md127 /elsewhere xfs rw 0 0\n",
		arrayName:          "-> ../md127",
	}))
	if err != nil || got.array != "" {
		t.Errorf("layout is %+v, %v", got, err)
	}
}

// A file system that was not made to its end has no label to be found by.
func TestFileSystemIsWholeOnceItIsLabeled(t *testing.T) {
	t.Parallel()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	label := func() string {
		content, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		const at = 1024 + 0x78 // of the volume's name, in the superblock
		return strings.TrimRight(string(content[at:at+16]), "\x00")
	}
	want := map[string]string{"mkfs.ext4": "", "e2label": diskLabel}
	for _, step := range planDisks(layout{unused: []string{disk}}, DiskConfig{Dir: "/somewhere"}) {
		labeled, ok := want[step[0]]
		if !ok {
			continue
		}
		if err := runStep(t.Context(), step); err != nil {
			t.Fatal(err)
		}
		if got := label(); got != labeled {
			t.Errorf("after %v the label is %q, want %q", step, got, labeled)
		}
	}
}

func TestReadLayoutOfThisMachine(t *testing.T) {
	t.Parallel()
	l, err := readLayout("/")
	if err != nil {
		t.Fatal(err)
	}
	if !l.mounted["/"] && !l.mounted["/proc"] {
		t.Errorf("neither / nor /proc is mounted: %v", l.mounted)
	}
}

func TestStepSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	err := runStep(t.Context(), []string{"sh", "-c", "echo no such disk >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "no such disk") {
		t.Errorf("error is %v", err)
	}
}
