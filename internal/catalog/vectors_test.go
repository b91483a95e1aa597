// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
	"github.com/pawl-project/pawl/internal/version"
)

var update = flag.Bool("update", false, "write vectors that are missing; those that exist are kept for ever")

const vectors = "../../docs/spec/testdata/repository"

// vector is described in docs/spec/repository.md, section "Vectors".
type vector struct {
	About   string            `json:"about"`
	Expect  refusal.Class     `json:"expect"`
	Now     time.Time         `json:"now"`
	Product string            `json:"product"`
	Release string            `json:"release,omitempty"`
	Root    string            `json:"root"`
	Earlier map[string]string `json:"earlier,omitempty"`
	Source  map[string]string `json:"source"`

	Time     time.Time      `json:"time,omitzero"`
	Recovery trust.Recovery `json:"recovery,omitzero"`
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	files, err := filepath.Glob(filepath.Join(vectors, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v vector
			dec := json.NewDecoder(bytes.NewReader(text))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&v); err != nil {
				t.Fatal(err)
			}
			v.run(t)
		})
	}
}

func (v vector) run(t *testing.T) {
	cache := catalog.Memory{}
	opt := catalog.Options{Now: v.Now, Root: []byte(v.Root), Products: []string{v.Product}}
	if v.Earlier != nil {
		if _, err := catalog.Refresh(t.Context(), texts(v.Earlier), cache, opt); err != nil {
			t.Fatalf("the earlier state: %v", err)
		}
	}
	c, err := catalog.Refresh(t.Context(), texts(v.Source), cache, opt)
	if err == nil && v.Release != "" {
		err = errors.New("the release is not listed")
		for _, l := range c.Releases(v.Product) {
			if l.Version.String() == v.Release {
				_, err = c.Release(t.Context(), l)
			}
		}
	}
	if refusal.Of(err) != v.Expect || v.Expect == "" && err != nil {
		t.Fatalf("got %v, want class %q", err, v.Expect)
	}
	if err != nil {
		return
	}
	if !v.Time.IsZero() && !c.Time().Equal(v.Time) {
		t.Errorf("time %s, want %s", c.Time(), v.Time)
	}
	if got := c.Recovery(v.Product); got != v.Recovery {
		t.Errorf("recovery %+v, want %+v", got, v.Recovery)
	}
}

func texts(m map[string]string) *source {
	s := &source{blobs: map[string][]byte{}}
	for name, text := range m {
		s.blobs[name] = []byte(text)
	}
	return s
}

