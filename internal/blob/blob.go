// SPDX-License-Identifier: Apache-2.0

// Package blob is the seam to bulk storage: named, immutable or replaceable byte sequences, and one compare-and-swap.
//
// Names are slash-separated relative paths ("metadata/1.root.json"). CheckName refuses everything else, once, for every
// adapter. Adapters are children: blob/folder is a plain folder that any static web server can serve.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ErrNotExist reports a name that holds nothing.
var ErrNotExist = errors.New("does not exist")

// ErrExists reports a Create of a name that already holds other bytes.
var ErrExists = errors.New("exists already")

// ErrChanged reports a Swap whose expectation does not hold.
var ErrChanged = errors.New("changed meanwhile")

// ErrOffset reports an offset that is negative or behind the end.
var ErrOffset = errors.New("offset is not in the blob")

// ErrName reports a name that no store takes.
var ErrName = errors.New("bad name")

// Info describes a blob.
type Info struct {
	Name     string
	Size     int64
	Modified time.Time
}

// Reader reads blobs. Safe for concurrent use.
type Reader interface {
	// Open returns the bytes of name from offset on, and what is stored there. An offset behind the end is ErrOffset. The
	// result must be closed; it may also be an io.Seeker over the whole blob.
	Open(ctx context.Context, name string, offset int64) (io.ReadCloser, Info, error)
	Stat(ctx context.Context, name string) (Info, error)
	// List calls fn for every blob whose name begins with prefix, in order of names, until fn fails.
	List(ctx context.Context, prefix string, fn func(Info) error) error
}

// Writer writes blobs. Every write is durable when it returns nil, and whole or not there at all, also after a crash.
// Safe for concurrent use, also by several processes.
type Writer interface {
	// Create writes a new blob. If name already holds the same bytes that is success; other bytes are ErrExists.
	Create(ctx context.Context, name string, src io.Reader) error
	// Swap replaces the small blob name if it now holds old (nil: nothing), or fails with ErrChanged.
	Swap(ctx context.Context, name string, old, new []byte) error
	// Rename moves a blob. A target that holds the same bytes already is success, and from is gone afterwards.
	Rename(ctx context.Context, from, to string) error
	// Delete removes a blob; a name that holds nothing is success.
	Delete(ctx context.Context, name string) error
}

// Store is a Reader and a Writer.
type Store interface {
	Reader
	Writer
}

// Uploader is an optional ability of a Store: a blob that arrives in several pieces, over connections that break. What has
// arrived is kept, but is no blob before Complete: Open, Stat and List do not know it. One caller at a time works on an
// upload; a second one is refused with class refusal.Busy.
type Uploader interface {
	// Received returns how many bytes of the upload have been kept; none is 0.
	Received(ctx context.Context, name string) (int64, error)
	// Continue adds the bytes of src at offset and returns how many bytes are kept now, also beside an error of src. An
	// offset that is not what Received returns is ErrChanged.
	Continue(ctx context.Context, name string, offset int64, src io.Reader) (int64, error)
	// Complete makes the upload the blob name if check accepts the whole of it, with the rules of Create. An upload that
	// check does not accept is dropped, and the error is that of check.
	Complete(ctx context.Context, name string, check func(src io.Reader) error) error
}

// MaxName bounds a name, in bytes.
const MaxName = 512

// CheckName refuses names that are absolute, climb out, are empty, hidden or not portable.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%w: %d characters, 1 to %d are allowed", ErrName, len(name), MaxName)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".") {
			return fmt.Errorf("%w: %q: empty parts, and parts that begin or end with a dot, are refused", ErrName, clip(name))
		}
	}
	if i := strings.IndexFunc(name, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`\:*?"<>|`, c)
	}); i >= 0 {
		return fmt.Errorf("%w: %q: character %q", ErrName, clip(name), name[i])
	}
	return nil
}

// ReadAll returns the whole of a small blob of at most most bytes.
func ReadAll(ctx context.Context, r Reader, name string, most int64) ([]byte, error) {
	rc, info, err := r.Open(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if info.Size > most {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are allowed", name, info.Size, most)
	}
	data, err := io.ReadAll(io.LimitReader(rc, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: more than %d bytes", name, most)
	}
	return data, nil
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
