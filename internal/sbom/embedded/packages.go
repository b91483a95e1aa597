// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor"
	"github.com/google/osv-scalibr/extractor/filesystem"
	"github.com/google/osv-scalibr/extractor/filesystem/language/dotnet/depsjson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/dotnet/packageslockjson"
	npmmeta "github.com/google/osv-scalibr/extractor/filesystem/language/javascript/metadata"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/packagelockjson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/requirements"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/wheelegg"
	"github.com/google/osv-scalibr/extractor/filesystem/os/apk"
	apkmeta "github.com/google/osv-scalibr/extractor/filesystem/os/apk/metadata"
	"github.com/google/osv-scalibr/extractor/filesystem/os/dpkg"
	dpkgmeta "github.com/google/osv-scalibr/extractor/filesystem/os/dpkg/metadata"
	scalibrlog "github.com/google/osv-scalibr/log"
	packageurl "github.com/package-url/packageurl-go"

	"github.com/pawl-project/pawl/internal/evidence"
)

// goProgram returns what a program built by Go says about itself: the standard library and the modules, and apart from
// them the main module, if it has one. Build information survives stripping and is written by the linker; false means
// that there is none.
//
// The standard library's reader is used and not an extractor, because of replaced modules: one that is replaced by a
// local folder is in the program under its own name, in a version that nobody knows.
func goProgram(r io.ReaderAt, location string) (list, main []evidence.Component, ok bool) {
	defer func() {
		// debug/buildinfo is not made for hostile files; a file that it cannot bear is not a Go program.
		if recover() != nil {
			list, main, ok = nil, nil, false
		}
	}()
	info, err := buildinfo.Read(r)
	if err != nil {
		return nil, nil, false
	}
	list, main = goModules(info, location)
	return list, main, true
}

func goModules(info *buildinfo.BuildInfo, location string) (list, main []evidence.Component) {
	list = append(list, goModule("stdlib", evidence.GoVersion(info.GoVersion), location))
	for _, dep := range info.Deps {
		path, version := dep.Path, dep.Version
		if r := dep.Replace; r != nil && (r.Version == "" || r.Version == "(devel)") {
			version = ""
		} else if r != nil {
			path, version = r.Path, r.Version
		}
		list = append(list, goModule(path, version, location))
	}
	if info.Main.Path != "" {
		main = append(main, goModule(info.Main.Path, info.Main.Version, location))
	}
	return list, main
}

func goModule(name, version, location string) evidence.Component {
	if version == "(devel)" {
		version = ""
	}
	version = strings.TrimPrefix(version, "v")
	namespace, base := path.Split(name)
	return component(name, version, packageURL("golang", strings.TrimSuffix(namespace, "/"), base, version, nil), location)
}

// packageURL writes a package URL in its canonical form; what cannot be written is "".
func packageURL(kind, namespace, name, version string, qualifiers map[string]string) string {
	maps.DeleteFunc(qualifiers, func(_, v string) bool { return v == "" })
	u := packageurl.NewPackageURL(kind, namespace, name, version, packageurl.QualifiersFromMap(qualifiers), "")
	if err := u.Normalize(); err != nil {
		return ""
	}
	return u.ToString()
}

func component(name, version, purl, location string) evidence.Component {
	c := evidence.Component{Name: name, Version: version, PURL: purl, Locations: []string{location}}
	c.Ecosystem = c.Package().Ecosystem
	return c
}

func npmPackage(name, version, location string) evidence.Component {
	namespace, base := path.Split(name)
	return component(name, version, packageURL("npm", strings.TrimSuffix(namespace, "/"), base, version, nil), location)
}

