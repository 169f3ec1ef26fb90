package taskcluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcindex"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
)

func TestFetch(t *testing.T) {
	for _, storage := range []StorageType{S3, Object} {
		t.Run(string(storage), func(t *testing.T) { testFetch(t, storage) })
	}
}

func testFetch(t *testing.T, storage StorageType) {
	t.Helper()
	d := newDeployment(t, storage)
	claim := d.Claim(t)
	store := d.Opener(t).Open(claim)
	content := bytes.Repeat([]byte("content "), 1000)
	expires := time.Now().Add(2 * time.Hour)
	for _, name := range []string{"public/image.tar", "private/image.tar"} {
		err := store.Upload(t.Context(), artifact.Meta{Name: name, ContentType: "application/x-tar", Expires: expires}, artifact.Content{
			Size: int64(len(content)), Length: int64(len(content)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Explain(t.Context(), artifact.Meta{Name: "public/missing", Expires: expires}, artifact.FileMissing, "it was not there"); err != nil {
		t.Fatal(err)
	}
	id := claim.Run().Task
	const namespace = "project.tree.v1.2-3.latest"
	root := &tcclient.Credentials{ClientID: d.client.cfg.Credentials.ClientID, AccessToken: d.client.cfg.Credentials.AccessToken}
	_, err := tcindex.New(root, d.client.cfg.RootURL).InsertTask(namespace, &tcindex.InsertTaskRequest{
		TaskID: string(id), Expires: tcclient.Time(expires), Data: []byte(`{}`),
	})
	if err != nil {
		t.Fatal(err)
	}

	nobody := func() task.Credentials { return task.Credentials{} }
	owner := func() task.Credentials { return d.client.cfg.Credentials }
	sum := sha256.Sum256(content)
	for _, tt := range []struct {
		title   string
		ref     fetch.Reference
		who     func() task.Credentials
		kind    fault.Kind
		message string
	}{
		{title: "an artifact", ref: fetch.Reference{TaskID: id, Artifact: "public/image.tar"}, who: nobody},
		{title: "an artifact of a known hash", ref: fetch.Reference{TaskID: id, Artifact: "public/image.tar", SHA256: hex.EncodeToString(sum[:])}, who: nobody},
		{title: "a private artifact", ref: fetch.Reference{TaskID: id, Artifact: "private/image.tar"}, who: owner},
		{title: "an artifact in the index", ref: fetch.Reference{Namespace: namespace, Artifact: "public/image.tar"}, who: nobody},
		{"a private artifact, without the scope", fetch.Reference{TaskID: id, Artifact: "private/image.tar"}, nobody, fault.Malformed, "queue:get-artifact:private/image.tar"},
		{"another hash", fetch.Reference{TaskID: id, Artifact: "public/image.tar", SHA256: strings.Repeat("0", 64)}, nobody, fault.Failure, "is not what it should be"},
		{"no such artifact", fetch.Reference{TaskID: id, Artifact: "public/other"}, nobody, fault.Malformed, "has no artifact public/other"},
		{"an artifact that says why it is none", fetch.Reference{TaskID: id, Artifact: "public/missing"}, nobody, fault.Malformed, "it was not there"},
		{"no such task", fetch.Reference{TaskID: "fN1SbArXTPSVFNUvaOlinQ", Artifact: "public/x"}, nobody, fault.Malformed, "there is no task fN1SbArXTPSVFNUvaOlinQ"},
		{"nothing in the index", fetch.Reference{Namespace: "a.b.c", Artifact: "public/x"}, nobody, fault.Malformed, "the index has no task under a.b.c"},
	} {
		t.Run(tt.title, func(t *testing.T) {
			c, got, err := fetched(t, NewFetch(d.client), tt.ref, tt.who)
			if tt.message != "" {
				if f := fault.Classify(err); f == nil || f.Kind != tt.kind || !strings.Contains(f.Message, tt.message) {
					t.Errorf("got %v, want %q", err, tt.message)
				}
				return
			}
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if want := "artifact:" + string(id) + "/0/" + tt.ref.Artifact; c.Key != want || c.TaskID != id {
				t.Errorf("key %s, want %s; task %s", c.Key, want, c.TaskID)
			}
		})
	}
	if _, err := NewFetch(d.client).Resolve(t.Context(), fetch.Reference{URL: "https://example.com"}, nobody); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a URL: got %v", err)
	}
}

func fetched(t *testing.T, source fetch.Source, r fetch.Reference, who func() task.Credentials) (fetch.Content, []byte, error) {
	t.Helper()
	c, err := source.Resolve(t.Context(), r, who)
	if err != nil {
		return c, nil, err
	}
	body, _, err := c.Open(t.Context())
	if err != nil {
		return c, nil, err
	}
	defer func() { _ = body.Close() }()
	got, err := io.ReadAll(body)
	return c, got, err
}
