// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// Progress is told how many of how many bytes have been read. It may be nil.
type Progress func(done, total int64)

// Export copies everything that is public into dst, verified on the way: a folder that any web server can serve, or a
// medium. What dst has already is read and compared. The timestamp comes last, so a copy that was interrupted is the old
// state or the new one.
func (r *Repository) Export(ctx context.Context, dst blob.Store, progress Progress) error {
	cur, files, err := r.public(ctx)
	if err != nil {
		return err
	}
	var done, total int64
	for _, f := range files {
		total += f.size
	}
	for _, f := range files {
		src, _, err := r.blobs.Open(ctx, f.name, 0)
		if err != nil {
			return err
		}
		counted := &counting{src: src, add: func(n int64) { done += n; report(progress, done, total) }}
		err = dst.Create(ctx, f.name, &verifying{src: counted, want: f.digest, size: f.size, hash: sha256.New()})
		if errors.Is(err, digest.ErrMismatch) || errors.Is(err, digest.ErrSize) {
			err = refusal.New(refusal.Digest, f.name, "%w", err).Do("copy from a place where it is whole")
		}
		if err = errors.Join(err, src.Close()); err != nil {
			return err
		}
	}
	name := trust.MetadataName(trust.TimestampRole, 0)
	old, err := blob.ReadAll(ctx, dst, name, trust.MaxTimestamp)
	switch {
	case errors.Is(err, blob.ErrNotExist):
		old = nil
	case err != nil:
		return err
	case bytes.Equal(old, cur.stamp):
		return nil
	}
	return dst.Swap(ctx, name, old, cur.stamp)
}

// Check reads everything that is public and verifies it as a device would, and reports each thing that does not hold, in
// one error per thing.
func (r *Repository) Check(ctx context.Context, progress Progress) error {
	cur, files, err := r.public(ctx)
	if err != nil {
		return err
	}
	var found []error
	var done, total int64
	for _, f := range files {
		total += f.size
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.checkFile(ctx, f); err != nil {
			found = append(found, err)
		}
		done += f.size
		report(progress, done, total)
	}
	for _, product := range cur.set.Products() {
		if err := r.checkProduct(ctx, cur, product); err != nil {
			found = append(found, err)
		}
	}
	now := r.opt.Now()
	for _, role := range []struct {
		name    string
		expires time.Time
	}{
		{trust.RootRole, cur.root.Expires}, {trust.TimestampRole, cur.timestamp.Expires}, {trust.SnapshotRole, cur.snapshot.Expires},
		{trust.TargetsRole, cur.top.Expires},
	} {
		if !role.expires.After(now) {
			found = append(found, refusal.New(refusal.Expired, role.name+" metadata", "it was valid until %s", role.expires.UTC().Format(time.RFC3339)).
				Do("renew it: \"pawl repo refresh\" for snapshot and timestamp, the root keys for the others"))
		}
	}
	return errors.Join(found...)
}

func (r *Repository) checkFile(ctx context.Context, f file) error {
	src, _, err := r.blobs.Open(ctx, f.name, 0)
	if errors.Is(err, blob.ErrNotExist) {
		return refusal.New(refusal.Digest, f.name, "it is missing").Do("bring it back from a copy")
	}
	if err != nil {
		return err
	}
	defer src.Close()
	if err := digest.Verify(nil, src, f.digest, f.size); errors.Is(err, digest.ErrMismatch) || errors.Is(err, digest.ErrSize) {
		return refusal.New(refusal.Digest, f.name, "%w", err).Do("bring it back from a copy")
	} else if err != nil {
		return err
	}
	return nil
}

// checkProduct checks role and releases of a product with the keys and the time of today.
func (r *Repository) checkProduct(ctx context.Context, cur *state, product string) error {
	doc, role, err := r.role(ctx, cur, product)
	if err != nil || doc == nil {
		return err
	}
	if _, err := cur.set.VerifyProduct(product, doc); err != nil {
		return err
	}
	if !role.Expires.After(r.opt.Now()) {
		return refusal.New(refusal.Expired, "metadata of product "+product, "it was valid until %s", role.Expires.UTC().Format(time.RFC3339)).
			Do("sign it again with the release key")
	}
	c := &candidate{ctx: ctx, blobs: r.blobs, now: r.opt.Now(), product: product, role: role, old: role, all: true}
	c.keys, _ = cur.set.Product(product)
	var found []error
	for _, release := range releases(role) {
		if err := c.checkRelease(release); err != nil {
			found = append(found, err)
		}
	}
	return errors.Join(append(found, c.checkSecurityVersions())...)
}

