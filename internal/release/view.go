// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// View is a Catalogue as the publisher of it sees it. It is what a device sees, with one difference: a catalogue that no
// device takes any more can be read if it was the publisher's own, because the next release replaces it. It may have
// expired, or be signed by a key that has been retired in good standing since. If its key has been distrusted since, only
// those releases count whose statements are signed by a key that is trusted today; the others are dropped.
//
// A catalogue that was never signed by an authorised key is refused: a publisher does not build upon what a thief has left.
type View struct {
	catalog *catalog.Catalog
	src     catalog.Opener
	late    map[string]trust.Role
	dropped []string
}

// Metadata reads the current documents of a repository, as somebody who may publish into it.
type Metadata interface {
	// Metadata returns the current document of a role or product; blob.ErrNotExist if there is none.
	Metadata(ctx context.Context, role string) ([]byte, error)
}

// Look reads the repository behind src. roots are the publisher's own, from the first one on. Only products are looked at
// that are named.
func Look(ctx context.Context, src catalog.Opener, current Metadata, cache catalog.Cache, roots [][]byte, now time.Time, products []string) (*View, error) {
	// One product that is refused does not keep the others from being released.
	c, err := catalog.Refresh(ctx, src, cache, catalog.Options{Now: now, Root: roots[0]})
	if err != nil {
		return nil, err
	}
	v := &View{catalog: c, src: src, late: map[string]trust.Role{}}
	for _, name := range products {
		if refused := c.Refused(name); refused != nil {
			if err := v.lookCloser(ctx, current, roots, name, refused); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// Dropped returns a sentence for every release that does not count any more.
func (v *View) Dropped() []string { return v.dropped }

// lookCloser reads the catalogue of a product that a device refuses.
func (v *View) lookCloser(ctx context.Context, current Metadata, roots [][]byte, name string, refused error) error {
	delegated, _ := v.catalog.Product(name)
	doc, err := current.Metadata(ctx, name)
	if err != nil {
		return errors.Join(refused, err)
	}
	role, err := trust.ParseRole(name, doc)
	if err != nil {
		return err
	}
	sigs, err := trust.Authority{Keys: delegated.StatementKeys(), Threshold: 1}.Check(doc)
	if err != nil {
		return refused
	}
	if sigs.Met() {
		v.late[name] = role
		return nil
	}
	was, err := v.wasAuthorised(ctx, current, roots, name, doc)
	if err != nil {
		return err
	}
	if !was {
		return refused
	}
	return v.keepTrusted(ctx, delegated, role)
}

// maxTargetsSteps bounds how many former versions of the top-level targets are looked into.
const maxTargetsSteps = 64

// wasAuthorised reports whether the document of a product's role was signed as a former version of the top-level targets
// asked for.
func (v *View) wasAuthorised(ctx context.Context, current Metadata, roots [][]byte, product string, doc []byte) (bool, error) {
	newest, err := current.Metadata(ctx, trust.TargetsRole)
	if err != nil {
		return false, err
	}
	head, err := trust.Describe(newest)
	if err != nil {
		return false, err
	}
	for n := head.Version - 1; n >= 1 && n >= head.Version-maxTargetsSteps; n-- {
		old, err := v.fetch(ctx, trust.MetadataName(trust.TargetsRole, n), trust.MaxTargets)
		if errors.Is(err, blob.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if !signedByRoot(old, roots) {
			continue
		}
		targets, err := trust.ParseTargets(old)
		if err != nil {
			continue
		}
		for _, p := range targets.Products {
			if sigs, err := p.Authority().Check(doc); p.Name == product && err == nil && sigs.Met() {
				return true, nil
			}
		}
	}
	return false, nil
}

// signedByRoot reports whether one of the roots accepts the top-level targets document.
func signedByRoot(doc []byte, roots [][]byte) bool {
	for _, text := range roots {
		root, err := trust.ParseRoot(text)
		if err != nil {
			continue
		}
		if sigs, err := root.Authority().Check(doc); err == nil && sigs.Met() {
			return true
		}
	}
	return false
}

// keepTrusted takes over those releases of a role, of which nothing is proven, whose statements are signed by a key of today.
func (v *View) keepTrusted(ctx context.Context, delegated trust.Product, role trust.Role) error {
	kept := trust.Role{Product: role.Product, Version: role.Version, Targets: map[string]trust.Target{}}
	folders := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(role.Targets)) {
		folders[path.Dir(name)] = append(folders[path.Dir(name)], name)
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		err := v.checkRelease(ctx, delegated, role, folder)
		switch {
		case err == nil:
			for _, name := range folders[folder] {
				kept.Targets[name] = role.Targets[name]
			}
		case refusal.Of(err) != "" || errors.Is(err, blob.ErrNotExist):
			v.dropped = append(v.dropped, fmt.Sprintf("%s is no longer listed: %s", folder, err))
		default:
			return err
		}
	}
	v.late[role.Product] = kept
	return nil
}

// checkRelease checks the release in a folder of an unproven role as far as its statement goes.
func (v *View) checkRelease(ctx context.Context, delegated trust.Product, role trust.Role, folder string) error {
	name := folder + "/" + trust.StatementName
	t, ok := role.Targets[name]
	if !ok {
		return refusal.New(refusal.Incomplete, "release "+folder, "no statement")
	}
	data, err := v.readLate(ctx, name, t, catalog.MaxStatement)
	if err != nil {
		return err
	}
	b, err := bundle.Parse(data)
	if err != nil {
		return err
	}
	payload, err := b.VerifyStatement(delegated.StatementKeys())
	if err != nil {
		return err
	}
	claim, err := statement.Decode(payload)
	if err != nil {
		return err
	}
	mixed := refusal.New(refusal.Mixed, "release "+folder, "the catalogue and the statement contradict each other")
	if claim.Product+"/"+claim.Version.String() != folder || !t.Index.Equal(*trust.IndexOf(claim)) {
		return mixed
	}
	for _, a := range claim.Artifacts {
		listed, ok := role.Targets[folder+"/"+a.Name]
		if ok == (claim.Channel == statement.Container) || ok && (listed.Digest != a.Digest.SHA256 || listed.Size != a.Size) {
			return mixed
		}
	}
	return nil
}

// Product implements Catalogue.
func (v *View) Product(name string) (trust.Product, bool) { return v.catalog.Product(name) }

// Role implements Catalogue.
func (v *View) Role(product string) (trust.Role, bool) {
	if role, ok := v.late[product]; ok {
		return role, true
	}
	return v.catalog.Role(product)
}

// ReadTarget implements Catalogue.
func (v *View) ReadTarget(ctx context.Context, path string, most int64) ([]byte, error) {
	for _, role := range v.late {
		if t, ok := role.Targets[path]; ok {
			return v.readLate(ctx, path, t, most)
		}
	}
	return v.catalog.ReadTarget(ctx, path, most)
}

func (v *View) readLate(ctx context.Context, path string, t trust.Target, most int64) ([]byte, error) {
	if t.Size > most {
		return nil, refusal.New(refusal.Malformed, "target "+path, "%d bytes, at most %d are allowed", t.Size, most)
	}
	data, err := v.fetch(ctx, trust.BlobName(path, t.Digest), t.Size)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", path, err)
	}
	if err := digest.Verify(nil, bytes.NewReader(data), t.Digest, t.Size); err != nil {
		return nil, refusal.New(refusal.Digest, "target "+path, "%w", err)
	}
	return data, nil
}

// fetch reads at most most bytes of a blob, and one more if there is one. They are unverified.
func (v *View) fetch(ctx context.Context, name string, most int64) (_ []byte, err error) {
	body, _, err := v.src.Open(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return io.ReadAll(io.LimitReader(body, most+1))
}
