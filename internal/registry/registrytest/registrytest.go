// SPDX-License-Identifier: Apache-2.0

// Package registrytest is the contract that every adapter to container registries keeps, and the images to try it with.
package registrytest

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

// At is the time of creation in the signatures of the suite.
var at = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// WriteImage makes an image in the layout dir and returns its digest. The layers are content.
func WriteImage(t testing.TB, dir string, content ...string) digest.SHA256 {
	t.Helper()
	l := create(t, dir)
	d := add(t, l, writeImage(t, l, "amd64", content))
	closeLayout(t, l)
	return d
}

// WriteIndex makes an index of one image for linux on each architecture in the layout dir and returns its digest.
func WriteIndex(t testing.TB, dir, content string, architectures ...string) digest.SHA256 {
	t.Helper()
	l := create(t, dir)
	index := ociv1.Index{MediaType: layout.MediaTypeIndex}
	index.SchemaVersion = 2
	for _, arch := range architectures {
		desc := writeImage(t, l, arch, []string{content + " for " + arch})
		desc.Platform = &ociv1.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, desc)
	}
	d := add(t, l, write(t, l, layout.MediaTypeIndex, index))
	closeLayout(t, l)
	return d
}

func create(t testing.TB, dir string) *layout.Layout {
	t.Helper()
	l, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLayout(t testing.TB, l *layout.Layout) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func writeImage(t testing.TB, l *layout.Layout, arch string, content []string) ociv1.Descriptor {
	t.Helper()
	config := ociv1.Image{Platform: ociv1.Platform{OS: "linux", Architecture: arch}}
	config.RootFS.Type = "layers"
	manifest := ociv1.Manifest{MediaType: layout.MediaTypeManifest, Layers: []ociv1.Descriptor{}}
	manifest.SchemaVersion = 2
	for _, text := range content {
		if _, err := l.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		desc := layout.Describe(ociv1.MediaTypeImageLayer, []byte(text))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, desc.Digest)
		manifest.Layers = append(manifest.Layers, desc)
	}
	manifest.Config = write(t, l, ociv1.MediaTypeImageConfig, config)
	return write(t, l, layout.MediaTypeManifest, manifest)
}

func write(t testing.TB, l *layout.Layout, mediaType string, v any) ociv1.Descriptor {
	t.Helper()
	data, err := layout.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write(data); err != nil {
		t.Fatal(err)
	}
	return layout.Describe(mediaType, data)
}

