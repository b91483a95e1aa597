// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

// The suffixes of the files beside an artifact that carry a signature.
const (
	blobBundle    = ".sigstore.json"
	sbomBundle    = ".sbom.sigstore.json"
	verdictBundle = ".verdict.sigstore.json"
)

// Publish implements Publisher.
func (r *Repository) Publish(ctx context.Context, product string, doc []byte) error {
	return r.change(ctx, func(cur *state) (*change, error) {
		if cur == nil {
			return nil, ErrNone
		}
		if err := statement.CheckProduct(product); err != nil {
			return nil, refusal.New(refusal.Malformed, "product", "%w", err)
		}
		if file, ok := cur.snapshot.Roles[product]; ok && file.Names(doc) {
			return nil, nil
		}
		c := &candidate{ctx: ctx, blobs: r.blobs, now: r.opt.Now(), product: product}
		next, err := c.check(r, cur, doc)
		if err != nil {
			return nil, err
		}
		r.opt.Log.InfoContext(ctx, "product is published", "product", product, "version", c.role.Version, "targets", len(c.role.Targets), "new", len(next.targets))
		return next, nil
	})
}

// candidate is a role on its way to be public.
type candidate struct {
	ctx     context.Context
	blobs   blob.Reader
	now     time.Time
	product string
	keys    trust.Product
	role    trust.Role
	old     trust.Role
	all     bool // check also what was checked when it was published
	// moves of targets that are staged and not in their place yet, by path.
	moves map[string]move
}

// check refuses a role that a device would refuse, or that takes back what was published, and plans its publication.
func (c *candidate) check(r *Repository, cur *state, doc []byte) (*change, error) {
	var err error
	if c.role, err = cur.set.VerifyProduct(c.product, doc); err != nil {
		return nil, err
	}
	c.keys, _ = cur.set.Product(c.product) // VerifyProduct has found it
	if _, c.old, err = r.role(c.ctx, cur, c.product); err != nil {
		return nil, err
	}
	if c.role.Version != c.old.Version+1 {
		return nil, conflict("metadata of product "+c.product, c.role.Version, c.old.Version)
	}
	if !c.role.Expires.After(c.now) {
		return nil, refusal.New(refusal.Expired, "metadata of product "+c.product, "it was valid until %s", c.role.Expires.UTC().Format(time.RFC3339)).
			Do("sign it with a later expiry")
	}
	if err := c.findTargets(); err != nil {
		return nil, err
	}
	if err := c.checkOldReleases(); err != nil {
		return nil, err
	}
	for _, release := range releases(c.role) {
		if err := c.checkRelease(release); err != nil {
			return nil, err
		}
	}
	if err := c.checkSecurityVersions(); err != nil {
		return nil, err
	}
	next := &change{
		roots: cur.roots, root: cur.root, top: cur.targets, product: c.product, role: doc,
		roles: map[string]trust.File{c.product: trust.FileOf(c.role.Version, doc)},
		docs:  []document{{trust.MetadataName(c.product, c.role.Version), doc}},
	}
	for _, name := range slices.Sorted(maps.Keys(c.moves)) {
		next.targets = append(next.targets, c.moves[name])
	}
	return next, nil
}

// findTargets finds the bytes of every target: in its place, or staged. What is new is read and hashed.
func (c *candidate) findTargets() error {
	c.moves = map[string]move{}
	for _, name := range slices.Sorted(maps.Keys(c.role.Targets)) {
		t := c.role.Targets[name]
		if err := c.ctx.Err(); err != nil {
			return err
		}
		place := trust.BlobName(name, t.Digest)
		info, err := c.blobs.Stat(c.ctx, place)
		if err == nil && info.Size == t.Size && !c.isNew(name) {
			continue // verified when it was published
		}
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return err
		}
		if err == nil {
			// A change that was given up has moved it already, or it was damaged since.
			if err := c.verify(place, t); err != nil {
				return refusal.New(refusal.Digest, "target "+name, "what lies in its place is damaged: %w", err).
					Do("bring %s back from a copy", place)
			}
			continue
		}
		err = c.verify(stagedName(t.Digest), t)
		switch {
		case errors.Is(err, blob.ErrNotExist):
			return refusal.New(refusal.NotProven, "target "+name, "%d bytes with %s are neither staged nor published", t.Size, t.Digest).
				Do("upload it again, then publish again")
		case errors.Is(err, digest.ErrSize), errors.Is(err, digest.ErrMismatch):
			return refusal.New(refusal.Digest, "target "+name, "%w", err).Do("upload it again, then publish again")
		case err != nil:
			return err
		}
		c.moves[name] = move{Digest: t.Digest, To: place}
	}
	return nil
}

