// SPDX-License-Identifier: Apache-2.0

// Package build is the seam to what makes the artifacts of a release, and the place where they are taken in.
//
// Whatever made an artifact, from here on only one copy of it counts: the one in the release's own folder, which is
// written once, durable and read-only. It is hashed while it is copied, and that digest is what is scanned, signed and
// published. So the artifact that was scanned is the artifact that is published, also if a build runs again meanwhile.
//
// Adapters are children: build/ready takes files and image layouts that are there, build/command runs a program first,
// build/engine lets a container engine build a Dockerfile, and build/image makes an image from files.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
)

// ErrMissing reports an artifact that is not there after the build.
var ErrMissing = errors.New("is not there after the build")

// Input is one build.
type Input struct {
	Product string
	Version string
	// Out is an empty folder for the artifacts.
	Out string
	// Log receives the output of programs.
	Log io.Writer
}

// Artifact is what a build has put into its folder: a file, or a folder with an OCI image layout.
type Artifact struct {
	// Name is the artifact's name and that of the file or folder in Input.Out.
	Name string `json:"name"`
	// Image says that it is an OCI image layout. Digest and Size are then those of the image's manifest or index.
	Image     bool       `json:"image,omitzero"`
	Digest    digest.Set `json:"digest"`
	Size      int64      `json:"size"`
	MediaType string     `json:"mediaType,omitzero"`
}

// Builder makes artifacts. Everything in Out is durable when it returns nil. It can be called again with another empty
// folder; the same sources then give artifacts that may differ in their digests.
type Builder interface {
	Build(ctx context.Context, in Input) ([]Artifact, error)
}

// Checker is a Builder that can say before a build what is missing for it.
type Checker interface {
	Check() error
}

// TakeFile copies the file at path into in.Out under name and returns it as an artifact. A file that is made so that its
// signature would be that of something else is refused.
func TakeFile(in Input, name, path string) (a Artifact, err error) {
	src, err := open(path)
	if err != nil {
		return Artifact{}, fmt.Errorf("artifact %s: %w", name, err)
	}
	defer src.Close()
	dst, err := durable.Create(filepath.Join(in.Out, name), 0o444)
	if err != nil {
		return Artifact{}, err
	}
	sum, n, err := digest.CopySet(dst, src)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	if err == nil {
		err = bundle.CheckBlob(io.NewSectionReader(dst, 0, n)) // of the copy: that is what will be signed
	}
	if err != nil {
		return Artifact{}, errors.Join(fmt.Errorf("artifact %s: %w", name, err), dst.Abort())
	}
	if err := dst.Commit(); err != nil {
		return Artifact{}, fmt.Errorf("artifact %s: %w", name, err)
	}
	return Artifact{Name: name, Digest: sum, Size: n}, nil
}

func open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %w", path, ErrMissing)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Check reads the artifacts in dir again and fails with digest.ErrMismatch if one is no longer what it was.
func Check(dir string, list []Artifact) error {
	for _, a := range list {
		path := filepath.Join(dir, a.Name)
		if a.Image {
			if err := checkLayout(path, a.Digest.SHA256); err != nil {
				return fmt.Errorf("artifact %s: %w", a.Name, err)
			}
			continue
		}
		if err := checkFile(path, a.Digest.SHA256, a.Size); err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
	}
	return nil
}

func checkFile(path string, want digest.SHA256, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return digest.Verify(nil, f, want, size)
}
