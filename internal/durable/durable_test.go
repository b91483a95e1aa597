// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
)

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, text := range []string{"one", "two, longer", "3"} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		only(t, path, text)
	}
}

func TestWriteFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	sum, n, err := WriteFrom(path, bytes.NewReader(data), 0o644)
	if err != nil || n != int64(len(data)) || sum != digest.Of(data) {
		t.Fatalf("%s, %d, %v", sum, n, err)
	}
	only(t, path, string(data))
}

// A failure at any step leaves the old content and no other file. Failures of the disk itself are in full_linux_test.go.
func TestFailureLeavesOldContent(t *testing.T) {
	torn := errors.New("torn")
	good := []byte("new")
	for name, try := range map[string]func(path string) error{
		"source fails": func(path string) error {
			_, _, err := WriteFrom(path, io.MultiReader(strings.NewReader("half of"), iotest.ErrReader(torn)), 0o644)
			return err
		},
		"wrong bytes": func(path string) error {
			return WriteVerified(path, strings.NewReader("bad"), digest.Of(good), 3, 0o644)
		},
		"too few": func(path string) error {
			return WriteVerified(path, strings.NewReader("ne"), digest.Of(good), 3, 0o644)
		},
		"endless": func(path string) error {
			return WriteVerified(path, endless{}, digest.Of(good), 3, 0o644)
		},
		"name taken meanwhile": func(path string) error {
			f, err := Create(path, 0o644)
			if err != nil {
				return err
			}
			return f.CommitIf(func() error { return torn })
		},
		"aborted": func(path string) error {
			f, err := Create(path, 0o644)
			if err != nil {
				return err
			}
			if _, err := f.Write(good); err != nil {
				return err
			}
			return errors.Join(f.Abort(), f.Abort(), torn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			if err := WriteFile(path, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := try(path); err == nil {
				t.Fatal("no error")
			}
			only(t, path, "old")
		})
	}
}

func TestFailedRenameLeavesOldContent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	// A folder that is not empty cannot be replaced by a file: the rename itself fails.
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new"), 0o644); err == nil {
		t.Fatal("no error")
	}
	if names := list(t, dir); len(names) != 1 || names[0] != "state" {
		t.Fatalf("left behind: %q", names)
	}
}

func TestUnfinishedIsInvisibleAndRecognised(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "state"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	names := list(t, dir)
	if len(names) != 1 || !IsTemp(names[0]) || IsTemp("state") || IsTemp(".state") {
		t.Fatalf("names: %q", names)
	}
}

func TestInRoot(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := MkdirIn(root, "a/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileIn(root, "a/b/c/x", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := RenameIn(root, "a/b/c/x", "a/y"); err != nil {
		t.Fatal(err)
	}
	only(t, filepath.Join(dir, "a", "b", "c", "..", "..", "y"), "1", "b")
	for range 2 {
		if err := RemoveIn(root, "a/y"); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFileIn(root, "../outside", []byte("1"), 0o644); err == nil {
		t.Fatal("wrote outside the root")
	}
	if err := Mkdir(filepath.Join(dir, "p", "q"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Rename(filepath.Join(dir, "p", "q"), filepath.Join(dir, "q")); err != nil {
		t.Fatal(err)
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if lines, torn, err := ReadLines(path, 100); lines != nil || torn || err != nil {
		t.Fatalf("no journal: %q %v %v", lines, torn, err)
	}
	long := strings.Repeat("x", 10000)
	for _, line := range []string{"one", "", long} {
		if err := Append(path, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Cut the file at every length: every whole line is read, the torn one is dropped, and the next line joins nothing.
	for _, cut := range []int{0, 1, 3, 4, 5, 6, 4099, len(whole) - 1, len(whole)} {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := bytes.Count(whole[:cut], []byte{'\n'})
		lines, torn, err := ReadLines(path, 1<<20)
		if err != nil || len(lines) != want || torn != (cut > 0 && whole[cut-1] != '\n') {
			t.Fatalf("cut at %d: %d lines, torn %v, %v", cut, len(lines), torn, err)
		}
		if err := Append(path, []byte("next"), 0o600); err != nil {
			t.Fatal(err)
		}
		lines, torn, err = ReadLines(path, 1<<20)
		if err != nil || torn || len(lines) != want+1 || string(lines[want]) != "next" {
			t.Fatalf("after cut at %d: %d lines, torn %v, %v", cut, len(lines), torn, err)
		}
	}
	if err := Append(path, []byte("a\nb"), 0o600); err == nil {
		t.Fatal("took a line with a newline")
	}
	if _, _, err := ReadLines(path, 10); err == nil {
		t.Fatal("read more than allowed")
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(path)
	if refusal.Of(err) != refusal.Busy || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "held by process ") {
		t.Fatalf("second lock: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LockWait(ctx, path); refusal.Of(err) != refusal.Busy || !errors.Is(err, context.Canceled) {
		t.Fatalf("waiting lock: %v", err)
	}
	got := make(chan error)
	go func() {
		second, err := LockWait(t.Context(), path)
		if err == nil {
			err = second.Unlock()
		}
		got <- err
	}()
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatalf("lock after unlock: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// only fails unless the file holds text and its folder holds nothing else but the names given.
func only(t *testing.T, path, text string, others ...string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != text {
		t.Fatalf("%d bytes %.20q, want %d bytes %.20q, %v", len(got), got, len(text), text, err)
	}
	if names := list(t, filepath.Dir(path)); len(names) != 1+len(others) {
		t.Fatalf("left behind: %q", names)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func BenchmarkWriteVerified(b *testing.B) {
	data := make([]byte, 64<<20)
	sum := digest.Of(data)
	path := filepath.Join(b.TempDir(), "x")
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := WriteVerified(path, bytes.NewReader(data), sum, int64(len(data)), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}
