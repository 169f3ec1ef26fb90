// Package index is Taskcluster's index service: names for tasks, in a
// hierarchy separated by dots.
package index

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// entry is a task in the index.
type entry struct {
	TaskID  string          `json:"taskId"`
	Rank    float64         `json:"rank"`
	Data    json.RawMessage `json:"data"`
	Expires api.Time        `json:"expires"`
}

// namespace is a place that holds tasks or other namespaces.
type namespace struct {
	Expires api.Time `json:"expires"`
}

// Keys are "<parent>\x00<name>", so that the children of a namespace, and not
// its grandchildren, follow one another.
const (
	tasks      store.Bucket[entry]     = "index-task"
	namespaces store.Bucket[namespace] = "index-namespace"
)

// Service is the service.
type Service struct{ db *store.DB }

// New returns the service over the entries in db.
func New(db *store.DB) *Service { return &Service{db} }

// API returns the endpoints of the service.
func (s *Service) API() api.Service {
	path := regexp.MustCompile(`^([a-zA-Z0-9_!~*'()%-]+\.)*[a-zA-Z0-9_!~*'()%-]+$`)
	list := func(name, route string, scope api.Scope, serve func(context.Context, *api.Call) (any, error)) []api.Endpoint {
		return []api.Endpoint{
			{Name: name, Method: "GET", Route: route + "/<namespace>", Scopes: scope, Serve: serve},
			{Name: name, Method: "GET", Route: route, Scopes: scope, Serve: serve},
			{Name: name, Method: "GET", Route: route + "/", Scopes: scope, Serve: serve},
		}
	}
	endpoints := []api.Endpoint{
		{Name: "findTask", Method: "GET", Route: "/task/<indexPath>", Scopes: api.Scope("index:find-task:<indexPath>"), Serve: s.findTask},
		{Name: "insertTask", Method: "PUT", Route: "/task/<namespace>", Scopes: api.Scope("index:insert-task:<namespace>"), Input: "index/task", Serve: s.insertTask},
		{Name: "deleteTask", Method: "DELETE", Route: "/task/<namespace>", Scopes: api.Scope("index:delete-task:<namespace>"), Serve: s.deleteTask},
		{Name: "findArtifactFromTask", Method: "GET", Route: "/task/<indexPath>/artifacts/<name*>", Scopes: api.Scope("queue:get-artifact:<name>"), Serve: s.findArtifact},
	}
	endpoints = append(endpoints, list("listNamespaces", "/namespaces", "index:list-namespaces:<namespace>", s.listNamespaces)...)
	endpoints = append(endpoints, list("listTasks", "/tasks", "index:list-tasks:<namespace>", s.listTasks)...)
	return api.Service{Name: "index", Endpoints: endpoints, Params: map[string]*regexp.Regexp{"indexPath": path, "namespace": path}}
}

