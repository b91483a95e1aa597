// SPDX-License-Identifier: Apache-2.0

// Package blobtest is the contract of a blob store as tests. Every adapter runs them.
package blobtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/refusal"
)

// Run runs the contract. open returns two stores over the same empty storage, as two processes have them.
func Run(t *testing.T, open func(t *testing.T) (first, second blob.Store)) {
	for name, test := range map[string]func(t *testing.T, first, second blob.Store){
		"create":           create,
		"create torn":      createTorn,
		"create races":     createRaces,
		"open at offset":   openAtOffset,
		"missing":          missing,
		"swap":             swap,
		"swap races":       swapRaces,
		"rename":           rename,
		"rename races":     renameRaces,
		"delete":           remove,
		"list":             list,
		"bad names":        badNames,
		"cancelled":        cancelled,
		"upload":           uploading(upload),
		"upload refused":   uploading(uploadRefused),
		"upload exclusive": uploading(uploadExclusive),
	} {
		t.Run(name, func(t *testing.T) {
			first, second := open(t)
			test(t, first, second)
		})
	}
}

func create(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	const name = "metadata/1.root.json"
	for _, s := range []blob.Store{first, second, first} {
		if err := s.Create(ctx, name, strings.NewReader("one")); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"two", "", "one and more"} {
		if err := second.Create(ctx, name, strings.NewReader(other)); !errors.Is(err, blob.ErrExists) {
			t.Fatalf("%q: %v", other, err)
		}
	}
	want(t, second, name, "one")
	if err := first.Create(ctx, "empty", strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	want(t, second, "empty", "")
}

func createTorn(t *testing.T, first, second blob.Store) {
	torn := errors.New("torn")
	src := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(torn))
	if err := first.Create(t.Context(), "a/b", src); !errors.Is(err, torn) {
		t.Fatalf("got %v", err)
	}
	wantMissing(t, second, "a/b")
	wantList(t, second, "")
}

