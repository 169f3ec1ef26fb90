// Package devqueue is a Taskcluster deployment in one process, for development
// and tests: a server on loopback that speaks the HTTP APIs of Taskcluster's
// services at v44, so that workers and tools work against it as they do
// against any other deployment.
//
// It serves queue, index, purge-cache, secrets, auth, object and the workers'
// calls of worker-manager. It checks Hawk signatures, temporary credentials
// and scopes. All of its state is in one directory and survives the process.
package devqueue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/authapi"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/content"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/index"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/object"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/purgecache"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/queue"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/secrets"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/workermanager"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// RootClient is the id of the client that may do everything.
const RootClient = "root"

// Config says how to run a deployment. Only Dir is required.
type Config struct {
	// Dir holds the state: a database and the contents of artifacts. It is made
	// if it is missing. One process at a time can use it.
	Dir string
	// Listen is the TCP address to serve at, "127.0.0.1:0" if empty. Port 0
	// stands for any that is free.
	Listen string
	// RootURL is how clients reach the server, "http://<address>" if empty.
	RootURL string
	// ClaimTimeout is how long a claim lasts, 20 minutes if zero.
	ClaimTimeout time.Duration
	// PollTimeout is how long claimWork waits for a task, 20 seconds if zero.
	PollTimeout time.Duration
	// Clients are clients besides those that are created through the API. One
	// with the id RootClient replaces the one that may do everything.
	Clients []Client
	// Roles are the scopes of roles, besides those that are created through the
	// API. Unless it has "anonymous", anybody may read all but secrets and
	// private artifacts.
	Roles map[string][]string
	// TunnelSecret signs the tokens for web socket tunnels. It is made up if
	// empty.
	TunnelSecret string
}

// Client is a permanent client.
type Client struct {
	ClientID    string
	AccessToken string
	Scopes      []string
}

// Server is a deployment that is up.
type Server struct {
	rootURL string
	root    task.Credentials
}

// RootURL returns the root URL for clients.
func (s *Server) RootURL() string { return s.rootURL }

// Credentials returns those of RootClient.
func (s *Server) Credentials() task.Credentials { return s.root }

// Open starts a deployment with the state in cfg.Dir. It is listening when Open
// returns, and until the returned function is called, which waits for the
// calls in flight and cuts those short that wait for a task. It outlives ctx.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (server *Server, shut func(), err error) {
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for _, closer := range slices.Backward(closers) {
			errs = append(errs, closer())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open devqueue: %w", err), closeAll())
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make directory: %w", err)
	}
	db, err := store.Open(filepath.Join(cfg.Dir, "devqueue.db"))
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, db.Close)
	keys, err := loadKeys(db)
	if err != nil {
		return nil, nil, err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", orDefault(cfg.Listen, "127.0.0.1:0"))
	if err != nil {
		return nil, nil, err
	}
	// Whoever serves the listener closes it too, and twice is not an error here.
	closers = append(closers, func() error { _ = listener.Close(); return nil })
	server = &Server{rootURL: orDefault(cfg.RootURL, "http://"+listener.Addr().String())}

	clients := map[string]auth.Client{RootClient: {AccessToken: keys.Root, Scopes: task.Scopes{"*"}}}
	for _, c := range cfg.Clients {
		clients[c.ClientID] = auth.Client{AccessToken: c.AccessToken, Scopes: c.Scopes}
	}
	server.root = task.Credentials{ClientID: RootClient, AccessToken: clients[RootClient].AccessToken}
	contents, err := content.Open(filepath.Join(cfg.Dir, "artifacts"), db, server.rootURL, keys.URLs)
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, contents.Close)
	directory := authapi.NewDirectory(db, clients, roles(cfg.Roles))
	authority := auth.New(directory, keys.Certificates)
	objects := object.New(db, contents)
	tasks, err := queue.New(queue.Config{
		DB: db, Authority: authority, Contents: contents, Objects: objects, Completed: indexed, Log: log,
		ClaimTimeout: orDefault(cfg.ClaimTimeout, 20*time.Minute), PollTimeout: orDefault(cfg.PollTimeout, 20*time.Second),
	})
	if err != nil {
		return nil, nil, err
	}
	apis := api.NewHandler(
		authority, log, tasks.API(), index.New(db).API(), purgecache.New(db).API(), secrets.New(db).API(), objects.API(),
		authapi.New(directory, authority, orDefault(cfg.TunnelSecret, keys.Tunnels)).API(), workermanager.New(db, authority).API(),
	)
	closers = append(closers, serve(ctx, listener, route(contents, apis), tasks.Run, log))
	log.InfoContext(ctx, "devqueue is listening", slog.String("rootURL", server.rootURL))
	return server, func() {
		if err := closeAll(); err != nil {
			log.ErrorContext(ctx, "close devqueue", slog.String("error", err.Error()))
		}
	}, nil
}

// orDefault returns value, or fallback if it is zero.
func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// indexed puts a completed task where its routes say.
func indexed(tx *store.Tx, taskID string, d queue.Definition) error {
	for _, r := range d.Routes {
		if err := index.Route(tx, r, taskID, d.Extra, d.Expires); err != nil {
			return fmt.Errorf("index task: %w", err)
		}
	}
	return nil
}

// roles returns the configured roles. Unless they say otherwise, anybody may
// look at everything but secrets and private artifacts.
func roles(configured map[string][]string) auth.Roles {
	all := auth.Roles{"anonymous": {
		"auth:current-scopes",
		"auth:expand-scopes",
		"index:find-task:*",
		"index:list-namespaces:*",
		"index:list-tasks:*",
		"purge-cache:all-purge-requests",
		"purge-cache:purge-requests:*",
		"queue:get-artifact:public/*",
		"queue:get-task-queue:*",
		"queue:get-task:*",
		"queue:get-worker:*",
		"queue:list-artifacts:*",
		"queue:list-dependent-tasks:*",
		"queue:list-task-group:*",
		"queue:list-task-queues",
		"queue:list-workers:*",
		"queue:pending-count:*",
		"queue:status:*",
	}}
	for id, scopes := range configured {
		all[id] = scopes
	}
	return all
}
