// SPDX-License-Identifier: Apache-2.0

// Package trusttest builds small repositories in memory, with every key at hand, for tests of the packages that read or
// write metadata. An attack is a repository built with the wrong key, an old document or a changed byte.
package trusttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// Now is the time at which test repositories are built.
var Now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// Key is a private key in memory. It implements sign.Signer.
type Key struct{ private *ecdsa.PrivateKey }

// NewKey returns a new key.
func NewKey(t testing.TB) Key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Key{k}
}

// NewKeys returns n new keys.
func NewKeys(t testing.TB, n int) []Key {
	t.Helper()
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = NewKey(t)
	}
	return keys
}

// PublicKey returns the public half.
func (k Key) PublicKey() *ecdsa.PublicKey { return &k.private.PublicKey }

// SignDigest signs.
func (k Key) SignDigest(_ context.Context, d digest.SHA256) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.private, d[:])
}

// Public returns the public halves.
func Public(keys ...Key) []*ecdsa.PublicKey {
	out := make([]*ecdsa.PublicKey, len(keys))
	for i, k := range keys {
		out[i] = k.PublicKey()
	}
	return out
}

// Sign signs doc with each key.
func Sign(t testing.TB, doc []byte, keys ...Key) []byte {
	t.Helper()
	for _, k := range keys {
		var err error
		if doc, err = trust.Sign(t.Context(), doc, k); err != nil {
			t.Fatal(err)
		}
	}
	return doc
}

// Product is a product with its keys and its role.
type Product struct {
	Release, Evidence Key
	Role              trust.Role
}

// Repo is a repository. Change a field, call the Push method of what has changed and of everything after it in the order
// root, targets, product, snapshot, timestamp, or Publish for all but the root.
type Repo struct {
	t        testing.TB
	RootKeys []Key
	Online   Key
	Root     trust.Root
	Targets  trust.Targets
	Products map[string]*Product
	Snapshot trust.Snapshot
	Stamp    trust.Timestamp
	// Blobs is what a server would serve, by blob name.
	Blobs map[string][]byte
	Now   time.Time
}

// New returns a published repository with three root keys, a threshold of two, and the products, all of them empty.
func New(t testing.TB, products ...string) *Repo {
	t.Helper()
	r := &Repo{t: t, RootKeys: NewKeys(t, 3), Online: NewKey(t), Products: map[string]*Product{}, Blobs: map[string][]byte{}, Now: Now}
	r.Root = trust.Root{Keys: Public(r.RootKeys...), Threshold: 2, Online: r.Online.PublicKey()}
	r.Snapshot.Roles = map[string]trust.File{}
	for _, name := range products {
		p := &Product{Release: NewKey(t), Evidence: NewKey(t), Role: trust.Role{Product: name, Targets: map[string]trust.Target{}}}
		r.Products[name] = p
		r.Targets.Products = append(r.Targets.Products, trust.Product{
			Name: name, Release: Public(p.Release), Threshold: 1, Evidence: Public(p.Evidence),
		})
	}
	r.PushRoot(r.RootKeys...)
	r.Publish()
	return r
}

// Add puts a release into a product's role, to be published by Publish. The file that has the name of the statement
// carries the index entry.
func (r *Repo) Add(product, v string, index *trust.Index, files map[string][]byte) {
	r.t.Helper()
	for name, data := range files {
		path := trust.TargetPath(product, version.MustParse(v), name)
		target := trust.Target{Size: int64(len(data)), Digest: digest.Of(data)}
		if name == trust.StatementName {
			target.Index = index
		}
		r.Products[product].Role.Targets[path] = target
		r.Blobs[trust.BlobName(path, target.Digest)] = data
	}
}

// Publish pushes targets, every product, snapshot and timestamp.
func (r *Repo) Publish() {
	r.t.Helper()
	r.PushTargets(r.RootKeys...)
	for name := range r.Products {
		r.PushProduct(name, r.Products[name].Release)
	}
	r.PushSnapshot(r.Online)
	r.PushTimestamp(r.Online)
}

// PushRoot writes the next root, signed by the keys.
func (r *Repo) PushRoot(by ...Key) {
	r.t.Helper()
	r.Root.Version, r.Root.Expires = r.Root.Version+1, r.Now.AddDate(2, 0, 0)
	r.put(trust.RootRole, r.Root.Version, r.doc(trust.NewRoot(r.Root)), by)
}

// PushTargets writes the next top-level targets and enters them into the snapshot to come.
func (r *Repo) PushTargets(by ...Key) {
	r.t.Helper()
	r.Targets.Version, r.Targets.Expires = r.Targets.Version+1, r.Now.AddDate(1, 0, 0)
	doc := r.put(trust.TargetsRole, r.Targets.Version, r.doc(trust.NewTargets(r.Targets)), by)
	r.Snapshot.Roles[trust.TargetsRole] = trust.FileOf(r.Targets.Version, doc)
	files, err := trust.Contents(doc)
	if err != nil {
		r.t.Fatal(err)
	}
	maps.Copy(r.Blobs, files)
}

// PushProduct writes the next role of a product and enters it into the snapshot to come.
func (r *Repo) PushProduct(name string, by ...Key) {
	r.t.Helper()
	role := &r.Products[name].Role
	role.Version, role.Expires = role.Version+1, r.Now.AddDate(1, 0, 0)
	doc := r.put(name, role.Version, r.doc(trust.NewRole(*role)), by)
	r.Snapshot.Roles[name] = trust.FileOf(role.Version, doc)
}

// PushSnapshot writes the next snapshot and enters it into the timestamp to come.
func (r *Repo) PushSnapshot(by ...Key) {
	r.t.Helper()
	r.Snapshot.Version, r.Snapshot.Expires = r.Snapshot.Version+1, r.Now.AddDate(0, 0, 7)
	doc := r.put(trust.SnapshotRole, r.Snapshot.Version, r.doc(trust.NewSnapshot(r.Snapshot)), by)
	r.Stamp.File = trust.FileOf(r.Snapshot.Version, doc)
}

// PushTimestamp writes the next timestamp.
func (r *Repo) PushTimestamp(by ...Key) {
	r.t.Helper()
	r.Stamp.Version, r.Stamp.Issued, r.Stamp.Expires = r.Stamp.Version+1, r.Now, r.Now.AddDate(0, 0, 7)
	r.put(trust.TimestampRole, r.Stamp.Version, r.doc(trust.NewTimestamp(r.Stamp)), by)
}

// Doc returns a document as it is served.
func (r *Repo) Doc(role string, version int64) []byte {
	return r.Blobs[trust.MetadataName(role, version)]
}

func (r *Repo) put(role string, version int64, doc []byte, by []Key) []byte {
	r.t.Helper()
	doc = Sign(r.t, doc, by...)
	r.Blobs[trust.MetadataName(role, version)] = doc
	return doc
}

func (r *Repo) doc(doc []byte, err error) []byte {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return doc
}
