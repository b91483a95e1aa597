// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
	"github.com/pawl-project/pawl/internal/version"
)

// load walks a repository as a device does: from the first root on, with what it remembers (nil: nothing), at a time.
func load(r *trusttest.Repo, first int64, memory map[string][]byte, now time.Time) (*trust.Set, error) {
	s, err := trust.NewSet(r.Doc(trust.RootRole, first), now)
	if err != nil {
		return nil, err
	}
	for {
		doc, ok := r.Blobs[trust.MetadataName(trust.RootRole, s.RootVersion()+1)]
		if !ok {
			break
		}
		if err := s.AddRoot(doc); err != nil {
			return s, err
		}
	}
	s.Recall(trust.TimestampRole, memory[trust.TimestampRole])
	if _, err := s.SetTimestamp(r.Doc(trust.TimestampRole, 0)); err != nil {
		return s, err
	}
	s.Recall(trust.SnapshotRole, memory[trust.SnapshotRole])
	if err := s.SetSnapshot(r.Doc(trust.SnapshotRole, s.SnapshotFile().Version)); err != nil {
		return s, err
	}
	s.Recall(trust.TargetsRole, memory[trust.TargetsRole])
	file, _ := s.RoleFile(trust.TargetsRole)
	if err := s.SetTargets(r.Doc(trust.TargetsRole, file.Version)); err != nil {
		return s, err
	}
	for _, name := range s.Products() {
		s.Recall(name, memory[name])
		file, _ := s.RoleFile(name)
		if err := s.SetProduct(name, r.Doc(name, file.Version)); err != nil {
			return s, err
		}
	}
	return s, nil
}

// remember returns what a device keeps of the present state.
func remember(r *trusttest.Repo) map[string][]byte {
	out := map[string][]byte{
		trust.TimestampRole: r.Doc(trust.TimestampRole, 0),
		trust.SnapshotRole:  r.Doc(trust.SnapshotRole, r.Snapshot.Version),
		trust.TargetsRole:   r.Doc(trust.TargetsRole, r.Targets.Version),
	}
	for name, p := range r.Products {
		out[name] = r.Doc(name, p.Role.Version)
	}
	return out
}

func index(v string) *trust.Index {
	n := version.MustParse(v)
	return &trust.Index{Version: n, Line: n.Line(), Kind: statement.Security, SecurityVersion: 2, Hardware: []string{"rev-a"}}
}

