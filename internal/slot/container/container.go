// SPDX-License-Identifier: Apache-2.0

// Package container installs container images for a host:
//
//	<path>/layout/         an OCI image layout with the images that are kept
//	<path>/staged.json     the image that is being staged, or is staged
//	<path>/current.json    the image that runs; replaced in one rename
//	<path>/previous.json   the image that ran before, until it is replaced
//
// An image is fetched by the digest in the signed statement, from one of the repositories that the statement names, and
// only if the release key of the product has signed it there for release. A tag is never read. The bytes are hashed as they arrive, a
// fetch that was interrupted goes on where it stopped, and layers that the running image has are not fetched again.
//
// Activate writes the pointer and runs a command of the owner, which starts the container: it gets PAWL_IMAGE,
// "repository@sha256:<hex>", and PAWL_LAYOUT, from where an engine can load the image without a network.
//
// Not promised: anything about the container engine. What it really runs is asked by the health check.
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/version"
)

const (
	layoutDir    = "layout"
	stagedName   = "staged.json"
	currentName  = "current.json"
	previousName = "previous.json"
	maxPointer   = 8 << 10
)

// Images fetches images and checks their signatures.
type Images interface {
	registry.Puller
	registry.Verifier
}

// Options configure a slot.
type Options struct {
	// Path is the folder, absolute. It is created by the first Stage.
	Path string
	// Platform is the platform of the host, "os/arch[/variant]".
	Platform string
	// Images is where images come from.
	Images Images
	// Restart makes the new image run. It gets PAWL_PRODUCT, PAWL_VERSION, PAWL_IMAGE and PAWL_LAYOUT.
	Restart slot.Restart
}

// Slot implements slot.Slot and slot.Checker.
type Slot struct{ opt Options }

// New returns the slot in a folder.
func New(opt Options) (*Slot, error) {
	if !filepath.IsAbs(opt.Path) || filepath.Clean(opt.Path) == string(filepath.Separator) {
		return nil, fmt.Errorf("slot path %q is not an absolute folder of its own", opt.Path)
	}
	return &Slot{opt}, nil
}

// pointer names an image.
type pointer struct {
	Product string          `json:"product"`
	Version version.Version `json:"version"`
	// Digest is that of the statement: of an image, or of an index.
	Digest digest.SHA256 `json:"digest"`
	// Repository is where it came from; empty while it is being fetched.
	Repository string `json:"repository,omitempty"`
	// Run is the one image of the index that is for this host, or Digest.
	Run digest.SHA256 `json:"run,omitzero"`
}

func pointerOf(p slot.Payload) pointer {
	return pointer{Product: p.Release.Product, Version: p.Release.Version, Digest: p.Artifact.Digest.SHA256}
}

// names reports whether both are the same release.
func (p pointer) names(other pointer) bool {
	return p.Product == other.Product && p.Version == other.Version && p.Digest == other.Digest
}

// complete reports whether everything has been fetched and verified.
func (p pointer) complete() bool { return p.Repository != "" && !p.Run.IsZero() }

// state is everything that stands in the folder.
type state struct{ staged, current, previous *pointer }

func (s *Slot) read() (state, error) {
	var st state
	for name, to := range map[string]**pointer{stagedName: &st.staged, currentName: &st.current, previousName: &st.previous} {
		p, err := s.readPointer(name)
		if err != nil {
			return state{}, err
		}
		*to = p
	}
	return st, nil
}

func (s *Slot) readPointer(name string) (*pointer, error) {
	f, err := os.Open(filepath.Join(s.opt.Path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPointer+1))
	if err != nil {
		return nil, err
	}
	var p pointer
	if err := json.Unmarshal(text, &p, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if p.Version.IsZero() || p.Digest.IsZero() || name != stagedName && !p.complete() {
		return nil, fmt.Errorf("%s: names no image", f.Name())
	}
	return &p, nil
}

func (s *Slot) writePointer(ctx context.Context, point, name string, p pointer) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return fault.Around(ctx, point, func() error {
		return durable.WriteFile(filepath.Join(s.opt.Path, name), text, 0o644)
	})
}

