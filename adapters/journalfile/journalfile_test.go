package journalfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/journal/journaltest"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

var saved = journal.Saved{Saved: queue.Saved{
	Run:        task.RunID{Task: "fN1SbArXTPSVFNUvaOlinQ"},
	Definition: []byte(`{"payload": {}}`), TakenUntil: time.Unix(1e9, 0).UTC(),
	Credentials: task.Credentials{ClientID: "c", AccessToken: "s3cret", Certificate: "{}"},
}}

// disk is a directory that journals are opened in one after the other.
type disk struct {
	dir  string
	log  bytes.Buffer
	tel  counted
	shut func()
}

// counted counts failures.
type counted struct {
	telemetry.Off
	failures int64
}

func (c *counted) Count(_ context.Context, name string, n int64, _ ...slog.Attr) {
	if name == Failures {
		c.failures += n
	}
}

func newDisk(tb testing.TB) *disk {
	tb.Helper()
	d := &disk{dir: filepath.Join(tb.TempDir(), "journal"), shut: func() {}}
	tb.Cleanup(func() { d.shut() })
	return d
}

// Next implements journaltest.Harness. It closes what a kill would close.
func (d *disk) Next(tb testing.TB) journal.Journal {
	tb.Helper()
	return d.open(tb)
}

func (d *disk) open(tb testing.TB) *Journal {
	tb.Helper()
	d.shut()
	j, shut, err := Open(tb.Context(), Config{Dir: d.dir}, &d.tel, slog.New(slog.NewTextHandler(&d.log, nil)))
	if err != nil {
		tb.Fatal(err)
	}
	d.shut = shut
	return j
}

// file returns the path of the file of the run.
func (d *disk) file() string { return filepath.Join(d.dir, base(saved.Run)+suffix) }

func TestJournal(t *testing.T) {
	journaltest.Test(t, func(tb testing.TB) journaltest.Harness {
		tb.Helper()
		return newDisk(tb)
	})
}

func wantRuns(t *testing.T, j *Journal, want ...journal.Saved) {
	t.Helper()
	got, err := j.Runs()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Errorf("runs, %v (-want +got):\n%s", err, diff)
	}
}

func TestOnlyTheWorkerCanRead(t *testing.T) {
	d := newDisk(t)
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.open(t).Begin(saved)
	for path, want := range map[string]os.FileMode{d.dir: 0o700, d.file(): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestHostileIDsStayInTheDirectory(t *testing.T) {
	d := newDisk(t)
	j := d.open(t)
	hostile := saved
	hostile.Run.Task = "../../../etc/\x00x"
	j.Begin(hostile)
	found, err := os.ReadDir(d.dir)
	if err != nil || len(found) != 2 {
		t.Errorf("the directory has %v, %v", found, err)
	}
	wantRuns(t, d.open(t), hostile)
}

// A crash of the host may leave any part of what was being written.
func TestATornTailCostsOnlyTheTail(t *testing.T) {
	d := newDisk(t)
	e := d.open(t).Begin(saved)
	e.Add(journal.Reached{State: run.Running})
	before, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	e.Add(journal.Started{At: time.Unix(1e9, 0).UTC()})
	after, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	want := saved.After(journal.Reached{State: run.Running})
	tails := map[string][]byte{
		"a flipped bit": flipped(after, len(after)-3),
		"zeros":         append(slices.Clone(before), make([]byte, 100)...),
		"a huge length": append(slices.Clone(before), 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5),
		"no JSON":       append(slices.Clone(before), 0, 0, 0, 0, 0, 0, 0, 0),
	}
	for n := len(before) + 1; n < len(after); n++ {
		tails[fmt.Sprintf("%d bytes of it", n-len(before))] = after[:n]
	}
	for name, content := range tails {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(d.file(), content, 0o600); err != nil {
				t.Fatal(err)
			}
			j := d.open(t)
			d.log.Reset()
			wantRuns(t, j, want)
			if !strings.Contains(d.log.String(), "damaged") {
				t.Errorf("the log says %q", d.log.String())
			}
			e, err := j.Resume(saved.Run)
			if err != nil {
				t.Fatal(err)
			}
			e.Add(journal.Held{Volume: "v", Cache: "c"})
			wantRuns(t, d.open(t), want.After(journal.Held{Volume: "v", Cache: "c"}))
		})
	}
}

