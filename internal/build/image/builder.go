// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pawl-project/pawl/internal/build"
)

// Builder makes an image as the artifact of a release.
type Builder struct {
	Name string // of the artifact
	Spec Spec
}

// Build makes the image.
func (b Builder) Build(ctx context.Context, in build.Input) ([]build.Artifact, error) {
	path := filepath.Join(in.Out, b.Name)
	if _, err := Write(ctx, path, b.Spec); err != nil {
		return nil, fmt.Errorf("image %s: %w", b.Name, err)
	}
	a, err := build.Describe(b.Name, path)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", b.Name, err)
	}
	return []build.Artifact{a}, nil
}

// Check reports files and a base image that are not there.
func (b Builder) Check() error {
	var problems []error
	paths := []string{}
	if b.Spec.Base != "" {
		paths = append(paths, b.Spec.Base)
	}
	for _, f := range b.Spec.Files {
		paths = append(paths, f.Path)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			problems = append(problems, fmt.Errorf("image %s: %w", b.Name, err))
		}
	}
	return errors.Join(problems...)
}
