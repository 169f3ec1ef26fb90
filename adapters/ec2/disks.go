package ec2

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// DiskConfig says what instance-store disks are for.
type DiskConfig struct {
	// Dir is where the space of all of them is to be, as one file system.
	Dir string

	// Binds are other directories that are to be on that file system, such as
	// Docker's. What was in them before is hidden.
	Binds []string
}

// PrepareDisks has the space of all instance-store disks that nobody uses be in
// a directory. It may be called again, after a start of the machine too: disks
// that were prepared keep what is on them for as long as the machine does, and
// where it failed, it goes on. On a machine without such disks it does nothing.
func PrepareDisks(ctx context.Context, cfg DiskConfig, log *slog.Logger) error {
	l, err := readLayout("/")
	if err != nil {
		return fmt.Errorf("prepare disks: %w", err)
	}
	steps := planDisks(l, cfg)
	if len(steps) == 0 {
		log.InfoContext(ctx, "no disks are to be prepared")
	}
	for _, step := range steps {
		log.InfoContext(ctx, "preparing disks", slog.Any("command", step))
		if err := runStep(ctx, step); err != nil {
			return fmt.Errorf("prepare disks: %s: %w", strings.Join(step, " "), err)
		}
	}
	return nil
}

// runStep runs a command.
func runStep(ctx context.Context, step []string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, step[0], step[1:]...) //nolint:gosec // G204: planDisks makes it
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(output.String()))
	}
	return nil
}

const (
	// diskLabel is what the file system is called, by which it is found again.
	diskLabel = "taskcluster"

	// arrayName is the device that several disks are made one of.
	arrayName = "/dev/md/" + diskLabel

	// diskModel is what the disks that belong to the machine call themselves,
	// unlike volumes of EBS.
	diskModel = "Amazon EC2 NVMe Instance Storage"
)

// layout is what there is of disks and of mounts.
type layout struct {
	unused  []string        // devices of instance-store disks that nobody uses, sorted
	labeled string          // the device with the file system that was made before; empty if there is none
	array   string          // the device that several disks were made before, if nobody uses it; or empty
	mounted map[string]bool // by mount point
}

// planDisks returns the commands that a layout needs.
func planDisks(l layout, cfg DiskConfig) [][]string {
	var steps [][]string
	step := func(words ...string) { steps = append(steps, words) }
	if !l.mounted[cfg.Dir] {
		device := l.labeled
		if device == "" {
			switch {
			case l.array != "": // and that was all
				device = l.array
			case len(l.unused) == 0:
				return nil
			case len(l.unused) == 1:
				device = l.unused[0]
			default:
				device = arrayName
				// Nobody is there to answer questions.
				step(append([]string{
					"mdadm", "--create", device, "--run", "--level=0", "--homehost=any",
					"--raid-devices=" + strconv.Itoa(len(l.unused)),
				}, l.unused...)...)
			}
			// The disks come trimmed, and what belongs to root alone is not
			// worth a share of them. The label comes last, so that a file system
			// that has it is whole.
			step("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", device)
			step("e2label", device, diskLabel)
		}
		step("mkdir", "-p", cfg.Dir)
		step("mount", "-o", "noatime", device, cfg.Dir)
	}
	for _, target := range cfg.Binds {
		if l.mounted[target] {
			continue
		}
		source := filepath.Join(cfg.Dir, "bound", strings.ReplaceAll(strings.Trim(target, "/"), "/", "-"))
		step("mkdir", "-p", source, target)
		step("mount", "--bind", source, target)
	}
	return steps
}

// readLayout reads the layout of the machine whose file system is at root.
func readLayout(root string) (layout, error) {
	l := layout{mounted: map[string]bool{}}
	used := map[string]bool{}
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mounts")) //nolint:gosec // G304: it is in procfs
	if err != nil {
		return l, err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			used[fields[0]] = true
			l.mounted[fields[1]] = true
		}
	}
	swaps, err := os.ReadFile(filepath.Join(root, "proc/swaps")) //nolint:gosec // G304: it is in procfs
	if err != nil && !os.IsNotExist(err) {
		return l, err
	}
	for line := range strings.Lines(string(swaps)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			used[fields[0]] = true
		}
	}
	if target, err := os.Readlink(filepath.Join(root, "dev/disk/by-label", diskLabel)); err == nil {
		l.labeled = filepath.Join("/dev/disk/by-label", target)
	}
	if target, err := os.Readlink(filepath.Join(root, arrayName)); err == nil {
		if device := filepath.Join(filepath.Dir(arrayName), target); !used[device] && !used[arrayName] {
			l.array = device
		}
	}
	blocks, err := filepath.Glob(filepath.Join(root, "sys/block/*"))
	if err != nil {
		return l, err
	}
	for _, block := range blocks {
		device := "/dev/" + filepath.Base(block)
		if !used[device] && isInstanceStore(block) && isWhole(block) {
			l.unused = append(l.unused, device)
		}
	}
	return l, nil
}

// isInstanceStore reports whether a block device in sysfs belongs to the machine.
func isInstanceStore(block string) bool {
	model, err := os.ReadFile(filepath.Join(block, "device/model")) //nolint:gosec // G304: it is in sysfs
	return err == nil && strings.TrimSpace(string(model)) == diskModel
}

// isWhole reports whether a block device in sysfs has no partitions and is part
// of no other device.
func isWhole(block string) bool {
	for _, pattern := range []string{"holders/*", "*/partition"} {
		if found, err := filepath.Glob(filepath.Join(block, pattern)); err != nil || len(found) > 0 {
			return false
		}
	}
	return true
}
