package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/taskcluster/taskcluster-worker/pkg/poll"
	"github.com/taskcluster/taskcluster-worker/ports/interrupt"
)

// InterruptionConfig says which announcements of the machine's end are heeded.
type InterruptionConfig struct {
	// Rebalance is whether a worker ends that EC2 recommends to replace, since
	// its spot instance is at a higher risk of interruption. Running tasks may
	// finish.
	Rebalance bool

	// ScaleIn is how long a machine lives that its auto-scaling group is
	// terminating: as long as the group's life-cycle hooks make it wait. Zero
	// means two minutes.
	ScaleIn time.Duration
}

// Interruptions are the announcements of the machine's end, each of which is an
// interrupt.Source:
//
//   - the interruption of a spot instance, two minutes before;
//   - an event that EC2 has scheduled, such as maintenance;
//   - termination by an auto-scaling group;
//   - the recommendation to replace a spot instance, if it is heeded.
type Interruptions struct {
	watches []*watch
}

// How often the service is asked, which it answers without leaving the host.
const (
	urgent  = 250 * time.Millisecond // for what leaves two minutes
	regular = 500 * time.Millisecond // for the rest

	askTimeout = time.Second
)

// NewInterruptions watches for announcements until the returned function is
// called.
func NewInterruptions(ctx context.Context, m *Metadata, cfg InterruptionConfig, log *slog.Logger) (*Interruptions, func()) {
	if cfg.ScaleIn <= 0 {
		cfg.ScaleIn = 2 * time.Minute
	}
	i := &Interruptions{watches: []*watch{
		newWatch("spot/instance-action", urgent, spotInterruption),
		newWatch("events/maintenance/scheduled", regular, scheduledEvent),
		newWatch("autoscaling/target-lifecycle-state", regular, scaleIn(cfg.ScaleIn)),
	}}
	if cfg.Rebalance {
		i.watches = append(i.watches, newWatch("events/recommendations/rebalance", regular, rebalance))
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for _, w := range i.watches {
		wg.Go(func() { w.poll(ctx, m, log) })
	}
	return i, func() {
		cancel()
		wg.Wait()
	}
}

// Sources returns the sources.
func (i *Interruptions) Sources() []interrupt.Source {
	sources := make([]interrupt.Source, len(i.watches))
	for n, w := range i.watches {
		sources[n] = w
	}
	return sources
}

// watch is one kind of announcements.
type watch struct {
	path    string
	every   time.Duration
	parse   parser
	notices chan interrupt.Notice // the latest one that nobody has waited for
}

// parser returns the notice in a document of metadata; ok is false if there is
// none in it.
type parser func(document string, now time.Time) (n interrupt.Notice, ok bool, err error)

func newWatch(path string, every time.Duration, parse parser) *watch {
	return &watch{path, every, parse, make(chan interrupt.Notice, 1)}
}

// Wait implements interrupt.Source.
func (w *watch) Wait(ctx context.Context) (interrupt.Notice, error) {
	select {
	case n := <-w.notices:
		return n, nil
	case <-ctx.Done():
		return interrupt.Notice{}, ctx.Err()
	}
}

// poll asks until ctx is done, and announces what is new and not less urgent
// than before.
func (w *watch) poll(ctx context.Context, m *Metadata, log *slog.Logger) {
	var last interrupt.Notice
	failing := false
	_ = poll.Until(ctx, w.every, func(ctx context.Context) bool { // it ends with ctx alone
		n, ok, err := w.ask(ctx, m)
		switch {
		case ctx.Err() != nil:
			return true
		case err != nil:
			if !failing {
				log.WarnContext(ctx, "instance metadata cannot be read", slog.Any("error", err))
			}
		case ok && (n.Cause != last.Cause || n.Deadline.Before(last.Deadline)):
			last = n
			w.announce(n)
		}
		failing = err != nil
		return false
	})
}

// ask makes one attempt: the next one is soon.
func (w *watch) ask(ctx context.Context, m *Metadata) (n interrupt.Notice, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	document, err := m.get(ctx, w.path, func(o *imds.Options) { o.Retryer = aws.NopRetryer{} })
	if errors.Is(err, errAbsent) {
		return n, false, nil
	}
	if err != nil {
		return n, false, err
	}
	if n, ok, err = w.parse(document, time.Now()); err != nil {
		err = fmt.Errorf("instance metadata: %s: %w", w.path, err)
	}
	return n, ok, err
}

// announce puts n where Wait finds it, in the place of what nobody waited for.
func (w *watch) announce(n interrupt.Notice) {
	select {
	case <-w.notices:
	default:
	}
	w.notices <- n
}

// spotInterruption reads when EC2 takes a spot instance back.
func spotInterruption(document string, _ time.Time) (n interrupt.Notice, ok bool, err error) {
	var d struct {
		Action string    `json:"action"`
		Time   time.Time `json:"time"`
	}
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		return n, false, err
	}
	return interrupt.Notice{Cause: "spot interruption: " + d.Action, Deadline: d.Time}, true, nil
}

// rebalance reads whether a spot instance should be replaced.
func rebalance(string, time.Time) (interrupt.Notice, bool, error) {
	return interrupt.Notice{Cause: "rebalance recommendation"}, true, nil
}

// eventTime is how the service writes when events are.
const eventTime = "2 Jan 2006 15:04:05 GMT"

// scheduledEvent reads the first event that EC2 has scheduled.
func scheduledEvent(document string, _ time.Time) (n interrupt.Notice, ok bool, err error) {
	var events []struct {
		Code      string
		State     string
		NotBefore string
	}
	if err := json.Unmarshal([]byte(document), &events); err != nil {
		return n, false, err
	}
	for _, e := range events {
		if e.State != "" && e.State != "active" {
			continue // it is completed or canceled
		}
		at, err := time.Parse(eventTime, e.NotBefore)
		if err != nil {
			return interrupt.Notice{}, false, fmt.Errorf("event %q: %w", e.Code, err)
		}
		if !ok || at.Before(n.Deadline) {
			n, ok = interrupt.Notice{Cause: "scheduled event: " + e.Code, Deadline: at}, true
		}
	}
	return n, ok, nil
}

// scaleIn reads whether an auto-scaling group terminates the machine, or stops
// or hibernates it for later, which it does after the grace.
func scaleIn(grace time.Duration) parser {
	return func(document string, now time.Time) (n interrupt.Notice, ok bool, err error) {
		state := strings.TrimSpace(document)
		switch _, last, warm := strings.Cut(state, ":"); {
		case state == "Terminated", warm && (last == "Terminated" || last == "Stopped" || last == "Hibernated"):
			return interrupt.Notice{Cause: "auto-scaling: " + state, Deadline: now.Add(grace)}, true, nil
		default:
			return n, false, nil
		}
	}
}
