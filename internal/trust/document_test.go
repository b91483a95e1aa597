// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
)

func TestRoundTrip(t *testing.T) {
	keys := trusttest.NewKeys(t, 9)
	expires := trusttest.Now.AddDate(1, 0, 0)
	root := trust.Root{Version: 3, Expires: expires, Keys: trusttest.Public(keys[:3]...), Threshold: 2, Online: keys[3].PublicKey()}
	doc := must(trust.NewRoot(root))(t)
	if got := must(trust.ParseRoot(doc))(t); !reflect.DeepEqual(got, root) {
		t.Errorf("got  %+v\nwant %+v", got, root)
	}
	evidence := trusttest.Public(keys[5:8]...)
	targets := trust.Targets{Version: 4, Expires: expires, Products: []trust.Product{
		{Name: "zeta", Release: trusttest.Public(keys[0], keys[1]), Threshold: 2, Former: trusttest.Public(keys[2]), Evidence: evidence,
			Recovery: trust.Recovery{Epoch: 2, Floor: 7}},
		{Name: "alpha", Release: trusttest.Public(keys[8]), Threshold: 1},
	}}
	doc = must(trust.NewTargets(targets))(t)
	got := must(trust.ParseTargets(doc))(t)
	// The newest evidence key comes first, the others in the order of their names.
	if !got.Products[0].Evidence[0].Equal(evidence[0]) || len(got.Products[0].Evidence) != 3 {
		t.Error("order of evidence keys")
	}
	again := must(trust.NewTargets(got))(t)
	if !bytes.Equal(again, doc) {
		t.Errorf("%s\n%s", doc, again)
	}
	files := must(trust.Contents(doc))(t)
	if len(files) != 2+1+3+1+1 {
		t.Error(len(files))
	}
	for name, content := range files {
		if !strings.Contains(name, digest.Of(content).Hex()) || !strings.HasPrefix(name, "targets/keys/") {
			t.Error(name)
		}
	}
	role := trust.Role{Product: "alpha", Version: 5, Expires: expires, Targets: map[string]trust.Target{
		"alpha/1.0.1/release.sigstore.json": {Size: 3, Digest: digest.Of([]byte("abc")), Index: index("1.0.1")},
		"alpha/1.0.1/alpha.bin":             {Size: 1 << 40, Digest: digest.Of([]byte("def"))},
	}}
	if got := must(trust.ParseRole("alpha", must(trust.NewRole(role))(t)))(t); !reflect.DeepEqual(got, role) {
		t.Errorf("got  %+v\nwant %+v", got, role)
	}
	snapshot := trust.Snapshot{Version: 6, Expires: expires, Roles: map[string]trust.File{"targets": trust.FileOf(4, doc), "alpha": trust.FileOf(5, doc)}}
	doc = must(trust.NewSnapshot(snapshot))(t)
	if got := must(trust.ParseSnapshot(doc))(t); !reflect.DeepEqual(got, snapshot) {
		t.Errorf("got  %+v\nwant %+v", got, snapshot)
	}
	timestamp := trust.Timestamp{Version: 7, Issued: trusttest.Now, Expires: trusttest.Now.AddDate(0, 0, 7), File: trust.FileOf(6, doc)}
	doc = must(trust.NewTimestamp(timestamp))(t)
	if got := must(trust.ParseTimestamp(doc))(t); !reflect.DeepEqual(got, timestamp) {
		t.Errorf("got  %+v\nwant %+v", got, timestamp)
	}
	head := must(trust.Describe(trusttest.Sign(t, doc, keys[0])))(t)
	id := must(trust.KeyID(keys[0].PublicKey()))(t)
	if want := (trust.Head{Type: "timestamp", Version: 7, Issued: timestamp.Issued, Expires: timestamp.Expires, KeyIDs: []string{id}}); !reflect.DeepEqual(head, want) {
		t.Errorf("%+v", head)
	}
}

