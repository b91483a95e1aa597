// SPDX-License-Identifier: Apache-2.0

// Package image makes a container image from files, without a container engine.
//
// The image is one layer with the files, on nothing (scratch) or on a base image that lies ready as an OCI layout. The
// same files and the same specification always give the same digest, on every machine: names are sorted, owners are 0,
// times are those of the specification, and the layer is not compressed, because a compressor's output changes with its
// version. So anybody can make the image again and compare, and a delta between two images rebuilds the signed bytes.
//
// The result is an OCI layout. It is durable and lists the image only when everything is in it.
package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
)

// Limits on an image.
const (
	MaxFiles  = 100_000 // files, folders and links of the layer
	maxConfig = 1 << 20 // bytes of the configuration of a base image
	maxPath   = 4096    // bytes of a name in the image
)

// Spec says what goes into the image.
type Spec struct {
	// Platform is "os/arch[/variant]".
	Platform string
	// Files go into the layer. Folders above them are made, mode 0755.
	Files []File
	// Base is a folder with the OCI layout of the image below, or of an index with one for the platform. Empty: scratch.
	Base string

	// What follows is set on top of what the base image says. A new entrypoint drops the base's arguments.
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value
	User       string   // "65532:65532"
	WorkDir    string
	Labels     map[string]string
	Ports      []string // "8080/tcp"

	// Created is the time in the image and of every file, with second precision. Zero is 1 January 1970.
	Created time.Time
}

// File is a file or folder of this machine, and its place in the image.
type File struct {
	// Path is where it is here. A folder goes in with all that is in it; symbolic links in it stay links.
	Path string
	// To is where it is in the image, an absolute path with slashes.
	To string
	// Mode are the permissions of a file. 0 means 0755 if it is executable here, else 0644. Folders have 0755.
	Mode fs.FileMode
}

// Image is the result: the descriptor of its manifest.
type Image struct {
	Digest    digest.SHA256
	Size      int64
	MediaType string
}

