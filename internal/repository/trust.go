// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/trust"
)

// Trust implements Publisher.
func (r *Repository) Trust(ctx context.Context, roots [][]byte, targets []byte) error {
	return r.change(ctx, func(cur *state) (*change, error) {
		if cur == nil {
			return nil, ErrNone
		}
		c, err := newTrust(cur, roots, targets)
		if err == nil && c != nil {
			r.opt.Log.InfoContext(ctx, "trust changes", "root", c.root.Version, "products", len(c.roles))
		}
		return c, err
	})
}

// found plans a new repository.
func found(roots [][]byte, targets []byte) (*change, error) {
	if len(roots) == 0 || len(targets) == 0 {
		return nil, errors.New("a new repository needs a root and top-level targets")
	}
	first, err := trust.ParseRoot(roots[0])
	if err != nil {
		return nil, err
	}
	if first.Version != 1 {
		return nil, refusal.New(refusal.Mixed, "root metadata", "the first root has version %d, not 1", first.Version)
	}
	c := &change{roots: roots}
	if c.root, err = trust.ParseRoot(roots[len(roots)-1]); err != nil {
		return nil, err
	}
	return c, c.setTargets(targets)
}

// newTrust plans new roots and new top-level targets, or nothing if all of it is public.
func newTrust(cur *state, roots [][]byte, targets []byte) (*change, error) {
	c := &change{roots: slices.Clone(cur.roots), root: cur.root, top: cur.targets}
	for _, doc := range roots {
		root, err := trust.ParseRoot(doc)
		if err != nil {
			return nil, err
		}
		have := int64(len(c.roots))
		switch {
		case root.Version <= have && bytes.Equal(doc, c.roots[root.Version-1]):
			continue
		case root.Version != have+1:
			return nil, conflict("root metadata", root.Version, have)
		}
		c.roots, c.root = append(c.roots, doc), root
	}
	changed := len(c.roots) != len(cur.roots)
	if targets != nil && !bytes.Equal(targets, cur.targets) {
		in, err := trust.ParseTargets(targets)
		if err != nil {
			return nil, err
		}
		// Several changes may have been made since the last one that was published here: versions may be left out.
		if have := cur.snapshot.Roles[trust.TargetsRole].Version; in.Version <= have {
			return nil, conflict("targets metadata", in.Version, have)
		}
		if err := c.setTargets(targets); err != nil {
			return nil, err
		}
		changed = true
	}
	if !changed {
		return nil, nil
	}
	return c, nil
}

// setTargets plans new top-level targets, with the public keys that they contain as files beside them.
func (c *change) setTargets(doc []byte) error {
	in, err := trust.ParseTargets(doc)
	if err != nil {
		return err
	}
	files, err := trust.Contents(doc)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		c.docs = append(c.docs, document{name, files[name]})
	}
	c.docs = append(c.docs, document{trust.MetadataName(trust.TargetsRole, in.Version), doc})
	c.roles = map[string]trust.File{trust.TargetsRole: trust.FileOf(in.Version, doc)}
	c.top = doc
	return nil
}

// Refresh renews snapshot and timestamp, and finishes what a killed process has begun. It returns when they expire.
func (r *Repository) Refresh(ctx context.Context) (expires time.Time, err error) {
	var before digest.SHA256
	err = r.change(ctx, func(cur *state) (*change, error) {
		if cur == nil {
			return nil, ErrNone
		}
		sum := digest.Of(cur.stamp)
		if !before.IsZero() && sum != before {
			expires = cur.timestamp.Expires // renewed, by us or by somebody who was faster
			return nil, nil
		}
		before = sum
		return &change{roots: cur.roots, root: cur.root, top: cur.targets}, nil
	})
	return expires, err
}

func conflict(what string, got, have int64) *refusal.Error {
	if got <= have {
		return refusal.New(refusal.Conflict, what, "version %d is offered, and is public already with other content (newest: %d)", got, have).
			Do("fetch what is public, make the change again on top of it, and sign version %d", have+1)
	}
	return refusal.New(refusal.Conflict, what, "version %d is offered where version %d must come next", got, have+1).
		Do("fetch what is public, make the change again on top of it, and sign version %d", have+1)
}
