package arch

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write apps/*/deps.txt instead of comparing with it")

// unlinked are the packages that no app, or one app, must link, each with its reason.
var unlinked = []struct{ app, pkg, why string }{
	{"*", "testing", "a conformance suite or a fake got into the binary"},
	{"*", "github.com/google/wire", "wire only generates code"},
	{"dc-linux-worker", "github.com/aws/aws-sdk-go-v2/feature/ec2/imds", "only ec2-spot-worker speaks to EC2"},
}

// static are the apps that are built without cgo, so that they need nothing of
// the machine that they run on.
var static = []string{"dc-linux-worker", "ec2-spot-worker"}

// Each app commits the list of third-party packages that it links, so that a
// change which adds one is seen in review.
func TestDeps(t *testing.T) {
	t.Parallel()
	mains, err := filepath.Glob(filepath.Join(root, "apps", "*", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, main := range mains {
		dir := filepath.Dir(main)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			linked, listing := linkedBy(t, dir)
			for _, violation := range wronglyLinked(filepath.Base(dir), linked) {
				t.Error(violation)
			}
			if app := filepath.Base(dir); slices.Contains(static, app) && strings.Contains(listing, " (cgo)") {
				t.Errorf("%s is to be static, and links packages with cgo:\n%s", app, listing)
			}

			file := filepath.Join(dir, "deps.txt")
			if *update {
				if err := os.WriteFile(file, []byte(listing), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), listing); diff != "" {
				t.Errorf("third-party packages changed; if they should, run make deps (-committed +linked):\n%s", diff)
			}
		})
	}
}

func TestWronglyLinked(t *testing.T) {
	t.Parallel()
	for _, rule := range unlinked {
		app := strings.ReplaceAll(rule.app, "*", "any-worker")
		want := []string{app + " must not link " + rule.pkg + ": " + rule.why}
		if diff := cmp.Diff(want, wronglyLinked(app, []string{"fmt", rule.pkg})); diff != "" {
			t.Errorf("a link of %s by %s is overlooked (-want +got):\n%s", rule.pkg, app, diff)
		}
	}
	if got := wronglyLinked("ec2-spot-worker", []string{"fmt", "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"}); len(got) > 0 {
		t.Errorf("one app's rule holds for another: %q", got)
	}
}

func wronglyLinked(app string, linked []string) []string {
	var found []string
	for _, rule := range unlinked {
		if (rule.app == "*" || rule.app == app) && slices.Contains(linked, rule.pkg) {
			found = append(found, app+" must not link "+rule.pkg+": "+rule.why)
		}
	}
	return found
}

// linkedBy returns the packages that the app in dir links, and what its
// deps.txt has to say: one line for each that is neither standard nor ours,
// sorted, which tells whether it is built with cgo. Those that would use cgo
// count, whether or not this machine has a C compiler.
func linkedBy(t *testing.T, dir string) (linked []string, listing string) {
	t.Helper()
	goos := "linux"
	if strings.HasPrefix(filepath.Base(dir), "macos-") {
		goos = "darwin"
	}
	var lines []string
	for line := range strings.Lines(string(goList(t, dir, goos, "-deps", "-f", "{{.ImportPath}}{{if .CgoFiles}} (cgo){{end}}", "."))) {
		pkg, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		linked = append(linked, pkg)
		if !isStandard(pkg) && !strings.HasPrefix(pkg, module) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return linked, strings.Join(lines, "")
}
