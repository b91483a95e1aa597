// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/trust"
)

// Stage implements Publisher.
func (r *Repository) Stage(ctx context.Context, d digest.SHA256, size int64, src io.Reader) error {
	if _, done, err := r.Staged(ctx, d, size); err != nil || done {
		return err
	}
	src = &verifying{src: src, want: d, size: size, hash: sha256.New()}
	return badUpload(d, fault.Around(ctx, "repository.stage", func() error { return r.blobs.Create(ctx, stagedName(d), src) }))
}

// Staged reports whether the bytes are staged, or how many of them have arrived in pieces.
func (r *Repository) Staged(ctx context.Context, d digest.SHA256, size int64) (received int64, done bool, err error) {
	if size < 1 || size > MaxTarget {
		return 0, false, refusal.New(refusal.Malformed, "upload "+d.String(), "%d bytes, 1 to %d are allowed", size, int64(MaxTarget))
	}
	info, err := r.blobs.Stat(ctx, stagedName(d))
	switch {
	case err == nil && info.Size != size:
		return 0, false, refusal.New(refusal.Digest, "upload "+d.String(), "%w: %d bytes are staged, %d are announced", digest.ErrSize, info.Size, size)
	case err == nil:
		return size, true, nil
	case !errors.Is(err, blob.ErrNotExist):
		return 0, false, err
	}
	if up, ok := r.blobs.(blob.Uploader); ok {
		received, err = up.Received(ctx, stagedName(d))
	}
	return received, false, err
}

// StagePart takes the bytes of an upload from offset on and returns how many have arrived, also beside an error of src.
// The offset must be what Staged returns; another one is blob.ErrChanged. With the last byte everything is hashed and
// staged; bytes that are not those that were announced are refused and forgotten.
func (r *Repository) StagePart(ctx context.Context, d digest.SHA256, size, offset int64, src io.Reader) (received int64, done bool, err error) {
	if received, done, err := r.Staged(ctx, d, size); err != nil || done {
		return received, done, err
	}
	up, ok := r.blobs.(blob.Uploader)
	if !ok {
		if offset != 0 {
			return 0, false, fmt.Errorf("upload %s: %w: pieces are not kept here", d, blob.ErrChanged)
		}
		if err := r.Stage(ctx, d, size, src); err != nil {
			return 0, false, err
		}
		return size, true, nil
	}
	if offset < 0 || offset > size {
		return 0, false, fmt.Errorf("upload %s: %w: %d of %d bytes", d, blob.ErrOffset, offset, size)
	}
	received, err = up.Continue(ctx, stagedName(d), offset, io.LimitReader(src, size-offset))
	if err != nil || received < size {
		return received, false, err
	}
	err = fault.Around(ctx, "repository.stage", func() error {
		return up.Complete(ctx, stagedName(d), func(src io.Reader) error { return digest.Verify(nil, src, d, size) })
	})
	if err != nil {
		return 0, false, badUpload(d, err)
	}
	return size, true, nil
}

func badUpload(d digest.SHA256, err error) error {
	if errors.Is(err, digest.ErrMismatch) || errors.Is(err, digest.ErrSize) {
		return refusal.New(refusal.Digest, "upload "+d.String(), "%w", err).Do("upload the file that was signed")
	}
	return err
}

// verifying is a source that fails instead of ending if its bytes are not those that were named.
type verifying struct {
	src  io.Reader
	want digest.SHA256
	size int64
	n    int64
	hash hash.Hash
}

func (v *verifying) Read(p []byte) (int, error) {
	n, err := v.src.Read(p)
	v.hash.Write(p[:n])
	if v.n += int64(n); v.n > v.size {
		return n, fmt.Errorf("%w: more than the %d bytes that were announced", digest.ErrSize, v.size)
	}
	if errors.Is(err, io.EOF) {
		if v.n < v.size {
			return n, fmt.Errorf("%w: %d of the %d bytes that were announced", digest.ErrSize, v.n, v.size)
		}
		if got := digest.SHA256(v.hash.Sum(nil)); got != v.want {
			return n, fmt.Errorf("%w: announced %s, got %s", digest.ErrMismatch, v.want, got)
		}
	}
	return n, err
}

// keepVersions is how many versions of a snapshot and of a product's role are kept behind the newest. A device that began
// a refresh a moment ago still reads the one before; older ones nobody asks for.
const keepVersions = 10

// Sweep deletes what nobody needs any more: staged bytes that nobody published since before, and old versions of
// snapshots and roles. It returns how many blobs it deleted. Roots, top-level targets and targets stay for ever.
func (r *Repository) Sweep(ctx context.Context, before time.Time) (int, error) {
	if err := r.recover(ctx); err != nil {
		return 0, err
	}
	cur, err := r.load(ctx)
	if err != nil {
		return 0, err
	}
	var names []string
	err = r.blobs.List(ctx, stagingDir, func(info blob.Info) error {
		if info.Name != recordName && info.Modified.Before(before) {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = r.blobs.List(ctx, "metadata/", func(info blob.Info) error {
		version, role, ok := parseName(info.Name)
		newest := cur.snapshot.Roles[role].Version
		switch role {
		case trust.RootRole, trust.TargetsRole, trust.TimestampRole:
			return nil
		case trust.SnapshotRole:
			newest = cur.snapshot.Version
		}
		if ok && version < newest-keepVersions && info.Modified.Before(before) {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for i, name := range names {
		if err := r.blobs.Delete(ctx, name); err != nil {
			return i, err
		}
	}
	return len(names), nil
}

// parseName reads "metadata/<version>.<role>.json".
func parseName(name string) (version int64, role string, ok bool) {
	base, ok := strings.CutSuffix(strings.TrimPrefix(name, "metadata/"), ".json")
	number, role, found := strings.Cut(base, ".")
	version, err := strconv.ParseInt(number, 10, 64)
	return version, role, ok && found && err == nil
}
