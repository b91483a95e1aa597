// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
)

// Info describes the content behind a URL, as the server tells.
type Info struct {
	Size     int64 // of the whole content, in bytes; -1 if the server does not say
	Modified time.Time
}

// Open returns the content behind a URL from offset on. A connection that breaks while it is read is replaced by another
// one that continues at the same byte. What the server sends is not verified, except that all parts are of one content as
// far as the server's validators tell.
func (c *Client) Open(ctx context.Context, url string, offset int64) (io.ReadCloser, Info, error) {
	if offset < 0 {
		return nil, Info{}, fmt.Errorf("GET %s: %w: %d", url, blob.ErrOffset, offset)
	}
	b := &body{client: c, ctx: ctx, url: url, pos: offset, size: -1}
	for b.conn == nil {
		if err := b.connect(); err != nil {
			return nil, Info{}, err
		}
	}
	return b, Info{Size: b.size, Modified: b.modified}, nil
}

// body is content that is read over as many connections as it takes. Not safe for concurrent use.
type body struct {
	client *Client
	ctx    context.Context
	url    string

	conn     io.ReadCloser // nil between two connections
	pos      int64         // of the next byte that the reader gets
	start    int64         // pos when conn was opened
	size     int64         // of the whole content; -1: not known
	tag      string        // strong entity tag; empty: none
	modified time.Time
	dated    string // Last-Modified as it was sent
	begun    bool   // one answer has been seen, so tag, dated and size are what the next one must match
	bad      int    // connections in a row that broke without progress
	err      error  // the end, good or bad
}

func (b *body) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.conn == nil {
			b.err = b.connect()
			continue
		}
		n, err := b.conn.Read(p)
		b.pos += int64(n)
		switch {
		case b.size >= 0 && b.pos > b.size:
			b.err = fmt.Errorf("GET %s: %w: more than the %d bytes that were announced", b.url, ErrTooLarge, b.size)
			return 0, b.err
		case err == nil:
			return n, nil
		case errors.Is(err, io.EOF) && (b.size < 0 || b.pos == b.size):
			b.err = io.EOF
			return n, nil
		}
		b.broke(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.err
}

// Close ends the transfer.
func (b *body) Close() error {
	if b.err == nil {
		b.err = fs.ErrClosed
	}
	if b.conn == nil {
		return nil
	}
	return b.conn.Close()
}

// broke closes a connection that ended too early and decides whether there will be another one.
func (b *body) broke(err error) {
	b.conn.Close()
	b.conn = nil
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if b.pos-b.start >= resumeProgress {
		b.bad = 0
	}
	b.bad++
	if b.ctx.Err() != nil {
		b.err = context.Cause(b.ctx)
	} else if b.bad > b.client.limits.Resumes || errors.Is(err, ErrTooLarge) {
		b.err = fmt.Errorf("GET %s: broke off at byte %d: %w", b.url, b.pos, err)
	} else {
		b.client.log.InfoContext(b.ctx, "download continues on another connection", "url", b.url, "at", b.pos, "error", err)
	}
}

// connect opens a connection that begins at pos. If that one breaks at once, there is none afterwards, and no error.
func (b *body) connect() error {
	if b.begun && b.size >= 0 && b.pos == b.size {
		b.conn = http.NoBody
		return nil
	}
	h := http.Header{}
	if b.pos > 0 {
		h.Set("Range", "bytes="+strconv.FormatInt(b.pos, 10)+"-")
		// Without a validator the range is asked for all the same: whether the parts belong together is then for the digest
		// of the whole to tell.
		if b.tag != "" {
			h.Set("If-Range", b.tag)
		} else if b.dated != "" {
			h.Set("If-Range", b.dated)
		}
	}
	resp, err := b.client.Do(b.ctx, Request{URL: b.url, Header: h})
	if Status(err) == http.StatusRequestedRangeNotSatisfiable {
		return b.unsatisfiable(err)
	}
	if err != nil {
		return err
	}
	skip, err := b.accept(resp)
	if err != nil {
		resp.Body.Close()
		return fmt.Errorf("GET %s: %w", b.url, err)
	}
	b.conn, b.start = resp.Body, b.pos
	if skip > 0 {
		// The server knows no ranges: what the reader has already is read again and dropped.
		if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
			b.broke(err)
			return b.err
		}
	}
	return nil
}