func TestKeyID(t *testing.T) {
	key := trusttest.NewKey(t).PublicKey()
	theirs := must(must(metadata.KeyFromPublicKey(key))(t).ID())(t)
	if ours := must(trust.KeyID(key))(t); ours != theirs {
		t.Errorf("got %s, go-tuf says %s", ours, theirs)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.KeyID(&other.PublicKey); !errors.Is(err, sign.ErrUnsupportedKey) {
		t.Error(err)
	}
}

// TestSignatures: two people sign copies of a draft; the copies are brought together, and a new signature of the same
// key takes the place of the old one.
func TestSignatures(t *testing.T) {
	keys := trusttest.NewKeys(t, 4)
	doc := must(trust.NewRoot(trust.Root{Version: 1, Expires: trusttest.Now, Keys: trusttest.Public(keys[:3]...), Threshold: 2, Online: keys[3].PublicKey()}))(t)
	by := trust.Authority{Keys: trusttest.Public(keys[:3]...), Threshold: 2}
	a, b := trusttest.Sign(t, doc, keys[0]), trusttest.Sign(t, doc, keys[1])
	if got := must(by.Check(a))(t); got.Met() || len(got.Signed) != 1 || len(got.Missing) != 2 {
		t.Errorf("%+v", got)
	}
	both := must(trust.Merge(a, b))(t)
	if got := must(by.Check(both))(t); !got.Met() || len(got.Signed) != 2 || !got.Missing[0].Equal(keys[2].PublicKey()) {
		t.Errorf("%+v", got)
	}
	if h := must(trust.Describe(trusttest.Sign(t, both, keys[0], keys[1])))(t); len(h.KeyIDs) != 2 {
		t.Error(h.KeyIDs)
	}
	if bare := must(trust.Unsigned(both))(t); !bytes.Equal(bare, doc) {
		t.Errorf("%s\n%s", bare, doc)
	}
	other := bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1)
	if _, err := trust.Merge(a, other); err == nil {
		t.Error("brought two different documents together")
	}
	if got := must(by.Check(other))(t); len(got.Invalid) != 1 || got.Met() {
		t.Errorf("a signature over other bytes: %+v", got)
	}
	if (trust.Signatures{}).Met() {
		t.Error("a threshold of zero is met")
	}
}

// TestProductRulesAreThoseOfTUF compares our rules for the role of a product with go-tuf's, document by document: what
// ours take, go-tuf takes; what go-tuf refuses, ours refuse. Ours may refuse more.
func TestProductRulesAreThoseOfTUF(t *testing.T) {
	r := trusttest.New(t, "gateway", "greeter")
	r.Add("greeter", "1.0.1", index("1.0.1"), map[string][]byte{trust.StatementName: []byte("x"), "greeter": []byte("bytes")})
	keys := trusttest.NewKeys(t, 3)
	for i, p := range r.Targets.Products {
		if p.Name == "greeter" {
			r.Targets.Products[i].Release, r.Targets.Products[i].Threshold = trusttest.Public(keys...), 2
		}
	}
	r.Products["greeter"].Release = keys[0]
	r.Publish()
	role := r.Products["greeter"].Role
	unsigned := must(trust.NewRole(role))(t)
	expired := role
	expired.Expires = r.Now.Add(-time.Second)
	spaced := bytes.ReplaceAll(unsigned, []byte(`,"`), []byte(`, "`))
	for _, test := range []struct {
		name        string
		doc         []byte
		version     int64
		ours, gotuf bool
	}{
		{"two of three", trusttest.Sign(t, unsigned, keys[0], keys[2]), 2, true, true},
		{"all", trusttest.Sign(t, unsigned, keys...), 2, true, true},
		{"one of three", trusttest.Sign(t, unsigned, keys[0]), 2, false, false},
		{"one and a stranger", trusttest.Sign(t, unsigned, keys[0], r.Online), 2, false, false},
		{"none", unsigned, 2, false, false},
		{"another version", trusttest.Sign(t, unsigned, keys...), 3, false, false},
		{"expired", trusttest.Sign(t, must(trust.NewRole(expired))(t), keys...), 2, false, false},
		{"signed, then changed", bytes.Replace(trusttest.Sign(t, unsigned, keys...), []byte("1.0.1/greeter"), []byte("1.0.1/gretter"), 1), 2, false, false},
		{"signed, then spaced", bytes.ReplaceAll(trusttest.Sign(t, unsigned, keys...), []byte(`,"`), []byte(`, "`)), 2, false, true},
		{"spaced, then signed", trusttest.Sign(t, spaced, keys...), 2, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.Snapshot.Roles["greeter"] = trust.FileOf(test.version, test.doc)
			r.Blobs[trust.MetadataName("greeter", test.version)] = test.doc
			r.PushSnapshot(r.Online)
			r.PushTimestamp(r.Online)

			_, ours := load(r, 1, nil, r.Now)
			if (ours == nil) != test.ours {
				t.Errorf("ours: %v", ours)
			}
			tuf, err := trustedmetadata.New(r.Doc(trust.RootRole, 1))
			if err != nil {
				t.Fatal(err)
			}
			tuf.RefTime = r.Now
			_, err1 := tuf.UpdateTimestamp(r.Doc(trust.TimestampRole, 0))
			_, err2 := tuf.UpdateSnapshot(r.Doc(trust.SnapshotRole, r.Snapshot.Version), false)
			_, err3 := tuf.UpdateTargets(r.Doc(trust.TargetsRole, 2))
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			_, err = tuf.UpdateDelegatedTargets(test.doc, "greeter", "targets")
			if (err == nil) != test.gotuf {
				t.Errorf("go-tuf: %v", err)
			}
		})
	}
}