// writeVectors makes each vector with keys of its own, which are then thrown away.
func writeVectors(t *testing.T) {
	t.Helper()
	write := func(name, about string, expect refusal.Class, do func(v *vector, r *trusttest.Repo)) {
		file := filepath.Join(vectors, name+".json")
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			return
		}
		r := trusttest.New(t, "greeter")
		release(t, r, "greeter", "1.0.1", nil)
		v := vector{About: about, Expect: expect, Now: r.Now, Product: "greeter", Root: string(r.Doc(trust.RootRole, 1))}
		do(&v, r)
		if v.Source == nil {
			v.Source = copyTexts(r.Blobs)
		}
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", " ")
		if err := errors.Join(enc.Encode(v), os.MkdirAll(vectors, 0o755), os.WriteFile(file, out.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	remember := func(v *vector, r *trusttest.Repo) { v.Earlier = copyTexts(r.Blobs) }
	current := func(r *trusttest.Repo) { r.PushSnapshot(r.Online); r.PushTimestamp(r.Online) }

	write("good", "An honest repository; the release can be read.", "", func(v *vector, _ *trusttest.Repo) { v.Release = "1.0.1" })
	write("good-root-rotated", "Three roots, each with one key replaced; the first has expired.", "", func(v *vector, r *trusttest.Repo) {
		for range 2 {
			r.Now = r.Now.AddDate(1, 6, 0)
			old := r.RootKeys
			r.RootKeys = append(append([]trusttest.Key{}, old[1:]...), trusttest.NewKey(t))
			r.Root.Keys = trusttest.Public(r.RootKeys...)
			r.PushRoot(append(old, r.RootKeys...)...)
		}
		r.Publish()
		v.Now, v.Release = r.Now, "1.0.1"
	})
	write("good-clock-behind", "The clock says 1970: the time of issue is used.", "", func(v *vector, r *trusttest.Repo) {
		v.Now, v.Time = time.Unix(0, 0).UTC(), r.Now
	})
	write("good-recovery", "The root holders have lowered the floor.", "", func(v *vector, r *trusttest.Repo) {
		v.Recovery = trust.Recovery{Epoch: 2, Floor: 1}
		r.Targets.Products[0].Recovery = v.Recovery
		r.Publish()
	})
	write("good-key-retired", "The statement is signed by a release key that was retired in good standing.", "", func(v *vector, r *trusttest.Repo) {
		replaceReleaseKey(t, r, true)
		v.Release = "1.0.1"
	})
	write("good-fast-forward-recovered", "A thief has signed absurd versions with the old online key; a new root names another.", "", func(v *vector, r *trusttest.Repo) {
		stamp, snap := r.Stamp.Version, r.Snapshot.Version
		r.Stamp.Version, r.Snapshot.Version = 1<<40, 1<<40
		current(r)
		remember(v, r)
		r.Stamp.Version, r.Snapshot.Version = stamp, snap
		r.Online = trusttest.NewKey(t)
		r.Root.Online = r.Online.PublicKey()
		r.PushRoot(r.RootKeys...)
		current(r)
	})
	write("signature-timestamp-unsigned", "The timestamp carries no signature.", refusal.Signature, func(_ *vector, r *trusttest.Repo) { r.PushTimestamp() })
	write("signature-root-below-threshold", "One of the two required root keys has signed the next root.", refusal.Signature, func(_ *vector, r *trusttest.Repo) {
		r.PushRoot(r.RootKeys[0])
	})
	write("signature-root-new-keys-only", "The next root is signed by its own keys and not by the old ones.", refusal.Signature, func(_ *vector, r *trusttest.Repo) {
		thief := trusttest.NewKeys(t, 3)
		r.Root.Keys = trusttest.Public(thief...)
		r.PushRoot(thief...)
	})
	write("signature-targets-key-signs-twice", "One root key has signed the targets; its signature stands under the name of another key too.", refusal.Signature, func(_ *vector, r *trusttest.Repo) {
		r.PushTargets(r.RootKeys[0])
		name := trust.MetadataName(trust.TargetsRole, r.Targets.Version)
		doc := string(r.Blobs[name])
		id, err := trust.KeyID(r.RootKeys[0].PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		other, err := trust.KeyID(r.RootKeys[1].PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		from, to := strings.Index(doc, "[")+1, strings.Index(doc, "]")
		doc = doc[:to] + "," + strings.Replace(doc[from:to], id, other, 1) + doc[to:]
		r.Blobs[name] = []byte(doc)
		r.Snapshot.Roles[trust.TargetsRole] = trust.FileOf(r.Targets.Version, []byte(doc))
		current(r)
	})
	write("signature-thief-with-online-key", "The online key has signed the role of a product.", refusal.Signature, func(_ *vector, r *trusttest.Repo) {
		r.PushProduct("greeter", r.Online)
		current(r)
	})
	write("signature-statement-by-evidence-key", "The statement is signed by the evidence key of the product.", refusal.Signature, func(v *vector, r *trusttest.Repo) {
		text, err := example(r).Encode()
		if err != nil {
			t.Fatal(err)
		}
		signed, err := bundle.SignStatement(t.Context(), r.Products["greeter"].Evidence, text)
		if err != nil {
			t.Fatal(err)
		}
		r.Add("greeter", "1.0.1", trust.IndexOf(example(r)), map[string][]byte{trust.StatementName: signed})
		r.Publish()
		v.Release = "1.0.1"
	})
	write("signature-key-replaced", "The statement is signed by a release key that was replaced and not retired.", refusal.Signature, func(v *vector, r *trusttest.Repo) {
		replaceReleaseKey(t, r, false)
		v.Release = "1.0.1"
	})
	write("rollback-timestamp", "The device knows a newer timestamp.", refusal.Rollback, func(v *vector, r *trusttest.Repo) {
		v.Source = copyTexts(r.Blobs)
		r.PushTimestamp(r.Online)
		remember(v, r)
	})
	write("rollback-product", "A new snapshot names an older version of the product's role.", refusal.Rollback, func(v *vector, r *trusttest.Repo) {
		remember(v, r)
		r.Snapshot.Roles["greeter"] = trust.FileOf(1, r.Doc("greeter", 1))
		current(r)
	})
	write("rollback-product-after-new-online-key", "The same, after a new online key has made the device forget its snapshot.", refusal.Rollback, func(v *vector, r *trusttest.Repo) {
		remember(v, r)
		r.Online = trusttest.NewKey(t)
		r.Root.Online = r.Online.PublicKey()
		r.PushRoot(r.RootKeys...)
		r.Snapshot.Roles["greeter"] = trust.FileOf(1, r.Doc("greeter", 1))
		current(r)
	})
	write("rollback-product-removed", "A new snapshot lacks the product.", refusal.Rollback, func(v *vector, r *trusttest.Repo) {
		remember(v, r)
		delete(r.Snapshot.Roles, "greeter")
		current(r)
	})
	write("expired-timestamp", "Nobody has renewed the timestamp for a month, or somebody holds it back.", refusal.Expired, func(v *vector, r *trusttest.Repo) {
		v.Now = r.Now.AddDate(0, 1, 0)
	})
	write("expired-by-time-of-issue", "The clock says 1970, and the snapshot had expired when the timestamp was issued.", refusal.Expired, func(v *vector, r *trusttest.Repo) {
		v.Now = time.Unix(0, 0).UTC()
		r.Now = r.Now.AddDate(0, 0, 8)
		r.PushTimestamp(r.Online)
	})
	write("mixed-snapshot", "The snapshot is a genuine one, of an earlier state.", refusal.Mixed, func(_ *vector, r *trusttest.Repo) {
		r.Blobs[trust.MetadataName(trust.SnapshotRole, 2)] = r.Doc(trust.SnapshotRole, 1)
	})
	write("mixed-foreign-path", "The role of the product names a target of another product.", refusal.Mixed, func(_ *vector, r *trusttest.Repo) {
		doc := bytes.Replace(r.Doc("greeter", 2), []byte(`"greeter/1.0.1/greeter"`), []byte(`"gateway/1.0.1/greeter"`), 1)
		doc, err := trust.Unsigned(doc)
		if err != nil {
			t.Fatal(err)
		}
		r.Blobs[trust.MetadataName("greeter", 2)] = trusttest.Sign(t, doc, r.Products["greeter"].Release)
		r.Snapshot.Roles["greeter"] = trust.FileOf(2, r.Doc("greeter", 2))
		current(r)
	})
	write("mixed-index", "The index says another security version than the statement.", refusal.Mixed, func(v *vector, r *trusttest.Repo) {
		release(t, r, "greeter", "1.0.2", func(_ *statement.Release, x *trust.Index) { x.SecurityVersion = 9 })
		v.Release = "1.0.2"
	})
	write("mixed-held-back", "The snapshot names a role that is not there.", refusal.Mixed, func(_ *vector, r *trusttest.Repo) {
		delete(r.Blobs, trust.MetadataName("greeter", 2))
	})
	write("digest-role", "One byte of the product's role was changed.", refusal.Digest, func(_ *vector, r *trusttest.Repo) {
		name := trust.MetadataName("greeter", 2)
		r.Blobs[name] = bytes.Replace(r.Blobs[name], []byte(`"length":18`), []byte(`"length":19`), 1)
	})
	write("malformed-null", "A null where the snapshot should be described; some readers crash.", refusal.Malformed, func(_ *vector, r *trusttest.Repo) {
		r.Blobs["metadata/timestamp.json"] = bytes.Replace(r.Blobs["metadata/timestamp.json"], []byte(`"meta":{`), []byte(`"meta":{"x.json":null,`), 1)
	})
	write("malformed-key-listed-twice", "The next root lists one key twice to meet its threshold.", refusal.Malformed, func(_ *vector, r *trusttest.Repo) {
		id, err := trust.KeyID(r.RootKeys[0].PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		r.PushRoot()
		doc := bytes.Replace(r.Doc(trust.RootRole, 2), []byte(`"keyids":["`+id+`"`), []byte(`"keyids":["`+id+`","`+id+`"`), 1)
		r.Blobs[trust.MetadataName(trust.RootRole, 2)] = trusttest.Sign(t, doc, r.RootKeys...)
	})
}

// example is what release makes of version 1.0.1.
func example(r *trusttest.Repo) statement.Release {
	n, file := version.MustParse("1.0.1"), []byte("the bytes of 1.0.1")
	return statement.Release{
		Product: "greeter", Channel: statement.File, Version: n, Line: n.Line(), Kind: statement.Security, SecurityVersion: 2,
		Hardware: []string{"rev-a"}, Issued: r.Now, Artifacts: []statement.Artifact{{Name: "greeter", Digest: digest.SetOf(file), Size: int64(len(file))}},
	}
}

func replaceReleaseKey(t *testing.T, r *trusttest.Repo, retire bool) {
	t.Helper()
	p := &r.Targets.Products[0]
	if retire {
		p.Former = p.Release
	}
	r.Products["greeter"].Release = trusttest.NewKey(t)
	p.Release = trusttest.Public(r.Products["greeter"].Release)
	r.Publish()
}

func copyTexts(blobs map[string][]byte) map[string]string {
	out := map[string]string{}
	for name, data := range maps.All(blobs) {
		out[name] = string(data)
	}
	return out
}