// unsatisfiable handles 416: the content ends at pos or before it (RFC 9110, section 15.5.17).
func (b *body) unsatisfiable(err error) error {
	var status *StatusError
	errors.As(err, &status)
	size, ok := strings.CutPrefix(status.Header.Get("Content-Range"), "bytes */")
	n, perr := strconv.ParseInt(size, 10, 64)
	switch {
	case b.begun:
		return fmt.Errorf("GET %s: %w: it ends before byte %d now", b.url, ErrChanged, b.pos)
	case ok && perr == nil && n == b.pos:
		b.conn, b.size, b.begun = http.NoBody, n, true
		return nil
	}
	return fmt.Errorf("GET %s: %w: byte %d", b.url, blob.ErrOffset, b.pos)
}

// accept checks that the answer is what was asked for and belongs to what has been read so far. It returns how many of its
// first bytes the reader has already.
func (b *body) accept(resp *http.Response) (skip int64, err error) {
	size := resp.ContentLength
	switch resp.StatusCode {
	case http.StatusOK:
		skip = b.pos
		if size >= 0 && skip > size {
			if b.begun {
				return 0, fmt.Errorf("%w: it ends before byte %d now", ErrChanged, b.pos)
			}
			return 0, fmt.Errorf("%w: byte %d of %d", blob.ErrOffset, skip, size)
		}
	case http.StatusPartialContent:
		if size, err = b.contentRange(resp); err != nil {
			return 0, err
		}
	default:
		return 0, fmt.Errorf("answer %s to a request for bytes", resp.Status)
	}
	if size > b.client.limits.MaxSize {
		return 0, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, size, b.client.limits.MaxSize)
	}
	tag := resp.Header.Get("ETag")
	if strings.HasPrefix(tag, "W/") {
		tag = "" // a weak tag does not promise the same bytes
	}
	dated := resp.Header.Get("Last-Modified")
	if b.begun {
		switch {
		case tag != b.tag && b.tag != "":
			return 0, fmt.Errorf("%w: entity tag %q, before %q", ErrChanged, clip(tag), clip(b.tag))
		case b.tag == "" && dated != b.dated:
			return 0, fmt.Errorf("%w: modified %q, before %q", ErrChanged, clip(dated), clip(b.dated))
		case size >= 0 && b.size >= 0 && size != b.size:
			return 0, fmt.Errorf("%w: %d bytes, before %d", ErrChanged, size, b.size)
		}
		return skip, nil
	}
	b.begun, b.size, b.tag, b.dated = true, size, tag, dated
	if at, err := http.ParseTime(dated); err == nil {
		b.modified = at
	}
	return skip, nil
}

// contentRange checks the range of a partial answer (RFC 9110, section 14.4) and returns the size of the whole. The range
// must begin where it was asked to; it may end early, then the rest is asked for later.
func (b *body) contentRange(resp *http.Response) (int64, error) {
	text := resp.Header.Get("Content-Range")
	bad := fmt.Errorf("content range %q is not what was asked for (bytes %d-)", clip(text), b.pos)
	span, ok := strings.CutPrefix(text, "bytes ")
	span, total, ok2 := strings.Cut(span, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 || b.pos == 0 {
		return 0, bad
	}
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	if total == "*" {
		size, err3 = b.size, nil
	}
	if errors.Join(err1, err2, err3) != nil || first != b.pos || last < first || size >= 0 && last >= size {
		return 0, bad
	}
	if resp.ContentLength >= 0 && resp.ContentLength != last-first+1 {
		return 0, fmt.Errorf("%w, with %d bytes", bad, resp.ContentLength)
	}
	resp.Body = &struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, last-first+1), resp.Body}
	return size, nil
}
