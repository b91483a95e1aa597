// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
	"github.com/pawl-project/pawl/internal/version"
)

// source serves the blobs of a repository and counts what is asked for.
type source struct {
	blobs map[string][]byte
	asked []string
	// lie, if set, may answer in place of the blobs.
	lie func(name string) io.Reader
}

func (s *source) Open(_ context.Context, name string, offset int64) (io.ReadCloser, blob.Info, error) {
	s.asked = append(s.asked, name)
	if err := blob.CheckName(name); err != nil {
		return nil, blob.Info{}, err
	}
	if s.lie != nil {
		if r := s.lie(name); r != nil {
			return io.NopCloser(r), blob.Info{Name: name, Size: 1 << 60}, nil
		}
	}
	data, ok := s.blobs[name]
	if !ok {
		return nil, blob.Info{}, fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), blob.Info{Name: name, Size: int64(len(data))}, nil
}

func serve(r *trusttest.Repo) *source { return &source{blobs: r.Blobs} }

func options(r *trusttest.Repo) catalog.Options {
	return catalog.Options{Now: r.Now, Root: r.Doc(trust.RootRole, 1)}
}

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

// release publishes a release of one file and returns its statement.
func release(t *testing.T, r *trusttest.Repo, product, v string, change func(*statement.Release, *trust.Index)) statement.Release {
	t.Helper()
	n, file := version.MustParse(v), []byte("the bytes of "+v)
	s := statement.Release{
		Product: product, Channel: statement.File, Version: n, Line: n.Line(), Kind: statement.Security, SecurityVersion: 2,
		Hardware: []string{"rev-a"}, Issued: r.Now, Artifacts: []statement.Artifact{{Name: product, Digest: digest.SetOf(file), Size: int64(len(file))}},
	}
	index := trust.IndexOf(s)
	if change != nil {
		change(&s, index)
	}
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := bundle.SignStatement(t.Context(), r.Products[product].Release, text)
	if err != nil {
		t.Fatal(err)
	}
	r.Add(product, v, index, map[string][]byte{trust.StatementName: signed, product: file})
	r.Publish()
	return s
}

