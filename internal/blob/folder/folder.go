// SPDX-License-Identifier: Apache-2.0

// Package folder keeps blobs as plain files below one folder, which any static web server, rsync or USB stick can carry.
//
// A blob is the file of its name. Everything else begins with a dot and is no blob: the lock file ".lock", temporary
// files of package durable, and unfinished uploads (".<name>.pawl-upload"). Several processes may work on the same folder:
// bytes are written without a lock, names change under it.
//
// Nothing outside the folder is read or written, whatever a name or a symbolic link says (os.Root); a symbolic link is
// never a blob itself.
package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
)

const (
	lockName   = ".lock"
	uploadMark = ".pawl-upload"
	filePerm   = 0o644 // a repository is public by nature, and a web server of another user may serve it
	dirPerm    = 0o755
	// maxSwap bounds a blob that is replaced by Swap, in bytes.
	maxSwap = 32 << 20
	// listStep is how many entries of a folder are read at a time.
	listStep = 1024
)

// Store is a blob.Store and a blob.Uploader. Close it when it is not needed any more.
type Store struct{ root *os.Root }

var (
	_ blob.Store    = (*Store)(nil)
	_ blob.Uploader = (*Store)(nil)
)

// Open returns the store in dir, which is made if it is not there.
func Open(dir string) (*Store, error) {
	if err := durable.Mkdir(dir, dirPerm); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Store{root}, nil
}

// Close gives the folder's handle back.
func (s *Store) Close() error { return s.root.Close() }

// Open implements blob.Reader. The result is an io.Seeker.
func (s *Store) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, blob.Info, error) {
	f, info, err := s.open(ctx, name)
	if err != nil {
		return nil, blob.Info{}, err
	}
	if offset < 0 || offset > info.Size {
		f.Close()
		return nil, blob.Info{}, fmt.Errorf("%s: %w: %d of %d bytes", name, blob.ErrOffset, offset, info.Size)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, blob.Info{}, err
	}
	return f, info, nil
}

func (s *Store) open(ctx context.Context, name string) (*os.File, blob.Info, error) {
	info, err := s.Stat(ctx, name)
	if err != nil {
		return nil, blob.Info{}, err
	}
	f, err := s.root.Open(name)
	if err != nil {
		return nil, blob.Info{}, outward(name, err)
	}
	// The name may have been given to another file since Stat: what counts is the file that is open.
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, blob.Info{}, err
	}
	info.Size, info.Modified = st.Size(), st.ModTime()
	return f, info, nil
}

// Stat implements blob.Reader.
func (s *Store) Stat(ctx context.Context, name string) (blob.Info, error) {
	if err := check(ctx, name); err != nil {
		return blob.Info{}, err
	}
	info, err := s.root.Lstat(name)
	if err != nil {
		return blob.Info{}, outward(name, err)
	}
	if !info.Mode().IsRegular() {
		return blob.Info{}, fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	}
	return blob.Info{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil
}

// List implements blob.Reader.
func (s *Store) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	return s.walk(ctx, ".", func(name string, d fs.DirEntry) error {
		if strings.HasPrefix(d.Name(), ".") || blob.CheckName(name) != nil {
			return errSkip
		}
		if d.IsDir() {
			if !strings.HasPrefix(name+"/", prefix) && !strings.HasPrefix(prefix, name+"/") {
				return errSkip
			}
			return nil
		}
		if !d.Type().IsRegular() || !strings.HasPrefix(name, prefix) {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted since the folder was read
		}
		if err != nil {
			return err
		}
		return fn(blob.Info{Name: name, Size: info.Size(), Modified: info.ModTime()})
	})
}

// errSkip tells walk not to enter a folder.
var errSkip = errors.New("skip")

