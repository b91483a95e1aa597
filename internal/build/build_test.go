// SPDX-License-Identifier: Apache-2.0

package build_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/build/command"
	"github.com/pawl-project/pawl/internal/build/ready"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/execx"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
)

// TestMain makes this test binary the manufacturer's build: it copies standard texts into the file that it is told.
func TestMain(m *testing.M) {
	if file := os.Getenv("BUILD_TEST_WRITE"); file != "" {
		if err := os.WriteFile(file, []byte("version "+os.Getenv("PAWL_VERSION")), 0o755); err != nil {
			panic(err)
		}
		os.Stdout.WriteString("compiled\n")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func input(t *testing.T) build.Input {
	return build.Input{Product: "greeter", Version: "1.4.3", Out: t.TempDir()}
}

func TestFilesAreTakenIn(t *testing.T) {
	dir, in := t.TempDir(), input(t)
	path := filepath.Join(dir, "built")
	if err := os.WriteFile(path, []byte("greeter"), 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := ready.Files{{Name: "greeter-linux", Path: path, MediaType: "application/x-elf"}}.Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := build.Artifact{Name: "greeter-linux", Digest: digest.SetOf([]byte("greeter")), Size: 7, MediaType: "application/x-elf"}
	if len(list) != 1 || list[0] != want {
		t.Errorf("%+v, want %+v", list, want)
	}
	info, err := os.Stat(filepath.Join(in.Out, "greeter-linux"))
	if err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("%v, %v: want read-only", info.Mode(), err)
	}
	// The next build does not change what was taken in.
	if err := os.WriteFile(path, []byte("another"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := build.Check(in.Out, list); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(in.Out, "greeter-linux"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in.Out, "greeter-linux"), []byte("greetex"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := build.Check(in.Out, list); !errors.Is(err, digest.ErrMismatch) {
		t.Errorf("changed artifact: %v", err)
	}
}

// TestAFileThatReadsAsSomethingElse would give whoever builds it a signature over an image.
func TestAFileThatReadsAsSomethingElse(t *testing.T) {
	in := input(t)
	payload, err := bundle.SimpleSigning("registry.example/acme/gateway", digest.Of([]byte("never built here")))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, payload, 0o644); err != nil {
		t.Fatal(err)
	}
	if a, err := build.TakeFile(in, "config.json", path); refusal.Of(err) != refusal.Malformed {
		t.Errorf("taken in as %+v, %v", a, err)
	}
	if names, err := os.ReadDir(in.Out); err != nil || len(names) != 0 {
		t.Errorf("left %v, %v", names, err)
	}
}

func TestMissingFiles(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "gone"): "is not there after the build",
		dir:                        "is not a file",
		empty:                      "is empty",
	} {
		in := input(t)
		_, err := ready.Files{{Name: "a", Path: path}}.Build(t.Context(), in)
		if err == nil || !strings.Contains(err.Error(), "artifact a: "+path+" "+want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if left, _ := os.ReadDir(in.Out); len(left) > 0 {
			t.Errorf("%s: %v is left behind", path, left)
		}
	}
}

func TestCommandBuilds(t *testing.T) {
	dir, in := t.TempDir(), input(t)
	var log strings.Builder
	in.Log = &log
	b := command.Builder{
		Args: []string{os.Args[0]}, Dir: dir, Limit: time.Minute,
		Env:  []string{"BUILD_TEST_WRITE=greeter", "PAWL_VERSION=1.4.3"},
		Then: ready.Files{{Name: "greeter", Path: filepath.Join(dir, "greeter")}},
	}
	list, err := b.Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Digest.SHA256 != digest.Of([]byte("version 1.4.3")) || log.String() != "compiled\n" {
		t.Errorf("%+v, log %q", list, log.String())
	}
	b.Args = []string{filepath.Join(dir, "no-such-program")}
	var e *execx.Error
	if _, err := b.Build(t.Context(), in); !errors.As(err, &e) || !strings.HasPrefix(err.Error(), "the build did not succeed: command ") {
		t.Errorf("error: %v", err)
	}
}

// writeLayout makes an image layout with n images of one layer each.
func writeLayout(t *testing.T, n int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range n {
		must := func(data []byte, err error) []byte {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Write(data); err != nil {
				t.Fatal(err)
			}
			return data
		}
		config := must([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), nil)
		layer := must([]byte(strings.Repeat("layer", i+1)), nil)
		manifest := must(layout.Encode(map[string]any{
			"schemaVersion": 2, "mediaType": layout.MediaTypeManifest,
			"config": layout.Describe("application/vnd.oci.image.config.v1+json", config),
			"layers": []any{layout.Describe("application/vnd.oci.image.layer.v1.tar", layer)},
		}))
		must([]byte("a blob that belongs to no image"), nil)
		top := layout.Describe(layout.MediaTypeManifest, manifest)
		top.Annotations = map[string]string{"org.opencontainers.image.ref.name": "localhost/me:dev"}
		if err := l.Add(top); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLayoutIsTakenIn(t *testing.T) {
	src, in := writeLayout(t, 1), input(t)
	list, err := ready.Layout{Name: "gateway", Path: src}.Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Name != "gateway" || !list[0].Image || list[0].MediaType != layout.MediaTypeManifest || list[0].Size == 0 {
		t.Fatalf("%+v", list)
	}
	out := filepath.Join(in.Out, "gateway")
	if got, err := build.Describe("gateway", out); err != nil || got != list[0] {
		t.Errorf("described %+v, %v", got, err)
	}
	blobs, err := os.ReadDir(filepath.Join(out, "blobs", "sha256"))
	if err != nil || len(blobs) != 3 {
		t.Errorf("%d blobs, want manifest, configuration and layer: %v", len(blobs), err)
	}
	index, err := os.ReadFile(filepath.Join(out, "index.json"))
	if err != nil || strings.Contains(string(index), "localhost") {
		t.Errorf("index: %s, %v", index, err)
	}
	if err := build.Check(in.Out, list); err != nil {
		t.Error(err)
	}
	blob := filepath.Join(out, "blobs", "sha256", blobs[0].Name())
	if err := errors.Join(os.Chmod(blob, 0o644), os.WriteFile(blob, []byte("{}"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := build.Check(in.Out, list); err == nil {
		t.Error("a changed blob is not noticed")
	}
}

func TestLayoutRefusals(t *testing.T) {
	broken := writeLayout(t, 1)
	blobs, err := os.ReadDir(filepath.Join(broken, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		path := filepath.Join(broken, "blobs", "sha256", b.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(data) == "layer" {
			if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, []byte("LAYER"), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for path, want := range map[string]string{
		writeLayout(t, 2): "holds 2 images, one is needed",
		writeLayout(t, 0): "holds 0 images, one is needed",
		t.TempDir():       "it is not an image layout",
		broken:            "digest",
	} {
		if _, err := (ready.Layout{Name: "gateway", Path: path}).Build(t.Context(), input(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestCancelledBuild(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (ready.Files{{Name: "a", Path: "a"}}).Build(ctx, input(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}
