package queue

import (
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/lifecycle"
)

// satisfies reports whether a task in the given state is what another one that
// requires so much waits for.
func satisfies(state lifecycle.State, requires string) bool {
	return state == lifecycle.Completed || requires == "all-resolved" && state.Resolved()
}

// depend records what a new task waits for, and reports whether it has to wait.
func (c *change) depend(t *entry) (blocked bool, err error) {
	d := &t.definition
	var missing, expiring []string
	for _, required := range d.Dependencies {
		other, known, err := definitions.Get(c.Tx, required)
		if err != nil {
			return false, err
		}
		switch {
		case !known:
			missing = append(missing, " * "+required)
			continue
		case d.Deadline.After(other.Expires.Time):
			expiring = append(expiring, " * "+required+",")
			continue
		}
		status, _, err := statuses.Get(c.Tx, required)
		if err != nil {
			return false, err
		}
		satisfied := satisfies(status.State(), d.Requires)
		blocked = blocked || !satisfied
		if err := dependents.Put(c.Tx, required+"/"+t.id, dependency{d.Requires, satisfied}); err != nil {
			return false, err
		}
	}
	var complaint strings.Builder
	if len(missing) > 0 {
		complaint.WriteString("`task.dependencies` references non-existing tasks: \n" + strings.Join(missing, "\n") +
			"\nAll taskIds in `task.dependencies` **must** exist\nbefore the task is created.\n")
	}
	if len(expiring) > 0 {
		complaint.WriteString("`task.dependencies` references tasks that expires\nbefore `task.deadline` this is not allowed, see tasks: \n" +
			strings.Join(expiring, "\n") + "\nAll taskIds in `task.dependencies` **must** have\n`task.expires` greater than the `deadline` for this task.\n")
	}
	if complaint.Len() > 0 {
		return false, api.InputError("%s", complaint.String())
	}
	return blocked, nil
}

// settle stores a task and, if it is resolved, tells those who waited for it.
func (q *Queue) settle(c *change, t *entry, now time.Time) error {
	if err := c.put(t); err != nil {
		return err
	}
	state := t.status.State()
	if !state.Resolved() {
		return nil
	}
	if state == lifecycle.Completed && q.Completed != nil {
		if err := q.Completed(c.Tx, t.id, t.definition); err != nil {
			return err
		}
	}
	waiting := map[string]dependency{}
	err := dependents.Each(c.Tx, t.id+"/", "", func(key string, d dependency) (bool, error) {
		if !d.Satisfied && satisfies(state, d.Requires) {
			waiting[key] = d
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for key, d := range waiting {
		if err := dependents.Put(c.Tx, key, dependency{d.Requires, true}); err != nil {
			return err
		}
		if err := c.release(strings.TrimPrefix(key, t.id+"/"), now); err != nil {
			return err
		}
	}
	return nil
}

// release schedules a task if nothing blocks it any more.
func (c *change) release(taskID string, now time.Time) error {
	t, err := load(c.Tx, taskID)
	if err != nil {
		return err
	}
	if t.definition.Deadline.Before(now) {
		return nil
	}
	for _, required := range t.definition.Dependencies {
		d, _, err := dependents.Get(c.Tx, required+"/"+taskID)
		if err != nil || !d.Satisfied {
			return err
		}
	}
	var changed bool
	if t.status, changed = t.status.Schedule(now); !changed {
		return nil
	}
	return c.put(t)
}
