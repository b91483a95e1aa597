// SPDX-License-Identifier: Apache-2.0

package release_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/release"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// released returns a world in which 1.0.0 is out, and a vulnerability in it has become known since.
func released(t *testing.T) *world {
	w := newWorld(t)
	w.must(w.request("1.0.0"))
	w.write("database", "CVE-2026-1 text 0.3.5\nCVE-2026-9 evil 6.6.6\n")
	return w
}

// patch updates the vulnerable component.
func (w *world) patch() {
	w.write("src/greeter-linux", "text 0.3.8\nyaml 1.0.0\n")
	w.write("src/greeter-windows", "text 0.3.8\nyaml 1.0.0\n# for windows\n")
	w.image("text 0.3.8")
}

func outcomes(list []release.Result) string {
	var texts []string
	for _, r := range list {
		texts = append(texts, r.Product+" "+string(r.Outcome))
	}
	return strings.Join(texts, ", ")
}

func TestSecurityRelease(t *testing.T) {
	t.Parallel()
	w := released(t)
	w.patch()
	list := w.must(security(w.request("1.0.1"), "CVE-2026-1"))
	if got := outcomes(list); got != "greeter published, gateway published" {
		t.Error(got)
	}
	r := list[0]
	if r.Previous.String() != "1.0.0" || r.SecurityVersion != 2 || r.RoleVersion != 2 || !r.Verdict.Passed || r.Verdict.Counts.Fixed != 1 || len(r.Artifacts) != 2 {
		t.Errorf("%+v", r)
	}
	// What is outside is what a device can read, signed by the right keys.
	ctx := t.Context()
	e, done := w.engine()
	defer done()
	view, err := e.Refresh(ctx)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) []byte {
		t.Helper()
		data, err := view.ReadTarget(ctx, path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	parse := func(path string) *bundle.Bundle {
		t.Helper()
		b, err := bundle.Parse(read(path))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	product, _ := view.Product("greeter")
	payload, err := parse("greeter/1.0.1/release.sigstore.json").VerifyStatement(product.Release)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := statement.Decode(payload)
	if err != nil || claim.Kind != statement.Security || claim.SecurityVersion != 2 || !slices.Equal(claim.Fixes, []string{"CVE-2026-1"}) || claim.Advisory.ID != "ACME-2026-01" {
		t.Errorf("%+v, %v", claim, err)
	}
	d := r.Artifacts[0].Digest
	for _, name := range []string{r.Artifacts[0].Blob, r.Artifacts[0].Bundle} {
		if _, err := os.Stat(w.path("repository", filepath.FromSlash(name))); err != nil {
			t.Error(err)
		}
	}
	if err := parse("greeter/1.0.1/greeter-linux.sigstore.json").VerifyBlob(product.Release, d); err != nil {
		t.Error(err)
	}
	if _, err := parse("greeter/1.0.1/greeter-linux.sbom.sigstore.json").VerifyAttestation(product.Evidence, evidence.CycloneDXPredicate, d); err != nil {
		t.Error(err)
	}
	verdict, err := parse("greeter/1.0.1/greeter-linux.verdict.sigstore.json").VerifyAttestation(product.Evidence, evidence.VerdictPredicate, d)
	if err != nil || !strings.Contains(string(verdict), "CVE-2026-1") {
		t.Errorf("%s, %v", verdict, err)
	}
	// The release key signs no evidence: cosign would take an attestation for a release.
	if _, err := parse("greeter/1.0.1/greeter-linux.sbom.sigstore.json").VerifyStatement(product.Release); err == nil {
		t.Error("the SBOM is signed by the release key")
	}
	for _, repository := range []string{imageRepository, secondRepository} {
		for _, tag := range []string{"1.0.1", "latest"} {
			img, err := e.Images.Resolve(ctx, repository, tag)
			if err != nil || img.Digest != list[1].Artifacts[0].Digest {
				t.Errorf("%s:%s is %v, %v", repository, tag, img, err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	first := released(t)
	for name, c := range map[string]struct {
		change func(w *world)
		req    func(w *world) release.Request
		class  refusal.Class
		words  []string
	}{
		"new vulnerability": {
			change: func(w *world) { w.write("src/greeter-linux", "text 0.3.8\nyaml 1.0.0\nevil 6.6.6\n") },
			req:    func(w *world) release.Request { return w.request("1.0.1") },
			class:  refusal.Vulnerable, words: []string{"CVE-2026-9", "greeter 1.0.1"},
		},
		"false fix": {
			change: (*world).patch,
			req:    func(w *world) release.Request { return security(w.request("1.0.1"), "CVE-2026-1", "CVE-2026-2") },
			class:  refusal.FalseFix, words: []string{"CVE-2026-2"},
		},
		"not fixed": {
			change: func(*world) {},
			req:    func(w *world) release.Request { return security(w.request("1.0.1"), "CVE-2026-1") },
			class:  refusal.FalseFix, words: []string{"is still present"},
		},
		"nothing to tell users": {
			change: (*world).patch,
			req: func(w *world) release.Request {
				req := security(w.request("1.0.1"))
				for _, p := range req.Products {
					p.Advisory = nil
				}
				return req
			},
			class: refusal.Incomplete, words: []string{"needs an advisory", "needs the names of the vulnerabilities", "greeter 1.0.1", "gateway 1.0.1"},
		},
		"fixes of a feature release": {
			change: (*world).patch,
			req: func(w *world) release.Request {
				req := w.request("1.0.1")
				req.Fixes = []string{"CVE-2026-1"}
				return req
			},
			class: refusal.Incomplete, words: []string{"this is a feature release"},
		},
		"everything at once": {
			change: func(w *world) { w.write("src/greeter-linux", "text 0.3.5\nevil 6.6.6\n") },
			req: func(w *world) release.Request {
				return security(w.request("1.0.1", w.greeter()), "CVE-2026-1")
			},
			class: refusal.Vulnerable, words: []string{"refused (vulnerable)", "refused (false-fix)"},
		},
		"opaque": {
			change: func(w *world) { w.write("src/greeter-linux", "opaque\n") },
			req:    func(w *world) release.Request { return w.request("1.0.1") },
			class:  refusal.NotProven, words: []string{"declare its components"},
		},
		"database": {
			change: func(w *world) { w.write("database", "") },
			req:    func(w *world) release.Request { return w.request("1.0.1") },
			class:  refusal.NotProven, words: []string{"vulnerability database cannot be used", "greeter-linux"},
		},
		"lower than what is out": {
			change: func(w *world) { w.must(w.request("1.0.5")) },
			req:    func(w *world) release.Request { return w.request("1.0.1") },
			class:  refusal.Rollback, words: []string{"lower than 1.0.5, which is released on line 1.0 already"},
		},
		"another content": {
			change: (*world).patch,
			req:    func(w *world) release.Request { return w.request("1.0.0") },
			class:  refusal.Conflict, words: []string{"published with other content", "greeter-linux is sha256:"},
		},
		"another kind": {
			change: func(*world) {},
			req:    func(w *world) release.Request { return security(w.request("1.0.0"), "CVE-2026-1") },
			class:  refusal.Conflict, words: []string{`kind is "feature" there and "security" here`, "advisory differs"},
		},
		"build metadata": {
			change: func(*world) {},
			req:    func(w *world) release.Request { return w.request("1.0.0+again") },
			class:  refusal.Conflict, words: []string{"build metadata does not make another version"},
		},
		"wrong keys": {
			change: (*world).patch,
			req: func(w *world) release.Request {
				p := w.greeter()
				p.Release, p.Evidence = w.key(otherKey), w.key(otherKey)
				return w.request("1.0.1", p)
			},
			class: refusal.Signature, words: []string{"release key of greeter: it is not among the keys", "evidence key of greeter"},
		},
		"unknown product": {
			change: (*world).patch,
			req: func(w *world) release.Request {
				p := w.greeter()
				p.Name = "stranger"
				return w.request("1.0.1", p)
			},
			class: refusal.Unauthorised, words: []string{"product stranger: the root keys have not authorised a release key"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := first.copyWorld(t)
			c.change(w)
			w.builds = 0
			list := w.refused(c.req(w), c.class, c.words...)
			if early := []refusal.Class{refusal.Rollback, refusal.Incomplete, refusal.Unauthorised, refusal.Signature}; slices.Contains(early, c.class) && w.builds > 0 {
				t.Errorf("%d builds before a refusal that needs none", w.builds)
			}
			for _, r := range list {
				if r.Outcome == release.Published {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// A product that does not pass keeps all others inside.
func TestNothingIsOutBeforeAllPass(t *testing.T) {
	t.Parallel()
	w := released(t)
	w.patch()
	w.image("text 0.3.8\nevil 6.6.6")
	list := w.refused(security(w.request("1.0.1"), "CVE-2026-1"), refusal.Vulnerable, "gateway 1.0.1")
	if got := outcomes(list); got != "greeter not published, gateway refused" {
		t.Error(got)
	}
	// What was refused is not kept: the next run looks at the sources again.
	w.image("text 0.3.8")
	w.must(security(w.request("1.0.1"), "CVE-2026-1"))
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	w := released(t)
	w.patch()
	before := w.outside()
	req := security(w.request("1.0.1"), "CVE-2026-1")
	req.DryRun = true
	list := w.must(req)
	if got := outcomes(list); got != "greeter would be published, gateway would be published" || !list[0].Verdict.Passed {
		t.Error(got)
	}
	if after := w.outside(); after != before {
		t.Errorf("something has changed outside:\n%s", after)
	}
	// The release that follows builds nothing again.
	w.builds = 0
	w.must(security(w.request("1.0.1"), "CVE-2026-1"))
	if w.builds != 0 {
		t.Errorf("%d builds", w.builds)
	}
}

func TestUnreachableRegistryIsFoundBeforeTheBuild(t *testing.T) {
	t.Parallel()
	w := released(t)
	w.patch()
	w.write("registry/down", "")
	w.builds = 0
	before := w.outside()
	_, err := w.run(t.Context(), w.request("1.0.1"))
	if !errors.Is(err, registry.ErrUnreachable) || !strings.Contains(err.Error(), "cannot write to "+imageRepository) || !strings.Contains(err.Error(), secondRepository) {
		t.Errorf("error: %v", err)
	}
	if after := w.outside(); after != before || w.builds != 0 {
		t.Errorf("%d builds, outside:\n%s", w.builds, after)
	}
}

func TestProblemsOfTheCallerAreListedWithTheOthers(t *testing.T) {
	t.Parallel()
	w := released(t)
	req := security(w.request("1.0.1", w.greeter()))
	req.Products[0].Release = nil
	req.Problems = []error{refusal.New(refusal.Key, "release key of greeter", "wrong password")}
	w.refused(req, refusal.Key, "wrong password", "needs the names of the vulnerabilities")
}

func TestSameReleaseAgain(t *testing.T) {
	t.Parallel()
	w := released(t)
	before := w.outside()
	again := func(what string, builds int) {
		t.Helper()
		w.builds = 0
		list := w.must(w.request("1.0.0"))
		if got := outcomes(list); got != "greeter already published, gateway already published" || list[0].Statement.IsZero() || list[0].RoleVersion != 1 {
			t.Errorf("%s: %s %+v", what, got, list[0])
		}
		if after := w.outside(); after != before || w.builds != builds {
			t.Errorf("%s: %d builds, outside:\n%s", what, w.builds, after)
		}
	}
	again("with the journal", 0)
	if err := os.RemoveAll(w.path("work")); err != nil {
		t.Fatal(err)
	}
	again("on another machine", 2)
	// Whether the sources have changed is not known: they are built and compared.
	w.builds = 0
	req := w.request("1.0.0", w.greeter())
	req.Products[0].Sources = nil
	if _, err := w.run(t.Context(), req); err != nil || w.builds != 1 {
		t.Errorf("%d builds, %v", w.builds, err)
	}
	w.patch()
	req = w.request("1.0.0", w.greeter())
	req.Products[0].Sources = nil
	w.refused(req, refusal.Conflict, "published with other content")
}

// killedAt runs a release until it dies at a point.
func (w *world) killedAt(point string, req release.Request) {
	w.t.Helper()
	defer func() {
		if recover() == nil {
			w.t.Errorf("not killed at %s", point)
		}
	}()
	_, _ = w.run(fault.With(w.t.Context(), func(at string) {
		if at == point {
			panic(point)
		}
	}), req)
}

// What was uploaded and not listed may be swept away before the release goes on: from the repository, and from a registry,
// where it has no tag.
func TestUploadsAreSweptAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.killedAt("release.role.greeter:before", w.request("1.0.0"))
	staged, err := filepath.Glob(w.path("repository", "staging", "*"))
	if err != nil || len(staged) < 10 {
		t.Fatalf("%d staged, %v", len(staged), err)
	}
	for _, path := range staged {
		if filepath.Base(path) != "commit" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.RemoveAll(w.path("registry")); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(w.must(w.request("1.0.0"))); got != "greeter published, gateway published" {
		t.Error(got)
	}
	undisturbed := newWorld(t)
	undisturbed.must(undisturbed.request("1.0.0"))
	if got, want := w.outside(), undisturbed.outside(); strings.Count(got, "\n") != strings.Count(want, "\n") {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A build that never gives the same bytes twice, of sources that nobody can name, is finished after a kill all the same.
func TestUnrepeatableBuildIsFinished(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	count := 0
	unrepeatable := func() release.Request {
		p := w.greeter()
		inner := p.Builder
		p.Sources = nil
		p.Builder = builder(func(ctx context.Context, in build.Input) ([]build.Artifact, error) {
			count++
			w.write("src/greeter-linux", fmt.Sprintf("text 0.3.8\n# build %d\n", count))
			return inner.Build(ctx, in)
		})
		return w.request("1.0.0", p)
	}
	w.killedAt("release.publish.greeter:after", unrepeatable())
	before := w.outside()
	list := w.must(unrepeatable())
	if after := w.outside(); list[0].Outcome != release.Already || after != before || count != 1 {
		t.Errorf("%+v, %d builds, outside:\n%s", list, count, after)
	}
}

// A tag is not taken back from a later release.
func TestOldReleaseAgainLeavesTags(t *testing.T) {
	t.Parallel()
	w := released(t)
	w.patch()
	w.must(security(w.request("1.0.1"), "CVE-2026-1"))
	w.write("src/greeter-linux", "text 0.3.5\nyaml 1.0.0\n")
	w.write("src/greeter-windows", "text 0.3.5\nyaml 1.0.0\n# for windows\n")
	w.image("text 0.3.5")
	if err := os.RemoveAll(w.path("work")); err != nil {
		t.Fatal(err)
	}
	before := w.outside()
	w.must(w.request("1.0.0"))
	if after := w.outside(); after != before {
		t.Errorf("outside:\n%s\nbefore:\n%s", after, before)
	}
}

// meanwhile publishes something else between our last look and our publication.
type meanwhile struct {
	release.Publisher
	once func()
}

func (m *meanwhile) Publish(ctx context.Context, product string, role []byte) error {
	if once := m.once; once != nil {
		m.once = nil
		once()
	}
	return m.Publisher.Publish(ctx, product, role)
}

func TestSomebodyElsePublishesFirst(t *testing.T) {
	t.Parallel()
	w := released(t)
	other := w.copyWorld(t)
	if err := os.RemoveAll(other.path("repository")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(w.path("repository"), other.path("repository")); err != nil {
		t.Fatal(err)
	}
	w.patch()
	other.patch()
	run := func(v string, once func()) ([]release.Result, error) {
		e, done := w.engine()
		defer done()
		e.Publisher = &meanwhile{e.Publisher, once}
		return e.Run(t.Context(), security(w.request(v, w.greeter()), "CVE-2026-1"))
	}
	w.builds = 0
	list, err := run("1.0.2", func() { other.must(security(other.request("1.0.1", other.greeter()), "CVE-2026-1")) })
	// What we fix is fixed by the other release already: planned anew, our claim is false, and nothing of ours is out.
	if refusal.Of(err) != refusal.FalseFix || list[0].Previous.String() != "1.0.1" || list[0].Outcome != release.Refused {
		t.Errorf("%+v, %v", list, err)
	}
	req := w.request("1.0.2", w.greeter())
	list = w.must(req)
	if list[0].RoleVersion != 3 || list[0].Previous.String() != "1.0.1" || list[0].SecurityVersion != 2 || w.builds != 1 {
		t.Errorf("%+v, %d builds", list, w.builds)
	}
	// The same version with other content is a conflict, whoever was first.
	other.write("src/greeter-linux", "text 0.3.8\nyaml 2.0.0\n")
	e, done := w.engine()
	defer done()
	e.Publisher = &meanwhile{e.Publisher, func() { other.must(other.request("1.0.3", other.greeter())) }}
	if _, err := e.Run(t.Context(), w.request("1.0.3", w.greeter())); refusal.Of(err) != refusal.Conflict || !strings.Contains(err.Error(), "published with other content") {
		t.Errorf("error: %v", err)
	}
}

func TestTwoProcessesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, done := w.engine()
	defer done()
	req := w.request("1.0.0", w.greeter())
	inner := req.Products[0].Builder
	req.Products[0].Builder = builder(func(ctx context.Context, in build.Input) ([]build.Artifact, error) {
		w.refused(w.request("1.0.0", w.greeter()), refusal.Busy, "release of greeter 1.0.0: another process is at work on it")
		return inner.Build(ctx, in)
	})
	if _, err := e.Run(t.Context(), req); err != nil {
		t.Error(err)
	}
}

// builder is a function that builds.
type builder func(ctx context.Context, in build.Input) ([]build.Artifact, error)

func (b builder) Build(ctx context.Context, in build.Input) ([]build.Artifact, error) {
	return b(ctx, in)
}

func TestBuildFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for words, b := range map[string]builder{
		"cannot build greeter 1.0.0: compiler is broken": func(context.Context, build.Input) ([]build.Artifact, error) {
			return nil, errors.New("compiler is broken")
		},
		"cannot build greeter 1.0.0: 0 artifacts were made, 2 are configured": func(context.Context, build.Input) ([]build.Artifact, error) { return nil, nil },
		"cannot build greeter 1.0.0: artifact a was made, greeter-linux is configured": func(context.Context, build.Input) ([]build.Artifact, error) {
			return []build.Artifact{{Name: "a"}, {Name: "b"}}, nil
		},
	} {
		req := w.request("1.0.0", w.greeter())
		req.Products[0].Builder = b
		w.refused(req, "", words)
	}
}

// What an earlier run has left behind is believed only as far as its digests hold.
func TestDamagedWorkFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := w.request("1.0.0", w.greeter())
	req.DryRun = true
	w.must(req)
	for name, builds := range map[string]int{"artifacts/greeter-linux": 1, "evidence/greeter-linux.cdx.json": 0, "evidence/scan.json": 0, "evidence/verdict.json": 0} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			w := w.copyWorld(t)
			path := w.path("work", "greeter", "1.0.0", filepath.FromSlash(name))
			if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, []byte("evil 6.6.6\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
			list := w.must(w.request("1.0.0", w.greeter()))
			if w.builds != builds || list[0].Verdict.Counts.Introduced != 0 || strings.Contains(w.outside(), "evil") {
				t.Errorf("%d builds, %+v", w.builds, list[0])
			}
		})
	}
}

func TestSourcesDecideWhetherABuildIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dry := func(change func(*release.Product)) int {
		t.Helper()
		w.builds = 0
		req := w.request("1.0.0", w.greeter())
		req.DryRun = true
		change(req.Products[0])
		w.must(req)
		return w.builds
	}
	same := func(*release.Product) {}
	for i, c := range []struct {
		change func(*release.Product)
		want   int
	}{
		{same, 1}, {same, 0},
		{func(p *release.Product) { p.Recipe = "another" }, 1},
		{func(p *release.Product) { p.Sources = nil }, 1},
		{func(p *release.Product) { p.Sources = nil }, 1},
		{same, 1},
	} {
		if got := dry(c.change); got != c.want {
			t.Errorf("%d: %d builds, want %d", i, got, c.want)
		}
	}
	w.write("src/greeter-linux", "text 0.3.5\n")
	if got := dry(same); got != 1 {
		t.Errorf("changed sources: %d builds", got)
	}
}

func TestDeclaredComponentsAreScanned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("src/greeter-linux", "opaque\n")
	req := w.request("1.0.0", w.greeter())
	req.Products[0].Artifacts[0].Components = []evidence.Component{{Name: "zephyr", Version: "3.7.0", PURL: "pkg:npm/zephyr@3.7.0"}}
	list := w.must(req)
	if a := list[0].Verdict.Artifacts[0]; a.Components != 1 || !a.Opaque {
		t.Errorf("%+v", a)
	}
	w.write("database", "CVE-2026-3 zephyr 3.8.0\n")
	next := w.request("1.0.1", w.greeter())
	next.Products[0].Artifacts[0].Components = []evidence.Component{{Name: "zephyr", Version: "3.8.0", PURL: "pkg:npm/zephyr@3.8.0"}}
	w.refused(next, refusal.Vulnerable, "CVE-2026-3")
}

// trustAnew publishes new documents of the root keys, in which greeter has the release key next and these former ones.
func (w *world) trustAnew(repo *repository.Repository, until time.Time, next *ecdsa.PublicKey, former ...*ecdsa.PublicKey) {
	w.t.Helper()
	root := w.key(rootKey)
	document := func(doc []byte, err error) []byte {
		w.check(err)
		doc, err = trust.Sign(w.t.Context(), doc, root)
		w.check(err)
		return doc
	}
	old, proof := w.key(releaseKey).PublicKey(), w.key(evidenceKey).PublicKey()
	roots := [][]byte{document(trust.NewRoot(trust.Root{
		Version: 2, Expires: until, Keys: keys(root.PublicKey()), Threshold: 1, Online: w.key(onlineKey).PublicKey(),
	}))}
	targets := document(trust.NewTargets(trust.Targets{Version: 2, Expires: until, Products: []trust.Product{
		{Name: "gateway", Release: keys(old), Threshold: 1, Evidence: keys(proof)},
		{Name: "greeter", Release: keys(next), Former: former, Threshold: 1, Evidence: keys(proof)},
	}}))
	w.check(repo.Trust(w.t.Context(), roots, targets))
}

// A catalogue that has expired because nothing was released for a year is replaced by the next release; so is one that
// was signed by a key that has been retired since.
func TestExpiredCatalogueAndRetiredKey(t *testing.T) {
	t.Parallel()
	w := released(t)
	e, done := w.engine()
	defer done()
	store, err := folder.Open(w.path("repository"))
	w.check(err)
	defer store.Close()
	later := time.Now().Add(366 * 24 * time.Hour)
	repo, err := repository.Open(t.Context(), store, w.key(onlineKey), repository.Options{Now: func() time.Time { return later }})
	w.check(err)
	w.trustAnew(repo, later.Add(365*24*time.Hour), w.key(otherKey).PublicKey(), w.key(releaseKey).PublicKey())
	w.patch()
	e.Now, e.Publisher = func() time.Time { return later }, repo
	e.Refresh = w.look(store, repo, later)
	req := security(w.request("1.0.1"), "CVE-2026-1")
	req.Products[0].Release = w.key(otherKey)
	list, err := e.Run(t.Context(), req)
	w.check(err)
	if got := outcomes(list); got != "greeter published, gateway published" || list[0].Previous != version.MustParse("1.0.0") || list[0].RoleVersion != 2 {
		t.Errorf("%s, %+v", got, list[0])
	}
}

// After a stolen release key has been replaced, what it has signed is no longer listed, and the next release goes on.
func TestDistrustedKey(t *testing.T) {
	t.Parallel()
	w := released(t)
	e, done := w.engine()
	defer done()
	w.trustAnew(e.Publisher.(*repository.Repository), now().Add(24*time.Hour), w.key(otherKey).PublicKey())
	w.patch()
	view, err := e.Refresh(t.Context())
	w.check(err)
	dropped := view.(*release.View).Dropped()
	if len(dropped) != 1 || !strings.HasPrefix(dropped[0], "greeter/1.0.0 is no longer listed: refused (signature)") {
		t.Errorf("dropped: %q", dropped)
	}
	p := w.greeter()
	p.Release = w.key(otherKey)
	list, err := e.Run(t.Context(), w.request("1.0.1", p))
	w.check(err)
	if r := list[0]; r.Outcome != release.Published || !r.Previous.IsZero() || r.RoleVersion != 2 {
		t.Errorf("%+v", r)
	}
	if out := w.outside(); strings.Contains(out, "  greeter/1.0.0/") || !strings.Contains(out, "  greeter/1.0.1/greeter-linux") || !strings.Contains(out, "  gateway/1.0.0/") {
		t.Error(out)
	}
}