// walk calls fn for everything below dir, in the order of whole names.
func (s *Store) walk(ctx context.Context, dir string, fn func(name string, d fs.DirEntry) error) error {
	entries, err := s.entries(dir)
	if err != nil {
		return err
	}
	for _, d := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, d.Name())
		err := fn(name, d)
		if errors.Is(err, errSkip) {
			continue
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if err := s.walk(ctx, name, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// entries returns what is in dir. A folder sorts as its name with the slash that follows it in every name below it: "a-b"
// comes before "a/b".
func (s *Store) entries(dir string) ([]fs.DirEntry, error) {
	f, err := s.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []fs.DirEntry
	for {
		some, err := f.ReadDir(listStep)
		all = append(all, some...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	key := func(d fs.DirEntry) string {
		if d.IsDir() {
			return d.Name() + "/"
		}
		return d.Name()
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(key(a), key(b)) })
	return all, nil
}

// Create implements blob.Writer.
func (s *Store) Create(ctx context.Context, name string, src io.Reader) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	src = reader{ctx, src}
	if _, err := s.Stat(ctx, name); err == nil {
		sum, _, err := digest.Copy(nil, src)
		if err != nil {
			return err
		}
		return s.compare(ctx, name, sum)
	}
	if err := durable.MkdirIn(s.root, path.Dir(name), dirPerm); err != nil {
		return err
	}
	f, err := durable.CreateIn(s.root, name, filePerm)
	if err != nil {
		return err
	}
	sum, _, err := digest.Copy(f, src)
	if err == nil {
		err = f.Sync() // before the lock: others need not wait for the disk to take a large file
	}
	if err != nil {
		return errors.Join(err, f.Abort())
	}
	return s.locked(ctx, func() error {
		err := f.CommitIf(func() error { return s.free(ctx, name) })
		if errors.Is(err, blob.ErrExists) {
			return s.compare(ctx, name, sum) // somebody was faster
		}
		return err
	})
}

// free returns nil if name holds nothing.
func (s *Store) free(ctx context.Context, name string) error {
	_, err := s.Stat(ctx, name)
	if errors.Is(err, blob.ErrNotExist) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%s: %w", name, blob.ErrExists)
	}
	return err
}

// compare returns nil if name holds, durably, the bytes with the digest sum.
func (s *Store) compare(ctx context.Context, name string, sum digest.SHA256) error {
	got, err := s.sum(ctx, name)
	if err != nil {
		return err
	}
	if got != sum {
		return fmt.Errorf("%s: %w: with %s, not %s", name, blob.ErrExists, got, sum)
	}
	// Whoever wrote it may have been killed before its name was on the disk.
	return durable.SyncIn(s.root, path.Dir(name))
}

func (s *Store) sum(ctx context.Context, name string) (digest.SHA256, error) {
	f, _, err := s.open(ctx, name)
	if err != nil {
		return digest.SHA256{}, err
	}
	defer f.Close()
	sum, _, err := digest.Copy(nil, reader{ctx, f})
	return sum, err
}

// Swap implements blob.Writer.
func (s *Store) Swap(ctx context.Context, name string, old, new []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	if len(new) > maxSwap {
		return fmt.Errorf("%s: %d bytes, at most %d can be swapped", name, len(new), maxSwap)
	}
	if err := durable.MkdirIn(s.root, path.Dir(name), dirPerm); err != nil {
		return err
	}
	return s.locked(ctx, func() error {
		now, err := blob.ReadAll(ctx, s, name, maxSwap)
		missing := errors.Is(err, blob.ErrNotExist)
		if err != nil && !missing {
			return err
		}
		if missing != (old == nil) || !bytes.Equal(now, old) {
			return fmt.Errorf("%s: %w", name, blob.ErrChanged)
		}
		return durable.WriteFileIn(s.root, name, new, filePerm)
	})
}

// Rename implements blob.Writer.
func (s *Store) Rename(ctx context.Context, from, to string) error {
	if err := errors.Join(check(ctx, from), check(ctx, to)); err != nil {
		return err
	}
	if err := durable.MkdirIn(s.root, path.Dir(to), dirPerm); err != nil {
		return err
	}
	return s.locked(ctx, func() error {
		if _, err := s.Stat(ctx, from); err != nil {
			return err
		}
		if err := s.free(ctx, to); err == nil {
			return durable.RenameIn(s.root, from, to)
		} else if !errors.Is(err, blob.ErrExists) {
			return err
		}
		if from == to {
			return nil
		}
		sum, err := s.sum(ctx, from)
		if err != nil {
			return err
		}
		if err := s.compare(ctx, to, sum); err != nil {
			return err
		}
		return durable.RemoveIn(s.root, from)
	})
}

// Delete implements blob.Writer.
func (s *Store) Delete(ctx context.Context, name string) error {
	_, err := s.Stat(ctx, name)
	if errors.Is(err, blob.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return durable.RemoveIn(s.root, name)
}

// Received implements blob.Uploader.
func (s *Store) Received(ctx context.Context, name string) (int64, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	info, err := s.root.Lstat(uploadName(name))
	if err = outward(name, err); errors.Is(err, blob.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Continue implements blob.Uploader.
func (s *Store) Continue(ctx context.Context, name string, offset int64, src io.Reader) (_ int64, err error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	if err := durable.MkdirIn(s.root, path.Dir(name), dirPerm); err != nil {
		return 0, err
	}
	f, err := s.upload(name, os.O_CREATE)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if offset != info.Size() {
		return info.Size(), fmt.Errorf("%s: %w: upload holds %d bytes, not %d", name, blob.ErrChanged, info.Size(), offset)
	}
	n, err := io.Copy(io.NewOffsetWriter(f, offset), reader{ctx, src})
	return offset + n, errors.Join(err, f.Sync())
}

// Complete implements blob.Uploader.
func (s *Store) Complete(ctx context.Context, name string, accept func(io.Reader) error) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	f, err := s.upload(name, 0)
	if err != nil {
		return outward(name, err)
	}
	defer f.Close()
	if err := accept(reader{ctx, f}); err != nil {
		return errors.Join(err, durable.RemoveIn(s.root, uploadName(name)))
	}
	return s.locked(ctx, func() error {
		if err := s.free(ctx, name); err == nil {
			return durable.RenameIn(s.root, uploadName(name), name)
		} else if !errors.Is(err, blob.ErrExists) {
			return err
		}
		sum, err := s.uploadSum(ctx, f)
		if err != nil {
			return err
		}
		return errors.Join(s.compare(ctx, name, sum), durable.RemoveIn(s.root, uploadName(name)))
	})
}

func (s *Store) uploadSum(ctx context.Context, f *os.File) (digest.SHA256, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return digest.SHA256{}, err
	}
	sum, _, err := digest.Copy(nil, reader{ctx, f})
	return sum, err
}

// upload opens the file of an upload and locks it. Who has it open for writing holds the lock, so that a file cannot be
// written to any more once it has become a blob.
func (s *Store) upload(name string, flag int) (*os.File, error) {
	f, err := s.root.OpenFile(uploadName(name), os.O_RDWR|flag, filePerm)
	if err != nil {
		return nil, err
	}
	if err := durable.LockOpen(f); err != nil {
		f.Close()
		return nil, err
	}
	// Between open and lock somebody may have completed it.
	mine, err := f.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = s.root.Lstat(uploadName(name)); err == nil && !os.SameFile(mine, there) {
			err = fs.ErrNotExist
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w", name, blob.ErrChanged)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func uploadName(name string) string {
	dir, base := path.Split(name)
	return dir + "." + base + uploadMark
}

// Sweep deletes temporary files and unfinished uploads that nobody has written to since before, and returns their number.
// They are what crashed processes and broken connections leave behind.
func (s *Store) Sweep(ctx context.Context, before time.Time) (int, error) {
	swept := 0
	err := s.walk(ctx, ".", func(name string, d fs.DirEntry) error {
		if d.IsDir() || !durable.IsTemp(d.Name()) && !(strings.HasPrefix(d.Name(), ".") && strings.HasSuffix(d.Name(), uploadMark)) {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
			return nil
		}
		if err != nil {
			return err
		}
		swept++
		return durable.RemoveIn(s.root, name)
	})
	return swept, err
}

func (s *Store) locked(ctx context.Context, fn func() error) error {
	held, err := durable.LockWaitIn(ctx, s.root, lockName)
	if err != nil {
		return err
	}
	err = fn()
	if uerr := held.Unlock(); err == nil {
		err = uerr
	}
	return err
}

func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return blob.CheckName(name)
}

// outward gives the errors of the file system their meaning for blobs. A name below a file, or too long for the file
// system, holds nothing.
func outward(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	}
	return err
}

// reader ends a copy when its context ends.
type reader struct {
	ctx context.Context
	src io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.src.Read(p)
}
