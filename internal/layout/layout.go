// SPDX-License-Identifier: Apache-2.0

// Package layout reads and writes OCI image layouts: folders with container images that every engine can load.
//
// A layout is a file "oci-layout", an "index.json" that lists its images, and the bytes of everything in
// "blobs/sha256/<hex>" (OCI image specification, image-layout.md). Here a blob gets its name only when all its bytes are
// there, are what the name says, and are on the disk; an image is listed only when everything it names is there. So a
// layout that was interrupted at any moment holds whole images and nothing that could be taken for one. A download that
// was cut off leaves its bytes in ".partial/<hex>" and goes on from there.
//
// Writers hold the layout's lock; one that is locked already is refused with class Busy. Readers need no lock.
package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
)

// The names in a layout.
const (
	markFile   = ociv1.ImageLayoutFile
	indexFile  = ociv1.ImageIndexFile
	blobDir    = ociv1.ImageBlobsDir + "/sha256"
	partialDir = ".partial"
	lockFile   = ".lock"
)

// mark is the content of the file that says "this folder is a layout".
const mark = `{"imageLayoutVersion":"1.0.0"}`

// Layout is an open layout. Reading is safe for concurrent use; writing is not.
type Layout struct {
	root *os.Root
	dir  string
	lock *durable.Held // nil if it is open for reading
}

// Open opens the layout in dir for reading.
func Open(dir string) (*Layout, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open image layout: %w", err)
	}
	l := &Layout{root: root, dir: dir}
	if err := l.checkMark(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return l, nil
}

// Create opens the layout in dir for writing. A folder that is missing or empty becomes a layout; a folder that holds
// something else is refused.
func Create(dir string) (*Layout, error) {
	if err := durable.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot create image layout: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot create image layout: %w", err)
	}
	l := &Layout{root: root, dir: dir}
	if err := l.prepare(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Layout) prepare() error {
	names, err := fs.ReadDir(l.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("cannot create image layout: %w", err)
	}
	for _, entry := range names {
		if !slices.Contains([]string{markFile, indexFile, ociv1.ImageBlobsDir, partialDir, lockFile}, entry.Name()) && !durable.IsTemp(entry.Name()) {
			return refusal.New(refusal.Conflict, "folder "+l.dir, "it holds %q, which does not belong to an image layout", clip(entry.Name())).
				Do("give an empty folder, or one that does not exist")
		}
	}
	if l.lock, err = durable.LockIn(l.root, lockFile); err != nil {
		return err
	}
	for _, dir := range []string{blobDir, partialDir} {
		if err := durable.MkdirIn(l.root, dir, 0o755); err != nil {
			return fmt.Errorf("cannot create image layout: %w", err)
		}
	}
	// The mark comes last: with it, the folder is a layout without images.
	if _, err := l.root.Stat(indexFile); errors.Is(err, fs.ErrNotExist) {
		if err := l.writeIndex(nil); err != nil {
			return err
		}
	}
	if _, err := l.root.Stat(markFile); errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFileIn(l.root, markFile, []byte(mark), 0o644); err != nil {
			return fmt.Errorf("cannot create image layout: %w", err)
		}
	}
	return l.checkMark()
}

func (l *Layout) checkMark() error {
	data, err := l.readFile(markFile, MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return malformed("folder "+l.dir, "it is not an image layout: there is no file %q", markFile)
	}
	if err != nil {
		return fmt.Errorf("cannot open image layout: %w", err)
	}
	var content ociv1.ImageLayout
	if err := json.Unmarshal(data, &content); err != nil {
		return malformed("image layout "+l.dir, "%s: %s", markFile, clip(err.Error()))
	}
	if content.Version != ociv1.ImageLayoutVersion {
		return malformed("image layout "+l.dir, "version %q is not %q", clip(content.Version), ociv1.ImageLayoutVersion)
	}
	return nil
}

