// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/sbom"
)

// work is one call of Make: its budget and what it has seen in all archives together.
type work struct {
	ctx    context.Context
	temp   string
	limits limits
	name   string // of the artifact

	entries    int
	unpacked   int64
	kept       int64
	understood bool // a package list, or a program with build information, was read
	gaps       []string
	noted      map[string]bool
	moreGaps   int
}

// step counts an entry and stops the work when it is cancelled or over the limit.
func (w *work) step() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.entries++; w.entries > w.limits.entries {
		return malformed("more than %d entries", w.limits.entries)
	}
	return nil
}

// note remembers something that was not looked into.
func (w *work) note(format string, args ...any) {
	text := clip(fmt.Sprintf(format, args...), 500)
	switch {
	case w.noted[text]:
	case len(w.gaps) >= w.limits.gaps:
		w.moreGaps++
	default:
		w.noted[text] = true
		w.gaps = append(w.gaps, text)
	}
}

// sentences returns the gaps in a stable order.
func (w *work) sentences() []string {
	slices.Sort(w.gaps)
	if w.moreGaps > 0 {
		w.gaps = append(w.gaps, fmt.Sprintf("and %d more", w.moreGaps))
	}
	return w.gaps
}

// collector gathers what one tree of files says: a folder, an archive, an image. Archives in it have their own.
type collector struct {
	*work
	prefix string // of locations: "inner.tar.gz!/"
	depth  int

	lists   map[string][]byte    // package lists that need others beside them, by path
	found   []evidence.Component // installed packages and programs
	planned []plan               // packages that a list names and that may not be installed
	system  bool                 // an operating system's package database was read
	natives []string             // programs without build information
	others  map[string][]string  // package lists of a kind that is not read: kind to paths
	managed map[string]bool      // folders with a *.deps.json: the DLLs there are listed in it
	roots   map[string]bool      // folders with a node_modules that is filled
	loose   []string             // package.json with dependencies that nothing pins
}

// plan is a package that a lock or requirements file names.
type plan struct {
	evidence.Component
	npm bool   // named by npm's lock file, not by a requirements file
	dir string // of the file
}

func (w *work) collector(prefix string, depth int) *collector {
	return &collector{work: w, prefix: prefix, depth: depth, lists: map[string][]byte{}, others: map[string][]string{}, managed: map[string]bool{}, roots: map[string]bool{}}
}

// unreadable are package databases that are not read here. An operating system whose packages are not known is no
// base for a statement about its vulnerabilities, so these are errors.
var unreadable = map[string]string{
	"var/lib/rpm/Packages":                 "rpm",
	"var/lib/rpm/Packages.db":              "rpm",
	"var/lib/rpm/rpmdb.sqlite":             "rpm",
	"usr/lib/sysimage/rpm/Packages":        "rpm",
	"usr/lib/sysimage/rpm/Packages.db":     "rpm",
	"usr/lib/sysimage/rpm/rpmdb.sqlite":    "rpm",
	"usr/share/rpm/rpmdb.sqlite":           "rpm",
	"var/lib/pacman/local/ALPM_DB_VERSION": "pacman",
}

// foreign are package lists, by base name or extension, that are seen and not read: they are gaps.
var foreign = map[string]string{
	".jar": "Java archives", ".war": "Java archives", ".ear": "Java archives",
	"Cargo.lock": "lists of Rust crates", "composer.lock": "lists of PHP packages", "Gemfile.lock": "lists of Ruby gems", ".gemspec": "Ruby gems",
	"yarn.lock": "yarn's lists of npm packages", "pnpm-lock.yaml": "pnpm's lists of npm packages", "bun.lock": "bun's lists of npm packages",
	"poetry.lock": "poetry's lists of Python packages", "Pipfile.lock": "pipenv's lists of Python packages", "uv.lock": "uv's lists of Python packages",
	"conan.lock": "lists of Conan packages",
}

