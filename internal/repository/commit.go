// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/trust"
)

const (
	stagingDir = "staging/"
	recordName = stagingDir + "commit"
	// maxRecord bounds the record, in bytes: 20,000 moves of 1 KiB.
	maxRecord = 24 << 20
	// attempts is how often a change is tried that others are faster with.
	attempts = 20
)

// record is the change that is being made, or the trace of the last one.
type record struct {
	// Done is the digest of the record that was here last, and alone: nothing is being made. It makes every record
	// differ from every other, so that a compare-and-swap cannot take an old one for a new one.
	Done *digest.SHA256 `json:"done,omitzero"`
	// Base is the digest of the timestamp that is replaced; absent: there is none.
	Base      *digest.SHA256 `json:"base,omitzero"`
	Moves     []move         `json:"moves,omitzero"`
	Timestamp []byte         `json:"timestamp,omitzero"`
}

// move brings a staged blob to its place. Keep leaves the staged one there, for a further move.
type move struct {
	Digest digest.SHA256 `json:"digest"`
	To     string        `json:"to"`
	Keep   bool          `json:"keep,omitzero"`
}

// change is what a caller wants to be public.
type change struct {
	targets []move     // staged already, in their order
	docs    []document // not staged yet, in their order
	roles   map[string]trust.File
	roots   [][]byte // all of them
	root    trust.Root
	top     []byte // the top-level targets that will be public
	product string // whose role is checked as a device would; empty: none
	role    []byte
}

type document struct {
	name string
	data []byte
}

func stagedName(d digest.SHA256) string { return stagingDir + d.Hex() }

// change makes the change that plan wants, for the state that is public then; plan is asked again if somebody else was
// faster. It ends when plan wants nothing any more.
func (r *Repository) change(ctx context.Context, plan func(cur *state) (*change, error)) error {
	for range attempts {
		old, err := r.finish(ctx)
		if err != nil {
			return err
		}
		cur, err := r.load(ctx)
		if err != nil && !errors.Is(err, ErrNone) {
			return err
		}
		c, err := plan(cur)
		if err != nil || c == nil {
			return err
		}
		rec, err := r.prepare(ctx, cur, c)
		if err != nil {
			return err
		}
		err = fault.Around(ctx, "repository.record", func() error { return r.blobs.Swap(ctx, recordName, old, rec) })
		if err != nil && !errors.Is(err, blob.ErrChanged) {
			return err
		}
	}
	return refusal.New(refusal.Busy, "repository", "others published %d times while this change was tried", attempts).Do("try again")
}

// recover finishes what a killed process has begun.
func (r *Repository) recover(ctx context.Context) error {
	_, err := r.finish(ctx)
	return err
}

