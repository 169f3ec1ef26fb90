package taskcluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// The object service does not take the content of an object twice, and who may
// upload it only the process knows that has begun to.
func TestUploadThatAnEarlierProcessHasBegun(t *testing.T) {
	cfg := worker
	cfg.StorageType = Object
	c, _ := serve(t, cfg, map[string]http.HandlerFunc{
		"POST /api/queue/v1/task/T/runs/1/artifacts/a": refusal(409, "RequestConflict", "Artifact already exists with different properties"),
	})
	cl, err := NewQueue(c).Resume(queue.Saved{
		Run: task.RunID{Task: "T", Run: 1}, Definition: []byte("{}"), TakenUntil: time.Now().Add(time.Hour),
		Credentials: task.Credentials{ClientID: "task", AccessToken: "t0ken"},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = NewArtifacts(c).Open(cl).Upload(t.Context(), meta(), contentOf("hello"))
	if f := fault.Classify(err); f == nil || f.Kind != fault.Shutdown {
		t.Errorf("Upload returned %v, which gives the task no other run", err)
	}
}

func TestUploadToTheObjectService(t *testing.T) {
	const (
		finish     = "PUT /api/queue/v1/task/T/runs/1/artifacts/a"
		propose    = "PUT /api/object/v1/upload/t%2FT%2F1%2Fa"
		finishLoad = "POST /api/object/v1/finish-upload/t%2FT%2F1%2Fa"
	)
	ok := answer(200, map[string]any{})
	granted := answer(200, map[string]any{
		"storageType": "object", "name": "t/T/1/a", "projectId": "p", "uploadId": "u", "expires": "2100-01-02T03:04:05.678Z",
		"credentials": map[string]string{"clientId": "uploader", "accessToken": "t0ken"},
	})
	chosen := func(method map[string]any) http.HandlerFunc {
		return answer(200, map[string]any{"uploadMethod": method})
	}
	target := func(d time.Duration) map[string]any {
		return map[string]any{"putUrl": map[string]any{
			"url": "http://bucket.test/put", "expires": time.Now().Add(d), "headers": map[string]string{"Content-Type": "text/plain", "X-Test": "x"},
		}}
	}
	for _, tt := range []struct {
		name               string
		creates, proposals http.HandlerFunc
		puts               http.HandlerFunc
		fault              fault.Kind
		message            string
	}{
		{"by a URL", granted, chosen(target(time.Hour)), ok, 0, ""},
		{"by a URL that expired", granted, inTurn(chosen(target(-time.Hour)), chosen(target(time.Hour))), ok, 0, ""},
		{"by a URL that is refused once", granted, chosen(target(time.Hour)), inTurn(answer(403, nil), ok), 0, ""},
		{"although the service fails once", granted, inTurn(answer(500, nil), chosen(target(time.Hour))), ok, 0, ""},
		{"unless it knows no way", granted, chosen(nil), ok, fault.Unavailable, `cannot upload artifact "a": the object service knows no way to`},
		{"unless it refuses", granted, refusal(403, "InsufficientScopes", "no"), ok, fault.Unavailable, `cannot upload artifact "a" to the object service`},
		{
			"unless the permission was lost", inTurn(answer(502, nil), refusal(409, "RequestConflict", "Artifact already exists")), nil, nil,
			fault.Unavailable, `cannot upload artifact "a": the queue's answer was lost`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := worker
			cfg.StorageType = Object
			m, err := upload(t, cfg, map[string]http.HandlerFunc{
				create: tt.creates, propose: tt.proposals, put: tt.puts, finishLoad: ok, finish: answer(204, nil),
			})
			if tt.fault != 0 {
				if f, isFault := errors.AsType[*fault.Error](err); !isFault || f.Kind != tt.fault || f.Message != tt.message {
					t.Errorf("Upload returned %#v", err)
				}
				if len(m.requests(finish)) != 0 {
					t.Error("finished what failed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sent := m.requests(put)
			if last := sent[len(sent)-1]; last.length != 10_000 || last.header.Get("X-Test") != "x" {
				t.Errorf("sent %d bytes with %v", last.length, last.header)
			}
			if p := m.requests(propose)[0]; p.client != "uploader" || strings.Contains(p.body, "dataInline") {
				t.Errorf("proposed %s as %q", p.body, p.client)
			}
			sum := sha256.Sum256([]byte(strings.Repeat("hello", 2000)))
			want := `{"projectId":"p","uploadId":"u","hashes":{"sha256":"` + hex.EncodeToString(sum[:]) + `"}}`
			if f := m.requests(finishLoad); len(f) != 1 || f[0].body != want {
				t.Errorf("finished %+v, want %s", f, want)
			}
			if f := m.requests(finish); len(f) != 1 || f[0].body != `{"uploadId":"u"}` || f[0].client != "task" {
				t.Errorf("finished %+v", f)
			}
		})
	}
}
