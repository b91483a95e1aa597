// SPDX-License-Identifier: Apache-2.0

// Package repositorytest is the contract of a publisher as tests, and a maker of small, complete releases for tests. The
// repository itself and its HTTP client run the same tests.
package repositorytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
	"github.com/pawl-project/pawl/internal/version"
)

// Product is the product of the maker.
const Product = "greeter"

// Maker signs releases of one product.
type Maker struct {
	*trusttest.Repo
	t testing.TB
	// Role is what the maker believes to be public.
	Role trust.Role
}

// NewMaker returns a maker with new keys and nothing released.
func NewMaker(t testing.TB) *Maker {
	t.Helper()
	repo := trusttest.New(t, Product)
	return &Maker{Repo: repo, t: t, Role: trust.Role{Product: Product, Targets: map[string]trust.Target{}}}
}

// Roots returns the first root.
func (m *Maker) Roots() [][]byte { return [][]byte{m.Doc(trust.RootRole, 1)} }

// TopTargets returns the first top-level targets.
func (m *Maker) TopTargets() []byte { return m.Doc(trust.TargetsRole, 1) }

// Draft is a release that is signed and not published.
type Draft struct {
	Statement statement.Release
	// Files are the targets of the release, by path.
	Files map[string][]byte
	// Role is the next role, unsigned; its targets may be changed before Sign.
	Role trust.Role
	// SignWith signs the role, SignStatement the statement.
	SignWith      []trusttest.Key
	SignStatement trusttest.Key
}

// Draft makes the next release. change may alter it before anything is signed.
func (m *Maker) Draft(v string, change func(d *Draft)) Draft {
	m.t.Helper()
	number := version.MustParse(v)
	artifact := []byte("bytes of " + v)
	d := Draft{
		Statement: statement.Release{
			Product: Product, Channel: statement.File, Version: number, Line: number.Line(), Kind: statement.Feature, SecurityVersion: 1, Issued: m.Now,
			Artifacts: []statement.Artifact{{Name: Product, Digest: digest.SetOf(artifact), Size: int64(len(artifact))}},
		},
		Files:    map[string][]byte{trust.TargetPath(Product, number, Product): artifact},
		Role:     trust.Role{Product: Product, Version: m.Role.Version + 1, Expires: m.Now.AddDate(1, 0, 0), Targets: maps.Clone(m.Role.Targets)},
		SignWith: []trusttest.Key{m.Products[Product].Release}, SignStatement: m.Products[Product].Release,
	}
	if change != nil {
		change(&d)
	}
	ctx := m.t.Context()
	text, err := d.Statement.Encode()
	m.must(err)
	signed, err := bundle.SignStatement(ctx, d.SignStatement, text)
	m.must(err)
	d.put(number, trust.StatementName, signed)
	blobSig, err := bundle.SignBlob(ctx, d.SignStatement, digest.Of(artifact))
	m.must(err)
	d.put(number, Product+".sigstore.json", blobSig)
	sbom, err := bundle.Attest(ctx, m.Products[Product].Evidence, bundle.Attestation{
		Subject: bundle.Subject{Name: Product, Digest: digest.SetOf(artifact)}, PredicateType: evidence.CycloneDXPredicate, Predicate: []byte(`{"version":"` + v + `"}`),
	})
	m.must(err)
	d.put(number, Product+".sbom.sigstore.json", sbom)
	for path, data := range d.Files {
		target := trust.Target{Size: int64(len(data)), Digest: digest.Of(data)}
		if strings.HasSuffix(path, "/"+trust.StatementName) {
			target.Index = trust.IndexOf(d.Statement)
		}
		d.Role.Targets[path] = target
	}
	return d
}

func (d *Draft) put(v version.Version, name string, data []byte) {
	if path := trust.TargetPath(Product, v, name); d.Files[path] == nil {
		d.Files[path] = data
	}
}

// Sign returns the signed role of a draft.
func (m *Maker) Sign(d Draft) []byte {
	m.t.Helper()
	doc, err := trust.NewRole(d.Role)
	m.must(err)
	return trusttest.Sign(m.t, doc, d.SignWith...)
}