func flipped(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 1
	return b
}

func TestWhatCannotBeReadIsSetAside(t *testing.T) {
	d := newDisk(t)
	d.open(t).Begin(saved)
	good, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	noClaim, err := frame(heldKind, journal.Held{})
	if err != nil {
		t.Fatal(err)
	}
	noRun, err := frame(claimKind, claimBody{})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"no claim": noClaim, "no run": noRun, "damaged": flipped(good, header+2),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(d.file(), content, 0o600); err != nil {
				t.Fatal(err)
			}
			j := d.open(t)
			d.log.Reset()
			wantRuns(t, j)
			if got, err := os.ReadFile(d.file() + aside); err != nil || !bytes.Equal(got, content) {
				t.Errorf("aside is %q, %v", got, err)
			}
			if strings.Contains(d.log.String(), "s3cret") || !strings.Contains(d.log.String(), "set aside") {
				t.Errorf("the log says %q", d.log.String())
			}
		})
	}
}

// The task of a run whose file cannot be read today may be running.
func TestWhatTheSystemDoesNotLetBeReadIsLeft(t *testing.T) {
	d := newDisk(t)
	d.open(t).Begin(saved)
	j := d.open(t)
	hidden := d.file() + ".hidden"
	if err := os.Rename(d.file(), hidden); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.file(), 0o700); err != nil { // reading it fails for root, too
		t.Fatal(err)
	}
	if got, err := j.Runs(); err == nil || !strings.Contains(err.Error(), d.file()) {
		t.Errorf("runs are %v, and the error %v does not name the file", got, err)
	}
	if err := errors.Join(os.Remove(d.file()), os.Rename(hidden, d.file())); err != nil {
		t.Fatal(err)
	}
	wantRuns(t, j, saved)
}

// A kill amid the first record leaves nothing that would be of use to anybody.
func TestAnUnfinishedClaimIsRemoved(t *testing.T) {
	d := newDisk(t)
	d.open(t).Begin(saved)
	good, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, header, header + 1, len(good) - 1} {
		if err := os.WriteFile(d.file(), good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		j := d.open(t)
		d.log.Reset()
		wantRuns(t, j)
		if left, err := os.ReadDir(d.dir); err != nil || len(left) > 1 {
			t.Errorf("after %d bytes: left besides the lock: %v, %v", n, left, err)
		}
		if strings.Contains(d.log.String(), "s3cret") || !strings.Contains(d.log.String(), "not written to the end") {
			t.Errorf("after %d bytes: the log says %q", n, d.log.String())
		}
	}
}

// A disk that was full has nothing missing once there is room.
func TestWhatAFullDiskDidNotTakeIsWrittenLater(t *testing.T) {
	d := newDisk(t)
	e := d.open(t).Begin(saved)
	e.Add(journal.Reached{State: run.Preparing})
	content, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	for name, before := range map[string]int{"all of it": 0, "the end": len(content)} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(d.file(), content[:before], 0o600); err != nil {
				t.Fatal(err)
			}
			j := d.open(t)
			e := j.entry(saved.Run)
			full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			e.use(full, int64(before))
			if before == 0 {
				e.append(claimKind, claimOf(saved), true)
			}
			e.Add(journal.Reached{State: run.Building})
			if d.tel.failures == 0 {
				t.Fatal("the disk is not full")
			}
			if e.file, err = os.OpenFile(d.file(), os.O_RDWR, 0); err != nil {
				t.Fatal(err)
			}
			if err := full.Close(); err != nil {
				t.Fatal(err)
			}
			e.Add(journal.Started{At: time.Unix(1e9, 0).UTC()})
			wantRuns(t, d.open(t), saved.After(journal.Reached{State: run.Building}, journal.Started{At: time.Unix(1e9, 0).UTC()}))
		})
	}
}