func TestRefresh(t *testing.T) {
	r := trusttest.New(t, "gateway", "greeter")
	want := release(t, r, "greeter", "1.0.1", nil)
	release(t, r, "greeter", "1.0.0", nil)
	release(t, r, "greeter", "1.10.0", nil)
	src, cache := serve(r), catalog.Memory{}
	var progress []string
	opt := options(r)
	opt.Progress = func(name string, done, total int) { progress = append(progress, fmt.Sprint(name, done, total)) }
	c, err := catalog.Refresh(t.Context(), src, cache, opt)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Products(), progress); got != "[gateway greeter] [gateway1 2 greeter2 2]" {
		t.Error(got)
	}
	var versions []string
	for _, l := range c.Releases("greeter") {
		versions = append(versions, l.Version.String())
	}
	if got := fmt.Sprint(versions); got != "[1.10.0 1.0.1 1.0.0]" {
		t.Error(got)
	}
	if len(c.Releases("gateway")) != 0 || len(c.Releases("unknown")) != 0 {
		t.Error("releases of an empty product")
	}
	got, err := c.Release(t.Context(), c.Releases("greeter")[1])
	if err != nil || got.Version != want.Version || got.Artifacts[0].Digest != want.Artifacts[0].Digest {
		t.Errorf("%+v, %v", got, err)
	}
	path := "greeter/1.0.1/greeter"
	data, err := c.ReadTarget(t.Context(), path, 1<<10)
	if err != nil || string(data) != "the bytes of 1.0.1" {
		t.Errorf("%q, %v", data, err)
	}
	body, err := c.OpenTarget(t.Context(), path, 4)
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "bytes of 1.0.1" {
		t.Errorf("%q, %v", rest, err)
	}
	if key, err := c.ReadTarget(t.Context(), "keys/greeter/evidence.pub", 1<<10); err != nil || !strings.HasPrefix(string(key), "-----BEGIN PUBLIC KEY") {
		t.Errorf("%q, %v", key, err)
	}
	if !c.ReleaseKeys("greeter")[0].Equal(r.Products["greeter"].Release.PublicKey()) || !c.EvidenceKeys("greeter")[0].Equal(r.Products["greeter"].Evidence.PublicKey()) {
		t.Error("keys")
	}
	if c.RootVersion() != 1 || c.Late() != 0 || !c.Time().Equal(r.Now) || !c.Expires().Equal(r.Now.AddDate(0, 0, 7)) {
		t.Error(c.RootVersion(), c.Late(), c.Time(), c.Expires())
	}

	// Nothing new: the timestamp and the next root are asked for, and nothing else. The root need not be given again.
	src.asked = nil
	if _, err := catalog.Refresh(t.Context(), src, cache, catalog.Options{Now: r.Now}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(src.asked); got != "[metadata/2.root.json metadata/timestamp.json]" {
		t.Error(got)
	}
	// One new release: what has changed is fetched.
	release(t, r, "greeter", "1.10.1", nil)
	src.asked = nil
	opt = options(r)
	opt.Products = []string{"greeter"}
	c, err = catalog.Refresh(t.Context(), src, cache, opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(src.asked) != 5 || len(c.Releases("greeter")) != 4 {
		t.Error(src.asked)
	}
}

func TestNoTrustNoRefresh(t *testing.T) {
	r := trusttest.New(t, "greeter")
	_, err := catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, catalog.Options{Now: r.Now})
	expect(t, err, refusal.Signature, "no root is trusted yet")
	_, err = catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, catalog.Options{Now: r.Now, Root: []byte("{}")})
	expect(t, err, refusal.Malformed, "root metadata")
	_, err = catalog.Refresh(t.Context(), &source{}, catalog.Memory{}, options(r))
	if !errors.Is(err, blob.ErrNotExist) || !strings.Contains(err.Error(), "no repository at this address") {
		t.Error(err)
	}
	opt := options(r)
	opt.Products = []string{"gateway"}
	_, err = catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, opt)
	expect(t, err, refusal.WrongTarget, `product "gateway"`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = catalog.Refresh(ctx, serve(r), catalog.Memory{}, options(r)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestCacheOfAnotherRoot: somebody points two repositories at one cache folder. It is refused, whichever roots the two
// were begun with, and what the folder held is kept.
func TestCacheOfAnotherRoot(t *testing.T) {
	a, b := trusttest.New(t, "greeter"), trusttest.New(t, "greeter")
	for range 2 {
		a.PushRoot(a.RootKeys...)
		b.PushRoot(b.RootKeys...)
	}
	a.Publish()
	b.Publish()
	for first := range int64(3) {
		cache, opt := catalog.Memory{}, options(a)
		opt.Root = a.Doc(trust.RootRole, first+1)
		if _, err := catalog.Refresh(t.Context(), serve(a), cache, opt); err != nil {
			t.Fatal(err)
		}
		before := maps.Clone(cache)
		for other := range int64(3) {
			opt.Root = b.Doc(trust.RootRole, other+1)
			_, err := catalog.Refresh(t.Context(), serve(b), cache, opt)
			expect(t, err, refusal.Mixed, "the cache was filled from another root")
			for name, data := range before {
				if !bytes.Equal(cache[name], data) {
					t.Errorf("first %d, other %d: %s was changed", first, other, name)
				}
			}
			cache = maps.Clone(before)
		}
	}
}

// TestOlderFirstRoot: a device that has been given root 3 is given root 1 again. That is the same repository, as long as
// the source shows the way to 3.
func TestOlderFirstRoot(t *testing.T) {
	r := trusttest.New(t, "greeter")
	for range 2 {
		r.PushRoot(r.RootKeys...)
	}
	r.Publish()
	cache, opt := catalog.Memory{}, options(r)
	opt.Root = r.Doc(trust.RootRole, 3)
	if _, err := catalog.Refresh(t.Context(), serve(r), cache, opt); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(cache)
	src := &source{blobs: maps.Clone(r.Blobs)}
	delete(src.blobs, trust.MetadataName(trust.RootRole, 3))
	_, err := catalog.Refresh(t.Context(), src, cache, options(r))
	expect(t, err, refusal.Rollback, "no version after 2, version 3 is known")
	if !bytes.Equal(cache["root.json"], before["root.json"]) {
		t.Error("the first trust was changed")
	}
	if _, err := catalog.Refresh(t.Context(), serve(r), cache, options(r)); err != nil {
		t.Error(err)
	}
}

// TestRootsWithoutEnd: one refresh takes a bounded number of new roots, and the next goes on from there.
func TestRootsWithoutEnd(t *testing.T) {
	r := trusttest.New(t, "greeter")
	r.RootKeys = r.RootKeys[:2]
	for range trust.MaxRootSteps + 1 {
		r.PushRoot(r.RootKeys...)
	}
	cache := catalog.Memory{}
	_, err := catalog.Refresh(t.Context(), serve(r), cache, options(r))
	expect(t, err, refusal.Malformed, "more than 256 new versions in one refresh")
	c, err := catalog.Refresh(t.Context(), serve(r), cache, options(r))
	if err != nil || c.RootVersion() != trust.MaxRootSteps+2 {
		t.Error(err)
	}
}

// TestRollbackAcrossRuns: each run is a new process with the cache alone. A server that goes back to any older state of
// itself is refused, and the cache keeps what it had.
func TestRollbackAcrossRuns(t *testing.T) {
	r := trusttest.New(t, "greeter")
	old := maps.Clone(r.Blobs)
	release(t, r, "greeter", "1.0.0", nil)
	cache := catalog.Memory{}
	if _, err := catalog.Refresh(t.Context(), serve(r), cache, options(r)); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(cache)
	_, err := catalog.Refresh(t.Context(), &source{blobs: old}, cache, options(r))
	expect(t, err, refusal.Rollback, "timestamp metadata", "version 1 is offered, version 2 is known")
	if !maps.EqualFunc(before, cache, bytes.Equal) {
		t.Error("the cache has changed")
	}
	// The thief with the online key signs a newer timestamp over the old snapshot.
	r.Snapshot.Roles = map[string]trust.File{"targets": trust.FileOf(1, r.Doc("targets", 1)), "greeter": trust.FileOf(1, r.Doc("greeter", 1))}
	r.PushSnapshot(r.Online)
	r.PushTimestamp(r.Online)
	_, err = catalog.Refresh(t.Context(), serve(r), cache, options(r))
	expect(t, err, refusal.Rollback, "metadata of product greeter", "version 1 is offered, version 2 is known")
}

// TestNothingUnverifiedIsSaved: whatever a source sends in place of any document, the cache holds only bytes that the
// honest repository has published.
func TestNothingUnverifiedIsSaved(t *testing.T) {
	r := trusttest.New(t, "greeter")
	r.PushRoot(r.RootKeys...)
	r.Publish()
	names := slices.Sorted(maps.Keys(r.Blobs))
	other := trusttest.New(t, "greeter")
	other.PushRoot(other.RootKeys...)
	other.Publish()
	for _, name := range names {
		for how, lie := range map[string]func() io.Reader{
			"garbage":   func() io.Reader { return strings.NewReader("garbage") },
			"empty":     func() io.Reader { return strings.NewReader("") },
			"truncated": func() io.Reader { return bytes.NewReader(r.Blobs[name][:len(r.Blobs[name])-1]) },
			"longer":    func() io.Reader { return strings.NewReader(string(r.Blobs[name]) + " ") },
			"endless":   func() io.Reader { return endless{} },
			"foreign":   func() io.Reader { return bytes.NewReader(other.Blobs[name]) },
			"broken":    func() io.Reader { return io.MultiReader(bytes.NewReader(r.Blobs[name][:20]), broken{}) },
		} {
			cache := catalog.Memory{}
			src := serve(r)
			used := false
			src.lie = func(n string) io.Reader {
				if n != name {
					return nil
				}
				used = true
				return lie()
			}
			opt := options(r)
			opt.Products = []string{"greeter"}
			_, err := catalog.Refresh(t.Context(), src, cache, opt)
			harmless := how == "longer" && (name == "metadata/timestamp.json" || strings.HasSuffix(name, ".root.json")) // a space changes nothing
			if used && err == nil && !harmless {
				t.Errorf("%s %s: accepted", how, name)
			}
			for saved, data := range cache {
				honest := slices.ContainsFunc(names, func(n string) bool { return bytes.Equal(r.Blobs[n], bytes.TrimRight(data, " ")) })
				if !honest {
					t.Errorf("%s %s: %s was saved: %.60s", how, name, saved, data)
				}
			}
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestKilledAnywhere cuts a refresh off before and after every save, on a new device and on one that knows an older
// state. The next refresh ends in the same cache as an undisturbed one, and nothing older is taken meanwhile.
func TestKilledAnywhere(t *testing.T) {
	r := trusttest.New(t, "gateway", "greeter")
	known := catalog.Memory{}
	if _, err := catalog.Refresh(t.Context(), serve(r), known, options(r)); err != nil {
		t.Fatal(err)
	}
	oldBlobs := maps.Clone(r.Blobs)
	for range 2 {
		r.Online = trusttest.NewKey(t)
		r.Root.Online = r.Online.PublicKey()
		r.PushRoot(r.RootKeys...)
	}
	release(t, r, "greeter", "1.0.0", nil)
	for _, start := range []catalog.Memory{{}, known} {
		var points []string
		want := maps.Clone(start)
		ctx := fault.With(t.Context(), func(p string) { points = append(points, p) })
		if _, err := catalog.Refresh(ctx, serve(r), want, options(r)); err != nil {
			t.Fatal(err)
		}
		if len(points) < 12 {
			t.Fatalf("few points: %v", points)
		}
		for _, point := range points {
			cache := maps.Clone(start)
			func() {
				defer func() {
					if recover() != "killed" {
						t.Fatalf("%s: was not reached", point)
					}
				}()
				ctx := fault.With(t.Context(), func(p string) {
					if p == point {
						panic("killed")
					}
				})
				_, _ = catalog.Refresh(ctx, serve(r), cache, options(r))
			}()
			if _, saved := cache["timestamp.json"]; saved && len(start) == 0 {
				if _, err := catalog.Refresh(t.Context(), &source{blobs: oldBlobs}, maps.Clone(cache), options(r)); refusal.Of(err) == "" {
					t.Errorf("%s: an older state was taken: %v", point, err)
				}
			}
			if _, err := catalog.Refresh(t.Context(), serve(r), cache, options(r)); err != nil {
				t.Errorf("%s: %v", point, err)
			}
			if !maps.EqualFunc(want, cache, bytes.Equal) {
				t.Errorf("%s: the cache differs", point)
			}
		}
	}
}

// TestDamagedCache: a file of the cache that is damaged on the disk is fetched again, unless it is the first trust.
func TestDamagedCache(t *testing.T) {
	r := trusttest.New(t, "greeter")
	r.PushRoot(r.RootKeys...)
	release(t, r, "greeter", "1.0.0", nil)
	good := catalog.Memory{}
	if _, err := catalog.Refresh(t.Context(), serve(r), good, options(r)); err != nil {
		t.Fatal(err)
	}
	for name := range good {
		for how, damaged := range map[string][]byte{"empty": {}, "half": good[name][:len(good[name])/2], "zero": make([]byte, 100)} {
			cache := maps.Clone(good)
			cache[name] = damaged
			if _, err := catalog.Refresh(t.Context(), serve(r), cache, options(r)); err != nil {
				t.Errorf("%s %s: %v", how, name, err)
			}
			// The timestamp is only fetched again if it is newer.
			if !bytes.Equal(cache[name], good[name]) {
				t.Errorf("%s %s: was not mended", how, name)
			}
		}
	}
	src := &source{blobs: maps.Clone(r.Blobs)}
	delete(src.blobs, trust.MetadataName(trust.RootRole, 2))
	cache := maps.Clone(good)
	cache["2.root.json"] = []byte("damaged")
	if _, err := catalog.Refresh(t.Context(), src, cache, options(r)); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("went back behind a damaged root: %v", err)
	}
	cache = maps.Clone(good)
	cache["root.json"] = []byte("damaged")
	_, err := catalog.Refresh(t.Context(), serve(r), cache, catalog.Options{Now: r.Now})
	expect(t, err, refusal.Malformed, "root metadata")
	_, err = catalog.Refresh(t.Context(), serve(r), unreadable{good}, options(r))
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "cannot read the cache") {
		t.Error(err)
	}
	_, err = catalog.Refresh(t.Context(), serve(r), full{catalog.Memory{}}, options(r))
	if !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), "cannot write the cache") {
		t.Error(err)
	}
}

type unreadable struct{ catalog.Memory }

func (unreadable) Load(string) ([]byte, error) { return nil, os.ErrPermission }

type full struct{ catalog.Memory }

func (full) Save(string, []byte) error { return os.ErrClosed }

// TestClockYearsBehind: the signed time of issue is used, also when only the cache knows it, and the result says so.
func TestClockYearsBehind(t *testing.T) {
	r := trusttest.New(t, "greeter")
	opt, cache := options(r), catalog.Memory{}
	opt.Now = time.Unix(0, 0)
	c, err := catalog.Refresh(t.Context(), serve(r), cache, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Time().Equal(r.Now) || c.Late() != r.Now.Sub(opt.Now) {
		t.Error(c.Time(), c.Late())
	}
	// The same state, frozen: it stays good for a device without a clock, and expires for one that learns the time.
	if _, err = catalog.Refresh(t.Context(), serve(r), cache, opt); err != nil {
		t.Fatal(err)
	}
	opt.Now = r.Now.AddDate(0, 1, 0)
	_, err = catalog.Refresh(t.Context(), serve(r), cache, opt)
	expect(t, err, refusal.Expired, "timestamp metadata", "valid until 2026-11-30 08:00 UTC")
}

func TestOneBadProduct(t *testing.T) {
	r := trusttest.New(t, "gateway", "greeter")
	release(t, r, "gateway", "1.0.0", nil)
	r.PushProduct("greeter", r.Online)
	r.PushSnapshot(r.Online)
	r.PushTimestamp(r.Online)
	c, err := catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, options(r))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Releases("gateway")) != 1 || c.Refused("gateway") != nil {
		t.Error(c.Refused("gateway"))
	}
	expect(t, c.Refused("greeter"), refusal.Signature, "0 of 1")
	if len(c.Releases("greeter")) != 0 {
		t.Error("releases of a refused product")
	}
	opt := options(r)
	opt.Products = []string{"greeter"}
	_, err = catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, opt)
	expect(t, err, refusal.Signature, "metadata of product greeter", "0 of 1")
}

