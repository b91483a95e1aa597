// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
)

func create(t *testing.T) *Layout {
	t.Helper()
	l, err := Create(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// from serves data and remembers the offsets that were asked for.
func from(data []byte, asked *[]int64) func(int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) {
		*asked = append(*asked, offset)
		return io.NopCloser(bytes.NewReader(data[offset:])), nil
	}
}

func TestPut(t *testing.T) {
	for _, size := range []int{0, 1, 1 << 20, 3<<20 + 7} {
		l := create(t)
		data := bytes.Repeat([]byte("x"), size)
		d := digest.Of(data)
		var asked []int64
		var last int64
		for range 2 {
			if err := l.Put(t.Context(), d, int64(size), from(data, &asked), func(n int64) { last = n }); err != nil {
				t.Fatal(err)
			}
		}
		if last != int64(size) || len(asked) > 1 {
			t.Errorf("%d bytes: progress ends at %d, opened at %v", size, last, asked)
		}
		if got, err := l.Read(d, int64(size)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestPutGoesOnWhereItStopped(t *testing.T) {
	l := create(t)
	data := bytes.Repeat([]byte("0123456789"), 300000)
	d, size := digest.Of(data), int64(len(data))
	torn := errors.New("connection lost")
	cut := size / 2
	err := l.Put(t.Context(), d, size, func(int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:cut]), iotest.ErrReader(torn))), nil
	}, nil)
	if !errors.Is(err, torn) || refusal.Of(err) != "" {
		t.Fatalf("got %v", err)
	}
	var asked []int64
	if err := l.Put(t.Context(), d, size, from(data, &asked), nil); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || asked[0] != cut {
		t.Fatalf("asked for the bytes from %v on, want %d", asked, cut)
	}
	if got, err := l.Read(d, size); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
}