// split returns the parent of a path and the name in it.
func split(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// join is the opposite of split.
func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

func key(path string) string {
	parent, name := split(path)
	return parent + "\x00" + name
}

// Insert puts a task at a path, unless one of a higher rank is there. It
// returns what is there afterwards.
func Insert(tx *store.Tx, path, taskID string, rank float64, data json.RawMessage, expires api.Time) (json.RawMessage, error) {
	e := entry{taskID, rank, data, expires}
	old, known, err := tasks.Get(tx, key(path))
	switch {
	case err != nil:
		return nil, err
	case known && old.Rank > rank && old.Expires.After(time.Now()):
		return json.Marshal(e.view(path, old))
	}
	if err := tasks.Put(tx, key(path), e); err != nil {
		return nil, err
	}
	for parent, _ := split(path); parent != ""; parent, _ = split(parent) {
		n, _, err := namespaces.Get(tx, key(parent))
		if err != nil {
			return nil, err
		}
		if n.Expires.Before(expires.Time) {
			if err := namespaces.Put(tx, key(parent), namespace{expires}); err != nil {
				return nil, err
			}
		}
	}
	return json.Marshal(e.view(path, e))
}

// view is an entry as the service answers it.
func (entry) view(path string, e entry) map[string]any {
	return map[string]any{"namespace": path, "taskId": e.TaskID, "rank": e.Rank, "data": e.Data, "expires": e.Expires}
}

// Route puts a completed task at the path that a route of it names, if it is
// one for the index: "index.<path>". What the task says in extra.index holds.
func Route(tx *store.Tx, route, taskID string, extra json.RawMessage, taskExpires api.Time) error {
	path, ok := strings.CutPrefix(route, "index.")
	if !ok {
		return nil
	}
	options := struct {
		Index struct {
			Rank    float64         `json:"rank"`
			Data    json.RawMessage `json:"data"`
			Expires api.Time        `json:"expires"`
		} `json:"index"`
	}{}
	options.Index.Data, options.Index.Expires = json.RawMessage("{}"), taskExpires
	if err := json.Unmarshal(extra, &options); err != nil {
		// The task is completed all the same; it just is not indexed.
		return nil //nolint:nilerr // What is wrong with extra.index is the author's to find.
	}
	_, err := Insert(tx, path, taskID, options.Index.Rank, options.Index.Data, options.Index.Expires)
	return err
}

// find returns the task at a path, or an api.NotFound.
func (s *Service) find(path string) (e entry, err error) {
	err = s.db.View(func(tx *store.Tx) error {
		var known bool
		e, known, err = tasks.Get(tx, key(path))
		if err == nil && (!known || e.Expires.Before(time.Now())) {
			err = api.NotFound("Indexed task not found")
		}
		return err
	})
	return e, err
}

func (s *Service) findTask(_ context.Context, c *api.Call) (any, error) {
	path := c.Params["indexPath"]
	e, err := s.find(path)
	if err != nil {
		return nil, err
	}
	return e.view(path, e), nil
}

func (s *Service) findArtifact(_ context.Context, c *api.Call) (any, error) {
	e, err := s.find(c.Params["indexPath"])
	if err != nil {
		return nil, err
	}
	location := url.URL{Scheme: "http", Host: c.Request.Host}
	return api.Reply{Status: 303, Header: map[string]string{
		"Location": fmt.Sprintf("%s/api/queue/v1/task/%s/artifacts/%s", location.String(), e.TaskID, url.PathEscape(c.Params["name"])),
	}}, nil
}

func (s *Service) insertTask(_ context.Context, c *api.Call) (answer any, err error) {
	var e entry
	if err := c.Decode(&e); err != nil {
		return nil, err
	}
	err = s.db.Update(func(tx *store.Tx) error {
		answer, err = Insert(tx, c.Params["namespace"], e.TaskID, e.Rank, e.Data, e.Expires)
		return err
	})
	return answer, err
}

func (s *Service) deleteTask(_ context.Context, c *api.Call) (any, error) {
	return nil, s.db.Update(func(tx *store.Tx) error { return tasks.Delete(tx, key(c.Params["namespace"])) })
}

func (s *Service) listNamespaces(_ context.Context, c *api.Call) (any, error) {
	return list(s.db, c, "namespaces", namespaces, func(path, name string, n namespace) map[string]any {
		return map[string]any{"namespace": path, "name": name, "expires": n.Expires}
	})
}

func (s *Service) listTasks(_ context.Context, c *api.Call) (any, error) {
	return list(s.db, c, "tasks", tasks, func(path, _ string, e entry) map[string]any { return e.view(path, e) })
}

// list answers with the children of a namespace.
func list[T any](db *store.DB, c *api.Call, name string, bucket store.Bucket[T], view func(path, name string, value T) map[string]any) (any, error) {
	parent := c.Params["namespace"]
	if err := c.Authorize(api.Params{"namespace": parent}); err != nil {
		return nil, err
	}
	after, limit, err := c.Paging()
	if err != nil {
		return nil, err
	}
	var page store.Page[T]
	err = db.View(func(tx *store.Tx) error {
		page, err = bucket.Page(tx, parent+"\x00", after, limit)
		return err
	})
	return api.Listing(name, page, func(key string, value T) map[string]any {
		_, child, _ := strings.Cut(key, "\x00")
		return view(join(parent, child), child, value)
	}), err
}