// file is a public blob and what it must be.
type file struct {
	name   string
	size   int64
	digest digest.SHA256
}

// public returns everything that is public but the timestamp, in an order in which it can be copied: what is named before
// what names it.
func (r *Repository) public(ctx context.Context) (*state, []file, error) {
	cur, err := r.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	var files, docs []file
	contents, err := trust.Contents(cur.targets)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		files = append(files, describe(name, contents[name]))
	}
	for _, product := range slices.Sorted(maps.Keys(cur.snapshot.Roles)) {
		if product == trust.TargetsRole {
			continue
		}
		doc, role, err := r.role(ctx, cur, product)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(role.Targets)) {
			t := role.Targets[name]
			files = append(files, file{trust.BlobName(name, t.Digest), t.Size, t.Digest})
		}
		docs = append(docs, describe(trust.MetadataName(product, role.Version), doc))
	}
	docs = append(docs, describe(trust.MetadataName(trust.TargetsRole, cur.top.Version), cur.targets))
	docs = append(docs, describe(trust.MetadataName(trust.SnapshotRole, cur.snapshot.Version), cur.snapDoc))
	for i, root := range cur.roots {
		docs = append(docs, describe(trust.MetadataName(trust.RootRole, int64(i+1)), root))
	}
	return cur, append(files, docs...), nil
}

func describe(name string, data []byte) file { return file{name, int64(len(data)), digest.Of(data)} }

func report(progress Progress, done, total int64) {
	if progress != nil {
		progress(done, total)
	}
}

type counting struct {
	src io.Reader
	add func(n int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.add(int64(n))
	return n, err
}

// Summary is what a repository offers, for people.
type Summary struct {
	Root      Document         `json:"root"`
	Targets   Document         `json:"targets"`
	Snapshot  Document         `json:"snapshot"`
	Timestamp Document         `json:"timestamp"`
	Threshold int              `json:"threshold"` // of root keys
	RootKeys  int              `json:"rootKeys"`
	Products  []ProductSummary `json:"products"`
}

// Document is one document of metadata.
type Document struct {
	Version int64     `json:"version"`
	Issued  time.Time `json:"issued,omitzero"`
	Expires time.Time `json:"expires"`
}

// ProductSummary is one product. Its document has version 0 before the first release.
type ProductSummary struct {
	Name string `json:"name"`
	Document
	Releases []ReleaseSummary `json:"releases"` // the highest version first
}

// ReleaseSummary is one release.
type ReleaseSummary struct {
	Version         version.Version `json:"version"`
	Line            version.Line    `json:"line"`
	Kind            statement.Kind  `json:"kind"`
	SecurityVersion uint32          `json:"securityVersion"`
}

// Expires returns when the first of the documents that every device needs expires, and its name.
func (s Summary) Expires() (time.Time, string) {
	at, name := s.Root.Expires, trust.RootRole
	for _, d := range []struct {
		name string
		Document
	}{{trust.TargetsRole, s.Targets}, {trust.SnapshotRole, s.Snapshot}, {trust.TimestampRole, s.Timestamp}} {
		if d.Document.Expires.Before(at) {
			at, name = d.Document.Expires, d.name
		}
	}
	return at, name
}

// Summary returns what is public.
func (r *Repository) Summary(ctx context.Context) (Summary, error) {
	cur, err := r.load(ctx)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{
		Root: Document{Version: cur.root.Version, Expires: cur.root.Expires}, Targets: Document{Version: cur.top.Version, Expires: cur.top.Expires},
		Snapshot:  Document{Version: cur.snapshot.Version, Expires: cur.snapshot.Expires},
		Timestamp: Document{Version: cur.timestamp.Version, Issued: cur.timestamp.Issued, Expires: cur.timestamp.Expires},
		Threshold: cur.root.Threshold, RootKeys: len(cur.root.Keys), Products: []ProductSummary{},
	}
	for _, product := range cur.set.Products() {
		_, role, err := r.role(ctx, cur, product)
		if err != nil {
			return Summary{}, err
		}
		p := ProductSummary{Name: product, Document: Document{Version: role.Version, Expires: role.Expires}, Releases: []ReleaseSummary{}}
		for _, t := range role.Targets {
			if x := t.Index; x != nil {
				p.Releases = append(p.Releases, ReleaseSummary{x.Version, x.Line, x.Kind, x.SecurityVersion})
			}
		}
		slices.SortFunc(p.Releases, func(a, b ReleaseSummary) int { return b.Version.Compare(a.Version) })
		s.Products = append(s.Products, p)
	}
	return s, nil
}
