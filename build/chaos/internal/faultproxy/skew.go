package faultproxy

import (
	"regexp"
	"time"
)

// takenUntil is the end of a lease in an answer.
var takenUntil = regexp.MustCompile(`("takenUntil":\s*")([^"]+)(")`)

// skewed returns an answer as it looks to a worker whose clock differs: leases
// end sooner or later than they do. What is signed cannot be changed, and no
// worker looks at it.
func (p *Proxy) skewed(body []byte) []byte {
	p.mu.Lock()
	skew := p.skew
	p.mu.Unlock()
	return takenUntil.ReplaceAllFunc(body, func(found []byte) []byte {
		m := takenUntil.FindSubmatch(found)
		at, err := time.Parse(time.RFC3339Nano, string(m[2]))
		if err != nil {
			return found
		}
		return []byte(string(m[1]) + at.Add(skew).UTC().Format("2006-01-02T15:04:05.000Z") + string(m[3]))
	})
}
