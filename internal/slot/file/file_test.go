// SPDX-License-Identifier: Apache-2.0

//go:build unix

package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/slot/slottest"
	"github.com/pawl-project/pawl/internal/statement"
)

func content(v string) []byte { return bytes.Repeat([]byte("release "+v+"\n"), 40_000) }

func payload(v string) slot.Payload {
	r := slottest.Release(v, statement.File, "greeter", content(v))
	return slot.Payload{Release: r, Artifact: r.Artifacts[0], Open: slottest.Bytes(content(v))}
}

func open(t *testing.T, dir string) *Slot {
	t.Helper()
	s, err := New(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	slottest.Run(t, slottest.Harness{
		New:     func(t *testing.T, dir string) slot.Slot { return open(t, dir) },
		Payload: func(_ *testing.T, v string) slot.Payload { return payload(v) },
		Broken: func(_ *testing.T, v string) map[string]slot.Payload {
			with := func(data []byte) slot.Payload {
				p := payload(v)
				p.Open = slottest.Bytes(data)
				return p
			}
			good := content(v)
			flipped := bytes.Clone(good)
			flipped[len(flipped)/2] ^= 1
			endless := payload(v)
			endless.Open = func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(zeros{}), nil }
			torn := payload(v)
			torn.Open = func(context.Context, int64) (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(good[:100]), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
			}
			silent := payload(v)
			silent.Open = func(context.Context, int64) (io.ReadCloser, error) { return nil, errors.New("no route to host") }
			return map[string]slot.Payload{
				"flipped": with(flipped), "truncated": with(good[:len(good)-1]), "trailing": with(append(bytes.Clone(good), 'x')),
				"other": with(content("6.6.6")), "endless": endless, "torn": torn, "silent": silent,
			}
		},
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestWrongBytesLeaveNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slot")
	p := payload("1.0.0")
	p.Open = func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(zeros{}), nil }
	err := open(t, dir).Stage(t.Context(), p)
	if refusal.Of(err) != refusal.Digest || !strings.Contains(err.Error(), "more than the 560000 bytes that were signed") {
		t.Fatalf("got %v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}

// TestNoSpace stages what no disk can hold. It is refused before a byte is asked for.
func TestNoSpace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slot")
	p := payload("1.0.0")
	p.Artifact.Size = 1 << 60
	p.Open = func(context.Context, int64) (io.ReadCloser, error) { return nil, errors.New("asked for") }
	if err := open(t, dir).Stage(t.Context(), p); !isFull(err) || !strings.Contains(err.Error(), "bytes are needed") {
		t.Fatalf("got %v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}

// TestResume breaks a download off again and again. Every byte is asked for once, apart from what one connection had
// under way.
func TestResume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slot")
	s, p, data := open(t, dir), payload("1.0.0"), content("1.0.0")
	const part = 60_000
	var offsets []int64
	p.Open = func(_ context.Context, offset int64) (io.ReadCloser, error) {
		offsets = append(offsets, offset)
		end := min(offset+part, int64(len(data)))
		if end == int64(len(data)) {
			return io.NopCloser(bytes.NewReader(data[offset:])), nil
		}
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[offset:end]), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
	}
	for range 20 {
		err := s.Stage(t.Context(), p)
		if err == nil {
			break
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
	if err := s.Activate(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "current", "greeter"))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for i, o := range offsets {
		if o != int64(i)*part {
			t.Fatalf("asked for %v", offsets)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "current", "greeter"))
	if err != nil || info.Mode() != 0o755 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
}

// TestResumeFromDamage leaves bytes on the disk that are not the beginning of the artifact.
func TestResumeFromDamage(t *testing.T) {
	for name, left := range map[string][]byte{
		"damaged":  append([]byte("X"), content("1.0.0")[1:1000]...),
		"complete": append(content("1.0.0")[:len(content("1.0.0"))-1], 'X'),
		"too long": append(content("1.0.0"), 'X'),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "slot")
			s, p := open(t, dir), payload("1.0.0")
			folder := filepath.Join(dir, markOf(p).dir())
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "greeter.unverified"), left, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.Stage(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if err := s.Activate(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDamageIsNoticed changes what has been staged, and what runs.
func TestDamageIsNoticed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slot")
	s, p := open(t, dir), payload("1.0.0")
	if err := s.Stage(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, markOf(p).dir(), "greeter")
	flip(t, name)
	if err := s.Stage(t.Context(), p); err != nil {
		t.Fatalf("staged again: %v", err)
	}
	if err := s.Activate(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	flip(t, name)
	if err := s.Check(t.Context()); refusal.Of(err) != refusal.Digest || !strings.Contains(err.Error(), "installed artifact greeter of greeter 1.0.0") {
		t.Fatalf("got %v", err)
	}
	if err := s.Stage(t.Context(), p); refusal.Of(err) != refusal.Digest {
		t.Fatalf("staging over what runs: %v", err)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	with := func(script string) *Slot {
		s, err := New(Options{Path: filepath.Join(dir, "slot"), Restart: slot.Restart{Args: []string{"/bin/sh", "-c", script}}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := with(`echo "$PAWL_PRODUCT $PAWL_VERSION $(cut -c1-13 -z "$PAWL_PATH/greeter" | tr -d '\0' | head -n1)" >> ` + log)
	one, two := payload("1.0.0"), payload("1.0.1")
	for _, p := range []slot.Payload{one, two} {
		if err := errors.Join(good.Stage(t.Context(), p), good.Activate(t.Context(), p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := good.Revert(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if err != nil || string(got) != "greeter 1.0.0 release 1.0.0\ngreeter 1.0.1 release 1.0.1\ngreeter 1.0.0 release 1.0.0\n" {
		t.Fatalf("%q %v", got, err)
	}
	bad := with("echo it does not start >&2; exit 3")
	if err := errors.Join(bad.Stage(t.Context(), two)); err != nil {
		t.Fatal(err)
	}
	if err := bad.Activate(t.Context(), two); err == nil || !strings.Contains(err.Error(), "it does not start") {
		t.Fatalf("got %v", err)
	}
}

func TestForeignLinksAreRefused(t *testing.T) {
	for _, target := range []string{"/etc", "../elsewhere", "releases", "releases/a/b", "releases/.hidden"} {
		dir := filepath.Join(t.TempDir(), "slot")
		if err := os.MkdirAll(filepath.Join(dir, "releases"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, "current")); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		if _, err := s.Running(t.Context()); err == nil || errors.Is(err, slot.ErrNothing) {
			t.Errorf("%s: %v", target, err)
		}
		if err := s.Stage(t.Context(), payload("1.0.0")); err == nil {
			t.Errorf("%s: staged beside something unknown", target)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, path := range []string{"", "relative", "/", "//", "/a/.."} {
		if _, err := New(Options{Path: path}); err == nil {
			t.Errorf("path %q is accepted", path)
		}
	}
	for _, name := range []string{"", "-f", "a b", "a;b", "../x", "@x"} {
		if _, err := slot.RestartService(name); err == nil {
			t.Errorf("service %q is accepted", name)
		}
	}
	args, err := slot.RestartService("greeter@1.service")
	if err != nil || strings.Join(args, " ") != "systemctl restart greeter@1.service" {
		t.Errorf("%v %v", args, err)
	}
}

func TestProgress(t *testing.T) {
	p := payload("1.0.0")
	var last int64
	p.Progress = func(n int64) {
		if n < last {
			t.Errorf("%d after %d", n, last)
		}
		last = n
	}
	if err := open(t, filepath.Join(t.TempDir(), "slot")).Stage(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if last != p.Artifact.Size {
		t.Fatalf("ends at %d of %d", last, p.Artifact.Size)
	}
}

func flip(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(name, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, fmt.Sprint(path, d.Type()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
