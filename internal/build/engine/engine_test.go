// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/build/engine"
	"github.com/pawl-project/pawl/internal/layout"
)

// TestMain makes this test binary an engine: started under the name of one, it writes down how it was called, and
// "saves" a small image in the form of that engine.
func TestMain(m *testing.M) {
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	if name != "docker" && name != "podman" && name != "buildah" {
		os.Exit(m.Run())
	}
	if err := pretend(name, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
}

func pretend(name string, args []string) error {
	f, err := os.OpenFile(os.Getenv("DOCKER_CONFIG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintln(f, name, strings.Join(args, " "))
	last := args[len(args)-1]
	switch {
	case args[0] == "build" && strings.Contains(strings.Join(args, " "), "V=broken"):
		return errors.New("COPY failed: no such file")
	case args[0] == "build":
		return nil
	case name == "buildah":
		_, _, err = image(strings.TrimPrefix(last, "oci:"))
		return err
	case name == "podman":
		_, _, err = image(args[len(args)-2])
		return err
	}
	dir, old := filepath.Dir(args[2]), strings.HasSuffix(last, ":0.0.1")
	saved := filepath.Join(dir, "saved")
	if _, _, err := image(saved); err != nil {
		return err
	}
	return pack(args[2], saved, old)
}

// image writes a layout with one image.
func image(dir string) (digest string, size int64, err error) {
	l, err := layout.Create(dir)
	if err != nil {
		return "", 0, err
	}
	defer l.Close()
	config, layer := []byte(`{"architecture":"amd64","os":"linux"}`), []byte("layer")
	manifest, err := layout.Encode(map[string]any{
		"schemaVersion": 2, "mediaType": layout.MediaTypeManifest,
		"config": layout.Describe("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{layout.Describe("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	if err != nil {
		return "", 0, err
	}
	for _, data := range [][]byte{config, layer, manifest} {
		if _, err := l.Write(data); err != nil {
			return "", 0, err
		}
	}
	top := layout.Describe(layout.MediaTypeManifest, manifest)
	return string(top.Digest), top.Size, l.Add(top)
}

// pack writes the folder as docker does; an old docker writes no layout. Names that climb out are added.
func pack(file, dir string, old bool) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	add := func(name string, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	if err := errors.Join(add("manifest.json", []byte("[]")), add("../../climbed", []byte("out")), add("blobs/sha256/../../climbed", []byte("out"))); err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || old {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return add(filepath.ToSlash(rel), data)
	})
	return errors.Join(err, w.Close())
}

// setup puts a pretended engine into PATH and returns a builder for it, and the file with how it was called.
func setup(t *testing.T, name string) (engine.Builder, string) {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	log := filepath.Join(dir, "log")
	t.Setenv("DOCKER_CONFIG", log) // an engine gets its configuration
	t.Setenv("PAWL_PASSWORD", "secret")
	dockerfile := filepath.Join(dir, "Dockerfile")
	if err := os.WriteFile(dockerfile, []byte("FROM scratch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return engine.Builder{
		Engine: name, Name: "gateway", Dockerfile: dockerfile, Context: dir, Args: map[string]string{"V": "1.4.3", "A": "x"},
		Platform: "linux/arm64", Env: engine.Environ(os.LookupEnv), Limit: time.Minute,
	}, log
}

func input(t *testing.T) build.Input {
	out := filepath.Join(t.TempDir(), "artifacts")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	return build.Input{Product: "gateway", Version: "1.4.3", Out: out}
}

func TestEveryEngine(t *testing.T) {
	want, _, err := image(filepath.Join(t.TempDir(), "want"))
	if err != nil {
		t.Fatal(err)
	}
	for name, save := range map[string]string{
		"docker":  "docker save --output ",
		"podman":  "podman save --format oci-dir --output ",
		"buildah": "buildah push localhost/pawl/gateway:1.4.3 oci:",
	} {
		t.Run(name, func(t *testing.T) {
			b, log := setup(t, name)
			if found, err := engine.Find(exec.LookPath); found != name || err != nil {
				t.Errorf("found %q, %v", found, err)
			}
			in := input(t)
			list, err := b.Build(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != 1 || list[0].Digest.SHA256.String() != want || !list[0].Image {
				t.Errorf("%+v, want %s", list, want)
			}
			if err := build.Check(in.Out, list); err != nil {
				t.Error(err)
			}
			left, err := os.ReadDir(filepath.Dir(in.Out))
			if err != nil || len(left) != 1 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			called, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			for _, words := range []string{
				"--platform linux/arm64 --file " + b.Dockerfile + " --tag localhost/pawl/gateway:1.4.3 --build-arg A=x --build-arg V=1.4.3 " + b.Context + "\n",
				save,
			} {
				if !strings.Contains(string(called), words) {
					t.Errorf("called %s\nwant %q", called, words)
				}
			}
		})
	}
}

func TestFailures(t *testing.T) {
	b, _ := setup(t, "docker")
	b.Args = map[string]string{"V": "broken"}
	if _, err := b.Build(t.Context(), input(t)); err == nil || !strings.Contains(err.Error(), "COPY failed: no such file") {
		t.Errorf("failed build: %v", err)
	}
	b, _ = setup(t, "docker")
	in := input(t)
	in.Version = "0.0.1"
	if _, err := b.Build(t.Context(), in); err == nil || !strings.Contains(err.Error(), "docker 25 or newer is needed") {
		t.Errorf("old docker: %v", err)
	}
	b.Dockerfile += ".gone"
	if _, err := b.Build(t.Context(), in); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no Dockerfile: %v", err)
	}
	b, _ = setup(t, "docker")
	b.Engine = "kaniko"
	if _, err := b.Build(t.Context(), in); err == nil || !strings.Contains(err.Error(), `engine "kaniko" is not known`) {
		t.Errorf("unknown engine: %v", err)
	}
	if _, err := engine.Find(func(string) (string, error) { return "", exec.ErrNotFound }); !errors.Is(err, engine.ErrNoEngine) {
		t.Errorf("no engine: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	env := engine.Environ(func(name string) (string, bool) {
		return "x", name == "DOCKER_HOST" || strings.HasPrefix(name, "PAWL_")
	})
	if got := strings.Join(env, " "); got != "BUILDX_NO_DEFAULT_ATTESTATIONS=1 DOCKER_HOST=x" {
		t.Errorf("environment: %s", got)
	}
}