func add(t testing.TB, l *layout.Layout, desc ociv1.Descriptor) digest.SHA256 {
	t.Helper()
	if err := l.Add(desc); err != nil {
		t.Fatal(err)
	}
	d, err := layout.DigestOf(desc)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Open returns a client and "host:port" of an empty registry that it may write to.
type Open func(t *testing.T) (client registry.Registry, host string)

// Run checks the contract of registry.Registry.
func Run(t *testing.T, open Open) {
	t.Run("images", func(t *testing.T) { testImages(t, open) })
	t.Run("indexes", func(t *testing.T) { testIndexes(t, open) })
	t.Run("tags", func(t *testing.T) { testTags(t, open) })
	t.Run("absent", func(t *testing.T) { testAbsent(t, open) })
	t.Run("signatures", func(t *testing.T) { testSignatures(t, open) })
	t.Run("signatures of several", func(t *testing.T) { testSeveral(t, open) })
}

func testImages(t *testing.T, open Open) {
	r, host := open(t)
	dir := filepath.Join(t.TempDir(), "from")
	img := registry.Image{Repository: host + "/acme/greeter", Digest: WriteImage(t, dir, "one layer", "another layer", "one layer", "")}
	var last, total int64
	progress := func(done, all int64) {
		if done > all || total != 0 && all != total {
			t.Errorf("progress %d of %d", done, all)
		}
		last, total = done, all
	}
	for range 2 { // the second time everything is there
		last, total = 0, 0
		if err := r.Push(t.Context(), img, dir, progress); err != nil {
			t.Fatal(err)
		}
		if last != total || total == 0 {
			t.Fatalf("progress ends at %d of %d", last, total)
		}
	}
	if there, err := r.Exists(t.Context(), img); err != nil || !there {
		t.Fatalf("exists: %v, %v", there, err)
	}
	to := filepath.Join(t.TempDir(), "to")
	for range 2 {
		last, total = 0, 0
		got, err := r.Pull(t.Context(), img, to, "", progress)
		if err != nil || got != img {
			t.Fatalf("got %v, %v", got, err)
		}
		if last != total || total == 0 {
			t.Fatalf("progress ends at %d of %d", last, total)
		}
	}
	complete(t, to, img.Digest)

	// What came out can go in elsewhere: nothing was changed.
	moved := registry.Image{Repository: host + "/acme/moved", Digest: img.Digest}
	if err := r.Push(t.Context(), moved, to, nil); err != nil {
		t.Fatal(err)
	}
}

func testIndexes(t *testing.T, open Open) {
	r, host := open(t)
	dir := filepath.Join(t.TempDir(), "from")
	img := registry.Image{Repository: host + "/acme/multi", Digest: WriteIndex(t, dir, "content", "amd64", "arm64")}
	if err := r.Push(t.Context(), img, dir, nil); err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(t.TempDir(), "whole")
	if got, err := r.Pull(t.Context(), img, whole, "", nil); err != nil || got != img {
		t.Fatalf("got %v, %v", got, err)
	}
	complete(t, whole, img.Digest)

	one := filepath.Join(t.TempDir(), "one")
	got, err := r.Pull(t.Context(), img, one, "linux/arm64", nil)
	if err != nil || got.Repository != img.Repository || got.Digest == img.Digest {
		t.Fatalf("got %v, %v", got, err)
	}
	complete(t, one, got.Digest)
	if there, err := r.Exists(t.Context(), got); err != nil || !there {
		t.Fatalf("exists: %v, %v", there, err)
	}

	none := filepath.Join(t.TempDir(), "none")
	if _, err := r.Pull(t.Context(), img, none, "linux/riscv64", nil); refusal.Of(err) != refusal.WrongTarget {
		t.Fatalf("got %v", err)
	}
	if _, err := layout.Open(none); err == nil {
		t.Fatal("wrote something")
	}
}

// complete checks that the layout lists d, and holds everything that d names.
func complete(t *testing.T, dir string, d digest.SHA256) {
	t.Helper()
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	root, err := l.Find(d)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(ociv1.Descriptor)
	walk = func(desc ociv1.Descriptor) {
		sum, err := layout.DigestOf(desc)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := l.Manifest(desc.MediaType, sum)
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range m.Manifests {
			walk(child)
		}
		for _, blob := range m.Blobs() {
			sum, err := layout.DigestOf(blob)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Read(sum, blob.Size); err != nil {
				t.Fatal(err)
			}
		}
	}
	walk(root)
}

func testTags(t *testing.T, open Open) {
	r, host := open(t)
	repository := host + "/acme/tagged"
	var images []registry.Image
	for i := range 2 {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		img := registry.Image{Repository: repository, Digest: WriteImage(t, dir, fmt.Sprint("content ", i))}
		if err := r.Push(t.Context(), img, dir, nil); err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	if _, err := r.Resolve(t.Context(), repository, "1.0.0"); !errors.Is(err, registry.ErrNotExist) {
		t.Fatalf("a push has set a tag: %v", err)
	}
	for _, img := range images {
		for range 2 {
			if err := r.Tag(t.Context(), img, "1.0.0"); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := r.Resolve(t.Context(), repository, "1.0.0"); err != nil || got != img {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	for _, tag := range []string{"", "a/b", "../x", "-x", "sha256:x"} {
		if err := r.Tag(t.Context(), images[0], tag); err == nil {
			t.Errorf("tagged as %q", tag)
		}
		if _, err := r.Resolve(t.Context(), repository, tag); err == nil {
			t.Errorf("resolved %q", tag)
		}
	}
}

func testAbsent(t *testing.T, open Open) {
	r, host := open(t)
	dir := filepath.Join(t.TempDir(), "from")
	here := registry.Image{Repository: host + "/acme/here", Digest: WriteImage(t, dir, "content")}
	if err := r.Push(t.Context(), here, dir, nil); err != nil {
		t.Fatal(err)
	}
	for _, img := range []registry.Image{
		{Repository: host + "/acme/nothing", Digest: here.Digest},
		{Repository: here.Repository, Digest: digest.Of([]byte("nothing"))},
	} {
		if there, err := r.Exists(t.Context(), img); err != nil || there {
			t.Errorf("exists: %v, %v", there, err)
		}
		if err := r.Tag(t.Context(), img, "v1"); !errors.Is(err, registry.ErrNotExist) {
			t.Errorf("tag: %v", err)
		}
		to := filepath.Join(t.TempDir(), "to")
		if _, err := r.Pull(t.Context(), img, to, "", nil); !errors.Is(err, registry.ErrNotExist) {
			t.Errorf("pull: %v", err)
		}
		if err := r.Sign(t.Context(), signtest.New(t), img, at); !errors.Is(err, registry.ErrNotExist) {
			t.Errorf("sign: %v", err)
		}
		if _, err := r.Verify(t.Context(), keys(t), img); refusal.Of(err) != refusal.Signature {
			t.Errorf("verify: %v", err)
		}
	}
	if err := r.Push(t.Context(), registry.Image{Repository: here.Repository, Digest: digest.Of([]byte("nothing"))}, dir, nil); err == nil {
		t.Error("pushed what the layout does not list")
	}
	if _, err := r.Verify(t.Context(), keys(t), registry.Image{Repository: here.Repository}); err == nil {
		t.Error("verified no digest")
	}
}

func keys(t *testing.T) []*ecdsa.PublicKey {
	t.Helper()
	return []*ecdsa.PublicKey{signtest.New(t).PublicKey()}
}

func testSignatures(t *testing.T, open Open) {
	r, host := open(t)
	s := signtest.New(t)
	mine := []*ecdsa.PublicKey{s.PublicKey()}
	dir := filepath.Join(t.TempDir(), "from")
	img := registry.Image{Repository: host + "/acme/signed", Digest: WriteIndex(t, dir, "content", "amd64", "arm64")}
	if err := r.Push(t.Context(), img, dir, nil); err != nil {
		t.Fatal(err)
	}
	found, err := r.Verify(t.Context(), mine, img)
	if refusal.Of(err) != refusal.Signature || len(found) != 0 {
		t.Fatalf("an image without signatures: %v, %v", found, err)
	}
	images := []registry.Image{img}
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		one, err := r.Pull(t.Context(), img, filepath.Join(t.TempDir(), "to"), platform, nil)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, one)
	}
	for range 3 { // every further time nothing is added
		if err := r.Sign(t.Context(), s, img, at); err != nil {
			t.Fatal(err)
		}
		for _, one := range images {
			found, err := r.Verify(t.Context(), append(keys(t), mine...), one)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != 2 || !found.Valid(registry.Bundle) || !found.Valid(registry.Simple) {
				t.Fatalf("%s: found %v", one, found)
			}
		}
	}
	for name, trusted := range map[string][]*ecdsa.PublicKey{"another key": keys(t), "no key": nil} {
		if found, err := r.Verify(t.Context(), trusted, img); refusal.Of(err) != refusal.Signature || len(found) != 2 {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
	// The signature is for the digest, not for the name: the same index elsewhere has none.
	elsewhere := registry.Image{Repository: host + "/acme/elsewhere", Digest: img.Digest}
	if err := r.Push(t.Context(), elsewhere, dir, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(t.Context(), mine, elsewhere); refusal.Of(err) != refusal.Signature {
		t.Errorf("got %v", err)
	}
}

func testSeveral(t *testing.T, open Open) {
	r, host := open(t)
	dir := filepath.Join(t.TempDir(), "from")
	img := registry.Image{Repository: host + "/acme/shared", Digest: WriteImage(t, dir, "content")}
	if err := r.Push(t.Context(), img, dir, nil); err != nil {
		t.Fatal(err)
	}
	var trusted []*ecdsa.PublicKey
	for range 3 { // each signs beside the others, twice
		s := signtest.New(t)
		for range 2 {
			if err := r.Sign(t.Context(), s, img, at); err != nil {
				t.Fatal(err)
			}
		}
		trusted = append(trusted, s.PublicKey())
	}
	for _, key := range trusted {
		found, err := r.Verify(t.Context(), []*ecdsa.PublicKey{key}, img)
		if err != nil || len(found) != 6 || !found.Valid(registry.Bundle) || !found.Valid(registry.Simple) {
			t.Fatalf("found %v, %v", found, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Verify(ctx, trusted, img); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
