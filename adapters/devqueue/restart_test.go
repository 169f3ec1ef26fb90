package devqueue_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// listenVariable names the variable with the address of a deployment that is a
// process of its own.
const listenVariable = "DEVQUEUE_TEST_LISTEN"

// serveForever is the life of that process. Its first line of output is the
// root URL.
func serveForever(dir string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server, _, err := devqueue.Open(context.Background(), devqueue.Config{Dir: dir, Listen: os.Getenv(listenVariable)}, log)
	if err != nil {
		log.Error("open", slog.String("error", err.Error()))
		os.Exit(1)
	}
	if _, err := os.Stdout.WriteString(server.RootURL() + "\n"); err != nil {
		os.Exit(1)
	}
	select {}
}

// process starts a deployment as a process and returns its root URL and a
// function that kills it without a warning.
func process(t *testing.T, dir, listen string) (rootURL string, kill func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), processDir+"="+dir, listenVariable+"="+listen)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if _, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok {
			t.Error("the process was not killed")
		}
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		kill()
		t.Fatalf("start a deployment: %v", err)
	}
	return strings.TrimSpace(line), kill
}

// at returns a client of the queue at a root URL.
func at(t *testing.T, rootURL string, c *tcclient.Credentials) *tcqueue.Queue {
	t.Helper()
	q := tcqueue.New(c, rootURL)
	q.HTTPClient = httpClient(t)
	return q
}

func TestNothingIsLostWhenTheProcessIsKilled(t *testing.T) {
	dir := t.TempDir()
	// The credentials are in the directory, which one process can use at a time.
	first := start(t, devqueue.Config{Dir: dir})
	root := credentials(first.server.Credentials())
	first.shut()
	rootURL, kill := process(t, dir, "")
	q := at(t, rootURL, root)
	claimed := create(t, q, nil)
	c := claimOne(t, q)
	pending := create(t, q, func(d *tcqueue.TaskDefinitionRequest) { d.Priority = "high" })
	blocked := create(t, q, func(d *tcqueue.TaskDefinitionRequest) { d.Dependencies = []string{claimed} })
	answer, err := q.CreateArtifact(claimed, "0", "public/x", request("s3", time.Now().Add(time.Hour), `, "contentType": "text/x"`))
	if err != nil {
		t.Fatal(err)
	}
	var upload tcqueue.S3ArtifactResponse
	if err := json.Unmarshal(*answer, &upload); err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, "PUT", upload.PutURL, "content", map[string]string{"Content-Type": "text/x"}); got.status != http.StatusOK {
		t.Fatalf("PUT: %d: %s", got.status, got.body)
	}
	kill()

	u, err := url.Parse(rootURL)
	if err != nil {
		t.Fatal(err)
	}
	again, kill := process(t, dir, u.Host)
	defer kill()
	if again != rootURL {
		t.Errorf("the root URL was %s and is %s", rootURL, again)
	}
	task := at(t, again, &tcclient.Credentials{ClientID: c.Credentials.ClientID, AccessToken: c.Credentials.AccessToken, Certificate: c.Credentials.Certificate})
	q = at(t, again, root)
	for id, want := range map[string]string{claimed: "running", pending: "pending", blocked: "unscheduled"} {
		if s := status(t, q, id); s.State != want {
			t.Errorf("after the restart a task is %s, want %s", s.State, want)
		}
	}
	if _, err := task.ReclaimTask(claimed, "0"); err != nil {
		t.Errorf("reclaim with credentials of before: %v", err)
	}
	redirect := fetch(t, "GET", again+"/api/queue/v1/task/"+claimed+"/artifacts/public/x", "", nil)
	if got := fetch(t, "GET", redirect.header.Get("Location"), "", nil); got.body != "content" {
		t.Errorf("the artifact holds %q", got.body)
	}
	if got := claimOne(t, q); got.Status.TaskID != pending {
		t.Errorf("claimed %s, want the pending task", got.Status.TaskID)
	}
	if _, err := task.ReportCompleted(claimed, "0"); err != nil {
		t.Fatal(err)
	}
	if got := claimOne(t, q); got.Status.TaskID != blocked {
		t.Errorf("claimed %s, want the task that waited", got.Status.TaskID)
	}
}

// opened is a deployment that the test shuts itself.
type opened struct {
	server *devqueue.Server
	shut   func()
}

// start starts a deployment.
func start(t *testing.T, cfg devqueue.Config) opened {
	t.Helper()
	server, shut, err := devqueue.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return opened{server, shut}
}

func TestClaimsAndDeadlinesEndAfterARestart(t *testing.T) {
	dir := t.TempDir()
	first := start(t, devqueue.Config{Dir: dir, ClaimTimeout: 50 * time.Millisecond})
	q := asRoot(t, first.server)
	expiring := create(t, q, nil)
	claimOne(t, q)
	late := create(t, q, func(d *tcqueue.TaskDefinitionRequest) {
		d.TaskQueueID = "test/nobody"
		*(*time.Time)(&d.Deadline) = time.Now().Add(100 * time.Millisecond)
	})
	first.shut()
	server := open(t, devqueue.Config{Dir: dir})
	q = asRoot(t, server)
	if got := claimOne(t, q); got.Status.TaskID != expiring || got.RunID != 1 || got.Status.Runs[0].ReasonResolved != "claim-expired" {
		t.Errorf("claimed %+v", got.Status)
	}
	poll(t, func() bool {
		s := status(t, q, late)
		return s.State == "exception" && s.Runs[0].ReasonResolved == "deadline-exceeded"
	})
}

// poll waits until what the server is about to do by itself has happened.
func poll(t *testing.T, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(10 * time.Second)
	for !done() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatal("it has not happened")
		}
	}
}

func TestShutEndsCallsThatWait(t *testing.T) {
	o := start(t, devqueue.Config{Dir: t.TempDir()})
	q := asRoot(t, o.server)
	done := make(chan error, 1)
	go func() {
		_, err := q.ClaimWork(taskQueue, &tcqueue.ClaimWorkRequest{WorkerGroup: group, WorkerID: worker, Tasks: 1})
		done <- err
	}()
	poll(t, func() bool {
		_, err := asRoot(t, o.server).GetWorker("test", "fast", group, worker)
		return err == nil
	})
	begun := time.Now()
	o.shut()
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("shutting took %v", took)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the call that waited: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the call that waited goes on")
	}
}

func TestADirectoryServesOneDeployment(t *testing.T) {
	dir := t.TempDir()
	open(t, devqueue.Config{Dir: dir})
	_, _, err := devqueue.Open(t.Context(), devqueue.Config{Dir: dir}, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Fatal("two deployments share a directory")
	}
	if !strings.Contains(err.Error(), dir) {
		t.Errorf("the error does not name the directory: %v", err)
	}
}

func TestTakenAddress(t *testing.T) {
	server := open(t, devqueue.Config{})
	dir := t.TempDir()
	listen := strings.TrimPrefix(server.RootURL(), "http://")
	if _, _, err := devqueue.Open(t.Context(), devqueue.Config{Dir: dir, Listen: listen}, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("two deployments share an address")
	}
	// What failed to open holds nothing.
	open(t, devqueue.Config{Dir: dir})
	if got := fetch(t, http.MethodGet, server.RootURL()+"/api/queue/v1/ping", "", nil); got.status != http.StatusOK {
		t.Errorf("ping: %d", got.status)
	}
}
