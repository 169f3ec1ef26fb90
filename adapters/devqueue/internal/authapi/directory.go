package authapi

import (
	"maps"
	"sync/atomic"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/api"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/auth"
	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// client is a client that was created through the API.
type client struct {
	auth.Client
	Description        string   `json:"description"`
	DeleteOnExpiration bool     `json:"deleteOnExpiration"`
	Created            api.Time `json:"created"`
	LastModified       api.Time `json:"lastModified"`
}

// role is a role that was created through the API.
type role struct {
	Scopes       task.Scopes `json:"scopes"`
	Description  string      `json:"description"`
	Created      api.Time    `json:"created"`
	LastModified api.Time    `json:"lastModified"`
}

const (
	clients store.Bucket[client] = "client" // by id
	roles   store.Bucket[role]   = "role"   // by id
)

// Directory finds clients and roles: those of the configuration and, after
// them, those in the database.
type Directory struct {
	db      *store.DB
	clients map[string]auth.Client
	roles   auth.Roles
	cached  atomic.Pointer[auth.Roles] // nil when roles have changed
}

// NewDirectory returns a directory of the given clients and roles and those in
// db.
func NewDirectory(db *store.DB, clients map[string]auth.Client, roles auth.Roles) *Directory {
	return &Directory{db: db, clients: clients, roles: roles}
}

// Client returns the client with the given id, and whether there is one.
func (d *Directory) Client(id string) (auth.Client, bool, error) {
	if c, ok := d.clients[id]; ok {
		return c, true, nil
	}
	var found client
	var known bool
	err := d.db.View(func(tx *store.Tx) (err error) {
		found, known, err = clients.Get(tx, id)
		return err
	})
	return found.Client, known, err
}

// Roles returns all roles. They must not be changed.
func (d *Directory) Roles() (auth.Roles, error) {
	if cached := d.cached.Load(); cached != nil {
		return *cached, nil
	}
	all := auth.Roles{}
	err := d.db.View(func(tx *store.Tx) error {
		return roles.Each(tx, "", "", func(id string, r role) (bool, error) {
			all[id] = r.Scopes
			return true, nil
		})
	})
	if err != nil {
		return nil, err
	}
	maps.Copy(all, d.roles)
	d.cached.Store(&all)
	return all, nil
}
