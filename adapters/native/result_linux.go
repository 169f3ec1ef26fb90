package native

import (
	"io/fs"
	"sync"

	"github.com/taskcluster/taskcluster-worker/adapters/native/internal/jail"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

// resultSet is what a task left behind.
type resultSet struct {
	result engine.Result
	files  fs.FS
	dir    string
	close  func()
}

func newResultSet(e *Engine, b *berth, groups []uint32, r engine.Result) *resultSet {
	j := jail.FS{Root: b.root}
	if e.users.current == nil {
		j.As = &jail.Identity{UID: b.account.uid, GID: b.account.gid, Groups: groups}
	}
	return &resultSet{
		result: r,
		files:  j,
		dir:    relative(b.workDir),
		close: sync.OnceFunc(func() {
			if !e.leaving.Load() {
				e.discard(b)
			}
		}),
	}
}

// Result implements engine.ResultSet.
func (r *resultSet) Result() engine.Result { return r.result }

// FS implements engine.ResultSet.
func (r *resultSet) FS() fs.FS { return r.files }

// Dir implements engine.ResultSet.
func (r *resultSet) Dir() string { return r.dir }

// Close implements engine.ResultSet. The files are removed in the background.
func (r *resultSet) Close() error {
	r.close()
	return nil
}
