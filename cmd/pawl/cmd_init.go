// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/modfile"

	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
)

// starter are the files that a project begins with.
//
//go:embed starter
var starter embed.FS

func newInitCommand(a *app) *cobra.Command {
	var dir, name string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Start a project: write a pawl.yaml that works at once",
		Long: `Start a project: write a pawl.yaml that works at once.

In the folder of a Go program the file describes how to build it. Anywhere else it describes a small
script, written beside it, to be replaced by what you make. Nothing that exists is overwritten.`,
		Example: `  pawl init
  pawl init --dir firmware --name sensor`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			written, product, err := writeStarter(dir, name)
			if err != nil {
				return err
			}
			a.report(map[string]any{"product": product, "written": written}, func(w io.Writer) {
				for _, file := range written {
					fmt.Fprintf(w, "wrote %s\n", file)
				}
				fmt.Fprintf(w, `
Read %s, then:

  pawl keys init --product %s
  pawl repo init
  pawl release 0.1.0 --dry-run
  pawl release 0.1.0
`, config.FileName, product)
			})
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder of the project")
	cmd.Flags().StringVar(&name, "name", "", "name of the product; default: that of the Go module or of the folder")
	return cmd
}

// writeStarter writes the files and returns their names and the product's.
func writeStarter(dir, name string) (written []string, product string, err error) {
	file := filepath.Join(dir, config.FileName)
	if _, err := os.Lstat(file); err == nil {
		return nil, "", refusal.New(refusal.Conflict, file, "it exists already").Do("change it, or give another folder with --dir")
	}
	main, module, err := goProgram(dir)
	if err != nil {
		return nil, "", err
	}
	if name == "" {
		if name, err = productName(dir, module); err != nil {
			return nil, "", err
		}
	}
	if err := statement.CheckProduct(name); err != nil {
		return nil, "", usageError{err}
	}
	text, err := starter.ReadFile("starter/" + config.FileName)
	if err != nil {
		return nil, "", err
	}
	parts := map[string]string{"@NAME@": name}
	if main != "" {
		parts["@BUILD@"] = "    build: # run without a shell, and without your passwords and tokens\n" +
			"      command: [go, build, -trimpath, -o, dist/" + name + ", " + main + "]\n" +
			"      env: {CGO_ENABLED: \"0\"}\n" +
			"      # pass: [GOPROXY, GOPRIVATE] # further variables of yours that it needs\n"
		parts["@ARTIFACT@"] = "      - path: dist/" + name + "\n"
	} else {
		parts["@BUILD@"] = "    # build: # run without a shell, and without your passwords and tokens\n    #   command: [make, all]\n"
		parts["@ARTIFACT@"] = "      - path: hello.sh\n" +
			"        components: # of a file in which nothing says what it is made of\n" +
			"          - {name: hello, version: 1.0.0}\n"
	}
	for mark, part := range parts {
		text = []byte(strings.ReplaceAll(string(text), mark, part))
	}
	if _, err := config.Parse(file, text); err != nil {
		return nil, "", err
	}
	type output struct {
		path string
		data []byte
		perm fs.FileMode
	}
	files := []output{{filepath.Join(dir, "advisories", "TEMPLATE.yaml"), nil, 0o644}, {file, text, 0o644}}
	if main == "" {
		files = append([]output{{filepath.Join(dir, "hello.sh"), nil, 0o755}}, files...)
	}
	if err := durable.Mkdir(filepath.Join(dir, "advisories"), 0o755); err != nil {
		return nil, "", err
	}
	for _, f := range files {
		if _, err := os.Lstat(f.path); err == nil {
			continue
		}
		if f.data == nil {
			if f.data, err = starter.ReadFile("starter/" + filepath.Base(f.path)); err != nil {
				return nil, "", err
			}
		}
		if err := durable.WriteFile(f.path, f.data, f.perm); err != nil {
			return nil, "", err
		}
		written = append(written, f.path)
	}
	ignored, err := ignore(dir, "/"+workFolder+"/")
	if ignored {
		written = append(written, filepath.Join(dir, ".gitignore"))
	}
	return written, name, err
}

// goProgram finds the package of a Go program below dir; empty if there is none.
func goProgram(dir string) (pkg, module string, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	module = modfile.ModulePath(data)
	for _, try := range []string{".", "./cmd/" + path.Base(module)} {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(try), "main.go")); err == nil {
			return try, module, nil
		}
	}
	return "", module, nil
}

// productName makes a name for the product from the module or from the folder.
func productName(dir, module string) (string, error) {
	name := path.Base(module)
	if module == "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		name = filepath.Base(abs)
	}
	name = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' {
			return c
		}
		return '-'
	}, strings.ToLower(name))
	if name = strings.Trim(name, "-_."); statement.CheckProduct(name) != nil {
		return "hello", nil
	}
	return name, nil
}

// ignore adds a line to .gitignore, if it is not there.
func ignore(dir, line string) (bool, error) {
	file := filepath.Join(dir, ".gitignore")
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for have := range strings.Lines(string(data)) {
		if strings.TrimSpace(have) == line {
			return false, nil
		}
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return true, durable.WriteFile(file, append(data, line+"\n"...), 0o644)
}
