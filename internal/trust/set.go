// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
)

// Set is the trusted metadata of one repository while a device refreshes: a state machine that is fed in the order root,
// timestamp, snapshot, targets, products (TUF specification, section 5). Every method verifies before it changes
// anything; after a refusal the set is as it was. One exception: a verified timestamp that has expired is refused and
// remembered, so that nothing older is taken after it.
//
// A Set is not safe for concurrent use.
type Set struct {
	tuf  *trustedmetadata.TrustedMetadata
	now  time.Time // of the caller
	late bool      // now was earlier than a signed time of issue

	roles     map[string]Authority // of the trusted root
	timestamp Timestamp            // zero: none yet
	snapshot  Snapshot             // final one; zero: none yet
	targets   Targets
	files     map[string]Target // of the top-level targets
	products  map[string]Product
	trusted   map[string]Role
	// known is the highest version of targets and products that this device has verified before.
	known map[string]int64
}

// NewSet begins with a root that the caller trusts: delivered with the device, or the newest one that it has verified.
// It may have expired; what counts is the newest root.
func NewSet(root []byte, now time.Time) (*Set, error) {
	d, roles, err := readRoot(root)
	if err != nil {
		return nil, err
	}
	tuf, err := trustedmetadata.New(root)
	if err != nil {
		return nil, explainSignatures(RootRole, d.tuf.Signed.Version, roles[RootRole], d.envelope, err).
			Do("take the root from the publisher again, by a way that you trust")
	}
	tuf.RefTime = now.UTC() // go-tuf asked the clock; the caller's time is the one that counts
	return &Set{
		tuf: tuf, now: now.UTC(), roles: roles,
		products: map[string]Product{}, trusted: map[string]Role{}, known: map[string]int64{},
	}, nil
}

func readRoot(data []byte) (document[metadata.RootType], map[string]Authority, error) {
	if err := tooLarge(RootRole, data, MaxRoot); err != nil {
		return document[metadata.RootType]{}, nil, err
	}
	d, err := parse[metadata.RootType](data)
	if err != nil {
		return d, nil, malformed(RootRole, "%w", err)
	}
	roles, err := rootAuthorities(d.tuf)
	if err != nil {
		return d, nil, malformed(RootRole, "%w", err)
	}
	return d, roles, nil
}

// RootVersion returns the version of the trusted root. The next one is MetadataName(RootRole, RootVersion()+1).
func (s *Set) RootVersion() int64 { return s.tuf.Root.Signed.Version }

// Time returns the time by which expiry is judged: the caller's, or the newest signed time of issue if that is later.
func (s *Set) Time() time.Time { return s.tuf.RefTime }

// Late reports whether the caller's time was earlier than a signed time of issue, and by how much.
func (s *Set) Late() time.Duration {
	if !s.late {
		return 0
	}
	return s.tuf.RefTime.Sub(s.now)
}

// AddRoot takes the next root: version n+1, signed by a threshold of the keys of version n and of its own.
func (s *Set) AddRoot(data []byte) error {
	d, roles, err := readRoot(data)
	if err != nil {
		return err
	}
	have, got := s.RootVersion(), d.tuf.Signed.Version
	if _, err := s.tuf.UpdateRoot(data); err != nil {
		switch {
		case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
			for _, a := range []struct {
				keys Authority
				of   int64
			}{{s.roles[RootRole], have}, {roles[RootRole], got}} {
				if sigs, e := a.keys.verify(d.envelope); e != nil || !sigs.Met() {
					return refusal.New(refusal.Signature, fmt.Sprintf("%s, version %d", about(RootRole), got),
						"signature threshold not met: %d of %d keys of root version %d have signed", len(sigs.Signed), a.keys.Threshold, a.of).
						Do("the publisher must sign the new root with enough of the old and of the new root keys")
				}
			}
		case got < have+1:
			return rollback(RootRole, got, have)
		case got > have+1:
			return mixed(RootRole, "version %d is offered where version %d must come next", got, have+1)
		}
		return unexpected(RootRole, err)
	}
	s.roles = roles
	return nil
}

// SetTimestamp takes a timestamp from a source. newer is false if it is the version that Recall had brought.
func (s *Set) SetTimestamp(data []byte) (newer bool, err error) {
	before := s.timestamp.Version
	if err := s.addTimestamp(data); err != nil {
		return false, err
	}
	if err := s.checkTime(TimestampRole, s.timestamp.Version, s.timestamp.Expires); err != nil {
		return false, err
	}
	return s.timestamp.Version > before, nil
}