// TestNull: go-tuf 2.4.2 crashes on these documents, before it looks at a signature.
func TestNull(t *testing.T) {
	const head = `{"signatures":[],"signed":{"spec_version":"1.0.31","version":1,"expires":"2030-01-01T00:00:00Z",`
	_, err := trust.ParseTimestamp([]byte(head + `"_type":"timestamp","meta":{"snapshot.json":null}}}`))
	expect(t, err, refusal.Malformed, "null at /meta/snapshot.json")
	_, err = trust.ParseTargets([]byte(head + `"_type":"targets","targets":{"x":null}}}`))
	expect(t, err, refusal.Malformed)
	_, err = trust.ParseRole("greeter", []byte(head+`"_type":"targets","targets":{"greeter/1.0.0/x":null}}}`))
	expect(t, err, refusal.Malformed)
}

// TestTargetsRulesAreThoseOfTUF is the same comparison for the top-level targets.
func TestTargetsRulesAreThoseOfTUF(t *testing.T) {
	r := trusttest.New(t, "greeter")
	next := r.Targets
	next.Version = 2
	unsigned := must(trust.NewTargets(next))(t)
	next.Expires = r.Now.Add(-time.Second)
	expired := must(trust.NewTargets(next))(t)
	for _, test := range []struct {
		name    string
		doc     []byte
		version int64
		want    bool
	}{
		{"two of three", trusttest.Sign(t, unsigned, r.RootKeys[0], r.RootKeys[2]), 2, true},
		{"one of three", trusttest.Sign(t, unsigned, r.RootKeys[0]), 2, false},
		{"one and the online key", trusttest.Sign(t, unsigned, r.RootKeys[0], r.Online), 2, false},
		{"another version", trusttest.Sign(t, unsigned, r.RootKeys...), 3, false},
		{"expired", trusttest.Sign(t, expired, r.RootKeys...), 2, false},
		{"signed, then changed", bytes.Replace(trusttest.Sign(t, unsigned, r.RootKeys...), []byte(`"threshold":1`), []byte(`"threshold": 1,"x":1`), 1), 2, false},
		{"signed, then spaced", bytes.ReplaceAll(trusttest.Sign(t, unsigned, r.RootKeys...), []byte(`,"`), []byte(`, "`)), 2, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.Snapshot.Roles["targets"] = trust.FileOf(test.version, test.doc)
			r.Blobs[trust.MetadataName("targets", test.version)] = test.doc
			r.PushSnapshot(r.Online)
			r.PushTimestamp(r.Online)
			if _, err := load(r, 1, nil, r.Now); (err == nil) != test.want {
				t.Errorf("ours: %v", err)
			}
			tuf, err := trustedmetadata.New(r.Doc(trust.RootRole, 1))
			if err != nil {
				t.Fatal(err)
			}
			tuf.RefTime = r.Now
			_, err1 := tuf.UpdateTimestamp(r.Doc(trust.TimestampRole, 0))
			_, err2 := tuf.UpdateSnapshot(r.Doc(trust.SnapshotRole, r.Snapshot.Version), false)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if _, err := tuf.UpdateTargets(test.doc); (err == nil) != test.want {
				t.Errorf("go-tuf: %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	r := trusttest.New(f, "greeter")
	r.Add("greeter", "1.0.1", index("1.0.1"), map[string][]byte{trust.StatementName: []byte("x"), "greeter": []byte("bytes")})
	r.Publish()
	for _, doc := range remember(r) {
		f.Add(doc)
	}
	f.Add(r.Doc(trust.RootRole, 1))
	f.Fuzz(func(t *testing.T, doc []byte) {
		// Whatever is read can be written, and says the same again. Nothing crashes.
		if v, err := trust.ParseRoot(doc); err == nil {
			again(t, v, trust.NewRoot, trust.ParseRoot)
		}
		if v, err := trust.ParseTargets(doc); err == nil {
			again(t, v, trust.NewTargets, trust.ParseTargets)
		}
		if v, err := trust.ParseSnapshot(doc); err == nil {
			again(t, v, trust.NewSnapshot, trust.ParseSnapshot)
		}
		if v, err := trust.ParseTimestamp(doc); err == nil {
			again(t, v, trust.NewTimestamp, trust.ParseTimestamp)
		}
		if v, err := trust.ParseRole("greeter", doc); err == nil {
			again(t, v, trust.NewRole, func(b []byte) (trust.Role, error) { return trust.ParseRole("greeter", b) })
		}
		_, _ = trust.Describe(doc)
		_, _ = trust.Merge(doc, doc)
	})
}

func again[T any](t *testing.T, v T, encode func(T) ([]byte, error), parse func([]byte) (T, error)) {
	doc, err := encode(v)
	if err != nil {
		if strings.Contains(err.Error(), "online key is also a root key") || strings.Contains(err.Error(), "days are allowed") {
			return
		}
		t.Fatalf("read, and cannot be written: %v: %+v", err, v)
	}
	w, err := parse(doc)
	if err != nil {
		t.Fatalf("written, and cannot be read: %v", err)
	}
	twice, err := encode(w)
	if err != nil || !bytes.Equal(doc, twice) {
		t.Fatalf("does not survive: %v\n%s\n%s", err, doc, twice)
	}
}

// FuzzSet feeds one document at every step of a refresh: no crash, and nothing that no key has signed is taken.
func FuzzSet(f *testing.F) {
	r := trusttest.New(f, "greeter")
	for _, doc := range remember(r) {
		f.Add(doc)
	}
	f.Add(r.Doc(trust.RootRole, 1))
	f.Fuzz(func(t *testing.T, doc []byte) {
		feed := map[string]func(*trust.Set) error{
			trust.RootRole: func(s *trust.Set) error { return s.AddRoot(doc) },
			trust.TimestampRole: func(s *trust.Set) error {
				s.Recall(trust.TimestampRole, doc)
				_, err := s.SetTimestamp(doc)
				return err
			},
			trust.SnapshotRole: func(s *trust.Set) error { s.Recall(trust.SnapshotRole, doc); return s.SetSnapshot(doc) },
			trust.TargetsRole:  func(s *trust.Set) error { s.Recall(trust.TargetsRole, doc); return s.SetTargets(doc) },
			"greeter":          func(s *trust.Set) error { s.Recall("greeter", doc); return s.SetProduct("greeter", doc) },
		}
		s, err := trust.NewSet(r.Doc(trust.RootRole, 1), r.Now)
		if err != nil {
			t.Fatal(err)
		}
		for _, role := range []string{trust.RootRole, trust.TimestampRole, trust.SnapshotRole, trust.TargetsRole, "greeter"} {
			honest := r.Doc(role, 1)
			if err := feed[role](s); err == nil && !samePayload(doc, honest) {
				t.Fatalf("%s: took %s", role, doc)
			} else if err != nil && refusal.Of(err) == "" {
				t.Fatalf("%s: not a refusal: %v", role, err)
			}
			switch role {
			case trust.TimestampRole:
				_, err = s.SetTimestamp(honest)
			case trust.SnapshotRole:
				err = s.SetSnapshot(honest)
			case trust.TargetsRole:
				err = s.SetTargets(honest)
			case "greeter":
				err = s.SetProduct("greeter", honest)
			default:
				err = nil
			}
			if err != nil {
				t.Fatalf("%s: refused the honest document after a hostile one: %v", role, err)
			}
		}
	})
}

// samePayload reports whether b says what a says, maybe in another spelling.
func samePayload(a, b []byte) bool {
	_, err := trust.Merge(a, b)
	return err == nil
}