// file takes one regular file of the tree. path is slash-separated and relative to the root of the tree; r gives its
// bytes from the start. What r is left with is not read.
func (c *collector) file(name string, size int64, r io.Reader) error {
	if system := unreadable[name]; system != "" {
		return fmt.Errorf("the package database of %s (%s) cannot be read: %w", system, c.prefix+name, sbom.ErrUnsupported)
	}
	base, installed := path.Base(name), within(name, "node_modules", "site-packages", "dist-packages")
	switch {
	case keeps(name):
		return c.keep(name, size, r)
	case base == "package.json":
		return c.read(name, size, r, c.packageJSON)
	case strings.HasSuffix(base, ".deps.json"):
		return c.read(name, size, r, c.dotnetDeps)
	case base == "packages.lock.json":
		return c.read(name, size, r, c.dotnetLock)
	case isPythonMetadata(name):
		return c.read(name, size, r, c.pythonMetadata)
	}
	for _, key := range []string{base, path.Ext(base)} {
		if kind, ok := foreign[key]; ok && !installed {
			c.others[kind] = append(c.others[kind], name)
		}
	}
	return c.content(name, size, r)
}

// content takes a file by what is in it and not by its name.
func (c *collector) content(name string, size int64, r io.Reader) error {
	head := make([]byte, sniffLength)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	head = head[:n]
	kind := sniff(head)
	switch {
	case kind == program:
		return c.program(name, size, head, r)
	case kind != unknown && looksPacked(name, kind):
		return c.nested(name, kind, size, head, r)
	}
	return nil
}

// program looks into a program for Go's build information.
func (c *collector) program(name string, size int64, head []byte, r io.Reader) error {
	f, release, err := c.seekable(name, size, head, r)
	if f == nil {
		return err
	}
	defer release()
	modules, main, isGo := goProgram(f, c.prefix+name)
	if !isGo {
		c.natives = append(c.natives, name)
		return nil
	}
	c.understood = true
	c.found = slices.Concat(c.found, modules, main)
	return nil
}

// nested looks into an archive within this tree. What is wrong with it is a gap and not the end.
func (c *collector) nested(name string, kind kind, size int64, head []byte, r io.Reader) error {
	if c.depth+1 >= c.limits.depth {
		c.note("%s%s: not opened, archives are nested deeper than %d", c.prefix, name, c.limits.depth-1)
		return nil
	}
	f, release, err := c.seekable(name, size, head, r)
	if f == nil {
		return err
	}
	defer release()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	inner := c.collector(c.prefix+name+"!/", c.depth+1)
	err = c.unpack(inner, kind, f, info.Size(), name)
	if err == nil {
		var found []evidence.Component
		if found, err = inner.finish(); err == nil {
			c.found = append(c.found, found...)
			return nil
		}
	}
	inner.release()
	if isMalformed(err) && !c.exhausted() {
		c.note("%s%s: %v", c.prefix, name, err)
		return nil
	}
	return err
}

// exhausted reports whether a limit on all archives together is reached: then every error ends the work.
func (w *work) exhausted() bool {
	return w.entries > w.limits.entries || w.unpacked > w.limits.unpacked || w.kept > w.limits.kept || w.ctx.Err() != nil
}

// seekable returns the file's bytes as a file: the one on disk if r is one, else a copy. A file over the limit is a gap,
// and nil without an error.
func (c *collector) seekable(name string, size int64, head []byte, r io.Reader) (*os.File, func(), error) {
	if f, ok := r.(*os.File); ok {
		return f, func() {}, nil
	}
	if size > c.limits.program {
		c.note("%s%s: not looked into, %d bytes, at most %d are", c.prefix, name, size, c.limits.program)
		return nil, nil, nil
	}
	f, err := os.CreateTemp(c.temp, "spool-")
	if err != nil {
		return nil, nil, err
	}
	release := func() {
		f.Close()
		os.Remove(f.Name())
	}
	n, err := io.Copy(f, io.LimitReader(io.MultiReader(bytes.NewReader(head), r), c.limits.program+1))
	if err != nil {
		release()
		return nil, nil, err
	}
	if n > c.limits.program {
		release()
		c.note("%s%s: not looked into, more than %d bytes", c.prefix, name, c.limits.program)
		return nil, nil, nil
	}
	return f, release, nil
}

// keep holds a package list in memory until the whole tree is known.
func (c *collector) keep(name string, size int64, r io.Reader) error {
	data, err := c.whole(name, size, r)
	if err != nil {
		return err
	}
	c.kept += int64(len(data)) - int64(len(c.lists[name])) // an archive may hold a name twice; the last one counts
	c.lists[name] = data
	if c.kept > c.limits.kept {
		return malformed("more than %d bytes of package lists", c.limits.kept)
	}
	return nil
}

