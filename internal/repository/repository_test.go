// SPDX-License-Identifier: Apache-2.0

package repository_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/blob/blobtest"
	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/repository/repositorytest"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
)

const product = repositorytest.Product

func TestContract(t *testing.T) {
	repositorytest.Run(t, func(t *testing.T, m *repositorytest.Maker) repositorytest.Env {
		dir := t.TempDir()
		first := create(t, m, store(t, dir))
		second, err := repository.Open(t.Context(), store(t, dir), m.Online, options(m))
		must(t, err)
		return repositorytest.Env{First: first, Second: second, Blobs: store(t, dir)}
	})
}

func options(m *repositorytest.Maker) repository.Options {
	return repository.Options{Now: func() time.Time { return m.Now }}
}

func store(t *testing.T, dir string) *folder.Store {
	t.Helper()
	s, err := folder.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func create(t *testing.T, m *repositorytest.Maker, blobs blob.Store) *repository.Repository {
	t.Helper()
	r, err := repository.Create(t.Context(), blobs, m.Roots(), m.TopTargets(), m.Online, options(m))
	must(t, err)
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCreate(t *testing.T) {
	m := repositorytest.NewMaker(t)
	blobs := store(t, t.TempDir())
	if _, err := repository.Open(t.Context(), blobs, m.Online, options(m)); !errors.Is(err, repository.ErrNone) {
		t.Fatalf("open of nothing: %v", err)
	}
	create(t, m, blobs)
	create(t, m, blobs) // the same again
	repositorytest.Device(t, m, blobs)
	other := repositorytest.NewMaker(t)
	_, err := repository.Create(t.Context(), blobs, other.Roots(), other.TopTargets(), other.Online, options(m))
	if refusal.Of(err) != refusal.Conflict {
		t.Fatalf("another repository in the same place: %v", err)
	}
	for name, try := range map[string]func() error{
		"wrong online key": func() error {
			_, err := repository.Create(t.Context(), store(t, t.TempDir()), m.Roots(), m.TopTargets(), other.Online, options(m))
			return err
		},
		"other targets": func() error {
			_, err := repository.Create(t.Context(), store(t, t.TempDir()), m.Roots(), other.TopTargets(), m.Online, options(m))
			return err
		},
		"no root": func() error {
			_, err := repository.Create(t.Context(), store(t, t.TempDir()), nil, m.TopTargets(), m.Online, options(m))
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: created", name)
		}
	}
}

// The public keys of a product lie beside the metadata for people with cosign.
func TestKeysAreFiles(t *testing.T) {
	m := repositorytest.NewMaker(t)
	blobs := store(t, t.TempDir())
	create(t, m, blobs)
	var names []string
	must(t, blobs.List(t.Context(), "targets/keys/", func(i blob.Info) error { names = append(names, i.Name); return nil }))
	if len(names) != 2 || !strings.HasSuffix(names[0], ".pub") {
		t.Fatalf("keys: %q", names)
	}
}

// crash stops a process at one point: an injector may not return.
type crash struct{ point string }

// killAt returns a context in which the n-th point panics, and a function that tells how many points were passed.
func killAt(ctx context.Context, n int) (context.Context, *[]string) {
	var passed []string
	return fault.With(ctx, func(point string) {
		passed = append(passed, point)
		if len(passed) == n {
			panic(crash{point})
		}
	}), &passed
}

// survive runs fn and reports whether it was killed.
func survive(fn func()) (killed string) {
	defer func() {
		if c, ok := recover().(crash); ok {
			killed = c.point
		}
	}()
	fn()
	return ""
}

// TestCrashAnywhere kills the whole life of a repository at every point, in both forms: before an effect and after it. The
// next process does everything again and must end where an undisturbed run ends.
func TestCrashAnywhere(t *testing.T) {
	m := repositorytest.NewMaker(t)
	first := m.Draft("1.0.0", nil)
	firstDoc := m.Sign(first)
	m.Role = first.Role
	second := m.Draft("1.0.1", func(d *repositorytest.Draft) {
		for _, name := range []string{"a.txt", "b.txt"} { // the same bytes in two places
			d.Files[trust.TargetPath(product, d.Statement.Version, name)] = []byte("shared")
		}
	})
	secondDoc := m.Sign(second)
	m.PushRoot(m.RootKeys...)
	m.PushTargets(m.RootKeys...)
	root2, targets2 := m.Doc(trust.RootRole, 2), m.Doc(trust.TargetsRole, 2)

	life := func(ctx context.Context, t *testing.T, blobs blob.Store) {
		r, err := repository.Create(ctx, blobs, m.Roots(), m.TopTargets(), m.Online, options(m))
		if refusal.Of(err) == refusal.Conflict {
			// It was created and changed already before the kill.
			r, err = repository.Open(ctx, blobs, m.Online, options(m))
		}
		must(t, err)
		for _, release := range []struct {
			draft repositorytest.Draft
			doc   []byte
		}{{first, firstDoc}, {second, secondDoc}} {
			current, err := r.Metadata(ctx, product)
			if err == nil {
				if head, err := trust.Describe(current); err == nil && head.Version > release.draft.Role.Version {
					continue // what a release journal knows
				}
			}
			for _, data := range release.draft.Files {
				must(t, r.Stage(ctx, digest.Of(data), int64(len(data)), bytes.NewReader(data)))
			}
			must(t, r.Publish(ctx, product, release.doc))
		}
		must(t, r.Trust(ctx, [][]byte{root2}, targets2))
	}

	undisturbed := blobtest.NewMemory()
	ctx, points := killAt(t.Context(), 0)
	life(ctx, t, undisturbed)
	want := shape(t, undisturbed)
	seen := map[string]bool{}
	for n := 1; n <= len(*points); n++ {
		blobs := blobtest.NewMemory()
		ctx, _ := killAt(t.Context(), n)
		point := survive(func() { life(ctx, t, blobs) })
		if point == "" {
			t.Fatalf("point %d was not reached", n)
		}
		seen[point] = true
		life(t.Context(), t, blobs)
		if got := shape(t, blobs); got != want {
			t.Fatalf("after a kill at %s:\n%s\nwant:\n%s", point, got, want)
		}
		repositorytest.Device(t, m, blobs)
	}
	for _, name := range []string{"stage", "record", "move.greeter/1.0.0/greeter", "move.metadata/1.greeter.json", "move.metadata/2.snapshot.json", "timestamp", "clear"} {
		for _, form := range []string{":before", ":after"} {
			if !seen["repository."+name+form] {
				t.Errorf("no kill at %s", "repository."+name+form)
			}
		}
	}
}

// shape is the state of a repository without what differs between two runs: signatures of snapshot and timestamp, and
// uploads that were staged once more by the second run.
func shape(t *testing.T, s blob.Store) string {
	t.Helper()
	var out strings.Builder
	must(t, s.List(t.Context(), "", func(info blob.Info) error {
		if strings.HasPrefix(info.Name, "staging/") {
			return nil
		}
		data, err := blob.ReadAll(t.Context(), s, info.Name, 1<<20)
		sum := digest.Of(data).Short()
		if strings.HasSuffix(info.Name, "snapshot.json") || strings.HasSuffix(info.Name, "timestamp.json") {
			head, derr := trust.Describe(data)
			sum, err = fmt.Sprint(head.Version, head.Expires), errors.Join(err, derr)
		}
		fmt.Fprintln(&out, info.Name, sum)
		return err
	}))
	return out.String()
}

// A process that is killed in the middle is finished by the next one, whatever that one wants to do.
func TestAnybodyFinishes(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, m *repositorytest.Maker, blobs blob.Store){
		"open": func(t *testing.T, m *repositorytest.Maker, blobs blob.Store) {
			_, err := repository.Open(t.Context(), blobs, m.Online, options(m))
			must(t, err)
		},
		"refresh by one that was open before": func(t *testing.T, m *repositorytest.Maker, blobs blob.Store) {},
	} {
		t.Run(name, func(t *testing.T) {
			m := repositorytest.NewMaker(t)
			blobs := store(t, t.TempDir())
			r := create(t, m, blobs)
			d := m.Draft("1.0.0", nil)
			m.Stage(r, d)
			doc := m.Sign(d)
			n := 0
			ctx := fault.With(t.Context(), func(point string) {
				if point == "repository.move.greeter/1.0.0/greeter:after" {
					n++
					panic(crash{point})
				}
			})
			if survive(func() { must(t, r.Publish(ctx, product, doc)) }) == "" || n != 1 {
				t.Fatal("not killed")
			}
			next(t, m, blobs)
			_, err := r.Refresh(t.Context())
			must(t, err)
			role, ok := repositorytest.Device(t, m, blobs).Role(product)
			if !ok || role.Version != 1 {
				t.Fatalf("version %d is public", role.Version)
			}
		})
	}
}

// A change whose pieces are lost is given up and does not block the next one.
func TestLostPiece(t *testing.T) {
	m := repositorytest.NewMaker(t)
	blobs := store(t, t.TempDir())
	r := create(t, m, blobs)
	d := m.Draft("1.0.0", nil)
	m.Stage(r, d)
	doc := m.Sign(d)
	ctx := fault.With(t.Context(), func(point string) {
		if point == "repository.record:after" {
			panic(crash{point})
		}
	})
	if survive(func() { must(t, r.Publish(ctx, product, doc)) }) == "" {
		t.Fatal("not killed")
	}
	must(t, blobs.Delete(t.Context(), "staging/"+digest.Of(doc).Hex()))
	err := r.Publish(t.Context(), product, doc)
	must(t, err)
	repositorytest.Device(t, m, blobs)
	m.Role = d.Role
	m.Release(r, "1.0.1")
	repositorytest.Device(t, m, blobs)
}

func TestRefresh(t *testing.T) {
	m := repositorytest.NewMaker(t)
	blobs := store(t, t.TempDir())
	r := create(t, m, blobs)
	m.Release(r, "1.0.0")
	// The server was off for a month: everything online has expired, and is renewed.
	m.Now = m.Now.AddDate(0, 1, 0)
	r, err := repository.Open(t.Context(), blobs, m.Online, options(m))
	must(t, err)
	expires, err := r.Refresh(t.Context())
	must(t, err)
	if want := m.Now.Add(repository.DefaultExpiry); !expires.Equal(want) {
		t.Fatalf("expires %s, want %s", expires, want)
	}
	repositorytest.Device(t, m, blobs)

	// The clock goes back by a few minutes, as between two nodes: fine. By a day: refused, and nothing changes.
	m.Now = m.Now.Add(-10 * time.Minute)
	_, err = r.Refresh(t.Context())
	must(t, err)
	m.Now = m.Now.Add(-24 * time.Hour)
	if _, err := r.Refresh(t.Context()); refusal.Of(err) != refusal.Expired || !strings.Contains(err.Error(), "clock of this machine") {
		t.Fatalf("clock a day behind: %v", err)
	}
	// The clock jumps by years: signing now would tell every device that this is the time.
	m.Now = m.Now.AddDate(5, 0, 0)
	if _, err := r.Refresh(t.Context()); refusal.Of(err) != refusal.Expired {
		t.Fatalf("clock years ahead: %v", err)
	}
	m.Now = m.Now.AddDate(-5, 0, 2)
	repositorytest.Device(t, m, blobs)
}

func TestWithoutOnlineKey(t *testing.T) {
	m := repositorytest.NewMaker(t)
	blobs := store(t, t.TempDir())
	create(t, m, blobs)
	r, err := repository.Open(t.Context(), blobs, nil, options(m))
	must(t, err)
	if _, err := r.Refresh(t.Context()); refusal.Of(err) != refusal.Key {
		t.Fatalf("refresh: %v", err)
	}
	other, err := repository.Open(t.Context(), blobs, trusttest.NewKey(t), options(m))
	must(t, err)
	if _, err := other.Refresh(t.Context()); refusal.Of(err) != refusal.Key || !strings.Contains(err.Error(), "is not the key that root version 1 names") {
		t.Fatalf("refresh with another key: %v", err)
	}
}

func TestExportAndCheck(t *testing.T) {
	m := repositorytest.NewMaker(t)
	dir := t.TempDir()
	blobs := store(t, dir)
	r := create(t, m, blobs)
	m.Release(r, "1.0.0")
	out := store(t, filepath.Join(t.TempDir(), "static"))
	var last, total int64
	for range 2 {
		must(t, r.Export(t.Context(), out, func(done, all int64) { last, total = done, all }))
		repositorytest.Device(t, m, out)
		if last != total || total == 0 {
			t.Fatalf("progress ends at %d of %d", last, total)
		}
		d := m.Release(r, "1.0."+fmt.Sprint(m.Role.Version))
		_ = d
	}
	must(t, r.Check(t.Context(), nil))
	exported, err := repository.Open(t.Context(), out, nil, options(m))
	must(t, err)
	must(t, exported.Check(t.Context(), nil))
	for _, prefix := range []string{"staging", ".lock"} {
		if err := out.List(t.Context(), prefix, func(i blob.Info) error { return errors.New(i.Name) }); err != nil {
			t.Errorf("exported: %v", err)
		}
	}

	// One flipped byte in an artifact, one target gone: both are reported, and neither is exported.
	var names []string
	must(t, blobs.List(t.Context(), "targets/greeter/", func(i blob.Info) error { names = append(names, i.Name); return nil }))
	path := filepath.Join(dir, filepath.FromSlash(names[0]))
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
	must(t, blobs.Delete(t.Context(), names[len(names)-1]))
	err = r.Check(t.Context(), nil)
	if refusal.Of(err) != refusal.Digest || !strings.Contains(err.Error(), "digest does not match") || !strings.Contains(err.Error(), "it is missing") {
		t.Fatalf("check: %v", err)
	}
	fresh := store(t, t.TempDir())
	if err := r.Export(t.Context(), fresh, nil); err == nil {
		t.Fatal("exported what is damaged")
	}
	if _, err := fresh.Stat(t.Context(), "metadata/timestamp.json"); !errors.Is(err, blob.ErrNotExist) {
		t.Fatalf("an export that failed looks whole: %v", err)
	}
	m.Now = m.Now.AddDate(0, 0, 8)
	if err := r.Check(t.Context(), nil); !strings.Contains(err.Error(), "timestamp metadata: it was valid until") {
		t.Fatalf("check after a week: %v", err)
	}
}

func TestSweep(t *testing.T) {
	m := repositorytest.NewMaker(t)
	dir := t.TempDir()
	blobs := store(t, dir)
	r := create(t, m, blobs)
	for i := range 15 {
		m.Release(r, fmt.Sprintf("1.0.%d", i))
	}
	data := []byte("never published")
	must(t, r.Stage(t.Context(), digest.Of(data), int64(len(data)), bytes.NewReader(data)))
	if n, err := r.Sweep(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Fatalf("swept %d young blobs, %v", n, err)
	}
	n, err := r.Sweep(t.Context(), time.Now().Add(time.Hour))
	must(t, err)
	// Roles 1 to 4, snapshots 1 to 5, and the upload.
	if n != 4+5+1 {
		t.Fatalf("swept %d", n)
	}
	repositorytest.Device(t, m, blobs)
	must(t, r.Check(t.Context(), nil))
	m.Release(r, "1.0.15")
}

// TestTamperedStore changes what lies in the store behind the repository's back: nothing is signed on top of it.
func TestTamperedStore(t *testing.T) {
	for _, name := range []string{"timestamp.json", "2.snapshot.json", "1.targets.json", "1.root.json", "1.greeter.json"} {
		t.Run(name, func(t *testing.T) {
			m := repositorytest.NewMaker(t)
			dir := t.TempDir()
			blobs := store(t, dir)
			r := create(t, m, blobs)
			m.Release(r, "1.0.0")
			path := filepath.Join(dir, "metadata", name)
			data, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, bytes.Replace(data, []byte(`"expires":"20`), []byte(`"expires":"21`), 1), 0o600))
			d := m.Draft("1.0.1", nil)
			m.Stage(r, d)
			if err := r.Publish(t.Context(), product, m.Sign(d)); err == nil {
				t.Fatal("published on top of it")
			}
		})
	}
}

func BenchmarkPublishWith1000Releases(b *testing.B) {
	m := repositorytest.NewMaker(b)
	s, err := folder.Open(b.TempDir())
	must(b, err)
	defer s.Close()
	r, err := repository.Create(b.Context(), s, m.Roots(), m.TopTargets(), m.Online, options(m))
	must(b, err)
	for i := range 1000 {
		d := m.Draft(fmt.Sprintf("1.0.%d", i), nil)
		m.Stage(r, d)
		d.Role.Version = 1
		m.Role.Targets = d.Role.Targets
		if i == 999 {
			must(b, r.Publish(b.Context(), product, m.Sign(d)))
			m.Role = d.Role
		}
	}
	for i := 1000; b.Loop(); i++ {
		m.Release(r, fmt.Sprintf("1.0.%d", i))
	}
}
