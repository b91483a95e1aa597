// SPDX-License-Identifier: Apache-2.0

// Package embedded lists the components of an artifact with nothing installed: it needs no other program and no network.
//
// It looks into a file (a program, or a tar, tar.gz, tar.zst, tar.bz2 or zip archive), a folder, and an OCI image layout,
// and finds
//
//   - the modules of Go programs and the standard library they were built with, from the build information in the binary,
//   - npm packages: what lies in node_modules, and package-lock.json where nothing is installed beside it,
//   - NuGet packages, the .NET runtime included: *.deps.json and packages.lock.json,
//   - Debian, Ubuntu and Alpine packages: the databases of dpkg and apk,
//   - Python packages: wheels and eggs, installed or not, and the pinned lines of requirements files.
//
// Most formats are read by single extractors of osv-scalibr. Walking, unpacking and deciding are done here, because the
// bytes are not trusted and the result decides a release: archives are never unpacked to disk, every number and size that
// an archive chooses has a limit, layers of an image are hashed against their digests, and what was seen but not
// understood is named. Nothing is left out silently: an artifact that says nothing about itself is Opaque, a part that
// cannot be read is a gap, and a whole package database of a kind that is not known here is an error.
//
// The same bytes give the same list.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sbom"
)

// limits bound what an artifact can make this package do.
type limits struct {
	entries  int   // files in all archives, layers and folders together
	unpacked int64 // bytes that decompression may give, together
	metadata int64 // bytes of one package list
	kept     int64 // bytes of package lists that are held in memory at a time
	program  int64 // bytes of one program or nested archive that is spooled to disk
	depth    int   // archives within archives
	gaps     int   // sentences about what was not looked into
}

var defaults = limits{
	entries:  1_000_000,
	unpacked: 64 << 30,
	metadata: 128 << 20,
	kept:     512 << 20,
	program:  4 << 30,
	depth:    4,
	gaps:     200,
}

// Options configure a Maker.
type Options struct {
	// Tool is what SBOMs name as their maker.
	Tool evidence.Tool
	// Now gives the time of creation.
	Now func() time.Time
	// Temp is the folder for programs and nested archives while they are looked at, one at a time; empty is the system's.
	Temp string
}

// Maker implements sbom.Maker. It may be used from several goroutines.
type Maker struct {
	opt    Options
	limits limits
}

// New returns a Maker.
func New(opt Options) *Maker {
	silenceExtractors()
	return &Maker{opt: opt, limits: defaults}
}

// Make implements sbom.Maker. Errors that wrap sbom.ErrUnsupported mean an artifact of a kind that is not known; an archive
// or layout that breaks its format or a limit is a refusal of class Malformed.
func (m *Maker) Make(ctx context.Context, src sbom.Source) (evidence.SBOM, error) {
	temp, err := os.MkdirTemp(m.opt.Temp, "pawl-sbom-")
	if err != nil {
		return evidence.SBOM{}, fmt.Errorf("cannot look into %s: %w", src.Subject.Name, err)
	}
	defer os.RemoveAll(temp)
	w := &work{ctx: ctx, temp: temp, limits: m.limits, name: src.Subject.Name, noted: map[string]bool{}}

	var components []evidence.Component
	switch src.Shape {
	case sbom.File:
		components, err = w.lookIntoFile(src)
	case sbom.Folder:
		components, err = w.lookIntoFolder(src.Path)
	case sbom.Layout:
		components, err = w.lookIntoLayout(src)
	default:
		err = fmt.Errorf("shape %q: %w", src.Shape, sbom.ErrUnsupported)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return evidence.SBOM{}, fmt.Errorf("cannot look into %s: %w", src.Subject.Name, err)
	}
	// An archive in which a package list was read is not opaque, even if the list is empty.
	opaque := len(components) == 0 && !w.understood
	declared, err := declare(src.Declared)
	if err != nil {
		return evidence.SBOM{}, fmt.Errorf("declared components of %s: %w", src.Subject.Name, err)
	}
	components = evidence.Merge(components, declared)
	if err := bearable(components); err != nil {
		return evidence.SBOM{}, fmt.Errorf("cannot look into %s: %w", src.Subject.Name, err)
	}
	return evidence.SBOM{
		Subject:    src.Subject,
		Components: components,
		Tool:       m.opt.Tool,
		Created:    m.opt.Now().UTC().Truncate(time.Second),
		Opaque:     opaque,
		Gaps:       w.sentences(),
	}, nil
}