var (
	platformName = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$`)
	portName     = regexp.MustCompile(`^[0-9]{1,5}(/(tcp|udp|sctp))?$`)
	envName      = regexp.MustCompile(`^[^=\x00]+=[^\x00]*$`)
)

// Write makes the image and lists it in the OCI layout in folder dir, which it creates.
func Write(ctx context.Context, dir string, spec Spec) (_ Image, err error) {
	if err := spec.check(); err != nil {
		return Image{}, fmt.Errorf("cannot make image: %w", err)
	}
	if spec.Created.IsZero() {
		spec.Created = time.Unix(0, 0)
	}
	spec.Created = spec.Created.UTC().Truncate(time.Second)
	entries, err := collect(spec.Files)
	if err != nil {
		return Image{}, fmt.Errorf("cannot make image: %w", err)
	}
	l, err := layout.Create(dir)
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	img, err := write(ctx, l, spec, entries)
	if err != nil {
		return Image{}, fmt.Errorf("cannot make image: %w", err)
	}
	return img, nil
}

func (s Spec) check() error {
	if !platformName.MatchString(s.Platform) {
		return fmt.Errorf("platform %q is not os/arch, for example linux/arm64", s.Platform)
	}
	for _, p := range s.Ports {
		if !portName.MatchString(p) {
			return fmt.Errorf("port %q is not a number, or a number and /tcp, /udp or /sctp", p)
		}
	}
	for _, e := range s.Env {
		if !envName.MatchString(e) {
			return fmt.Errorf("environment %q is not NAME=value", e)
		}
	}
	if s.WorkDir != "" && !path.IsAbs(s.WorkDir) {
		return fmt.Errorf("working folder %q is not absolute", s.WorkDir)
	}
	if len(s.Files) == 0 {
		return errors.New("no files")
	}
	return nil
}

// entry is one name in the layer.
type entry struct {
	name string // without the leading slash; folders end with one
	path string // here; empty for a folder
	link string // target of a symbolic link
	mode fs.FileMode
	size int64
}

// collect lists what goes into the layer, sorted by name, with the folders above.
func collect(files []File) ([]entry, error) {
	all := map[string]entry{} // by name without the slash at the end
	put := func(e entry) error {
		key := strings.TrimSuffix(e.name, "/")
		if old, ok := all[key]; ok {
			if strings.HasSuffix(old.name, "/") && strings.HasSuffix(e.name, "/") {
				return nil
			}
			return fmt.Errorf("two things are at /%s", key)
		}
		if len(all) >= MaxFiles {
			return fmt.Errorf("more than %d files", MaxFiles)
		}
		all[key] = e
		return nil
	}
	for _, f := range files {
		to, err := place(f.To)
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(f.Path, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(f.Path, p)
			if err != nil {
				return err
			}
			e, err := describe(path.Join(to, filepath.ToSlash(rel)), p, f.Mode, rel == ".")
			if err != nil {
				return err
			}
			return put(e)
		})
		if err != nil {
			return nil, err
		}
	}
	for _, e := range slices.Collect(maps.Values(all)) {
		for dir := path.Dir(strings.TrimSuffix(e.name, "/")); dir != "."; dir = path.Dir(dir) {
			if err := put(entry{name: dir + "/", mode: 0o755}); err != nil {
				return nil, err
			}
		}
	}
	sorted := slices.Collect(maps.Values(all))
	slices.SortFunc(sorted, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return sorted, nil
}

// place checks a path in the image and returns it without the leading slash.
func place(to string) (string, error) {
	if !path.IsAbs(to) || path.Clean(to) != strings.TrimSuffix(to, "/") || len(to) > maxPath || strings.ContainsRune(to, 0) {
		return "", fmt.Errorf("place in the image %q is not an absolute path without \"..\"", to)
	}
	return strings.Trim(to, "/"), nil
}

// describe looks at one thing. Only the top of a File is looked at through a symbolic link.
func describe(name, p string, mode fs.FileMode, top bool) (entry, error) {
	stat := os.Lstat
	if top {
		stat = os.Stat
	}
	info, err := stat(p)
	if err != nil {
		return entry{}, err
	}
	switch {
	case info.IsDir():
		return entry{name: name + "/", mode: 0o755}, nil
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := os.Readlink(p)
		return entry{name: name, link: filepath.ToSlash(link), mode: 0o777}, err
	case !info.Mode().IsRegular():
		return entry{}, fmt.Errorf("%s is neither a file nor a folder", p)
	}
	if mode == 0 {
		if mode = 0o644; info.Mode()&0o111 != 0 {
			mode = 0o755
		}
	}
	return entry{name: name, path: p, mode: mode.Perm(), size: info.Size()}, nil
}

// tape writes the layer.
func tape(ctx context.Context, w io.Writer, entries []entry, at time.Time) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: int64(e.mode), Size: e.size, ModTime: at}
		switch {
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if e.path == "" {
			continue
		}
		if err := appendFile(tw, e); err != nil {
			return err
		}
	}
	return tw.Close()
}

func appendFile(tw *tar.Writer, e entry) error {
	f, err := os.Open(e.path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(tw, f)
	if err != nil || n != e.size {
		return errors.Join(fmt.Errorf("%s has changed while it was read: %d bytes, then %d", e.path, e.size, n), err)
	}
	return nil
}

// write makes the blobs and lists the image.
func write(ctx context.Context, l *layout.Layout, spec Spec, entries []entry) (Image, error) {
	config, manifest, err := below(ctx, l, spec)
	if err != nil {
		return Image{}, err
	}
	layer, err := writeLayer(ctx, l, entries, spec.Created)
	if err != nil {
		return Image{}, err
	}
	manifest.Layers = append(manifest.Layers, layer)
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest) // the same: it is not compressed
	created := spec.Created
	config.Created = &created
	config.History = append(config.History, ociv1.History{Created: &created, CreatedBy: "pawl"})
	spec.apply(&config.Config)

	if manifest.Config, err = writeJSON(l, ociv1.MediaTypeImageConfig, config); err != nil {
		return Image{}, err
	}
	desc, err := writeJSON(l, layout.MediaTypeManifest, manifest)
	if err != nil {
		return Image{}, err
	}
	platform := config.Platform
	listed := desc
	listed.Platform = &platform
	if err := l.Add(listed); err != nil {
		return Image{}, err
	}
	d, err := layout.DigestOf(desc)
	return Image{Digest: d, Size: desc.Size, MediaType: desc.MediaType}, err
}

// writeLayer writes the layer twice: once to know its digest, once to disk. A file that changes in between is noticed.
func writeLayer(ctx context.Context, l *layout.Layout, entries []entry, at time.Time) (ociv1.Descriptor, error) {
	run := func() *io.PipeReader {
		r, w := io.Pipe()
		go func() { w.CloseWithError(tape(ctx, w, entries, at)) }()
		return r
	}
	first := run()
	d, size, err := digest.Copy(nil, first)
	if err = errors.Join(err, first.Close()); err != nil {
		return ociv1.Descriptor{}, err
	}
	err = l.Put(ctx, d, size, func(offset int64) (io.ReadCloser, error) {
		again := run()
		if _, err := io.CopyN(io.Discard, again, offset); err != nil {
			return nil, errors.Join(err, again.Close())
		}
		return again, nil
	}, nil)
	return ociv1.Descriptor{MediaType: ociv1.MediaTypeImageLayer, Digest: layout.Digest(d), Size: size}, err
}

func writeJSON(l *layout.Layout, mediaType string, v any) (ociv1.Descriptor, error) {
	data, err := layout.Encode(v)
	if err != nil {
		return ociv1.Descriptor{}, err
	}
	_, err = l.Write(data)
	return layout.Describe(mediaType, data), err
}

// apply sets what the specification says over what the base says.
func (s Spec) apply(c *ociv1.ImageConfig) {
	if len(s.Entrypoint) > 0 {
		c.Entrypoint, c.Cmd = s.Entrypoint, nil
	}
	if len(s.Cmd) > 0 {
		c.Cmd = s.Cmd
	}
	if s.User != "" {
		c.User = s.User
	}
	if s.WorkDir != "" {
		c.WorkingDir = s.WorkDir
	}
	for _, e := range s.Env {
		name, _, _ := strings.Cut(e, "=")
		c.Env = slices.DeleteFunc(c.Env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		c.Env = append(c.Env, e)
	}
	for k, v := range s.Labels {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[k] = v
	}
	for _, p := range s.Ports {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		c.ExposedPorts[p] = struct{}{}
	}
}

// below returns configuration and manifest of what is under the layer, with its blobs in l.
func below(ctx context.Context, l *layout.Layout, spec Spec) (config ociv1.Image, manifest ociv1.Manifest, err error) {
	manifest = ociv1.Manifest{MediaType: layout.MediaTypeManifest}
	manifest.SchemaVersion = 2
	config.RootFS.Type = "layers"
	parts := strings.Split(spec.Platform, "/")
	config.OS, config.Architecture = parts[0], parts[1]
	if len(parts) == 3 {
		config.Variant = parts[2]
	}
	if spec.Base == "" {
		return config, manifest, nil
	}
	base, err := layout.Open(spec.Base)
	if err != nil {
		return config, manifest, err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	desc, m, err := choose(base, spec.Platform)
	if err != nil {
		return config, manifest, fmt.Errorf("base image %s: %w", spec.Base, err)
	}
	sum, err := layout.DigestOf(m.Config)
	if err != nil {
		return config, manifest, err
	}
	text, err := base.Read(sum, maxConfig)
	if err != nil {
		return config, manifest, err
	}
	var under ociv1.Image
	if err := json.Unmarshal(text, &under); err != nil {
		return config, manifest, fmt.Errorf("base image %s: its configuration is not readable: %w", spec.Base, err)
	}
	if have := layout.Platform(ociv1.Descriptor{Platform: &under.Platform}); !layout.IsFor(ociv1.Descriptor{Platform: &under.Platform}, spec.Platform) {
		return config, manifest, fmt.Errorf("base image %s is for %s, not for %s", spec.Base, have, spec.Platform)
	}
	if len(under.RootFS.DiffIDs) != len(m.Layers) {
		return config, manifest, fmt.Errorf("base image %s: %d layers, its configuration knows %d", spec.Base, len(m.Layers), len(under.RootFS.DiffIDs))
	}
	for _, layer := range m.Layers {
		if layer.MediaType, err = ociLayer(layer.MediaType); err != nil {
			return config, manifest, fmt.Errorf("base image %s: %w", spec.Base, err)
		}
		if err := copyBlob(ctx, l, base, layer); err != nil {
			return config, manifest, err
		}
		manifest.Layers = append(manifest.Layers, ociv1.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size})
	}
	manifest.Annotations = map[string]string{ociv1.AnnotationBaseImageDigest: string(desc.Digest)}
	return under, manifest, nil
}

// choose returns the one image of a layout, or the one for the platform of its one index.
func choose(base *layout.Layout, platform string) (ociv1.Descriptor, layout.Manifest, error) {
	entries, err := base.Images()
	if err != nil {
		return ociv1.Descriptor{}, layout.Manifest{}, err
	}
	if len(entries) != 1 {
		return ociv1.Descriptor{}, layout.Manifest{}, fmt.Errorf("it holds %d images, one is needed", len(entries))
	}
	desc := entries[0]
	for range 2 { // an index, then an image
		d, err := layout.DigestOf(desc)
		if err != nil {
			return desc, layout.Manifest{}, err
		}
		m, _, err := base.Manifest(desc.MediaType, d)
		if err != nil || !m.IsIndex() {
			return desc, m, err
		}
		i := slices.IndexFunc(m.Manifests, func(e ociv1.Descriptor) bool { return layout.IsFor(e, platform) })
		if i < 0 {
			return desc, m, fmt.Errorf("it has no image for %s", platform)
		}
		desc = m.Manifests[i]
	}
	return desc, layout.Manifest{}, errors.New("it is an index of indexes")
}

// ociLayer returns OCI's name for a media type of a layer.
func ociLayer(mediaType string) (string, error) {
	switch mediaType {
	case ociv1.MediaTypeImageLayer, ociv1.MediaTypeImageLayerGzip, ociv1.MediaTypeImageLayerZstd:
		return mediaType, nil
	case "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return ociv1.MediaTypeImageLayerGzip, nil
	case "application/vnd.docker.image.rootfs.diff.tar":
		return ociv1.MediaTypeImageLayer, nil
	}
	return "", fmt.Errorf("a layer of media type %q", mediaType)
}

func copyBlob(ctx context.Context, to, from *layout.Layout, desc ociv1.Descriptor) error {
	d, err := layout.DigestOf(desc)
	if err != nil {
		return err
	}
	return to.Put(ctx, d, desc.Size, func(offset int64) (io.ReadCloser, error) {
		f, err := from.Blob(d)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}, nil)
}
