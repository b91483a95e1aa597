// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite deps/*.txt")

const (
	module = "github.com/pawl-project/pawl/"
	root   = "../.."
)

// core packages take bytes, state and now, and return a new state or a refusal: nothing that touches the world.
var core = []string{"bundle", "digest", "evidence", "policy", "refusal", "statement", "trust", "update", "version"}

// world are the packages of the standard library that touch the world.
var world = []string{"net", "net/http", "os", "os/exec", "log", "log/slog", "path/filepath", "syscall"}

// parents are the seams: an adapter below one imports the core, the plumbing and its own parent, never another adapter.
// A seam that is not named here has no adapters yet.
var parents = []string{"blob", "build", "registry", "repository", "sbom", "scan", "sign", "slot", "store"}

// adapterMay lists what else an adapter may import, with the reason.
var adapterMay = map[string][]string{
	"slot/container":    {"registry"},            // pulls through the seam, not through an adapter
	"build/engine":      {"build/image"},         // both make OCI layouts
	"build/command":     {"build/image"},         // images from built files
	"build/ready":       {"build/image"},         // images from ready files
	"repository/remote": {"repository", "trust"}, // speaks for the repository
}

// plumbing may be imported by engines and adapters.
var plumbing = []string{"durable", "execx", "fault", "httpx", "journal", "layout", "yamlx"}

// pkg is what "go list" says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports,Deps,Module"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// internalName returns the path below internal/, or "".
func internalName(path string) string {
	name, ok := strings.CutPrefix(path, module+"internal/")
	if !ok {
		return ""
	}
	return name
}

func TestImportsPointInward(t *testing.T) {
	for _, p := range list(t, "./internal/...", "./cmd/...") {
		name := internalName(p.ImportPath)
		for _, imported := range p.Imports {
			to := internalName(imported)
			switch {
			case strings.HasPrefix(imported, module+"cmd/"):
				t.Errorf("%s imports %s: nothing imports a command", p.ImportPath, imported)
			case slices.Contains(core, name) && slices.Contains(world, imported):
				t.Errorf("core package %s imports %s: the core does no I/O", name, imported)
			case slices.Contains(core, name) && to != "" && !slices.Contains(core, to) && to != "sign":
				t.Errorf("core package %s imports %s, which is not core", name, to)
			}
			if parent, _, isAdapter := adapter(name); isAdapter && to != "" && to != parent &&
				!slices.Contains(core, to) && !slices.Contains(plumbing, to) && !slices.Contains(parents, to) &&
				!slices.Contains(adapterMay[name], to) {
				t.Errorf("adapter %s imports %s: adapters import the core, the plumbing and seams, not engines or other adapters", name, to)
			}
		}
	}
}

// adapter splits "slot/file" into its parent and itself. Contract suites and embedded peers are not adapters.
func adapter(name string) (parent, child string, ok bool) {
	parent, child, ok = strings.Cut(name, "/")
	return parent, child, ok && slices.Contains(parents, parent) && !strings.HasSuffix(child, "test") && child != "embedded"
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for _, p := range list(t, "./internal/...", "./cmd/...") {
		var with []string
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				with = append(with, file)
			}
		}
		if len(with) != 1 && len(p.GoFiles) > 0 {
			t.Errorf("%s: package comments in %v, want exactly one", p.ImportPath, with)
		}
	}
}

// TestSourceRules reads every Go file of the repository, also those that this platform does not build.
func TestSourceRules(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(text, []byte("// SPDX-License-Identifier: Apache-2.0\n")) {
			t.Errorf("%s: the first line is not the licence", path)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			switch imp.Path.Value {
			case `"math/rand"`:
				t.Errorf("%s: math/rand version 1", path)
			case `"github.com/stretchr/testify"`, `"github.com/stretchr/testify/assert"`, `"github.com/stretchr/testify/require"`:
				t.Errorf("%s: testify", path)
			}
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init: construct it by name in cmd/pawl", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGoModHasNoReplace(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "replace") {
			t.Errorf("go.mod: %s", line)
		}
	}
}

// TestDeviceBuildLinksTheReviewedModules keeps what a device runs on a list that a person has read: a new line in
// deps/agent.txt is a reviewed change.
func TestDeviceBuildLinksTheReviewedModules(t *testing.T) {
	modules := map[string]bool{}
	for _, p := range list(t, "-deps", "-tags", "agent", "./cmd/pawl") {
		if p.Module != nil {
			modules[p.Module.Path] = true
		}
	}
	delete(modules, strings.TrimSuffix(module, "/"))
	var got []string
	for m := range modules {
		got = append(got, m)
	}
	slices.Sort(got)
	path := filepath.Join(root, "deps", "agent.txt")
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var want []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		want = append(want, lines.Text())
	}
	for _, m := range got {
		if !slices.Contains(want, m) {
			t.Errorf("the device build links %s, which is not in deps/agent.txt", m)
		}
	}
	for _, m := range want {
		if !slices.Contains(got, m) {
			t.Errorf("deps/agent.txt names %s, which the device build does not link", m)
		}
	}
}
