package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestRoomIsAwaited(t *testing.T) {
	full := fmt.Errorf("make a transcript: %w", syscall.ENOSPC)
	other := errors.New("another one")
	for _, tt := range []struct {
		name  string
		fails []error // one for each call
		want  error
		calls int
	}{
		{"a disk with room", []error{nil}, nil, 1},
		{"a disk that gets room", []error{full, full, nil}, nil, 3},
		{"another error", []error{full, other, nil}, other, 2},
		{"a disk that stays full", []error{full, full, full, full, full, full, full, full, full, full, full, full}, full, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &Engine{log: slog.New(slog.DiscardHandler)}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				calls := 0
				err := e.awaitRoom(ctx, func() error {
					calls++
					return tt.fails[calls-1]
				})
				if !errors.Is(err, tt.want) || tt.calls > 0 && calls != tt.calls {
					t.Errorf("got %v after %d calls, want %v", err, calls, tt.want)
				}
			})
		})
	}
}
