package devqueue_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcobject"
	"github.com/taskcluster/taskcluster/v44/clients/client-go/tcqueue"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// request returns the input of createArtifact.
func request(storage string, expires time.Time, more string) *tcqueue.PostArtifactRequest {
	raw := tcqueue.PostArtifactRequest(fmt.Sprintf(`{"storageType": %q, "expires": %q%s}`, storage, expires.UTC().Format(time.RFC3339Nano), more))
	return &raw
}

// artifactURL is where an artifact of the latest run is.
func artifactURL(server *devqueue.Server, id, name string) string {
	return server.RootURL() + "/api/queue/v1/task/" + id + "/artifacts/" + url.PathEscape(name)
}

func TestS3Artifact(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	mine := asTask(t, server, claimOne(t, root).Credentials)
	const name = "public/a b/../ü.txt"
	_, err := mine.CreateArtifact(id, "0", name, request("s3", time.Now().Add(time.Hour), `, "contentType": "text/plain"`))
	refused(t, err, 400)
	const plain = "public/a+b/../log.txt"
	answer, err := mine.CreateArtifact(id, "0", plain, request("s3", time.Now().Add(time.Hour), `, "contentType": "text/plain; charset=utf-8"`))
	if err != nil {
		t.Fatal(err)
	}
	var upload tcqueue.S3ArtifactResponse
	if err := json.Unmarshal(*answer, &upload); err != nil {
		t.Fatal(err)
	}
	if upload.StorageType != "s3" || upload.ContentType != "text/plain; charset=utf-8" || time.Until(time.Time(upload.Expires)) < 40*time.Minute {
		t.Errorf("upload %+v", upload)
	}
	content := strings.Repeat("0123456789", 100_000)
	got := fetch(t, "PUT", upload.PutURL, content, map[string]string{"Content-Type": upload.ContentType, "Content-Encoding": "gzip"})
	if got.status != http.StatusOK {
		t.Fatalf("PUT: %d: %s", got.status, got.body)
	}
	got = fetch(t, "GET", artifactURL(server, id, plain), "", nil)
	if got.status != http.StatusSeeOther || got.header.Get("x-taskcluster-artifact-storage-type") != "s3" {
		t.Fatalf("GET: %d: %s", got.status, got.body)
	}
	got = fetch(t, "GET", got.header.Get("Location"), "", nil)
	if got.body != content || got.header.Get("Content-Type") != upload.ContentType || got.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("content of %d bytes, %v", len(got.body), got.header)
	}
	list, err := root.ListLatestArtifacts(id, "", "")
	if err != nil || len(list.Artifacts) != 1 || list.Artifacts[0].Name != plain || list.Artifacts[0].ContentType != upload.ContentType {
		t.Errorf("list %+v, %v", list, err)
	}
	if info, err := root.ArtifactInfo(id, "0", plain); err != nil || info.StorageType != "s3" {
		t.Errorf("info %+v, %v", info, err)
	}
	if got := fetch(t, "GET", artifactURL(server, id, "public/other"), "", nil); got.status != http.StatusNotFound {
		t.Errorf("an artifact that is not there: %d", got.status)
	}
}

func TestOtherArtifacts(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	mine := asTask(t, server, claimOne(t, root).Credentials)
	expires := time.Now().Add(time.Hour)
	for name, input := range map[string]*tcqueue.PostArtifactRequest{
		"public/ref":      request("reference", expires, `, "contentType": "text/html", "url": "https://example.com/x"`),
		"public/link":     request("link", expires, `, "artifact": "public/ref"`),
		"public/loop":     request("link", expires, `, "artifact": "public/loop2"`),
		"public/loop2":    request("link", expires, `, "artifact": "public/loop"`),
		"public/to-lost":  request("link", expires, `, "artifact": "public/lost"`),
		"public/to-mine":  request("link", expires, `, "artifact": "private/ref"`),
		"private/ref":     request("reference", expires, `, "contentType": "text/html", "url": "https://example.com/y"`),
		"public/mistaken": request("error", expires, `, "reason": "file-missing-on-worker", "message": "no such file"`),
	} {
		if _, err := mine.CreateArtifact(id, "0", name, input); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]struct {
		status   int
		location string
	}{
		"public/ref":      {303, "https://example.com/x"},
		"public/link":     {303, "https://example.com/x"},
		"public/loop":     {400, ""},
		"public/to-lost":  {404, ""},
		"public/to-mine":  {403, ""},
		"private/ref":     {403, ""},
		"public/mistaken": {424, ""},
	} {
		got := fetch(t, "GET", artifactURL(server, id, name), "", nil)
		if got.status != want.status || got.header.Get("Location") != want.location {
			t.Errorf("%s: %d, %q: %s", name, got.status, got.header.Get("Location"), got.body)
		}
		if name == "public/mistaken" && got.body != `{"message":"no such file","reason":"file-missing-on-worker"}` {
			t.Errorf("error artifact: %s", got.body)
		}
	}
	got := fetch(t, "GET", server.RootURL()+"/api/queue/v1/task/"+id+"/artifact-content/public/link", "", nil)
	if want := `{"storageType":"reference","url":"https://example.com/x"}`; got.body != want {
		t.Errorf("content: %s, want %s", got.body, want)
	}
}

