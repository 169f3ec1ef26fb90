package fetch_test

import (
	"testing"

	"github.com/taskcluster/taskcluster-worker/ports/fetch"
)

func TestReferencesAreShownWithoutSecrets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ref  fetch.Reference
		want string
	}{
		{fetch.Reference{TaskID: "abc", Artifact: "public/image.tar.zst"}, "task abc artifact public/image.tar.zst"},
		{fetch.Reference{Namespace: "a.b", Artifact: "public/x"}, "index a.b artifact public/x"},
		{fetch.Reference{URL: "https://me:secret@example.com/a.tar?token=secret#secret"}, "https://example.com/a.tar"},
		{fetch.Reference{URL: "http://me:secret@exam\nple/"}, "a URL that cannot be parsed"},
	} {
		if got := c.ref.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
