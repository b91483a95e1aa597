// SPDX-License-Identifier: Apache-2.0

package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/refusal"
)

// Memory is a blob store in memory for the tests of engines. It keeps the same contract as the others, and survives
// everything but the end of the test.
type Memory struct {
	mu      sync.Mutex
	blobs   map[string]stored   // guarded by mu
	uploads map[string]*pending // guarded by mu
}

type stored struct {
	data []byte
	at   time.Time
}

type pending struct {
	data []byte
	busy bool
}

var (
	_ blob.Store    = (*Memory)(nil)
	_ blob.Uploader = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{blobs: map[string]stored{}, uploads: map[string]*pending{}} }

func check(ctx context.Context, names ...string) error {
	err := ctx.Err()
	for _, name := range names {
		err = errors.Join(err, blob.CheckName(name))
	}
	return err
}

// Open implements blob.Reader.
func (m *Memory) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, blob.Info, error) {
	info, err := m.Stat(ctx, name)
	if err != nil {
		return nil, blob.Info{}, err
	}
	m.mu.Lock()
	data := m.blobs[name].data
	m.mu.Unlock()
	if offset < 0 || offset > int64(len(data)) {
		return nil, blob.Info{}, fmt.Errorf("%s: %w: %d of %d bytes", name, blob.ErrOffset, offset, len(data))
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), info, nil
}

// Stat implements blob.Reader.
func (m *Memory) Stat(ctx context.Context, name string) (blob.Info, error) {
	if err := check(ctx, name); err != nil {
		return blob.Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.blobs[name]
	if !ok {
		return blob.Info{}, fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	}
	return blob.Info{Name: name, Size: int64(len(s.data)), Modified: s.at}, nil
}

// List implements blob.Reader.
func (m *Memory) List(ctx context.Context, prefix string, fn func(blob.Info) error) error {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.blobs))
	m.mu.Unlock()
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		info, err := m.Stat(ctx, name)
		if errors.Is(err, blob.ErrNotExist) {
			continue
		}
		if err == nil {
			err = fn(info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Create implements blob.Writer.
func (m *Memory) Create(ctx context.Context, name string, src io.Reader) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	data, err := io.ReadAll(reader{ctx, src})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put(name, data)
}

// put is called with mu held.
func (m *Memory) put(name string, data []byte) error {
	if s, ok := m.blobs[name]; ok {
		if !bytes.Equal(s.data, data) {
			return fmt.Errorf("%s: %w", name, blob.ErrExists)
		}
		return nil
	}
	m.blobs[name] = stored{data, time.Now()}
	return nil
}

// Swap implements blob.Writer.
func (m *Memory) Swap(ctx context.Context, name string, old, new []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.blobs[name]
	if ok != (old != nil) || !bytes.Equal(s.data, old) {
		return fmt.Errorf("%s: %w", name, blob.ErrChanged)
	}
	m.blobs[name] = stored{bytes.Clone(new), time.Now()}
	return nil
}

// Rename implements blob.Writer.
func (m *Memory) Rename(ctx context.Context, from, to string) error {
	if err := check(ctx, from, to); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.blobs[from]
	if !ok {
		return fmt.Errorf("%s: %w", from, blob.ErrNotExist)
	}
	if err := m.put(to, s.data); err != nil || from == to {
		return err
	}
	delete(m.blobs, from)
	return nil
}

// Delete implements blob.Writer.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, name)
	return nil
}

// Received implements blob.Uploader.
func (m *Memory) Received(ctx context.Context, name string) (int64, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.uploads[name]; u != nil {
		return int64(len(u.data)), nil
	}
	return 0, nil
}

// Continue implements blob.Uploader.
func (m *Memory) Continue(ctx context.Context, name string, offset int64, src io.Reader) (int64, error) {
	u, err := m.take(ctx, name, true)
	if err != nil {
		return 0, err
	}
	defer m.give(u)
	if offset != int64(len(u.data)) {
		return int64(len(u.data)), fmt.Errorf("%s: %w: upload holds %d bytes, not %d", name, blob.ErrChanged, len(u.data), offset)
	}
	data, err := io.ReadAll(reader{ctx, src})
	m.mu.Lock()
	defer m.mu.Unlock()
	u.data = append(u.data, data...)
	return int64(len(u.data)), err
}

// Complete implements blob.Uploader.
func (m *Memory) Complete(ctx context.Context, name string, accept func(io.Reader) error) error {
	u, err := m.take(ctx, name, false)
	if err != nil {
		return err
	}
	defer m.give(u)
	err = accept(bytes.NewReader(u.data))
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.uploads, name)
	if err != nil {
		return err
	}
	return m.put(name, u.data)
}

func (m *Memory) take(ctx context.Context, name string, create bool) (*pending, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.uploads[name]
	switch {
	case u == nil && !create:
		return nil, fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	case u == nil:
		u = &pending{}
		m.uploads[name] = u
	case u.busy:
		return nil, refusal.New(refusal.Busy, "upload "+name, "somebody else is writing it")
	}
	u.busy = true
	return u, nil
}

func (m *Memory) give(u *pending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u.busy = false
}

// reader ends a copy when its context ends.
type reader struct {
	ctx context.Context
	src io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.src.Read(p)
}
