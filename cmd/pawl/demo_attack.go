// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// The attackers of the demo. They write into the folder of the server directly, as somebody who has broken in.

// flipByte changes one byte in the middle of the only file that matches pattern, and returns a function that puts it
// back.
func flipByte(pattern string) (restore func() error, err error) {
	matches, err := filepath.Glob(pattern)
	if err != nil || len(matches) != 1 {
		return nil, fmt.Errorf("%d files match %s: %w", len(matches), pattern, err)
	}
	good, err := os.ReadFile(matches[0])
	if err != nil {
		return nil, err
	}
	bad := append([]byte(nil), good...)
	bad[len(bad)/2] ^= 1
	if err := replaceFile(matches[0], bad); err != nil {
		return nil, err
	}
	return func() error { return replaceFile(matches[0], good) }, nil
}

// replaceFile replaces a file that may be read-only.
func replaceFile(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// thief has copied every key of a server.
type thief struct {
	repository string // folder with metadata/ and targets/
	online     sign.Signer
	release    sign.Signer // what he signs releases with; nil: a key that he makes
	now        time.Time
	written    []string // names of files that were not there before
}

// leave removes what the thief has written; documents that he replaced stay replaced.
func (t *thief) leave() error {
	var err error
	for _, name := range t.written {
		err = errors.Join(err, os.Remove(filepath.Join(t.repository, filepath.FromSlash(name))))
	}
	return err
}

// invent writes a release of product that the maker never made: correct in every detail but the one signature that no
// server can give.
func (t *thief) invent(ctx context.Context, product string, v version.Version) error {
	own := t.release
	if own == nil {
		var err error
		if own, err = newKey(); err != nil {
			return err
		}
	}
	stamp, snapshot, err := t.current()
	if err != nil {
		return err
	}
	role, err := readDocument(t, fmt.Sprintf("%d.%s.json", snapshot.Roles[product].Version, product), func(doc []byte) (trust.Role, error) {
		return trust.ParseRole(product, doc)
	})
	if err != nil {
		return err
	}

	malware := []byte("#!/bin/sh\necho all your devices are belong to us\n")
	rel := statement.Release{
		Product: product, Channel: statement.File, Version: v, Line: v.Line(), Kind: statement.Security, SecurityVersion: 99,
		Issued: t.now, Artifacts: []statement.Artifact{{Name: product, Digest: digest.SetOf(malware), Size: int64(len(malware))}},
		Advisory: &statement.Advisory{ID: "URGENT-1", Summary: "Please install at once.", Severity: "critical", Action: "None."},
	}
	text, err := rel.Encode()
	if err != nil {
		return err
	}
	signed, err := bundle.SignStatement(ctx, own, text)
	if err != nil {
		return err
	}
	targets := maps.Clone(role.Targets)
	for name, data := range map[string][]byte{product: malware, trust.StatementName: signed} {
		path := trust.TargetPath(product, v, name)
		target := trust.Target{Size: int64(len(data)), Digest: digest.Of(data)}
		if name == trust.StatementName {
			target.Index = trust.IndexOf(rel)
		}
		targets[path] = target
		if err := t.write(trust.BlobName(path, target.Digest), data); err != nil {
			return err
		}
	}
	role.Version, role.Targets = role.Version+1, targets
	doc, err := trust.NewRole(role)
	if err != nil {
		return err
	}
	if doc, err = trust.Sign(ctx, doc, own); err != nil {
		return err
	}
	if err := t.write(trust.MetadataName(product, role.Version), doc); err != nil {
		return err
	}
	return t.publish(ctx, stamp, snapshot, product, trust.FileOf(role.Version, doc))
}

// newKey makes a key that nobody trusts.
func newKey() (sign.Signer, error) {
	password := []byte(rand.Text())
	private, _, err := keyfile.Generate(password)
	if err != nil {
		return nil, err
	}
	return keyfile.Open(private, password)
}

// current reads what the server says is current.
func (t *thief) current() (stamp trust.Timestamp, snapshot trust.Snapshot, err error) {
	if stamp, err = readDocument(t, "timestamp.json", trust.ParseTimestamp); err != nil {
		return stamp, snapshot, err
	}
	snapshot, err = readDocument(t, fmt.Sprintf("%d.snapshot.json", stamp.File.Version), trust.ParseSnapshot)
	return stamp, snapshot, err
}

// publish signs a snapshot and a timestamp that name the role, with the stolen key.
func (t *thief) publish(ctx context.Context, stamp trust.Timestamp, snapshot trust.Snapshot, product string, role trust.File) error {
	snapshot.Version++
	snapshot.Roles[product] = role
	doc, err := trust.NewSnapshot(snapshot)
	if err != nil {
		return err
	}
	if doc, err = trust.Sign(ctx, doc, t.online); err != nil {
		return err
	}
	if err := t.write(trust.MetadataName(trust.SnapshotRole, snapshot.Version), doc); err != nil {
		return err
	}
	stamp.Version++
	stamp.Issued, stamp.File = t.now, trust.FileOf(snapshot.Version, doc)
	if doc, err = trust.NewTimestamp(stamp); err != nil {
		return err
	}
	if doc, err = trust.Sign(ctx, doc, t.online); err != nil {
		return err
	}
	return t.write(trust.MetadataName(trust.TimestampRole, stamp.Version), doc)
}

func (t *thief) write(name string, doc []byte) error {
	file := filepath.Join(t.repository, filepath.FromSlash(name))
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		t.written = append(t.written, name)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return replaceFile(file, doc)
}

func readDocument[T any](t *thief, name string, parse func([]byte) (T, error)) (T, error) {
	doc, err := os.ReadFile(filepath.Join(t.repository, "metadata", name))
	if err != nil {
		var none T
		return none, err
	}
	return parse(doc)
}
