// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// kind is what the first bytes of a file say.
type kind int

const (
	unknown kind = iota
	program
	zipped
	tarred
	gzipped
	zstandard
	bzipped
)

const (
	sniffLength   = 512
	maxPath       = 4096      // of a name in an archive, in bytes
	maxZstdWindow = 128 << 20 // the largest that the format's reference tools use without asking
)

// sniff recognises programs (ELF, PE, Mach-O, WebAssembly) and archives.
func sniff(head []byte) kind {
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")), bytes.HasPrefix(head, []byte("MZ")), bytes.HasPrefix(head, []byte("\x00asm")):
		return program
	case len(head) >= 8 && machO(head):
		return program
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return zipped
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return gzipped
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return zstandard
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzipped
	case len(head) >= 262 && string(head[257:262]) == "ustar":
		return tarred
	}
	return unknown
}

// machO tells Mach-O files, thin and universal, from Java classes, which begin like universal ones and go on with a
// version of 45 or more where those have a small number of architectures.
func machO(head []byte) bool {
	switch binary.BigEndian.Uint32(head) {
	case 0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe:
		return true
	case 0xcafebabe:
		return binary.BigEndian.Uint32(head[4:]) < 40
	}
	return false
}

// looksPacked reports whether a file in a tree is meant as an archive of files: compressed manuals and fonts are not.
func looksPacked(name string, k kind) bool {
	lower := strings.ToLower(path.Base(name))
	var suffixes []string
	switch k {
	case zipped:
		suffixes = []string{".zip", ".whl", ".egg", ".nupkg"}
	case tarred:
		suffixes = []string{".tar"}
	case gzipped:
		suffixes = []string{".tar.gz", ".tgz"}
	case zstandard:
		suffixes = []string{".tar.zst"}
	case bzipped:
		suffixes = []string{".tar.bz2", ".tbz2"}
	}
	for _, s := range suffixes {
		if strings.HasSuffix(lower, s) {
			return true
		}
	}
	return false
}

// unpack hands every regular file of an archive to c. Every error about the archive's bytes is a refusal.
func (w *work) unpack(c *collector, k kind, f *os.File, size int64, name string) error {
	if k == zipped {
		return w.unzip(c, f, size)
	}
	r, err := w.inflate(k, io.NewSectionReader(f, 0, size))
	if err != nil {
		return err
	}
	defer r.Close()
	head, err := r.Peek(sniffLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if k == tarred || sniff(head) == tarred {
		return w.untar(c, r)
	}
	// A single compressed file.
	return c.file(path.Base(strings.TrimSuffix(name, path.Ext(name))), 0, r)
}

// stream is a decompressed stream within the budget.
type stream struct {
	*bufio.Reader
	close func()
}

func (s *stream) Close() { s.close() }

// inflate decompresses r.
func (w *work) inflate(k kind, r io.Reader) (*stream, error) {
	closing := func() {}
	switch k {
	case gzipped:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, w.torn(err)
		}
		r = z
	case bzipped:
		r = bzip2.NewReader(r)
	case zstandard:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, w.torn(err)
		}
		r, closing = z, z.Close
	}
	return &stream{Reader: bufio.NewReaderSize(&budget{w: w, r: r}, 64<<10), close: closing}, nil
}

// budget counts the bytes that come out of a decompressor or an entry against the limit of all of them.
type budget struct {
	w *work
	r io.Reader
}

func (b *budget) Read(p []byte) (int, error) {
	if err := b.w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.w.unpacked += int64(n); b.w.unpacked > b.w.limits.unpacked {
		return n, malformed("more than %d bytes unpacked", b.w.limits.unpacked)
	}
	if err != nil && err != io.EOF {
		err = b.w.torn(err)
	}
	return n, err
}

// torn makes a refusal of what a decompressor or an archive reader says about its bytes, and leaves errors of this machine.
func (w *work) torn(err error) error {
	var disk *fs.PathError
	if errors.As(err, &disk) || w.ctx.Err() != nil || isMalformed(err) {
		return err
	}
	return malformed("not a whole archive: %w", err)
}

// untar hands every regular file of a tar stream to c. Links are skipped: what they point to comes by itself.
func (w *work) untar(c *collector, r io.Reader) error {
	return w.eachTar(r, func(h *tar.Header, name string, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		return c.file(name, h.Size, r)
	})
}

// eachTar calls fn for every entry with a clean name.
func (w *work) eachTar(r io.Reader, fn func(h *tar.Header, name string, r io.Reader) error) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return w.torn(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := cleanName(h.Name)
		if err != nil {
			return err
		}
		if err := w.step(); err != nil {
			return err
		}
		// A sparse file gives more bytes than the stream has, so they are counted here as well.
		if err := fn(h, name, &budget{w: w, r: t}); err != nil {
			return w.torn(err)
		}
	}
}

// unzip hands every regular file of a zip archive to c.
func (w *work) unzip(c *collector, r io.ReaderAt, size int64) error {
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are checked below
		return w.torn(err)
	}
	for _, f := range z.File {
		name, err := cleanName(f.Name)
		if err != nil {
			return err
		}
		if err := w.step(); err != nil {
			return err
		}
		if !f.Mode().IsRegular() || strings.HasSuffix(f.Name, "/") {
			continue
		}
		if f.Flags&1 != 0 {
			c.note("%s%s: encrypted", c.prefix, name)
			continue
		}
		entry, err := f.Open()
		if errors.Is(err, zip.ErrAlgorithm) {
			c.note("%s%s: compressed by a method that is not known (%d)", c.prefix, name, f.Method)
			continue
		}
		if err != nil {
			return w.torn(err)
		}
		err = c.file(name, int64(min(f.UncompressedSize64, 1<<62)), &budget{w: w, r: entry})
		if closed := entry.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return w.torn(err)
		}
	}
	return nil
}

// cleanName returns an entry's name relative to the root of the archive, and refuses one that climbs out of it.
func cleanName(name string) (string, error) {
	if len(name) > maxPath {
		return "", malformed("a path of %d bytes, at most %d are allowed", len(name), maxPath)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", malformed("path %q holds a zero byte", clip(name, 80))
	}
	for part := range strings.SplitSeq(strings.ReplaceAll(name, `\`, "/"), "/") {
		if part == ".." {
			return "", malformed("path %q climbs out of the archive", clip(name, 80))
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}
