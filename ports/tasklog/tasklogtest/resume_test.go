package tasklogtest

import (
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

func TestMemoryResumes(t *testing.T) {
	TestResume(t, func(testing.TB) tasklog.Recorder { return new(Memory) })
}

// TestResumeChecks shows that every check can fail.
func TestResumeChecks(t *testing.T) {
	defects := map[string][]flaws{
		"ResumesWhereItWas":            {{position: true}, {text: true}, {empty: true}, {writes: true}},
		"ResumesWhatIsEmpty":           {{refuses: true}},
		"GoesOnAfterResume":            {{text: true}, {deaf: true}},
		"ResumesWhatIsSealed":          {{deaf: true}},
		"ResumesNothingElse":           {{invents: true}},
		"KnowsWhetherALineHasEnded":    {{lines: true}},
		"StartsAgainWithoutWhatIsLeft": {{continues: true}},
		"KeepsWhatItIsTold":            {{keeps: true}, {drops: true}},
		"CountsEveryAppend":            {{position: true}, {text: true}},
		"LeavesOutADraft":              {{drafts: true}, {position: true}},
		"KeepsWhatIsADraftNoMore":      {{forever: true}, {text: true}},
	}
	for _, c := range resumeChecks {
		if len(defects[c.name]) == 0 {
			t.Errorf("%s: no defect that this check should catch", c.name)
		}
		for i, d := range defects[c.name] {
			if err := c.check(t.Context(), &forgetful{flaws: d}); err == nil {
				t.Errorf("%s passed a recorder with defect %d", c.name, i)
			}
		}
	}
}

// forgetful is a recorder with defects of what it resumes.
type forgetful struct {
	flaws
	Memory
}

type flaws struct {
	position, text, empty, writes, refuses, deaf, invents, lines, continues, keeps, drops bool
	drafts, forever                                                                       bool
}

func (f *forgetful) Record(id task.RunID) (tasklog.Recording, error) {
	if f.continues {
		if r, _, err := f.Memory.Resume(id); err == nil {
			return r, nil
		}
	}
	r, err := f.Memory.Record(id)
	return &forgetfulRecording{r.(*recording), f}, err
}

func (f *forgetful) Resume(id task.RunID) (tasklog.Recording, tasklog.Position, error) {
	r, at, err := f.Memory.Resume(id)
	switch {
	case err != nil && f.invents:
		r, err = f.Memory.Record(id)
		return r, 0, err
	case err != nil:
		return nil, 0, err
	case f.refuses:
		return nil, 0, notExist(id)
	}
	if f.position {
		at = 0
	}
	m := r.(*recording)
	if f.text && len(m.text) > 0 {
		m.text = m.text[:len(m.text)-1]
	}
	m.sealed = f.deaf
	return &forgetfulRecording{m, f}, at, err
}

func (f *forgetful) Keep(ids ...task.RunID) error {
	switch {
	case f.keeps:
		return nil
	case f.drops:
		ids = nil
	}
	return f.Memory.Keep(ids...)
}

type forgetfulRecording struct {
	*recording
	f *forgetful
}

func (r *forgetfulRecording) Append(p []byte, at tasklog.Position) {
	if r.f.empty && len(p) == 0 {
		return
	}
	r.recording.Append(p, at)
}

func (r *forgetfulRecording) Write(p []byte) (int, error) {
	if r.f.writes {
		r.Append(p, 0) // as though the output began anew
		return len(p), nil
	}
	return r.recording.Write(p)
}

func (r *forgetfulRecording) Draft(on bool) {
	if !r.f.drafts && (on || !r.f.forever) {
		r.recording.Draft(on)
	}
}

func (r *forgetfulRecording) MidLine() bool { return !r.f.lines && r.recording.MidLine() }
