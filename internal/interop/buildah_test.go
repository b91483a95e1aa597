// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/build/engine"
	"github.com/pawl-project/pawl/internal/layout"
)

// TestBuildahBuildsADockerfile lets a real container engine build, and takes the image from the layout that it writes.
func TestBuildahBuildsADockerfile(t *testing.T) {
	// Without a user's session there is neither an overlay file system nor a runtime with cgroups.
	t.Setenv("STORAGE_DRIVER", "vfs")
	t.Setenv("BUILDAH_ISOLATION", "chroot")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Dockerfile": "FROM scratch\nARG WHO\nCOPY greeting /greeting\nLABEL who=$WHO\n",
		"greeting":   "hello\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log strings.Builder
	in := build.Input{Product: "interop", Version: "1.0.0", Out: filepath.Join(t.TempDir(), "artifacts"), Log: &log}
	if err := os.Mkdir(in.Out, 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := engine.Builder{
		Engine: "buildah", Name: "greeting", Dockerfile: filepath.Join(dir, "Dockerfile"), Context: dir, Platform: "linux/amd64",
		Args: map[string]string{"WHO": "buildah"}, Env: engine.Environ(os.LookupEnv), Limit: 5 * time.Minute,
	}.Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if err := build.Check(in.Out, list); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Open(filepath.Join(in.Out, "greeting"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	manifest, _, err := l.Manifest(list[0].MediaType, list[0].Digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	config, err := layout.DigestOf(manifest.Config)
	if err != nil {
		t.Fatal(err)
	}
	text, err := l.Read(config, layout.MaxManifest)
	if err != nil || !strings.Contains(string(text), `"who":"buildah"`) || len(manifest.Layers) != 1 {
		t.Errorf("%s, %v", text, err)
	}
	if !strings.Contains(log.String(), "COPY greeting") {
		t.Errorf("log: %s", log.String())
	}
}
