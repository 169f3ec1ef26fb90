package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/taskcluster/taskcluster-worker/pkg/command"
	"github.com/taskcluster/taskcluster-worker/pkg/setting"
)

// script and cloudInit install the program.
const (
	script    = "../../build/ec2/user-data.sh"
	cloudInit = "../../build/ec2/cloud-init.yml"
)

// run runs a program, and returns what it prints.
func run(t *testing.T, environ []string, name string, args ...string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// systemd finds nothing wrong with the units.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	if err := writeUnits(dir, command.Streams{Out: t.Output()}); err != nil {
		t.Fatal(err)
	}
	units, err := filepath.Glob(filepath.Join(dir, "*.service"))
	if err != nil || len(units) != 2 {
		t.Fatalf("units are %v, %v", units, err)
	}
	// It looks for the programs, too.
	for _, unit := range units {
		content, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		moved := strings.ReplaceAll(string(content), "/usr/local/bin/ec2-spot-worker", "/bin/true")
		if err := os.WriteFile(unit, []byte(moved), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run(t, nil, "systemd-analyze", append([]string{"verify", "--man=no"}, units...)...); err != nil || out != "" {
		t.Errorf("systemd says %v:\n%s", err, out)
	}
	bad := filepath.Join(dir, "bad.service")
	if err := os.WriteFile(bad, []byte("[Service]\nExecStart=/no/such/program\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, nil, "systemd-analyze", "verify", "--man=no", bad); err == nil {
		t.Errorf("systemd finds nothing wrong with a unit that makes no sense:\n%s", out)
	}
}

// installation is where the script installs the program, and what it does with
// systemd.
type installation struct {
	root     string
	commands string // file
	server   *httptest.Server
	sum      string
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	dir := t.TempDir()
	i := &installation{root: filepath.Join(dir, "root"), commands: filepath.Join(dir, "commands")}
	program := "#!/bin/sh\necho \"$0 $*\" >>" + i.commands + "\n"
	sum := sha256.Sum256([]byte(program))
	i.sum = hex.EncodeToString(sum[:])
	i.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(program)) }))
	t.Cleanup(i.server.Close)
	systemctl := "#!/bin/sh\necho systemctl \"$@\" >>" + i.commands + "\n"
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(systemctl), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return i
}

// install runs the script.
func (i *installation) install(t *testing.T, environ ...string) (output string, err error) {
	t.Helper()
	return run(t, append([]string{
		"DOWNLOAD_URL=" + i.server.URL, "DOWNLOAD_SHA256=" + i.sum, "ROOT=" + i.root,
	}, environ...), "bash", script)
}

func TestUserData(t *testing.T) {
	if out, err := run(t, nil, "shellcheck", script); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
	i := newInstallation(t)
	if out, err := i.install(t, "CONFIGURATION=engine: docker", "START=no"); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	config := filepath.Join(i.root, "etc/ec2-spot-worker.yml")
	content, err := os.ReadFile(config)
	if err != nil || string(content) != "engine: docker\n" {
		t.Errorf("configuration is %q, %v", content, err)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("configuration has mode %v, %v", info.Mode(), err)
	}
	program := filepath.Join(i.root, "usr/local/bin/ec2-spot-worker")
	commands, err := os.ReadFile(i.commands)
	want := program + " config check --config " + config + "\n" +
		program + " units --dir " + filepath.Join(i.root, "etc/systemd/system") + "\n" +
		"systemctl --root=" + i.root + " enable ec2-spot-worker-disks.service ec2-spot-worker.service\n"
	if err != nil || string(commands) != want {
		t.Errorf("commands are %v\n%s\nwant\n%s", err, commands, want)
	}

	if out, err := i.install(t); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	l, err := load(setting.Sources{File: config})
	if err != nil || l.Lifecycle.MaxIdle == 0 {
		t.Errorf("by default, the worker is idle for %v, %v", l.Lifecycle.MaxIdle, err)
	}
	commands, err = os.ReadFile(i.commands)
	if last := "systemctl start --no-block ec2-spot-worker-disks.service ec2-spot-worker.service docker.service\n"; err != nil || !strings.HasSuffix(string(commands), last) {
		t.Errorf("commands are %v\n%s\nwant at the end\n%s", err, commands, last)
	}
}

// What is not the program that was meant is not installed.
func TestUserDataChecksTheSum(t *testing.T) {
	i := newInstallation(t)
	i.sum = strings.Repeat("0", 64)
	if out, err := i.install(t); err == nil {
		t.Errorf("no error:\n%s", out)
	}
	if _, err := os.Stat(i.root); err == nil {
		t.Error("something was installed")
	}
}

func TestCloudInit(t *testing.T) {
	content, err := os.ReadFile(cloudInit)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		WriteFiles []struct{ Path, Content string } `yaml:"write_files"`
		Packages   []string                         `yaml:"packages"`
		RunCmd     []string                         `yaml:"runcmd"`
	}
	if err := yaml.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(content), "#cloud-config\n") || len(config.WriteFiles) != 1 || len(config.RunCmd) == 0 {
		t.Fatalf("configuration is %+v", config)
	}
	worker := filepath.Join(t.TempDir(), "worker.yml")
	if err := os.WriteFile(worker, []byte(config.WriteFiles[0].Content), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadValues(worker, true); err != nil {
		t.Errorf("the worker's configuration: %v", err)
	}
	// cloud-init makes a script of it.
	commands := filepath.Join(t.TempDir(), "runcmd")
	if err := os.WriteFile(commands, []byte("#!/bin/sh\n"+strings.Join(config.RunCmd, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, nil, "shellcheck", commands); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		out  string // part of what is printed
		err  string // part of what is said
	}{
		{"", 64, "", "expected a command"},
		{"version", 0, app, ""},
		{"config check", 0, "The configuration is fine.", ""},
		{"config show", 0, "atEnd: powerOff # default", ""},
		{"config schema", 0, "Configuration of " + app, ""},
		{"payload-schema", 0, `"maxRunTime"`, ""},
		{"units --dir /no/such/directory", 1, "", "write unit"},
		{"start --config /no/such/file", 64, "", "cannot read the configuration file"},
		{"drain --timeout 1ms", 1, "", "no worker"},
		{"disks --dir", 64, "", "flag needs an argument"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var out, err strings.Builder
			code := execute(context.Background(), strings.Fields(tt.args), command.Streams{In: strings.NewReader(""), Out: &out, Err: &err})
			if code != tt.code || !strings.Contains(out.String(), tt.out) || !strings.Contains(err.String(), tt.err) {
				t.Errorf("exit code %d, want %d; out %q, want %q in it; err %q, want %q in it", code, tt.code, out.String(), tt.out, err.String(), tt.err)
			}
		})
	}
}
