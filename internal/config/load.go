// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
	"github.com/pawl-project/pawl/internal/yamlx"
)

// ErrNotFound reports a folder without a pawl.yaml. It is also fs.ErrNotExist.
var ErrNotFound error = notFound{}

type notFound struct{}

func (notFound) Error() string { return "no " + FileName }

func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// Load reads and checks the file at path. Mistakes in it are *yamlx.Error, all of them joined.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s: \"pawl init\" writes one to begin with", ErrNotFound, path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads and checks data, the bytes of the file at path.
func Parse(path string, data []byte) (*Config, error) {
	doc, err := yamlx.Parse(path, data)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	c := &Config{dir: filepath.Dir(abs)}
	if err := doc.Decode(c); err != nil {
		return nil, err
	}
	if err := report(doc, c.complete()); err != nil {
		return nil, err
	}
	return c, nil
}

func report(doc *yamlx.Document, problems []problem) error {
	var list []error
	for _, p := range problems {
		list = append(list, doc.Errorf(p.at, "%s", p.text))
	}
	// In the order of the file, as a person goes through it.
	slices.SortStableFunc(list, func(a, b error) int {
		var x, y *yamlx.Error
		if !errors.As(a, &x) || !errors.As(b, &y) {
			return 0
		}
		return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
	})
	return errors.Join(list...)
}

// LoadAdvisory reads and checks the advisory of a release at path.
func LoadAdvisory(path string) (*statement.Advisory, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read advisory: %w", err)
	}
	doc, err := yamlx.Parse(path, data)
	if err != nil {
		return nil, err
	}
	var a Advisory
	if err := doc.Decode(&a); err != nil {
		return nil, err
	}
	out := &statement.Advisory{
		ID: a.ID, Summary: strings.TrimSpace(a.Summary), Severity: a.Severity, Impact: strings.TrimSpace(a.Impact),
		Action: strings.TrimSpace(a.Action), Disrupts: strings.TrimSpace(a.Disrupts), URL: a.URL,
	}
	if err := out.Check(); err != nil {
		return nil, doc.Errorf("", "%s", err)
	}
	return out, nil
}

// Advisory is the file with what users are told about a security release.
type Advisory struct {
	// Identifier of the advisory, for example ACME-2026-01.
	ID string `yaml:"id" jsonschema:"required"`
	// What was wrong, and what the update does about it.
	Summary string `yaml:"summary" jsonschema:"required"`
	// How bad it is.
	Severity string `yaml:"severity" jsonschema:"required,enum=critical,enum=high,enum=medium,enum=low"`
	// What could happen without the update.
	Impact string `yaml:"impact,omitempty"`
	// What the user has to do. "Nothing: the update installs itself." is an answer.
	Action string `yaml:"action" jsonschema:"required"`
	// What does not work during the update, and for how long.
	Disrupts string `yaml:"disrupts,omitempty"`
	// Where to read more.
	URL string `yaml:"url,omitempty" jsonschema:"format=uri"`
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than is allowed: the parser refuses it with words.
	return io.ReadAll(io.LimitReader(f, MaxBytes+1))
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not an address such as https://updates.example.com", text)
	}
	host := u.Hostname()
	if u.Scheme == "http" && host != "localhost" && host != "::1" && !strings.HasPrefix(host, "127.") {
		return fmt.Errorf("%q sends tokens in the clear: https is needed, http is for this machine only", text)
	}
	return nil
}

// Dir returns the absolute folder of the file.
func (c *Config) Dir() string { return c.dir }

// Abs returns path relative to the folder of the file, as an absolute path of this machine.
func (c *Config) Abs(path string) string {
	path = filepath.FromSlash(path)
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(c.dir, path)
}

// Select returns the products with these names, or all if there are none, in the order of the file.
func (c *Config) Select(names []string) ([]*Product, error) {
	var list []*Product
	for i := range c.Products {
		if len(names) == 0 || slices.Contains(names, c.Products[i].Name) {
			list = append(list, &c.Products[i])
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(c.Products, func(p Product) bool { return p.Name == name }) {
			return nil, fmt.Errorf("product %q is not in %s", name, FileName)
		}
	}
	return list, nil
}

// LineOf returns the line of maintenance that a version of the product belongs to.
func (p *Product) LineOf(v version.Version) version.Line {
	line := v.Line()
	switch p.Line {
	case "*":
		return version.Any
	case "MAJOR":
		major, _, _ := strings.Cut(line.String(), ".")
		if l, err := version.ParseLine(major); err == nil {
			return l
		}
	}
	return line
}
