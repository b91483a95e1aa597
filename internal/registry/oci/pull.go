// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
)

// Pull copies an image to an OCI layout.
func (c *Client) Pull(ctx context.Context, img registry.Image, dir, platform string, progress registry.Progress) (registry.Image, error) {
	run, err := c.pull(ctx, img, dir, platform, progress)
	if err != nil {
		return registry.Image{}, fmt.Errorf("cannot pull %s: %w", img, err)
	}
	return run, nil
}

func (c *Client) pull(ctx context.Context, img registry.Image, dir, platform string, progress registry.Progress) (registry.Image, error) {
	repo, err := c.repo(img.Repository)
	if err != nil {
		return registry.Image{}, err
	}
	root, rootData, err := c.image(ctx, img)
	if err != nil {
		return registry.Image{}, err
	}
	rootDesc := layout.Describe(root.MediaType, rootData)

	// What is wanted: all of it, or the one entry of an index that is for the platform.
	want, run := rootDesc, img
	if root.IsIndex() && platform != "" {
		if want, err = choose(root.Manifests, platform); err != nil {
			return registry.Image{}, err
		}
		if run.Digest, err = layout.DigestOf(want); err != nil {
			return registry.Image{}, err
		}
	}
	var load cargo
	err = load.load(want, 0, func(d ociv1.Descriptor) (layout.Manifest, []byte, error) {
		if d.Digest == rootDesc.Digest {
			return root, rootData, nil
		}
		return c.child(ctx, img.Repository, d)
	}, all)
	if err != nil {
		return registry.Image{}, err
	}

	l, err := layout.Create(dir)
	if err != nil {
		return registry.Image{}, err
	}
	if err := c.store(ctx, img.Repository, repo, l, load, &counter{total: load.total(), report: progress}); err != nil {
		return registry.Image{}, errors.Join(err, l.Close())
	}
	// The index that was asked for is kept beside the one image of it: it is what was signed.
	if _, err := l.Write(rootData); err != nil {
		return registry.Image{}, errors.Join(err, l.Close())
	}
	if err := l.Add(want); err != nil {
		return registry.Image{}, errors.Join(err, l.Close())
	}
	return run, l.Close()
}

// choose returns the first entry for the platform.
func choose(entries []ociv1.Descriptor, platform string) (ociv1.Descriptor, error) {
	var have []string
	for _, e := range entries {
		if layout.IsFor(e, platform) {
			return e, nil
		}
		have = append(have, layout.Platform(e))
	}
	return ociv1.Descriptor{}, refusal.New(refusal.WrongTarget, "image index", "it has no image for %s, only for %s", platform, clean(fmt.Sprintf("%q", have)))
}

// child fetches a manifest that another one names: media type and size are then known and compared.
func (c *Client) child(ctx context.Context, repository string, d ociv1.Descriptor) (layout.Manifest, []byte, error) {
	sum, err := layout.DigestOf(d)
	if err != nil {
		return layout.Manifest{}, nil, err
	}
	m, data, err := c.image(ctx, registry.Image{Repository: repository, Digest: sum})
	if err != nil {
		return layout.Manifest{}, nil, err
	}
	if m.MediaType != d.MediaType || int64(len(data)) != d.Size {
		return layout.Manifest{}, nil, refusal.New(refusal.Malformed, "manifest "+sum.String(), "%q of %d bytes, the index says %q of %d", m.MediaType, len(data), clean(d.MediaType), d.Size)
	}
	return m, data, nil
}

// store writes blobs, then manifests.
func (c *Client) store(ctx context.Context, repository string, repo *remote.Repository, l *layout.Layout, load cargo, count *counter) error {
	for _, b := range load.blobs {
		d, err := layout.DigestOf(b)
		if err != nil {
			return err
		}
		before := count.done
		open := func(offset int64) (io.ReadCloser, error) {
			body, err := openBlob(ctx, repo, b, offset)
			return body, explain(repository, err)
		}
		err = c.again(ctx, func() int64 { return count.done }, func() error {
			err := l.Put(ctx, d, b.Size, open, func(n int64) { count.set(before + n) })
			var local *fs.PathError
			if errors.As(err, &local) {
				return errors.Join(err, errLocal)
			}
			return err
		})
		if err != nil {
			return err
		}
		count.set(before + b.Size)
	}
	for _, m := range load.manifests {
		if _, err := l.Write(m.data); err != nil {
			return err
		}
		count.add(m.desc.Size)
	}
	return nil
}

// openBlob opens the bytes of a blob from offset on, with a range request where the registry knows them.
func openBlob(ctx context.Context, repo *remote.Repository, b ociv1.Descriptor, offset int64) (io.ReadCloser, error) {
	body, err := repo.Blobs().Fetch(ctx, b)
	if err != nil || offset == 0 {
		return body, err
	}
	if s, ok := body.(io.Seeker); ok {
		_, err = s.Seek(offset, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, body, offset)
	}
	if err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return body, nil
}
