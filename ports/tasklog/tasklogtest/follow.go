package tasklogtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func followsFromTheFirstByte(ctx context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		if err := write(r, "early\n"); err != nil {
			return err
		}
		return follow(ctx, r, func(late *reader) error {
			if err := late.expect(ctx, "early\n"); err != nil {
				return err
			}
			if err := write(r, "later\n"); err != nil {
				return err
			}
			return late.expect(ctx, "later\n")
		})
	})
}

func followsToTheSeal(ctx context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		return follow(ctx, r, func(f *reader) error {
			err := errors.Join(write(r, "one\n", "two\n"), f.expect(ctx, "one\ntwo\n"), write(r, "tail"), r.Seal())
			if err != nil {
				return err
			}
			return errors.Join(f.expect(ctx, "tail"), f.expectEnd(ctx, io.EOF))
		})
	})
}

func followsWhatIsSealed(ctx context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		if err := errors.Join(write(r, "all"), r.Seal()); err != nil {
			return err
		}
		return follow(ctx, r, func(f *reader) error {
			return errors.Join(f.expect(ctx, "all"), f.expectEnd(ctx, io.EOF))
		})
	})
}

func stopsFollowingWithContext(ctx context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		following, cancel := context.WithCancel(ctx)
		defer cancel()
		return follow(following, r, func(f *reader) error {
			if err := errors.Join(write(r, "one"), f.expect(ctx, "one")); err != nil {
				return err
			}
			cancel()
			return f.expectEnd(ctx, context.Canceled)
		})
	})
}

// The reader that stalls is never read from, and there is more to write than
// any buffer takes.
func stalledReaderHoldsUpNobody(ctx context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		stalled, err := r.Follow(ctx)
		if err != nil {
			return err
		}
		const n = 64
		chunk := string(bytes.Repeat([]byte("x"), 64<<10))
		written := make(chan error, 1)
		go func() {
			var errs error
			for range n {
				errs = errors.Join(errs, write(r, chunk))
			}
			written <- errors.Join(errs, r.Seal())
		}()
		select {
		case err = <-written:
		case <-ctx.Done():
			return errors.Join(errors.New("a reader that stalls holds up Write"), stalled.Close())
		}
		got, readErr := io.Copy(io.Discard, stalled)
		if err := errors.Join(err, readErr, stalled.Close()); err != nil {
			return err
		}
		if want := int64(n * len(chunk)); got != want {
			return fmt.Errorf("the reader that stalled got %d bytes in the end, want %d", got, want)
		}
		return nil
	})
}

func closeEndsFollowers(ctx context.Context, rec tasklog.Recorder) error {
	return record(rec, runA, func(r tasklog.Recording) error {
		return follow(ctx, r, func(f *reader) error {
			if err := errors.Join(write(r, "one"), f.expect(ctx, "one"), r.Close()); err != nil {
				return err
			}
			return f.expectEnd(ctx, nil)
		})
	})
}

// follow has f read what r yields, and closes the reader.
func follow(ctx context.Context, r tasklog.Recording, f func(*reader) error) (err error) {
	from, err := r.Follow(ctx)
	if err != nil {
		return fmt.Errorf("follow: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	return f(&reader{from})
}

// reader reads from a follower, which may never return.
type reader struct{ from io.Reader }

type read struct {
	text string
	err  error
}

func (r *reader) read(ctx context.Context, n int) (read, error) {
	done := make(chan read, 1)
	go func() {
		p := make([]byte, n)
		n, err := io.ReadFull(r.from, p)
		done <- read{string(p[:n]), err}
	}()
	select {
	case got := <-done:
		return got, nil
	case <-ctx.Done():
		return read{}, errors.New("a Read of a follower hangs")
	}
}

func (r *reader) expect(ctx context.Context, want string) error {
	got, err := r.read(ctx, len(want))
	if err != nil {
		return err
	}
	if got.text != want || got.err != nil {
		return fmt.Errorf("follower yields %q and %w, want %q", got.text, orNone(got.err), want)
	}
	return nil
}

// expectEnd expects the next Read to end with want, or with any error if want
// is nil.
func (r *reader) expectEnd(ctx context.Context, want error) error {
	got, err := r.read(ctx, 1)
	if err != nil {
		return err
	}
	if got.text != "" || got.err == nil || want != nil && !errors.Is(got.err, want) {
		return fmt.Errorf("follower ends with %q and %w, want %w", got.text, orNone(got.err), orNone(want))
	}
	return nil
}

// orNone returns err, or in its place an error that can be printed.
func orNone(err error) error {
	if err == nil {
		return errors.New("no error in particular")
	}
	return err
}
