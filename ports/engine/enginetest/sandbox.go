package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

const (
	memoryDir     = "home/task"
	memoryDirMode = fs.ModeDir | 0o755
)

type memorySandbox struct {
	m       *Memory
	o       engine.Options
	steps   []Step
	env     map[string]string
	proxies map[string]http.Handler
	mounts  map[string]memoryMount

	out     memoryOutput
	started time.Time
	ctx     context.Context // done when the sandbox is killed, aborted or has ended
	end     context.CancelCauseFunc
	ended   chan struct{} // closed when result and files are final
	told    memoryTold
	files   fstest.MapFS
	result  engine.Result
}

// run is the life of the task.
func (s *memorySandbox) run() {
	defer close(s.ended)
	defer s.m.ran(-1)
	begin := time.Now()
	s.out.reach(func(l *tasklog.Log) { l.Executing(0, []string{"steps"}) })
	code, lingering := 0, []string(nil)
	stopped := false
	for _, step := range s.steps {
		// A program that does not exist is a command of its own.
		if stopped = step.Do == Missing && s.told.stopping(); stopped {
			break
		}
		var marks []string
		var done bool
		code, done, marks = s.take(step)
		lingering = append(lingering, marks...)
		if done || code != 0 {
			break
		}
	}
	for _, mark := range lingering {
		s.m.count(mark, -1)
	}
	s.end(nil) // a later Kill is not the cause any more
	r := engine.Result{ExitCode: code, Success: code == 0 && !stopped, Wall: max(time.Since(begin), 1)}
	if errors.Is(context.Cause(s.ctx), errKilled) {
		r = engine.Result{ExitCode: -1, Signal: "killed", Killed: true, Wall: r.Wall}
	}
	r.Interrupted = s.told.stopping()
	verdict := "FAILED"
	if r.Success {
		verdict = "SUCCEEDED"
	}
	s.out.reach(func(l *tasklog.Log) {
		l.Executed(tasklog.Outcome{ExitCode: r.ExitCode, Signal: r.Signal, Wall: r.Wall, Result: verdict})
	})
	s.result = r
}

// take takes a step. It returns the exit code, whether that is the end, and
// the marks of processes that it has started.
func (s *memorySandbox) take(step Step) (code int, done bool, marks []string) {
	say := s.out.print
	switch step.Do {
	case Print:
		say(step.Text)
	case Flood:
		say(strings.Repeat("x", step.N))
	case Count:
		var b strings.Builder
		for i := range step.N {
			fmt.Fprintln(&b, i+1)
		}
		say(b.String())
	case PrintEnv:
		for _, name := range slices.Sorted(maps.Keys(s.env)) {
			say(name + "=" + s.env[name] + "\n")
		}
	case Exit:
		return step.N, true, nil
	case Write:
		if err := s.write(step.Path, []byte(step.Text)); err != nil {
			say(err.Error() + "\n")
			return 1, true, nil
		}
	case Link:
		s.files[resolve(step.Path)] = &fstest.MapFile{Data: []byte(step.Text), Mode: fs.ModeSymlink | 0o777}
	case Read:
		content, err := s.read(step.Path)
		if err != nil {
			say(err.Error() + "\n")
			return 1, true, nil
		}
		say(string(content))
	case Fetch:
		return s.fetch(s.env[step.Text], say), false, nil
	case Hang:
		s.m.count(step.Text, 1)
		say("hanging\n")
		<-s.ctx.Done()
		return 0, true, []string{step.Text}
	case Linger:
		s.m.count(step.Text, 1)
		return 0, false, []string{step.Text}
	case Heed:
		return s.heed(say), s.ctx.Err() != nil, nil
	case Await:
		say("awaiting\n")
		return s.await(say, func(t *memoryTold) bool { return bytes.Contains(t.file, []byte(step.Text)) }), s.ctx.Err() != nil, nil
	default:
		say(fmt.Sprintf("%s: no such program\n", step.Do))
		return 127, true, nil
	}
	return 0, false, nil
}

// mounted returns the volume that a file is in, and its name there.
func (s *memorySandbox) mounted(name string) (m memoryMount, inside string, ok bool) {
	for at, m := range s.mounts {
		if inside, ok := strings.CutPrefix(name, at+"/"); ok {
			return m, inside, true
		}
	}
	return memoryMount{}, "", false
}

func (s *memorySandbox) write(name string, content []byte) error {
	name = resolve(name)
	if m, inside, ok := s.mounted(name); ok {
		if m.readOnly {
			return &fs.PathError{Op: "write", Path: name, Err: fs.ErrPermission}
		}
		m.volume.mu.Lock()
		defer m.volume.mu.Unlock()
		m.volume.files[inside] = &fstest.MapFile{Data: content, Mode: 0o644}
		return nil
	}
	s.files[name] = &fstest.MapFile{Data: content, Mode: 0o644}
	return nil
}

func (s *memorySandbox) read(name string) ([]byte, error) {
	name = resolve(name)
	if m, inside, ok := s.mounted(name); ok {
		m.volume.mu.Lock()
		defer m.volume.mu.Unlock()
		return fs.ReadFile(m.volume.files, inside)
	}
	return fs.ReadFile(s.files, name)
}

func (s *memorySandbox) fetch(url string, say func(string)) (code int) {
	for at, h := range s.proxies {
		if rest, ok := strings.CutPrefix(url, at); ok {
			r := httptest.NewRequestWithContext(s.ctx, http.MethodGet, path.Join("/", rest), http.NoBody)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			say(w.Body.String())
			return 0
		}
	}
	say("cannot reach " + url + "\n")
	return 1
}
