// Package arch checks that every file imports only what the architecture
// allows, on every operating system that an app is built for, and that every
// app links only what it should.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// root is the root of the repository.
const root = "../.."

func TestImports(t *testing.T) {
	t.Parallel()
	imports := importsOf(t, root)
	if len(imports) == 0 {
		t.Fatal("no files were listed: the check is broken")
	}
	for _, violation := range violations(imports) {
		t.Error(violation)
	}
}

// A workspace with a violation in each kind of file shows that none is overlooked.
func TestImportsSeesEveryFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.work":                 "go 1.26.0\nuse (\n\t.\n\t./apps/a\n)\n",
		"go.mod":                  "module " + strings.TrimSuffix(module, "/") + "\n\ngo 1.26.0\n",
		"domain/run/run.go":       "package run\n\nimport _ \"example.com/a\"\n",
		"domain/run/fine.go":      "package run\n\nimport _ \"strings\"\n",
		"domain/run/in_test.go":   "package run\n\nimport _ \"example.com/b\"\n",
		"domain/run/ex_test.go":   "package run_test\n\nimport _ \"example.com/c\"\n",
		"domain/mac/a_darwin.go":  "package mac\n\nimport _ \"example.com/d\"\n",
		"domain/win/a_windows.go": "package win\n\nimport _ \"example.com/e\"\n",
		"domain/c/cgo.go":         "package c\n\nimport \"C\"\nimport _ \"example.com/f\"\n",
		"domain/run/tagged.go":    "//go:build wireinject\n\npackage run\n\nimport _ \"example.com/g\"\n",
		"apps/a/go.mod":           "module " + module + "apps/a\n\ngo 1.26.0\n",
		"apps/a/main.go":          "package main\n\nimport _ \"github.com/google/wire\"\n\nfunc main() {}\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	var got []string
	for _, violation := range violations(importsOf(t, dir)) {
		sentence, _, _ := strings.Cut(violation, ": ")
		got = append(got, sentence)
	}
	want := []string{
		"apps/a/main.go must not import github.com/google/wire",
		"domain/c/cgo.go must not import example.com/f",
		"domain/mac/a_darwin.go must not import example.com/d",
		"domain/run/ex_test.go must not import example.com/c",
		"domain/run/in_test.go must not import example.com/b",
		"domain/run/run.go must not import example.com/a",
		"domain/run/tagged.go must not import example.com/g",
		"domain/win/a_windows.go must not import example.com/e",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
}

