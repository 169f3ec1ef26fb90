package image

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func TestProgressIsToldNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		p := newProgress(tasklog.New(&log), "Pulled")
		p.note("a", 1e6, 10e6)
		p.note("b", 2e6, 5e6)
		if log.Len() > 0 {
			t.Errorf("it is told at once: %s", &log)
		}
		<-time.After(progressEvery)
		p.note("a", 4e6, 10e6)
		p.note("a", 5e6, 10e6)
		if got := log.String(); !strings.HasSuffix(got, "] [docker] Pulled 6 of 15 MB\n") || strings.Count(got, "\n") != 1 {
			t.Errorf("got %q", got)
		}

		log.Reset()
		c := &counted{Reader: strings.NewReader(strings.Repeat("x", 3e6)), size: -1, progress: newProgress(tasklog.New(&log), "Loaded")}
		<-time.After(progressEvery)
		if n, err := io.ReadFull(c, make([]byte, 2e6)); n != 2e6 || err != nil {
			t.Fatal(n, err)
		}
		if got := log.String(); !strings.HasSuffix(got, "] [docker] Loaded 2 MB\n") {
			t.Errorf("of a size that is not known: %q", got)
		}
	})
}
