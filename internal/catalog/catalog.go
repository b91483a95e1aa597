// SPDX-License-Identifier: Apache-2.0

// Package catalog brings what a repository offers to a device: it refreshes the trusted metadata through a source into a
// cache, lists the releases of the products, and fetches the statement of a release with all its checks.
//
// A refresh follows the client workflow of the TUF specification, section 5: root by root from the first trusted one, then
// timestamp, snapshot, top-level targets, and the role of every product that is asked for. Every document is verified by
// package trust before it is saved, and saved before the next one is asked for. So a cache never holds anything that was
// not verified, and a refresh that is cut off between any two saves is continued by the next one. What the cache holds is
// verified again at every refresh: it protects from older states, it grants no trust.
//
// A source is anything that opens blobs: a server, a static host, a folder on a stick. It may lie, stall and be endless;
// every read is bounded by what a verified document says or by a limit of package trust. Stalled connections are ended by
// the context and by the HTTP client.
//
// One product whose role is refused does not hide the others from a caller that asks for all of them; a caller that names
// its products gets the refusal.
package catalog

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

// MaxStatement bounds the bundle of a release statement, in bytes: base64 and an envelope around a statement.
const MaxStatement = 2 * statement.MaxBytes

// Opener opens the blobs of a repository. A name that it does not have is blob.ErrNotExist. blob.Reader and the HTTP client
// satisfy it. Safe for concurrent use.
type Opener interface {
	// Open returns the bytes of name from offset on. The result must be closed.
	Open(ctx context.Context, name string, offset int64) (io.ReadCloser, blob.Info, error)
}

// Cache keeps small documents between refreshes. A name that it does not have is blob.ErrNotExist; a Save is durable and
// whole when it returns nil. One refresh at a time uses a cache. Names are plain file names.
type Cache interface {
	Load(name string) ([]byte, error)
	Save(name string, data []byte) error
}

// Options direct a refresh.
type Options struct {
	// Now is the time of the caller's clock. If it is earlier than a time of issue that the publisher has signed, that time
	// is used.
	Now time.Time
	// Root is the root that the caller trusts, taken out of band. Nil: the one of the first refresh with this cache.
	Root []byte
	// Products are the products to read; a refusal of one of them fails the refresh. Nil: all, see Catalog.Refused.
	Products []string
	// Progress, if set, is called when a document is in place.
	Progress func(name string, done, total int)
}

// Catalog is what a repository offers, verified. Safe for concurrent use.
type Catalog struct {
	src     Opener
	set     *trust.Set
	refused map[string]error
}

// Listed is one release as the role of its product lists it.
type Listed struct {
	Product string
	trust.Index
}

// Refresh brings the newest state that the source offers and the cache allows.
func Refresh(ctx context.Context, src Opener, cache Cache, opt Options) (*Catalog, error) {
	r := &refresher{src: src, cache: cache, opt: opt, refused: map[string]error{}}
	for _, step := range []func(context.Context) error{r.roots, r.timestamp, r.snapshot, r.targets, r.products} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return &Catalog{src: src, set: r.set, refused: r.refused}, nil
}

// refresher is one refresh under way.
type refresher struct {
	src     Opener
	cache   Cache
	opt     Options
	set     *trust.Set
	refused map[string]error
}

// anchorName holds the root of the first trust.
const anchorName = "root.json"

func rootName(version int64) string { return strconv.FormatInt(version, 10) + ".root.json" }

// cacheName keeps products apart from the roles and the roots, whatever their names are.
func cacheName(role string) string {
	switch role {
	case trust.TimestampRole, trust.SnapshotRole, trust.TargetsRole:
		return role + ".json"
	}
	return "product." + role + ".json"
}

