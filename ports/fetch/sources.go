package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// Sources is a [Source] made of several: the first that knows such references
// resolves them.
type Sources []Source

// Resolve implements Source.
func (s Sources) Resolve(ctx context.Context, r Reference, credentials func() task.Credentials) (Content, error) {
	for _, source := range s {
		c, err := source.Resolve(ctx, r, credentials)
		if !errors.Is(err, errors.ErrUnsupported) {
			return c, err
		}
	}
	return Content{}, fmt.Errorf("fetch %s: %w", r, errors.ErrUnsupported)
}
