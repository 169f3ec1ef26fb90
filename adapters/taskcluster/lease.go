package taskcluster

import (
	"net/http"
	"time"
)

// reading is what the clocks of a service and of this host said at once, but for
// the time that the answer with the former took.
type reading struct {
	service time.Time // to the second; zero if it did not say
	host    time.Time
	took    time.Duration // the answer, from the request on, at most
}

// readClocks returns the reading that comes with an answer to what was asked.
func readClocks(resp *http.Response, asked time.Time) reading {
	now := time.Now()
	r := reading{host: now, took: now.Sub(asked)}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		r.service = date
	}
	return r
}

// greatestDelay is the greatest difference of clocks that is no matter of how they
// are set.
const greatestDelay = 5 * time.Second

// lasting returns a time of the service's clock as one of this host's. It goes by
// the time that passes from then on, whatever becomes of the host's clock: a
// clock that is set anew neither ends leases nor has them go on.
func (r reading) lasting(until time.Time) time.Time {
	end := r.host.Add(until.Sub(r.host))
	ahead := r.host.Sub(r.service)
	if ahead > 0 {
		// The answer may have lain unread, as where the process was stopped.
		ahead = max(0, ahead-r.took)
	}
	if !r.service.IsZero() && ahead.Abs() > greatestDelay {
		end = end.Add(ahead - time.Second) // the service may be further in its second
	}
	return end
}
