// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
)

// maxWalk bounds the manifests of one image, through all its indexes.
const maxWalk = 1024

// Keep removes every image that is not named, and every byte that no named one needs: blobs, and what is left of
// downloads that were cut off. A named digest that index.json does not list keeps only its own bytes.
func (l *Layout) Keep(ctx context.Context, images ...digest.SHA256) error {
	entries, err := l.Images()
	if err != nil {
		return err
	}
	needed := map[digest.SHA256]bool{}
	for _, d := range images {
		needed[d] = true
	}
	var kept []ociv1.Descriptor
	for _, e := range entries {
		d, err := DigestOf(e)
		if err != nil {
			return err
		}
		if !slices.Contains(images, d) {
			continue
		}
		kept = append(kept, e)
		if err := l.walk(ctx, e, func(d digest.SHA256, _ int64) error { needed[d] = true; return nil }); err != nil {
			return err
		}
	}
	// The list comes first: an image that is listed is whole.
	if len(kept) < len(entries) {
		if err := l.writeIndex(kept); err != nil {
			return err
		}
	}
	for _, dir := range []string{blobDir, partialDir} {
		files, err := fs.ReadDir(l.root.FS(), dir)
		if err != nil {
			return fmt.Errorf("cannot tidy image layout: %w", err)
		}
		for _, f := range files {
			d, err := digest.ParseHex(f.Name())
			if dir == blobDir && err == nil && needed[d] {
				continue
			}
			if err := durable.RemoveIn(l.root, dir+"/"+f.Name()); err != nil {
				return fmt.Errorf("cannot tidy image layout: %w", err)
			}
		}
	}
	return nil
}

// Check reads a listed image and compares every byte with the digest that names it. A difference is a refusal of class
// Digest; an image that is not listed is fs.ErrNotExist.
func (l *Layout) Check(ctx context.Context, image digest.SHA256) error {
	e, err := l.Find(image)
	if err != nil {
		return err
	}
	return l.walk(ctx, e, func(d digest.SHA256, size int64) error {
		f, err := l.root.Open(blobName(d))
		if err == nil {
			err = digest.Verify(nil, f, d, size)
			f.Close()
		}
		if err != nil {
			return refusal.New(refusal.Digest, "blob "+d.String()+" of image "+image.String(), "%w", err).
				Do("it was changed on this machine, or its disk is damaged")
		}
		return nil
	})
}

// walk calls fn for an entry and everything below it, what names others first.
func (l *Layout) walk(ctx context.Context, entry ociv1.Descriptor, fn func(digest.SHA256, int64) error) error {
	todo, seen := []ociv1.Descriptor{entry}, map[digest.SHA256]bool{}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := todo[0]
		todo = todo[1:]
		d, err := DigestOf(e)
		if err != nil {
			return err
		}
		if seen[d] {
			continue
		}
		seen[d] = true
		if len(seen) > maxWalk {
			return malformed("image layout "+l.dir, "more than %d manifests in one image", maxWalk)
		}
		if err := fn(d, e.Size); err != nil {
			return err
		}
		m, _, err := l.Manifest(e.MediaType, d)
		if err != nil {
			return err
		}
		todo = append(todo, m.Manifests...)
		for _, b := range m.Blobs() {
			d, err := DigestOf(b)
			if err != nil {
				return err
			}
			if err := fn(d, b.Size); err != nil {
				return err
			}
		}
	}
	return nil
}