// lookIntoFile looks into a program or an archive.
func (w *work) lookIntoFile(src sbom.Source) ([]evidence.Component, error) {
	f, err := os.Open(src.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file: %w", sbom.ErrUnsupported)
	}
	head := make([]byte, sniffLength)
	n, err := f.ReadAt(head, 0)
	if err != nil && n == 0 && info.Size() > 0 {
		return nil, err
	}
	switch kind := sniff(head[:n]); kind {
	case program:
		return w.product(f, src.Subject.Name)
	case zipped, tarred, gzipped, zstandard, bzipped:
		c := w.collector("", 0)
		if err := w.unpack(c, kind, f, info.Size(), src.Subject.Name); err != nil {
			return nil, err
		}
		return c.finish()
	}
	// Raw firmware, a script, a document: nothing here can be seen, but its maker may have said what is in it.
	if len(src.Declared) > 0 {
		return nil, nil
	}
	return nil, fmt.Errorf("%w: neither a program nor an archive; its components can be declared", sbom.ErrUnsupported)
}

// product looks into a program that is the artifact itself. A main module without a version is the product, which is
// the subject of the SBOM and not a component of it.
func (w *work) product(f *os.File, name string) ([]evidence.Component, error) {
	modules, main, isGo := goProgram(f, name)
	if !isGo {
		return nil, nil
	}
	w.understood = true
	if len(main) > 0 && main[0].Version == "" {
		main = nil
	}
	return slices.Concat(modules, main), nil
}

// lookIntoFolder looks into a tree of files. Symbolic links are not followed: what they point to lies in the tree as well,
// or is not part of the artifact.
func (w *work) lookIntoFolder(root string) ([]evidence.Component, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c := w.collector("", 0)
	err = fs.WalkDir(dir.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := w.step(); err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := dir.Open(filepath.FromSlash(path))
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return c.file(path, info.Size(), f)
	})
	if err != nil {
		return nil, err
	}
	return c.finish()
}

// declare checks declared components and derives what they leave out.
func declare(list []evidence.Component) ([]evidence.Component, error) {
	var out []evidence.Component
	for i, c := range list {
		switch {
		case c.Name == "":
			return nil, fmt.Errorf("component %d has no name", i+1)
		case len(c.Name) > evidence.MaxText || len(c.Version) > evidence.MaxText || len(c.PURL) > evidence.MaxText:
			return nil, fmt.Errorf("component %d: a text of more than %d bytes", i+1, evidence.MaxText)
		}
		if c.PURL == "" {
			c.PURL = packageURL("generic", "", c.Name, c.Version, nil)
		}
		if evidence.Identify(c.PURL).Name == "" {
			return nil, fmt.Errorf("component %s: %q is not a package URL", c.Name, c.PURL)
		}
		c.Declared = true
		c.Ecosystem = c.Package().Ecosystem
		out = append(out, c)
	}
	return out, nil
}

// bearable refuses a list that no reader of SBOMs takes, and shortens what may be shortened.
func bearable(list []evidence.Component) error {
	if len(list) > evidence.MaxComponents {
		return malformed("%d components, at most %d are allowed", len(list), evidence.MaxComponents)
	}
	for i, c := range list {
		if n := max(len(c.Name), len(c.Version), len(c.PURL)); n > evidence.MaxText {
			return malformed("component %s: a text of %d bytes, at most %d are allowed", clip(c.Name, 80), n, evidence.MaxText)
		}
		for j := range c.Locations {
			list[i].Locations[j] = clip(c.Locations[j], evidence.MaxText-len("..."))
		}
		for j := range c.Licences {
			list[i].Licences[j] = clip(c.Licences[j], evidence.MaxText-len("..."))
		}
	}
	return nil
}

// malformed is a refusal of what an archive or layout says.
func malformed(format string, args ...any) error {
	return refusal.New(refusal.Malformed, "artifact", format, args...)
}

// isMalformed reports whether err is the artifact's fault and not this machine's.
func isMalformed(err error) bool {
	return errors.Is(err, &refusal.Error{Class: refusal.Malformed}) || errors.Is(err, sbom.ErrUnsupported)
}
