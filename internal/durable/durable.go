// SPDX-License-Identifier: Apache-2.0

// Package durable writes files so that a power cut at any moment leaves the old content or the new one, never a mixture
// and never a half.
//
// A file is replaced in five steps: a hidden temporary file in the same folder, its bytes, fsync, rename over the name,
// fsync of the folder. When a function here returns nil the change survives a power cut; when it returns an error the
// name still holds what it held before, and the temporary file is gone (one exception: if only the last fsync fails, the
// name holds the new content, which may not survive a power cut). A crash can leave a temporary file behind: IsTemp
// recognises it, and nothing ever reads one.
//
// Journals grow by whole lines (Append, ReadLines). A line without its newline was torn by a crash and is dropped.
//
// Locks are advisory locks of the operating system on a file of their own. They vanish with the process that holds them,
// so there is no stale lock to clean up; the file itself stays.
//
// Not promised: disks that lie about fsync, and file systems without atomic rename. Windows offers no fsync of a folder;
// there the rename itself is journalled by the file system.
package durable

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pawl-project/pawl/internal/digest"
)

// tempMark stands in the name of every temporary file: ".<name>.pawl-tmp-<random>".
const tempMark = ".pawl-tmp-"

// IsTemp reports whether base, the last part of a path, is a temporary file of this package. One that is left behind by
// a crash can be deleted once nobody writes it any more.
func IsTemp(base string) bool {
	return strings.HasPrefix(base, ".") && strings.Contains(base, tempMark)
}

// File is a file under construction. Commit gives it its name; Abort, or the end of the process, leaves nothing under
// that name. Not safe for concurrent use.
type File struct {
	root       *os.Root
	owned      bool // root is closed with the file
	name, temp string
	file       *os.File // nil after Commit and Abort
}

// Create begins the file at path. Its folder must exist. perm applies before the umask.
func Create(path string, perm fs.FileMode) (*File, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	f, err := CreateIn(root, filepath.Base(path), perm)
	if err != nil {
		root.Close()
		return nil, err
	}
	f.owned = true
	return f, nil
}

// CreateIn begins the file name (slash-separated) below root, which must stay open until Commit or Abort.
func CreateIn(root *os.Root, name string, perm fs.FileMode) (*File, error) {
	dir, base := path.Split(name)
	temp := dir + "." + base + tempMark + rand.Text()
	file, err := root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	return &File{root: root, name: name, temp: temp, file: file}, nil
}

// Write adds bytes.
func (f *File) Write(p []byte) (int, error) { return f.file.Write(p) }

// ReadAt reads back what has been written.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

// Sync brings what has been written so far to the disk.
func (f *File) Sync() error { return f.file.Sync() }

// Commit makes the bytes durable and gives them the name, in place of what was there.
func (f *File) Commit() error { return f.CommitIf(nil) }

// CommitIf is Commit if allowed returns nil. It is called after the bytes are on the disk, immediately before the
// rename: the place to check, under a lock, that the name is still free.
func (f *File) CommitIf(allowed func() error) error {
	err := f.file.Sync()
	if cerr := f.file.Close(); err == nil {
		err = cerr
	}
	f.file = nil
	if err == nil && allowed != nil {
		err = allowed()
	}
	if err == nil {
		err = f.root.Rename(f.temp, f.name)
	}
	if err != nil {
		return errors.Join(err, f.discard())
	}
	err = SyncIn(f.root, path.Dir(f.name))
	return errors.Join(err, f.release())
}

// Abort forgets the file. After Commit it does nothing, so it can be deferred.
func (f *File) Abort() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return errors.Join(err, f.discard())
}

func (f *File) discard() error {
	err := f.root.Remove(f.temp)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, f.release())
}

func (f *File) release() error {
	if !f.owned {
		return nil
	}
	f.owned = false
	return f.root.Close()
}

// WriteFile replaces the file at path with data. Its folder must exist.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	return write(f, data)
}

// WriteFileIn is WriteFile for a name below root.
func WriteFileIn(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	f, err := CreateIn(root, name, perm)
	if err != nil {
		return err
	}
	return write(f, data)
}

