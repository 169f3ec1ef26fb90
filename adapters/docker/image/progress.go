package image

import (
	"io"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

const progressEvery = 5 * time.Second

// progress tells a task log now and then how far a transfer is, which may have
// several parts.
type progress struct {
	log   *tasklog.Log
	verb  string              // such as Pulled
	parts map[string][2]int64 // bytes that are there, and of all
	next  time.Time
}

func newProgress(log *tasklog.Log, verb string) *progress {
	return &progress{log: log, verb: verb, parts: map[string][2]int64{}, next: time.Now().Add(progressEvery)}
}

// note notes how much of a part is there. total is 0 or less where it is not
// known.
func (p *progress) note(part string, current, total int64) {
	p.parts[part] = [2]int64{current, max(total, 0)}
	if time.Now().Before(p.next) {
		return
	}
	p.next = time.Now().Add(progressEvery)
	var there, all int64
	for _, b := range p.parts {
		there, all = there+b[0], all+b[1]
	}
	if all == 0 {
		p.log.Infof("[docker] %s %d MB", p.verb, there/1e6)
		return
	}
	p.log.Infof("[docker] %s %d of %d MB", p.verb, there/1e6, all/1e6)
}

// counted is content that tells how much of it was read.
type counted struct {
	io.Reader
	read, size int64
	progress   *progress
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += int64(n)
	c.progress.note("", c.read, c.size)
	return n, err
}
