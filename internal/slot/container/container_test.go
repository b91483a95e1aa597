// SPDX-License-Identifier: Apache-2.0

//go:build unix

package container

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/registry/embedded"
	"github.com/pawl-project/pawl/internal/registry/oci"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/slot/slottest"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
)

var now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// shop is a registry with images and the key that signs them.
type shop struct {
	host   string
	client *oci.Client
	key    trusttest.Key
}

func newShop(t *testing.T) *shop {
	t.Helper()
	r, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return &shop{host: r.Host(), client: oci.New(oci.Options{DockerConfig: t.TempDir(), Pause: time.Millisecond}), key: trusttest.NewKey(t)}
}

// push stores an index with one image for linux/arm64 and one for linux/amd64, and signs it if a key is given.
func (s *shop) push(t *testing.T, name, text string, keys ...trusttest.Key) registry.Image {
	t.Helper()
	l, err := layout.Create(filepath.Join(t.TempDir(), "push"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(mediaType string, data []byte) ociv1.Descriptor {
		if _, err := l.Write(data); err != nil {
			t.Fatal(err)
		}
		return layout.Describe(mediaType, data)
	}
	encode := func(v any) []byte {
		data, err := layout.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	index := ociv1.Index{MediaType: layout.MediaTypeIndex}
	index.SchemaVersion = 2
	for _, arch := range []string{"arm64", "amd64"} {
		m := ociv1.Manifest{MediaType: layout.MediaTypeManifest, Config: write(ociv1.MediaTypeImageConfig, encode(map[string]string{"os": "linux", "architecture": arch}))}
		m.SchemaVersion = 2
		m.Layers = []ociv1.Descriptor{
			write(ociv1.MediaTypeImageLayer, bytes.Repeat([]byte("base"), 10_000)),
			write(ociv1.MediaTypeImageLayer, []byte(text+arch)),
		}
		d := write(layout.MediaTypeManifest, encode(m))
		d.Platform = &ociv1.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	d := write(layout.MediaTypeIndex, encode(index))
	sum, err := layout.DigestOf(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Add(d), l.Close()); err != nil {
		t.Fatal(err)
	}
	img := registry.Image{Repository: s.host + "/acme/" + name, Digest: sum}
	if err := s.client.Push(t.Context(), img, l.Dir(), nil); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := s.client.Sign(t.Context(), k, img, now); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func (s *shop) payload(v string, images ...registry.Image) slot.Payload {
	r := slottest.Release(v, statement.Container, "image", nil)
	a := &r.Artifacts[0]
	a.Digest, a.Size = digest.Set{SHA256: images[0].Digest}, 500
	for _, img := range images {
		a.Images = append(a.Images, img.Repository)
	}
	return slot.Payload{Release: r, Artifact: *a, Keys: []*ecdsa.PublicKey{s.key.PublicKey()}}
}

func (s *shop) open(t *testing.T, dir string, args ...string) *Slot {
	t.Helper()
	c, err := New(Options{Path: dir, Platform: "linux/arm64", Images: s.client, Restart: slot.Restart{Args: args}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContract(t *testing.T) {
	s := newShop(t)
	signed := map[string]registry.Image{}
	slottest.Run(t, slottest.Harness{
		New: func(t *testing.T, dir string) slot.Slot { return s.open(t, dir) },
		Payload: func(t *testing.T, v string) slot.Payload {
			if _, ok := signed[v]; !ok {
				signed[v] = s.push(t, "gateway", v, s.key)
			}
			return s.payload(v, signed[v])
		},
		Broken: func(t *testing.T, v string) map[string]slot.Payload {
			missing := s.push(t, "gateway", "x", s.key)
			missing.Digest = digest.Of([]byte("never pushed"))
			nowhere := s.payload(v, s.push(t, "gateway", "y", s.key))
			nowhere.Artifact.Images = nil
			keyless := s.payload(v, s.push(t, "gateway", "z", s.key))
			keyless.Keys = nil
			foreign := s.payload(v, s.push(t, "gateway", "w", s.key))
			foreign.Artifact.Digest.SHA256 = s.push(t, "gateway", "v", trusttest.NewKey(t)).Digest
			return map[string]slot.Payload{
				"unsigned":      s.payload(v, s.push(t, "unsigned", "u")),
				"other key":     s.payload(v, s.push(t, "thief", "t", trusttest.NewKey(t))),
				"other digest":  foreign,
				"missing":       s.payload(v, missing),
				"no repository": nowhere,
				"no key":        keyless,
			}
		},
	})
}

func TestUnsignedIsRefusedInWords(t *testing.T) {
	s := newShop(t)
	dir := filepath.Join(t.TempDir(), "slot")
	err := s.open(t, dir).Stage(t.Context(), s.payload("1.0.0", s.push(t, "thief", "t", trusttest.NewKey(t))))
	if refusal.Of(err) != refusal.Signature {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "layout")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("something was fetched: %v", err)
	}
}

// TestSecondRepository has an image that the first repository does not have, or not signed.
func TestSecondRepository(t *testing.T) {
	s := newShop(t)
	good := s.push(t, "mirror", "x", s.key)
	unsigned := s.push(t, "unsigned", "x")
	absent := registry.Image{Repository: s.host + "/acme/absent", Digest: good.Digest}
	dead := registry.Image{Repository: "127.0.0.1:1/acme/dead", Digest: good.Digest}
	out := filepath.Join(t.TempDir(), "out")
	c := s.open(t, filepath.Join(t.TempDir(), "slot"), "/bin/sh", "-c", `echo "$PAWL_PRODUCT $PAWL_VERSION $PAWL_IMAGE" > `+out+` && test -f "$PAWL_LAYOUT/index.json"`)
	p := s.payload("1.0.0", unsigned, absent, dead, good)
	if err := errors.Join(c.Stage(t.Context(), p), c.Activate(t.Context(), p), c.Check(t.Context())); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil || string(got) != "greeter 1.0.0 "+good.String()+"\n" {
		t.Fatalf("%q %v", got, err)
	}
	err = s.open(t, filepath.Join(t.TempDir(), "slot")).Stage(t.Context(), s.payload("1.0.0", absent, dead, unsigned))
	if refusal.Of(err) != refusal.Signature {
		t.Fatalf("got %v", err)
	}
}

func TestOnlyTheNeededImagesStay(t *testing.T) {
	s := newShop(t)
	dir := filepath.Join(t.TempDir(), "slot")
	c := s.open(t, dir)
	for _, v := range []string{"1.0.0", "1.0.1", "1.0.2", "1.0.3"} {
		p := s.payload(v, s.push(t, "gateway", v, s.key))
		if err := errors.Join(c.Stage(t.Context(), p), c.Activate(t.Context(), p), c.Confirm(t.Context(), p)); err != nil {
			t.Fatal(err)
		}
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "layout", "blobs", "sha256"))
	// Two indexes, two manifests, two layers of their own, one that is shared, one configuration: nothing for amd64.
	if err != nil || len(blobs) != 8 {
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
}

func TestDamageIsNoticed(t *testing.T) {
	s := newShop(t)
	dir := filepath.Join(t.TempDir(), "slot")
	c, p := s.open(t, dir), s.payload("1.0.0", s.push(t, "gateway", "x", s.key))
	blob := filepath.Join(dir, "layout", "blobs", "sha256", digest.Of([]byte("xarm64")).Hex())
	damage := func() {
		if err := os.WriteFile(blob, []byte("yarm64"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Stage(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	damage()
	if err := errors.Join(c.Stage(t.Context(), p), c.Activate(t.Context(), p), c.Check(t.Context())); err != nil {
		t.Fatal(err)
	}
	damage()
	if err := c.Check(t.Context()); refusal.Of(err) != refusal.Digest {
		t.Fatalf("got %v", err)
	}
}

func TestPointersAreReadStrictly(t *testing.T) {
	s := newShop(t)
	for name, text := range map[string]string{
		"empty":    "",
		"no image": "{}",
		"unknown":  `{"product":"a","version":"1.0.0","digest":"` + digest.Of(nil).String() + `","repository":"r/a","run":"` + digest.Of(nil).String() + `","x":1}`,
		"half":     `{"product":"a","version":"1.0.0","digest":"` + digest.Of(nil).String() + `"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "current.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.open(t, dir).Running(t.Context()); err == nil || errors.Is(err, slot.ErrNothing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{Path: "relative"}); err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Error(err)
	}
}
