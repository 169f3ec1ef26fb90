package logfile

import (
	"testing"

	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func FuzzMarks(f *testing.F) {
	f.Add(make([]byte, 2*markSize), int64(5), int64(7))
	f.Add([]byte("short"), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, length, at int64) {
		if k, _, ok := latest(b); ok && (k.length < 0 || k.at < 0) {
			t.Errorf("found %+v", k)
		}
		if length < 0 || at < 0 {
			return
		}
		want := mark{length: length, at: tasklog.Position(at)}
		var stored [markSize]byte
		encode(stored[:], 1<<63, want)
		if got, _, ok := latest(append(stored[:], b[:min(len(b), markSize/2)]...)); !ok || got != want {
			t.Errorf("%+v was stored, found %+v, %t", want, got, ok)
		}
	})
}
