// SPDX-License-Identifier: Apache-2.0

// Package testkit simulates what surrounds a device in tests: a repository with releases and all its keys, and sources that
// serve it honestly, torn, slowly or with malice. One instance belongs to one test.
package testkit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
	"github.com/pawl-project/pawl/internal/version"
)

// Repo is a repository with releases. Everything that trusttest.Repo can do can be done to it: sign with another key, push
// an old document, leave one out.
type Repo struct {
	*trusttest.Repo
	t testing.TB
	// RootDoc is the first root, as a device gets it out of band.
	RootDoc []byte
}

// NewRepo returns a published repository with the products, which have no releases yet.
func NewRepo(t testing.TB, products ...string) *Repo {
	t.Helper()
	r := trusttest.New(t, products...)
	return &Repo{Repo: r, t: t, RootDoc: r.Doc(trust.RootRole, 1)}
}

// Release adds a security release with one artifact, named as the product, and returns its statement. change may change
// the statement before it is signed. Publish makes it public.
func (r *Repo) Release(product, v string, content []byte, change ...func(*statement.Release)) statement.Release {
	r.t.Helper()
	parsed := version.MustParse(v)
	s := statement.Release{
		Product: product, Channel: statement.File, Version: parsed, Line: parsed.Line(), Kind: statement.Security, SecurityVersion: 1,
		Issued: r.Now,
		Advisory: &statement.Advisory{
			ID: "TEST-" + v, Summary: "What " + v + " repairs.", Severity: "high", Impact: "What could happen without it.",
			Action: "None.", Disrupts: "Nothing.",
		},
		Artifacts: []statement.Artifact{{Name: product, Digest: digest.SetOf(content), Size: int64(len(content))}},
	}
	for _, c := range change {
		c(&s)
	}
	r.AddStatement(s, r.Products[product].Release, map[string][]byte{product: content})
	return s
}

// AddStatement signs a statement with a key and adds it with its files, whatever they are.
func (r *Repo) AddStatement(s statement.Release, by trusttest.Key, files map[string][]byte) {
	r.t.Helper()
	payload, err := s.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	signed, err := bundle.SignStatement(context.Background(), by, payload)
	if err != nil {
		r.t.Fatal(err)
	}
	files = maps.Clone(files)
	if files == nil {
		files = map[string][]byte{}
	}
	if s.Channel != statement.File && s.Channel != statement.Firmware {
		clear(files)
	}
	files[trust.StatementName] = signed
	r.Add(s.Product, s.Version.String(), trust.IndexOf(s), files)
}

// Kind makes a release one of this kind.
func Kind(k statement.Kind) func(*statement.Release) {
	return func(r *statement.Release) {
		if r.Kind = k; k == statement.Feature {
			r.Advisory = nil
		}
	}
}

// SecurityVersion makes a release one with this security version.
func SecurityVersion(n uint32) func(*statement.Release) {
	return func(r *statement.Release) { r.SecurityVersion = n }
}

// Source returns an honest source of what is published now. Later changes of the repository do not change it: a source
// that is kept is a frozen mirror.
func (r *Repo) Source() *Source { return &Source{blobs: maps.Clone(r.Blobs), modified: r.Now} }

// Write writes what is published now into a folder, as a static host would have it.
func (r *Repo) Write(dir string) {
	r.t.Helper()
	for name, data := range r.Blobs {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Source serves the blobs of a repository. It satisfies catalog.Opener.
type Source struct {
	blobs    map[string][]byte
	modified time.Time

	mu      sync.Mutex
	changes []change         // guarded by mu
	opened  map[string]int64 // last offset by name; guarded by mu
}

type change struct {
	name string
	make func(data []byte) (io.Reader, error)
}

// Lie makes the source serve something else for every blob whose name contains part.
func (s *Source) Lie(part string, make func(data []byte) (io.Reader, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, change{part, make})
}

// Tamper flips one bit in the middle of every blob whose name contains part.
func (s *Source) Tamper(part string) {
	s.Lie(part, func(data []byte) (io.Reader, error) {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
		return bytes.NewReader(data), nil
	})
}

// Tear ends the connection after n bytes of every blob whose name contains part.
func (s *Source) Tear(part string, n int) {
	s.Lie(part, func(data []byte) (io.Reader, error) {
		return io.MultiReader(bytes.NewReader(data[:min(n, len(data))]), broken{}), nil
	})
}

// Replace serves other bytes for every blob whose name contains part: an old document, or another repository's.
func (s *Source) Replace(part string, data []byte) {
	s.Lie(part, func([]byte) (io.Reader, error) { return bytes.NewReader(data), nil })
}

// Fail makes every blob whose name contains part fail to open.
func (s *Source) Fail(part string, err error) {
	s.Lie(part, func([]byte) (io.Reader, error) { return nil, err })
}

// Endless never ends any blob whose name contains part.
func (s *Source) Endless(part string) {
	s.Lie(part, func(data []byte) (io.Reader, error) { return io.MultiReader(bytes.NewReader(data), zeros{}), nil })
}

// Honest ends all lies.
func (s *Source) Honest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = nil
}

// Opened reports whether a blob whose name contains part was opened, and the offset of the last time.
func (s *Source) Opened(part string) (offset int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, at := range s.opened {
		if strings.Contains(name, part) {
			return at, true
		}
	}
	return 0, false
}

// Open serves a blob from an offset on.
func (s *Source) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, blob.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, blob.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == nil {
		s.opened = map[string]int64{}
	}
	s.opened[name] = offset
	data, ok := s.blobs[name]
	if !ok {
		return nil, blob.Info{}, fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	}
	var body io.Reader = bytes.NewReader(data)
	for _, c := range s.changes {
		if strings.Contains(name, c.name) {
			var err error
			if body, err = c.make(data); err != nil {
				return nil, blob.Info{}, err
			}
		}
	}
	if _, err := io.CopyN(io.Discard, body, offset); err != nil {
		return nil, blob.Info{}, fmt.Errorf("%s: %w", name, err)
	}
	return io.NopCloser(body), blob.Info{Name: name, Size: int64(len(data)), Modified: s.modified}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
