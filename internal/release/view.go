// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/trust"
)

// View is a Catalogue as the publisher of it sees it. It is what a device sees, with one difference: the catalogue of a
// product that has expired, or was signed by a key that has been retired in good standing since, can be read, because the
// next release replaces it.
type View struct {
	catalog *catalog.Catalog
	src     catalog.Opener
	late    map[string]trust.Role
}

// Metadata reads the current documents of a repository, as somebody who may publish into it.
type Metadata interface {
	// Metadata returns the current document of a role or product; blob.ErrNotExist if there is none.
	Metadata(ctx context.Context, role string) ([]byte, error)
}

// Look reads the repository behind src. Only products are looked at that are named.
func Look(ctx context.Context, src catalog.Opener, current Metadata, cache catalog.Cache, opt catalog.Options, products []string) (*View, error) {
	opt.Products = nil // one product that is refused does not keep the others from being released
	c, err := catalog.Refresh(ctx, src, cache, opt)
	if err != nil {
		return nil, err
	}
	v := &View{catalog: c, src: src, late: map[string]trust.Role{}}
	for _, name := range products {
		refused := c.Refused(name)
		if refused == nil {
			continue
		}
		delegated, _ := c.Product(name)
		doc, err := current.Metadata(ctx, name)
		if err != nil {
			return nil, errors.Join(refused, err)
		}
		sigs, err := trust.Authority{Keys: delegated.StatementKeys(), Threshold: 1}.Check(doc)
		if err != nil || !sigs.Met() {
			return nil, refused
		}
		if v.late[name], err = trust.ParseRole(name, doc); err != nil {
			return nil, err
		}
	}
	return v, nil
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

func (v *View) readLate(ctx context.Context, path string, t trust.Target, most int64) (_ []byte, err error) {
	if t.Size > most {
		return nil, refusal.New(refusal.Malformed, "target "+path, "%d bytes, at most %d are allowed", t.Size, most)
	}
	body, _, err := v.src.Open(ctx, trust.BlobName(path, t.Digest), 0)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, fmt.Errorf("target %s: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	var out bytes.Buffer
	if err := digest.Verify(&out, io.LimitReader(body, t.Size+1), t.Digest, t.Size); err != nil {
		return nil, refusal.New(refusal.Digest, "target "+path, "%w", err)
	}
	return out.Bytes(), nil
}