// prepare signs snapshot and timestamp for a change, checks the result as a device would see it, stages every document,
// and returns the record.
func (r *Repository) prepare(ctx context.Context, cur *state, c *change) ([]byte, error) {
	now := r.opt.Now().UTC()
	snapshot := trust.Snapshot{Version: 1, Expires: now.Add(r.opt.Expiry), Roles: map[string]trust.File{}}
	timestamp := trust.Timestamp{Version: 1, Issued: now, Expires: now.Add(r.opt.Expiry)}
	rec := record{Moves: c.targets}
	if cur != nil {
		behind := cur.timestamp.Issued.Sub(now)
		if behind > maxSkew {
			return nil, refusal.New(refusal.Expired, "clock of this machine", "it says %s, and metadata was signed here at %s",
				now.Format(time.RFC3339), cur.timestamp.Issued.Format(time.RFC3339)).Do("set the clock")
		}
		if behind > 0 {
			timestamp.Issued = cur.timestamp.Issued
		}
		base := digest.Of(cur.stamp)
		rec.Base = &base
		snapshot.Version, timestamp.Version = cur.snapshot.Version+1, cur.timestamp.Version+1
		maps.Copy(snapshot.Roles, cur.snapshot.Roles)
	}
	maps.Copy(snapshot.Roles, c.roles)
	if err := r.checkOnline(c.root); err != nil {
		return nil, err
	}
	snapDoc, err := signed(ctx, r.online)(trust.NewSnapshot(snapshot))
	if err != nil {
		return nil, err
	}
	timestamp.File = trust.FileOf(snapshot.Version, snapDoc)
	if rec.Timestamp, err = signed(ctx, r.online)(trust.NewTimestamp(timestamp)); err != nil {
		return nil, err
	}
	if err := c.check(now, rec.Timestamp, snapDoc); err != nil {
		return nil, err
	}
	docs := c.docs
	docs = append(docs, document{trust.MetadataName(trust.SnapshotRole, snapshot.Version), snapDoc})
	for _, n := range newRoots(cur, c) {
		docs = append(docs, document{trust.MetadataName(trust.RootRole, int64(n)), c.roots[n-1]})
	}
	for _, d := range docs {
		sum := digest.Of(d.data)
		if err := r.blobs.Create(ctx, stagedName(sum), bytes.NewReader(d.data)); err != nil {
			return nil, err
		}
		rec.Moves = append(rec.Moves, move{Digest: sum, To: d.name})
	}
	keepShared(rec.Moves)
	data, err := json.Marshal(rec, json.Deterministic(true))
	if err == nil && len(data) > maxRecord {
		err = fmt.Errorf("a change of %d bytes, at most %d are allowed", len(data), maxRecord)
	}
	return data, err
}

func newRoots(cur *state, c *change) (versions []int) {
	have := 0
	if cur != nil {
		have = len(cur.roots)
	}
	for n := have + 1; n <= len(c.roots); n++ {
		versions = append(versions, n)
	}
	return versions
}

// keepShared marks all moves but the last of bytes that go to several places.
func keepShared(moves []move) {
	last := map[digest.SHA256]int{}
	for i := range moves {
		if before, ok := last[moves[i].Digest]; ok {
			moves[before].Keep = true
		}
		last[moves[i].Digest] = i
	}
}

// checkOnline refuses to sign with a key that devices do not expect.
func (r *Repository) checkOnline(root trust.Root) error {
	if r.online == nil {
		return refusal.New(refusal.Key, "online key", "none was given, and snapshot and timestamp must be signed")
	}
	if r.online.PublicKey().Equal(root.Online) {
		return nil
	}
	have, err := sign.Fingerprint(r.online.PublicKey())
	if err != nil {
		return err
	}
	want, err := sign.Fingerprint(root.Online)
	if err != nil {
		return err
	}
	return refusal.New(refusal.Key, "online key", "%s is not the key that root version %d names, %s", have[:12], root.Version, want[:12]).
		Do("use the key that the root names, or publish a root that names this one")
}

// check walks the way of a device from the first root to the new state.
func (c *change) check(now time.Time, timestamp, snapshot []byte) error {
	set, err := trust.NewSet(c.roots[0], now)
	if err != nil {
		return err
	}
	for _, doc := range c.roots[1:] {
		if err := set.AddRoot(doc); err != nil {
			return err
		}
	}
	if _, err := set.SetTimestamp(timestamp); err != nil {
		return err
	}
	if err := set.SetSnapshot(snapshot); err != nil {
		return err
	}
	if err := set.SetTargets(c.top); err != nil {
		return err
	}
	if c.product == "" {
		return nil
	}
	return set.SetProduct(c.product, c.role)
}

func signed(ctx context.Context, by sign.Signer) func(doc []byte, err error) ([]byte, error) {
	return func(doc []byte, err error) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		return trust.Sign(ctx, doc, by)
	}
}

