package docker

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/client"
)

// A daemon that goes away amid a file, which is longer than what fits into any
// buffer, is asked for the rest.
func TestDaemonThatGoesAwayAmidAFile(t *testing.T) {
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: int64(len(want)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		breaks int64
		err    error
	}{
		{"never", 0, nil},
		{"as often as is borne", mostBreaks, nil},
		{"each time", 1 << 30, io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Docker-Container-Path-Stat", "e30=")
				call := calls.Add(1)
				if call > tt.breaks {
					_, _ = w.Write(archive.Bytes())
					return
				}
				_, _ = w.Write(archive.Bytes()[:100_000*min(call, 9)])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}))
			defer server.Close()
			daemon, err := client.New(client.WithHost("tcp://"+server.Listener.Addr().String()), client.WithAPIVersion("1.41"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = daemon.Close() }()
			s := &stream{f: newFiles(&Engine{ctx: t.Context(), daemon: daemon}, "c"), name: "big", at: "big"}
			if _, err := s.open(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			got, err := io.ReadAll(s)
			if !errors.Is(err, tt.err) {
				t.Errorf("returned %v, want %v", err, tt.err)
			}
			if tt.err == nil && !bytes.Equal(got, want) {
				t.Errorf("read %d bytes that are not the %d of the file", len(got), len(want))
			}
		})
	}
}
