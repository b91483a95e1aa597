// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/release"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/version"
)

// project is a folder with a pawl.yaml.
func project(t *testing.T, products string) *releaseSetup {
	t.Helper()
	path := filepath.Join(t.TempDir(), config.FileName)
	text := "version: 1\nrepository: {folder: repository}\nvulnerabilities: {database: osv}\nproducts:\n" + products
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PATH": os.Getenv("PATH"), "PAWL_PASSWORD": "secret", "GOFLAGS": "-mod=mod"}
	a := &app{env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	return &releaseSetup{app: a, config: c, signers: map[string]sign.Signer{}, request: release.Request{Version: version.MustParse("1.4.3+b1")}}
}

func TestSourcesInGit(t *testing.T) {
	s := project(t, "  - {name: greeter, channel: file, artifacts: [{path: greeter}]}\n")
	dir := s.config.Dir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sources := func() string {
		t.Helper()
		name, err := s.gitSources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	if name := sources(); name != "" {
		t.Fatalf("outside of git: %q", name)
	}
	git("init", "-q")
	if name := sources(); name != "" {
		t.Fatalf("without a commit: %q", name)
	}
	write(".gitignore", "/dist/\n")
	write("main.c", "int main;\n")
	git("add", ".")
	git("commit", "-qm", "first")

	seen := map[string]string{}
	now := func(what string, isNew bool) {
		t.Helper()
		name := sources()
		if before, known := seen[name]; name == "" || known == isNew {
			t.Errorf("%s: %q, known as %q", what, name, before)
		}
		if isNew {
			seen[name] = what
		}
	}
	now("first commit", true)
	now("nothing changed", false)
	write("dist/greeter", "built")
	now("ignored file", false)
	write(".pawl/greeter/journal", "x")
	write("repository/metadata/timestamp.json", "x")
	now("pawl's own files", false)
	write("main.c", "int main(void);\n")
	now("changed file", true)
	write("main.c", "int main(int);\n")
	now("changed again", true)
	write("new file.c", "")
	now("new file", true)
	write("new file.c", "x")
	now("new file changed", true)
	git("add", ".")
	git("commit", "-qm", "second")
	now("second commit", true)
	if err := os.Remove(filepath.Join(dir, "main.c")); err != nil {
		t.Fatal(err)
	}
	now("file is gone", true)
	if err := os.Symlink("new file.c", filepath.Join(dir, "main.c")); err != nil {
		t.Fatal(err)
	}
	now("link in its place", true)
	git("checkout", "-q", ".")
	now("back again", false)
	text, err := os.ReadFile(filepath.Join(dir, config.FileName))
	if err != nil {
		t.Fatal(err)
	}
	write("dist/pawl.yaml", string(text))
	ignored, err := config.Load(filepath.Join(dir, "dist", config.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if name, err := (&releaseSetup{app: s.app, config: ignored}).gitSources(t.Context()); name != "" || err != nil {
		t.Errorf("project in a folder that is ignored: %q, %v", name, err)
	}
	// A repository inside this one is not looked into, so nothing is known.
	if err := os.CopyFS(filepath.Join(dir, "inner", ".git"), os.DirFS(filepath.Join(dir, ".git"))); err != nil {
		t.Fatal(err)
	}
	if name := sources(); name != "" {
		t.Errorf("repository inside: %q", name)
	}
}

func TestContents(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "a")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if name, err := contents([]string{file}); name != "" || err != nil {
		t.Errorf("missing: %q, %v", name, err)
	}
	var names []string
	for _, text := range []string{"1", "2", "1"} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		name, err := contents([]string{dir})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if names[0] != names[2] || names[0] == names[1] {
		t.Errorf("%q", names)
	}
}

// Placeholders are replaced in everything that says so, the environment holds no secrets, and a tag has no plus sign.
func TestProductOfConfig(t *testing.T) {
	s := project(t, `  - name: gateway
    channel: container
    line: MAJOR
    minimumSource: 1.0.0
    build:
      command: [make, "out/{version}"]
      env: {LABEL: "{product}-{version}"}
      pass: [GOFLAGS]
      dir: src
    image:
      repositories: ["registry.example/acme/{product}"]
      tags: ["{version}", latest]
      files: [{path: "out/{version}", to: /gateway, mode: "0750"}]
      labels: {v: "{version}"}
`)
	p, err := s.product(&s.config.Products[0])
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%+v", p.Builder)
	for _, want := range []string{
		"Args:[make out/1.4.3+b1]", "LABEL=gateway-1.4.3+b1", "GOFLAGS=-mod=mod", "PAWL_PRODUCT=gateway", "PAWL_VERSION=1.4.3+b1",
		"Dir:" + filepath.Join(s.config.Dir(), "src"), "Path:" + filepath.Join(s.config.Dir(), "out", "1.4.3+b1") + " To:/gateway Mode:-rwxr-x---", "map[v:1.4.3+b1]",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("builder %s does not say %s", text, want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("a password is in the builder: %s", text)
	}
	if strings.Join(p.Tags, " ") != "1.4.3_b1 latest" || p.Artifacts[0].Images[0] != "registry.example/acme/gateway" || p.Line(s.request.Version).String() != "1" {
		t.Errorf("%+v", p)
	}
	// Without a build, the files themselves are the sources.
	s = project(t, "  - {name: greeter, channel: file, artifacts: [{path: greeter}]}\n")
	if p, err = s.product(&s.config.Products[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.config.Dir(), "greeter"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if name, err := p.Sources(context.Background()); err != nil || !strings.HasPrefix(name, "files ") {
		t.Errorf("%q, %v", name, err)
	}
}