// finish makes the change that the record describes, if there is one. It returns what the record holds then; nil if there
// never was one. Several processes may finish the same record at once.
func (r *Repository) finish(ctx context.Context) ([]byte, error) {
	for {
		data, err := blob.ReadAll(ctx, r.blobs, recordName, maxRecord)
		if errors.Is(err, blob.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		var rec record
		if err := json.Unmarshal(data, &rec, json.RejectUnknownMembers(true)); err != nil {
			return nil, refusal.New(refusal.Malformed, "record of an unfinished change", "%w", err)
		}
		if rec.Done != nil {
			return data, nil
		}
		if err := r.make(ctx, rec); err != nil {
			return nil, err
		}
		sum := digest.Of(data)
		done, err := json.Marshal(record{Done: &sum})
		if err != nil {
			return nil, err
		}
		err = fault.Around(ctx, "repository.clear", func() error { return r.blobs.Swap(ctx, recordName, data, done) })
		if !errors.Is(err, blob.ErrChanged) {
			return done, err
		}
		// Somebody else has finished it, and may have begun the next one.
	}
}

// make moves every piece to its place and swaps the timestamp. If a piece is in neither place, the change can never be
// made, and since the timestamp does not name it, nothing of it is public: then it is given up.
func (r *Repository) make(ctx context.Context, rec record) error {
	name := trust.MetadataName(trust.TimestampRole, 0)
	base, err := blob.ReadAll(ctx, r.blobs, name, trust.MaxTimestamp)
	if errors.Is(err, blob.ErrNotExist) {
		base, err = nil, nil
	}
	if err != nil {
		return err
	}
	if (base == nil) != (rec.Base == nil) || base != nil && digest.Of(base) != *rec.Base {
		return nil // swapped before
	}
	for _, m := range rec.Moves {
		err := fault.Around(ctx, "repository.move."+point(m.To), func() error { return r.move(ctx, m) })
		if errors.Is(err, blob.ErrNotExist) {
			r.opt.Log.WarnContext(ctx, "an unfinished change is given up", "reason", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	err = fault.Around(ctx, "repository.timestamp", func() error { return r.blobs.Swap(ctx, name, base, rec.Timestamp) })
	if errors.Is(err, blob.ErrChanged) {
		return nil // somebody else has just swapped it
	}
	return err
}

// point is the stable part of a blob name: without the digest of its content.
func point(name string) string {
	path, ok := strings.CutPrefix(name, "targets/")
	if !ok {
		return name
	}
	at := strings.LastIndexByte(path, '/') + 1
	_, base, _ := strings.Cut(path[at:], ".")
	return path[:at] + base
}

func (r *Repository) move(ctx context.Context, m move) error {
	from := stagedName(m.Digest)
	err := r.place(ctx, m, from)
	if errors.Is(err, blob.ErrExists) && strings.HasPrefix(m.To, "metadata/") {
		err = r.replace(ctx, m, from)
	}
	if errors.Is(err, blob.ErrNotExist) {
		if _, serr := r.blobs.Stat(ctx, m.To); serr == nil {
			return nil // moved before
		}
	}
	return err
}

func (r *Repository) place(ctx context.Context, m move, from string) error {
	if !m.Keep {
		return r.blobs.Rename(ctx, from, m.To)
	}
	src, _, err := r.blobs.Open(ctx, from, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	return r.blobs.Create(ctx, m.To, src)
}

// replace puts a document in the place of another one that is not public, since no snapshot has named that version yet:
// left by a copy that was brought back, or by a change that was given up.
func (r *Repository) replace(ctx context.Context, m move, from string) error {
	new, err := blob.ReadAll(ctx, r.blobs, from, trust.MaxRole)
	if err != nil {
		return err
	}
	old, err := blob.ReadAll(ctx, r.blobs, m.To, trust.MaxRole)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, new) {
		// If somebody else was faster, this changes nothing: he brought the same bytes.
		if err := r.blobs.Swap(ctx, m.To, old, new); err != nil && !errors.Is(err, blob.ErrChanged) {
			return err
		}
	}
	return r.blobs.Delete(ctx, from)
}