// read hands a package list to parse. What is wrong with it is a gap: these lists lie by the thousand in a tree, among
// them broken ones on purpose.
func (c *collector) read(name string, size int64, r io.Reader, parse func(name string, data []byte) error) error {
	data, err := c.whole(name, size, r)
	if err != nil {
		return err
	}
	if err := parse(name, data); err != nil {
		if c.ctx.Err() != nil {
			return err
		}
		c.note("%s%s: %v", c.prefix, name, err)
	}
	return nil
}

func (c *collector) whole(name string, size int64, r io.Reader) ([]byte, error) {
	if size > c.limits.metadata {
		return nil, malformed("package list %s: %d bytes, at most %d are allowed", c.prefix+name, size, c.limits.metadata)
	}
	data, err := io.ReadAll(io.LimitReader(r, c.limits.metadata+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > c.limits.metadata {
		return nil, malformed("package list %s: more than %d bytes", c.prefix+name, c.limits.metadata)
	}
	return data, nil
}

// finish reads the lists that were kept and returns everything that was found in the tree.
func (c *collector) finish() ([]evidence.Component, error) {
	if err := c.readLists(); err != nil {
		return nil, err
	}
	c.release()
	c.found = append(c.found, c.notInstalled()...)
	c.noteLoose()
	c.noteNatives()
	for _, kind := range slices.Sorted(maps.Keys(c.others)) {
		paths := c.others[kind]
		slices.Sort(paths)
		c.note("%s%s: %s are not looked into (%d)", c.prefix, examples(paths), kind, len(paths))
	}
	return c.found, nil
}

// release lets go of the lists.
func (c *collector) release() {
	for _, data := range c.lists {
		c.kept -= int64(len(data))
	}
	c.lists = nil
}

// notInstalled returns what lists name and is not installed beside them: where a package is installed, the installed one
// is the truth, in whatever version.
func (c *collector) notInstalled() []evidence.Component {
	there := make(map[string]bool)
	for _, f := range c.found {
		p := f.Package()
		there[p.Ecosystem+" "+p.Name] = true
	}
	var out []evidence.Component
	for _, p := range c.planned {
		pkg := p.Package()
		switch {
		case p.npm && c.roots[p.dir]:
		case !p.npm && there[pkg.Ecosystem+" "+pkg.Name]:
		default:
			out = append(out, p.Component)
		}
	}
	return out
}

// noteLoose names npm manifests whose dependencies nobody pins: they are resolved when the package is installed.
func (c *collector) noteLoose() {
	for _, name := range c.loose {
		dir := path.Dir(name)
		locked := slices.ContainsFunc(c.planned, func(p plan) bool { return p.npm && p.dir == dir })
		if !locked && !c.roots[dir] {
			c.note("%s%s: its dependencies have no exact versions, they are chosen when it is installed", c.prefix, name)
		}
	}
}

// noteNatives names the programs that say nothing about their components, unless somebody else answers for them: the
// package manager of the operating system, or the package that they lie in.
func (c *collector) noteNatives() {
	var alone []string
	for _, name := range c.natives {
		switch {
		case within(name, "node_modules", "site-packages", "dist-packages"):
		case c.system && ofSystem(name):
		case strings.EqualFold(path.Ext(name), ".dll") && c.managed[path.Dir(name)]:
		default:
			alone = append(alone, name)
		}
	}
	if len(alone) > 0 {
		slices.Sort(alone)
		c.note("%s%s: native programs without build information (%d), their components are not known", c.prefix, examples(alone), len(alone))
	}
}

// ofSystem reports whether a path belongs to the package manager by the Filesystem Hierarchy Standard 3.0.
func ofSystem(name string) bool {
	if strings.HasPrefix(name, "usr/local/") {
		return false
	}
	first, _, _ := strings.Cut(name, "/")
	return first == "usr" || first == "bin" || first == "sbin" || strings.HasPrefix(first, "lib")
}

// within reports whether a path has one of these folders in it.
func within(name string, folders ...string) bool {
	for part := range strings.SplitSeq(path.Dir(name), "/") {
		if slices.Contains(folders, part) {
			return true
		}
	}
	return false
}

// examples names the first few of a list.
func examples(paths []string) string {
	const most = 3
	if len(paths) > most {
		return strings.Join(paths[:most], ", ") + ", ..."
	}
	return strings.Join(paths, ", ")
}

func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
