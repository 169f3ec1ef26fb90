package hawk_test

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	tcclient "github.com/taskcluster/taskcluster/v44/clients/client-go"
	hawkgo "github.com/tent/hawk-go"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/hawk"
)

const target = "http://localhost:8080/api/queue/v1/task/a%2Fb?x=1&y=%20"

func signed(t *testing.T, edit func(*hawkgo.Auth)) (hawk.Request, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	auth := hawkgo.NewRequestAuth(r, &hawkgo.Credentials{ID: "me", Key: "secret", Hash: sha256.New}, 0)
	if edit != nil {
		edit(auth)
	}
	return hawk.Request{Method: "POST", Resource: r.URL.RequestURI(), Host: "LocalHost", Port: "8080"}, auth.RequestHeader()
}

func TestHeaderOfAnotherImplementation(t *testing.T) {
	request, header := signed(t, func(a *hawkgo.Auth) {
		a.Ext = "e30="
		a.Credentials.App, a.Credentials.Delegate = "app", "dlg"
		h := a.PayloadHash("application/json")
		h.Write([]byte(`{"a":1}`))
		a.SetHash(h)
	})
	s, err := hawk.FromHeader(request, header)
	if err != nil {
		t.Fatal(err)
	}
	if s.ClientID != "me" || s.Ext != "e30=" {
		t.Errorf("client %q, ext %q", s.ClientID, s.Ext)
	}
	if err := s.Verify("secret", time.Now()); err != nil {
		t.Errorf("a good signature: %v", err)
	}
	if got := hawk.PayloadHash("Application/JSON; charset=utf-8", []byte(`{"a":1}`)); got != s.Hash {
		t.Errorf("payload hash %q, the client's is %q", got, s.Hash)
	}
}

func TestHeaderIsGoodForOneRequest(t *testing.T) {
	request, header := signed(t, nil)
	for name, edit := range map[string]func(*hawk.Request){
		"another method":   func(r *hawk.Request) { r.Method = "PUT" },
		"another resource": func(r *hawk.Request) { r.Resource += "1" },
		"another host":     func(r *hawk.Request) { r.Host = "example.com" },
		"another port":     func(r *hawk.Request) { r.Port = "80" },
	} {
		t.Run(name, func(t *testing.T) {
			other := request
			edit(&other)
			s, err := hawk.FromHeader(other, header)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify("secret", time.Now()); !errors.Is(err, hawk.ErrMAC) {
				t.Errorf("got %v, want %v", err, hawk.ErrMAC)
			}
		})
	}
	s, err := hawk.FromHeader(request, header)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify("another secret", time.Now()); !errors.Is(err, hawk.ErrMAC) {
		t.Errorf("another key: got %v, want %v", err, hawk.ErrMAC)
	}
	for _, off := range []time.Duration{-16 * time.Minute, 16 * time.Minute} {
		if err := s.Verify("secret", time.Now().Add(off)); !errors.Is(err, hawk.ErrStale) {
			t.Errorf("clock off by %v: got %v, want %v", off, err, hawk.ErrStale)
		}
	}
}

func TestMalformedHeaders(t *testing.T) {
	for _, header := range []string{
		"", "Basic abc", "Hawk", `Hawk id="a"`, `Hawk id="a", mac="b", ts="x", nonce="n"`,
		`Hawk id="a", id="a", mac="b", ts="1", nonce="n"`, `Hawk id="a`, `Hawk id=a`,
	} {
		if s, err := hawk.FromHeader(hawk.Request{}, header); !errors.Is(err, hawk.ErrFormat) {
			t.Errorf("%q: got %+v, %v", header, s, err)
		}
	}
}

func TestSignedURLOfClientGo(t *testing.T) {
	client := &tcclient.Client{
		Credentials: &tcclient.Credentials{ClientID: "me", AccessToken: "secret"},
		RootURL:     "http://localhost:8080", ServiceName: "queue", APIVersion: "v1",
	}
	for name, query := range map[string]url.Values{"no query": nil, "a query": {"limit": {"1"}, "z": {"2"}}} {
		t.Run(name, func(t *testing.T) {
			u, err := client.SignedURL("/task/a%2Fb", query, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			request := hawk.Request{Method: "HEAD", Resource: u.RequestURI(), Host: "localhost", Port: "8080"}
			s, ok, err := hawk.FromURL(request)
			if err != nil || !ok {
				t.Fatalf("bewit: %v, %v", ok, err)
			}
			if err := s.Verify("secret", time.Now()); err != nil {
				t.Errorf("a good signature of %s: %v", u, err)
			}
			if err := s.Verify("secret", time.Now().Add(2*time.Minute)); !errors.Is(err, hawk.ErrOver) {
				t.Errorf("expired: %v", err)
			}
			if err := s.Verify("other", time.Now()); !errors.Is(err, hawk.ErrMAC) {
				t.Errorf("another key: %v", err)
			}
			request.Method = "POST"
			if _, _, err := hawk.FromURL(request); !errors.Is(err, hawk.ErrBewit) {
				t.Errorf("POST by bewit: %v", err)
			}
		})
	}
	if _, ok, err := hawk.FromURL(hawk.Request{Method: "GET", Resource: "/a?b=c"}); ok || err != nil {
		t.Errorf("no bewit: %v, %v", ok, err)
	}
}

// FuzzSignature checks that what a client sends is refused without a panic
// unless it is signed.
func FuzzSignature(f *testing.F) {
	f.Add(`Hawk id="a", mac="b", ts="1", nonce="n", ext="e"`, "/a?bewit=YVwxXGJcYw")
	f.Add(`hawk `, "/?x&bewit=")
	f.Fuzz(func(t *testing.T, header, resource string) {
		r := hawk.Request{Method: "GET", Resource: resource, Host: "h", Port: "1"}
		if s, err := hawk.FromHeader(r, header); err == nil {
			if err := s.Verify("secret", time.Now()); err == nil {
				t.Errorf("header %q is accepted", header)
			}
		}
		if s, ok, err := hawk.FromURL(r); ok && err == nil {
			if err := s.Verify("secret", time.Now()); err == nil {
				t.Errorf("resource %q is accepted", resource)
			}
		}
	})
}
