package ec2

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt/interrupttest"
)

// announcer is the source of one kind of announcements.
type announcer struct {
	service   *service
	source    interrupt.Source
	path      string
	announced []string // documents, of which the second is more urgent
	causes    []string
}

func (a *announcer) Source(testing.TB) interrupt.Source { return a.source }

func (a *announcer) Announce(testing.TB) string {
	document, cause := a.announced[0], a.causes[0]
	a.announced, a.causes = a.announced[1:], a.causes[1:]
	a.service.set("meta-data/"+a.path, document)
	return cause
}

// newAnnouncer returns the announcer of the first kind of announcements that are
// at a path.
func newAnnouncer(tb testing.TB, path string) *announcer {
	tb.Helper()
	s := newService(tb, map[string]string{})
	all, shut := NewInterruptions(tb.Context(), s.metadata(tb), InterruptionConfig{Rebalance: true}, slog.New(slog.DiscardHandler))
	tb.Cleanup(shut)
	for _, w := range all.watches {
		if w.path == path {
			return &announcer{service: s, source: w, path: path}
		}
	}
	tb.Fatalf("nothing watches %s", path)
	return nil
}

func action(name string, at time.Time) string {
	return fmt.Sprintf(`{"action": %q, "time": %q}`, name, at.UTC().Format(time.RFC3339))
}

func event(code string, at time.Time) string {
	return fmt.Sprintf(`{"NotBefore": %q, "Code": %q, "Description": "d", "EventId": "e", "NotAfter": "x", "State": "active"}`,
		at.UTC().Format(eventTime), code)
}

func TestInterruptionsConform(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		path              string
		announced, causes []string
	}{
		{
			"spot/instance-action",
			[]string{action("hibernate", now.Add(2*time.Minute)), action("terminate", now.Add(time.Minute))},
			[]string{"spot interruption: hibernate", "spot interruption: terminate"},
		},
		{
			"events/maintenance/scheduled",
			[]string{"[" + event("system-reboot", now.Add(time.Hour)) + "]", "[" + event("instance-stop", now) + "]"},
			[]string{"scheduled event: system-reboot", "scheduled event: instance-stop"},
		},
		{
			"autoscaling/target-lifecycle-state",
			[]string{"Warmed:Stopped", "Terminated"},
			[]string{"auto-scaling: Warmed:Stopped", "auto-scaling: Terminated"},
		},
	} {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			interrupttest.Test(t, func(tb testing.TB) interrupttest.Harness {
				tb.Helper()
				a := newAnnouncer(tb, tt.path)
				a.announced, a.causes = tt.announced, tt.causes
				return a
			})
		})
	}
}