// roots walks from the first trusted root to the newest one.
func (r *refresher) roots(ctx context.Context) error {
	known, err := r.load(anchorName)
	if err != nil {
		return err
	}
	anchor := r.opt.Root
	if anchor == nil {
		anchor = known
	}
	if anchor == nil {
		return refusal.New(refusal.Signature, "root metadata", "no root is trusted yet").
			Do("give the root that the publisher has handed over, by a way that you trust")
	}
	if r.set, err = trust.NewSet(anchor, r.opt.Now); err != nil {
		return err
	}
	// The root of an earlier first trust must lie on the way, unless it is an older one.
	var earlier int64
	if head, err := trust.Describe(known); err == nil {
		earlier = head.Version
	}
	foreign := func(version int64, doc []byte) bool { return version == earlier && !same(doc, known) }
	first := r.set.RootVersion()
	saved, err := r.load(rootName(first))
	if err != nil {
		return err
	}
	if h, err := trust.Describe(saved); err == nil && h.Version == first && !same(anchor, saved) || foreign(first, anchor) {
		return foreignCache(first)
	}
	for fetched := 0; ; {
		next := r.set.RootVersion() + 1
		name := rootName(next)
		saved, err := r.load(name)
		if err != nil {
			return err
		}
		if saved != nil {
			err := r.set.AddRoot(saved)
			if err == nil && !foreign(next, saved) {
				continue
			}
			if refusal.Of(err) != refusal.Malformed { // a damaged file is fetched again
				return foreignCache(next)
			}
		}
		data, err := r.fetch(ctx, trust.MetadataName(trust.RootRole, next), trust.MaxRoot)
		if errors.Is(err, blob.ErrNotExist) && saved == nil {
			break
		}
		if err != nil {
			return err
		}
		if fetched++; fetched > trust.MaxRootSteps {
			return refusal.New(refusal.Malformed, "root metadata", "more than %d new versions in one refresh", trust.MaxRootSteps).
				Do("refresh again: what was verified is kept")
		}
		if err := r.set.AddRoot(data); err != nil {
			return err
		}
		if foreign(next, data) {
			return foreignCache(next)
		}
		if err := r.save(ctx, name, data); err != nil {
			return err
		}
	}
	if newest := r.set.RootVersion(); newest < earlier {
		return refusal.New(refusal.Rollback, "root metadata", "the source has no version after %d, version %d is known", newest, earlier).
			Do("somebody keeps newer roots back; try another source, or give the newest root that you trust")
	}
	if bytes.Equal(anchor, known) {
		return nil
	}
	return r.save(ctx, anchorName, anchor)
}

// same reports whether two documents say the same, with whatever signatures.
func same(a, b []byte) bool {
	_, err := trust.Merge(a, b)
	return err == nil
}

func foreignCache(version int64) error {
	return refusal.New(refusal.Mixed, fmt.Sprintf("root metadata, version %d", version), "the cache was filled from another root than the one that is trusted here").
		Do("use another cache folder for this repository, or delete this one if you are sure of the root")
}

func (r *refresher) timestamp(ctx context.Context) error {
	known, err := r.load(cacheName(trust.TimestampRole))
	if err != nil {
		return err
	}
	if known != nil {
		r.set.Recall(trust.TimestampRole, known)
	}
	data, err := r.fetch(ctx, trust.MetadataName(trust.TimestampRole, 0), trust.MaxTimestamp)
	if errors.Is(err, blob.ErrNotExist) {
		return fmt.Errorf("no repository at this address: %w", err)
	}
	if err != nil {
		return err
	}
	newer, err := r.set.SetTimestamp(data)
	if err != nil || !newer {
		return err
	}
	return r.save(ctx, cacheName(trust.TimestampRole), data)
}

func (r *refresher) snapshot(ctx context.Context) error {
	return r.bring(ctx, trust.SnapshotRole, r.set.SnapshotFile(), trust.MaxSnapshot, r.set.SetSnapshot)
}

func (r *refresher) targets(ctx context.Context) error {
	file, _ := r.set.RoleFile(trust.TargetsRole)
	return r.bring(ctx, trust.TargetsRole, file, trust.MaxTargets, r.set.SetTargets)
}

func (r *refresher) products(ctx context.Context) error {
	names := r.opt.Products
	if names == nil {
		names = r.set.Products()
	}
	for i, name := range names {
		if _, ok := r.set.Product(name); !ok {
			return refusal.New(refusal.WrongTarget, "product "+strconv.Quote(name), "the publisher has no product of this name").
				Do("products of this repository: %q", r.set.Products())
		}
		if file, ok := r.set.RoleFile(name); ok { // else nothing of it has been published yet
			err := r.bring(ctx, name, file, trust.MaxRole, func(data []byte) error { return r.set.SetProduct(name, data) })
			if err != nil && (r.opt.Products != nil || refusal.Of(err) == "") {
				return err
			}
			if err != nil {
				r.refused[name] = err
			}
		}
		if r.opt.Progress != nil {
			r.opt.Progress(name, i+1, len(names))
		}
	}
	return nil
}