func (s *Slot) removePointer(ctx context.Context, point, name string) error {
	return fault.Around(ctx, point, func() error {
		if err := os.Remove(filepath.Join(s.opt.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return durable.SyncDir(s.opt.Path)
	})
}

func (s *Slot) layout() string { return filepath.Join(s.opt.Path, layoutDir) }

// Stage fetches the image and verifies its signature.
func (s *Slot) Stage(ctx context.Context, p slot.Payload) error {
	if err := s.stage(ctx, p); err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	return nil
}

func (s *Slot) stage(ctx context.Context, p slot.Payload) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	want := pointerOf(p)
	if err := durable.Mkdir(s.opt.Path, 0o755); err != nil {
		return err
	}
	st, err := s.read()
	if err != nil {
		return err
	}
	if st.current != nil && st.current.names(want) {
		return nil // it runs
	}
	if st.staged == nil || !st.staged.names(want) {
		if err := s.prune(ctx, st); err != nil {
			return err
		}
		if err := s.writePointer(ctx, "slot.container.begin", stagedName, want); err != nil {
			return err
		}
	} else if st.staged.complete() && s.check(ctx, *st.staged) == nil {
		progress(p, p.Artifact.Size)
		return nil
	}
	if want.Repository, want.Run, err = s.fetch(ctx, p); err != nil {
		return err
	}
	return s.writePointer(ctx, "slot.container.staged", stagedName, want)
}

// fetch tries the repositories of the statement in order and returns the first that has the image, signed. The release
// is refused only if no repository has it; then the first refusal is the answer.
func (s *Slot) fetch(ctx context.Context, p slot.Payload) (repository string, run digest.SHA256, err error) {
	var failures []error
	for _, repository := range p.Artifact.Images {
		img := registry.Image{Repository: repository, Digest: p.Artifact.Digest.SHA256}
		var got registry.Image
		err := fault.Around(ctx, "slot.container.fetch", func() error {
			if _, err := s.opt.Images.Verify(ctx, p.Keys, img); err != nil {
				return err
			}
			var err error
			got, err = s.opt.Images.Pull(ctx, img, s.layout(), s.opt.Platform, func(done, _ int64) { progress(p, done) })
			return err
		})
		if err == nil {
			return repository, got.Digest, nil
		}
		if ctx.Err() != nil {
			return "", run, err
		}
		failures = append(failures, err)
	}
	for _, err := range failures {
		if refusal.Of(err) != "" {
			return "", run, err
		}
	}
	if len(failures) == 0 {
		return "", run, fmt.Errorf("the statement names no repository")
	}
	return "", run, errors.Join(failures...)
}

func progress(p slot.Payload, n int64) {
	if p.Progress != nil {
		p.Progress(n)
	}
}

// Activate makes the staged image current and runs the owner's command.
func (s *Slot) Activate(ctx context.Context, p slot.Payload) error {
	want := pointerOf(p)
	st, err := s.read()
	if err != nil {
		return fmt.Errorf("cannot activate: %w", err)
	}
	if st.current != nil && st.current.names(want) {
		return s.restart(ctx, *st.current)
	}
	if st.staged == nil || !st.staged.names(want) || !st.staged.complete() {
		return fmt.Errorf("cannot activate %s: it is not staged", want.Version)
	}
	if st.current != nil {
		if err := s.writePointer(ctx, "slot.container.previous", previousName, *st.current); err != nil {
			return fmt.Errorf("cannot activate: %w", err)
		}
	}
	if err := s.writePointer(ctx, "slot.container.current", currentName, *st.staged); err != nil {
		return fmt.Errorf("cannot activate: %w", err)
	}
	return s.restart(ctx, *st.staged)
}

// Confirm removes all images but the current and the previous one.
func (s *Slot) Confirm(ctx context.Context, p slot.Payload) error {
	want := pointerOf(p)
	st, err := s.read()
	if err != nil {
		return fmt.Errorf("cannot confirm: %w", err)
	}
	if st.current == nil || !st.current.names(want) {
		return fmt.Errorf("cannot confirm %s: it is not what runs", want.Version)
	}
	if err := s.removePointer(ctx, "slot.container.unstage", stagedName); err != nil {
		return fmt.Errorf("cannot confirm: %w", err)
	}
	return s.prune(ctx, st)
}

// Revert makes the previous image current again and runs the owner's command.
func (s *Slot) Revert(ctx context.Context, p slot.Payload) error {
	want := pointerOf(p)
	st, err := s.read()
	if err != nil {
		return fmt.Errorf("cannot revert: %w", err)
	}
	back := st.current
	if back != nil && back.names(want) {
		back = st.previous
	}
	if back == nil || back.names(want) {
		return slot.ErrNothing
	}
	if st.current.names(want) {
		if err := s.writePointer(ctx, "slot.container.back", currentName, *back); err != nil {
			return fmt.Errorf("cannot revert: %w", err)
		}
	}
	// The way back has been used. What was before it is gone, so nothing stands there now.
	if st.previous != nil && st.previous.names(*back) {
		if err := s.removePointer(ctx, "slot.container.forget", previousName); err != nil {
			return fmt.Errorf("cannot revert: %w", err)
		}
	}
	if err := s.removePointer(ctx, "slot.container.unstage", stagedName); err != nil {
		return fmt.Errorf("cannot revert: %w", err)
	}
	return s.restart(ctx, *back)
}

// Running returns the release of the current image.
func (s *Slot) Running(context.Context) (slot.Running, error) {
	st, err := s.read()
	switch {
	case err != nil:
		return slot.Running{}, err
	case st.current == nil:
		return slot.Running{}, slot.ErrNothing
	}
	return slot.Running{Version: st.current.Version, Digest: st.current.Digest}, nil
}

// Check reads the current image in the layout and compares it with its digests.
func (s *Slot) Check(ctx context.Context) error {
	st, err := s.read()
	switch {
	case err != nil:
		return err
	case st.current == nil:
		return slot.ErrNothing
	}
	return s.check(ctx, *st.current)
}

func (s *Slot) check(ctx context.Context, p pointer) error {
	l, err := layout.Open(s.layout())
	if err != nil {
		return err
	}
	return errors.Join(l.Check(ctx, p.Run), l.Close())
}

func (s *Slot) restart(ctx context.Context, p pointer) error {
	return fault.Around(ctx, "slot.container.restart", func() error {
		return s.opt.Restart.Run(ctx, map[string]string{
			"PAWL_PRODUCT": p.Product, "PAWL_VERSION": p.Version.String(),
			"PAWL_IMAGE":  registry.Image{Repository: p.Repository, Digest: p.Digest}.String(),
			"PAWL_LAYOUT": s.layout(),
		})
	})
}

// prune removes every image but the current and the previous one.
func (s *Slot) prune(ctx context.Context, st state) error {
	if _, err := os.Stat(s.layout()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var keep []digest.SHA256
	for _, p := range []*pointer{st.current, st.previous} {
		if p != nil {
			keep = append(keep, p.Digest, p.Run)
		}
	}
	return fault.Around(ctx, "slot.container.prune", func() error {
		l, err := layout.Create(s.layout())
		if err != nil {
			return err
		}
		return errors.Join(l.Keep(ctx, keep...), l.Close())
	})
}
