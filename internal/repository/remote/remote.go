// SPDX-License-Identifier: Apache-2.0

// Package remote publishes into a repository on a server, over HTTP. An upload that breaks off is continued; a server that
// is overloaded or restarts is asked again; a refusal of the server arrives as the same refusal.
//
// The server is trusted with nothing: what it says about the current state is compared with signatures by the caller.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

const (
	// maxReply bounds the answer to a change, in bytes.
	maxReply = 64 << 10
	// patience is how long the server may take to answer a change: it hashes everything that is new.
	patience = 10 * time.Minute
	// maxTries is how often an upload may break off without getting further.
	maxTries = 5
	// maxBusy is how long a server may be busy with an upload: it needs minutes to find out that a connection is dead over
	// which the same upload has come before. The pauses between two questions grow from firstPause to lastPause.
	maxBusy               = 5 * time.Minute
	firstPause, lastPause = 50 * time.Millisecond, 10 * time.Second
)

// Client is a repository.Publisher.
type Client struct {
	http *httpx.Client
	base string
}

var _ repository.Publisher = (*Client)(nil)

// New returns a publisher for the server at base. The token is in the client.
func New(client *httpx.Client, base string) (*Client, error) {
	if _, err := httpx.CheckURL(base); err != nil {
		return nil, err
	}
	return &Client{client, strings.TrimSuffix(base, "/")}, nil
}

// Metadata implements repository.Publisher.
func (c *Client) Metadata(ctx context.Context, role string) ([]byte, error) {
	own := []string{trust.RootRole, trust.TargetsRole, trust.SnapshotRole, trust.TimestampRole}
	if !slices.Contains(own, role) && statement.CheckProduct(role) != nil {
		return nil, fmt.Errorf("metadata of product %q: %w", role, blob.ErrNotExist)
	}
	data, err := c.http.Get(ctx, c.base+repository.PathMetadata+url.PathEscape(role), trust.MaxRole)
	if httpx.Status(err) == http.StatusNotFound {
		return nil, fmt.Errorf("metadata of %q: %w", role, blob.ErrNotExist)
	}
	return data, explain(err)
}

// Stage implements repository.Publisher.
func (c *Client) Stage(ctx context.Context, d digest.SHA256, size int64, src io.Reader) error {
	return fault.Around(ctx, "remote.stage", func() error { return c.stage(ctx, d, size, src) })
}

