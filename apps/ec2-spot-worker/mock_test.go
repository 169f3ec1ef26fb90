package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience is how long anything may take that a test waits for.
const patience = 60 * time.Second

// What Amazon's mock says of the instance.
const (
	mockInstance = "i-1234567890abcdef0"
	mockRegion   = "us-east-1"
)

// metadata is the instance metadata service: Amazon's own mock of it, in the
// second version alone.
type metadata struct {
	URL    string
	listen string // host and port
	config string // file
	cmd    *exec.Cmd
	output bytes.Buffer
}

// newMetadata starts the service of an instance with user data, which lives on.
func newMetadata(t *testing.T, userData []byte) *metadata {
	t.Helper()
	// Its own form of a configuration has user data in base64.
	config, err := json.Marshal(map[string]any{
		"userdata": map[string]any{"values": map[string]any{"userdata": base64.StdEncoding.EncodeToString(userData)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &metadata{config: filepath.Join(t.TempDir(), "mock.json")}
	if err := os.WriteFile(m.config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.listen = free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	m.URL = "http://" + m.listen
	// Nobody is among those who are to be interrupted.
	m.start(t, "--mock-ip-count=0")
	t.Cleanup(m.stop)
	return m
}

// start has the mock announce what its arguments say, and waits until it does.
func (m *metadata) start(t *testing.T, args ...string) {
	t.Helper()
	binary, err := filepath.Abs("../../.bin/peers/ec2-metadata-mock")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(m.listen)
	if err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.CommandContext(t.Context(), binary, append(args, "--imdsv2", "--hostname="+host, "--port="+port, "--config-file="+m.config)...)
	m.output.Reset()
	m.cmd.Stdout, m.cmd.Stderr = &m.output, &m.output
	if err := m.cmd.Start(); err != nil {
		t.Fatalf("%v: run make peers", err)
	}
	eventually(t, "the mock of the metadata service", func() bool {
		_, err := m.get("user-data")
		return err == nil
	})
}

func (m *metadata) stop() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // it was killed
}

// interrupt has the mock announce from now on what its arguments say.
func (m *metadata) interrupt(t *testing.T, args ...string) {
	t.Helper()
	m.stop()
	m.start(t, append(args, "--mock-ip-count=-1")...)
}

// get returns a document of the service.
func (m *metadata) get(path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	ask := func(method, path string, header http.Header) (string, error) {
		req, err := http.NewRequest(method, m.URL+"/latest/"+path, nil)
		if err != nil {
			return "", err
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return "", fmt.Errorf("%s: %s", path, resp.Status)
		}
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	token, err := ask(http.MethodPut, "api/token", http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if err != nil {
		return "", err
	}
	return ask(http.MethodGet, path, http.Header{"X-Aws-Ec2-Metadata-Token": {token}})
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-timer.C:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}