// addTimestamp verifies a timestamp and moves time forward to its time of issue. An expired one is taken too: what it
// says must never be undone.
func (s *Set) addTimestamp(data []byte) error {
	if err := s.checkTime(RootRole, s.RootVersion(), s.tuf.Root.Signed.Expires); err != nil {
		return err
	}
	if err := tooLarge(TimestampRole, data, MaxTimestamp); err != nil {
		return err
	}
	d, err := parse[metadata.TimestampType](data)
	if err != nil {
		return malformed(TimestampRole, "%w", err)
	}
	in, err := readTimestamp(d.tuf)
	if err != nil {
		return malformed(TimestampRole, "%w", err)
	}
	_, err = s.tuf.UpdateTimestamp(data)
	switch {
	case err == nil, errors.Is(err, &metadata.ErrExpiredMetadata{}):
		s.timestamp = in
	case errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		return nil // the one that is known stays
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		return explainSignatures(TimestampRole, in.Version, s.roles[TimestampRole], d.envelope, err)
	case in.Version < s.timestamp.Version:
		return rollback(TimestampRole, in.Version, s.timestamp.Version)
	case in.File.Version < s.timestamp.File.Version:
		return rollback(SnapshotRole, in.File.Version, s.timestamp.File.Version)
	default:
		return unexpected(TimestampRole, err)
	}
	if in.Issued.After(s.tuf.RefTime) {
		s.tuf.RefTime, s.late = in.Issued.UTC(), true
		return s.checkTime(RootRole, s.RootVersion(), s.tuf.Root.Signed.Expires)
	}
	return nil
}

// SnapshotFile returns what the timestamp says about the snapshot.
func (s *Set) SnapshotFile() File { return s.timestamp.File }

// SetSnapshot takes the snapshot that the timestamp names.
func (s *Set) SetSnapshot(data []byte) error {
	d, in, err := s.readSnapshot(data)
	if err != nil {
		return err
	}
	want := s.timestamp.File
	if err := want.check(data); err != nil {
		return s.notNamed(SnapshotRole, "timestamp", s.roles[SnapshotRole], d.envelope, err)
	}
	old := s.tuf.Snapshot
	if _, err := s.tuf.UpdateSnapshot(data, false); err != nil {
		s.tuf.Snapshot = old // go-tuf keeps one that has expired, for comparison with a later one
		switch {
		case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
			return explainSignatures(SnapshotRole, in.Version, s.roles[SnapshotRole], d.envelope, err)
		case in.Version != want.Version:
			return mixed(SnapshotRole, "version %d, the timestamp names version %d", in.Version, want.Version)
		case s.tuf.RefTime.After(in.Expires):
			return s.checkTime(SnapshotRole, in.Version, in.Expires)
		case old != nil:
			for _, name := range slices.Sorted(maps.Keys(old.Signed.Meta)) {
				role, meta := strings.TrimSuffix(name, ".json"), old.Signed.Meta[name]
				now, ok := in.Roles[role]
				if !ok {
					return refusal.New(refusal.Rollback, about(role), "snapshot version %d lacks it, an earlier snapshot had version %d", in.Version, meta.Version).
						Do("ask the publisher: a product that was published once stays in every later snapshot")
				}
				if now.Version < meta.Version {
					return rollback(role, now.Version, meta.Version)
				}
			}
		}
		return unexpected(SnapshotRole, err)
	}
	s.snapshot = in
	return nil
}

func (s *Set) readSnapshot(data []byte) (document[metadata.SnapshotType], Snapshot, error) {
	if s.timestamp.Version == 0 {
		return document[metadata.SnapshotType]{}, Snapshot{}, errors.New("snapshot before timestamp")
	}
	if err := tooLarge(SnapshotRole, data, MaxSnapshot); err != nil {
		return document[metadata.SnapshotType]{}, Snapshot{}, err
	}
	d, err := parse[metadata.SnapshotType](data)
	if err != nil {
		return d, Snapshot{}, malformed(SnapshotRole, "%w", err)
	}
	in, err := readSnapshot(d.tuf)
	if err != nil {
		return d, Snapshot{}, malformed(SnapshotRole, "%w", err)
	}
	return d, in, nil
}

// RoleFile returns what the snapshot says about the targets role or a product; false if it says nothing: the product has
// not been published yet.
func (s *Set) RoleFile(role string) (File, bool) {
	f, ok := s.snapshot.Roles[role]
	return f, ok
}

