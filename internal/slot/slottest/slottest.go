// SPDX-License-Identifier: Apache-2.0

// Package slottest is the contract of slots as a test suite: what every adapter of package slot must do, also when it is
// stopped at any of its fault points and asked again.
package slottest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// Harness is what the suite needs to know about an adapter.
type Harness struct {
	// New opens the slot in a folder, as a process does that has just started.
	New func(t *testing.T, dir string) slot.Slot
	// Payload returns a release with this version. Two calls with the same version return the same release.
	Payload func(t *testing.T, version string) slot.Payload
	// Broken returns releases that Stage must refuse, by what is wrong with them.
	Broken func(t *testing.T, version string) map[string]slot.Payload
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Run("Life", h.life)
	t.Run("First", h.first)
	t.Run("Again", h.again)
	t.Run("Refused", h.refused)
	t.Run("Cancelled", h.cancelled)
	t.Run("Faults", h.faults)
}

// life installs two releases, one after the other, and a third that is put back.
func (h Harness) life(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "slot")
	s := h.New(t, dir)
	one, two, three := h.Payload(t, "1.0.0"), h.Payload(t, "1.0.1"), h.Payload(t, "1.1.0")
	h.install(t, s, one)
	for _, p := range []slot.Payload{two, three} {
		before, err := s.Running(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stage(ctx, p); err != nil {
			t.Fatal(err)
		}
		if after, err := s.Running(ctx); err != nil || after != before {
			t.Fatalf("Stage changes what runs: %v, %v", after, err)
		}
		if err := s.Activate(ctx, p); err != nil {
			t.Fatal(err)
		}
		runs(t, h.New(t, dir), p)
		if p.Release.Version == two.Release.Version {
			if err := s.Confirm(ctx, p); err != nil {
				t.Fatal(err)
			}
			runs(t, s, p)
		}
	}
	if err := s.Revert(ctx, three); err != nil {
		t.Fatal(err)
	}
	runs(t, h.New(t, dir), two)
	if c, ok := s.(slot.Checker); ok {
		if err := c.Check(ctx); err != nil {
			t.Fatalf("what runs after Revert: %v", err)
		}
	}
	// What was put back can be installed later, for instance when its surroundings have been repaired.
	h.install(t, s, three)
}

// first asks a slot in which nothing is installed.
func (h Harness) first(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "slot")
	s, p := h.New(t, dir), h.Payload(t, "1.0.0")
	if _, err := s.Running(ctx); !errors.Is(err, slot.ErrNothing) {
		t.Errorf("Running: %v", err)
	}
	if err := s.Revert(ctx, p); !errors.Is(err, slot.ErrNothing) {
		t.Errorf("Revert: %v", err)
	}
	if err := s.Activate(ctx, p); err == nil {
		t.Error("Activate of what is not staged works")
	}
	if c, ok := s.(slot.Checker); ok {
		if err := c.Check(ctx); !errors.Is(err, slot.ErrNothing) {
			t.Errorf("Check: %v", err)
		}
	}
	if err := s.Stage(ctx, p); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Running(ctx); !errors.Is(err, slot.ErrNothing) {
		t.Errorf("Running after Stage: %v", err)
	}
	if err := s.Confirm(ctx, p); err == nil {
		t.Error("Confirm of what does not run works")
	}
	if err := s.Activate(ctx, p); err != nil {
		t.Fatal(err)
	}
	if err := s.Revert(ctx, p); !errors.Is(err, slot.ErrNothing) {
		t.Errorf("Revert of the first release: %v", err)
	}
	runs(t, s, p)
}

// again calls every moment twice.
func (h Harness) again(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "slot")
	s := h.New(t, dir)
	one, two := h.Payload(t, "1.0.0"), h.Payload(t, "1.0.1")
	h.install(t, s, one)
	for _, moment := range []func(context.Context, slot.Payload) error{s.Stage, s.Stage, s.Activate, s.Activate, s.Stage, s.Revert, s.Revert} {
		if err := moment(ctx, two); err != nil {
			t.Fatal(err)
		}
	}
	runs(t, s, one)
	for _, moment := range []func(context.Context, slot.Payload) error{s.Stage, s.Activate, s.Confirm, s.Confirm, s.Stage, s.Activate} {
		if err := moment(ctx, two); err != nil {
			t.Fatal(err)
		}
	}
	runs(t, s, two)
}

// refused stages what must not be staged, beside a release that runs.
func (h Harness) refused(t *testing.T) {
	for name, p := range h.Broken(t, "1.0.1") {
		t.Run(name, func(t *testing.T) {
			ctx, dir := t.Context(), filepath.Join(t.TempDir(), "slot")
			s, one := h.New(t, dir), h.Payload(t, "1.0.0")
			h.install(t, s, one)
			if err := s.Stage(ctx, p); err == nil {
				t.Fatal("staged")
			}
			if err := s.Activate(ctx, p); err == nil {
				t.Fatal("activated")
			}
			runs(t, h.New(t, dir), one)
		})
	}
}

// cancelled stages with a context that has ended.
func (h Harness) cancelled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slot")
	s, one, two := h.New(t, dir), h.Payload(t, "1.0.0"), h.Payload(t, "1.0.1")
	h.install(t, s, one)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stage(ctx, two); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	runs(t, s, one)
}