// After a downgrade there may be records that only a later version knows. They
// cost nothing of what follows, such as a resolution.
func TestWhatIsUnknownIsPassedOver(t *testing.T) {
	d := newDisk(t)
	d.open(t).Begin(saved)
	content, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	known, err := frame(encode(journal.Resolving{Resolution: run.Resolution{Outcome: run.Completed}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		title, kind string
		body        any
	}{
		{"a kind", "prophecy", 1},
		{"a state", reachedKind, "ascended"},
		{"an outcome", resolvingKind, resolvingBody{Outcome: "forgiven"}},
		{"another form of a record", heldKind, []string{"v", "c"}},
	} {
		t.Run(tt.title, func(t *testing.T) {
			unknown, err := frame(tt.kind, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(d.file(), slices.Concat(content, unknown, known), 0o600); err != nil {
				t.Fatal(err)
			}
			wantRuns(t, d.open(t), saved.After(journal.Resolving{Resolution: run.Resolution{Outcome: run.Completed}}))
		})
	}
}

func TestAFailingDiskStopsNobody(t *testing.T) {
	d := newDisk(t)
	j := d.open(t)
	e := j.Begin(saved)
	if err := e.(*entry).file.Close(); err != nil {
		t.Fatal(err)
	}
	e.Add(journal.Started{})
	e.Add(journal.Started{})
	if got := strings.Count(d.log.String(), "level=ERROR"); got != 1 || d.tel.failures != 2 {
		t.Errorf("%d lines for %d failures:\n%s", got, d.tel.failures, d.log.String())
	}
	e.Forget()
	wantRuns(t, j)

	if err := os.RemoveAll(d.dir); err != nil {
		t.Fatal(err)
	}
	e = j.Begin(saved)
	e.Add(journal.Started{})
	e.Forget()
	if _, err := j.Runs(); err == nil {
		t.Error("a directory that is gone has runs")
	}
}

func TestNothingIsWrittenOnceClosed(t *testing.T) {
	d := newDisk(t)
	e := d.open(t).Begin(saved)
	j := d.open(t)
	e.Add(journal.Reached{State: run.Done})
	e.Forget()
	wantRuns(t, j, saved)
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"": "no directory is configured", file: file} {
		_, _, err := Open(t.Context(), Config{Dir: dir}, telemetry.Off{}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("opened %q with %v", dir, err)
		}
	}
}

func FuzzReplay(f *testing.F) {
	content, err := frame(claimKind, claimOf(saved))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	for _, r := range []journal.Record{
		journal.Leased{},
		journal.Reached{State: run.Running},
		journal.Started{},
		journal.Resolving{},
		journal.Held{},
		journal.Released{},
		journal.Uploaded{Artifact: journal.Artifact{Meta: artifact.Meta{Name: "a"}}},
	} {
		more, err := frame(encode(r))
		if err != nil {
			f.Fatal(err)
		}
		content = slices.Concat(content, more)
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s, good, err := replay(content)
		if err != nil {
			return
		}
		if good < header || good > len(content) {
			t.Fatalf("%d of %d bytes are good", good, len(content))
		}
		again, all, err := replay(content[:good])
		if err != nil || all != good || !cmp.Equal(s, again) {
			t.Errorf("what is good reads as %+v, %d, %v", again, all, err)
		}
	})
}

// BenchmarkRun measures what the journal costs one run of an ordinary task.
func BenchmarkRun(b *testing.B) {
	j, shut, err := Open(b.Context(), Config{Dir: b.TempDir()}, telemetry.Off{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer shut()
	for b.Loop() {
		e := j.Begin(saved)
		for s := run.Preparing; s <= run.Running; s++ {
			e.Add(journal.Reached{State: s})
		}
		e.Add(journal.Started{At: time.Now()})
		e.Add(journal.Uploaded{Artifact: journal.Artifact{Meta: artifact.Meta{Name: "public/logs/live_backing.log"}}})
		e.Add(journal.Resolving{Resolution: run.Resolution{Outcome: run.Completed}})
		e.Forget()
	}
}
