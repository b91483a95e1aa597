// SPDX-License-Identifier: Apache-2.0

// Package agent keeps the products of one device up to date, as its owner wants it.
//
// A check goes like this: finish what was interrupted; look at what really runs; refresh the signed catalogue from the
// first server that can be believed; let package update say which releases are acceptable, which one is best and what the
// owner has decided; tell the owner. An installation goes on: stage the artifact beside what runs, ask the owner's
// settings once more, activate, watch the health, then confirm, or put the previous release back.
//
// The agent remembers one file for each product, replaced in one rename. Every phase of an installation is in it before
// the effect that it announces, so after a kill at any instant the next run knows what may have happened, and finishes
// or reverts. Reports and notices wait in the same file: they are delivered at least once. Everything that follows
// activation needs no server.
//
// The floor rises when a release is confirmed. A release that did not work is remembered by its digest and not tried
// again. What the owner decides is written by the owner's commands only, into a file of its own; no server has a word
// in it, and being told cannot be switched off.
//
// Files in the state folder: products/<name>/state.json and owner.json, trust/ (verified metadata), history.jsonl, device-id, and
// locks. docs/spec/agent-state.md specifies them.
//
// Not promised: protection from somebody who may write to the state folder or the slots. That is the platform's part.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/trust"
)

// Source is a place where the repository is.
type Source struct {
	// Name is for people: the URL or folder.
	Name string
	// Open is called for every check. If the result is an io.Closer, it is closed after the check.
	Open func() (catalog.Opener, error)
}

// Options are what an engine works with. Now, Slots and Sources are needed; the rest may be zero.
type Options struct {
	Config Config
	// Now is the clock, in the local time of the device.
	Now func() time.Time
	// Slots has a slot for every product of the configuration.
	Slots map[string]slot.Slot
	// Sources are asked in order.
	Sources []Source
	// Reporter brings reports to the publisher; nil: nobody is told.
	Reporter Reporter
	// Env looks up the variables that the owner's programs may see.
	Env func(string) (string, bool)
	// Logger is told what happens; nil: nobody is.
	Logger *slog.Logger
	// Progress, if set, is called while an artifact comes in.
	Progress func(product string, done, total int64)
	// Jitter returns a random time up to most.
	Jitter func(most time.Duration) time.Duration
	// NewID returns a new random name for the device.
	NewID func() string
}

// Engine is the agent of one device. Its methods may be called by several processes: a lock in the state folder lets one
// work at a time, and the others are refused with class Busy.
type Engine struct {
	opt    Options
	log    *slog.Logger
	device string
}

// New returns an engine. It creates the state folder.
func New(opt Options) (*Engine, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Env == nil {
		opt.Env = func(string) (string, bool) { return "", false }
	}
	if opt.Jitter == nil {
		opt.Jitter = func(most time.Duration) time.Duration { return mathrand.N(max(1, most)) }
	}
	if opt.NewID == nil {
		opt.NewID = func() string { return strings.ToLower(rand.Text()) }
	}
	for _, p := range opt.Config.Products {
		if opt.Slots[p.Name] == nil {
			return nil, fmt.Errorf("product %s has no slot", p.Name)
		}
	}
	e := &Engine{opt: opt, log: opt.Logger}
	for _, dir := range []string{opt.Config.State, e.trustDir()} {
		if err := durable.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("cannot create the state folder: %w", err)
		}
	}
	var err error
	if e.device, err = e.deviceName(); err != nil {
		return nil, fmt.Errorf("cannot name the device: %w", err)
	}
	return e, nil
}

// Products returns the names of the products of the device, in the order of the configuration.
func (e *Engine) Products() []string {
	names := make([]string, len(e.opt.Config.Products))
	for i, p := range e.opt.Config.Products {
		names[i] = p.Name
	}
	return names
}

func (e *Engine) trustDir() string { return filepath.Join(e.opt.Config.State, "trust") }

func (e *Engine) now() time.Time { return e.opt.Now() }

// lock keeps other agents out, and removes what a crash has left.
func (e *Engine) lock() (*durable.Held, error) {
	held, err := durable.Lock(filepath.Join(e.opt.Config.State, "agent.lock"))
	if err != nil {
		if refusal.Of(err) == refusal.Busy {
			return nil, fmt.Errorf("another agent is at work: %w", err)
		}
		return nil, err
	}
	dirs := []string{e.opt.Config.State, e.trustDir()}
	for _, p := range e.opt.Config.Products {
		dirs = append(dirs, e.folder(p.Name))
	}
	for _, dir := range dirs {
		if err := tidy(dir); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot tidy up: %w", err), held.Unlock())
		}
	}
	return held, nil
}

// Root returns the root that is trusted: the one of the first refresh, or the file that was given out of band.
func (e *Engine) Root() (doc []byte, fingerprint digest.SHA256, err error) {
	doc, err = readFile(filepath.Join(e.trustDir(), "root.json"), trust.MaxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		doc, err = readFile(e.opt.Config.Root, trust.MaxRoot)
	}
	if err != nil {
		return nil, digest.SHA256{}, err
	}
	return doc, digest.Of(doc), nil
}

// lookup refreshes the catalogue once for all products of a check, or, if one of them is refused, for each by itself: one
// product does not hide the others.
type lookup struct {
	e       *Engine
	sources []Source
	tried   bool
	all     *catalog.Catalog
	err     error
	open    []io.Closer
}

func (l *lookup) close() {
	for _, c := range l.open {
		if err := c.Close(); err != nil {
			l.e.log.Debug("source", "error", err)
		}
	}
	l.open = nil
}

func (l *lookup) catalog(ctx context.Context, product string) (*catalog.Catalog, error) {
	if !l.tried {
		l.tried = true
		l.all, l.err = l.ask(ctx, l.e.Products())
	}
	switch {
	case l.err == nil:
		return l.all, nil
	case len(l.e.opt.Config.Products) == 1 || refusal.Of(l.err) == "":
		return nil, l.err
	}
	return l.ask(ctx, []string{product})
}

// ask returns the catalogue of the first source that can be believed. If there is none, a refusal goes before a failure:
// somebody who deceives matters more than somebody who is silent.
func (l *lookup) ask(ctx context.Context, products []string) (*catalog.Catalog, error) {
	root, err := readFile(l.e.opt.Config.Root, trust.MaxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		if _, kerr := readFile(filepath.Join(l.e.trustDir(), "root.json"), trust.MaxRoot); kerr == nil {
			err = nil // the root of the first refresh is known
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the root: %w", err)
	}
	var failures []error
	for _, src := range l.sources {
		opener, err := src.Open()
		if err == nil {
			if c, ok := opener.(io.Closer); ok {
				l.open = append(l.open, c)
			}
			var cat *catalog.Catalog
			cat, err = catalog.Refresh(ctx, opener, catalog.Folder(l.e.trustDir()), catalog.Options{Now: l.e.now(), Root: root, Products: products})
			if err == nil {
				return cat, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		l.e.log.InfoContext(ctx, "source is of no use", "source", src.Name, "error", err)
		failures = append(failures, fmt.Errorf("%s: %w", src.Name, err))
	}
	for _, err := range failures {
		if refusal.Of(err) != "" {
			return nil, err
		}
	}
	if len(failures) == 0 {
		return nil, fmt.Errorf("no server to ask")
	}
	return nil, errors.Join(failures...)
}