// SetTargets takes the top-level targets that the snapshot names.
func (s *Set) SetTargets(data []byte) error {
	if s.snapshot.Version == 0 {
		return errors.New("targets before snapshot")
	}
	e, in, files, err := readTargets(data)
	if err != nil {
		return err
	}
	by, want := s.roles[TargetsRole], s.snapshot.Roles[TargetsRole]
	if err := want.check(data); err != nil {
		return s.notNamed(TargetsRole, "snapshot", by, e, err)
	}
	sigs, err := by.verify(e)
	if err != nil {
		return malformed(TargetsRole, "%w", err)
	}
	switch {
	case !sigs.Met():
		return below(TargetsRole, in.Version, sigs)
	case in.Version < s.known[TargetsRole]:
		return rollback(TargetsRole, in.Version, s.known[TargetsRole])
	case in.Version != want.Version:
		return mixed(TargetsRole, "version %d, the snapshot names version %d", in.Version, want.Version)
	}
	if err := s.checkTime(TargetsRole, in.Version, in.Expires); err != nil {
		return err
	}
	s.targets, s.files, s.products = in, files, make(map[string]Product, len(in.Products))
	for _, p := range in.Products {
		s.products[p.Name] = p
	}
	return nil
}

// SetProduct takes the role of a product that the snapshot names.
func (s *Set) SetProduct(product string, data []byte) error {
	want, ok := s.snapshot.Roles[product]
	if !ok {
		return mixed(product, "the snapshot does not name it")
	}
	p, err := s.product(product)
	if err != nil {
		return err
	}
	if err := want.check(data); err != nil {
		e, _, readErr := readRole(product, data)
		if readErr != nil {
			return refusal.New(refusal.Digest, about(product), "%w", err)
		}
		return s.notNamed(product, "snapshot", p.Authority(), e, err)
	}
	r, err := s.VerifyProduct(product, data)
	if err != nil {
		return err
	}
	if r.Version != want.Version {
		return mixed(product, "version %d, the snapshot names version %d", r.Version, want.Version)
	}
	s.trusted[product] = r
	return nil
}

// VerifyProduct checks everything about the role of a product but what the snapshot says: signatures by the keys of the
// trusted targets, expiry, version, paths. It changes nothing. A server asks this before it publishes.
func (s *Set) VerifyProduct(product string, data []byte) (Role, error) {
	p, err := s.product(product)
	if err != nil {
		return Role{}, err
	}
	e, r, err := readRole(product, data)
	if err != nil {
		return Role{}, err
	}
	// The bytes as they stand are what was signed: NewRole writes the canonical form.
	sigs, err := p.Authority().check(e.Signatures, e.Signed)
	if err != nil {
		return Role{}, malformed(product, "%w", err)
	}
	if !sigs.Met() {
		return Role{}, below(product, r.Version, sigs)
	}
	if r.Version < s.known[product] {
		return Role{}, rollback(product, r.Version, s.known[product])
	}
	if err := s.checkTime(product, r.Version, r.Expires); err != nil {
		return Role{}, err
	}
	return r, nil
}

// Recall brings back what this device had verified in an earlier refresh, so that nothing older is taken than that. It
// reports whether the document still counts: one that the keys of today do not verify is no memory, which is how a
// publisher recovers after a stolen key has signed absurdly high versions (TUF specification, section 5.3.11).
//
// The order is that of the set: a timestamp before SetTimestamp, a snapshot between SetTimestamp and SetSnapshot, and so
// on. A product is recalled after SetTargets.
func (s *Set) Recall(role string, data []byte) bool {
	switch role {
	case TimestampRole:
		return s.addTimestamp(data) == nil
	case SnapshotRole:
		if _, _, err := s.readSnapshot(data); err != nil {
			return false
		}
		before := s.tuf.Snapshot
		_, err := s.tuf.UpdateSnapshot(data, true)
		return err == nil || s.tuf.Snapshot != before // kept for comparison although it has expired or is not the newest
	case TargetsRole:
		e, in, _, err := readTargets(data)
		if err != nil {
			return false
		}
		sigs, err := s.roles[TargetsRole].verify(e)
		if err != nil || !sigs.Met() {
			return false
		}
		s.known[TargetsRole] = max(s.known[TargetsRole], in.Version)
		return true
	default:
		p, ok := s.products[role]
		if !ok {
			return false
		}
		e, r, err := readRole(role, data)
		if err != nil {
			return false
		}
		sigs, err := p.Authority().check(e.Signatures, e.Signed)
		if err != nil || !sigs.Met() {
			return false
		}
		s.known[role] = max(s.known[role], r.Version)
		return true
	}
}

func (s *Set) product(name string) (Product, error) {
	p, ok := s.products[name]
	if !ok {
		return Product{}, refusal.New(refusal.WrongTarget, about(name), "the publisher has no product of this name").
			Do("products: %s", strings.Join(s.Products(), ", "))
	}
	return p, nil
}

// Products returns the names of the products to which the trusted targets delegate, in order.
func (s *Set) Products() []string { return slices.Sorted(maps.Keys(s.products)) }

// Product returns what the offline keys say about a product.
func (s *Set) Product(name string) (Product, bool) {
	p, ok := s.products[name]
	return p, ok
}

