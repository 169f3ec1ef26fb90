// Package object is Taskcluster's object service: named contents that are
// uploaded once.
package object

import (
	"context"
	"encoding/base64"
	"maps"
	"strconv"
	"time"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/content"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

// How long the URLs that the service gives out are good for.
const (
	putLife = 45 * time.Minute
	getLife = 30 * time.Minute
)

// object is an object whose upload has begun.
type object struct {
	ProjectID string            `json:"projectId"`
	UploadID  string            `json:"uploadId"`
	Expires   api.Time          `json:"expires"`
	Hashes    map[string]string `json:"hashes"`
	Finished  bool              `json:"finished"`
}

const objects store.Bucket[object] = "object" // by name

// Service is the service.
type Service struct {
	db       *store.DB
	contents *content.Store
}

// New returns the service over the objects in db and their contents.
func New(db *store.DB, contents *content.Store) *Service { return &Service{db, contents} }

// API returns the endpoints of the service.
func (s *Service) API() api.Service {
	upload := api.Scope("object:upload:<projectId>:<name>")
	download := api.Scope("object:download:<name>")
	return api.Service{Name: "object", Endpoints: []api.Endpoint{
		{Name: "createUpload", Method: "PUT", Route: "/upload/<name*>", Scopes: upload, Input: "object/create-upload", Serve: s.createUpload},
		{Name: "finishUpload", Method: "POST", Route: "/finish-upload/<name*>", Scopes: upload, Input: "object/finish-upload", Serve: s.finishUpload},
		{Name: "startDownload", Method: "PUT", Route: "/start-download/<name*>", Scopes: download, Input: "object/start-download", Serve: s.startDownload},
		{Name: "object", Method: "GET", Route: "/metadata/<name*>", Scopes: download, Serve: s.object},
		{Name: "download", Method: "GET", Route: "/download/<name*>", Scopes: download, Serve: s.download},
	}}
}

func key(name string) string { return "object/" + name }

// Create begins the upload of an object. It may be repeated with the same
// arguments until the upload is finished, and is an api.Conflict otherwise.
func (s *Service) Create(tx *store.Tx, name, projectID, uploadID string, expires api.Time, hashes map[string]string) error {
	o, known, err := objects.Get(tx, name)
	if err != nil {
		return err
	}
	if known && (o.Finished || o.ProjectID != projectID || o.UploadID != uploadID || !o.Expires.Equal(expires.Time)) {
		return api.Conflict("Object already exists")
	}
	if !known {
		o = object{ProjectID: projectID, UploadID: uploadID, Expires: expires}
	}
	if err := o.add(hashes); err != nil {
		return err
	}
	return objects.Put(tx, name, o)
}

// add adds hashes to those that are known.
func (o *object) add(hashes map[string]string) error {
	all := map[string]string{}
	maps.Copy(all, o.Hashes)
	for algorithm, hash := range hashes {
		if old, known := all[algorithm]; known && old != hash {
			return api.Conflict("Content hash already exists with a different value")
		}
		all[algorithm] = hash
	}
	o.Hashes = all
	return nil
}

// finished returns an object that can be downloaded, or an api.NotFound.
func finished(tx *store.Tx, name string) (object, error) {
	o, known, err := objects.Get(tx, name)
	if err != nil {
		return o, err
	}
	if !known || !o.Finished || o.Expires.Before(time.Now()) {
		return o, api.NotFound("Object \"%s\" not found", name)
	}
	return o, nil
}

// Ready returns nil if the object can be downloaded, or an api.NotFound.
func (s *Service) Ready(tx *store.Tx, name string) error {
	_, err := finished(tx, name)
	return err
}

// URL returns where the object can be downloaded for a while.
func (s *Service) URL(name string) string {
	return s.contents.GetURL(key(name), time.Now().Add(getLife))
}

func (s *Service) createUpload(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		ProjectID string            `json:"projectId"`
		UploadID  string            `json:"uploadId"`
		Expires   api.Time          `json:"expires"`
		Hashes    map[string]string `json:"hashes"`
		Proposed  struct {
			DataInline *struct {
				ContentType string `json:"contentType"`
				ObjectData  string `json:"objectData"`
			} `json:"dataInline"`
			PutURL *struct {
				ContentType   string `json:"contentType"`
				ContentLength int64  `json:"contentLength"`
			} `json:"putUrl"`
		} `json:"proposedUploadMethods"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	name := c.Params["name"]
	if err := c.Authorize(api.Params{"projectId": input.ProjectID}); err != nil {
		return nil, err
	}
	err := s.db.Update(func(tx *store.Tx) error {
		return s.Create(tx, name, input.ProjectID, input.UploadID, input.Expires, input.Hashes)
	})
	if err != nil {
		return nil, err
	}
	method := map[string]any{}
	inline, put := input.Proposed.DataInline, input.Proposed.PutURL
	// Go clients before v45 propose empty inline data along with a URL, and
	// mean the URL.
	if inline != nil && inline.ObjectData == "" && put != nil && put.ContentLength > 0 {
		inline = nil
	}
	switch {
	case inline != nil:
		data, err := base64.StdEncoding.DecodeString(inline.ObjectData)
		if err != nil {
			return nil, api.InputError("Invalid base64 objectData")
		}
		if err := s.contents.Put(key(name), inline.ContentType, data); err != nil {
			return nil, err
		}
		method["dataInline"] = true
	case put != nil:
		until := time.Now().Add(putLife)
		method["putUrl"] = map[string]any{
			"url": s.contents.PutURL(key(name), put.ContentType, put.ContentLength, until), "expires": api.Date(until),
			"headers": map[string]string{"Content-Type": put.ContentType, "Content-Length": strconv.FormatInt(put.ContentLength, 10)},
		}
	}
	return map[string]any{
		"projectId": input.ProjectID, "uploadId": input.UploadID, "expires": input.Expires, "uploadMethod": method,
	}, nil
}

func (s *Service) finishUpload(_ context.Context, c *api.Call) (any, error) {
	var input struct {
		ProjectID string            `json:"projectId"`
		UploadID  string            `json:"uploadId"`
		Hashes    map[string]string `json:"hashes"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	name := c.Params["name"]
	if err := c.Authorize(api.Params{"projectId": input.ProjectID}); err != nil {
		return nil, err
	}
	return nil, s.db.Update(func(tx *store.Tx) error {
		o, known, err := objects.Get(tx, name)
		switch {
		case err != nil:
			return err
		case !known:
			return api.NotFound("Object \"%s\" not found", name)
		case o.ProjectID != input.ProjectID:
			return api.InputError("Object \"%s\" does not have projectId %s", name, input.ProjectID)
		case o.Finished:
			for algorithm, hash := range input.Hashes {
				if o.Hashes[algorithm] != hash {
					return api.Conflict("Object \"%s\" is already finished, but with a different hash for algorithm %s", name, algorithm)
				}
			}
			return nil
		case o.UploadID != input.UploadID:
			return api.Conflict("Object \"%s\" does not have uploadId %s", name, input.UploadID)
		}
		if err := o.add(input.Hashes); err != nil {
			return err
		}
		uploaded, err := s.contents.Has(tx, key(name))
		if err != nil {
			return err
		}
		if !uploaded {
			return api.InputError("The content of object \"%s\" has not been uploaded", name)
		}
		o.Finished = true
		return objects.Put(tx, name, o)
	})
}

// ready runs fn with an object that can be downloaded.
func (s *Service) ready(c *api.Call) (o object, err error) {
	err = s.db.View(func(tx *store.Tx) error {
		o, err = finished(tx, c.Params["name"])
		return err
	})
	return o, err
}

func (s *Service) startDownload(_ context.Context, c *api.Call) (any, error) {
	if _, err := s.ready(c); err != nil {
		return nil, err
	}
	var input struct {
		Accepted struct {
			Simple bool `json:"simple"`
		} `json:"acceptDownloadMethods"`
	}
	if err := c.Decode(&input); err != nil {
		return nil, err
	}
	if !input.Accepted.Simple {
		return nil, &api.Error{Code: "NoMatchingMethod", Message: "Object supports methods simple"}
	}
	return map[string]string{"method": "simple", "url": s.URL(c.Params["name"])}, nil
}

func (s *Service) object(_ context.Context, c *api.Call) (any, error) {
	o, err := s.ready(c)
	if err != nil {
		return nil, err
	}
	return map[string]any{"projectId": o.ProjectID, "expires": o.Expires, "hashes": o.Hashes}, nil
}

func (s *Service) download(_ context.Context, c *api.Call) (any, error) {
	if _, err := s.ready(c); err != nil {
		return nil, err
	}
	return api.Reply{Status: 303, Header: map[string]string{"Location": s.URL(c.Params["name"])}}, nil
}
