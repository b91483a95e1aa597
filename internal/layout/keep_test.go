// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
)

// put stores an image of these layers and lists it.
func put(t *testing.T, l *Layout, layers ...string) digest.SHA256 {
	t.Helper()
	blob := func(mediaType, text string) ociv1.Descriptor {
		if _, err := l.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return Describe(mediaType, []byte(text))
	}
	m := ociv1.Manifest{MediaType: MediaTypeManifest, Config: blob(ociv1.MediaTypeImageConfig, "{}")}
	m.SchemaVersion = 2
	for _, text := range layers {
		m.Layers = append(m.Layers, blob(ociv1.MediaTypeImageLayer, text))
	}
	data, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Add(blob(MediaTypeManifest, string(data))); err != nil {
		t.Fatal(err)
	}
	return digest.Of(data)
}

func TestKeep(t *testing.T) {
	l := create(t)
	one, two, three := put(t, l, "shared", "one"), put(t, l, "shared", "two"), put(t, l, "three")
	loose, err := l.Write([]byte("an index that is not listed"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir(), partialDir, one.Hex()), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Keep(t.Context(), two, three, loose); err != nil {
			t.Fatal(err)
		}
		entries, err := l.Images()
		if err != nil || len(entries) != 2 {
			t.Fatalf("%d images, %v", len(entries), err)
		}
		for _, d := range []digest.SHA256{two, three} {
			if err := l.Check(t.Context(), d); err != nil {
				t.Error(err)
			}
		}
		if err := l.Check(t.Context(), one); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		blobs, err := os.ReadDir(filepath.Join(l.Dir(), blobDir))
		if err != nil || len(blobs) != 7 { // 2 manifests, 3 layers, 1 configuration, the loose one
			t.Fatalf("%d blobs, %v", len(blobs), err)
		}
	}
	if err := l.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if blobs, err := os.ReadDir(filepath.Join(l.Dir(), blobDir)); err != nil || len(blobs) != 0 {
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
}

func TestCheckNoticesDamage(t *testing.T) {
	l := create(t)
	image := put(t, l, "a layer")
	name := filepath.Join(l.Dir(), blobName(digest.Of([]byte("a layer"))))
	if err := os.WriteFile(name, []byte("A layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(t.Context(), image); refusal.Of(err) != refusal.Digest {
		t.Fatalf("got %v", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(t.Context(), image); refusal.Of(err) != refusal.Digest {
		t.Fatalf("got %v", err)
	}
}
