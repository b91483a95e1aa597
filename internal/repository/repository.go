// SPDX-License-Identifier: Apache-2.0

// Package repository is the maker's and the server's side of a TUF repository in a blob store: it takes uploads, checks a
// product's new role as strictly as a device would, and makes it public in one step.
//
// What is public is decided by one small blob, metadata/timestamp.json, which changes by compare-and-swap only. It names a
// snapshot, which names one version of everything else; a reader sees the old state or the new one.
//
// A change is written down before it happens: everything new lies in staging/ under its digest, then a record
// (staging/commit) lists where each piece goes and which timestamp replaces which. Then the pieces are moved, in the order
// targets, role, snapshot; then the timestamp is swapped; then the record is cleared. Whoever finds a record finishes it
// first, so a process may be killed at any moment and the next one, whoever it is, ends in the same state. Two publishers
// at once both try to write the record: one wins, the other looks again and finds that its version is taken.
//
// Keys: the online key is lent as a sign.Signer and signs snapshot and timestamp. No other private key is ever here.
// A published release cannot change or vanish, unless its statement is not signed by a key of today.
package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/trust"
)

// ErrNone reports a blob store without a repository.
var ErrNone = errors.New("there is no repository here")

// DefaultExpiry is how long a snapshot and a timestamp are valid. They are renewed daily: a server may be down for six
// days before a device refuses to go on.
const DefaultExpiry = 7 * 24 * time.Hour

// MaxTarget bounds one target, in bytes.
const MaxTarget = 64 << 30

// maxSkew is how far the clock may lie behind the last signed time of issue: what several nodes differ by, not more. A
// clock that is far behind would sign timestamps that devices hold for old ones.
const maxSkew = time.Hour

// Publisher publishes into a repository. A Repository and remote.Client are Publishers. Every method may be repeated
// until it succeeds, and is safe for concurrent use, also by several processes. Refusals are *refusal.Error.
type Publisher interface {
	// Metadata returns the current document of a role: "root", "targets", "snapshot", "timestamp" or a product. One that
	// does not exist is blob.ErrNotExist.
	Metadata(ctx context.Context, role string) ([]byte, error)
	// Stage brings bytes, which nobody can see before Publish. What is there already is not read again from src; an upload
	// that broke off is continued where it stopped, if src is an io.Seeker.
	Stage(ctx context.Context, d digest.SHA256, size int64, src io.Reader) error
	// Publish makes the next version of a product's role public, with all targets that it names. Every new target must have
	// been staged. The same role again is success. A version that is taken is refused with class Conflict.
	Publish(ctx context.Context, product string, role []byte) error
	// Trust makes newer roots, in order, and a newer top-level targets document public. Each may be absent; what is public
	// already is skipped.
	Trust(ctx context.Context, roots [][]byte, targets []byte) error
}

// Options configure a Repository.
type Options struct {
	// Now tells the time. It must be set.
	Now func() time.Time
	// Expiry is how long snapshot and timestamp are valid; 0: DefaultExpiry.
	Expiry time.Duration
	// Log is told what is published. Nil: nobody is.
	Log *slog.Logger
}

// Repository is a repository in a blob store. Safe for concurrent use; it keeps no state of its own.
type Repository struct {
	blobs  blob.Store
	online sign.Signer // nil: nothing can be signed
	opt    Options
}

var _ Publisher = (*Repository)(nil)