func TestHeldBack(t *testing.T) {
	r := trusttest.New(t, "greeter")
	release(t, r, "greeter", "1.0.0", nil)
	src := serve(r)
	src.blobs = maps.Clone(r.Blobs)
	delete(src.blobs, trust.MetadataName("greeter", 2))
	opt := options(r)
	opt.Products = []string{"greeter"}
	_, err := catalog.Refresh(t.Context(), src, catalog.Memory{}, opt)
	expect(t, err, refusal.Mixed, "metadata/2.greeter.json", "the source does not have it")

	src.blobs = maps.Clone(r.Blobs)
	c, err := catalog.Refresh(t.Context(), src, catalog.Memory{}, opt)
	if err != nil {
		t.Fatal(err)
	}
	l := c.Releases("greeter")[0]
	for name := range src.blobs {
		if strings.HasSuffix(name, trust.StatementName) {
			delete(src.blobs, name)
		}
	}
	_, err = c.Release(t.Context(), l)
	expect(t, err, refusal.Mixed, "the source does not have it")
}

// TestReleaseContradictions: the statement decides, and a role that says otherwise is refused.
func TestReleaseContradictions(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*statement.Release, *trust.Index)
		words  string
	}{
		"security version": {func(_ *statement.Release, x *trust.Index) { x.SecurityVersion = 9 }, "security version 2, hardware"},
		"kind":             {func(_ *statement.Release, x *trust.Index) { x.Kind = statement.Feature }, "feature"},
		"line":             {func(_ *statement.Release, x *trust.Index) { x.Line = version.Any }, `on line *`},
		"hardware":         {func(_ *statement.Release, x *trust.Index) { x.Hardware = nil }, "hardware"},
		"minimum source":   {func(_ *statement.Release, x *trust.Index) { x.MinimumSource = version.MustParse("0.9.0") }, "from 0.9.0"},
		"expiry":           {func(s *statement.Release, _ *trust.Index) { s.Expires = s.Issued.AddDate(1, 0, 0) }, "until 2027"},
		"product":          {func(s *statement.Release, _ *trust.Index) { s.Product = "gateway" }, `about product "gateway"`},
		"version": {func(s *statement.Release, _ *trust.Index) {
			s.Version = version.MustParse("1.0.9")
		}, "version 1.0.9"},
		"artifact":         {func(s *statement.Release, _ *trust.Index) { s.Artifacts[0].Digest = digest.SetOf([]byte("other")) }, `artifact "greeter"`},
		"size":             {func(s *statement.Release, _ *trust.Index) { s.Artifacts[0].Size++ }, `artifact "greeter"`},
		"missing artifact": {func(s *statement.Release, _ *trust.Index) { s.Artifacts[0].Name = "other" }, "is not a target"},
	} {
		t.Run(name, func(t *testing.T) {
			r := trusttest.New(t, "gateway", "greeter")
			release(t, r, "greeter", "1.0.0", test.change)
			c, err := catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, options(r))
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Release(t.Context(), c.Releases("greeter")[0])
			expect(t, err, refusal.Mixed, "release 1.0.0 of greeter", test.words)
		})
	}
}