// bring feeds a document that another one names: from the cache if that holds exactly this one, else from the source. A
// document of another length than the one that is named is read too, up to the limit: the set can then say what it is.
func (r *refresher) bring(ctx context.Context, role string, file trust.File, most int64, set func([]byte) error) error {
	known, err := r.load(cacheName(role))
	if err != nil {
		return err
	}
	if known != nil {
		if file.Names(known) {
			return set(known)
		}
		r.set.Recall(role, known)
	}
	name := trust.MetadataName(role, file.Version)
	data, err := r.fetch(ctx, name, most)
	if errors.Is(err, blob.ErrNotExist) {
		return refusal.New(refusal.Mixed, name, "the metadata names it, and the source does not have it: %w", err).
			Do("try again later: it is being published, was copied in part, or is held back")
	}
	if err != nil {
		return err
	}
	if err := set(data); err != nil {
		return err
	}
	return r.save(ctx, cacheName(role), data)
}

// load returns what the cache holds, nil if it holds nothing.
func (r *refresher) load(name string) ([]byte, error) {
	data, err := r.cache.Load(name)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the cache: %w", err)
	}
	return data, nil
}

func (r *refresher) save(ctx context.Context, name string, data []byte) error {
	return fault.Around(ctx, "catalog.save."+name, func() error {
		if err := r.cache.Save(name, data); err != nil {
			return fmt.Errorf("cannot write the cache: %w", err)
		}
		return nil
	})
}

func (r *refresher) fetch(ctx context.Context, name string, most int64) ([]byte, error) {
	return read(ctx, r.src, name, most)
}

// read returns the whole of a blob, which a source may make as long as it likes.
func read(ctx context.Context, src Opener, name string, most int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	body, info, err := src.Open(ctx, name, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	}
	defer body.Close()
	var out bytes.Buffer
	out.Grow(int(min(max(info.Size, 0), most) + bytes.MinRead)) // one allocation for an honest source
	if _, err := out.ReadFrom(io.LimitReader(body, most+1)); err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	}
	if int64(out.Len()) > most {
		return nil, refusal.New(refusal.Malformed, name, "more than %d bytes", most).
			Do("the source sends something else than the publisher has signed; try another source")
	}
	return out.Bytes(), nil
}

// Products returns the names of all products of the publisher, in order.
func (c *Catalog) Products() []string { return c.set.Products() }

// Refused returns why the role of a product was refused, or nil. It is nil for every product if the refresh named them.
func (c *Catalog) Refused(product string) error { return c.refused[product] }

// Time returns the time by which expiry was judged.
func (c *Catalog) Time() time.Time { return c.set.Time() }

// Late returns by how much the caller's clock is behind a time that the publisher has signed; 0 if it is not.
func (c *Catalog) Late() time.Duration { return c.set.Late() }

// Expires returns when the first of root, timestamp, snapshot and targets expires.
func (c *Catalog) Expires() time.Time { return c.set.Expires() }

// RootVersion returns the version of the newest root.
func (c *Catalog) RootVersion() int64 { return c.set.RootVersion() }

// Releases returns the releases of a product that was read, the highest version first.
func (c *Catalog) Releases(product string) []Listed {
	role, _ := c.set.Role(product)
	var out []Listed
	for _, t := range role.Targets {
		if t.Index != nil {
			out = append(out, Listed{Product: product, Index: *t.Index})
		}
	}
	slices.SortFunc(out, func(a, b Listed) int { return b.Version.Compare(a.Version) })
	return out
}

// ReleaseKeys returns the keys that sign the statements and artifacts of a product: those of today first, then those
// that were retired in good standing.
func (c *Catalog) ReleaseKeys(product string) []*ecdsa.PublicKey {
	p, _ := c.set.Product(product)
	return p.StatementKeys()
}

// EvidenceKeys returns the keys that sign the attestations of a product, the newest first.
func (c *Catalog) EvidenceKeys(product string) []*ecdsa.PublicKey {
	p, _ := c.set.Product(product)
	return p.Evidence
}

// Recovery returns by what the holders of the root keys have lowered the floor of a product. The zero value lowers
// nothing.
func (c *Catalog) Recovery(product string) trust.Recovery {
	p, _ := c.set.Product(product)
	return p.Recovery
}

// Target returns what verified metadata says about a path.
func (c *Catalog) Target(path string) (trust.Target, bool) { return c.set.Target(path) }

// OpenTarget returns the bytes of a target from offset on. They are unverified: the caller compares size and SHA-256 of
// the whole with Target. It never returns more bytes than the target has.
func (c *Catalog) OpenTarget(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	t, err := c.target(path)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > t.Size {
		return nil, fmt.Errorf("cannot open target %s: offset %d is outside of its %d bytes", path, offset, t.Size)
	}
	if t.Content != nil {
		return io.NopCloser(bytes.NewReader(t.Content[offset:])), nil
	}
	body, _, err := c.src.Open(ctx, trust.BlobName(path, t.Digest), offset)
	if err != nil {
		return nil, fmt.Errorf("cannot open target %s: %w", path, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, t.Size-offset), body}, nil
}

