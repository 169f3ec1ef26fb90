package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/taskcluster/taskcluster-worker/pkg/poll"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// firstAnswer is how long the first request may take, which turns scheduled
// events on.
const firstAnswer = 150 * time.Second

// event is a scheduled event.
type event struct {
	EventID   string `json:"EventId"`
	EventType string
	Resources []string
	NotBefore string // empty once it has started
}

// deadline returns when the event is due, which is now if that is over or not
// said.
func (e event) deadline(now time.Time) time.Time {
	if at, err := http.ParseTime(e.NotBefore); err == nil && at.After(now) {
		return at
	}
	return now
}

// ends reports whether the machine goes away by the event. While it is frozen
// it does not: tasks hardly notice.
func (e event) ends() bool {
	switch e.EventType {
	case "Preempt", "Terminate", "Reboot", "Redeploy":
		return true
	default:
		return false
	}
}

// Wait implements interrupt.Source.
func (m *Metadata) Wait(ctx context.Context) (interrupt.Notice, error) {
	var notice interrupt.Notice
	err := poll.Until(ctx, m.cfg.Every, func(ctx context.Context) (found bool) {
		var err error
		notice, found, err = m.events(ctx)
		if ctx.Err() == nil {
			m.tell(ctx, err)
		}
		return found
	})
	return notice, err
}

// tell logs an error when it begins, and when it is over.
func (m *Metadata) tell(ctx context.Context, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil && !m.failed:
		m.log.WarnContext(ctx, "scheduled events are not known", slog.Any("error", err))
	case err == nil && m.failed:
		m.log.InfoContext(ctx, "scheduled events are known again")
	}
	m.failed = err != nil
}

// events returns a notice of the most urgent event of this machine that was not
// announced, or not as early.
func (m *Metadata) events(ctx context.Context) (n interrupt.Notice, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	name, err := m.machine(ctx)
	if err != nil {
		return n, false, err
	}
	answer, err := m.client.Once(ctx, "/metadata/scheduledevents", url.Values{"api-version": {"2020-07-01"}})
	if err != nil {
		return n, false, err
	}
	events, err := eventsOf(name, answer.Body, time.Now())
	if err != nil {
		return n, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, e := range events {
		deadline := e.deadline(now)
		if told, ok := m.announced[e.EventID]; ok && !deadline.Before(told) {
			continue
		}
		m.announced[e.EventID] = deadline
		return interrupt.Notice{Cause: "Azure: " + e.EventType, Deadline: deadline}, true, nil
	}
	return n, false, nil
}

// eventsOf returns the events that end a machine, the most urgent one first.
func eventsOf(name string, document []byte, now time.Time) ([]event, error) {
	var answer struct{ Events []event }
	if err := json.Unmarshal(document, &answer); err != nil {
		return nil, fmt.Errorf("scheduled events: %w", err)
	}
	mine := slices.DeleteFunc(answer.Events, func(e event) bool { return !e.ends() || !slices.Contains(e.Resources, name) })
	slices.SortStableFunc(mine, func(a, b event) int { return a.deadline(now).Compare(b.deadline(now)) })
	return mine, nil
}

// machine returns the name of this machine: events of others are told, too.
func (m *Metadata) machine(ctx context.Context) (string, error) {
	m.mu.Lock()
	name := m.name
	m.mu.Unlock()
	if name != "" {
		return name, nil
	}
	answer, err := m.client.Once(ctx, "/metadata/instance/compute/name", url.Values{"api-version": {"2020-09-01"}, "format": {"text"}})
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.name = string(answer.Body)
	return m.name, nil
}
