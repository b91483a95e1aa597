// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/signtest"
	"github.com/pawl-project/pawl/internal/trust"
)

var testNow = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// box stands for encrypted key files: the file names a signer that the box keeps, and the password that opens it.
type box struct {
	mu      sync.Mutex
	signers map[string]sign.Signer
}

func (b *box) generate(t testing.TB) func([]byte) (pair, error) {
	return func(password []byte) (pair, error) {
		s := signtest.New(t)
		public, err := sign.EncodePublicKey(s.PublicKey())
		if err != nil {
			return pair{}, err
		}
		private := base64.StdEncoding.EncodeToString(public) + " " + string(password)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.signers[private] = s
		return pair{[]byte(private), public, s}, nil
	}
}

func (b *box) open(private, password []byte) (sign.Signer, error) {
	s, ok := b.signers[string(private)]
	if _, want, _ := strings.Cut(string(private), " "); !ok || want != string(password) {
		return nil, refusal.New(refusal.Key, "private key", "%w", sign.ErrPassword)
	}
	return s, nil
}

// options returns those of a new, empty project. All keys have the password "secret".
func options(t testing.TB) Options {
	b := &box{signers: map[string]sign.Signer{}}
	return Options{
		Layout: At(filepath.Join(t.TempDir(), "project")), Now: testNow,
		Password: func(string, bool) ([]byte, error) { return []byte("secret"), nil },
		generate: b.generate(t), open: b.open,
	}
}

// project makes a project with 2 of 3 root keys and the product greeter.
func project(t testing.TB) (Options, Folder) {
	t.Helper()
	o := options(t)
	f, err := Init(t.Context(), o, First{RootKeys: 3, Threshold: 2, Products: []string{"greeter"}})
	if err != nil {
		t.Fatal(err)
	}
	return o, f
}

