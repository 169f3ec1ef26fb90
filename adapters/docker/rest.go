package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// The program that is the first process of containers is there if it was
// generated before the worker was built.
//
//go:generate env GOOS=linux CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o embedded/first_linux_$GOARCH ./internal/first
//go:embed embedded
var embedded embed.FS

// Where things of the worker are in a container.
const (
	ownDir         = "/.taskcluster/"
	firstProgram   = ownDir + "first"
	transcriptFile = ownDir + "transcript"
)

// readProgram returns the program that is the first process of containers.
func readProgram() ([]byte, error) {
	program, err := embedded.ReadFile("embedded/first_linux_" + runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("this worker was built without the first process of containers: go generate ./adapters/docker: %w", err)
	}
	return program, nil
}

// restArchive returns an archive that has the program in its place.
func restArchive() ([]byte, error) {
	program, err := readProgram()
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	t := tar.NewWriter(&archive)
	name := strings.TrimPrefix(firstProgram, "/")
	err = errors.Join(
		t.WriteHeader(&tar.Header{Name: path.Dir(name) + "/", Typeflag: tar.TypeDir, Mode: 0o755}),
		t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}),
	)
	if err == nil {
		_, err = t.Write(program)
	}
	if err := errors.Join(err, t.Close()); err != nil {
		return nil, fmt.Errorf("pack program: %w", err)
	}
	return archive.Bytes(), nil
}

// restImage returns the name of an image with nothing but the program.
func (e *Engine) restImage(ctx context.Context) (string, error) {
	archive, err := restArchive()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(archive)
	name := "taskcluster-worker.invalid/rest:" + hex.EncodeToString(sum[:8])
	if _, err := e.daemon.ImageInspect(ctx, name); err == nil {
		return name, nil
	} else if !errdefs.IsNotFound(err) {
		return "", fmt.Errorf("look for image %s: %w", name, err)
	}
	source := client.ImageImportSource{Source: bytes.NewReader(archive), SourceName: "-"}
	answer, err := e.daemon.ImageImport(ctx, source, name, client.ImageImportOptions{})
	if err != nil {
		return "", fmt.Errorf("import image %s: %w", name, err)
	}
	_, err = io.Copy(io.Discard, answer)
	return name, errors.Join(err, answer.Close())
}

// startRest starts a container that rests in a network, with no rights at all.
func (e *Engine) startRest(ctx context.Context, image, network string) (id string, err error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	pids, memory := int64(16), int64(32<<20)
	created, err := e.daemon.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: image, Entrypoint: []string{firstProgram}, User: "65534:65534", Labels: e.labels()},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode(network), LogConfig: container.LogConfig{Type: "none"},
			CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"}, ReadonlyRootfs: true,
			Resources: container.Resources{PidsLimit: &pids, Memory: memory, MemorySwap: memory},
		},
	})
	if err != nil {
		return "", fmt.Errorf("create container that rests: %w", err)
	}
	if _, err := e.daemon.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		e.trash.container(created.ID)
		return "", fmt.Errorf("start container that rests: %w", err)
	}
	return created.ID, nil
}
