// SPDX-License-Identifier: Apache-2.0

// Package sbom is the seam to tools that look into an artifact and list its components.
package sbom

import (
	"context"
	"errors"

	"github.com/pawl-project/pawl/internal/evidence"
)

// ErrUnsupported reports an artifact that the tool cannot look into. It never means "no components".
var ErrUnsupported = errors.New("cannot look into this kind of artifact")

// Shape says what lies at a path.
type Shape string

// The shapes.
const (
	File   Shape = "file"   // one file: a binary, or an archive that is looked into
	Folder Shape = "folder" // a tree of files
	Layout Shape = "layout" // an OCI image layout; the digest names the image in it
)

// Source is an artifact on this machine's disk.
type Source struct {
	Shape   Shape
	Path    string
	Subject evidence.Subject
	// Declared are components that the maker of the artifact knows to be in it and that no tool can see, as in a firmware
	// image: name, version and package URL. They are marked as declared in the result.
	Declared []evidence.Component
}

// Maker lists the components of an artifact. It reads only, keeps no state, and the same bytes give the same list.
type Maker interface {
	Make(ctx context.Context, src Source) (evidence.SBOM, error)
}
