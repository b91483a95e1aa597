// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
)

// tree writes files and returns their folder. Names that end with "*" are executable.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		mode := fs.FileMode(0o600)
		if s, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = s, 0o711
		}
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("content of "+name), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func example(t *testing.T) Spec {
	dir := tree(t, "greeter*", "etc/greeter.conf", "etc/more/empty.conf", "etc/z")
	if err := os.Symlink("greeter.conf", filepath.Join(dir, "etc", "link")); err != nil {
		t.Fatal(err)
	}
	return Spec{
		Platform: "linux/arm64",
		Files: []File{
			{Path: filepath.Join(dir, "greeter"), To: "/usr/bin/greeter"},
			{Path: filepath.Join(dir, "etc"), To: "/etc/greeter/"},
			{Path: filepath.Join(dir, "etc", "z"), To: "/etc/secret", Mode: 0o400},
		},
		Entrypoint: []string{"/usr/bin/greeter"}, Cmd: []string{"--serve"}, Env: []string{"LANG=C", "LANG=C.UTF-8"}, User: "65532:65532", WorkDir: "/",
		Labels: map[string]string{"b": "2", "a": "1"}, Ports: []string{"8080", "53/udp"},
		Created: time.Date(2026, 11, 23, 8, 0, 0, 999, time.FixedZone("", 3600)),
	}
}

// read returns configuration and the header lines of the last layer.
func read(t *testing.T, dir string, img Image) (ociv1.Manifest, ociv1.Image, []string) {
	t.Helper()
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Find(img.Digest); err != nil {
		t.Fatal(err)
	}
	_, data, err := l.Manifest(img.MediaType, img.Digest)
	if err != nil || int64(len(data)) != img.Size {
		t.Fatal(err)
	}
	var manifest ociv1.Manifest
	var config ociv1.Image
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	d, err := layout.DigestOf(manifest.Config)
	if err != nil {
		t.Fatal(err)
	}
	text, err := l.Read(d, maxConfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if d, err = layout.DigestOf(manifest.Layers[len(manifest.Layers)-1]); err != nil {
		t.Fatal(err)
	}
	f, err := l.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return manifest, config, lines
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(*config.Created) || !h.AccessTime.IsZero() {
			t.Errorf("%s tells who made it and when: %+v", h.Name, h)
		}
		lines = append(lines, fmt.Sprintf("%s %#o %s%s", h.Name, h.Mode, h.Linkname, content))
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	img, err := Write(t.Context(), dir, example(t))
	if err != nil {
		t.Fatal(err)
	}
	manifest, config, got := read(t, dir, img)
	want := []string{
		"etc/ 0755 ",
		"etc/greeter/ 0755 ",
		"etc/greeter/greeter.conf 0644 content of etc/greeter.conf",
		"etc/greeter/link 0777 greeter.conf",
		"etc/greeter/more/ 0755 ",
		"etc/greeter/more/empty.conf 0644 content of etc/more/empty.conf",
		"etc/greeter/z 0644 content of etc/z",
		"etc/secret 0400 content of etc/z",
		"usr/ 0755 ",
		"usr/bin/ 0755 ",
		"usr/bin/greeter 0755 content of greeter",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c := config.Config
	if config.OS != "linux" || config.Architecture != "arm64" || c.User != "65532:65532" || !reflect.DeepEqual(c.Env, []string{"LANG=C.UTF-8"}) ||
		len(c.ExposedPorts) != 2 || c.Labels["a"] != "1" || !reflect.DeepEqual(c.Entrypoint, []string{"/usr/bin/greeter"}) || len(c.Cmd) != 1 {
		t.Errorf("got %+v", config)
	}
	if len(manifest.Layers) != 1 || len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("got %+v", manifest)
	}
}

// TestSameInputsSameDigest makes the image from copies that differ in everything that must not matter.
func TestSameInputsSameDigest(t *testing.T) {
	var first Image
	for i := range 3 {
		spec := example(t) // other folders, other times, other inodes
		if i == 1 {
			spec.Files[0], spec.Files[2] = spec.Files[2], spec.Files[0]
		}
		err := filepath.WalkDir(filepath.Dir(spec.Files[1].Path), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Type()&fs.ModeSymlink != 0 {
				return err
			}
			return os.Chtimes(p, time.Unix(int64(i)*1e6, 0), time.Unix(int64(i)*1e6, 0))
		})
		if err != nil {
			t.Fatal(err)
		}
		img, err := Write(t.Context(), filepath.Join(t.TempDir(), "image"), spec)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = img
		} else if img != first {
			t.Fatalf("run %d: %v, the first was %v", i, img, first)
		}
	}
	// The digest of this specification is a promise: it changes only with a line in the release notes.
	if want := goldenDigest; first.Digest.String() != want {
		t.Errorf("digest %s, want %s", first.Digest, want)
	}
}

func TestWriteTwiceIntoOneLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	spec := example(t)
	first, err := Write(t.Context(), dir, spec)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Write(t.Context(), dir, spec); err != nil || again != first {
		t.Fatalf("got %v, %v", again, err)
	}
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if images, err := l.Images(); err != nil || len(images) != 1 {
		t.Fatalf("got %v, %v", images, err)
	}
}

func TestBase(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	under := Spec{
		Platform: "linux/arm64", Files: []File{{Path: filepath.Join(tree(t, "ca.pem"), "ca.pem"), To: "/etc/ssl/ca.pem"}},
		Entrypoint: []string{"/bin/sh"}, Cmd: []string{"-c"}, Env: []string{"PATH=/bin", "LANG=de"}, Labels: map[string]string{"a": "0", "c": "3"},
	}
	bottom, err := Write(t.Context(), base, under)
	if err != nil {
		t.Fatal(err)
	}
	spec := example(t)
	spec.Base, spec.Cmd = base, nil
	dir := filepath.Join(t.TempDir(), "image")
	img, err := Write(t.Context(), dir, spec)
	if err != nil {
		t.Fatal(err)
	}
	manifest, config, _ := read(t, dir, img)
	c := config.Config
	if len(manifest.Layers) != 2 || len(config.RootFS.DiffIDs) != 2 || len(config.History) != 2 || manifest.Annotations[ociv1.AnnotationBaseImageDigest] != bottom.Digest.String() {
		t.Errorf("got %+v %+v", manifest, config)
	}
	if !reflect.DeepEqual(c.Env, []string{"PATH=/bin", "LANG=C.UTF-8"}) || c.Labels["a"] != "1" || c.Labels["c"] != "3" || len(c.Cmd) != 0 || c.Entrypoint[0] != "/usr/bin/greeter" {
		t.Errorf("got %+v", c)
	}
	spec.Platform = "linux/amd64"
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "image"), spec); err == nil || !strings.Contains(err.Error(), "is for linux/arm64, not for linux/amd64") {
		t.Errorf("got %v", err)
	}
	// A damaged base never gets into an image.
	l, err := layout.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := layout.DigestOf(manifest.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(base, "blobs", "sha256", d.Hex())
	data, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if err := os.WriteFile(blob, data, 0o644); err != nil {
		t.Fatal(err)
	}
	spec.Platform = "linux/arm64"
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "image"), spec); refusal.Of(err) != refusal.Digest {
		t.Errorf("got %v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := tree(t, "a", "b/c")
	a := filepath.Join(dir, "a")
	good := Spec{Platform: "linux/amd64", Files: []File{{Path: a, To: "/a"}}}
	for name, change := range map[string]func(*Spec){
		"no platform":       func(s *Spec) { s.Platform = "" },
		"bad platform":      func(s *Spec) { s.Platform = "linux" },
		"no files":          func(s *Spec) { s.Files = nil },
		"missing file":      func(s *Spec) { s.Files[0].Path = filepath.Join(dir, "no") },
		"relative place":    func(s *Spec) { s.Files[0].To = "a" },
		"climbing place":    func(s *Spec) { s.Files[0].To = "/../a" },
		"two at one place":  func(s *Spec) { s.Files = append(s.Files, File{Path: filepath.Join(dir, "b", "c"), To: "/a"}) },
		"file is a folder":  func(s *Spec) { s.Files = append(s.Files, File{Path: filepath.Join(dir, "b"), To: "/a"}) },
		"below a file":      func(s *Spec) { s.Files = append(s.Files, File{Path: filepath.Join(dir, "b", "c"), To: "/a/c"}) },
		"bad port":          func(s *Spec) { s.Ports = []string{"http"} },
		"bad environment":   func(s *Spec) { s.Env = []string{"LANG"} },
		"relative work dir": func(s *Spec) { s.WorkDir = "app" },
		"no base":           func(s *Spec) { s.Base = filepath.Join(dir, "b") },
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			s.Files = append([]File{}, good.Files...)
			change(&s)
			out := filepath.Join(t.TempDir(), "image")
			if _, err := Write(t.Context(), out, s); err == nil {
				t.Fatal("made")
			}
			if l, err := layout.Open(out); err == nil {
				if images, err := l.Images(); err != nil || len(images) != 0 {
					t.Errorf("the layout lists %v, %v", images, err)
				}
				l.Close()
			}
		})
	}
}

// goldenDigest is the digest of the image of example.
const goldenDigest = "sha256:321b26c5751098591bf546f6cbac328e228b9d74f49b415b63feebb8cc58c802"