// Stage brings every file of a draft.
func (m *Maker) Stage(p repository.Publisher, d Draft) {
	m.t.Helper()
	for _, path := range slices.Sorted(maps.Keys(d.Files)) {
		data := d.Files[path]
		if err := p.Stage(m.t.Context(), digest.Of(data), int64(len(data)), bytes.NewReader(data)); err != nil {
			m.t.Fatalf("stage %s: %v", path, err)
		}
	}
}

// Release stages and publishes the next release, and remembers its role.
func (m *Maker) Release(p repository.Publisher, v string) Draft {
	m.t.Helper()
	d := m.Draft(v, nil)
	m.Stage(p, d)
	m.must(p.Publish(m.t.Context(), Product, m.Sign(d)))
	m.Role = d.Role
	return d
}

func (m *Maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// Env is a repository under test.
type Env struct {
	Maker *Maker
	// First and Second publish into the same repository.
	First, Second repository.Publisher
	// Blobs is what is served.
	Blobs blob.Store
}

// Run runs the contract. open returns an empty repository of the maker.
func Run(t *testing.T, open func(t *testing.T, m *Maker) Env) {
	for name, test := range map[string]func(t *testing.T, e Env){
		"publish":      publish,
		"refusals":     refusals,
		"conflicts":    conflicts,
		"races":        races,
		"staging":      staging,
		"trust":        rotate,
		"stolen key":   stolenKey,
		"missing":      missing,
		"shared bytes": sharedBytes,
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMaker(t)
			e := open(t, m)
			e.Maker = m
			test(t, e)
		})
	}
}

