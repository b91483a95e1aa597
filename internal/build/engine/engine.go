// SPDX-License-Identifier: Apache-2.0

// Package engine builds a Dockerfile with the container engine that is there: docker, podman or buildah.
//
// The engine builds as it always does, with its own cache and its own configuration. What counts is the OCI image layout
// that it writes afterwards: the image is taken from there, checked blob by blob, and whatever happens to the engine's
// own copy and tag changes nothing. An image that an engine builds is not reproducible; one that build/image makes is.
package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/execx"
)

// ErrNoEngine reports a machine without any of the engines.
var ErrNoEngine = errors.New("no container engine: docker, podman and buildah are not installed")

// maxImage bounds the archive that docker writes, in bytes.
const maxImage = 64 << 30

// engines in the order in which they are looked for.
var engines = []string{"docker", "podman", "buildah"}

// pass are the variables that tell an engine where its daemon, its storage and its configuration are.
var pass = []string{
	"DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_BUILDKIT",
	"CONTAINER_HOST", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "REGISTRY_AUTH_FILE", "STORAGE_DRIVER", "BUILDAH_ISOLATION",
	"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// Find returns the name of the first engine that lookPath (exec.LookPath) finds.
func Find(lookPath func(string) (string, error)) (string, error) {
	for _, name := range engines {
		if _, err := lookPath(name); err == nil {
			return name, nil
		}
	}
	return "", ErrNoEngine
}

// Environ makes the environment of an engine from the caller's.
func Environ(lookup func(string) (string, bool)) []string {
	// Docker would add an attestation to the image by itself: pawl makes its own, about the image it has scanned.
	return execx.Environ(lookup, pass, map[string]string{"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
}

// Builder builds one Dockerfile for one platform.
type Builder struct {
	// Engine is the name of the program: "docker", "podman" or "buildah".
	Engine string
	// Name of the artifact.
	Name       string
	Dockerfile string // absolute path
	Context    string // absolute path of the folder
	Args       map[string]string
	Platform   string
	// Env is the whole environment of the engine, see Environ.
	Env []string
	// Limit is the longest that a build may take.
	Limit time.Duration
}

// Build runs the engine and takes in the image.
func (b Builder) Build(ctx context.Context, in build.Input) (_ []build.Artifact, err error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(filepath.Dir(in.Out), "engine-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	layout := filepath.Join(work, "layout")
	steps, err := b.steps(in, work, layout)
	if err != nil {
		return nil, err
	}
	for _, args := range steps {
		err := execx.Run(ctx, execx.Command{Args: args, Dir: b.Context, Env: b.Env, Log: in.Log, Limit: b.Limit})
		if err != nil {
			return nil, fmt.Errorf("the build of image %s did not succeed: %w", b.Name, err)
		}
	}
	if b.Engine == "docker" {
		if err := unpack(filepath.Join(work, "image.tar"), layout); err != nil {
			return nil, fmt.Errorf("image %s as docker saved it: %w", b.Name, err)
		}
	}
	a, err := build.TakeLayout(ctx, in, b.Name, layout)
	if err != nil {
		return nil, err
	}
	return []build.Artifact{a}, nil
}

// Check reports a Dockerfile or a context that is not there.
func (b Builder) Check() error {
	for _, path := range []string{b.Dockerfile, b.Context} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("image %s: %w", b.Name, err)
		}
	}
	return nil
}

// steps returns the commands that build the image and write it as an OCI layout (docker: as an archive of one).
func (b Builder) steps(in build.Input, work, layout string) ([][]string, error) {
	tag := "localhost/pawl/" + in.Product + ":" + in.Version
	args := []string{b.Engine, "build"}
	if b.Engine != "docker" {
		args = append(args, "--format", "oci")
	}
	args = append(args, "--platform", b.Platform, "--file", b.Dockerfile, "--tag", tag)
	for _, name := range slices.Sorted(maps.Keys(b.Args)) {
		args = append(args, "--build-arg", name+"="+b.Args[name])
	}
	args = append(args, b.Context)
	switch b.Engine {
	case "docker":
		return [][]string{args, {"docker", "save", "--output", filepath.Join(work, "image.tar"), tag}}, nil
	case "podman":
		return [][]string{args, {"podman", "save", "--format", "oci-dir", "--output", layout, tag}}, nil
	case "buildah":
		return [][]string{args, {"buildah", "push", tag, "oci:" + layout}}, nil
	}
	return nil, fmt.Errorf("engine %q is not known", b.Engine)
}

// layoutFile matches what is taken out of the archive: an OCI layout's own files, nothing that could climb out.
var layoutFile = regexp.MustCompile(`^(index\.json|oci-layout|blobs/sha256/[0-9a-f]{64})$`)

// unpack writes the OCI layout in the tar archive at from into the folder to.
func unpack(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(filepath.Join(to, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	found := false
	for archive, left := tar.NewReader(f), int64(maxImage); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(head.Name)
		if head.Typeflag != tar.TypeReg || !layoutFile.MatchString(name) {
			continue
		}
		if left -= head.Size; left < 0 {
			return fmt.Errorf("more than %d bytes", int64(maxImage))
		}
		found = found || name == "index.json"
		if err := writeFile(filepath.Join(to, filepath.FromSlash(name)), archive); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("it holds no OCI image layout: docker 25 or newer is needed")
	}
	return nil
}

func writeFile(path string, src io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, src)
	return errors.Join(err, f.Close())
}
