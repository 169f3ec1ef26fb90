package ec2

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is an instance metadata service of the second version. It answers with
// what it has at a path below /latest, if the token is one that it gave out.
type service struct {
	*httptest.Server

	mu        sync.Mutex
	documents map[string]string
	token     string
	tokens    int // that were asked for
	failing   bool
}

func newService(tb testing.TB, documents map[string]string) *service {
	tb.Helper()
	s := &service{documents: documents}
	s.Server = httptest.NewServer(s)
	tb.Cleanup(s.Close)
	return s
}

// metadata returns a client of the service.
func (s *service) metadata(tb testing.TB) *Metadata {
	tb.Helper()
	m, shut := NewMetadata(Config{Endpoint: s.URL})
	tb.Cleanup(shut)
	return m
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/latest/")
	document, known := s.documents[path]
	switch {
	case s.failing:
		http.Error(w, "failing", http.StatusInternalServerError)
	case r.Method == http.MethodPut && path == "api/token":
		s.tokens++
		s.token = strings.Repeat("t", s.tokens)
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		_, _ = w.Write([]byte(s.token))
	case s.token == "" || r.Header.Get("X-Aws-Ec2-Metadata-Token") != s.token:
		http.Error(w, "no token", http.StatusUnauthorized)
	case !known:
		http.NotFound(w, r)
	default:
		_, _ = w.Write([]byte(document))
	}
}

// set has the service answer with a document, or with none if it is empty.
func (s *service) set(path, document string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if document == "" {
		delete(s.documents, path)
		return
	}
	s.documents[path] = document
}

// change changes how the service behaves.
func (s *service) change(f func(*service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

const identityDocument = "{\n  \"instanceId\" : \"i-0123\",\n  \"region\" : \"eu-central-1\",\n  \"availabilityZone\" : \"eu-central-1b\",\n" +
	"  \"instanceType\" : \"m5d.large\",\n  \"imageId\" : \"ami-1\",\n  \"marketplaceProductCodes\" : null\n}"

func TestInstance(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]string{"dynamic/instance-identity/document": identityDocument})
	m := s.metadata(t)
	want := Instance{ID: "i-0123", Type: "m5d.large", Image: "ami-1", Region: "eu-central-1", AvailabilityZone: "eu-central-1b"}
	for _, ip := range []string{"", "203.0.113.7"} {
		s.set("meta-data/public-ipv4", ip)
		want.PublicIP = ip
		got, err := m.Instance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("instance (-want +got):\n%s", diff)
		}
	}
	s.set("dynamic/instance-identity/document", "<html>")
	if got, err := m.Instance(t.Context()); err == nil {
		t.Errorf("instance is %+v, want an error", got)
	}
}

// The signature is of the document's exact text.
func TestProof(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]string{
		"dynamic/instance-identity/document": identityDocument, "dynamic/instance-identity/signature": "abc\ndef=",
	})
	document, signature, err := s.metadata(t).Proof(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if document != identityDocument || signature != "abc\ndef=" {
		t.Errorf("proof is %q, %q", document, signature)
	}
}

func TestUserData(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       UserData
		fails      bool
	}{
		{name: "none"},
		{name: "a script", text: "#!/bin/sh\necho {}\n"},
		{name: "a number", text: "1234,john,reboot,true\n"},
		{
			name: "of worker-manager",
			text: `{"more": [1], "rootUrl": "https://tc.example.com", "workerPoolId": "proj/linux", "providerId": "aws", "workerGroup": "eu-central-1", "workerConfig": {}}`,
			want: UserData{RootURL: "https://tc.example.com", Pool: "proj/linux", ProviderID: "aws", WorkerGroup: "eu-central-1"},
		},
		{name: "an object that is cut off", text: `{"rootUrl": `, fails: true},
		{name: "an object of other types", text: `{"rootUrl": 3}`, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, map[string]string{})
			s.set("user-data", tt.text)
			got, err := s.metadata(t).UserData(t.Context())
			if (err != nil) != tt.fails {
				t.Fatalf("error is %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("user data (-want +got):\n%s", diff)
			}
		})
	}
}

// A service that was restarted, or whose clock jumped, wants another token.
func TestRefusedTokenIsForgotten(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]string{"meta-data/x": "1"})
	m := s.metadata(t)
	if _, err := m.get(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	s.change(func(s *service) { s.token = "" })
	if got, err := m.get(t.Context(), "x"); err != nil || got != "1" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Without a token there is no answer: whoever makes tasks or the worker send a
// request to a URL cannot read the metadata.
func TestNoFallbackToFirstVersion(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			http.Error(w, "no such method", http.StatusMethodNotAllowed)
			return
		}
		_, _ = w.Write([]byte("metadata of the first version"))
	}))
	defer server.Close()
	m, shut := NewMetadata(Config{Endpoint: server.URL})
	defer shut()
	if got, err := m.get(t.Context(), "x"); err == nil {
		t.Errorf("got %q, want an error", got)
	}
}

func FuzzParseUserData(f *testing.F) {
	f.Add(`{"rootUrl": "https://tc.example.com"}`)
	f.Add("#cloud-config\n")
	f.Add("{")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseUserData(text)
		if err != nil && u != (UserData{}) {
			t.Errorf("user data is %+v although %v", u, err)
		}
	})
}