// The rules are checked too: each one must let pass what it allows, and be able to fail.
func TestForbidden(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, tt := range []struct {
		file, imp string
		ok        bool
	}{
		{"domain/run/run.go", "fmt", true},
		{"domain/run/run.go", module + "domain/task", true},
		{"domain/run/run.go", module + "ports/queue", false},
		{"domain/run/run.go", module + "domain/worker", false},
		{"domain/run/run.go", "github.com/google/go-cmp/cmp", false},
		{"domain/run/run_test.go", "github.com/google/go-cmp/cmp", true},
		{"domain/run/run_test.go", module + "ports/queue", false},

		{"domain/worker/worker.go", module + "ports/queue", true},
		{"domain/worker/worker.go", module + "ports/queue/queuetest", false},
		{"domain/worker/worker_test.go", module + "ports/queue/queuetest", true},
		{"domain/worker/worker.go", module + "adapters/docker", false},
		{"domain/worker/worker_test.go", module + "adapters/devqueue", false},
		{"domain/worker/worker.go", "golang.org/x/sync/errgroup", false},

		{"ports/engine/engine.go", module + "domain/fault", true},
		{"ports/engine/engine.go", module + "domain/worker", false},
		{"ports/engine/engine.go", module + "adapters/native", false},
		{"ports/engine/engine.go", "golang.org/x/sys/unix", false},
		{"ports/engine/enginetest/suite.go", "github.com/google/go-cmp/cmp", true},
		{"ports/engine/enginetest/suite.go", module + "ports/queue/queuetest", true},
		{"ports/engine/enginetest/suite.go", "golang.org/x/sys/unix", false},

		{"adapters/docker/engine.go", module + "ports/engine", true},
		{"adapters/docker/engine.go", module + "pkg/backoff", true},
		{"adapters/docker/engine.go", module + "adapters/docker/internal/image", true},
		{"adapters/docker/engine.go", module + "adapters/native", false},
		{"adapters/docker/engine.go", module + "domain/worker", false},
		{"adapters/docker/engine.go", module + "ports/engine/enginetest", false},
		{"adapters/docker/engine.go", module + "apps/dc-linux-worker", false},
		{"adapters/docker/engine_test.go", module + "ports/engine/enginetest", true},
		{"adapters/docker/engine_test.go", module + "adapters/devqueue", true},
		{"adapters/docker/engine_test.go", module + "domain/worker", false},
		{"adapters/plugins/env/env.go", module + "adapters/plugins/tasklog", false},
		{"adapters/plugins/env/env.go", module + "adapters/plugins/env/internal/x", true},

		{"pkg/backoff/backoff.go", "golang.org/x/sync/errgroup", true},
		{"pkg/backoff/backoff.go", module + "domain/task", false},
		{"pkg/backoff/backoff_test.go", module + "domain/task", false},

		{"apps/dc-linux-worker/main.go", module + "adapters/docker", true},
		{"apps/dc-linux-worker/main.go", module + "domain/worker", true},
		{"apps/dc-linux-worker/main.go", module + "apps/ec2-spot-worker", false},
		{"apps/dc-linux-worker/main.go", module + "apps/internal/parts", true},
		{"apps/internal/parts/engine.go", module + "apps/internal/section", true},
		{"apps/internal/parts/engine.go", module + "adapters/docker", true},
		{"apps/internal/parts/engine.go", module + "apps/dc-linux-worker", false},
		{"apps/internal/parts/wire.go", "github.com/google/wire", false},
		{"build/bench/main.go", module + "adapters/devqueue", true},
		{"build/bench/main.go", module + "apps/internal/parts", false},
		{"build/bench/main.go", module + "apps/dc-linux-worker", false},
		{"utils/strings.go", "fmt", false},

		{"apps/dc-linux-worker/wire.go", "github.com/google/wire", true},
		{"apps/dc-linux-worker/main.go", "github.com/google/wire", false},
		{"adapters/docker/wire.go", "github.com/google/wire", false},
		{"apps/internal/section/load.go", "github.com/spf13/viper", true},
		{"apps/dc-linux-worker/config.go", "github.com/spf13/viper", false},
		{"adapters/docker/config.go", "github.com/spf13/viper", false},
		{"apps/dc-linux-worker/main.go", "github.com/spf13/cobra", true},
		{"pkg/command/command.go", "github.com/spf13/cobra", true},
		{"pkg/setting/setting.go", "github.com/spf13/cobra", false},
		{"adapters/devqueue/main.go", "github.com/spf13/cobra", false},
		{"adapters/taskcluster/queue.go", "github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue", true},
		{"adapters/devqueue/queue.go", "github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue", false},
		{"adapters/devqueue/queue_test.go", "github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue", true},
		{"domain/run/run_test.go", "github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue", false},
		{"adapters/ec2/ec2.go", "github.com/aws/aws-sdk-go-v2/service/ec2", true},
		{"adapters/native/native.go", "github.com/aws/aws-sdk-go-v2/service/ec2", false},
		{"adapters/docker/engine.go", "github.com/moby/moby/client", true},
		{"adapters/native/native.go", "github.com/moby/moby/client", false},
		{"adapters/libvirt/engine.go", "libvirt.org/go/libvirt", true},
		{"adapters/native/native.go", "libvirt.org/go/libvirt", false},
		{"adapters/otel/otel.go", "go.opentelemetry.io/otel", true},
		{"adapters/native/native.go", "go.opentelemetry.io/otel/trace", false},
		{"adapters/native/native_test.go", "github.com/stretchr/testify/require", false},
		{"adapters/native/native.go", "github.com/pkg/errors", false},
		{"build/bench/docker.go", module + "adapters/docker/dockertest", true},
	} {
		why := forbidden(tt.file, tt.imp)
		if (why == "") != tt.ok {
			t.Errorf("forbidden(%s, %s) = %q", tt.file, tt.imp, why)
		}
		seen[why] = true
	}

	rules := []string{whyLayout, whySuite}
	for _, l := range layers {
		rules = append(rules, l.why)
	}
	for _, r := range reservations {
		rules = append(rules, r.why)
	}
	for _, why := range rules {
		if !seen[why] {
			t.Errorf("no case above shows that this rule can fail: %s", why)
		}
	}
}

// violations returns one sentence for each import that is not allowed, sorted.
func violations(imports map[string][]string) []string {
	var found []string
	for _, file := range slices.Sorted(maps.Keys(imports)) {
		for _, imp := range imports[file] {
			if why := forbidden(file, imp); why != "" {
				found = append(found, file+" must not import "+imp+": "+why)
			}
		}
	}
	return found
}

// importsOf returns the imports of every Go file of the workspace in dir, by
// the file's slash-separated path relative to dir. Files that build tags leave
// out are listed too.
func importsOf(t *testing.T, dir string) map[string][]string {
	t.Helper()
	absolute, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, file := range goFiles(t, absolute, goos) {
			name, err := filepath.Rel(absolute, file)
			if err != nil {
				t.Fatal(err)
			}
			syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			paths := []string{}
			for _, spec := range syntax.Imports {
				imp, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				paths = append(paths, imp)
			}
			imports[filepath.ToSlash(name)] = paths
		}
	}
	return imports
}

// goFiles returns the Go files of every package of the workspace in dir that
// exists on the operating system.
func goFiles(t *testing.T, dir, goos string) []string {
	t.Helper()
	out := goList(t, dir, goos, "-e", "-json=Dir,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles", "work")
	var files []string
	for packages := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir                                                          string
			GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
		}
		err := packages.Decode(&p)
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			files = append(files, filepath.Join(p.Dir, name))
		}
	}
}

// goList returns what "go list" prints in dir for the operating system.
func goList(t *testing.T, dir, goos string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=1", "GOWORK=")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}
