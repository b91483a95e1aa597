// SPDX-License-Identifier: Apache-2.0

// Package ready takes in artifacts that are there already: files, or an image in an OCI layout.
package ready

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pawl-project/pawl/internal/build"
)

// File is one file to take in.
type File struct {
	Name      string // of the artifact
	Path      string // absolute
	MediaType string
}

// Files takes in files.
type Files []File

// Build copies every file.
func (f Files) Build(ctx context.Context, in build.Input) ([]build.Artifact, error) {
	list := make([]build.Artifact, 0, len(f))
	for _, file := range f {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a, err := build.TakeFile(in, file.Name, file.Path)
		if err != nil {
			return nil, err
		}
		a.MediaType = file.MediaType
		list = append(list, a)
	}
	return list, nil
}

// Check reports files that are not there.
func (f Files) Check() error {
	var problems []error
	for _, file := range f {
		if _, err := os.Stat(file.Path); err != nil {
			problems = append(problems, fmt.Errorf("artifact %s: %w", file.Name, err))
		}
	}
	return errors.Join(problems...)
}

// Layout takes in the image of an OCI image layout.
type Layout struct {
	Name string // of the artifact
	Path string // absolute path of the folder
}

// Build copies the image.
func (l Layout) Build(ctx context.Context, in build.Input) ([]build.Artifact, error) {
	a, err := build.TakeLayout(ctx, in, l.Name, l.Path)
	if err != nil {
		return nil, err
	}
	return []build.Artifact{a}, nil
}

// Check reports a folder that is not there.
func (l Layout) Check() error {
	if _, err := os.Stat(l.Path); err != nil {
		return fmt.Errorf("image %s: %w", l.Name, err)
	}
	return nil
}