func TestPutDoesNotTrustWhatACrashLeft(t *testing.T) {
	l := create(t)
	data := []byte("the right bytes")
	d := digest.Of(data)
	for _, left := range []string{"the wrong", "the right bytez", "much more than the right bytes"} {
		if err := os.WriteFile(filepath.Join(l.Dir(), partialDir, d.Hex()), []byte(left), 0o644); err != nil {
			t.Fatal(err)
		}
		var asked []int64
		err := l.Put(t.Context(), d, int64(len(data)), from(data, &asked), nil)
		if len(left) <= len(data) {
			if refusal.Of(err) != refusal.Digest {
				t.Fatalf("%q: got %v", left, err)
			}
			err = l.Put(t.Context(), d, int64(len(data)), from(data, &asked), nil)
		}
		if err != nil {
			t.Fatalf("%q: %v", left, err)
		}
		if err := os.Remove(filepath.Join(l.Dir(), blobName(d))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	data := []byte("the right bytes")
	d, size := digest.Of(data), int64(len(data))
	lost := errors.New("lost")
	reader := func(r io.Reader) func(int64) (io.ReadCloser, error) {
		return func(int64) (io.ReadCloser, error) { return io.NopCloser(r), nil }
	}
	for name, c := range map[string]struct {
		open func(int64) (io.ReadCloser, error)
		want refusal.Class
		is   error
	}{
		"other bytes": {reader(strings.NewReader("the wrong bytes")), refusal.Digest, digest.ErrMismatch},
		"too many":    {reader(strings.NewReader("the right bytes and more")), refusal.Digest, digest.ErrSize},
		"endless":     {reader(endless{}), refusal.Digest, digest.ErrSize},
		"too few":     {reader(strings.NewReader("the right")), "", digest.ErrSize},
		"unreachable": {func(int64) (io.ReadCloser, error) { return nil, lost }, "", lost},
	} {
		t.Run(name, func(t *testing.T) {
			l := create(t)
			err := l.Put(t.Context(), d, size, c.open, nil)
			if refusal.Of(err) != c.want || !errors.Is(err, c.is) {
				t.Fatalf("got %v", err)
			}
			if _, err := l.Blob(d); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the blob is there: %v", err)
			}
			var asked []int64
			if err := l.Put(t.Context(), d, size, from(data, &asked), nil); err != nil {
				t.Fatalf("the next try: %v", err)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var asked []int64
		if err := create(t).Put(ctx, d, size, from(data, &asked), nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestDamageIsFoundAndRepaired(t *testing.T) {
	l := create(t)
	data := []byte("some bytes")
	d, err := l.Write(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir(), blobName(d)), []byte("some bytez"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(d, 100); refusal.Of(err) != refusal.Digest {
		t.Fatalf("got %v", err)
	}
	var asked []int64
	if err := l.Put(t.Context(), d, int64(len(data)), from(data, &asked), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(d, 100); err != nil {
		t.Fatal(err)
	}
}

func TestAddAndFind(t *testing.T) {
	l := create(t)
	manifest := []byte(exampleManifest)
	d, err := l.Write(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Find(d); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	for range 2 {
		if err := l.Add(Describe(MediaTypeManifest, manifest)); err != nil {
			t.Fatal(err)
		}
	}
	images, err := l.Images()
	if err != nil || len(images) != 1 {
		t.Fatalf("got %v, %v", images, err)
	}
	reader, err := Open(l.Dir()) // while the writer is at work
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	entry, err := reader.Find(d)
	if err != nil {
		t.Fatal(err)
	}
	if m, got, err := reader.Manifest(entry.MediaType, d); err != nil || !bytes.Equal(got, manifest) || len(m.Layers) != 1 {
		t.Fatalf("got %+v, %v", m, err)
	}
}

func TestCreateAndOpenRefuse(t *testing.T) {
	t.Run("somebody's folder", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(dir); refusal.Of(err) != refusal.Conflict {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("two writers", func(t *testing.T) {
		l := create(t)
		if _, err := Create(l.Dir()); refusal.Of(err) != refusal.Busy {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("empty folder", func(t *testing.T) {
		if _, err := Open(t.TempDir()); refusal.Of(err) != refusal.Malformed {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		if _, err := Open(filepath.Join(t.TempDir(), "no")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a layout of tomorrow", func(t *testing.T) {
		l := create(t)
		if err := os.WriteFile(filepath.Join(l.Dir(), markFile), []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(l.Dir()); refusal.Of(err) != refusal.Malformed {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a link out of it", func(t *testing.T) {
		l := create(t)
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(secret, filepath.Join(l.Dir(), blobName(digest.Of([]byte("secret"))))); err != nil {
			t.Fatal(err)
		}
		if data, err := l.Read(digest.Of([]byte("secret")), 100); err == nil {
			t.Fatalf("read %q through a link", data)
		}
	})
}

// TestReopenAfterEveryPartOfCreate begins with what a crash during Create can leave.
func TestReopenAfterEveryPartOfCreate(t *testing.T) {
	for _, missing := range [][]string{{markFile}, {markFile, indexFile}, {markFile, indexFile, partialDir}, {markFile, indexFile, partialDir, "blobs"}} {
		l := create(t)
		dir := l.Dir()
		for _, name := range missing {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.lock.Unlock(); err != nil {
			t.Fatal(err)
		}
		l.lock = nil
		again, err := Create(dir)
		if err != nil {
			t.Fatalf("without %v: %v", missing, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	emptyDigest     = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	exampleEntry    = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + emptyDigest + `","size":2}`
	exampleManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + exampleEntry + `,"layers":[` + exampleEntry + `]}`
	exampleIndex    = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + exampleEntry + `]}`
)

func TestParseManifest(t *testing.T) {
	m, err := ParseManifest(MediaTypeManifest, []byte(exampleManifest))
	if err != nil || m.IsIndex() || len(m.Layers) != 1 || len(m.Blobs()) != 1 {
		t.Fatalf("got %+v, %v", m, err)
	}
	m, err = ParseManifest(MediaTypeIndex, []byte(exampleIndex))
	if err != nil || !m.IsIndex() || len(m.Manifests) != 1 || len(m.Blobs()) != 0 {
		t.Fatalf("got %+v, %v", m, err)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	for name, c := range map[string]struct{ mediaType, from, old, new string }{
		"image as index":         {MediaTypeIndex, exampleManifest, "", ""},
		"index as image":         {MediaTypeManifest, exampleIndex, "", ""},
		"image with manifests":   {MediaTypeManifest, exampleManifest, `"layers"`, `"manifests":[],"layers"`},
		"index with a config":    {MediaTypeIndex, exampleIndex, `"manifests"`, `"config":` + exampleEntry + `,"manifests"`},
		"index with layers":      {MediaTypeIndex, exampleIndex, `"manifests"`, `"layers":[],"manifests"`},
		"silent about its type":  {MediaTypeIndex, exampleManifest, `"mediaType":"application/vnd.oci.image.manifest.v1+json",`, ``},
		"another media type":     {"application/json", exampleManifest, "", ""},
		"schema 1":               {MediaTypeManifest, exampleManifest, `"schemaVersion":2`, `"schemaVersion":1`},
		"duplicate member":       {MediaTypeManifest, exampleManifest, `"layers"`, `"layers":[],"layers"`},
		"another hash":           {MediaTypeManifest, exampleManifest, "sha256:", "sha512:"},
		"a path as digest":       {MediaTypeManifest, exampleManifest, emptyDigest, "sha256:../../../../etc/passwd"},
		"negative size":          {MediaTypeManifest, exampleManifest, `"size":2`, `"size":-2`},
		"no config":              {MediaTypeManifest, exampleManifest, `"config"`, `"configuration"`},
		"too many layers":        {MediaTypeManifest, exampleManifest, `"layers":[`, `"layers":[` + strings.Repeat(exampleEntry+",", MaxLayers)},
		"too many manifests":     {MediaTypeIndex, exampleIndex, `"manifests":[`, `"manifests":[` + strings.Repeat(exampleEntry+",", MaxManifests)},
		"too large":              {MediaTypeIndex, exampleIndex, `{"schema`, strings.Repeat(" ", MaxManifest) + `{"schema`},
		"subject without digest": {MediaTypeManifest, exampleManifest, `"layers"`, `"subject":{"size":1},"layers"`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(c.from, c.old, c.new, 1)
			if m, err := ParseManifest(c.mediaType, []byte(bad)); refusal.Of(err) != refusal.Malformed {
				t.Fatalf("got %+v, %v", m, err)
			}
		})
	}
}

func TestPlatform(t *testing.T) {
	for want, p := range map[string]*ociv1.Platform{
		"":             nil,
		"linux/amd64":  {OS: "linux", Architecture: "amd64"},
		"linux/arm/v7": {OS: "linux", Architecture: "arm", Variant: "v7"},
	} {
		if got := Platform(ociv1.Descriptor{Platform: p}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestIsFor(t *testing.T) {
	entry := func(os, arch, variant string) ociv1.Descriptor {
		return ociv1.Descriptor{Platform: &ociv1.Platform{OS: os, Architecture: arch, Variant: variant}}
	}
	for _, c := range []struct {
		d        ociv1.Descriptor
		platform string
		want     bool
	}{
		{entry("linux", "amd64", ""), "linux/amd64", true},
		{entry("linux", "arm64", "v8"), "linux/arm64", true},
		{entry("linux", "arm64", ""), "linux/arm64/v8", true},
		{entry("linux", "arm", "v7"), "linux/arm", true},
		{entry("linux", "arm", "v6"), "linux/arm", false},
		{entry("linux", "arm", "v6"), "linux/arm/v7", false},
		{entry("windows", "amd64", ""), "linux/amd64", false},
		{entry("unknown", "unknown", ""), "linux/amd64", false},
		{ociv1.Descriptor{}, "", false},
	} {
		if got := IsFor(c.d, c.platform); got != c.want {
			t.Errorf("%s for %s: %v", Platform(c.d), c.platform, got)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add(MediaTypeManifest, []byte(exampleManifest))
	f.Add(MediaTypeIndex, []byte(exampleIndex))
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		m, err := ParseManifest(mediaType, data)
		if err != nil {
			if refusal.Of(err) != refusal.Malformed {
				t.Fatalf("got %v", err)
			}
			return
		}
		for _, d := range append(m.Blobs(), m.Manifests...) {
			if _, err := DigestOf(d); err != nil || d.Size < 0 {
				t.Fatalf("accepted %+v", d)
			}
		}
		for _, other := range ManifestTypes() {
			if _, err := ParseManifest(other, data); err == nil && isIndex(other) != isIndex(mediaType) {
				t.Fatalf("is an image and an index: %s", data)
			}
		}
	})
}
