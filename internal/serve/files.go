// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/trust"
)

const (
	immutable = "public, max-age=31536000, immutable" // RFC 8246
	changing  = "no-cache"
)

// hashed is the base name of a target with its digest in front, versioned that of a document that never changes.
var (
	hashed    = regexp.MustCompile(`^([0-9a-f]{64})\.`)
	versioned = regexp.MustCompile(`^metadata/[1-9][0-9]*\.[^/]+\.json$`)
)

// getFile serves a blob below metadata/ or targets/.
func (s *Server) getFile(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if blob.CheckName(name) != nil || !strings.HasPrefix(name, "metadata/") && !strings.HasPrefix(name, "targets/") {
		http.NotFound(w, r)
		return
	}
	if len(r.Header.Get("Range")) > maxRange {
		r.Header.Del("Range") // a server may ignore it (RFC 9110, section 14.2)
	}
	if name == trust.MetadataName(trust.TimestampRole, 0) {
		s.getTimestamp(w, r, name)
		return
	}
	src, info, err := s.opt.Blobs.Open(r.Context(), name, 0)
	if errors.Is(err, blob.ErrNotExist) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer src.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if strings.HasSuffix(name, ".json") {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Cache-Control", changing)
	h.Set("ETag", fmt.Sprintf(`"%x-%x"`, info.Size, info.Modified.UnixNano()))
	if m := hashed.FindStringSubmatch(path.Base(name)); m != nil && strings.HasPrefix(name, "targets/") {
		h.Set("ETag", `"`+m[1]+`"`)
		h.Set("Cache-Control", immutable)
	} else if versioned.MatchString(name) {
		h.Set("Cache-Control", immutable)
	}
	body, ok := src.(io.ReadSeeker)
	if !ok {
		body = &seeker{ctx: r.Context(), blobs: s.opt.Blobs, info: info, src: src}
		defer body.(*seeker).Close()
	}
	http.ServeContent(w, r, "", info.Modified, body)
}

// getTimestamp serves the one document that is replaced, from memory: it may be replaced while it is sent.
func (s *Server) getTimestamp(w http.ResponseWriter, r *http.Request, name string) {
	data, err := blob.ReadAll(r.Context(), s.opt.Blobs, name, trust.MaxTimestamp)
	if errors.Is(err, blob.ErrNotExist) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", changing)
	h.Set("ETag", `"`+digest.Of(data).Hex()+`"`)
	// Without a time: two timestamps of one second would look like one to whoever compares times.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// seeker makes blobs that cannot seek seekable, by opening them again.
type seeker struct {
	ctx   context.Context
	blobs blob.Reader
	info  blob.Info
	src   io.ReadCloser // nil: to be opened at pos
	pos   int64
}

func (k *seeker) Read(p []byte) (int, error) {
	if k.src == nil {
		src, info, err := k.blobs.Open(k.ctx, k.info.Name, k.pos)
		if err != nil {
			return 0, err
		}
		if info.Size != k.info.Size {
			return 0, errors.Join(fmt.Errorf("%s: %w", k.info.Name, blob.ErrChanged), src.Close())
		}
		k.src = src
	}
	n, err := k.src.Read(p)
	k.pos += int64(n)
	return n, err
}

func (k *seeker) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += k.pos
	case io.SeekEnd:
		offset += k.info.Size
	}
	if offset < 0 || offset > k.info.Size {
		return 0, fmt.Errorf("%s: %w: %d of %d bytes", k.info.Name, blob.ErrOffset, offset, k.info.Size)
	}
	if offset != k.pos {
		if err := k.Close(); err != nil {
			return 0, err
		}
		k.pos = offset
	}
	return offset, nil
}

func (k *seeker) Close() error {
	if k.src == nil {
		return nil
	}
	err := k.src.Close()
	k.src = nil
	return err
}