// expect fails unless err is a refusal of the class whose text holds all the words.
func expect(t *testing.T, err error, class refusal.Class, words ...string) {
	t.Helper()
	if refusal.Of(err) != class {
		t.Fatalf("got %v, want a refusal of class %q", err, class)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestHonestRepository(t *testing.T) {
	r := trusttest.New(t, "gateway", "greeter")
	r.Add("greeter", "1.0.1", index("1.0.1"), map[string][]byte{trust.StatementName: []byte("x"), "greeter": []byte("bytes")})
	r.Publish()
	s, err := load(r, 1, nil, r.Now)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Products(); fmt.Sprint(got) != "[gateway greeter]" {
		t.Error(got)
	}
	role, ok := s.Role("greeter")
	if !ok || role.Version != 2 || !role.Targets["greeter/1.0.1/release.sigstore.json"].Index.Equal(*index("1.0.1")) {
		t.Errorf("%+v", role)
	}
	if got, ok := s.Target("greeter/1.0.1/greeter"); !ok || got.Digest != digest.Of([]byte("bytes")) || got.Size != 5 {
		t.Errorf("%+v", got)
	}
	p, _ := s.Product("greeter")
	if len(p.Evidence) != 1 || !p.Evidence[0].Equal(r.Products["greeter"].Evidence.PublicKey()) {
		t.Error("evidence key")
	}
	if _, ok := s.Target("keys/greeter/evidence.pub"); !ok {
		t.Error("evidence key is not a target")
	}
	if !s.Expires().Equal(r.Now.AddDate(0, 0, 7)) || s.Late() != 0 {
		t.Error(s.Expires(), s.Late())
	}
	// The same again, with a memory.
	if _, err := load(r, 1, remember(r), r.Now); err != nil {
		t.Fatal(err)
	}
}

// TestAttacks is the table of what a thief, a network attacker or a careless publisher can do. Each attack starts from an
// honest repository of two products that a device knows (memory), does something, and is refused in plain words.
func TestAttacks(t *testing.T) {
	day := 24 * time.Hour
	type state struct {
		*trusttest.Repo
		memory map[string][]byte
		now    time.Time
	}
	for _, test := range []struct {
		name  string
		do    func(t *testing.T, s *state)
		class refusal.Class
		words []string
	}{
		{"unsigned timestamp", func(t *testing.T, s *state) { s.PushTimestamp() },
			refusal.Signature, []string{"timestamp metadata", "0 of 1"}},
		{"unsigned snapshot", func(t *testing.T, s *state) { s.PushSnapshot(); s.PushTimestamp(s.Online) },
			refusal.Signature, []string{"snapshot metadata", "0 of 1"}},
		{"unsigned targets", func(t *testing.T, s *state) { s.PushTargets(); s.PushSnapshot(s.Online); s.PushTimestamp(s.Online) },
			refusal.Signature, []string{"targets metadata", "0 of 2"}},
		{"unsigned product", func(t *testing.T, s *state) {
			s.PushProduct("greeter")
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Signature, []string{"metadata of product greeter", "0 of 1"}},
		{"targets one below threshold", func(t *testing.T, s *state) {
			s.PushTargets(s.RootKeys[0])
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Signature, []string{"targets metadata, version 2", "1 of 2"}},
		{"root one below the old threshold", func(t *testing.T, s *state) { s.PushRoot(s.RootKeys[1]) },
			refusal.Signature, []string{"root metadata, version 2", "1 of 2 keys of root version 1"}},
		{"root signed by the old keys and not by the new", func(t *testing.T, s *state) {
			s.Root.Keys = trusttest.Public(trusttest.NewKeys(t, 3)...)
			s.PushRoot(s.RootKeys...)
		}, refusal.Signature, []string{"root metadata, version 2", "0 of 2 keys of root version 2"}},
		{"root signed by the new keys and not by the old", func(t *testing.T, s *state) {
			thief := trusttest.NewKeys(t, 3)
			s.Root.Keys = trusttest.Public(thief...)
			s.PushRoot(thief...)
		}, refusal.Signature, []string{"0 of 2 keys of root version 1"}},
		{"root skipping a version", func(t *testing.T, s *state) {
			s.Root.Version++
			s.PushRoot(s.RootKeys...)
			s.Blobs[trust.MetadataName(trust.RootRole, 2)] = s.Doc(trust.RootRole, 3)
		}, refusal.Mixed, []string{"version 3 is offered where version 2 must come next"}},
		{"root replayed as the next", func(t *testing.T, s *state) {
			s.Blobs[trust.MetadataName(trust.RootRole, 2)] = s.Doc(trust.RootRole, 1)
		}, refusal.Rollback, []string{"version 1 is offered, version 1 is known"}},
		{"timestamp by a release key", func(t *testing.T, s *state) { s.PushTimestamp(s.Products["greeter"].Release) },
			refusal.Signature, []string{"0 of 1"}},
		{"targets by the online key", func(t *testing.T, s *state) {
			s.PushTargets(s.Online)
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Signature, []string{"targets metadata", "0 of 2"}},
		{"thief with the online key signs a product", func(t *testing.T, s *state) {
			s.Add("greeter", "9.9.9", index("9.9.9"), map[string][]byte{trust.StatementName: []byte("evil")})
			s.PushProduct("greeter", s.Online)
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Signature, []string{"metadata of product greeter", "0 of 1"}},
		{"thief with the key of another product", func(t *testing.T, s *state) {
			s.PushProduct("greeter", s.Products["gateway"].Release)
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Signature, []string{"metadata of product greeter", "0 of 1"}},
		{"evidence key signs the product", func(t *testing.T, s *state) {
			s.PushProduct("greeter", s.Products["greeter"].Evidence)
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Signature, []string{"0 of 1"}},
		{"role of one product served as another", func(t *testing.T, s *state) {
			doc := s.Doc("gateway", 1)
			s.Blobs[trust.MetadataName("greeter", 1)] = doc
			s.Snapshot.Roles["greeter"] = trust.FileOf(1, doc)
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Signature, []string{"metadata of product greeter", "0 of 1"}},
		{"timestamp rolled back", func(t *testing.T, s *state) {
			old := s.Doc(trust.TimestampRole, 0)
			s.PushTimestamp(s.Online)
			s.memory = remember(s.Repo)
			s.Blobs[trust.MetadataName(trust.TimestampRole, 0)] = old
		}, refusal.Rollback, []string{"timestamp metadata", "version 1 is offered, version 2 is known"}},
		{"snapshot rolled back", func(t *testing.T, s *state) {
			old := s.Stamp.File
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
			s.memory = remember(s.Repo)
			s.Stamp.File = old
			s.PushTimestamp(s.Online)
		}, refusal.Rollback, []string{"snapshot metadata", "version 1 is offered, version 2 is known"}},
		{"targets rolled back", func(t *testing.T, s *state) {
			old := s.Snapshot.Roles[trust.TargetsRole]
			s.Publish()
			s.memory = remember(s.Repo)
			s.Snapshot.Roles[trust.TargetsRole] = old
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Rollback, []string{"targets metadata", "version 1 is offered, version 2 is known"}},
		{"product rolled back", func(t *testing.T, s *state) {
			old := s.Snapshot.Roles["greeter"]
			s.Publish()
			s.memory = remember(s.Repo)
			s.Snapshot.Roles["greeter"] = old
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Rollback, []string{"metadata of product greeter", "version 1 is offered, version 2 is known"}},
		{"product rolled back for a device that lost its snapshot", func(t *testing.T, s *state) {
			old := s.Snapshot.Roles["greeter"]
			s.Publish()
			s.memory = map[string][]byte{"greeter": s.Doc("greeter", 2)}
			s.Snapshot.Roles["greeter"] = old
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Rollback, []string{"metadata of product greeter", "version 1 is offered, version 2 is known"}},
		{"targets rolled back for a device that lost its snapshot", func(t *testing.T, s *state) {
			old := s.Snapshot.Roles[trust.TargetsRole]
			s.Publish()
			s.memory = map[string][]byte{trust.TargetsRole: s.Doc(trust.TargetsRole, 2)}
			s.Snapshot.Roles[trust.TargetsRole] = old
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Rollback, []string{"targets metadata", "version 1 is offered, version 2 is known"}},
		{"product removed from the snapshot", func(t *testing.T, s *state) {
			delete(s.Snapshot.Roles, "greeter")
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Rollback, []string{"metadata of product greeter", "snapshot version 2 lacks it"}},
		{"freeze", func(t *testing.T, s *state) { s.now = s.now.Add(8 * day) },
			refusal.Expired, []string{"timestamp metadata, version 1", "valid until 2026-11-30 08:00 UTC", "1 d ago"}},
		{"snapshot expired", func(t *testing.T, s *state) {
			s.Now = s.Now.Add(8 * day)
			s.PushTimestamp(s.Online)
			s.now = s.Now
		}, refusal.Expired, []string{"snapshot metadata, version 1"}},
		{"targets expired", func(t *testing.T, s *state) {
			s.Now = s.Now.Add(366 * day)
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
			s.now = s.Now
		}, refusal.Expired, []string{"targets metadata, version 1"}},
		{"product expired", func(t *testing.T, s *state) {
			s.Now = s.Now.Add(366 * day)
			s.PushTargets(s.RootKeys...)
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
			s.now = s.Now
		}, refusal.Expired, []string{"metadata of product gateway, version 1"}},
		{"root expired", func(t *testing.T, s *state) {
			s.Now = s.Now.Add(3 * 366 * day)
			s.Publish()
			s.now = s.Now
		}, refusal.Expired, []string{"root metadata, version 1"}},
		{"expired snapshot for a device whose clock is years behind", func(t *testing.T, s *state) {
			s.Now = s.Now.Add(8 * day)
			s.PushTimestamp(s.Online)
			s.now = s.now.AddDate(-6, 0, 0)
		}, refusal.Expired, []string{"snapshot metadata", "by the time in use, 2026-12-01 08:00 UTC"}},
		{"expired root for a device whose clock is years behind", func(t *testing.T, s *state) {
			s.Now = s.Now.Add(3 * 366 * day)
			s.PushTimestamp(s.Online)
			s.now = s.now.AddDate(-6, 0, 0)
		}, refusal.Expired, []string{"root metadata, version 1"}},
		{"freeze of a device that remembers a later time of issue", func(t *testing.T, s *state) {
			// Another server of the publisher had shown the device a later time, in a timestamp with a short life.
			s.Now = s.Now.Add(8 * day)
			s.Publish()
			s.memory = remember(s.Repo)
			s.Now = s.Now.Add(-16 * day)
			s.PushTimestamp(s.Online)
			s.now = s.now.AddDate(-6, 0, 0)
		}, refusal.Expired, []string{"timestamp metadata", "by the time in use, 2026-12-01 08:00 UTC"}},
		{"snapshot of another state", func(t *testing.T, s *state) {
			old := s.Doc(trust.SnapshotRole, 1)
			s.Publish()
			s.Blobs[trust.MetadataName(trust.SnapshotRole, 2)] = old
		}, refusal.Mixed, []string{"snapshot metadata", "a genuine document, but not the one that the timestamp names"}},
		{"targets of another state", func(t *testing.T, s *state) {
			old := s.Doc(trust.TargetsRole, 1)
			s.Publish()
			s.Blobs[trust.MetadataName(trust.TargetsRole, 2)] = old
		}, refusal.Mixed, []string{"targets metadata", "genuine"}},
		{"product of another state", func(t *testing.T, s *state) {
			old := s.Doc("greeter", 1)
			s.Publish()
			s.Blobs[trust.MetadataName("greeter", 2)] = old
		}, refusal.Mixed, []string{"metadata of product greeter", "genuine"}},
		{"snapshot names another version of a genuine product", func(t *testing.T, s *state) {
			doc := s.Doc("greeter", 1)
			s.Snapshot.Roles["greeter"] = trust.FileOf(7, doc)
			s.Blobs[trust.MetadataName("greeter", 7)] = doc
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Mixed, []string{"version 1, the snapshot names version 7"}},
		{"timestamp names another version of a genuine snapshot", func(t *testing.T, s *state) {
			doc := s.Doc(trust.SnapshotRole, 1)
			s.Stamp.File.Version = 7
			s.Blobs[trust.MetadataName(trust.SnapshotRole, 7)] = doc
			s.PushTimestamp(s.Online)
		}, refusal.Mixed, []string{"version 1, the timestamp names version 7"}},
		{"snapshot names another version of genuine targets", func(t *testing.T, s *state) {
			doc := s.Doc(trust.TargetsRole, 1)
			s.Snapshot.Roles[trust.TargetsRole] = trust.FileOf(7, doc)
			s.Blobs[trust.MetadataName(trust.TargetsRole, 7)] = doc
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Mixed, []string{"version 1, the snapshot names version 7"}},
		{"product changed in flight", func(t *testing.T, s *state) {
			name := trust.MetadataName("greeter", 1)
			s.Blobs[name] = bytes.Replace(s.Blobs[name], []byte(`"version":1`), []byte(`"version":2`), 1)
		}, refusal.Digest, []string{"metadata of product greeter", "digest does not match"}},
		{"product truncated in flight", func(t *testing.T, s *state) {
			name := trust.MetadataName("greeter", 1)
			s.Blobs[name] = s.Blobs[name][:100]
		}, refusal.Digest, []string{"metadata of product greeter", "100 bytes where"}},
		{"timestamp truncated", func(t *testing.T, s *state) {
			name := trust.MetadataName(trust.TimestampRole, 0)
			s.Blobs[name] = s.Blobs[name][:100]
		}, refusal.Malformed, []string{"timestamp metadata"}},
		{"timestamp huge", func(t *testing.T, s *state) {
			name := trust.MetadataName(trust.TimestampRole, 0)
			s.Blobs[name] = append(s.Blobs[name], bytes.Repeat([]byte(" "), trust.MaxTimestamp)...)
		}, refusal.Malformed, []string{"timestamp metadata", "at most 16384 are allowed"}},
		{"root huge", func(t *testing.T, s *state) {
			s.Blobs[trust.MetadataName(trust.RootRole, 2)] = make([]byte, trust.MaxRoot+1)
		}, refusal.Malformed, []string{"root metadata", "at most 524288 are allowed"}},
		{"product role names another product's files", func(t *testing.T, s *state) {
			// The constructor refuses to write such a role, so the thief, who has the release key, writes it himself.
			name := trust.MetadataName("greeter", 2)
			target := `"gateway/1.0.0/image":{"hashes":{"sha256":"` + strings.Repeat("ab", 32) + `"},"length":1}`
			doc := bytes.Replace(s.Doc("greeter", 1), []byte(`"targets":{}`), []byte(`"targets":{`+target+`}`), 1)
			doc = bytes.Replace(doc, []byte(`"version":1`), []byte(`"version":2`), 1)
			s.Blobs[name] = trusttest.Sign(t, must(trust.Unsigned(doc))(t), s.Products["greeter"].Release)
			s.Snapshot.Roles["greeter"] = trust.FileOf(2, s.Blobs[name])
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Mixed, []string{"metadata of product greeter", `it names target "gateway/1.0.0/image", and may name targets below "greeter/" only`}},
		{"product role delegates", func(t *testing.T, s *state) {
			doc := bytes.Replace(s.Doc("greeter", 1), []byte(`"expires"`), []byte(`"delegations":{"keys":{},"roles":[]},"expires"`), 1)
			s.Blobs[trust.MetadataName("greeter", 1)] = trusttest.Sign(t, must(trust.Unsigned(doc))(t), s.Products["greeter"].Release)
			s.Snapshot.Roles["greeter"] = trust.FileOf(1, s.Doc("greeter", 1))
			s.PushSnapshot(s.Online)
			s.PushTimestamp(s.Online)
		}, refusal.Mixed, []string{"delegates to nobody"}},
		{"fast-forward to a version that no reader keeps", func(t *testing.T, s *state) {
			doc := bytes.Replace(s.Doc(trust.TimestampRole, 0), []byte(`"version":1,`), []byte(`"version":9223372036854775807,`), 1)
			doc = bytes.Replace(doc, []byte(`"version":1}`), []byte(`"version":9223372036854775807}`), 1)
			s.Blobs[trust.MetadataName(trust.TimestampRole, 0)] = trusttest.Sign(t, must(trust.Unsigned(doc))(t), s.Online)
		}, refusal.Malformed, []string{"version 9223372036854775807 is not between 1 and 9007199254740992"}},
		{"timestamp for a thousand years", func(t *testing.T, s *state) {
			doc := bytes.Replace(s.Doc(trust.TimestampRole, 0), []byte(`"expires":"2026`), []byte(`"expires":"3026`), 1)
			s.Blobs[trust.MetadataName(trust.TimestampRole, 0)] = trusttest.Sign(t, must(trust.Unsigned(doc))(t), s.Online)
		}, refusal.Malformed, []string{"at most 90 days are allowed"}},
		{"timestamp without a time of issue", func(t *testing.T, s *state) {
			doc := bytes.Replace(s.Doc(trust.TimestampRole, 0), []byte(`,"x-pawl-issued":"2026-11-23T08:00:00Z"`), nil, 1)
			s.Blobs[trust.MetadataName(trust.TimestampRole, 0)] = trusttest.Sign(t, must(trust.Unsigned(doc))(t), s.Online)
		}, refusal.Malformed, []string{"x-pawl-issued"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := trusttest.New(t, "gateway", "greeter")
			s := &state{Repo: r, memory: remember(r), now: r.Now}
			test.do(t, s)
			_, err := load(r, 1, s.memory, s.now)
			expect(t, err, test.class, test.words...)
		})
	}
}

// must is for constructors inside a table.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestFastForwardRecovery: a thief with the online key has signed absurdly high versions, and the device remembers them.
// A root with a new online key makes it forget them, and nothing else.
func TestFastForwardRecovery(t *testing.T) {
	r := trusttest.New(t, "greeter")
	honest := r.Snapshot.Roles["greeter"]
	r.Stamp.Version, r.Snapshot.Version = 1<<40, 1<<40
	r.Snapshot.Roles["greeter"] = trust.File{Version: 1 << 40, Size: honest.Size, Digest: honest.Digest}
	r.PushSnapshot(r.Online)
	r.PushTimestamp(r.Online)
	memory := remember(r)

	r.Stamp.Version, r.Snapshot.Version = 1, 1
	r.Snapshot.Roles["greeter"] = honest
	r.PushSnapshot(r.Online)
	r.PushTimestamp(r.Online)
	_, err := load(r, 1, memory, r.Now)
	expect(t, err, refusal.Rollback, "version 2 is offered, version 1099511627777 is known")

	r.Online = trusttest.NewKey(t)
	r.Root.Online = r.Online.PublicKey()
	r.PushRoot(r.RootKeys...)
	r.PushSnapshot(r.Online)
	r.PushTimestamp(r.Online)
	if _, err := load(r, 1, memory, r.Now); err != nil {
		t.Fatal(err)
	}
}

// TestOldestRoot: a device that lay in a box for years starts from the very first root. All roots between have expired,
// keys and threshold have changed step by step, and none of the first keys is left.
func TestOldestRoot(t *testing.T) {
	r := trusttest.New(t, "greeter")
	for range 6 {
		r.Now = r.Now.AddDate(2, 1, 0)
		before := r.RootKeys
		r.RootKeys = append(append([]trusttest.Key{}, r.RootKeys[1:]...), trusttest.NewKey(t))
		r.Root.Keys = trusttest.Public(r.RootKeys...)
		r.PushRoot(append(before, r.RootKeys...)...)
	}
	r.Publish()
	s, err := load(r, 1, nil, r.Now)
	if err != nil {
		t.Fatal(err)
	}
	if s.RootVersion() != 7 {
		t.Error(s.RootVersion())
	}
	// Also for the clock that the device was shipped with: it is years behind, so the signed time is used.
	s, err = load(r, 1, nil, trusttest.Now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Late() != r.Now.Sub(trusttest.Now) || !s.Time().Equal(r.Now) {
		t.Error(s.Late(), s.Time())
	}
}

// TestThresholdCountsKeys: a threshold counts distinct keys, whatever a document does to look like more.
func TestThresholdCountsKeys(t *testing.T) {
	r := trusttest.New(t, "greeter")
	root := string(r.Doc(trust.RootRole, 1))
	one := r.RootKeys[0]
	id, err := trust.KeyID(one.PublicKey())
	if err != nil {
		t.Fatal(err)
	}

	t.Run("signing twice", func(t *testing.T) {
		r.PushTargets(one, one, one)
		r.PushSnapshot(r.Online)
		r.PushTimestamp(r.Online)
		_, err := load(r, 1, nil, r.Now)
		expect(t, err, refusal.Signature, "1 of 2")
	})
	t.Run("one signature twice", func(t *testing.T) {
		doc := string(r.Doc(trust.TargetsRole, r.Targets.Version))
		from, to := strings.Index(doc, "[")+1, strings.Index(doc, "]")
		doc = doc[:to] + "," + doc[from:to] + doc[to:]
		_, err := trust.Authority{Keys: r.Root.Keys, Threshold: 2}.Check([]byte(doc))
		if err == nil || !strings.Contains(err.Error(), "two signatures of key "+id) {
			t.Error(err)
		}
	})
	t.Run("key listed twice", func(t *testing.T) {
		bad := r.Root
		bad.Keys = append(bad.Keys, one.PublicKey())
		if _, err := trust.NewRoot(bad); err == nil || !strings.Contains(err.Error(), "stands twice") {
			t.Error(err)
		}
		doc := strings.Replace(root, `"keyids":["`+id+`"`, `"keyids":["`+id+`","`+id+`"`, 1)
		if doc == root {
			t.Fatal("nothing replaced")
		}
		_, err := trust.NewSet([]byte(doc), r.Now)
		expect(t, err, refusal.Malformed, "key "+id+" stands twice")
	})
	t.Run("key under two names", func(t *testing.T) {
		// Another name for the same key, by the other spelling of its type, which go-tuf also reads.
		k, err := metadata.KeyFromPublicKey(one.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		k.Type = metadata.KeyTypeECDSA_SHA2_P256_COMPAT
		alias, err := k.ID()
		if err != nil {
			t.Fatal(err)
		}
		m, err := metadata.Root().FromBytes([]byte(root))
		if err != nil {
			t.Fatal(err)
		}
		m.Signed.Keys[alias] = k
		m.Signed.Roles["root"].KeyIDs = append(m.Signed.Roles["root"].KeyIDs, alias)
		m.ClearSignatures()
		doc, err := m.ToBytes(false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = trust.NewSet(trusttest.Sign(t, doc, one), r.Now)
		expect(t, err, refusal.Malformed, "not an ECDSA P-256 key")
	})
	t.Run("go-tuf counts keys and not names", func(t *testing.T) {
		k, err := metadata.KeyFromPublicKey(one.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		alias := *k
		alias.Type = metadata.KeyTypeECDSA_SHA2_P256_COMPAT
		m := metadata.Root(r.Now)
		for _, key := range []*metadata.Key{k, &alias} {
			if err := m.Signed.AddKey(key, "root"); err != nil {
				t.Fatal(err)
			}
		}
		m.Signed.Roles["root"].Threshold = 2
		doc, err := m.ToBytes(false)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := metadata.Root().FromBytes(trusttest.Sign(t, doc, one))
		if err != nil {
			t.Fatal(err)
		}
		// The same bytes under the other name.
		id, err := alias.ID()
		if err != nil {
			t.Fatal(err)
		}
		signed.Signatures = append(signed.Signatures, metadata.Signature{KeyID: id, Signature: signed.Signatures[0].Signature})
		if err := signed.VerifyDelegate("root", signed); !errors.Is(err, &metadata.ErrUnsignedMetadata{}) {
			t.Errorf("one key met a threshold of two: %v", err)
		}
	})
}

func TestRefusedDocuments(t *testing.T) {
	r := trusttest.New(t, "greeter")
	r.Add("greeter", "1.0.1", index("1.0.1"), map[string][]byte{trust.StatementName: []byte("x"), "greeter": []byte("bytes")})
	r.Publish()
	stampDoc, snapDoc := string(r.Doc(trust.TimestampRole, 0)), string(r.Doc(trust.SnapshotRole, 2))
	targetsDoc, roleDoc, rootDoc := string(r.Doc(trust.TargetsRole, 2)), string(r.Doc("greeter", 2)), string(r.Doc(trust.RootRole, 1))
	parsers := map[string]func([]byte) error{
		"root":      func(b []byte) error { _, err := trust.ParseRoot(b); return err },
		"targets":   func(b []byte) error { _, err := trust.ParseTargets(b); return err },
		"snapshot":  func(b []byte) error { _, err := trust.ParseSnapshot(b); return err },
		"timestamp": func(b []byte) error { _, err := trust.ParseTimestamp(b); return err },
		"greeter":   func(b []byte) error { _, err := trust.ParseRole("greeter", b); return err },
	}
	for name, doc := range map[string]string{"root": rootDoc, "targets": targetsDoc, "snapshot": snapDoc, "timestamp": stampDoc, "greeter": roleDoc} {
		if err := parsers[name]([]byte(doc)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, test := range []struct{ role, name, doc, old, new, words string }{
		{"timestamp", "null file", stampDoc, `"snapshot.json":{`, `"x":null,"snapshot.json":{`, "null"},
		{"timestamp", "no snapshot", stampDoc, `"snapshot.json":{`, `"other.json":{`, "snapshot.json"},
		{"timestamp", "unknown outer member", stampDoc, `"signatures"`, `"Signed":{},"signatures"`, "Signed"},
		{"timestamp", "duplicate member", stampDoc, `"_type"`, `"_type":"root","_type"`, "duplicate"},
		{"timestamp", "fraction", stampDoc, `"_type"`, `"x":1.5,"_type"`, "not an integer"},
		{"timestamp", "other specification", stampDoc, `"1.0.31"`, `"2.0.0"`, "TUF specification"},
		{"timestamp", "wrong type", stampDoc, `"_type":"timestamp"`, `"_type":"snapshot"`, "type"},
		{"timestamp", "nested", stampDoc, `"_type"`, `"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `,"_type"`, "nested deeper than 12"},
		{"timestamp", "sha512 only", stampDoc, `"sha256":`, `"sha512":`, "SHA-256"},
		{"snapshot", "file of a reserved name", snapDoc, `"greeter.json"`, `"timestamp.json"`, "not the metadata of a product"},
		{"snapshot", "file with a path", snapDoc, `"greeter.json"`, `"../x.json"`, "not the metadata of a product"},
		{"snapshot", "negative length", snapDoc, `"length":`, `"length":-`, "bytes are allowed"},
		{"snapshot", "no targets", snapDoc, `"targets.json"`, `"gateway.json"`, "targets.json"},
		{"targets", "target of a product", targetsDoc, `"keys/greeter/release.pub"`, `"greeter/1.0.0/x"`, "its own role"},
		{"targets", "key of no product", targetsDoc, `"keys/greeter/evidence.pub"`, `"keys/gateway/evidence.pub"`, "belong to no product"},
		{"targets", "another release key", targetsDoc, `"keys/greeter/release.pub"`, `"keys/greeter/evidence-000000000000.pub"`, "is not the key that signs the role"},
		{"targets", "unknown use", targetsDoc, `"keys/greeter/evidence.pub"`, `"keys/greeter/readme.txt"`, "unknown use"},
		{"targets", "content changed", targetsDoc, `{"content":"-----BEGIN`, `{"content":"-----BEGAN`, "not the content that its digest names"},
		{"targets", "wider path", targetsDoc, `"greeter/*/*"`, `"*/*/*"`, "terminating"},
		{"targets", "second path", targetsDoc, `"greeter/*/*"`, `"greeter/*/*","gateway/*/*"`, "terminating"},
		{"targets", "not terminating", targetsDoc, `"terminating":true`, `"terminating":false`, "terminating"},
		{"targets", "threshold 0", targetsDoc, `"threshold":1`, `"threshold":0`, "a threshold of 0 with 1 keys"},
		{"targets", "threshold 2", targetsDoc, `"threshold":1`, `"threshold":2`, "a threshold of 2 with 1 keys"},
		{"targets", "reserved product", targetsDoc, `"name":"greeter"`, `"name":"root"`, "reserved"},
		{"root", "threshold 4 of 3", rootDoc, `"threshold":2`, `"threshold":4`, "a threshold of 4 with 3 keys"},
		{"root", "inconsistent snapshots", rootDoc, `"consistent_snapshot":true`, `"consistent_snapshot":false`, "consistent snapshots"},
		{"root", "other role", rootDoc, `"timestamp":{`, `"other":{`, "no role timestamp"},
		{"root", "null role", rootDoc, `"roles":{`, `"roles":{"x":null,`, "null"},
		{"greeter", "climbing", roleDoc, `"greeter/1.0.1/greeter"`, `"greeter/../x"`, "malformed version"},
		{"greeter", "climbing name", roleDoc, `"greeter/1.0.1/greeter"`, `"greeter/1.0.1/.."`, "artifact name"},
		{"greeter", "absolute", roleDoc, `"greeter/1.0.1/greeter"`, `"/etc/passwd"`, "may name targets below"},
		{"greeter", "deeper", roleDoc, `"greeter/1.0.1/greeter"`, `"greeter/1.0.1/a/b"`, "artifact name"},
		{"greeter", "shallow", roleDoc, `"greeter/1.0.1/greeter"`, `"greeter/x"`, "malformed version"},
		{"greeter", "no index", roleDoc, `"pawl"`, `"other"`, "index entry"},
		{"greeter", "index elsewhere", roleDoc, `"greeter/1.0.1/release.sigstore.json"`, `"greeter/1.0.1/other"`, "index entry"},
		{"greeter", "index of another version", roleDoc, `"greeter/1.0.1/release.sigstore.json"`, `"greeter/1.0.2/release.sigstore.json"`, "is indexed as version 1.0.1"},
		{"greeter", "line of another version", roleDoc, `"line":"1.0"`, `"line":"1.1"`, "not on line"},
		{"greeter", "kind", roleDoc, `"kind":"security"`, `"kind":"hotfix"`, "kind"},
		{"greeter", "negative security version", roleDoc, `"securityVersion":2`, `"securityVersion":-2`, "securityVersion"},
		{"greeter", "no length", roleDoc, `"length":5`, `"length":0`, "no size"},
		{"greeter", "no hash", roleDoc, `{"hashes":{"sha256":`, `{"hashes":{"md5":`, "a SHA-256"},
		{"greeter", "two hashes", roleDoc, `{"hashes":{"sha256":`, `{"hashes":{"sha512":"00","sha256":`, "a SHA-256"},
		{"greeter", "null target", roleDoc, `"targets":{`, `"targets":{"greeter/1.0.1/null":null,`, "no size"},
		{"greeter", "no targets", roleDoc, `"targets":{`, `"goals":{`, `no member "targets"`},
	} {
		t.Run(test.role+" "+test.name, func(t *testing.T) {
			doc := strings.Replace(test.doc, test.old, test.new, 1)
			if doc == test.doc {
				t.Fatalf("nothing replaced in %s", test.doc)
			}
			err := parsers[test.role]([]byte(doc))
			if class := refusal.Of(err); class != refusal.Malformed && class != refusal.Mixed {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), test.words) {
				t.Errorf("%q does not say %q", err, test.words)
			}
		})
	}
	t.Run("signatures without end", func(t *testing.T) {
		var sigs []string
		for i := range trust.MaxSignatures + 1 {
			sigs = append(sigs, fmt.Sprintf(`{"keyid":"%d","sig":"00"}`, i))
		}
		from, to := strings.Index(stampDoc, "["), strings.Index(stampDoc, "]")
		doc := stampDoc[:from+1] + strings.Join(sigs, ",") + stampDoc[to:]
		_, err := trust.ParseTimestamp([]byte(doc))
		expect(t, err, refusal.Malformed, "65 signatures, at most 64 are allowed")
	})
	t.Run("products without end", func(t *testing.T) {
		many := r.Targets
		many.Products = nil
		for i := range trust.MaxProducts + 1 {
			p := r.Targets.Products[0]
			p.Name, p.Evidence = fmt.Sprintf("p%d", i), nil
			many.Products = append(many.Products, p)
		}
		_, err := trust.NewTargets(many)
		expect(t, err, refusal.Malformed, "1025 products, at most 1024 are allowed")
	})
	t.Run("keys without end", func(t *testing.T) {
		many := r.Targets
		many.Products = append([]trust.Product{}, many.Products...)
		many.Products[0].Release = trusttest.Public(trusttest.NewKeys(t, trust.MaxKeys+1)...)
		_, err := trust.NewTargets(many)
		expect(t, err, refusal.Malformed, "33 keys, at most 32 are allowed")
	})
	t.Run("targets without end", func(t *testing.T) {
		var targets []string
		for i := range trust.MaxInRole + 1 {
			targets = append(targets, fmt.Sprintf(`"greeter/1.0.0/f%d":{"hashes":{"sha256":%q},"length":1}`, i, digest.Of([]byte("x")).Hex()))
		}
		doc := strings.Replace(roleDoc, `"targets":{`, `"targets":{`+strings.Join(targets, ",")+",", 1)
		_, err := trust.ParseRole("greeter", []byte(doc))
		expect(t, err, refusal.Malformed, "more than 20000 targets")
	})
	t.Run("two releases of one version", func(t *testing.T) {
		bad := r.Products["greeter"].Role
		bad.Targets = map[string]trust.Target{}
		for _, v := range []string{"1.0.0+a", "1.0.0+b"} {
			bad.Targets["greeter/"+v+"/release.sigstore.json"] = trust.Target{Size: 1, Digest: digest.Of([]byte(v)), Index: index(v)}
		}
		_, err := trust.NewRole(bad)
		expect(t, err, refusal.Mixed, "two releases of one version: 1.0.0+a and 1.0.0+b")
	})
	t.Run("release key as evidence key", func(t *testing.T) {
		bad := r.Targets
		bad.Products = append([]trust.Product{}, bad.Products...)
		bad.Products[0].Evidence = bad.Products[0].Release
		_, err := trust.NewTargets(bad)
		expect(t, err, refusal.Malformed, "has two uses")
	})
	t.Run("online key as root key", func(t *testing.T) {
		bad := r.Root
		bad.Online = bad.Keys[0]
		if _, err := trust.NewRoot(bad); err == nil || !strings.Contains(err.Error(), "also a root key") {
			t.Error(err)
		}
	})
}

// TestSilence: go-tuf has a global logger. Nobody sets it, so a device's output is its own.
func TestSilence(t *testing.T) {
	if _, ok := metadata.GetLogger().(metadata.DiscardLogger); !ok {
		t.Fatalf("go-tuf logs to %T", metadata.GetLogger())
	}
	old := os.Stderr
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = write
	defer func() { os.Stderr = old }()
	r := trusttest.New(t, "greeter")
	if _, err := load(r, 1, nil, r.Now); err != nil {
		t.Fatal(err)
	}
	write.Close()
	out := make([]byte, 1)
	if n, _ := read.Read(out); n != 0 {
		t.Error("something was written to stderr")
	}
}
