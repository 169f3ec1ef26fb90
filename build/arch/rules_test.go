package arch

import (
	"path"
	"slices"
	"strings"
)

const module = "github.com/taskcluster/taskcluster-worker/"

// thirdParty in a list of allowed imports stands for every module but ours.
const thirdParty = "*"

// model is the part of the domain that everything may know.
var model = []string{"domain/task", "domain/run", "domain/fault", "domain/payload"}

// testLibraries are what tests and conformance suites use where nothing else
// of third parties is allowed.
var testLibraries = []string{"github.com/google/go-cmp", "go.uber.org/goleak"}

// layer is what one subtree may import, beyond the standard library and itself.
type layer struct {
	imports []string // Subtrees of ours, and thirdParty.
	tests   []string // What its tests may import in addition.
	why     string
}

// layers maps a subtree to its rule. The longest match rules.
var layers = map[string]layer{
	"domain": {
		imports: model,
		tests:   testLibraries,
		why:     "the model is pure: no I/O, no outside thing, nothing but the standard library",
	},
	"domain/worker": {
		imports: slices.Concat(model, []string{"domain/worker", "ports"}),
		tests:   testLibraries,
		why:     "the use cases reach the outside through ports alone, so that they run on any engine and queue",
	},
	"ports": {
		imports: slices.Concat(model, []string{"ports"}),
		tests:   testLibraries,
		why:     "a port speaks of the domain in its own words, not in those of one adapter or library",
	},
	"pkg": {
		imports: []string{"pkg", thirdParty},
		why:     "reusable code knows nothing of tasks",
	},
	"adapters": {
		imports: slices.Concat(model, []string{"ports", "pkg", thirdParty}),
		tests:   []string{"adapters"},
		why:     "an adapter is behind its port: it knows neither the use cases nor another adapter",
	},
	"apps": {
		imports: []string{"domain", "ports", "pkg", "adapters", "apps/internal", thirdParty},
		why:     "an app is composed of everything but other apps",
	},
	"apps/internal": {
		imports: []string{"domain", "ports", "pkg", "adapters", "apps/internal", thirdParty},
		why:     "what apps share knows none of them",
	},
	"build": {
		imports: []string{"domain", "ports", "pkg", "adapters", "build", thirdParty},
		why:     "what builds and measures the apps is not part of one",
	},
}

// reserved is a third-party import that only some places may use.
type reserved struct {
	pkg   string
	in    []string // Subtrees, or files as patterns of path.Match. None: nowhere.
	tests bool     // Whether tests anywhere above domain and ports may use it too.
	why   string
}

var reservations = []reserved{
	{
		pkg: "github.com/google/wire", in: []string{"apps/*/wire.go"},
		why: "wire is archived: it generates code, and nothing of it is linked",
	},
	{
		pkg: "github.com/spf13/viper", in: []string{"apps/internal/section"},
		why: "adapters take a Config struct: where its values come from is the app's business",
	},
	{
		pkg: "github.com/spf13/cobra", in: []string{"apps", "pkg/command"},
		why: "only an app has a command line, by way of pkg/command",
	},
	{
		pkg: "github.com/taskcluster/taskcluster/v44", in: []string{"adapters/taskcluster", "build/bench", "build/chaos"}, tests: true,
		why: "Taskcluster's client is behind the queue and artifact ports; its gaps are closed in one place",
	},
	{
		pkg: "github.com/aws/aws-sdk-go-v2", in: []string{"adapters/ec2", "adapters/s3cache"},
		why: "workers that do not run in EC2 should not link its API",
	},
	{
		pkg: "github.com/moby/moby", in: []string{"adapters/docker"}, tests: true,
		why: "docker is behind the engine port",
	},
	{
		pkg: "libvirt.org/go", in: []string{"adapters/libvirt"}, tests: true,
		why: "libvirt is cgo: only apps that choose it may link it",
	},
	{
		pkg: "go.opentelemetry.io", in: []string{"adapters/otel"}, tests: true,
		why: "telemetry is a port, free of cost when it is off",
	},
	{
		pkg: "github.com/stretchr/testify",
		why: "tests use the standard library and go-cmp",
	},
	{
		pkg: "github.com/pkg/errors",
		why: "errors are wrapped by fmt.Errorf with %w",
	},
}

const (
	whyLayout = "the package is outside the layout of docs/architecture.md"
	whySuite  = "conformance suites and fakes are for tests, and for what measures"
)

// forbidden says why the file, a path relative to the root of the repository,
// must not import imp. It returns "" when it may.
func forbidden(file, imp string) (why string) {
	from, isTest := path.Dir(file), strings.HasSuffix(file, "_test.go")
	subtree, l := layerOf(from)
	if subtree == "" {
		return whyLayout
	}
	allowed := l.imports
	if isTest {
		allowed = slices.Concat(l.imports, l.tests)
	}

	to, ours := strings.CutPrefix(imp, module)
	switch {
	case ours && isSuite(to) && !isTest && !isSuite(from) && !within(from, "build"):
		return whySuite
	case ours && unit(from) == unit(to):
		return ""
	case ours && slices.ContainsFunc(allowed, func(a string) bool { return within(to, a) }):
		return ""
	case ours:
		return l.why
	case isStandard(imp):
		return ""
	}

	for _, r := range reservations {
		if within(imp, r.pkg) && !r.permits(file, isTest) {
			return r.why
		}
	}
	if isSuite(from) {
		allowed = slices.Concat(allowed, testLibraries)
	}
	if slices.ContainsFunc(allowed, func(a string) bool { return a == thirdParty || within(imp, a) }) {
		return ""
	}
	return l.why
}

func (r reserved) permits(file string, isTest bool) bool {
	if isTest && r.tests {
		return true
	}
	return slices.ContainsFunc(r.in, func(place string) bool {
		matched, err := path.Match(place, file)
		return within(file, place) || (matched && err == nil)
	})
}

func layerOf(dir string) (subtree string, l layer) {
	for s, candidate := range layers {
		if within(dir, s) && len(s) > len(subtree) {
			subtree, l = s, candidate
		}
	}
	return subtree, l
}

// unit is the part of the tree that a directory belongs to, whose packages may
// import each other: domain/run, adapters/docker, adapters/plugins/env.
func unit(dir string) string {
	n := 2
	if within(dir, "adapters/plugins") {
		n = 3
	}
	parts := strings.Split(dir, "/")
	return strings.Join(parts[:min(n, len(parts))], "/")
}

// isSuite reports whether dir is a conformance suite: ports/queue/queuetest.
func isSuite(dir string) bool {
	return path.Base(dir) == path.Base(path.Dir(dir))+"test"
}

func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

func within(dir, subtree string) bool {
	return dir == subtree || strings.HasPrefix(dir, subtree+"/")
}
