package taskcluster

import (
	"net/http"
	"time"
)

// reading is what the clocks of a service and of this host said at once.
type reading struct {
	service time.Time // to the second; zero if it did not say
	host    time.Time
}

// readClocks returns the reading that comes with an answer.
func readClocks(resp *http.Response) reading {
	r := reading{host: time.Now()}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		r.service = date
	}
	return r
}

// greatestDelay is the greatest difference of clocks that is taken for the time
// that an answer took.
const greatestDelay = 5 * time.Second

// lasting returns a time of the service's clock as one of this host's. It goes by
// the time that passes from then on, whatever becomes of the host's clock: a
// clock that is set anew neither ends leases nor has them go on.
func (r reading) lasting(until time.Time) time.Time {
	end := r.host.Add(until.Sub(r.host))
	if ahead := r.host.Sub(r.service); !r.service.IsZero() && ahead.Abs() > greatestDelay {
		end = end.Add(ahead - time.Second) // the service may be further in its second
	}
	return end
}
