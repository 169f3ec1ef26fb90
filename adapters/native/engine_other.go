//go:build !linux

package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// New returns an error: there is no native engine for this operating system.
func New(context.Context, Config, *slog.Logger) (engine.Engine, func(), error) {
	return nil, nil, fmt.Errorf("native engine on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