// Close ends the use of the layout and gives its lock back.
func (l *Layout) Close() error {
	var err error
	if l.lock != nil {
		_ = l.root.Remove(partialDir) // it stays if a download was cut off
		err = l.lock.Unlock()
		l.lock = nil
	}
	return errors.Join(err, l.root.Close())
}

// Dir returns the folder of the layout.
func (l *Layout) Dir() string { return l.dir }

// Images returns what index.json lists.
func (l *Layout) Images() ([]ociv1.Descriptor, error) {
	data, err := l.readFile(indexFile, MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("cannot read image layout: %w", err)
	}
	// The media type is optional in this file.
	index, err := ParseManifest(MediaTypeIndex, data)
	if err != nil {
		return nil, fmt.Errorf("cannot read image layout %s: %w", l.dir, err)
	}
	return index.Manifests, nil
}

// Add lists an image or index. Everything that it names must be in the layout. An entry with the same digest is replaced.
func (l *Layout) Add(d ociv1.Descriptor) error {
	entries, err := l.Images()
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e ociv1.Descriptor) bool { return e.Digest == d.Digest })
	return l.writeIndex(append(entries, d))
}

func (l *Layout) writeIndex(entries []ociv1.Descriptor) error {
	if entries == nil {
		entries = []ociv1.Descriptor{}
	}
	index := ociv1.Index{MediaType: MediaTypeIndex, Manifests: entries}
	index.SchemaVersion = 2
	data, err := Encode(index)
	if err != nil {
		return err
	}
	if err := durable.WriteFileIn(l.root, indexFile, data, 0o644); err != nil {
		return fmt.Errorf("cannot write image layout: %w", err)
	}
	return nil
}

// Blob opens a blob. Its bytes are unverified.
func (l *Layout) Blob(d digest.SHA256) (*os.File, error) {
	f, err := l.root.Open(blobName(d))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s from image layout: %w", d, err)
	}
	return f, nil
}

// Read returns the bytes of a small blob of at most most bytes. Bytes that are not those that were named are refused.
func (l *Layout) Read(d digest.SHA256, most int64) ([]byte, error) {
	data, err := l.readFile(blobName(d), most)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s from image layout: %w", d, err)
	}
	if got := digest.Of(data); got != d {
		return nil, refusal.New(refusal.Digest, "image layout "+l.dir, "%w: blob %s has the bytes of %s", digest.ErrMismatch, d, got)
	}
	return data, nil
}

// Manifest reads the manifest or index with digest d, which goes by mediaType.
func (l *Layout) Manifest(mediaType string, d digest.SHA256) (Manifest, []byte, error) {
	data, err := l.Read(d, MaxManifest)
	if err != nil {
		return Manifest{}, nil, err
	}
	m, err := ParseManifest(mediaType, data)
	if err != nil {
		return Manifest{}, nil, err
	}
	return m, data, nil
}

// Find returns the entry of index.json for d.
func (l *Layout) Find(d digest.SHA256) (ociv1.Descriptor, error) {
	entries, err := l.Images()
	if err != nil {
		return ociv1.Descriptor{}, err
	}
	for _, e := range entries {
		if string(e.Digest) == d.String() {
			return e, nil
		}
	}
	return ociv1.Descriptor{}, fmt.Errorf("image layout %s: %s: %w", l.dir, d, fs.ErrNotExist)
}

// Write stores a small blob and returns its digest.
func (l *Layout) Write(data []byte) (digest.SHA256, error) {
	d := digest.Of(data)
	if l.has(d, int64(len(data))) {
		return d, nil
	}
	if err := durable.WriteFileIn(l.root, blobName(d), data, 0o644); err != nil {
		return d, fmt.Errorf("cannot write to image layout: %w", err)
	}
	return d, nil
}

