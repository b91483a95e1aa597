// SPDX-License-Identifier: Apache-2.0

// Package slot is the seam to the places where an agent installs: versioned folders, containers, partitions.
//
// A slot owns four moments. Stage brings verified bytes beside what runs, without touching it. Activate makes them what
// runs. Confirm makes that final and lets go of what is no longer needed. Revert goes back. Each may be interrupted at
// any instant and called again with the same arguments: the second call finishes what the first one began.
package slot

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"io"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// ErrNothing reports a slot in which nothing is installed, or nothing to go back to.
var ErrNothing = errors.New("nothing is installed")

// Payload is the artifact to install. Its statement has been verified; its bytes have not.
type Payload struct {
	Release  statement.Release
	Artifact statement.Artifact
	// Keys are the release keys of the product: a slot that fetches images by itself checks their signatures with them.
	Keys []*ecdsa.PublicKey
	// Open returns the bytes from offset on. It is nil for images, which are fetched from their registries. The slot
	// checks size and digest of all bytes, also of those that an earlier, interrupted Stage had written.
	Open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	// Progress, if set, is called with the number of bytes that are in place, from another goroutine and never twice at a
	// time.
	Progress func(done int64)
}

// Running is what a slot runs, as the slot itself sees it and not as it was told.
type Running struct {
	Version version.Version
	Digest  digest.SHA256
}

// Slot installs one product. Calls are never concurrent.
type Slot interface {
	// Stage is done when the verified bytes are durable beside what runs. Every error leaves what runs untouched.
	Stage(ctx context.Context, p Payload) error
	// Activate makes the staged release what runs. What ran before is kept for Revert.
	Activate(ctx context.Context, p Payload) error
	// Confirm ends the trial of p: older releases than the one before it are removed.
	Confirm(ctx context.Context, p Payload) error
	// Revert makes the release that ran before p run again; ErrNothing if there is none.
	Revert(ctx context.Context, p Payload) error
	// Running returns what runs; ErrNothing if nothing does.
	Running(ctx context.Context) (Running, error)
}

// Checker is a slot that can compare what runs with what was signed, byte by byte. ErrNothing if nothing runs; a
// difference is a refusal of class Digest.
type Checker interface {
	Check(ctx context.Context) error
}