// TestKeysOfStatements: a retired key's statements hold, an evidence key's and a stranger's never do.
func TestKeysOfStatements(t *testing.T) {
	read := func(r *trusttest.Repo) error {
		c, err := catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, options(r))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Release(t.Context(), c.Releases("greeter")[0])
		return err
	}
	build := func(change func(*trust.Product, trusttest.Key)) *trusttest.Repo {
		r := trusttest.New(t, "greeter")
		release(t, r, "greeter", "1.0.0", nil)
		old := r.Products["greeter"].Release
		r.Products["greeter"].Release = trusttest.NewKey(t)
		r.Targets.Products[0].Release = trusttest.Public(r.Products["greeter"].Release)
		change(&r.Targets.Products[0], old)
		r.Publish()
		return r
	}
	if err := read(build(func(p *trust.Product, old trusttest.Key) { p.Former = trusttest.Public(old) })); err != nil {
		t.Error(err)
	}
	expect(t, read(build(func(*trust.Product, trusttest.Key) {})), refusal.Signature)
	expect(t, read(build(func(p *trust.Product, old trusttest.Key) { p.Evidence = append(p.Evidence, old.PublicKey()) })), refusal.Signature)
}

func TestTargetRefused(t *testing.T) {
	r := trusttest.New(t, "greeter")
	release(t, r, "greeter", "1.0.0", nil)
	src := serve(r)
	c, err := catalog.Refresh(t.Context(), src, catalog.Memory{}, options(r))
	if err != nil {
		t.Fatal(err)
	}
	const path = "greeter/1.0.0/greeter"
	for how, lie := range map[string]io.Reader{
		"changed":   strings.NewReader("the bytes of 1.0.9"),
		"truncated": strings.NewReader("the"),
	} {
		src.lie = func(string) io.Reader { return lie }
		if _, err := c.ReadTarget(t.Context(), path, 1<<10); refusal.Of(err) != refusal.Digest {
			t.Errorf("%s: %v", how, err)
		}
	}
	src.lie = func(string) io.Reader { return endless{} }
	_, err = c.ReadTarget(t.Context(), path, 1<<10)
	expect(t, err, refusal.Malformed, "more than 18 bytes")
	body, err := c.OpenTarget(t.Context(), path, 10)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := io.Copy(io.Discard, body); n != 8 {
		t.Errorf("%d bytes of an endless target", n)
	}
	_, err = c.ReadTarget(t.Context(), path, 17)
	expect(t, err, refusal.Malformed, "18 bytes, at most 17 are allowed")
	_, err = c.ReadTarget(t.Context(), "greeter/1.0.0/../../x", 17)
	expect(t, err, refusal.WrongTarget)
	if _, err = c.OpenTarget(t.Context(), path, 19); err == nil {
		t.Error("an offset behind the end")
	}
}

