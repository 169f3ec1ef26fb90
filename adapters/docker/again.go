package docker

import (
	"errors"
	"io"
	"time"

	"github.com/moby/moby/client"
)

// again has the daemon asked until it did not go away amid its answer, for a
// while: what it was asked for changes nothing, and is not the task's to lack.
func (e *Engine) again(ask func() error) error {
	giveUp := time.Now().Add(startPatience)
	for {
		err := ask()
		if err == nil || !wentAway(err) || e.ctx.Err() != nil || time.Now().After(giveUp) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-e.ctx.Done():
		}
	}
}

// wentAway reports whether the daemon did not answer, or not to the end.
func wentAway(err error) bool {
	return client.IsErrConnectionFailed(err) || errors.Is(err, io.ErrUnexpectedEOF)
}