// faults stops a whole life at every fault point, opens the slot anew, asks for the same moment again, and compares the
// end with that of an undisturbed life.
func (h Harness) faults(t *testing.T) {
	lives := map[string][]string{
		"confirmed": {"Stage", "Activate", "Confirm"},
		"reverted":  {"Stage", "Activate", "Revert"},
	}
	for name, moments := range lives {
		t.Run(name, func(t *testing.T) {
			begin := func(t *testing.T) (string, slot.Payload) {
				dir := filepath.Join(t.TempDir(), "slot")
				s := h.New(t, dir)
				h.install(t, s, h.Payload(t, "0.9.0"))
				h.install(t, s, h.Payload(t, "1.0.0"))
				return dir, h.Payload(t, "1.0.1")
			}
			dir, p := begin(t)
			var points []string
			count := map[string]int{}
			record := fault.With(t.Context(), func(point string) {
				count[point]++
				points = append(points, fmt.Sprintf("%s#%d", point, count[point]))
			})
			for _, m := range moments {
				if err := moment(h.New(t, dir), m)(record, p); err != nil {
					t.Fatal(err)
				}
			}
			if len(points) == 0 {
				t.Fatal("the slot has no fault points")
			}
			want := tree(t, dir)
			for _, point := range points {
				t.Run(point, func(t *testing.T) {
					dir, p := begin(t)
					stopped, count := false, map[string]int{}
					for _, m := range moments {
						err := h.until(t, dir, m, point, count, &stopped, p)
						if err == nil {
							continue
						}
						if err := moment(h.New(t, dir), m)(t.Context(), p); err != nil {
							t.Fatalf("%s after a stop at %s: %v", m, point, err)
						}
					}
					if !stopped {
						t.Fatal("the point was not reached")
					}
					if got := tree(t, dir); got != want {
						t.Fatalf("after a stop at %s:\n%s\nundisturbed:\n%s", point, got, want)
					}
				})
			}
		})
	}
}

// errStopped is what a stop at a fault point looks like here.
var errStopped = errors.New("stopped")

// until calls a moment that is torn out of its goroutine at a fault point, as a kill tears it out of its process.
func (h Harness) until(t *testing.T, dir, name, point string, count map[string]int, stopped *bool, p slot.Payload) error {
	if *stopped {
		return moment(h.New(t, dir), name)(t.Context(), p)
	}
	type end struct{ err error }
	result := make(chan end, 1)
	reached := make(chan struct{})
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	ctx := fault.With(t.Context(), func(at string) {
		count[at]++
		if fmt.Sprintf("%s#%d", at, count[at]) == point {
			close(reached)
			<-hold // nothing after this point happens while the test looks
			panic(errStopped)
		}
	})
	go func() {
		defer func() {
			if r := recover(); r != nil && r != errStopped { //nolint:errorlint // the very value
				panic(r)
			}
		}()
		result <- end{moment(h.New(t, dir), name)(ctx, p)}
	}()
	select {
	case r := <-result:
		return r.err
	case <-reached:
		*stopped = true
		return errStopped
	case <-time.After(time.Minute):
		t.Fatal("no end")
		return nil
	}
}

func moment(s slot.Slot, name string) func(context.Context, slot.Payload) error {
	switch name {
	case "Stage":
		return s.Stage
	case "Activate":
		return s.Activate
	case "Confirm":
		return s.Confirm
	}
	return s.Revert
}

func (h Harness) install(t *testing.T, s slot.Slot, p slot.Payload) {
	t.Helper()
	for _, m := range []string{"Stage", "Activate", "Confirm"} {
		if err := moment(s, m)(t.Context(), p); err != nil {
			t.Fatalf("%s of %s: %v", m, p.Release.Version, err)
		}
	}
	runs(t, s, p)
}

func runs(t *testing.T, s slot.Slot, p slot.Payload) {
	t.Helper()
	got, err := s.Running(t.Context())
	want := slot.Running{Version: p.Release.Version, Digest: p.Artifact.Digest.SHA256}
	if err != nil || got != want {
		t.Fatalf("runs %v (%v), want %v", got, err, want)
	}
}

// tree describes everything in a folder but temporary files and locks.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if durable.IsTemp(d.Name()) || strings.HasSuffix(d.Name(), ".lock") {
			return nil
		}
		line := d.Type().String() + " " + rel
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + digest.Of(data).Short()
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// Release returns a release of a product with one artifact of these bytes.
func Release(v string, channel statement.Channel, artifact string, content []byte) statement.Release {
	parsed := version.MustParse(v)
	return statement.Release{
		Product: "greeter", Channel: channel, Version: parsed, Line: parsed.Line(), Kind: statement.Security,
		Issued:    time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		Artifacts: []statement.Artifact{{Name: artifact, Digest: digest.SetOf(content), Size: int64(len(content))}},
	}
}

// Bytes returns a source of bytes for a payload.
func Bytes(content []byte) func(context.Context, int64) (io.ReadCloser, error) {
	return func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content[min(offset, int64(len(content))):])), nil
	}
}