// packageJSON reads a package.json: an installed package if it lies in node_modules, else the manifest of something that
// may have dependencies.
func (c *collector) packageJSON(name string, data []byte) error {
	dir := path.Dir(name)
	parent := path.Dir(dir)
	if strings.HasPrefix(path.Base(parent), "@") {
		parent = path.Dir(parent)
	}
	installed := path.Base(parent) == "node_modules"
	if !installed && within(name, "node_modules") {
		return nil // a part of a package, or one of its test files
	}
	var manifest struct {
		Name         string            `json:"name"`
		Version      string            `json:"version"`
		Licence      jsontext.Value    `json:"license"`
		Dependencies map[string]string `json:"dependencies"`
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if err := json.Unmarshal(data, &manifest, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	c.understood = true
	if !installed {
		if len(manifest.Dependencies) > 0 {
			c.loose = append(c.loose, name)
		}
		return nil
	}
	root, _, _ := strings.Cut("/"+name, "/node_modules/")
	c.roots[path.Clean("./"+root)] = true
	if manifest.Name == "" || manifest.Version == "" {
		return fmt.Errorf("an installed package without name or version")
	}
	found := npmPackage(manifest.Name, manifest.Version, c.prefix+name)
	var licence string
	if json.Unmarshal(manifest.Licence, &licence) == nil && licence != "" {
		found.Licences = []string{licence}
	}
	c.found = append(c.found, found)
	return nil
}

// dotnetDeps reads what "dotnet publish" wrote about an application.
func (c *collector) dotnetDeps(name string, data []byte) error {
	c.managed[path.Dir(name)] = true
	list, err := c.extract(depsjson.New, nil, name, data)
	if err != nil {
		return err
	}
	for _, p := range list {
		meta, ok := p.Metadata.(*depsjson.Metadata)
		if ok && meta.Type == "project" {
			continue // the application itself, or a part of it
		}
		// The runtime of a self-contained application is a package as well; this prefix is not part of its name.
		id := strings.TrimPrefix(p.Name, "runtimepack.")
		c.found = append(c.found, component(id, p.Version, packageURL("nuget", "", id, p.Version, nil), c.prefix+name))
	}
	return nil
}

// dotnetLock reads packages.lock.json. Projects stand in it without a version.
func (c *collector) dotnetLock(name string, data []byte) error {
	list, err := c.extract(packageslockjson.New, nil, name, data)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Version != "" {
			c.found = append(c.found, component(p.Name, p.Version, packageURL("nuget", "", p.Name, p.Version, nil), c.prefix+name))
		}
	}
	return nil
}

// isPythonMetadata reports whether a file describes a Python package: core metadata of a wheel or an egg.
func isPythonMetadata(name string) bool {
	for _, suffix := range []string{".dist-info/METADATA", ".egg-info/PKG-INFO", "EGG-INFO/PKG-INFO", ".egg-info"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

func (c *collector) pythonMetadata(name string, data []byte) error {
	list, err := c.extract(wheelegg.New, nil, name, data)
	if err != nil {
		return err
	}
	for _, p := range list {
		c.found = append(c.found, pythonPackage(p.Name, p.Version, c.prefix+name))
	}
	return nil
}

func pythonPackage(name, version, location string) evidence.Component {
	return component(name, version, packageURL("pypi", "", name, version, nil), location)
}

// keeps reports whether a file is read only when the whole tree is known: the databases of operating systems need
// os-release beside them, lock and requirements files refer to others.
func keeps(name string) bool {
	base := path.Base(name)
	switch {
	case isSystemDatabase(name), isRelease(name):
		return true
	case base == "package-lock.json" || base == "npm-shrinkwrap.json":
		return !within(name, "node_modules")
	case path.Ext(base) == ".txt" && (strings.Contains(base, "requirements") || strings.HasPrefix(path.Base(path.Dir(name)), "requirements")):
		return !within(name, "node_modules", "site-packages", "dist-packages")
	}
	return false
}

func isRelease(name string) bool { return name == "etc/os-release" || name == "usr/lib/os-release" }

func isSystemDatabase(name string) bool {
	return isDpkg(name) || isApk(name)
}

func isDpkg(name string) bool {
	return name == "var/lib/dpkg/status" || name == "usr/lib/opkg/status" ||
		strings.HasPrefix(name, "var/lib/dpkg/status.d/") && !strings.HasSuffix(name, ".md5sums")
}

func isApk(name string) bool {
	return name == "lib/apk/db/installed" || name == "usr/lib/apk/db/installed" || name == "var/lib/apk/db/installed"
}

// readLists reads the lists that were kept. A broken database of an operating system ends the work; any other broken
// list is a gap.
func (c *collector) readLists() error {
	shelf := shelf(c.lists)
	for _, name := range slices.Sorted(maps.Keys(c.lists)) {
		var err error
		switch {
		case isRelease(name):
			continue
		case isDpkg(name):
			err = c.dpkg(shelf, name)
		case isApk(name):
			err = c.apk(shelf, name)
		case strings.HasSuffix(name, ".json"):
			err = c.npmLock(shelf, name)
		default:
			err = c.requirements(shelf, name)
		}
		switch {
		case err == nil:
			c.understood = true
		case c.ctx.Err() != nil:
			return c.ctx.Err()
		case isSystemDatabase(name):
			return malformed("package database %s%s: %w", c.prefix, name, err)
		default:
			c.note("%s%s: %v", c.prefix, name, err)
		}
	}
	return nil
}

func (c *collector) dpkg(shelf shelf, name string) error {
	list, err := c.extract(dpkg.New, shelf, name, shelf[name])
	if err != nil {
		return err
	}
	c.system = true
	for _, p := range list {
		meta, ok := p.Metadata.(*dpkgmeta.Metadata)
		if !ok {
			return fmt.Errorf("package %s is not described as expected", p.Name)
		}
		kind := "deb"
		if name == "usr/lib/opkg/status" {
			kind = "opkg"
		}
		upstream := meta.SourceName
		if meta.SourceVersion != "" {
			upstream += "@" + meta.SourceVersion
		}
		c.found = append(c.found, component(p.Name, p.Version,
			packageURL(kind, orDefault(meta.OSID, "debian"), p.Name, p.Version, map[string]string{"distro": distro(meta.OSID, orDefault(meta.OSVersionID, meta.OSVersionCodename)), "upstream": upstream}),
			c.prefix+name))
	}
	return nil
}

func (c *collector) apk(shelf shelf, name string) error {
	list, err := c.extract(apk.New, shelf, name, shelf[name])
	if err != nil {
		return err
	}
	c.system = true
	for _, p := range list {
		meta, ok := p.Metadata.(*apkmeta.Metadata)
		if !ok {
			return fmt.Errorf("package %s is not described as expected", p.Name)
		}
		found := component(p.Name, p.Version,
			packageURL("apk", orDefault(meta.OSID, "alpine"), p.Name, p.Version, map[string]string{"distro": distro(meta.OSID, meta.OSVersionID), "upstream": meta.OriginName}),
			c.prefix+name)
		found.Licences = p.Licenses
		c.found = append(c.found, found)
	}
	return nil
}

// distro writes the qualifier as the common tools do: "debian-12", "alpine-3.20.1".
func distro(id, release string) string {
	if id == "" || release == "" {
		return ""
	}
	return id + "-" + release
}

func orDefault(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// npmLock reads a lock file. Packages for development only are not part of what is delivered.
func (c *collector) npmLock(shelf shelf, name string) error {
	list, err := c.extract(packagelockjson.New, shelf, name, shelf[name])
	if err != nil {
		return err
	}
	for _, p := range list {
		meta, ok := p.Metadata.(*npmmeta.JavascriptPackageMetadata)
		if ok && slices.Contains(meta.DepGroupVals, "dev") {
			continue
		}
		found := npmPackage(p.Name, p.Version, c.prefix+name)
		if p.SourceCode != nil && p.SourceCode.Commit != "" { // from a source repository: no registry knows its version
			found = component(p.Name, p.SourceCode.Commit, packageURL("generic", "", p.Name, p.SourceCode.Commit, nil), c.prefix+name)
		}
		c.planned = append(c.planned, plan{Component: found, npm: true, dir: path.Dir(name)})
	}
	return nil
}

// requirements reads a requirements file. Only "==" names a version; everything else says what may be installed.
func (c *collector) requirements(shelf shelf, name string) error {
	for line := range strings.Lines(string(shelf[name])) {
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '=' || r == '\r' || r == '\n' })
		if len(fields) < 2 || fields[0] != "-r" && fields[0] != "--requirement" {
			continue
		}
		if other := path.Join(path.Dir(name), fields[1]); shelf[other] == nil {
			c.note("%s%s: refers to %s, which was not read", c.prefix, name, fields[1])
		}
	}
	list, err := c.extract(requirements.New, shelf, name, shelf[name])
	if err != nil {
		return err
	}
	for _, p := range list {
		version := p.Version
		if meta, ok := p.Metadata.(*requirements.Metadata); !ok || !strings.HasPrefix(meta.VersionComparator, "==") {
			version = ""
		}
		c.planned = append(c.planned, plan{Component: pythonPackage(p.Name, version, c.prefix+name), dir: path.Dir(name)})
	}
	return nil
}

// extract runs one extractor over one list.
func (c *collector) extract(construct func(*cpb.PluginConfig) (filesystem.Extractor, error), shelf shelf, name string, data []byte) (list []*extractor.Package, err error) {
	defer func() {
		// Extractors have panicked on odd lists before; a list is not trusted, and must not end the program.
		if p := recover(); p != nil {
			list, err = nil, fmt.Errorf("cannot be read: %v", p)
		}
	}()
	e, err := construct(&cpb.PluginConfig{})
	if err != nil {
		return nil, err
	}
	inventory, err := e.Extract(c.ctx, &filesystem.ScanInput{
		FS: shelf, Path: name, Info: info{name: path.Base(name), size: int64(len(data))}, Reader: bytes.NewReader(data),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	c.understood = true
	return inventory.Packages, nil
}

// shelf is the file system that extractors see: the lists that were kept, in memory. Nothing else can be opened.
type shelf map[string][]byte

// Open implements fs.FS.
func (s shelf) Open(name string) (fs.File, error) {
	data, ok := s[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &shelved{Reader: bytes.NewReader(data), info: info{name: path.Base(name), size: int64(len(data))}}, nil
}

// Stat implements fs.StatFS. The folder etc is always there: without it an extractor takes the tree for something that
// has no operating system, also if os-release lies elsewhere.
func (s shelf) Stat(name string) (fs.FileInfo, error) {
	if data, ok := s[name]; ok {
		return info{name: path.Base(name), size: int64(len(data))}, nil
	}
	if name == "etc" {
		return info{name: name, dir: true}, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements fs.ReadDirFS; none of the extractors lists a folder.
func (s shelf) ReadDir(name string) ([]fs.DirEntry, error) {
	return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.ErrUnsupported}
}

type shelved struct {
	*bytes.Reader
	info info
}

func (f *shelved) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *shelved) Close() error               { return nil }

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// silence is a logger of extractors that says nothing: what matters comes back as a result, and an error stream belongs
// to the command.
type silence struct{}

func (silence) Errorf(string, ...any) {}
func (silence) Error(...any)          {}
func (silence) Warnf(string, ...any)  {}
func (silence) Warn(...any)           {}
func (silence) Infof(string, ...any)  {}
func (silence) Info(...any)           {}
func (silence) Debugf(string, ...any) {}
func (silence) Debug(...any)          {}

// silenceExtractors sets the library's only logger, which is a variable of its package, once in the life of the process.
var silenceExtractors = sync.OnceFunc(func() { scalibrlog.SetLogger(silence{}) })
