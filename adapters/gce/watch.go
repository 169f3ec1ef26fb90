package gce

import (
	"context"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/imds"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// Preemption returns a source that announces that the instance is preempted.
func (m *Metadata) Preemption() interrupt.Source {
	return &watch{m: m, path: "preempted", value: "TRUE", cause: "the instance is preempted", left: m.cfg.Notice}
}

// Maintenance returns a source that announces that the instance is stopped for
// its host's maintenance, as those with GPUs are. Others move to another host.
func (m *Metadata) Maintenance() interrupt.Source {
	return &watch{
		m: m, path: "maintenance-event", value: "TERMINATE_ON_HOST_MAINTENANCE",
		cause: "the instance is stopped for its host's maintenance", left: m.cfg.Maintenance,
	}
}

// watch announces, once, that something has a value.
type watch struct {
	m           *Metadata
	path, value string
	cause       string
	left        time.Duration // between the value and its effect
	announced   atomic.Bool
}

// Wait implements interrupt.Source. The service tells of news at once.
func (w *watch) Wait(ctx context.Context) (interrupt.Notice, error) {
	if w.announced.Load() {
		<-ctx.Done()
		return interrupt.Notice{}, ctx.Err()
	}
	var query url.Values // for the first request, which does not wait
	failing := false
	for {
		start := time.Now()
		answer, err := w.ask(ctx, query)
		switch {
		case ctx.Err() != nil:
			return interrupt.Notice{}, ctx.Err()
		case err != nil:
			if !failing {
				w.m.log.WarnContext(ctx, "metadata of the instance is not known", slog.Any("error", err))
			}
			query = nil
		case strings.TrimSpace(string(answer.Body)) == w.value:
			w.announced.Store(true)
			return interrupt.Notice{Cause: w.cause, Deadline: time.Now().Add(w.left)}, nil
		default:
			query = url.Values{
				"wait_for_change": {"true"},
				"timeout_sec":     {strconv.Itoa(max(1, int(w.m.cfg.Poll/time.Second)))},
				"last_etag":       {answer.ETag},
			}
		}
		failing = err != nil
		// Whatever answers does not make the worker ask without end.
		select {
		case <-time.After(w.m.cfg.Pause - time.Since(start)):
		case <-ctx.Done():
		}
	}
}

// ask makes one request, which ends some time after the service should have.
func (w *watch) ask(ctx context.Context, query url.Values) (imds.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.m.cfg.Poll+30*time.Second)
	defer cancel()
	return w.m.client.Once(ctx, root+w.path, query)
}
