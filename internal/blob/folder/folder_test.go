// SPDX-License-Identifier: Apache-2.0

package folder_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/blob/blobtest"
	"github.com/pawl-project/pawl/internal/blob/folder"
)

func TestContract(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) (first, second blob.Store) {
		dir := filepath.Join(t.TempDir(), "server", "blobs")
		return open(t, dir), open(t, dir)
	})
}

func TestNothingOutsideTheFolder(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, target := range map[string]string{
		"folder": outside, "file": secret, "relative": "../" + filepath.Base(outside) + "/secret", "inside": "real", "dangling": filepath.Join(outside, "new"),
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "real"), []byte("real"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	ctx := t.Context()
	for _, name := range []string{"folder/secret", "file", "relative", "dangling", "inside"} {
		if data, err := blob.ReadAll(ctx, s, name, 100); err == nil {
			t.Errorf("%s: read %q", name, data)
		}
		_ = s.Create(ctx, name, strings.NewReader("written"))
		_ = s.Swap(ctx, name, []byte("secret"), []byte("written"))
		_ = s.Delete(ctx, name)
		if _, err := s.Continue(ctx, "folder/up", 0, strings.NewReader("written")); err == nil {
			t.Error("upload through a link")
		}
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
		t.Fatalf("the file outside: %q, %v", text, err)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Fatalf("outside: %v, %v", entries, err)
	}
}

func TestLinksAndHiddenFilesAreNoBlobs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx := t.Context()
	if err := s.Create(ctx, "a/real", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", ".hidden"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := s.List(ctx, "", func(i blob.Info) error { names = append(names, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0] != "a/real" {
		t.Fatalf("listed %q", names)
	}
}

// What a crash leaves behind is swept, what is being written is not.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx := t.Context()
	if err := s.Create(ctx, "a/b", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Continue(ctx, "staging/new", 0, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Continue(ctx, "staging/old", 0, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	old := now.Add(-48 * time.Hour)
	for _, name := range []string{"a/.b.pawl-tmp-ABC", "a/b", "staging/.old.pawl-upload"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if f, err := os.OpenFile(path, os.O_CREATE, 0o600); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Sweep(ctx, now.Add(-24*time.Hour)); n != 2 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	if _, err := s.Stat(ctx, "a/b"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Received(ctx, "staging/new"); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if n, err := s.Received(ctx, "staging/old"); n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestWritingBytesHoldsNoLock(t *testing.T) {
	dir := t.TempDir()
	first, second := open(t, dir), open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	// The source of the first store's upload runs while nothing is locked: writing bytes must not block other writers.
	src := readFunc(func([]byte) (int, error) {
		if err := second.Swap(ctx, "timestamp", nil, []byte("x")); err != nil {
			t.Error(err)
		}
		cancel()
		return 0, nil
	})
	if err := first.Create(ctx, "x", src); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func open(t *testing.T, dir string) *folder.Store {
	t.Helper()
	s, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
