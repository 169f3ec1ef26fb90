// Package systemd is how a service speaks to systemd, where systemd has started
// it: of its state, and in its journal.
package systemd

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// States that a service tells, as in sd_notify(3).
const (
	Ready = "READY=1" // it has started
	alive = "WATCHDOG=1"
)

// Notify tells systemd a state. It does nothing for a process that systemd does
// not listen to.
func Notify(ctx context.Context, state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // a name that is in no directory
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", path)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// KeepAlive tells systemd that the service lives, twice as often as its watchdog
// demands, until the returned function is called. Without a watchdog it does
// nothing.
func KeepAlive(ctx context.Context) (stop func()) {
	every := watchdog() / 2
	if every <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			// If systemd does not hear of it, its watchdog says so.
			_ = Notify(ctx, alive)
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// watchdog returns after what time of silence systemd kills this process; zero
// for never.
func watchdog() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}
