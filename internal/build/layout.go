// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
)

// TakeLayout copies the one image of the OCI image layout in the folder at path into in.Out under name: every blob that
// is reachable from it, checked against its digest, and nothing else.
func TakeLayout(ctx context.Context, in Input, name, path string) (Artifact, error) {
	a, err := takeLayout(ctx, filepath.Join(in.Out, name), path)
	if err != nil {
		return Artifact{}, fmt.Errorf("image %s: %w", name, err)
	}
	a.Name = name
	return a, nil
}

func takeLayout(ctx context.Context, to, path string) (_ Artifact, err error) {
	src, err := layout.Open(path)
	if err != nil {
		return Artifact{}, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	images, err := src.Images()
	if err != nil {
		return Artifact{}, err
	}
	if n := len(images); n != 1 {
		return Artifact{}, fmt.Errorf("%s holds %d images, one is needed: put several platforms into one image index", path, n)
	}
	dst, err := layout.Create(to)
	if err != nil {
		return Artifact{}, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	// The tag and the notes of the engine that built it are nobody else's business.
	top := ociv1.Descriptor{MediaType: images[0].MediaType, Digest: images[0].Digest, Size: images[0].Size}
	if err := copyImage(ctx, dst, src, top); err != nil {
		return Artifact{}, err
	}
	if err := dst.Add(top); err != nil {
		return Artifact{}, err
	}
	return describe(dst, top)
}

// copyImage copies everything that the image or index d names.
func copyImage(ctx context.Context, dst, src *layout.Layout, d ociv1.Descriptor) error {
	return walk(src, d, func(sum digest.SHA256, size int64) error {
		return dst.Put(ctx, sum, size, func(offset int64) (io.ReadCloser, error) {
			f, err := src.Blob(sum)
			if err != nil {
				return nil, err
			}
			if _, err := f.Seek(offset, io.SeekStart); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		}, nil)
	})
}

// walk calls visit for every blob that the image or index d names, and for d last.
func walk(l *layout.Layout, d ociv1.Descriptor, visit func(sum digest.SHA256, size int64) error) error {
	top, err := layout.DigestOf(d)
	if err != nil {
		return err
	}
	manifest, _, err := l.Manifest(d.MediaType, top)
	if err != nil {
		return err
	}
	for _, child := range manifest.Manifests {
		if err := walk(l, child, visit); err != nil {
			return err
		}
	}
	for _, blob := range manifest.Blobs() {
		sum, err := layout.DigestOf(blob)
		if err != nil {
			return err
		}
		if err := visit(sum, blob.Size); err != nil {
			return err
		}
	}
	return visit(top, d.Size)
}

// Describe returns the one image of the layout in the folder at path as an artifact.
func Describe(name, path string) (_ Artifact, err error) {
	l, err := layout.Open(path)
	if err != nil {
		return Artifact{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	images, err := l.Images()
	if err != nil {
		return Artifact{}, err
	}
	if n := len(images); n != 1 {
		return Artifact{}, fmt.Errorf("%s holds %d images, one is needed", path, n)
	}
	a, err := describe(l, images[0])
	a.Name = name
	return a, err
}

func describe(l *layout.Layout, top ociv1.Descriptor) (Artifact, error) {
	sum, err := layout.DigestOf(top)
	if err != nil {
		return Artifact{}, err
	}
	data, err := l.Read(sum, layout.MaxManifest)
	if err != nil {
		return Artifact{}, err
	}
	return Artifact{Image: true, Digest: digest.SetOf(data), Size: int64(len(data)), MediaType: top.MediaType}, nil
}

// checkLayout reads every blob of the image again.
func checkLayout(path string, want digest.SHA256) (err error) {
	l, err := layout.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	top, err := l.Find(want)
	if err != nil {
		return err
	}
	return walk(l, top, func(sum digest.SHA256, size int64) error {
		f, err := l.Blob(sum)
		if err != nil {
			return err
		}
		return errors.Join(digest.Verify(nil, f, sum, size), f.Close())
	})
}