func (c *candidate) verify(name string, t trust.Target) error {
	src, _, err := c.blobs.Open(c.ctx, name, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	return digest.Verify(nil, src, t.Digest, t.Size)
}

// read returns a small target.
func (c *candidate) read(name string, t trust.Target, most int64) ([]byte, error) {
	from := trust.BlobName(name, t.Digest)
	if m, ok := c.moves[name]; ok {
		from = stagedName(m.Digest)
	}
	if t.Size > most {
		return nil, refusal.New(refusal.Malformed, "target "+name, "%d bytes, at most %d are allowed", t.Size, most)
	}
	data, err := blob.ReadAll(c.ctx, c.blobs, from, most)
	if err != nil {
		return nil, err
	}
	if got := digest.Of(data); got != t.Digest {
		return nil, refusal.New(refusal.Digest, "target "+name, "%w: signed %s, got %s", digest.ErrMismatch, t.Digest, got).
			Do("the files of the repository are damaged: bring them back from a copy")
	}
	return data, nil
}

func same(a, b trust.Target) bool {
	return a.Size == b.Size && a.Digest == b.Digest && (a.Index == nil) == (b.Index == nil) && (a.Index == nil || a.Index.Equal(*b.Index))
}

func (c *candidate) isNew(name string) bool { return !same(c.old.Targets[name], c.role.Targets[name]) }

// releases returns the folders of a role's releases, "<product>/<version>", in order.
func releases(role trust.Role) []string {
	all := map[string]bool{}
	for name := range role.Targets {
		all[path.Dir(name)] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// checkOldReleases refuses a role in which a published release has changed or is gone. A release whose statement no key of
// today has signed is no release any more: after a stolen key was replaced, what the thief published can be removed.
func (c *candidate) checkOldReleases() error {
	changed := map[string]string{}
	for name, was := range c.old.Targets {
		if is, ok := c.role.Targets[name]; !ok {
			changed[path.Dir(name)] = "would lose " + path.Base(name)
		} else if !same(was, is) {
			changed[path.Dir(name)] = "would get another " + path.Base(name)
		}
	}
	for name := range c.role.Targets {
		release := path.Dir(name)
		if _, known := c.old.Targets[release+"/"+trust.StatementName]; known {
			if _, there := c.old.Targets[name]; !there {
				changed[release] = "would get a further file, " + path.Base(name)
			}
		}
	}
	for _, release := range slices.Sorted(maps.Keys(changed)) {
		name := release + "/" + trust.StatementName
		t, ok := c.old.Targets[name]
		if !ok {
			continue
		}
		data, err := blob.ReadAll(c.ctx, c.blobs, trust.BlobName(name, t.Digest), catalog.MaxStatement)
		if errors.Is(err, blob.ErrNotExist) {
			continue // nobody can install it as it is
		}
		if err != nil {
			return err
		}
		if _, err := verifyStatement(data, c.keys.StatementKeys()); err == nil {
			return refusal.New(refusal.Conflict, "release "+release, "it is published, and %s", changed[release]).
				Do("what is published stays as it is: release a higher version")
		}
	}
	return nil
}

func verifyStatement(data []byte, keys []*ecdsa.PublicKey) (statement.Release, error) {
	b, err := bundle.Parse(data)
	if err != nil {
		return statement.Release{}, err
	}
	payload, err := b.VerifyStatement(keys)
	if err != nil {
		return statement.Release{}, err
	}
	return statement.Decode(payload)
}

// checkRelease checks a release as a device does, and for a new one also what people with cosign would check.
func (c *candidate) checkRelease(release string) error {
	name := release + "/" + trust.StatementName
	t, ok := c.role.Targets[name]
	if !ok {
		return refusal.New(refusal.Incomplete, "release "+release, "no target %q", trust.StatementName)
	}
	data, err := c.read(name, t, catalog.MaxStatement)
	if err != nil {
		return err
	}
	keys := c.keys.StatementKeys()
	if c.isNew(name) {
		keys = c.keys.Release // a retired key signs nothing new
	}
	r, err := verifyStatement(data, keys)
	if err != nil {
		return within("statement of release "+release, err)
	}
	if got := r.Product + "/" + r.Version.String(); got != release {
		return refusal.New(refusal.Mixed, "release "+release, "its statement is about %s", clip(got))
	}
	if !t.Index.Equal(*trust.IndexOf(r)) {
		return refusal.New(refusal.Mixed, "release "+release, "the index entry in the metadata is not what the statement says")
	}
	if c.isNew(name) && !r.Expires.IsZero() && !r.Expires.After(c.now) {
		return refusal.New(refusal.Expired, "release "+release, "its statement was valid until %s", r.Expires.UTC().Format(time.RFC3339))
	}
	for _, a := range r.Artifacts {
		if err := c.checkArtifact(release, r, a); err != nil {
			return err
		}
	}
	return nil
}

func (c *candidate) checkArtifact(release string, r statement.Release, a statement.Artifact) error {
	name := release + "/" + a.Name
	t, ok := c.role.Targets[name]
	switch {
	case r.Channel == statement.Container && ok:
		return refusal.New(refusal.Mixed, "target "+name, "it has the name of an image, which lies in a registry")
	case (r.Channel == statement.File || r.Channel == statement.Firmware) && !ok:
		return refusal.New(refusal.Incomplete, "release "+release, "artifact %q of its statement is not a target", a.Name)
	case ok && (t.Digest != a.Digest.SHA256 || t.Size != a.Size):
		return refusal.New(refusal.Mixed, "target "+name, "the metadata names %d bytes with %s, the statement %d with %s", t.Size, t.Digest.Short(), a.Size, a.Digest.SHA256.Short())
	}
	for suffix, check := range map[string]func(b *bundle.Bundle) error{
		blobBundle:    func(b *bundle.Bundle) error { return b.VerifyBlob(c.keys.StatementKeys(), a.Digest.SHA256) },
		sbomBundle:    func(b *bundle.Bundle) error { return c.checkEvidence(b, a) },
		verdictBundle: func(b *bundle.Bundle) error { return c.checkEvidence(b, a) },
	} {
		t, ok := c.role.Targets[name+suffix]
		if !ok || !c.isNew(name+suffix) && !c.all {
			continue
		}
		data, err := c.read(name+suffix, t, bundle.MaxBytes)
		if err != nil {
			return err
		}
		b, err := bundle.Parse(data)
		if err == nil {
			err = check(b)
		}
		if err != nil {
			return within("target "+name+suffix, err)
		}
	}
	return nil
}

// checkEvidence checks that an attestation is signed by an evidence key and speaks of the artifact.
func (c *candidate) checkEvidence(b *bundle.Bundle, a statement.Artifact) error {
	payload, err := b.VerifyStatement(c.keys.Evidence)
	if err != nil {
		return err
	}
	s, err := bundle.DecodeStatement(payload)
	if err != nil {
		return err
	}
	if !s.Covers(a.Digest.SHA256) {
		return refusal.New(refusal.Digest, "attestation", "none of its %d subjects is %s", len(s.Subjects), a.Digest.SHA256)
	}
	return nil
}

// checkSecurityVersions refuses a security version that falls while the version rises on a line: a device that follows the
// line would be led below its floor.
func (c *candidate) checkSecurityVersions() error {
	var all []*trust.Index
	for _, t := range c.role.Targets {
		if t.Index != nil {
			all = append(all, t.Index)
		}
	}
	slices.SortFunc(all, func(a, b *trust.Index) int { return a.Version.Compare(b.Version) })
	for i, high := range all {
		for _, low := range all[:i] {
			if low.SecurityVersion > high.SecurityVersion && (low.Line.Holds(high.Version) || high.Line.Holds(low.Version)) {
				return refusal.New(refusal.Rollback, "security version of "+c.product, "%d in release %s, %d in release %s of the same line (%s)",
					high.SecurityVersion, high.Version, low.SecurityVersion, low.Version, high.Line).
					Do("give release %s at least security version %d", high.Version, low.SecurityVersion)
			}
		}
	}
	return nil
}

// within says what was checked, and keeps the class of a refusal.
func within(checked string, err error) error {
	var e *refusal.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("cannot check %s: %w", checked, err)
	}
	outer := refusal.New(e.Class, checked, "%s: %w", e.Checked, errors.New(e.Failed))
	outer.Next, outer.Err = e.Next, err
	return outer
}
