package journal

import (
	"maps"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// Saved is what the journal has of a run: what was claimed, and every record
// that was added since.
type Saved struct {
	queue.Saved // the claim

	State      run.State           // the last one that was reached
	Started    time.Time           // when the sandbox was; zero if it was not
	Resolution *run.Resolution     // what was, or was about to be, reported; nil if nothing
	Artifacts  map[string]Artifact // uploaded, by name
	Volumes    map[string]string   // held for caches: the cache's name by the volume's ID
}

// Record is something that happened to a run. The records are those declared in
// this package.
type Record interface{ apply(s *Saved) }

// After returns s with records added, in their order. It leaves s as it is.
func (s Saved) After(records ...Record) Saved {
	s.Artifacts, s.Volumes = maps.Clone(s.Artifacts), maps.Clone(s.Volumes)
	for _, r := range records {
		r.apply(&s)
	}
	return s
}

// Leased says that the claim was extended.
type Leased struct {
	TakenUntil  time.Time
	Credentials task.Credentials
}

func (r Leased) apply(s *Saved) { s.TakenUntil, s.Credentials = r.TakenUntil, r.Credentials }

// Reached says which state the run is in.
type Reached struct{ State run.State }

func (r Reached) apply(s *Saved) { s.State = r.State }

// Started says when the sandbox was started.
type Started struct{ At time.Time }

func (r Started) apply(s *Saved) { s.Started = r.At }

// Resolving says what is about to be reported.
type Resolving struct{ Resolution run.Resolution }

func (r Resolving) apply(s *Saved) { s.Resolution = &r.Resolution }

// Artifact is an artifact that was uploaded.
type Artifact struct {
	artifact.Meta
	SHA256 string // of the content, in hexadecimal; may be empty
	Size   int64  // bytes of the content
}

// Uploaded says that an artifact is complete.
type Uploaded struct{ Artifact Artifact }

func (r Uploaded) apply(s *Saved) {
	if s.Artifacts == nil {
		s.Artifacts = map[string]Artifact{}
	}
	s.Artifacts[r.Artifact.Name] = r.Artifact
}

// Held says that the run holds a volume, which is that of a cache.
type Held struct{ Volume, Cache string }

func (r Held) apply(s *Saved) {
	if s.Volumes == nil {
		s.Volumes = map[string]string{}
	}
	s.Volumes[r.Volume] = r.Cache
}

// Released says that the run no longer holds a volume.
type Released struct{ Volume string }

func (r Released) apply(s *Saved) { delete(s.Volumes, r.Volume) }