// Device refreshes like a device with the first root only, and returns what it trusts.
func Device(t testing.TB, m *Maker, blobs blob.Reader) *trust.Set {
	t.Helper()
	read := func(role string, version int64) []byte {
		data, err := blob.ReadAll(t.Context(), blobs, trust.MetadataName(role, version), 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	set, err := trust.NewSet(m.Roots()[0], m.Now)
	m.must(err)
	for {
		next := trust.MetadataName(trust.RootRole, set.RootVersion()+1)
		data, err := blob.ReadAll(t.Context(), blobs, next, trust.MaxRoot)
		if errors.Is(err, blob.ErrNotExist) {
			break
		}
		m.must(err)
		m.must(set.AddRoot(data))
	}
	_, err = set.SetTimestamp(read(trust.TimestampRole, 0))
	m.must(err)
	m.must(set.SetSnapshot(read(trust.SnapshotRole, set.SnapshotFile().Version)))
	file, _ := set.RoleFile(trust.TargetsRole)
	m.must(set.SetTargets(read(trust.TargetsRole, file.Version)))
	for _, product := range set.Products() {
		if file, ok := set.RoleFile(product); ok {
			m.must(set.SetProduct(product, read(product, file.Version)))
		}
	}
	return set
}

// public returns the names and digests of everything that is served.
func public(t testing.TB, blobs blob.Store) string {
	t.Helper()
	var out strings.Builder
	for _, prefix := range []string{"metadata/", "targets/"} {
		err := blobs.List(t.Context(), prefix, func(info blob.Info) error {
			data, err := blob.ReadAll(t.Context(), blobs, info.Name, 64<<20)
			fmt.Fprintf(&out, "%s %s\n", info.Name, digest.Of(data).Short())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func publish(t *testing.T, e Env) {
	m := e.Maker
	for _, v := range []string{"1.0.0", "1.0.1", "1.1.0"} {
		d := m.Release(e.First, v)
		set := Device(t, m, e.Blobs)
		for path, data := range d.Files {
			target, ok := set.Target(path)
			if !ok {
				t.Fatalf("a device does not know %s", path)
			}
			got, err := blob.ReadAll(t.Context(), e.Blobs, trust.BlobName(path, target.Digest), 1<<20)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s: %v", path, err)
			}
		}
		// The same again, also by another publisher, is success and changes nothing.
		before := public(t, e.Blobs)
		doc, err := e.Second.Metadata(t.Context(), Product)
		m.must(err)
		m.Stage(e.Second, d)
		m.must(e.Second.Publish(t.Context(), Product, doc))
		if public(t, e.Blobs) != before {
			t.Fatal("publishing the same again changed something")
		}
	}
	for role, version := range map[string]int64{trust.RootRole: 1, trust.TargetsRole: 1, Product: 3, trust.SnapshotRole: 4, trust.TimestampRole: 4} {
		doc, err := e.First.Metadata(t.Context(), role)
		m.must(err)
		if head, err := trust.Describe(doc); err != nil || head.Version != version {
			t.Errorf("%s has version %d, want %d, %v", role, head.Version, version, err)
		}
	}
	// A role without a new release is a renewal.
	renewed := trust.Role{Product: Product, Version: 4, Expires: m.Now.AddDate(1, 1, 0), Targets: m.Role.Targets}
	m.must(e.First.Publish(t.Context(), Product, m.Sign(Draft{Role: renewed, SignWith: []trusttest.Key{m.Products[Product].Release}})))
	Device(t, m, e.Blobs)
}

// refused publishes a draft and asks for a refusal that leaves everything public as it was.
func refused(t *testing.T, e Env, d Draft, doc []byte, class refusal.Class, words string) {
	t.Helper()
	before := public(t, e.Blobs)
	e.Maker.Stage(e.First, d)
	err := e.First.Publish(t.Context(), Product, doc)
	if refusal.Of(err) != class || !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v\nwant class %s with %q", err, class, words)
	}
	if after := public(t, e.Blobs); after != before {
		t.Fatalf("something became public:\n%s\nbefore:\n%s", after, before)
	}
	Device(t, e.Maker, e.Blobs)
}

func refusals(t *testing.T, e Env) {
	m := e.Maker
	m.Release(e.First, "1.0.0")
	keys := m.Products[Product]
	stranger := trusttest.NewKey(t)
	path := func(v, name string) string { return trust.TargetPath(Product, version.MustParse(v), name) }
	for _, c := range []struct {
		name   string
		change func(d *Draft) // before the statement is signed
		role   func(d *Draft) // before the role is signed
		class  refusal.Class
		words  string
	}{
		{"stranger's role", nil, func(d *Draft) { d.SignWith = []trusttest.Key{stranger} }, refusal.Signature, "threshold not met: 0 of 1"},
		{"unsigned role", nil, func(d *Draft) { d.SignWith = nil }, refusal.Signature, "threshold not met: 0 of 1"},
		{"role by the online key", nil, func(d *Draft) { d.SignWith = []trusttest.Key{m.Online} }, refusal.Signature, "threshold not met: 0 of 1"},
		{"role by the evidence key", nil, func(d *Draft) { d.SignWith = []trusttest.Key{keys.Evidence} }, refusal.Signature, "threshold not met: 0 of 1"},
		{"expired role", nil, func(d *Draft) { d.Role.Expires = m.Now.Add(-time.Hour) }, refusal.Expired, "was valid until"},
		{"version skipped", nil, func(d *Draft) { d.Role.Version++ }, refusal.Conflict, "version 3 is offered where version 2 must come next"},
		{"stranger's statement", func(d *Draft) { d.SignStatement = stranger }, nil, refusal.Signature, "statement of release greeter/1.0.1"},
		{"statement by the evidence key", func(d *Draft) { d.SignStatement = keys.Evidence }, nil, refusal.Signature, "statement of release"},
		{"statement of another version", func(d *Draft) { d.Statement.Version = version.MustParse("1.0.2") },
			func(d *Draft) { index(d, "1.0.1").Version = version.MustParse("1.0.1") }, refusal.Mixed, "its statement is about greeter/1.0.2"},
		{"statement of another product", func(d *Draft) { d.Statement.Product = "other" }, nil, refusal.Mixed, "its statement is about other/1.0.1"},
		{"index lies about the kind", nil, func(d *Draft) { index(d, "1.0.1").Kind = statement.Security }, refusal.Mixed, "not what the statement says"},
		{"index lies about security", nil, func(d *Draft) { index(d, "1.0.1").SecurityVersion = 9 }, refusal.Mixed, "not what the statement says"},
		{"expired statement", func(d *Draft) {
			d.Statement.Issued, d.Statement.Expires = m.Now.Add(-2*time.Hour), m.Now.Add(-time.Hour)
		}, nil, refusal.Expired, "release greeter/1.0.1"},
		{"security version falls", func(d *Draft) { d.Statement.SecurityVersion = 0 }, nil, refusal.Rollback, "0 in release 1.0.1, 1 in release 1.0.0"},
		{"no statement", nil, func(d *Draft) { delete(d.Role.Targets, path("1.0.1", trust.StatementName)) }, refusal.Incomplete, "no target \"release.sigstore.json\""},
		{"artifact is no target", nil, func(d *Draft) { delete(d.Role.Targets, path("1.0.1", Product)) }, refusal.Incomplete, "artifact \"greeter\""},
		{"artifact is another target", nil, func(d *Draft) {
			d.Role.Targets[path("1.0.1", Product)] = d.Role.Targets[path("1.0.0", Product)]
			d.Files["staged only"] = []byte("bytes of 1.0.0")
		}, refusal.Mixed, "the statement"},
		{"image as a target", func(d *Draft) {
			d.Statement.Channel, d.Statement.Artifacts[0].Images = statement.Container, []string{"registry.example/acme/greeter"}
		}, nil, refusal.Mixed, "lies in a registry"},
		{"target is not staged", nil, func(d *Draft) {
			d.Role.Targets[path("1.0.1", "extra")] = trust.Target{Size: 3, Digest: digest.Of([]byte("new"))}
		}, refusal.NotProven, "neither staged nor published"},
		{"target of another size", nil, func(d *Draft) {
			t := d.Role.Targets[path("1.0.1", Product+".sbom.sigstore.json")]
			t.Size++
			d.Role.Targets[path("1.0.1", Product+".sbom.sigstore.json")] = t
		}, refusal.Digest, "size does not match"},
		{"blob signature by a stranger", func(d *Draft) {
			sig, err := bundle.SignBlob(t.Context(), stranger, digest.Of([]byte("bytes of 1.0.1")))
			m.must(err)
			d.Files[path("1.0.1", Product+".sigstore.json")] = sig
		}, nil, refusal.Signature, "greeter.sigstore.json"},
		{"attestation by the release key", func(d *Draft) {
			b, err := bundle.Attest(t.Context(), keys.Release, bundle.Attestation{
				Subject: bundle.Subject{Name: Product, Digest: digest.SetOf([]byte("bytes of 1.0.1"))}, PredicateType: evidence.CycloneDXPredicate, Predicate: []byte("{}"),
			})
			m.must(err)
			d.Files[path("1.0.1", Product+".sbom.sigstore.json")] = b
		}, nil, refusal.Signature, "greeter.sbom.sigstore.json"},
		{"a release vanishes", nil, func(d *Draft) {
			for name := range m.Role.Targets {
				delete(d.Role.Targets, name)
			}
		}, refusal.Conflict, "release greeter/1.0.0: it is published"},
		{"a release changes", nil, func(d *Draft) {
			d.Role.Targets[path("1.0.0", Product)] = d.Role.Targets[path("1.0.1", Product)]
		}, refusal.Conflict, "would get another greeter"},
		{"a release grows", nil, func(d *Draft) {
			d.Role.Targets[path("1.0.0", "extra")] = d.Role.Targets[path("1.0.1", Product)]
		}, refusal.Conflict, "would get a further file, extra"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.Maker.t, e.Maker.Repo = t, m.Repo
			d := m.Draft("1.0.1", c.change)
			if c.role != nil {
				c.role(&d)
			}
			refused(t, e, d, m.Sign(d), c.class, c.words)
		})
	}
	m.t = t
	d := m.Draft("1.0.1", nil)
	good := m.Sign(d)
	for name, doc := range map[string][]byte{"empty": nil, "no JSON": []byte("no"), "truncated": good[:len(good)/2], "huge": bytes.Repeat([]byte("x"), trust.MaxRole+1)} {
		t.Run(name, func(t *testing.T) { refused(t, e, d, doc, refusal.Malformed, "") })
	}
	// After all of that, the honest release still goes through.
	m.must(e.First.Publish(t.Context(), Product, good))
	if err := e.First.Publish(t.Context(), "other", good); refusal.Of(err) != refusal.WrongTarget {
		t.Errorf("role of an unknown product: %v", err)
	}
}

func index(d *Draft, v string) *trust.Index {
	return d.Role.Targets[trust.TargetPath(Product, version.MustParse(v), trust.StatementName)].Index
}

func conflicts(t *testing.T, e Env) {
	m := e.Maker
	first := m.Draft("1.0.0", nil)
	m.Release(e.First, "1.0.0")
	// Somebody who does not know of it signs version 1 as well.
	other := m.Draft("2.0.0", nil)
	other.Role.Version = 1
	for name := range first.Files {
		delete(other.Role.Targets, name)
	}
	refused(t, e, other, m.Sign(other), refusal.Conflict, "version 1 is offered, and is public already with other content")
}

func races(t *testing.T, e Env) {
	m := e.Maker
	drafts := []Draft{m.Draft("1.0.0", nil), m.Draft("2.0.0", nil), m.Draft("3.0.0", nil), m.Draft("4.0.0", nil)}
	docs := make([][]byte, len(drafts))
	for i, d := range drafts {
		m.Stage(e.First, d)
		docs[i] = m.Sign(d)
	}
	var won, lost atomic.Int32
	var all sync.WaitGroup
	for i, doc := range docs {
		p := e.First
		if i%2 == 1 {
			p = e.Second
		}
		all.Go(func() {
			switch err := p.Publish(t.Context(), Product, doc); {
			case err == nil:
				won.Add(1)
			case refusal.Of(err) == refusal.Conflict:
				lost.Add(1)
			default:
				t.Errorf("publisher %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || lost.Load() != 3 {
		t.Fatalf("%d won and %d were told of the conflict", won.Load(), lost.Load())
	}
	set := Device(t, m, e.Blobs)
	if role, _ := set.Role(Product); role.Version != 1 || len(role.Targets) != len(drafts[0].Files) {
		t.Fatalf("version %d with %d targets", role.Version, len(role.Targets))
	}
}

func staging(t *testing.T, e Env) {
	m, ctx := e.Maker, t.Context()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum, size := digest.Of(data), int64(len(data))
	flipped := bytes.Clone(data)
	flipped[len(data)-1] ^= 1 // an upload that goes on sends the end only
	for name, src := range map[string]io.Reader{
		"flipped":   bytes.NewReader(flipped),
		"too short": bytes.NewReader(data[:len(data)-1]),
	} {
		if err := e.First.Stage(ctx, sum, size, src); refusal.Of(err) != refusal.Digest && !errors.Is(err, digest.ErrSize) {
			t.Errorf("%s: %v", name, err)
		}
	}
	torn := errors.New("torn")
	if err := e.First.Stage(ctx, sum, size, io.MultiReader(bytes.NewReader(data[:1000]), iotest.ErrReader(torn))); !errors.Is(err, torn) {
		t.Errorf("torn: %v", err)
	}
	for _, size := range []int64{0, -1, repository.MaxTarget + 1} {
		if err := e.First.Stage(ctx, sum, size, bytes.NewReader(data)); refusal.Of(err) != refusal.Malformed {
			t.Errorf("size %d: %v", size, err)
		}
	}
	m.must(e.Second.Stage(ctx, sum, size, bytes.NewReader(data)))
	m.must(e.First.Stage(ctx, sum, size, iotest.ErrReader(errors.New("what is there is not read again"))))
	got, err := blob.ReadAll(ctx, e.Blobs, "staging/"+sum.Hex(), size)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("staged %d bytes, %v", len(got), err)
	}
}

func rotate(t *testing.T, e Env) {
	m, ctx := e.Maker, t.Context()
	m.Release(e.First, "1.0.0")
	refusedTrust := func(what string, roots [][]byte, targets []byte, class refusal.Class) {
		t.Helper()
		before := public(t, e.Blobs)
		if err := e.First.Trust(ctx, roots, targets); refusal.Of(err) != class {
			t.Fatalf("%s: %v", what, err)
		}
		if public(t, e.Blobs) != before {
			t.Fatalf("%s: something became public", what)
		}
	}
	// Nothing new is success.
	m.must(e.First.Trust(ctx, m.Roots(), m.TopTargets()))
	m.must(e.First.Trust(ctx, nil, nil))

	old := m.RootKeys
	m.RootKeys = []trusttest.Key{old[0], old[1], trusttest.NewKey(t)}
	m.Root.Keys = trusttest.Public(m.RootKeys...)
	m.PushRoot(append(m.RootKeys, old[2])...)
	m.PushTargets(m.RootKeys...)
	root2, targets2 := m.Doc(trust.RootRole, 2), m.Doc(trust.TargetsRole, 2)
	unsigned, err := trust.Unsigned(root2)
	m.must(err)
	refusedTrust("unsigned root", [][]byte{unsigned}, nil, refusal.Signature)
	refusedTrust("root by one key", [][]byte{trusttest.Sign(t, unsigned, old[0])}, nil, refusal.Signature)
	unsignedTargets, err := trust.Unsigned(targets2)
	m.must(err)
	refusedTrust("targets by one key", nil, trusttest.Sign(t, unsignedTargets, old[0]), refusal.Signature)
	refusedTrust("targets by the online key", nil, trusttest.Sign(t, unsignedTargets, m.Online), refusal.Signature)
	refusedTrust("garbage", [][]byte{[]byte("no")}, nil, refusal.Malformed)

	m.PushRoot(m.RootKeys...)
	root3 := m.Doc(trust.RootRole, 3)
	refusedTrust("a root is left out", [][]byte{root3}, nil, refusal.Conflict)
	m.must(e.First.Trust(ctx, [][]byte{root2, root3}, targets2))
	m.must(e.Second.Trust(ctx, [][]byte{root2, root3}, targets2))
	if set := Device(t, m, e.Blobs); set.RootVersion() != 3 {
		t.Fatalf("a device ends at root version %d", set.RootVersion())
	}
	refusedTrust("old targets", nil, m.TopTargets(), refusal.Conflict)
	m.Root.Version = 2
	m.PushRoot(m.RootKeys...)
	refusedTrust("another root of the same version", [][]byte{m.Doc(trust.RootRole, 3)}, nil, refusal.Conflict)

	// A root with an online key that the server does not hold would end its service.
	m.Root.Online = trusttest.NewKey(t).PublicKey()
	m.PushRoot(m.RootKeys...)
	refusedTrust("other online key", [][]byte{m.Doc(trust.RootRole, 4)}, nil, refusal.Key)
	m.Release(e.First, "1.0.1")
	Device(t, m, e.Blobs)
}

// stolenKey: a thief with the release key publishes; the root keys replace the key; what the thief published can then be
// taken away, what the maker signs again stays.
func stolenKey(t *testing.T, e Env) {
	m, ctx := e.Maker, t.Context()
	m.Release(e.First, "1.0.0")
	honest := maps.Clone(m.Role.Targets)
	m.Release(e.First, "1.0.1") // by the thief
	m.Products[Product].Release = trusttest.NewKey(t)
	m.Targets.Products[0].Release = trusttest.Public(m.Products[Product].Release)
	m.PushTargets(m.RootKeys...)
	m.must(e.First.Trust(ctx, nil, m.Doc(trust.TargetsRole, m.Targets.Version)))

	m.Role.Targets = map[string]trust.Target{}
	again := m.Draft("1.0.0", nil)
	m.Stage(e.First, again)
	m.must(e.First.Publish(ctx, Product, m.Sign(again)))
	set := Device(t, m, e.Blobs)
	if role, _ := set.Role(Product); len(role.Targets) != len(honest) {
		t.Fatalf("%d targets are public, want %d", len(role.Targets), len(honest))
	}
}

func missing(t *testing.T, e Env) {
	for _, role := range []string{Product, "other", "../root", "", "1.root", strings.Repeat("x", 300)} {
		if doc, err := e.First.Metadata(t.Context(), role); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("%.20q: %d bytes, %v", role, len(doc), err)
		}
	}
}

// sharedBytes publishes a release in which two targets have the same bytes, and a later one that has them again.
func sharedBytes(t *testing.T, e Env) {
	m := e.Maker
	for _, v := range []string{"1.0.0", "1.0.1"} {
		d := m.Draft(v, func(d *Draft) {
			for _, name := range []string{"a.txt", "b.txt", "c.txt"} {
				d.Files[trust.TargetPath(Product, d.Statement.Version, name)] = []byte("the same in every release")
			}
		})
		m.Stage(e.First, d)
		m.must(e.First.Publish(t.Context(), Product, m.Sign(d)))
		m.Role = d.Role
		set := Device(t, m, e.Blobs)
		for path := range d.Files {
			target, _ := set.Target(path)
			if _, err := e.Blobs.Stat(t.Context(), trust.BlobName(path, target.Digest)); err != nil {
				t.Error(err)
			}
		}
	}
}