// Role returns the verified role of a product; false before SetProduct.
func (s *Set) Role(product string) (Role, bool) {
	r, ok := s.trusted[product]
	return r, ok
}

// Target returns what verified metadata says about a path.
func (s *Set) Target(path string) (Target, bool) {
	if strings.HasPrefix(path, keysDir) {
		t, ok := s.files[path]
		return t, ok
	}
	product, _, _ := strings.Cut(path, "/")
	t, ok := s.trusted[product].Targets[path]
	return t, ok
}

// Expires returns when the first of the documents that this set stands on expires: the latest moment of the next
// successful refresh.
func (s *Set) Expires() time.Time {
	first := s.tuf.Root.Signed.Expires
	for _, t := range []time.Time{s.timestamp.Expires, s.snapshot.Expires, s.targets.Expires} {
		if !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// check compares bytes with what another document says about them.
func (f File) check(data []byte) error {
	if int64(len(data)) != f.Size {
		return fmt.Errorf("%w: %d bytes where %d are named", digest.ErrSize, len(data), f.Size)
	}
	if got := digest.Of(data); got != f.Digest {
		return fmt.Errorf("%w: named %s, got %s", digest.ErrMismatch, f.Digest.Short(), got.Short())
	}
	return nil
}

// Names reports whether f names exactly these bytes.
func (f File) Names(data []byte) bool { return f.check(data) == nil }

func (a Authority) verify(e envelope) (Signatures, error) {
	payload, err := e.payload()
	if err != nil {
		return Signatures{}, err
	}
	return a.check(e.Signatures, payload)
}

func (s *Set) checkTime(role string, version int64, expires time.Time) error {
	if !s.tuf.RefTime.After(expires) {
		return nil
	}
	e := refusal.New(refusal.Expired, fmt.Sprintf("%s, version %d", about(role), version),
		"it was valid until %s, which is %s ago by the time in use, %s", stamp(expires), ago(s.tuf.RefTime.Sub(expires)), stamp(s.tuf.RefTime))
	switch {
	case s.late:
		return e.Do("the clock here is behind a time that the publisher has signed, so that time is used; the publisher must renew the metadata, or somebody keeps it back")
	case role == TimestampRole || role == SnapshotRole:
		return e.Do("check the clock here; if it is right, somebody keeps newer metadata back, or the server has stopped to renew it")
	}
	return e.Do("check the clock here; if it is right, the publisher must renew this metadata with its offline keys")
}

func ago(d time.Duration) string {
	if days := int(d / (24 * time.Hour)); days >= 1 {
		return fmt.Sprintf("%d d", days)
	}
	return d.Truncate(time.Second).String()
}

func rollback(role string, got, have int64) *refusal.Error {
	return refusal.New(refusal.Rollback, about(role), "version %d is offered, version %d is known", got, have).
		Do("somebody offers old metadata, or the server was restored from an old copy; ask the publisher")
}

func mixed(role, format string, args ...any) *refusal.Error {
	return refusal.New(refusal.Mixed, about(role), format, args...)
}

// unexpected is for errors of go-tuf that the checks before it should have caught.
func unexpected(role string, err error) *refusal.Error { return malformed(role, "%w", err) }

func below(role string, version int64, sigs Signatures) *refusal.Error {
	words := "signature threshold not met: %d of %d"
	if len(sigs.Invalid) > 0 {
		words += fmt.Sprintf(" (%d signatures are wrong)", len(sigs.Invalid))
	}
	return refusal.New(refusal.Signature, fmt.Sprintf("%s, version %d", about(role), version), words, len(sigs.Signed), sigs.Threshold).
		Do("do not use this source; if the publisher has changed its keys, it must publish the new root first")
}

// explainSignatures says how many keys have signed where go-tuf has said that they are too few.
func explainSignatures(role string, version int64, a Authority, e envelope, err error) *refusal.Error {
	sigs, countErr := a.verify(e)
	if countErr != nil || sigs.Met() {
		return unexpected(role, err)
	}
	return below(role, version, sigs)
}

// notNamed explains bytes that are not the ones that the parent names: damaged ones, or a genuine document of another
// state of the repository.
func (s *Set) notNamed(role, parent string, a Authority, e envelope, cause error) *refusal.Error {
	if sigs, err := a.verify(e); err == nil && sigs.Met() {
		return mixed(role, "a genuine document, but not the one that the %s names: %w", parent, cause).
			Do("somebody mixes two states of the repository, or the server is being changed by hand; try again")
	}
	return refusal.New(refusal.Digest, about(role), "not the document that the %s names: %w", parent, cause).
		Do("the download is damaged or was changed on its way; try again")
}
