package docker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

func TestDaemonThatGoesAwayWhileFilesAreRead(t *testing.T) {
	away := fmt.Errorf("read archive: %w", io.ErrUnexpectedEOF)
	for _, tt := range []struct {
		name  string
		fails int
		err   error
		want  error
		calls int // 0 if it does not matter
	}{
		{"not at all", 0, nil, nil, 1},
		{"for a moment", 3, away, nil, 4},
		{"for good", 1 << 30, away, io.ErrUnexpectedEOF, 0},
		{"not at all, and there is no file", 1, fs.ErrNotExist, fs.ErrNotExist, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &Engine{ctx: t.Context()}
				calls, start := 0, time.Now()
				err := e.again(func() error {
					if calls++; calls <= tt.fails {
						return tt.err
					}
					return nil
				})
				if !errors.Is(err, tt.want) || tt.calls > 0 && calls != tt.calls || time.Since(start) > 2*startPatience {
					t.Errorf("got %v after %d calls and %v", err, calls, time.Since(start))
				}
			})
		})
	}
}