// newKey makes a key pair in the keys folder and returns it.
func newKey(t testing.TB, o Options, name string) *ecdsa.PublicKey {
	t.Helper()
	key, err := NewKey(t.Context(), o, o.key(name))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func amend(t testing.TB, o Options, c Change) Outcome {
	t.Helper()
	out, err := Amend(t.Context(), o, c, Signing{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func load(t testing.TB, o Options) Folder {
	t.Helper()
	f, err := Load(o.Trust)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// files returns what lies in the project, by path; locks are left out.
func files(t testing.TB, o Options) map[string]string {
	t.Helper()
	out := map[string]string{}
	dir := filepath.Dir(o.Trust)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.Name() == lockFile {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			out[rel+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(path)
		out[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantClass(t testing.TB, err error, class refusal.Class, words string) {
	t.Helper()
	if refusal.Of(err) != class || !strings.Contains(fmt.Sprint(err), words) {
		t.Fatalf("got %v, want a refusal of class %q that says %q", err, class, words)
	}
}

// device accepts the chain as a device does that was delivered with the first root.
func device(t testing.TB, f Folder) *trust.Set {
	t.Helper()
	set, err := trust.NewSet(f.Roots[0], testNow)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range f.Roots[1:] {
		if err := set.AddRoot(root); err != nil {
			t.Fatal(err)
		}
	}
	return set
}

func TestInit(t *testing.T) {
	o, f := project(t)
	got := slices.Sorted(maps.Keys(files(t, o)))
	want := []string{
		"./", "keys/", "keys/.gitignore", "keys/evidence-greeter.key", "keys/evidence-greeter.pub", "keys/online.key", "keys/online.pub",
		"keys/release-greeter.key", "keys/release-greeter.pub", "keys/root-1.key", "keys/root-1.pub", "keys/root-2.key", "keys/root-2.pub",
		"keys/root-3.key", "keys/root-3.pub", "trust/", "trust/.gitignore", "trust/1.root.json", "trust/evidence-greeter.pub",
		"trust/online.pub", "trust/release-greeter.pub", "trust/root-1.pub", "trust/root-2.pub", "trust/root-3.pub", "trust/targets.json",
	}
	if !slices.Equal(got, want) {
		t.Errorf("files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for path, perm := range map[string]fs.FileMode{o.Keys: 0o700, o.RootKey(1): 0o600, o.OnlineKey(): 0o600, o.ReleaseKey("greeter"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != perm {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	device(t, f)
	s := f.State
	if s.Root.Threshold != 2 || len(s.Root.Keys) != 3 || !s.Root.Expires.Equal(testNow.Add(RootLife)) || !s.Targets.Expires.Equal(testNow.Add(TargetsLife)) {
		t.Errorf("%+v", s.Root)
	}
	pub, err := ReadPublicKey(filepath.Join(o.Trust, "release-greeter.pub"))
	if p := s.Targets.Products[0]; err != nil || p.Name != "greeter" || !p.Release[0].Equal(pub) || len(p.Evidence) != 1 {
		t.Errorf("%+v %v", p, err)
	}

	before := files(t, o)
	_, err = Init(t.Context(), o, First{RootKeys: 2, Threshold: 2, Products: []string{"other"}})
	wantClass(t, err, refusal.Conflict, "1.root.json exists already")
	if !maps.Equal(before, files(t, o)) {
		t.Error("a refused init has changed something")
	}
}

func TestInitRefusesWithoutWriting(t *testing.T) {
	for _, c := range []struct {
		first First
		want  string
	}{
		{First{RootKeys: 0, Threshold: 1}, "0 root keys, from 1 to 32"},
		{First{RootKeys: 33, Threshold: 1}, "33 root keys"},
		{First{RootKeys: 2, Threshold: 3}, "a threshold of 3 with 2 root keys"},
		{First{RootKeys: 2, Threshold: 0}, "a threshold of 0"},
		{First{RootKeys: 1, Threshold: 1, Products: []string{"../x"}}, "product"},
		{First{RootKeys: 1, Threshold: 1, Products: []string{"root"}}, "root"},
		{First{RootKeys: 1, Threshold: 1, Products: []string{"a", "a"}}, "named twice"},
	} {
		o := options(t)
		if _, err := Init(t.Context(), o, c.first); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.first, err, c.want)
		}
		if got := files(t, o); len(got) > 0 {
			t.Errorf("%+v: wrote %v", c.first, got)
		}
	}
	o := options(t)
	o.Password = func(path string, confirm bool) ([]byte, error) {
		return nil, refusal.New(refusal.Key, path, "%w", sign.ErrPassword)
	}
	_, err := Init(t.Context(), o, First{RootKeys: 1, Threshold: 1})
	wantClass(t, err, refusal.Key, "password")
	if got := files(t, o); len(got) > 0 {
		t.Errorf("wrote %v", got)
	}
}

// killed is what an injector panics with.
type killed struct{}

// points returns every fault point that work passes.
func points(t testing.TB, work func(ctx context.Context)) []string {
	var out []string
	work(fault.With(t.Context(), func(point string) { out = append(out, point) }))
	return out
}

// kill runs work and stops it at a point as a power cut would.
func kill(t testing.TB, point string, work func(ctx context.Context)) {
	t.Helper()
	defer func() {
		if p := recover(); p != (killed{}) {
			t.Fatalf("%s was not reached: %v", point, p)
		}
	}()
	work(fault.With(t.Context(), func(p string) {
		if p == point {
			panic(killed{})
		}
	}))
}

func TestInitKilledAnywhere(t *testing.T) {
	first := First{RootKeys: 1, Threshold: 1}
	undisturbed := options(t)
	all := points(t, func(ctx context.Context) {
		if _, err := Init(ctx, undisturbed, first); err != nil {
			t.Error(err)
		}
	})
	if len(all) < 30 {
		t.Fatalf("only %d points: %v", len(all), all)
	}
	want := slices.Sorted(maps.Keys(files(t, undisturbed)))
	for _, point := range all {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			kill(t, point, func(ctx context.Context) { _, _ = Init(ctx, o, first) })
			before, err := Load(o.Trust)
			happened := err == nil
			if !happened && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			_, err = Init(t.Context(), o, first)
			if err != nil && (refusal.Of(err) != refusal.Conflict || point != all[len(all)-1]) { // after the last point it is done
				t.Fatal(err)
			}
			f := load(t, o)
			if happened && !bytes.Equal(before.Root(), f.Root()) {
				t.Error("another root after it had happened")
			}
			if got := slices.Sorted(maps.Keys(files(t, o))); !slices.Equal(got, want) {
				t.Errorf("left %v", got)
			}
			rows, err := o.KeyRows(f.State)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				if r.Public == "" || r.Private == "" {
					t.Errorf("the files of %+v are not there", r)
				}
			}
		})
	}
}

func TestApplyKilledAnywhere(t *testing.T) {
	o, before := project(t)
	// A change of everything: a root key and the threshold, so that targets must follow, and the keys of a product.
	carol, release := newKey(t, o, "carol"), newKey(t, o, "release-2")
	ref, err := sign.Fingerprint(before.State.Root.Keys[1])
	if err != nil {
		t.Fatal(err)
	}
	changes := []Change{RotateRootKey(ref, carol, "carol.pub"), SetThreshold(3), RotateProduct("greeter", release, nil, false)}
	var d Draft
	for _, c := range changes {
		out, err := Amend(t.Context(), o, c, Signing{None: true})
		if err != nil {
			t.Fatal(err)
		}
		d = out.Draft
	}
	for _, path := range []string{o.RootKey(1), o.RootKey(2), o.RootKey(3), o.key("carol")} {
		s, err := o.OpenKey(path)
		if err != nil {
			t.Fatal(err)
		}
		if d, err = d.Sign(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	start := files(t, o)
	fresh := func() Options {
		copied := o
		copied.Layout = At(filepath.Join(t.TempDir(), "project"))
		for name, text := range start {
			path := filepath.Join(filepath.Dir(copied.Trust), filepath.FromSlash(name))
			if strings.HasSuffix(name, "/") {
				if err := os.MkdirAll(path, 0o700); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return copied
	}
	run := func(o Options) func(context.Context) {
		return func(ctx context.Context) {
			if out, err := Apply(ctx, o, []Draft{d}); err != nil || !out.Applied {
				t.Error(err)
			}
		}
	}
	undisturbed := fresh()
	all := points(t, run(undisturbed))
	if len(all) < 14 {
		t.Fatalf("only %d points: %v", len(all), all)
	}
	want, after := files(t, undisturbed), load(t, undisturbed)
	device(t, after)
	if want["trust/carol.pub"] == "" || want["trust/root-2.pub"] != "" || want["trust/draft.json"] != "" {
		t.Errorf("%v", slices.Sorted(maps.Keys(want)))
	}
	for _, point := range all {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			o := fresh()
			kill(t, point, run(o))
			f := load(t, o) // readable at every moment, and either before or after
			isOld := bytes.Equal(f.Root(), before.Root()) && bytes.Equal(f.Targets, before.Targets)
			isNew := bytes.Equal(f.Root(), after.Root()) && bytes.Equal(f.Targets, after.Targets)
			if isOld == isNew {
				t.Error("half applied")
			}
			if _, err := Show(o); err != nil {
				t.Error(err)
			}
			run(o)(t.Context())
			if got := files(t, o); !maps.Equal(got, want) {
				t.Errorf("another end than undisturbed: %v", slices.Sorted(maps.Keys(got)))
			}
		})
	}
}

func TestChangesInWords(t *testing.T) {
	o, f := project(t)
	newer := newKey(t, o, "newer")
	short := func(i int) string { return Short(f.State.Root.Keys[i]) }
	p := f.State.Targets.Products[0]
	for _, c := range []struct {
		name   string
		change Change
		want   []string
	}{
		{"add", AddRootKey(newer, "newer.pub"), []string{"root key " + Short(newer) + " is added", "2 of 4 root keys must sign, instead of 2 of 3", "root version 2 is valid until 2029-02-28"}},
		{"remove", RemoveRootKey(short(0)), []string{"root key " + short(0) + " is removed", "2 of 2 root keys must sign, instead of 2 of 3", "root version 2 is valid until 2029-02-28"}},
		{"rotate", RotateRootKey(short(0), newer, "newer.pub"), []string{"root key " + Short(newer) + " is added", "root key " + short(0) + " is removed", "root version 2 is valid until 2029-02-28"}},
		{"threshold", SetThreshold(3), []string{"3 of 3 root keys must sign, instead of 2 of 3", "root version 2 is valid until 2029-02-28"}},
		{"renew", Renew(), []string{"root version 2 is valid until 2029-02-28", "targets version 2 is valid until 2028-02-29"}},
		{"online", RotateOnline(newer), []string{"the online key is " + Short(newer) + ", instead of " + Short(f.State.Root.Online), "root version 2 is valid until 2029-02-28"}},
		{"product", AddProduct("sensor", newer, p.Evidence[0]), []string{
			"product sensor is added", "product sensor: release key " + Short(newer) + " is added",
			"product sensor: evidence key " + Short(p.Evidence[0]) + " is added", "targets version 2 is valid until 2028-02-29",
		}},
		{"removed product", RemoveProduct("greeter"), []string{"product greeter is removed: devices take nothing of it any more", "targets version 2 is valid until 2028-02-29"}},
		{"release key", RotateProduct("greeter", newer, nil, false), []string{
			"product greeter: release key " + Short(newer) + " is added",
			"product greeter: release key " + Short(p.Release[0]) + " is retired, what it has signed still counts", "targets version 2 is valid until 2028-02-29",
		}},
		{"stolen release key", RotateProduct("greeter", newer, nil, true), []string{
			"product greeter: release key " + Short(newer) + " is added",
			"product greeter: release key " + Short(p.Release[0]) + " is distrusted, what it has signed no longer counts", "targets version 2 is valid until 2028-02-29",
		}},
		{"evidence key", RotateProduct("greeter", nil, newer, false), []string{"product greeter: evidence key " + Short(newer) + " is added", "targets version 2 is valid until 2028-02-29"}},
		{"stolen evidence key", RotateProduct("greeter", nil, newer, true), []string{
			"product greeter: evidence key " + Short(newer) + " is added",
			"product greeter: evidence key " + Short(p.Evidence[0]) + " is distrusted, what it has signed no longer counts", "targets version 2 is valid until 2028-02-29",
		}},
		{"floor", LowerFloor("greeter", 4), []string{"product greeter: devices lower their floor to security version 4 once (recovery 1)", "targets version 2 is valid until 2028-02-29"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Draft{base: f.docs(), before: f.State, after: f.State}
			d, err := d.amend(c.change, o)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Changes(); !slices.Equal(got, c.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			data, err := d.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseDraft(data)
			if err != nil {
				t.Fatal(err)
			}
			if twice, err := again.Encode(); err != nil || !bytes.Equal(data, twice) {
				t.Errorf("another file after reading and writing: %v", err)
			}
		})
	}
}

func TestImpossibleChanges(t *testing.T) {
	o, f := project(t)
	root, p := f.State.Root, f.State.Targets.Products[0]
	newer := newKey(t, o, "newer")
	start := files(t, o)
	for _, c := range []struct {
		change Change
		want   string
	}{
		{AddRootKey(root.Keys[0], "x.pub"), "is a root key already"},
		{AddRootKey(root.Online, "x.pub"), "would be root key and online key"},
		{AddRootKey(p.Release[0], "x.pub"), "would be root key and release key of greeter"},
		{RemoveRootKey("0123456789abcdef"), "no root key"},
		{RemoveRootKey(Short(root.Keys[0])[:7]), "no root key"},
		{RotateRootKey(Short(root.Keys[0]), root.Keys[1], "x.pub"), "is a root key already"},
		{SetThreshold(4), "a threshold of 4 with 3 root keys"},
		{SetThreshold(0), "a threshold of 0"},
		{SetThreshold(2), "is 2 already"},
		{RotateOnline(root.Online), "is the online key already"},
		{RotateOnline(p.Evidence[0]), "would be online key and evidence key of greeter"},
		{AddProduct("greeter", newer, newer), "there is a product greeter already"},
		{AddProduct("sensor", newer, newer), "would be release key of sensor and evidence key of sensor"},
		{AddProduct("sensor", p.Evidence[0], newer), "would be evidence key of greeter and release key of sensor"},
		{AddProduct("targets", newer, p.Evidence[0]), "targets"},
		{RemoveProduct("sensor"), "there is no product \"sensor\"; products: greeter"},
		{RotateProduct("greeter", p.Release[0], nil, false), "is the release key of greeter already"},
		{RotateProduct("greeter", nil, nil, false), "neither a new key"},
		{LowerFloor("sensor", 1), "there is no product"},
	} {
		if _, err := Amend(t.Context(), o, c.change, Signing{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if !maps.Equal(start, files(t, o)) {
		t.Error("a change that was not made has written something")
	}
	amend(t, o, RemoveRootKey(Short(root.Keys[2])))
	if _, err := Amend(t.Context(), o, RemoveRootKey(Short(root.Keys[1])), Signing{}); err == nil || !strings.Contains(err.Error(), "1 root keys would be left where 2 must sign") {
		t.Error(err)
	}
	// A shared release key is one key with one use; a retired one does not come back.
	amend(t, o, AddProduct("sensor", p.Release[0], p.Evidence[0]))
	amend(t, o, RotateProduct("greeter", newer, nil, false))
	if _, err := Amend(t.Context(), o, RotateProduct("greeter", p.Release[0], nil, false), Signing{}); err == nil || !strings.Contains(err.Error(), "would be") {
		t.Error(err)
	}
}

// move takes private keys away, as if their holders had them.
func move(t testing.TB, o Options, names ...string) map[string]sign.Signer {
	t.Helper()
	out := map[string]sign.Signer{}
	for _, name := range names {
		s, err := o.OpenKey(o.key(name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = s
		if err := os.Remove(o.key(name)); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestNewRootNeedsOldAndNewKeys(t *testing.T) {
	o, f := project(t)
	away := move(t, o, "root-2", "root-3")
	carol := newKey(t, o, "carol")
	out := amend(t, o, RotateRootKey(Short(f.State.Root.Keys[2]), carol, "carol.pub"))
	out = amend(t, o, SetThreshold(3))
	if out.Applied {
		t.Fatal("applied with two signatures")
	}
	// root-1 and carol have signed: 1 of 2 old keys, 2 of 3 new keys, and targets too.
	needs, err := out.Draft.Needs()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range needs {
		got = append(got, fmt.Sprintf("%s %d by %d: %d of %d", n.Document, n.Version, n.By, len(n.Signed), n.Threshold))
	}
	if want := []string{"root 2 by 1: 1 of 2", "root 2 by 2: 2 of 3", "targets 2 by 2: 2 of 3"}; !slices.Equal(got, want) && len(got) == 3 {
		t.Errorf("%q, want %q", got, want)
	}
	start := files(t, o)
	_, err = Apply(t.Context(), o, nil)
	wantClass(t, err, refusal.Signature, "root version 2 has 1 of 2 signatures by the keys of root version 1; root version 2 has 2 of 3")

	// The holder of a removed key helps with the old threshold and cannot with the new one.
	third, err := out.Draft.Sign(t.Context(), away["root-3"])
	if err != nil {
		t.Fatal(err)
	}
	_, err = Apply(t.Context(), o, []Draft{third})
	wantClass(t, err, refusal.Signature, "root version 2 has 2 of 3 signatures by the keys of root version 2")
	if strings.Contains(err.Error(), "root version 1") {
		t.Error(err)
	}
	if !maps.Equal(start, files(t, o)) {
		t.Error("a refused apply has changed something")
	}
	second, err := out.Draft.Sign(t.Context(), away["root-2"])
	if err != nil {
		t.Fatal(err)
	}
	applied, err := Apply(t.Context(), o, []Draft{second})
	if err != nil || !applied.Applied {
		t.Fatal(err)
	}
	f = load(t, o)
	device(t, f)
	if f.State.Root.Version != 2 || f.State.Targets.Version != 2 {
		t.Errorf("%+v", f.State)
	}
	again, err := Apply(t.Context(), o, []Draft{second}) // the same file a second time
	if err != nil || !again.Applied {
		t.Error(err)
	}
	_, err = Apply(t.Context(), o, nil)
	if err == nil || !strings.Contains(err.Error(), "there is no draft") {
		t.Error(err)
	}
}

func TestChainOfManyRootsIsAccepted(t *testing.T) {
	o, first := project(t)
	for i := range 6 {
		f := load(t, o)
		key := newKey(t, o, fmt.Sprintf("next-%d", i))
		if out := amend(t, o, RotateRootKey(Short(f.State.Root.Keys[0]), key, "next.pub")); !out.Applied {
			t.Fatal(out.Draft.Incomplete())
		}
	}
	f := load(t, o)
	if len(f.Roots) != 7 || !bytes.Equal(f.Roots[0], first.Roots[0]) {
		t.Fatalf("%d roots", len(f.Roots))
	}
	device(t, f)
	pubs, err := publicKeys(o.Trust)
	if err != nil {
		t.Fatal(err)
	}
	// Three root keys, one of them under the name that was given, and one file for each other key.
	if len(pubs) != 6 || pubs["next.pub"] == nil || !contains(f.State.Root.Keys, pubs["next.pub"]) {
		t.Errorf("%v", slices.Sorted(maps.Keys(pubs)))
	}
}

func TestSignsOnlyWhatSomebodyHereHasSeen(t *testing.T) {
	o, f := project(t)
	thief := newKey(t, o, "thief")
	// Somebody puts a draft into the folder, for example by a commit.
	if _, err := Amend(t.Context(), o, AddRootKey(thief, "thief.pub"), Signing{None: true}); err != nil {
		t.Fatal(err)
	}
	out := amend(t, o, LowerFloor("greeter", 1))
	if out.Applied || !out.Foreign || len(out.Tried) > 0 {
		t.Errorf("the keys here have signed what they had not seen: %+v", out)
	}
	out, err := Amend(t.Context(), o, LowerFloor("greeter", 1), Signing{Keys: []string{o.RootKey(1)}, None: true})
	if err != nil || out.Applied || len(out.Tried) != 1 {
		t.Fatal(err)
	}
	if out = amend(t, o, LowerFloor("greeter", 0)); !out.Applied {
		t.Error("a holder who has signed is trusted to go on")
	}
	if got := load(t, o).State; len(got.Root.Keys) != 4 || got.Root.Version != f.State.Root.Version+1 {
		t.Errorf("%+v", got.Root)
	}
}

func TestKeysThatCannotBeOpened(t *testing.T) {
	o, _ := project(t)
	o.Password = func(path string, _ bool) ([]byte, error) {
		if path == o.RootKey(2) {
			return []byte("wrong"), nil
		}
		return []byte("secret"), nil
	}
	out := amend(t, o, Renew())
	if !out.Applied || len(out.Tried) != 3 || refusal.Of(out.Tried[1].Err) != refusal.Key {
		t.Errorf("%+v", out.Tried)
	}
	_, err := Amend(t.Context(), o, Renew(), Signing{Keys: []string{o.RootKey(2)}})
	wantClass(t, err, refusal.Key, "private key "+o.RootKey(2)+": wrong or missing password")
	_, err = Amend(t.Context(), o, Renew(), Signing{Keys: []string{o.OnlineKey()}})
	wantClass(t, err, refusal.Signature, "it is none of the root keys")
	if _, err := os.Stat(o.Draft()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a refused change has left a draft")
	}
	// A public half that does not belong to its private one.
	other, err := os.ReadFile(pubOf(o.RootKey(1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pubOf(o.OnlineKey()), other, 0o600); err != nil {
		t.Fatal(err)
	}
	out = amend(t, o, Renew())
	if at := slices.IndexFunc(out.Tried, func(s Signed) bool { return s.Path == o.OnlineKey() }); at < 0 || refusal.Of(out.Tried[at].Err) != refusal.Key {
		t.Errorf("%+v", out.Tried)
	}
}

func TestForeignDrafts(t *testing.T) {
	o, f := project(t)
	away := move(t, o, "root-2", "root-3")
	out := amend(t, o, SetThreshold(3))
	signed, err := out.Draft.Sign(t.Context(), away["root-2"])
	if err != nil {
		t.Fatal(err)
	}
	good, err := signed.Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := trust.KeyID(away["root-2"].PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	stranger := signtest.New(t)
	byStranger := signed
	byStranger.next.Root, err = trust.Sign(t.Context(), signed.next.Root, stranger)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := byStranger.Encode()
	if err != nil {
		t.Fatal(err)
	}
	unsignedBase := signed
	unsignedBase.base.Root, err = trust.Unsigned(f.Root())
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := unsignedBase.Encode()
	if err != nil {
		t.Fatal(err)
	}
	next := bytes.Index(good, []byte(`"next"`))
	sig := next + bytes.Index(good[next:], []byte(`{"keyid":"`+id+`","sig":"`)) + 120
	broken := bytes.Clone(good)
	broken[sig] = flipHex(broken[sig])
	for name, c := range map[string]struct {
		data  []byte
		words string
	}{
		"empty":            {nil, "not a draft"},
		"other JSON":       {f.Root(), "not a draft"},
		"unknown member":   {bytes.Replace(good, []byte(`"draft":1`), []byte(`"draft":1,"more":2`), 1), "not a draft"},
		"other format":     {bytes.Replace(good, []byte(`"draft":1`), []byte(`"draft":2`), 1), "format 2"},
		"nothing":          {[]byte(`{"draft":1,"next":{}}`), "it changes nothing"},
		"no base":          {[]byte(`{"draft":1,"next":{"root":` + string(f.Root()) + `}}`), "a document is missing"},
		"too large":        {bytes.Repeat([]byte(" "), MaxDraft+1), "bytes, at most"},
		"bad signature":    {broken, "is wrong"},
		"strange key":      {strange, "a key that does not count"},
		"unsigned base":    {unsigned, "threshold not met: 0 of 2"},
		"name with a path": {bytes.Replace(good, []byte(`"draft":1`), []byte(`"draft":1,"names":{"`+strings.Repeat("a", 64)+`":"../x.pub"}`), 1), "a name"},
	} {
		_, err := ParseDraft(c.data)
		if refusal.Of(err) != refusal.Malformed || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want %q", name, err, c.words)
		}
	}

	// A draft of the same beginning that says something else, and one of another project.
	if err := Discard(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	amend(t, o, RemoveRootKey(Short(f.State.Root.Keys[2])))
	_, err = Apply(t.Context(), o, []Draft{signed})
	wantClass(t, err, refusal.Malformed, "say different things")
	o2, _ := project(t)
	_, err = Apply(t.Context(), o2, []Draft{signed})
	wantClass(t, err, refusal.Conflict, "it begins at root version 1")

	// What was applied meanwhile makes a draft stale.
	if err := Discard(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	floor := amend(t, o, LowerFloor("greeter", 1))
	signedFloor, err := floor.Draft.Sign(t.Context(), away["root-2"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(t.Context(), o, []Draft{signedFloor}); err != nil {
		t.Fatal(err)
	}
	_, err = Apply(t.Context(), o, []Draft{signed})
	wantClass(t, err, refusal.Conflict, "the trust folder is at 1 and 2")
	if err := os.WriteFile(o.Draft(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	status, err := Show(o)
	if err != nil || status.Draft == nil || status.Draft.Stale == "" {
		t.Errorf("%+v %v", status.Draft, err)
	}
	_, err = Amend(t.Context(), o, Renew(), Signing{})
	wantClass(t, err, refusal.Conflict, "it begins at")
}

func flipHex(c byte) byte {
	if c == '0' {
		return '1'
	}
	return '0'
}

func TestDraftChecksWhatItLeadsTo(t *testing.T) {
	_, f := project(t)
	build := func(change func(*State)) docs {
		s := f.State
		s.Root.Keys = slices.Clone(s.Root.Keys)
		s.Root.Version, s.Targets.Version = 2, 2
		change(&s)
		root, err := trust.NewRoot(s.Root)
		if err != nil {
			t.Fatal(err)
		}
		targets, err := trust.NewTargets(s.Targets)
		if err != nil {
			t.Fatal(err)
		}
		return docs{root, targets}
	}
	stranger := signtest.New(t).PublicKey()
	strangers := build(func(s *State) { s.Root.Keys = []*ecdsa.PublicKey{stranger, signtest.New(t).PublicKey()} })
	two := build(func(s *State) {
		s.Targets.Products = append(slices.Clone(s.Targets.Products), trust.Product{
			Name: "sensor", Threshold: 1, Release: []*ecdsa.PublicKey{s.Root.Keys[0]},
		})
	})
	for name, c := range map[string]struct {
		next docs
		want string
	}{
		"version skipped":         {build(func(s *State) { s.Root.Version = 3 }), "root version 3 where version 2 must come next"},
		"version again":           {build(func(s *State) { s.Targets.Version = 1 }), "targets version 1 where version 2 must come next"},
		"root key as release key": {two, "every key has one use"},
		"targets forgotten":       {docs{Root: strangers.Root}, "the new root does not accept the old targets"},
	} {
		if _, err := newDraft(f.docs(), c.next, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := newDraft(f.docs(), strangers, nil); err != nil {
		t.Error(err)
	}
}

func TestExpiredDraftIsRefused(t *testing.T) {
	o, _ := project(t)
	away := move(t, o, "root-2", "root-3")
	o.Life = 10 * 24 * time.Hour
	out := amend(t, o, Renew())
	d, err := out.Draft.Sign(t.Context(), away["root-2"])
	if err != nil {
		t.Fatal(err)
	}
	o.Now = testNow.Add(11 * 24 * time.Hour)
	_, err = Apply(t.Context(), o, []Draft{d})
	wantClass(t, err, refusal.Expired, "would be expired already")
}

func TestLoadBelievesNothingThatOnlyLiesThere(t *testing.T) {
	o, f := project(t)
	stranger, _ := project(t)
	amend(t, o, Renew())
	theirs := load(t, stranger)
	signer := signtest.New(t)
	forged := f.State.Root
	forged.Version, forged.Keys, forged.Threshold = 3, []*ecdsa.PublicKey{signer.PublicKey()}, 1
	doc, err := trust.NewRoot(forged)
	if err != nil {
		t.Fatal(err)
	}
	if doc, err = trust.Sign(t.Context(), doc, signer); err != nil {
		t.Fatal(err)
	}
	start := files(t, o)
	for name, c := range map[string]struct {
		file  string
		data  []byte
		class refusal.Class
		words string
	}{
		"root of other keys":      {"3.root.json", doc, refusal.Signature, "keys of root version 2: refused (signature)"},
		"wrong number":            {"3.root.json", f.Root(), refusal.Mixed, "3.root.json holds version 1"},
		"other first root":        {"1.root.json", theirs.Root(), refusal.Signature, "threshold not met: 0 of 2"},
		"targets of other keys":   {"targets.json", theirs.Targets, refusal.Signature, "threshold not met: 0 of 2"},
		"not a document":          {"2.root.json", []byte("{}"), refusal.Malformed, "root"},
		"too large":               {"2.root.json", bytes.Repeat([]byte(" "), trust.MaxRoot+1), refusal.Malformed, "more than"},
		"applying something else": {"applying.json", []byte("{}"), refusal.Malformed, "draft"},
	} {
		path := filepath.Join(o.Trust, c.file)
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(o.Trust)
		if refusal.Of(err) != c.class || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want %q", name, err, c.words)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if old, ok := start["trust/"+c.file]; ok {
			if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A change that was applied long ago and comes back as if it were being applied.
	if err := os.WriteFile(filepath.Join(o.Trust, applyingFile), completeDraft(t, stranger), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(o.Trust)
	wantClass(t, err, refusal.Mixed, "a change of another state")
	_, err = Amend(t.Context(), o, Renew(), Signing{})
	wantClass(t, err, refusal.Mixed, "a change of another state")

	if _, err := Load(t.TempDir()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "pawl keys init") {
		t.Error(err)
	}
}

// completeDraft returns a draft of the project with every signature.
func completeDraft(t testing.TB, o Options) []byte {
	t.Helper()
	out, err := Amend(t.Context(), o, Renew(), Signing{None: true, Keys: []string{o.RootKey(1)}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := o.OpenKey(o.RootKey(2))
	if err != nil {
		t.Fatal(err)
	}
	d, err := out.Draft.Sign(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	data, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRotationKeepsOrEndsTrust(t *testing.T) {
	o, f := project(t)
	old := f.State.Targets.Products[0]
	second, third := newKey(t, o, "second"), newKey(t, o, "third")
	product := func() trust.Product { return load(t, o).State.Targets.Products[0] }
	amend(t, o, RotateProduct("greeter", second, nil, false))
	if p := product(); !p.Release[0].Equal(second) || len(p.Release) != 1 || !contains(p.StatementKeys(), old.Release[0]) || !p.Evidence[0].Equal(old.Evidence[0]) {
		t.Errorf("%+v", p)
	}
	name := "trust/release-greeter-" + Short(old.Release[0]) + ".pub"
	if files(t, o)[name] == "" {
		t.Errorf("no %s", name)
	}
	amend(t, o, RotateProduct("greeter", nil, third, false))
	if p := product(); !p.Evidence[0].Equal(third) || len(p.Evidence) != 2 {
		t.Errorf("%+v", p)
	}
	amend(t, o, RotateProduct("greeter", nil, nil, true))
	if p := product(); len(p.Former) != 0 || len(p.Release) != 1 || len(p.Evidence) != 1 || !p.Evidence[0].Equal(third) || !p.Release[0].Equal(second) {
		t.Errorf("%+v", p)
	}
	if files(t, o)[name] != "" {
		t.Errorf("%s is still there", name)
	}
	amend(t, o, LowerFloor("greeter", 7))
	amend(t, o, LowerFloor("greeter", 5))
	if r := product().Recovery; r != (trust.Recovery{Epoch: 2, Floor: 5}) {
		t.Errorf("%+v", r)
	}
}

func TestShow(t *testing.T) {
	o, f := project(t)
	s, err := Show(o)
	if err != nil || len(s.Warnings) > 0 || s.Draft != nil || len(s.Keys) != 6 {
		t.Fatalf("%+v %v", s, err)
	}
	if d := s.Documents[0]; d.DaysLeft != 730 || len(d.SignedBy) != 3 || d.Threshold != 2 {
		t.Errorf("%+v", d)
	}
	if r := s.Keys[4]; r.Role != "release" || r.Product != "greeter" || r.Private != o.ReleaseKey("greeter") || r.Public != filepath.Join(o.Trust, "release-greeter.pub") {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct {
		after time.Duration
		want  []string
	}{
		{TargetsLife - WarnBefore - 24*time.Hour, nil},
		{TargetsLife - WarnBefore + 24*time.Hour, []string{"targets expires in 59 days"}},
		{TargetsLife + time.Hour, []string{"targets expired on 2028-02-29"}},
		{RootLife - 48*time.Hour, []string{"root expires in 2 days", "targets expired"}},
	} {
		o.Now = testNow.Add(c.after)
		s, err := Show(o)
		if err != nil || len(s.Warnings) != len(c.want) {
			t.Errorf("%v: %v %v", c.after, s.Warnings, err)
			continue
		}
		for i, words := range c.want {
			if !strings.HasPrefix(s.Warnings[i], words) {
				t.Errorf("%v: %q, want %q", c.after, s.Warnings[i], words)
			}
		}
	}
	o.Now = testNow
	amend(t, o, RemoveRootKey(Short(f.State.Root.Keys[0])))
	amend(t, o, RemoveProduct("greeter"))
	s, err = Show(o)
	if err != nil || len(s.Warnings) != 2 || !strings.HasPrefix(s.Warnings[0], "all 2 root keys must sign") || !strings.HasPrefix(s.Warnings[1], "there is no product") {
		t.Errorf("%v %v", s.Warnings, err)
	}
}

func TestNewKey(t *testing.T) {
	o := options(t)
	path := filepath.Join(t.TempDir(), "alice.key")
	key, err := NewKey(t.Context(), o, path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewKey(t.Context(), o, path)
	wantClass(t, err, refusal.Conflict, "exists, and nothing is overwritten")
	if err := os.Remove(pubOf(path)); err != nil { // as if killed between the two files
		t.Fatal(err)
	}
	again, err := NewKey(t.Context(), o, path)
	if err != nil || !again.Equal(key) {
		t.Error(err)
	}
	if pub, err := ReadPublicKey(pubOf(path)); err != nil || !pub.Equal(key) {
		t.Error(err)
	}
	if _, err := NewKey(t.Context(), o, filepath.Join(t.TempDir(), "alice.txt")); err == nil {
		t.Error("a name without .key")
	}
	_, err = ReadPublicKey(path)
	wantClass(t, err, refusal.Malformed, "public key")
}

func FuzzParseDraft(f *testing.F) {
	o, folder := project(f)
	f.Add(completeDraft(f, o))
	f.Add(folder.Root())
	f.Add([]byte(`{"draft":1,"base":{},"next":{"root":{"signatures":[],"signed":{}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDraft(data)
		if err != nil {
			if refusal.Of(err) != refusal.Malformed && refusal.Of(err) != refusal.Signature {
				t.Fatal(err)
			}
			return
		}
		d.Changes()
		again, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseDraft(again); err != nil {
			t.Fatal(err)
		}
	})
}