func createRaces(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	var won atomic.Int32
	var winner atomic.Value
	together(8, func(i int) {
		text := strings.Repeat(fmt.Sprint(i), 100000)
		switch err := pick(i, first, second).Create(ctx, "targets/x", strings.NewReader(text)); {
		case err == nil:
			won.Add(1)
			winner.Store(text)
		case !errors.Is(err, blob.ErrExists):
			t.Errorf("creator %d: %v", i, err)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d of 8 creators with different bytes won", won.Load())
	}
	want(t, first, "targets/x", winner.Load().(string))

	together(8, func(i int) {
		if err := pick(i, first, second).Create(ctx, "targets/same", strings.NewReader("same")); err != nil {
			t.Errorf("creator %d: %v", i, err)
		}
	})
}

func openAtOffset(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	must(t, first.Create(ctx, "x", strings.NewReader("0123456789")))
	for offset := range int64(11) {
		rc, info, err := second.Open(ctx, "x", offset)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(rc)
		must(t, errors.Join(err, rc.Close()))
		if string(data) != "0123456789"[offset:] || info.Size != 10 || info.Name != "x" || info.Modified.IsZero() {
			t.Fatalf("at %d: %q %+v", offset, data, info)
		}
	}
	for _, offset := range []int64{-1, 11, 1 << 62} {
		if _, _, err := second.Open(ctx, "x", offset); !errors.Is(err, blob.ErrOffset) {
			t.Fatalf("at %d: %v", offset, err)
		}
	}
}

func missing(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	must(t, first.Create(ctx, "a/b", strings.NewReader("x")))
	for _, name := range []string{"b", "a", "a/b/c", "a/bb"} {
		wantMissing(t, second, name)
	}
}

func swap(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	const name = "metadata/timestamp.json"
	refused := func(old []byte) {
		t.Helper()
		if err := second.Swap(ctx, name, old, []byte("wrong")); !errors.Is(err, blob.ErrChanged) {
			t.Fatalf("swap of %q: %v", old, err)
		}
	}
	refused([]byte("something"))
	refused([]byte{})
	must(t, first.Swap(ctx, name, nil, []byte("one")))
	refused(nil)
	refused([]byte{})
	refused([]byte("on"))
	refused([]byte("ones"))
	must(t, second.Swap(ctx, name, []byte("one"), []byte("two")))
	want(t, first, name, "two")
}

// swapRaces counts up by compare-and-swap from many sides: no step may be lost.
func swapRaces(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	must(t, first.Swap(ctx, "n", nil, []byte("0")))
	const sides, steps = 4, 10
	together(sides, func(i int) {
		s := pick(i, first, second)
		for done := 0; done < steps; {
			old, err := blob.ReadAll(ctx, s, "n", 100)
			if err != nil {
				t.Errorf("side %d: %v", i, err)
				return
			}
			var n int
			if _, err := fmt.Sscan(string(old), &n); err != nil {
				t.Errorf("side %d read %q: %v", i, old, err)
				return
			}
			err = s.Swap(ctx, "n", old, fmt.Append(nil, n+1))
			switch {
			case err == nil:
				done++
			case !errors.Is(err, blob.ErrChanged):
				t.Errorf("side %d: %v", i, err)
				return
			}
		}
	})
	want(t, second, "n", fmt.Sprint(sides*steps))
}

func rename(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	must(t, first.Create(ctx, "staging/x", strings.NewReader("x")))
	must(t, second.Rename(ctx, "staging/x", "targets/p/x"))
	wantMissing(t, first, "staging/x")
	want(t, first, "targets/p/x", "x")

	if err := first.Rename(ctx, "staging/x", "targets/p/x"); !errors.Is(err, blob.ErrNotExist) {
		t.Fatalf("rename of nothing: %v", err)
	}
	must(t, first.Create(ctx, "staging/x", strings.NewReader("x")))
	must(t, first.Rename(ctx, "staging/x", "targets/p/x"))
	wantMissing(t, second, "staging/x")

	must(t, first.Create(ctx, "staging/y", strings.NewReader("y")))
	if err := first.Rename(ctx, "staging/y", "targets/p/x"); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("rename onto other bytes: %v", err)
	}
	want(t, second, "staging/y", "y")
	want(t, second, "targets/p/x", "x")
	must(t, first.Rename(ctx, "staging/y", "staging/y"))
	want(t, second, "staging/y", "y")
}

func renameRaces(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	must(t, first.Create(ctx, "staging/x", strings.NewReader("x")))
	var won atomic.Int32
	together(8, func(i int) {
		switch err := pick(i, first, second).Rename(ctx, "staging/x", "targets/x"); {
		case err == nil:
			won.Add(1)
		case !errors.Is(err, blob.ErrNotExist):
			t.Errorf("side %d: %v", i, err)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d of 8 renames of one blob won", won.Load())
	}
	want(t, first, "targets/x", "x")
}

func remove(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	must(t, first.Create(ctx, "a/b", strings.NewReader("x")))
	for _, s := range []blob.Store{first, second} {
		must(t, s.Delete(ctx, "a/b"))
		wantMissing(t, s, "a/b")
	}
	must(t, first.Create(ctx, "a/b", strings.NewReader("other")))
	want(t, second, "a/b", "other")
}

func list(t *testing.T, first, second blob.Store) {
	ctx := t.Context()
	// In the order of whole names: '-' and '.' come before '/'.
	names := []string{"a-b", "a.b", "a/b", "a/b-c", "a/b.c", "a/d/e", "a0", "b"}
	for i := len(names) - 1; i >= 0; i-- {
		must(t, first.Create(ctx, names[i], strings.NewReader(names[i])))
	}
	wantList(t, second, "", names...)
	wantList(t, second, "a", names[:7]...)
	wantList(t, second, "a/", names[2:6]...)
	wantList(t, second, "a/b", names[2:5]...)
	wantList(t, second, "a/d/e", names[5])
	wantList(t, second, "a/d/e/")
	wantList(t, second, "nothing/")

	stop := errors.New("stop")
	n := 0
	err := second.List(ctx, "", func(info blob.Info) error {
		if info.Size != int64(len(info.Name)) {
			t.Errorf("%s: size %d", info.Name, info.Size)
		}
		n++
		return stop
	})
	if !errors.Is(err, stop) || n != 1 {
		t.Fatalf("after %d: %v", n, err)
	}
}

func badNames(t *testing.T, first, _ blob.Store) {
	ctx := t.Context()
	must(t, first.Create(ctx, "good", strings.NewReader("x")))
	for _, name := range []string{
		"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "./a", "a/./b", "a//b", "a/", ".hidden", "a/.hidden", "a.", `a\b`,
		`..\x`, "c:", "a b", "a\x00b", "a\nb", "é", strings.Repeat("a", blob.MaxName+1),
	} {
		refused := func(what string, err error) {
			if !errors.Is(err, blob.ErrName) {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
		_, _, err := first.Open(ctx, name, 0)
		refused("open", err)
		_, err = first.Stat(ctx, name)
		refused("stat", err)
		refused("create", first.Create(ctx, name, strings.NewReader("x")))
		refused("swap", first.Swap(ctx, name, nil, []byte("x")))
		refused("rename from", first.Rename(ctx, name, "x"))
		refused("rename to", first.Rename(ctx, "good", name))
		refused("delete", first.Delete(ctx, name))
		if up, ok := first.(blob.Uploader); ok {
			_, err = up.Received(ctx, name)
			refused("received", err)
			_, err = up.Continue(ctx, name, 0, strings.NewReader("x"))
			refused("continue", err)
			refused("complete", up.Complete(ctx, name, func(io.Reader) error { return nil }))
		}
	}
	wantList(t, first, "", "good")
}

func cancelled(t *testing.T, first, _ blob.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	src := io.MultiReader(strings.NewReader("half"), readFunc(func([]byte) (int, error) { cancel(); return 0, nil }))
	if err := first.Create(ctx, "x", src); !errors.Is(err, context.Canceled) {
		t.Fatalf("create: %v", err)
	}
	wantMissing(t, first, "x")
	if err := first.Swap(ctx, "x", nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("swap: %v", err)
	}
}

// uploading runs a test of the optional ability; a store that has it not has kept its contract.
func uploading(test func(*testing.T, blob.Store, blob.Uploader, blob.Uploader)) func(t *testing.T, first, second blob.Store) {
	return func(t *testing.T, first, second blob.Store) {
		up, ok := first.(blob.Uploader)
		again, also := second.(blob.Uploader)
		if ok != also {
			t.Fatal("only one of two equal stores is an uploader")
		}
		if ok {
			test(t, second, up, again)
		}
	}
}

func upload(t *testing.T, second blob.Store, up, again blob.Uploader) {
	ctx := t.Context()
	const name = "staging/x"
	received(t, up, name, 0)
	torn := errors.New("torn")
	n, err := up.Continue(ctx, name, 0, io.MultiReader(strings.NewReader("0123"), iotest.ErrReader(torn)))
	if n != 4 || !errors.Is(err, torn) {
		t.Fatalf("torn: %d, %v", n, err)
	}
	received(t, again, name, 4)
	wantMissing(t, second, name)
	wantList(t, second, "")
	for _, offset := range []int64{0, 3, 5} {
		if _, err := again.Continue(ctx, name, offset, strings.NewReader("x")); !errors.Is(err, blob.ErrChanged) {
			t.Fatalf("at %d: %v", offset, err)
		}
	}
	if n, err = again.Continue(ctx, name, 4, strings.NewReader("456789")); n != 10 || err != nil {
		t.Fatalf("rest: %d, %v", n, err)
	}
	must(t, up.Complete(ctx, name, expect("0123456789")))
	want(t, second, name, "0123456789")
	received(t, again, name, 0)
	if err := up.Complete(ctx, name, expect("")); err == nil {
		t.Fatal("completed twice")
	}

	// The same upload again, and another one, meet the blob that is there.
	must2(t)(up.Continue(ctx, name, 0, strings.NewReader("0123456789")))
	must(t, up.Complete(ctx, name, expect("0123456789")))
	must2(t)(up.Continue(ctx, name, 0, strings.NewReader("other")))
	if err := up.Complete(ctx, name, expect("other")); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("other bytes: %v", err)
	}
	want(t, second, name, "0123456789")
	received(t, again, name, 0)
}

func uploadRefused(t *testing.T, second blob.Store, up, again blob.Uploader) {
	ctx := t.Context()
	must2(t)(up.Continue(ctx, "x", 0, strings.NewReader("bad")))
	no := errors.New("no")
	if err := up.Complete(ctx, "x", func(io.Reader) error { return no }); !errors.Is(err, no) {
		t.Fatalf("got %v", err)
	}
	received(t, again, "x", 0)
	wantMissing(t, second, "x")
}

func uploadExclusive(t *testing.T, second blob.Store, up, again blob.Uploader) {
	ctx := t.Context()
	busy := func(what string, err error) {
		if refusal.Of(err) != refusal.Busy {
			t.Errorf("%s beside another upload: %v", what, err)
		}
	}
	src := readFunc(func([]byte) (int, error) {
		_, err := again.Continue(ctx, "x", 0, strings.NewReader("x"))
		busy("continue", err)
		busy("complete", again.Complete(ctx, "x", func(io.Reader) error { return nil }))
		return 0, io.EOF
	})
	must2(t)(up.Continue(ctx, "x", 0, src))
	must2(t)(again.Continue(ctx, "x", 0, strings.NewReader("x")))
	must(t, again.Complete(ctx, "x", expect("x")))
	want(t, second, "x", "x")
}

func received(t *testing.T, up blob.Uploader, name string, n int64) {
	t.Helper()
	if got, err := up.Received(t.Context(), name); got != n || err != nil {
		t.Fatalf("received %d, want %d, %v", got, n, err)
	}
}

func expect(text string) func(io.Reader) error {
	return func(src io.Reader) error {
		data, err := io.ReadAll(src)
		if err == nil && string(data) != text {
			err = fmt.Errorf("%q, want %q", data, text)
		}
		return err
	}
}

func want(t *testing.T, s blob.Store, name, text string) {
	t.Helper()
	data, err := blob.ReadAll(t.Context(), s, name, 1<<20)
	if err != nil || string(data) != text {
		t.Fatalf("%s: %d bytes %x, want %d bytes %x, %v", name, len(data), sha256.Sum256(data), len(text), sha256.Sum256([]byte(text)), err)
	}
	info, err := s.Stat(t.Context(), name)
	if err != nil || info.Size != int64(len(text)) || info.Name != name {
		t.Fatalf("%s: %+v, %v", name, info, err)
	}
}

func wantMissing(t *testing.T, s blob.Store, name string) {
	t.Helper()
	if _, err := s.Stat(t.Context(), name); !errors.Is(err, blob.ErrNotExist) {
		t.Fatalf("stat %s: %v", name, err)
	}
	if _, _, err := s.Open(t.Context(), name, 0); !errors.Is(err, blob.ErrNotExist) {
		t.Fatalf("open %s: %v", name, err)
	}
}

func wantList(t *testing.T, s blob.Store, prefix string, names ...string) {
	t.Helper()
	var got []string
	err := s.List(t.Context(), prefix, func(info blob.Info) error {
		got = append(got, info.Name)
		return nil
	})
	if err != nil || strings.Join(got, " ") != strings.Join(names, " ") {
		t.Fatalf("list %q: %q, want %q, %v", prefix, got, names, err)
	}
}

func pick(i int, first, second blob.Store) blob.Store {
	if i%2 == 0 {
		return first
	}
	return second
}

func together(n int, fn func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must2(t *testing.T) func(int64, error) {
	return func(_ int64, err error) {
		t.Helper()
		must(t, err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