func TestRecovery(t *testing.T) {
	r := trusttest.New(t, "greeter")
	r.Targets.Products[0].Recovery = trust.Recovery{Epoch: 3, Floor: 1}
	r.Publish()
	c, err := catalog.Refresh(t.Context(), serve(r), catalog.Memory{}, options(r))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Recovery("greeter"); got != r.Targets.Products[0].Recovery {
		t.Errorf("%+v", got)
	}
	data, err := c.ReadTarget(t.Context(), trust.RecoveryPath("greeter"), 1<<10)
	if err != nil || string(data) != `{"epoch":3,"floor":1}` {
		t.Errorf("%s, %v", data, err)
	}
}

func TestFolder(t *testing.T) {
	cache := catalog.Folder(t.TempDir())
	if _, err := cache.Load("timestamp.json"); !errors.Is(err, blob.ErrNotExist) {
		t.Error(err)
	}
	r := trusttest.New(t, "greeter")
	for range 2 {
		if _, err := catalog.Refresh(t.Context(), serve(r), cache, options(r)); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := cache.Load("timestamp.json"); err != nil || !bytes.Equal(data, r.Doc(trust.TimestampRole, 0)) {
		t.Error(err)
	}
}

// TestGoTUF: the updater of go-tuf, which knows nothing of us, is given the first root and finds its way to a target.
func TestGoTUF(t *testing.T) {
	r := trusttest.New(t, "gateway", "greeter")
	r.PushRoot(r.RootKeys...)
	r.Now = time.Now()
	release(t, r, "greeter", "1.0.0+build.7", nil)
	dir := t.TempDir()
	for name, data := range r.Blobs {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()

	cfg, err := config.New(server.URL+"/metadata", r.Doc(trust.RootRole, 1))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RemoteTargetsURL = server.URL + "/targets"
	cfg.LocalMetadataDir, cfg.LocalTargetsDir = t.TempDir(), t.TempDir()
	up, err := updater.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Refresh(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"greeter/1.0.0+build.7/greeter": "the bytes of 1.0.0+build.7",
		"keys/greeter/release.pub":      "-----BEGIN PUBLIC KEY-----",
	} {
		info, err := up.GetTargetInfo(path)
		if err != nil {
			t.Fatal(err)
		}
		_, data, err := up.DownloadTarget(info, "", "")
		if err != nil || !strings.HasPrefix(string(data), want) {
			t.Errorf("%q, %v", data, err)
		}
	}
	if _, err := up.GetTargetInfo("gateway/1.0.0/greeter"); err == nil {
		t.Error("found a target that nobody has published")
	}
}

// large is a repository of 1,000 releases in 50 products, seven files each.
func large(t testing.TB) *trusttest.Repo {
	var products []string
	for i := range 50 {
		products = append(products, fmt.Sprintf("product-%02d", i))
	}
	r := trusttest.New(t, products...)
	for _, p := range products {
		for i := range 20 {
			n := version.MustParse(fmt.Sprintf("1.%d.%d", i/10, i%10))
			files := map[string][]byte{trust.StatementName: []byte(p + n.String())}
			for _, suffix := range []string{"", ".sigstore.json", ".cdx.json", ".sbom.sigstore.json", ".verdict.json", ".verdict.sigstore.json"} {
				files[p+"-linux-arm64"+suffix] = []byte(p + n.String() + suffix)
			}
			r.Add(p, n.String(), &trust.Index{Version: n, Line: n.Line(), Kind: statement.Security, SecurityVersion: 2, Hardware: []string{"rev-a", "rev-b"}}, files)
		}
	}
	r.Publish()
	return r
}

// list refreshes and counts the releases of all products.
func list(t testing.TB, src *source, cache catalog.Cache, opt catalog.Options) int {
	c, err := catalog.Refresh(t.Context(), src, cache, opt)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range c.Products() {
		n += len(c.Releases(p))
	}
	return n
}

// TestMemory: everything that a refresh of 1,000 releases allocates, garbage included, is less than 32 MiB.
func TestMemory(t *testing.T) {
	r := large(t)
	src := serve(r)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := list(t, src, catalog.Memory{}, options(r))
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; n != 1000 || used > 32<<20 {
		t.Errorf("%d releases with %d MiB", n, used>>20)
	}
}

// BenchmarkRefresh is a refresh and a listing of 1,000 releases in 50 products, all in memory: what a device does after
// its downloads. "new" has an empty cache, "known" has all of it but the timestamp.
func BenchmarkRefresh(b *testing.B) {
	r := large(b)
	src, known := serve(r), catalog.Memory{}
	list(b, src, known, options(r))
	delete(known, "timestamp.json")
	for name, start := range map[string]catalog.Memory{"new": {}, "known": known} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if n := list(b, src, maps.Clone(start), options(r)); n != 1000 {
					b.Fatal(n)
				}
			}
		})
	}
}