// Open returns the repository in blobs. Without a signer it can be read, exported and checked, and uploads can be staged.
func Open(ctx context.Context, blobs blob.Store, online sign.Signer, opt Options) (*Repository, error) {
	r, err := newRepository(blobs, online, opt)
	if err != nil {
		return nil, err
	}
	if online != nil {
		if err := r.recover(ctx); err != nil {
			return nil, err
		}
	}
	if _, err := r.load(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Create makes a new repository: roots from version 1 on, and the first top-level targets. If blobs holds a repository
// with exactly these already, that is success; with others it is refused with class Conflict.
func Create(ctx context.Context, blobs blob.Store, roots [][]byte, targets []byte, online sign.Signer, opt Options) (*Repository, error) {
	r, err := newRepository(blobs, online, opt)
	if err != nil {
		return nil, err
	}
	if online == nil {
		return nil, errors.New("cannot create a repository without an online key")
	}
	err = r.change(ctx, func(cur *state) (*change, error) {
		if cur == nil {
			return found(roots, targets)
		}
		next, err := newTrust(cur, roots, targets)
		if refusal.Of(err) == refusal.Conflict || err == nil && next != nil {
			return nil, refusal.New(refusal.Conflict, "repository", "there is one already, with other roots or other products").
				Do("choose another folder, or change this one with \"pawl repo trust\"")
		}
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func newRepository(blobs blob.Store, online sign.Signer, opt Options) (*Repository, error) {
	if opt.Now == nil {
		return nil, errors.New("a repository needs a clock")
	}
	if opt.Expiry == 0 {
		opt.Expiry = DefaultExpiry
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Repository{blobs: blobs, online: online, opt: opt}, nil
}

// state is what is public, verified from the first root on.
type state struct {
	set       *trust.Set
	roots     [][]byte // from version 1 on
	root      trust.Root
	stamp     []byte // the timestamp as it is stored
	timestamp trust.Timestamp
	snapDoc   []byte
	snapshot  trust.Snapshot
	targets   []byte
	top       trust.Targets // what targets says
}

// load reads and verifies what is public. Expiry is judged at the time when the timestamp was signed: a server that was
// off for a month must be able to renew what has expired meanwhile. A blob store without a timestamp is ErrNone.
func (r *Repository) load(ctx context.Context) (*state, error) {
	cur := &state{}
	var err error
	cur.stamp, err = r.read(ctx, trust.TimestampRole, 0, trust.MaxTimestamp)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	if cur.timestamp, err = trust.ParseTimestamp(cur.stamp); err != nil {
		return nil, err
	}
	for n := int64(1); n <= trust.MaxRootSteps; n++ {
		doc, err := r.read(ctx, trust.RootRole, n, trust.MaxRoot)
		if errors.Is(err, blob.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		if cur.roots = append(cur.roots, doc); n == 1 {
			cur.set, err = trust.NewSet(doc, cur.timestamp.Issued)
		} else {
			err = cur.set.AddRoot(doc)
		}
		if err != nil {
			return nil, err
		}
	}
	if cur.set == nil {
		return nil, fmt.Errorf("cannot read repository: %s: %w", trust.MetadataName(trust.RootRole, 1), blob.ErrNotExist)
	}
	if cur.root, err = trust.ParseRoot(cur.roots[len(cur.roots)-1]); err != nil {
		return nil, err
	}
	if _, err := cur.set.SetTimestamp(cur.stamp); err != nil {
		return nil, err
	}
	if cur.snapDoc, err = r.read(ctx, trust.SnapshotRole, cur.timestamp.File.Version, trust.MaxSnapshot); err != nil {
		return nil, err
	}
	if err := cur.set.SetSnapshot(cur.snapDoc); err != nil {
		return nil, err
	}
	if cur.snapshot, err = trust.ParseSnapshot(cur.snapDoc); err != nil {
		return nil, err
	}
	if cur.targets, err = r.read(ctx, trust.TargetsRole, cur.snapshot.Roles[trust.TargetsRole].Version, trust.MaxTargets); err != nil {
		return nil, err
	}
	if err := cur.set.SetTargets(cur.targets); err != nil {
		return nil, err
	}
	cur.top, err = trust.ParseTargets(cur.targets)
	return cur, err
}

// role returns the public role of a product as bytes that the snapshot names, and its content. It may be signed by keys
// that are not valid any more. A product that has none yet has version 0.
func (r *Repository) role(ctx context.Context, cur *state, product string) ([]byte, trust.Role, error) {
	file, ok := cur.snapshot.Roles[product]
	if !ok {
		return nil, trust.Role{Product: product}, nil
	}
	doc, err := r.read(ctx, product, file.Version, trust.MaxRole)
	if err != nil {
		return nil, trust.Role{}, err
	}
	if !file.Names(doc) {
		return nil, trust.Role{}, refusal.New(refusal.Digest, "metadata of product "+product, "version %d is not the document that the snapshot names", file.Version).
			Do("the files of the repository are damaged: bring them back from a copy")
	}
	role, err := trust.ParseRole(product, doc)
	return doc, role, err
}

func (r *Repository) read(ctx context.Context, role string, version int64, most int64) ([]byte, error) {
	data, err := blob.ReadAll(ctx, r.blobs, trust.MetadataName(role, version), most)
	if err != nil {
		return nil, fmt.Errorf("cannot read repository: %w", err)
	}
	return data, nil
}

// Metadata implements Publisher.
func (r *Repository) Metadata(ctx context.Context, role string) ([]byte, error) {
	cur, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	switch role {
	case trust.RootRole:
		return cur.roots[len(cur.roots)-1], nil
	case trust.TargetsRole:
		return cur.targets, nil
	case trust.SnapshotRole:
		return cur.snapDoc, nil
	case trust.TimestampRole:
		return cur.stamp, nil
	}
	doc, _, err := r.role(ctx, cur, role)
	if err == nil && doc == nil {
		err = fmt.Errorf("metadata of product %q: %w", clip(role), blob.ErrNotExist)
	}
	return doc, err
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
