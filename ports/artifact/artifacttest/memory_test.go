package artifacttest_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/artifact/artifacttest"
	"github.com/taskcluster/taskcluster-worker/ports/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	artifacttest.Test(t, func(testing.TB) artifacttest.Harness {
		return artifacttest.NewHarness(&artifacttest.Memory{Queue: new(queuetest.Memory)})
	})
}

func TestMemoryRecordsAndFails(t *testing.T) {
	q := new(queuetest.Memory)
	q.AddTask(task.Definition{})
	claims, err := q.Claim(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	m := new(artifacttest.Memory)
	boom := errors.New("boom")
	m.On(func(c artifacttest.Call) error {
		if c.Op == artifacttest.Redirect {
			return boom
		}
		return nil
	})
	s := m.Open(claims[0])
	meta := artifact.Meta{Name: "b", ContentType: "text/plain", Expires: claims[0].Task().Expires}
	if err := s.Redirect(t.Context(), meta, "https://example.com"); !errors.Is(err, boom) {
		t.Errorf("Redirect returned %v", err)
	}
	content := artifact.Content{Size: 1, Length: 1, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader([]byte("x"))), nil
	}}
	for _, name := range []string{"b", "a"} {
		meta.Name = name
		if err := s.Upload(t.Context(), meta, content); err != nil {
			t.Error(err)
		}
	}
	if got, want := m.Names(claims[0].Run()), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("artifacts are %v, want %v", got, want)
	}
	if got := m.Calls(artifacttest.Redirect); len(got) != 1 || got[0].Meta.Name != "b" || got[0].Run != claims[0].Run() {
		t.Errorf("recorded %v", got)
	}
	if got := m.Calls(); len(got) != 3 {
		t.Errorf("recorded %v", got)
	}
}