// ReadTarget returns the whole of a target of at most most bytes, verified.
func (c *Catalog) ReadTarget(ctx context.Context, path string, most int64) ([]byte, error) {
	t, err := c.target(path)
	if err != nil {
		return nil, err
	}
	if t.Content != nil {
		return t.Content, nil
	}
	if t.Size > most {
		return nil, refusal.New(refusal.Malformed, "target "+path, "%d bytes, at most %d are allowed", t.Size, most)
	}
	data, err := read(ctx, c.src, trust.BlobName(path, t.Digest), t.Size)
	switch {
	case errors.Is(err, blob.ErrNotExist):
		return nil, refusal.New(refusal.Mixed, "target "+path, "the metadata names it, and the source does not have it: %w", err).
			Do("try again later: it was copied in part, or is held back")
	case err != nil:
		return nil, err
	case int64(len(data)) != t.Size:
		return nil, refusal.New(refusal.Digest, "target "+path, "%w: %d of the %d bytes that were signed", digest.ErrSize, len(data), t.Size).
			Do("the download is damaged or was changed on its way; try again")
	case digest.Of(data) != t.Digest:
		return nil, refusal.New(refusal.Digest, "target "+path, "%w: signed %s, got %s", digest.ErrMismatch, t.Digest, digest.Of(data)).
			Do("the download is damaged or was changed on its way; try again")
	}
	return data, nil
}

func (c *Catalog) target(path string) (trust.Target, error) {
	t, ok := c.set.Target(path)
	if !ok {
		return t, refusal.New(refusal.WrongTarget, "target "+strconv.Quote(path), "the metadata does not name it")
	}
	return t, nil
}

// Release fetches the statement of a listed release and checks everything about it that does not depend on the device:
// length and digest, the signature of a release key, its format, that it says what the index says, and that its
// artifacts are the targets beside it.
func (c *Catalog) Release(ctx context.Context, l Listed) (statement.Release, error) {
	path := trust.TargetPath(l.Product, l.Version, trust.StatementName)
	data, err := c.ReadTarget(ctx, path, MaxStatement)
	if err != nil {
		return statement.Release{}, err
	}
	b, err := bundle.Parse(data)
	if err != nil {
		return statement.Release{}, err
	}
	payload, err := b.VerifyStatement(c.ReleaseKeys(l.Product))
	if err != nil {
		return statement.Release{}, err
	}
	r, err := statement.Decode(payload)
	if err != nil {
		return statement.Release{}, err
	}
	if err := c.compare(l, r); err != nil {
		return statement.Release{}, err
	}
	return r, nil
}

// compare refuses a statement that contradicts the role that lists it.
func (c *Catalog) compare(l Listed, r statement.Release) error {
	mixed := func(format string, args ...any) error {
		return refusal.New(refusal.Mixed, fmt.Sprintf("release %s of %s", l.Version, l.Product), format, args...).
			Do("do not install it; tell the publisher")
	}
	if r.Product != l.Product {
		return mixed("the statement is about product %q", r.Product)
	}
	if got := trust.IndexOf(r); !got.Equal(l.Index) {
		return mixed("the statement says %s, the index says %s", describe(*got), describe(l.Index))
	}
	if r.Channel != statement.File && r.Channel != statement.Firmware {
		return nil // the artifacts are elsewhere, named by the digest in the statement
	}
	for _, a := range r.Artifacts {
		t, ok := c.set.Target(trust.TargetPath(r.Product, r.Version, a.Name))
		switch {
		case !ok:
			return mixed("artifact %q of the statement is not a target", a.Name)
		case t.Digest != a.Digest.SHA256 || t.Size != a.Size:
			return mixed("artifact %q: the statement says %d bytes with %s, the target has %d bytes with %s", a.Name, a.Size, a.Digest.SHA256, t.Size, t.Digest)
		}
	}
	return nil
}

func describe(x trust.Index) string {
	s := fmt.Sprintf("version %s on line %s, %s, security version %d", x.Version, x.Line, x.Kind, x.SecurityVersion)
	if len(x.Hardware) > 0 {
		s += fmt.Sprintf(", hardware %q", x.Hardware)
	}
	if !x.MinimumSource.IsZero() {
		s += ", from " + x.MinimumSource.String()
	}
	if !x.Expires.IsZero() {
		s += ", until " + x.Expires.UTC().Format(time.RFC3339)
	}
	return s
}