// Put stores the blob with digest d and size. A blob that is there already is read and checked, and replaced if it is
// damaged. open returns the bytes from an offset on; the offset is 0 unless an earlier Put was cut off. progress, which
// may be nil, is called with the number of bytes in place.
//
// Bytes that are not those that were named are refused with class Digest, and forgotten.
func (l *Layout) Put(ctx context.Context, d digest.SHA256, size int64, open func(offset int64) (io.ReadCloser, error), progress func(int64)) error {
	if l.has(d, size) {
		if progress != nil {
			progress(size)
		}
		return nil
	}
	partial := partialDir + "/" + d.Hex()
	f, err := l.root.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write to image layout: %w", err)
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot write to image layout: %w", err)
	}
	offset := info.Size()
	if offset > size {
		offset = 0 // not the beginning of this blob: begin again
	}
	if err := errors.Join(f.Truncate(offset), seek(f, offset)); err != nil {
		return fmt.Errorf("cannot write to image layout: %w", err)
	}
	src := &source{ctx: ctx, open: open, offset: offset, size: size, progress: progress}
	defer src.close()
	// The bytes that are there are hashed again: nobody vouches for what a crash has left.
	before := io.NewSectionReader(f, 0, offset)
	err = digest.Verify(&after{skip: offset, to: f}, io.MultiReader(before, src), d, size)
	switch {
	case errors.Is(err, digest.ErrMismatch), src.offset > size:
		r := refusal.New(refusal.Digest, "blob "+d.String(), "%w", err).Do("try again; if it stays so, the source is damaged or hostile")
		return errors.Join(r, durable.RemoveIn(l.root, partial))
	case err != nil:
		return fmt.Errorf("cannot get %s: %w", d, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write to image layout: %w", err)
	}
	if err := durable.RenameIn(l.root, partial, blobName(d)); err != nil {
		return fmt.Errorf("cannot write to image layout: %w", err)
	}
	return nil
}

// source reads a blob from an offset on, opened at the first read.
type source struct {
	ctx          context.Context
	open         func(offset int64) (io.ReadCloser, error)
	from         io.ReadCloser
	offset, size int64
	progress     func(int64)
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.from == nil {
		if s.offset == s.size {
			return 0, io.EOF // all bytes were there already
		}
		from, err := s.open(s.offset)
		if err != nil {
			return 0, err
		}
		s.from = from
	}
	n, err := s.from.Read(p)
	s.offset += int64(n)
	if s.progress != nil && n > 0 {
		s.progress(min(s.offset, s.size))
	}
	return n, err
}

func (s *source) close() {
	if s.from != nil {
		_ = s.from.Close() // every byte that matters has been read and hashed
	}
}

// after passes on what comes after the first skip bytes.
type after struct {
	skip int64
	to   io.Writer
}

func (a *after) Write(p []byte) (int, error) {
	skip := min(a.skip, int64(len(p)))
	a.skip -= skip
	n, err := a.to.Write(p[skip:])
	return n + int(skip), err
}

// has reports whether the blob is there with the right bytes. A damaged one is removed, so that it is fetched again.
func (l *Layout) has(d digest.SHA256, size int64) bool {
	f, err := l.root.Open(blobName(d))
	if err != nil {
		return false
	}
	defer f.Close()
	return digest.Verify(nil, f, d, size) == nil
}

// readFile returns a small file.
func (l *Layout) readFile(name string, most int64) ([]byte, error) {
	f, err := l.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, malformed("image layout "+l.dir, "%s has more than %d bytes", name, most)
	}
	return out.Bytes(), nil
}

// Encode returns the JSON text of a manifest, index or configuration: the same value always gives the same bytes.
func Encode(v any) ([]byte, error) {
	data, err := json.Marshal(v, json.Deterministic(true), jsontext.EscapeForHTML(false))
	if err != nil {
		return nil, fmt.Errorf("cannot encode manifest: %w", err)
	}
	return data, nil
}

// Describe returns the descriptor of data.
func Describe(mediaType string, data []byte) ociv1.Descriptor {
	return ociv1.Descriptor{MediaType: mediaType, Digest: Digest(digest.Of(data)), Size: int64(len(data))}
}

func blobName(d digest.SHA256) string { return blobDir + "/" + d.Hex() }

func seek(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}