// What is announced is seen within a second, also after the service has failed.
func TestNoticeIsSeenWithinASecond(t *testing.T) {
	t.Parallel()
	for path, document := range map[string]string{
		"spot/instance-action":               action("terminate", time.Now()),
		"events/maintenance/scheduled":       "[" + event("instance-stop", time.Now()) + "]",
		"autoscaling/target-lifecycle-state": "Terminated",
		"events/recommendations/rebalance":   `{"noticeTime": "2026-11-05T08:22:00Z"}`,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			a := newAnnouncer(t, path)
			a.service.change(func(s *service) { s.failing = true })
			<-time.After(time.Second)
			start := time.Now()
			a.service.change(func(s *service) {
				s.failing = false
				s.documents["meta-data/"+path] = document
			})
			if _, err := a.source.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 5, 8, 22, 0, 0, time.UTC)
	later, soon := now.Add(48*time.Hour), now.Add(time.Hour)
	inactive := `{"NotBefore": "5 Nov 2026 08:22:00 GMT", "Code": "c", "State": "canceled"}`
	for _, tt := range []struct {
		name     string
		parse    parser
		document string
		want     interrupt.Notice
		ok       bool
		fails    bool
	}{
		{
			name: "a spot interruption", parse: spotInterruption, document: action("stop", soon),
			want: interrupt.Notice{Cause: "spot interruption: stop", Deadline: soon}, ok: true,
		},
		{name: "no spot interruption", parse: spotInterruption, document: "<html>", fails: true},
		{name: "no events", parse: scheduledEvent, document: "[]"},
		{name: "an event that is not to be", parse: scheduledEvent, document: "[" + inactive + "]"},
		{
			name: "the first of several events", parse: scheduledEvent,
			document: "[" + inactive + "," + event("system-reboot", later) + "," + event("instance-retirement", soon) + "]",
			want:     interrupt.Notice{Cause: "scheduled event: instance-retirement", Deadline: soon}, ok: true,
		},
		{name: "an event at no time", parse: scheduledEvent, document: `[{"Code": "c", "NotBefore": "soon"}]`, fails: true},
		{name: "no list of events", parse: scheduledEvent, document: "{}", fails: true},
		{name: "a machine in service", parse: scaleIn(time.Minute), document: "InService"},
		{name: "a machine that leaves its group", parse: scaleIn(time.Minute), document: "Detached"},
		{name: "a machine that is warmed", parse: scaleIn(time.Minute), document: "Warmed:Running"},
		{
			name: "a machine that is warmed, to be hibernated", parse: scaleIn(time.Minute), document: "Warmed:Hibernated\n",
			want: interrupt.Notice{Cause: "auto-scaling: Warmed:Hibernated", Deadline: now.Add(time.Minute)}, ok: true,
		},
		{name: "a recommendation", parse: rebalance, document: "{}", want: interrupt.Notice{Cause: "rebalance recommendation"}, ok: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok, err := tt.parse(tt.document, now)
			if ok != tt.ok || (err != nil) != tt.fails {
				t.Errorf("ok is %t, want %t; error is %v", ok, tt.ok, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("notice (-want +got):\n%s", diff)
			}
		})
	}
}

// A notice whose deadline moves away is no news.
func TestLessUrgentNoticesAreNotAnnounced(t *testing.T) {
	t.Parallel()
	a := newAnnouncer(t, "spot/instance-action")
	now := time.Now().Truncate(time.Second)
	wait := func(want time.Time) {
		t.Helper()
		n, err := a.source.Wait(t.Context())
		if err != nil || !n.Deadline.Equal(want) {
			t.Errorf("notice is %+v, %v, want the deadline %v", n, err, want)
		}
	}
	first, second := now.Add(time.Hour), now.Add(time.Minute)
	a.service.set("meta-data/spot/instance-action", action("terminate", first))
	wait(first)
	a.service.set("meta-data/spot/instance-action", action("terminate", first.Add(time.Hour)))
	<-time.After(2 * urgent)
	a.service.set("meta-data/spot/instance-action", action("terminate", second))
	wait(second)
}

func TestSourcesHasRebalanceIfHeeded(t *testing.T) {
	t.Parallel()
	m := newService(t, map[string]string{}).metadata(t)
	for heeded, want := range map[bool]int{false: 3, true: 4} {
		all, shut := NewInterruptions(t.Context(), m, InterruptionConfig{Rebalance: heeded}, slog.New(slog.DiscardHandler))
		if got := len(all.Sources()); got != want {
			t.Errorf("heeding rebalance %t: there are %d sources, want %d", heeded, got, want)
		}
		shut()
	}
}

// Whatever the service says, a notice has a cause, and an error has none.
func FuzzParse(f *testing.F) {
	f.Add(`{"action": "terminate", "time": "2026-11-27T10:15:00Z"}`)
	f.Add(`[{"Code": "system-reboot", "State": "active", "NotBefore": "5 Nov 2026 08:22:00 GMT"}]`)
	f.Add("Warmed:Terminated")
	f.Fuzz(func(t *testing.T, document string) {
		for name, parse := range map[string]parser{"spot": spotInterruption, "events": scheduledEvent, "auto-scaling": scaleIn(time.Minute)} {
			n, ok, err := parse(document, time.Now())
			if ok != (n.Cause != "") || ok && err != nil {
				t.Errorf("%s: notice %+v, %t, %v", name, n, ok, err)
			}
		}
	})
}
