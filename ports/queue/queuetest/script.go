package queuetest

import (
	"context"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Op is a method of the queue port.
type Op string

// The methods whose calls are recorded and can be scripted.
const (
	Claim   Op = "Claim"
	Reclaim Op = "Reclaim"
	Check   Op = "Check"
	Resolve Op = "Resolve"
)

// Call is one call of a method of the queue port.
type Call struct {
	Op         Op
	Time       time.Time      // when it was made
	N          int            // of Claim
	Run        task.RunID     // of the others
	Resolution run.Resolution // of Resolve
}

// Reply scripts one call. The zero Reply leaves it as it is.
type Reply struct {
	// Delay is how long the call takes. Canceling the call's context ends it,
	// with the context's error, unless the call is Applied.
	Delay time.Duration

	// Err is returned instead of the call's own result, if it is not nil.
	Err error

	// Applied has the call take effect before Delay, and even if Err is
	// returned, as when the queue's answer is slow or lost. The claims that an
	// Applied Claim grants are returned, or lost with an Err, but never for
	// the context.
	Applied bool
}

// Script has the next calls of op go as replies say, one by one. Later calls go
// as if nothing had been scripted. It replaces what was scripted before.
func (m *Memory) Script(op Op, replies ...Reply) {
	m.On(op, func(Call) Reply {
		if len(replies) == 0 {
			return Reply{}
		}
		next := replies[0]
		replies = replies[1:]
		return next
	})
}

// On has f decide how each call of op goes, until it is replaced. f is not
// called concurrently and must not use m. A nil f restores the ordinary.
func (m *Memory) On(op Op, f func(Call) Reply) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.scripts == nil {
		m.scripts = make(map[Op]func(Call) Reply)
	}
	m.scripts[op] = f
}

// Calls returns the calls that were made of ops, or of all methods, in order.
func (m *Memory) Calls(ops ...Op) []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	var calls []Call
	for _, c := range m.calls {
		match := len(ops) == 0
		for _, op := range ops {
			match = match || op == c.Op
		}
		if match {
			calls = append(calls, c)
		}
	}
	return calls
}

// begin records a call and returns how it is to go.
func (m *Memory) begin(c Call) Reply {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.Time = time.Now()
	m.calls = append(m.calls, c)
	if f := m.scripts[c.Op]; f != nil {
		return f(c)
	}
	return Reply{}
}

// play has effect happen as r says.
func (r Reply) play(ctx context.Context, effect func() error) error {
	if r.Applied {
		err := effect()
		// The delay ends by itself: the call has already taken effect.
		_ = wait(context.WithoutCancel(ctx), r.Delay)
		if r.Err != nil {
			return r.Err
		}
		return err
	}
	if err := wait(ctx, r.Delay); err != nil {
		return err
	}
	if r.Err != nil {
		return r.Err
	}
	return effect()
}

// wait returns nil after d, or the error of ctx if that is done before.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
