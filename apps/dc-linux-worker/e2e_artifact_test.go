package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue"
)

// How files become artifacts.
func TestArtifacts(t *testing.T) {
	for _, storage := range []string{"s3", "object"} {
		t.Run(storage, func(t *testing.T) {
			b := newBench(t, "worker: {capacity: 6}\nartifacts: {storageType: "+storage+"}", devqueue.Config{})
			scenarios := artifactScenarios(storage)
			if storage == "object" {
				// Objects are decoded by whoever downloads them, not by HTTP.
				for _, s := range scenarios {
					for _, a := range s.artifacts {
						if a != nil {
							a.encoding = ""
						}
					}
				}
			}
			b.tryAll(t, scenarios)
		})
	}
}

func artifactScenarios(storage string) []scenario {
	return []scenario{
		{
			name:  "name defaults to path",
			task:  "command: [[/bin/sh, -c, 'mkdir public; echo 1 > public/a.txt']]\nartifacts: [{type: file, path: public/a.txt}]",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{"public/a.txt": {storage: storage, content: "1\n"}},
		},
		{
			name:  "a directory yields an artifact for each file",
			task:  "command: [[/bin/sh, -c, 'mkdir -p d/e/f; echo 1 > d/a; echo 2 > d/e/b; echo 3 > d/e/f/c']]\nartifacts: [{type: directory, path: d, name: public/x}]",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{
				"public/x":       nil,
				"public/x/a":     {storage: storage, content: "1\n"},
				"public/x/e/b":   {storage: storage, content: "2\n"},
				"public/x/e/f/c": {storage: storage, content: "3\n"},
			},
		},
		{
			name:  "paths may be absolute, or go through the task's own links",
			task:  "command: [[/bin/sh, -c, 'echo 1 > a; ln -s a l; echo 2 > /tmp/b']]\nartifacts: [{type: file, path: l, name: public/l}, {type: file, path: /tmp/b, name: public/b}]",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{"public/l": {content: "1\n"}, "public/b": {content: "2\n"}},
		},
		{
			name:  "a link to what the task cannot read gives nothing away",
			task:  "command: [[/bin/ln, -s, /etc/shadow, l]]\nartifacts: [{type: file, path: l, name: public/l}]",
			state: "failed", reason: "failed",
			artifacts: map[string]*stored{"public/l": {storage: "error"}},
		},
		{
			name: "content types are found by extension, and gzip saves space unless it cannot",
			task: `command: [[/bin/sh, -c, 'for f in a.log a.jsonl a.unknown a.html a.json a.png a.tar.gz a.zip noext; do echo 1 > $f; done']]
artifacts:
  - {type: directory, path: ., name: public}`,
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{
				"public/a.log":     {contentType: "text/plain; charset=utf-8", encoding: "gzip"},
				"public/a.jsonl":   {contentType: "application/jsonl", encoding: "gzip"},
				"public/a.unknown": {contentType: "application/octet-stream", encoding: "gzip"},
				"public/a.html":    {contentType: "text/html; charset=utf-8", encoding: "gzip"},
				"public/a.json":    {contentType: "application/json", encoding: "gzip"},
				"public/noext":     {contentType: "application/octet-stream", encoding: "gzip"},
				"public/a.png":     {contentType: "image/png", encoding: "identity", content: "1\n"},
				"public/a.tar.gz":  {contentType: "application/gzip", encoding: "identity", content: "1\n"},
				"public/a.zip":     {contentType: "application/zip", encoding: "identity", content: "1\n"},
			},
		},
		{
			name: "contentType and contentEncoding override that",
			task: `command: [[/bin/sh, -c, 'echo 1 > a.html; echo 2 > b.png']]
artifacts:
  - {type: file, path: a.html, name: public/a, contentType: text/x-mine, contentEncoding: identity}
  - {type: file, path: b.png, name: public/b, contentEncoding: gzip}`,
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{
				"public/a": {contentType: "text/x-mine", encoding: "identity", content: "1\n"},
				"public/b": {contentType: "image/png", encoding: "gzip", content: "2\n"},
			},
		},
		{
			name:  "an empty file is an artifact",
			task:  "command: [[/bin/touch, a]]\nartifacts: [{type: file, path: a, name: public/a, contentEncoding: identity}]",
			state: "completed", reason: "completed",
			artifacts: map[string]*stored{"public/a": {storage: storage}},
		},
	}
}

func TestUploadFailure(t *testing.T) {
	b := newBench(t, "worker: {capacity: 1}", devqueue.Config{})
	// Whatever is uploaded from now on finds no place.
	if err := os.RemoveAll(filepath.Join(filepath.Dir(b.dir), "queue", "artifacts")); err != nil {
		t.Fatal(err)
	}
	t.Run("artifact upload fails after retries: resource-unavailable", func(t *testing.T) {
		status := b.await(t, b.create(t, "command: [[/bin/touch, a]]\nartifacts: [{type: file, path: a, name: public/a}]"))
		if got, want := status.Runs[0].ReasonResolved, "resource-unavailable"; got != want {
			t.Errorf("task is %s (%s), want exception (%s)", status.State, got, want)
		}
	})
}
