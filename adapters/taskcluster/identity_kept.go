package taskcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/identity"
)

// kept is a registration as it is kept for the next process. It is of no use to
// another worker, or to one that works for another deployment.
type kept struct {
	RootURL      string
	ProviderID   string
	Worker       identity.Worker
	Registration Registration
}

// keep writes down what the next process needs for being the same worker. A
// worker that cannot goes on: it is the next one that will be missed.
func (i *Identity) keep(ctx context.Context, r Registration) {
	if i.cfg.File == "" {
		return
	}
	content, err := json.Marshal(kept{i.c.cfg.RootURL, i.cfg.ProviderID, i.Worker(), r})
	if err == nil {
		err = replaceFile(i.cfg.File, content)
	}
	if err != nil {
		i.log.ErrorContext(ctx, "registration cannot be kept for the next process", slog.Any("error", err))
	}
}

// recall returns the registration that an earlier process has kept, if it is this
// worker's and has not expired.
func (i *Identity) recall(ctx context.Context) (r Registration, ok bool) {
	if i.cfg.File == "" {
		return r, false
	}
	content, err := os.ReadFile(i.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(content, &k)
	}
	if err != nil {
		i.log.WarnContext(ctx, "registration of the last process cannot be read", slog.Any("error", err))
		return r, false
	}
	if k.RootURL != i.c.cfg.RootURL || k.ProviderID != i.cfg.ProviderID || k.Worker != i.Worker() {
		return r, false
	}
	r = k.Registration
	return r, r.Expires.IsZero() || time.Until(r.Expires) > 0
}

// forget removes the registration of a worker that is no more.
func (i *Identity) forget() error {
	if i.cfg.File == "" {
		return nil
	}
	if err := os.Remove(i.cfg.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget registration: %w", err)
	}
	return nil
}

// unfinished is the suffix of a file that is being written. It is always the same,
// so that a process that was killed meanwhile leaves nothing for long.
const unfinished = ".new"

// replaceFile has a file, which its owner alone can read, have a new content,
// whenever the machine crashes.
func replaceFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name+unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
