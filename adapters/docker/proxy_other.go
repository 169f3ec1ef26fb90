//go:build !linux

package docker

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
)

// proxies are served inside the network of a container, which only Linux lets
// the worker enter.
type proxies struct{}

func serveProxies(int, map[string]http.Handler, *slog.Logger) (*proxies, error) {
	return nil, fmt.Errorf("serve proxies: %w", errors.ErrUnsupported)
}

func (p *proxies) close() {}