func (c *Client) stage(ctx context.Context, d digest.SHA256, size int64, src io.Reader) error {
	up := &upload{src: src}
	busy, pause := time.Duration(0), firstPause
	for tries := 0; ; {
		offset, done, err := c.staged(ctx, d, size)
		if err != nil || done {
			return err
		}
		if err := up.seek(offset); err != nil {
			return fmt.Errorf("cannot upload %s: %w", d, err)
		}
		if offset > up.furthest {
			up.furthest, tries, busy, pause = offset, 0, 0, firstPause
		}
		if tries++; tries > maxTries {
			return fmt.Errorf("cannot upload %s: it broke off %d times at byte %d: %w", d, maxTries, offset, up.last)
		}
		done, err = c.put(ctx, d, size, offset, up)
		switch {
		case done:
			return nil
		case up.err != nil:
			return fmt.Errorf("cannot upload %s: %w", d, up.err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		up.last = err
		switch status := httpx.Status(err); {
		case status == http.StatusTooManyRequests && busy < maxBusy:
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			tries, busy, pause = tries-1, busy+pause, min(lastPause, 2*pause)
		case status >= 400 && status < 500 && status != http.StatusConflict:
			return explain(err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// errBroke ends the attempts of one request.
var errBroke = errors.New("it broke off")

// staged asks how much of an upload the server has.
func (c *Client) staged(ctx context.Context, d digest.SHA256, size int64) (offset int64, done bool, err error) {
	if size < 1 || size > repository.MaxTarget {
		return 0, false, refusal.New(refusal.Malformed, "upload "+d.String(), "%d bytes, 1 to %d are allowed", size, int64(repository.MaxTarget))
	}
	resp, err := c.http.Do(ctx, httpx.Request{Method: http.MethodHead, URL: c.stagingURL(d) + "?size=" + strconv.FormatInt(size, 10)})
	if err != nil {
		return 0, false, explain(err)
	}
	defer resp.Body.Close()
	offset, err = strconv.ParseInt(resp.Header.Get(repository.HeaderOffset), 10, 64)
	if err != nil || offset < 0 || offset > size {
		return 0, false, fmt.Errorf("cannot upload %s: the server has %q of %d bytes", d, resp.Header.Get(repository.HeaderOffset), size)
	}
	return offset, resp.Header.Get(repository.HeaderComplete) == "?1", nil
}

// put sends the bytes from offset on. If that breaks off, the server is asked first where to go on. A server that refuses
// before the first byte, because it is busy or because it still waits for a connection that is dead, is asked again.
func (c *Client) put(ctx context.Context, d digest.SHA256, size, offset int64, up *upload) (done bool, err error) {
	begin := up.pos
	resp, err := c.http.Do(ctx, httpx.Request{
		Method: http.MethodPut, URL: c.stagingURL(d), Size: size - offset, Answer: patience,
		Header: http.Header{
			"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size)},
			"Content-Type":  {"application/octet-stream"},
			"Expect":        {"100-continue"}, // a refusal arrives before the bytes are sent
		},
		Body: func() (io.ReadCloser, error) {
			if up.pos != begin {
				return nil, errBroke
			}
			return io.NopCloser(&part{up: up, left: size - offset}), nil
		},
	})
	if err != nil {
		return false, err
	}
	_, err = httpx.ReadBody(resp, maxReply)
	return err == nil && resp.StatusCode == http.StatusCreated, err
}

func (c *Client) stagingURL(d digest.SHA256) string {
	return c.base + repository.PathStaging + d.Hex()
}

// upload is the source of an upload and where it stands.
type upload struct {
	src      io.Reader
	pos      int64 // bytes that were read of src
	furthest int64 // the highest offset that the server has confirmed
	last     error // why the last attempt broke off
	err      error // of src
}

// seek brings src to offset.
func (u *upload) seek(offset int64) error {
	if s, ok := u.src.(io.Seeker); ok {
		if _, err := s.Seek(offset-u.pos, io.SeekCurrent); err != nil {
			return err
		}
		u.pos = offset
		return nil
	}
	if offset < u.pos {
		return fmt.Errorf("the server has %d bytes, and the source cannot go back from byte %d", offset, u.pos)
	}
	n, err := io.CopyN(io.Discard, u.src, offset-u.pos)
	u.pos += n
	return err
}

// part is the rest of an upload as the body of one request.
type part struct {
	up   *upload
	left int64
}

func (p *part) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.up.src.Read(b[:min(int64(len(b)), p.left)])
	p.up.pos += int64(n)
	p.left -= int64(n)
	if errors.Is(err, io.EOF) && p.left > 0 {
		err = fmt.Errorf("%w: the source ends %d bytes early", digest.ErrSize, p.left)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		p.up.err = err
	}
	return n, err
}

// Publish implements repository.Publisher.
func (c *Client) Publish(ctx context.Context, product string, role []byte) error {
	return fault.Around(ctx, "remote.publish", func() error {
		return c.post(ctx, repository.PathPublish+url.PathEscape(product), "application/json", role)
	})
}

// Trust implements repository.Publisher.
func (c *Client) Trust(ctx context.Context, roots [][]byte, targets []byte) error {
	body, err := json.Marshal(repository.TrustUpdate{Roots: roots, Targets: targets})
	if err != nil {
		return err
	}
	return fault.Around(ctx, "remote.trust", func() error { return c.post(ctx, repository.PathTrust, "application/json", body) })
}

func (c *Client) post(ctx context.Context, path, mediaType string, body []byte) error {
	resp, err := c.http.Do(ctx, httpx.Request{
		Method: http.MethodPost, URL: c.base + path, Header: http.Header{"Content-Type": {mediaType}}, Answer: patience,
		Size: int64(len(body)), Body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	})
	if err != nil {
		return explain(err)
	}
	_, err = httpx.ReadBody(resp, maxReply)
	return err
}

// explain turns what the server answered into the refusal that it means.
func explain(err error) error {
	var status *httpx.StatusError
	if !errors.As(err, &status) {
		return err
	}
	var p repository.Problem
	if json.Unmarshal(status.Body, &p) == nil {
		if r := p.Refusal(); r != nil {
			return r
		}
	}
	switch status.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return refusal.New(refusal.Unauthorised, "server", "%w", err).Do("check the publish token and the products that it is for")
	}
	return err
}