func write(f *File, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

// WriteFrom replaces the file at path with the bytes of src and returns their SHA-256 and number. Reading, hashing and
// writing overlap. On any error, also of src, the old file stays and nothing else is left behind.
func WriteFrom(path string, src io.Reader, perm fs.FileMode) (digest.SHA256, int64, error) {
	f, err := Create(path, perm)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	sum, n, err := digest.Copy(f, src)
	if err != nil {
		return digest.SHA256{}, n, errors.Join(err, f.Abort())
	}
	return sum, n, f.Commit()
}

// WriteVerified replaces the file at path with the bytes of src if they are exactly size bytes with the SHA-256 want.
// Otherwise the old file stays, and the error is that of digest.Verify.
func WriteVerified(path string, src io.Reader, want digest.SHA256, size int64, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	if err := digest.Verify(f, src, want, size); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

// Rename renames a file or folder, over a file that is there, and makes that durable.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return SyncDir(filepath.Dir(from))
}

// RenameIn is Rename for names below root.
func RenameIn(root *os.Root, from, to string) error {
	if err := root.Rename(from, to); err != nil {
		return err
	}
	if err := SyncIn(root, path.Dir(to)); err != nil {
		return err
	}
	if path.Dir(from) == path.Dir(to) {
		return nil
	}
	return SyncIn(root, path.Dir(from))
}

// RemoveIn deletes a file below root and makes that durable. A file that is not there is success.
func RemoveIn(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncIn(root, path.Dir(name))
}

// Mkdir makes the folder at path, and those above it that are missing, durable. A folder that is there is success.
func Mkdir(dir string, perm fs.FileMode) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("is not a folder")}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := Mkdir(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// MkdirIn is Mkdir for a slash-separated name below root.
func MkdirIn(root *os.Root, name string, perm fs.FileMode) error {
	if name == "." || name == "" {
		return nil
	}
	if info, err := root.Stat(name); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: name, Err: errors.New("is not a folder")}
		}
		return nil
	}
	if err := MkdirIn(root, path.Dir(name), perm); err != nil {
		return err
	}
	if err := root.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncIn(root, path.Dir(name))
}

// SyncDir makes the names in a folder durable: what was created, renamed or removed there.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return syncFolder(d)
}

// SyncIn is SyncDir for a name below root.
func SyncIn(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return syncFolder(d)
}

// Append adds line and a newline to the journal at path, creating it if it is not there. A torn line at its end, left by
// a crash, is cut off first. Only one process may append at a time: hold a Lock. line must not contain a newline.
func Append(path string, line []byte, perm fs.FileMode) (err error) {
	if bytes.IndexByte(line, '\n') >= 0 {
		return fmt.Errorf("cannot append to %s: the line contains a newline", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, perm)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end, err := wholeLines(f, info.Size())
	if err != nil {
		return err
	}
	if end < info.Size() {
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	if _, err = f.WriteAt(append(bytes.Clone(line), '\n'), end); err == nil {
		err = f.Sync()
	}
	if err != nil {
		// A full disk may have taken a part of the line. A reader drops it anyway; cutting it keeps the file tidy.
		return errors.Join(err, f.Truncate(end))
	}
	if info.Size() == 0 {
		return SyncDir(filepath.Dir(path))
	}
	return nil
}

// wholeLines returns the offset behind the last newline in the first size bytes of f.
func wholeLines(f io.ReaderAt, size int64) (int64, error) {
	const step = 4096
	buf := make([]byte, step)
	for end := size; end > 0; {
		begin := max(0, end-step)
		part := buf[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return begin + int64(i) + 1, nil
		}
		end = begin
	}
	return 0, nil
}

// ReadLines returns the whole lines of the journal at path without their newlines, and whether a torn line stood at its
// end; that line was never promised to anybody and is dropped. A journal that does not exist has no lines; one of more
// than most bytes is an error. A crash can also leave a last line with its newline and damaged bytes before it: a caller
// that cannot parse the last line may treat it as torn, but no other line.
func ReadLines(path string, most int64) (lines [][]byte, torn bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, false, err
	}
	if int64(len(data)) > most {
		return nil, false, fmt.Errorf("%s: more than %d bytes", path, most)
	}
	for len(data) > 0 {
		line, rest, found := bytes.Cut(data, []byte{'\n'})
		if !found {
			return lines, true, nil
		}
		lines = append(lines, line)
		data = rest
	}
	return lines, false, nil
}
