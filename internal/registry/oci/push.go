// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
)

// errLocal marks errors of this machine's disk, which no second attempt mends.
var errLocal = errors.New("local error")

// cargo is everything that an image names: blobs first, then manifests, each after those that it names.
type cargo struct {
	blobs     []ociv1.Descriptor
	manifests []document
	seen      map[string]bool
}

// document is a manifest with its bytes.
type document struct {
	desc ociv1.Descriptor
	data []byte
}

func (k *cargo) total() int64 {
	var n int64
	for _, b := range k.blobs {
		n += b.Size
	}
	for _, m := range k.manifests {
		n += m.desc.Size
	}
	return n
}

// load adds the manifest desc and everything below it. fetch returns its verified bytes. keep chooses the entries of an
// index.
func (k *cargo) load(desc ociv1.Descriptor, depth int, fetch func(ociv1.Descriptor) (layout.Manifest, []byte, error), keep func([]ociv1.Descriptor) []ociv1.Descriptor) error {
	switch {
	case k.seen[string(desc.Digest)]:
		return nil
	case depth > maxIndexDepth:
		return refusal.New(refusal.Malformed, "image index", "indexes are nested more than %d deep", maxIndexDepth)
	case len(k.seen) > maxManifests*layout.MaxLayers:
		return refusal.New(refusal.Malformed, "image index", "it names more than %d things", maxManifests*layout.MaxLayers)
	}
	m, data, err := fetch(desc)
	if err != nil {
		return err
	}
	if k.seen == nil {
		k.seen = map[string]bool{}
	}
	k.seen[string(desc.Digest)] = true
	for _, child := range keep(m.Manifests) {
		if err := k.load(child, depth+1, fetch, keep); err != nil {
			return err
		}
	}
	for _, blob := range m.Blobs() {
		if !k.seen[string(blob.Digest)] {
			k.seen[string(blob.Digest)] = true
			k.blobs = append(k.blobs, blob)
		}
	}
	if len(k.manifests) >= maxManifests {
		return refusal.New(refusal.Malformed, "image index", "it names more than %d manifests", maxManifests)
	}
	k.manifests = append(k.manifests, document{desc, data})
	return nil
}

func all(list []ociv1.Descriptor) []ociv1.Descriptor { return list }

// Push copies an image from an OCI layout.
func (c *Client) Push(ctx context.Context, img registry.Image, dir string, progress registry.Progress) error {
	if err := c.push(ctx, img, dir, progress); err != nil {
		return fmt.Errorf("cannot push %s: %w", img, err)
	}
	return nil
}

func (c *Client) push(ctx context.Context, img registry.Image, dir string, progress registry.Progress) error {
	repo, err := c.repo(img.Repository)
	if err != nil {
		return err
	}
	l, err := layout.Open(dir)
	if err != nil {
		return err
	}
	defer l.Close()
	root, err := l.Find(img.Digest)
	if err != nil {
		return err
	}
	// Everything is read before anything is sent, so that an incomplete layout leaves no trace.
	var load cargo
	err = load.load(root, 0, func(d ociv1.Descriptor) (layout.Manifest, []byte, error) {
		sum, err := layout.DigestOf(d)
		if err != nil {
			return layout.Manifest{}, nil, err
		}
		return l.Manifest(d.MediaType, sum)
	}, all)
	if err != nil {
		return err
	}
	for _, b := range load.blobs {
		if err := present(l, b); err != nil {
			return err
		}
	}

	count := &counter{total: load.total(), report: progress}
	if there, err := c.Exists(ctx, img); err != nil {
		return err
	} else if there {
		count.set(count.total)
		return nil
	}
	for _, b := range load.blobs {
		if err := c.pushBlob(ctx, img.Repository, repo, b, l, count); err != nil {
			return err
		}
	}
	for _, m := range load.manifests {
		if err := repo.Manifests().Push(ctx, m.desc, bytes.NewReader(m.data)); err != nil {
			return explain(img.Repository, err)
		}
		count.add(m.desc.Size)
	}
	return nil
}

// present reports whether the blob is in the layout with the right size.
func present(l *layout.Layout, b ociv1.Descriptor) error {
	d, err := layout.DigestOf(b)
	if err != nil {
		return err
	}
	f, err := l.Blob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != b.Size {
		return refusal.New(refusal.Digest, "blob "+d.String()+" of "+l.Dir(), "%w: %d bytes, the manifest says %d", digest.ErrSize, info.Size(), b.Size)
	}
	return nil
}

func (c *Client) pushBlob(ctx context.Context, repository string, repo *remote.Repository, b ociv1.Descriptor, l *layout.Layout, count *counter) error {
	d, err := layout.DigestOf(b)
	if err != nil {
		return err
	}
	before := count.done
	none := func() int64 { return 0 } // an upload begins again from its first byte
	return c.again(ctx, none, func() error {
		count.set(before)
		there, err := repo.Blobs().Exists(ctx, b)
		if err != nil {
			return explain(repository, err)
		}
		if there {
			count.set(before + b.Size)
			return nil
		}
		f, err := l.Blob(d)
		if err != nil {
			return errors.Join(errLocal, err)
		}
		defer f.Close()
		err = repo.Blobs().Push(ctx, b, &checked{from: f, hash: sha256.New(), want: d, left: b.Size, count: count})
		return explain(repository, err)
	})
}

// checked reads a local blob and fails before its last byte if the blob is damaged: the registry would refuse it as well,
// but would not say where the damage is.
type checked struct {
	from  io.Reader
	hash  hash.Hash
	want  digest.SHA256
	left  int64
	count *counter
}

func (r *checked) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.hash.Write(p[:n])
	r.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, errors.Join(errLocal, err)
	}
	if r.left <= 0 || errors.Is(err, io.EOF) {
		if got := digest.SHA256(r.hash.Sum(nil)); got != r.want || r.left != 0 {
			return 0, refusal.New(refusal.Digest, "blob "+r.want.String()+" of the image layout", "%w: it has the bytes of %s", digest.ErrMismatch, got).
				Do("build the image again")
		}
	}
	r.count.add(int64(n))
	return n, err
}

// Tag makes a tag name the image.
func (c *Client) Tag(ctx context.Context, img registry.Image, tag string) error {
	if err := c.tag(ctx, img, tag); err != nil {
		return fmt.Errorf("cannot tag %s as %q: %w", img, tag, err)
	}
	return nil
}

func (c *Client) tag(ctx context.Context, img registry.Image, tag string) error {
	if err := registry.CheckTag(tag); err != nil {
		return err
	}
	repo, err := c.repo(img.Repository)
	if err != nil {
		return err
	}
	m, data, err := c.image(ctx, img)
	if err != nil {
		return err
	}
	return explain(img.Repository, repo.Manifests().PushReference(ctx, layout.Describe(m.MediaType, data), bytes.NewReader(data), tag))
}

// counter adds up progress.
type counter struct {
	done, total int64
	report      registry.Progress
}

func (c *counter) add(n int64) { c.set(c.done + n) }

func (c *counter) set(n int64) {
	c.done = n
	if c.report != nil {
		c.report(c.done, c.total)
	}
}