func TestRepeatedCreationOfAnArtifact(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	mine := asTask(t, server, claimOne(t, root).Credentials)
	now := time.Now().Truncate(time.Millisecond)
	text := `, "contentType": "text/plain"`
	ref := func(u string) string { return `, "contentType": "text/plain", "url": "https://example.com/` + u + `"` }
	for i, tt := range []struct {
		name          string
		first, second *tcqueue.PostArtifactRequest
		want          int
	}{
		{"the same", request("s3", now.Add(time.Hour), text), request("s3", now.Add(time.Hour), text), 0},
		{"expires later", request("s3", now.Add(time.Hour), text), request("s3", now.Add(2*time.Hour), text), 0},
		{"expires earlier", request("s3", now.Add(time.Hour), text), request("s3", now.Add(time.Minute), text), 409},
		{"another type", request("s3", now.Add(time.Hour), text), request("s3", now.Add(time.Hour), `, "contentType": "text/html"`), 409},
		{"another storage", request("s3", now.Add(time.Hour), text), request("reference", now.Add(time.Hour), ref("a")), 409},
		{"reference elsewhere", request("reference", now.Add(time.Hour), ref("a")), request("reference", now.Add(time.Hour), ref("b")), 0},
		{"reference to link", request("reference", now.Add(time.Hour), ref("a")), request("link", now.Add(time.Hour), `, "artifact": "b"`), 0},
		{"link to reference", request("link", now.Add(time.Hour), `, "artifact": "b", "contentType": "text/plain"`), request("reference", now.Add(time.Hour), ref("a")), 409},
		{"link elsewhere", request("link", now.Add(time.Hour), `, "artifact": "b"`), request("link", now.Add(time.Hour), `, "artifact": "c"`), 409},
		{"object again", request("object", now.Add(time.Hour), text), request("object", now.Add(time.Hour), text), 0},
		{"object to s3", request("object", now.Add(time.Hour), text), request("s3", now.Add(time.Hour), text), 409},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := fmt.Sprintf("public/%d", i)
			if _, err := mine.CreateArtifact(id, "0", name, tt.first); err != nil {
				t.Fatal(err)
			}
			_, err := mine.CreateArtifact(id, "0", name, tt.second)
			refused(t, err, tt.want)
		})
	}
}

func TestBadArtifactsAreRefused(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	_, err := root.CreateArtifact(id, "0", "public/x", request("link", time.Now().Add(time.Hour), `, "artifact": "b"`))
	refused(t, err, 400) // Nobody has claimed the run.
	mine := asTask(t, server, claimOne(t, root).Credentials)
	for name, input := range map[string]*tcqueue.PostArtifactRequest{
		"after the task":  request("link", time.Now().Add(25*time.Hour), `, "artifact": "b"`),
		"long ago":        request("link", time.Now().Add(-time.Hour), `, "artifact": "b"`),
		"unknown storage": request("disk", time.Now().Add(time.Hour), ""),
		"unknown reason":  request("error", time.Now().Add(time.Hour), `, "reason": "bad-luck", "message": "m"`),
		"no url":          request("reference", time.Now().Add(time.Hour), `, "contentType": "text/plain"`),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mine.CreateArtifact(id, "0", "public/x", input)
			refused(t, err, 400)
		})
	}
	if _, err := mine.ReportCompleted(id, "0"); err != nil {
		t.Fatal(err)
	}
	_, err = mine.CreateArtifact(id, "0", "public/x", request("link", time.Now().Add(time.Hour), `, "artifact": "b"`))
	refused(t, err, 409)
}

