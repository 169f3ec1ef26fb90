package worker

import (
	"context"

	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
)

// openArtifacts opens the run's store of artifacts. What is complete in it is
// noted, so that the next process need not upload it again.
func (r *runner) openArtifacts() artifact.Store {
	s := &notedStore{Store: r.w.deps.Artifacts.Open(r.claim), note: r.note}
	if r.saved != nil {
		s.uploaded = r.saved.Artifacts
	}
	return s
}

// notedStore is the store of a run that may have had an earlier process.
type notedStore struct {
	artifact.Store
	note     func(journal.Record)
	uploaded map[string]journal.Artifact // by that process; does not change
}

// Upload implements artifact.Store. The files of a sandbox do not change once it
// has ended, so that what has the same name and length is the same.
func (s *notedStore) Upload(ctx context.Context, m artifact.Meta, c artifact.Content) error {
	if u, ok := s.uploaded[m.Name]; ok && u.Size == c.Length && u.ContentType == m.ContentType && u.Expires.Equal(m.Expires) {
		return nil
	}
	if err := s.Store.Upload(ctx, m, c); err != nil {
		return err
	}
	s.note(journal.Uploaded{Artifact: journal.Artifact{Meta: m, Size: c.Length}})
	return nil
}