func TestArtifactsAreTakenAfterAnException(t *testing.T) {
	server := open(t, devqueue.Config{})
	root := asRoot(t, server)
	id := create(t, root, nil)
	mine := asTask(t, server, claimOne(t, root).Credentials)
	if _, err := mine.ReportException(id, "0", &tcqueue.TaskExceptionRequest{Reason: "worker-shutdown"}); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.CreateArtifact(id, "0", "public/x", request("link", time.Now().Add(time.Hour), `, "artifact": "b"`)); err != nil {
		t.Error(err)
	}
}

func TestObjectArtifact(t *testing.T) {
	for name, content := range map[string]string{"inline": "small", "by URL": strings.Repeat("large ", 5000)} {
		t.Run(name, func(t *testing.T) {
			server := open(t, devqueue.Config{})
			root := asRoot(t, server)
			id := create(t, root, nil)
			mine := asTask(t, server, claimOne(t, root).Credentials)
			expires := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
			answer, err := mine.CreateArtifact(id, "0", "public/o", request("object", expires, `, "contentType": "text/x"`))
			if err != nil {
				t.Fatal(err)
			}
			var upload tcqueue.ObjectArtifactResponse
			if err := json.Unmarshal(*answer, &upload); err != nil {
				t.Fatal(err)
			}
			finish := &tcqueue.FinishArtifactRequest{UploadID: upload.UploadID}
			refused(t, mine.FinishArtifact(id, "0", "public/o", finish), 400)
			if got := fetch(t, "GET", artifactURL(server, id, "public/o"), "", nil); got.status != http.StatusNotFound {
				t.Errorf("before it is finished: %d", got.status)
			}
			objects := tcobject.New(&tcclient.Credentials{
				ClientID: upload.Credentials.ClientID, AccessToken: upload.Credentials.AccessToken, Certificate: upload.Credentials.Certificate,
			}, server.RootURL())
			objects.HTTPClient = httpClient(t)
			uploadObject(t, objects, upload, expires, content)
			for range 2 {
				if err := mine.FinishArtifact(id, "0", "public/o", finish); err != nil {
					t.Fatal(err)
				}
			}
			got, kind, _, err := root.DownloadArtifactToBuf(id, 0, "public/o")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(content, string(got)); diff != "" || kind != "text/x" {
				t.Errorf("content of type %s (-want +got):\n%s", kind, diff)
			}
			_, err = mine.CreateArtifact(id, "0", "public/o", request("object", expires, `, "contentType": "text/x"`))
			refused(t, err, 409)
		})
	}
}

// uploadObject uploads an object. Client-go sends large ones without their
// length, which S3 does not take either, so it cannot be used for those.
func uploadObject(t *testing.T, objects *tcobject.Object, o tcqueue.ObjectArtifactResponse, expires time.Time, content string) {
	t.Helper()
	if len(content) < tcobject.DataInlineMaxSize {
		if err := objects.UploadFromBuf(o.ProjectID, o.Name, "text/x", expires, o.UploadID, []byte(content)); err != nil {
			t.Fatal(err)
		}
		return
	}
	answer, err := objects.CreateUpload(o.Name, &tcobject.CreateUploadRequest{
		ProjectID: o.ProjectID, UploadID: o.UploadID, Expires: tcclient.Time(expires),
		ProposedUploadMethods: tcobject.ProposedUploadMethods{
			PutURL: tcobject.PutURLUploadRequest{ContentType: "text/x", ContentLength: int64(len(content))},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	put := answer.UploadMethod.PutURL
	if got := fetch(t, "PUT", put.URL, content, put.Headers); got.status != http.StatusOK {
		t.Fatalf("PUT: %d: %s", got.status, got.body)
	}
	if err := objects.FinishUpload(o.Name, &tcobject.FinishUploadRequest{ProjectID: o.ProjectID, UploadID: o.UploadID}); err != nil {
		t.Fatal(err)
	}
}
