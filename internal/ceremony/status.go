// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/trust"
)

// Status is what `pawl keys show` shows.
type Status struct {
	Documents []Document   `json:"documents"`
	Keys      []KeyRow     `json:"keys"`
	Draft     *DraftStatus `json:"draft,omitempty"`
	Warnings  []string     `json:"warnings,omitempty"`
}

// Document is a document in force.
type Document struct {
	Name      string    `json:"name"` // "root" or "targets"
	Version   int64     `json:"version"`
	Expires   time.Time `json:"expires"`
	DaysLeft  int       `json:"daysLeft"` // below zero: expired
	Threshold int       `json:"threshold"`
	Keys      int       `json:"keys"`
	SignedBy  []string  `json:"signedBy"` // short fingerprints
}

// KeyRow is a key in one role.
type KeyRow struct {
	Role        string `json:"role"` // root, online, release, former, evidence
	Product     string `json:"product,omitempty"`
	Fingerprint string `json:"fingerprint"`
	// Public and Private are paths of the two halves, where they are known.
	Public  string `json:"public,omitempty"`
	Private string `json:"private,omitempty"`
}

// DraftStatus is a draft on its way.
type DraftStatus struct {
	Path    string    `json:"path,omitempty"`
	Changes []string  `json:"changes"`
	Needs   []NeedRow `json:"needs"`
	// Ready reports that every threshold is met.
	Ready bool `json:"ready"`
	// Stale says why the draft can no longer be applied.
	Stale string `json:"stale,omitempty"`
}

// NeedRow is one threshold of a draft.
type NeedRow struct {
	Document  string   `json:"document"`
	Version   int64    `json:"version"`
	ByRoot    int64    `json:"byRoot"` // version of the root whose keys must sign
	Threshold int      `json:"threshold"`
	SignedBy  []string `json:"signedBy"` // short fingerprints
	Missing   []string `json:"missing"`  // keys that could still sign
}

// Show reads what is in force and what waits, and warns of what will need a hand. It changes nothing.
func Show(o Options) (Status, error) {
	f, err := Load(o.Trust)
	if err != nil {
		return Status{}, err
	}
	var out Status
	if out.Documents, err = f.documents(o.Now); err != nil {
		return Status{}, err
	}
	if out.Keys, err = o.KeyRows(f.State); err != nil {
		return Status{}, err
	}
	out.Warnings = f.warnings(out.Documents)
	pending, err := readPending(o.Trust)
	if err != nil {
		return Status{}, err
	}
	if pending != nil {
		out.Warnings = append(out.Warnings, "a change was applied and its files are not all written: `pawl keys apply` finishes that")
		return out, nil
	}
	d, err := o.readDraft()
	if err != nil || d == nil {
		return out, err
	}
	status, err := d.Status()
	if err != nil {
		return Status{}, err
	}
	status.Path = o.Draft()
	if err := d.current(f); err != nil {
		status.Stale = err.Error()
	}
	out.Draft = &status
	return out, nil
}

func (f Folder) documents(now time.Time) ([]Document, error) {
	root, targets := f.State.Root, f.State.Targets
	out := []Document{
		{Name: trust.RootRole, Version: root.Version, Expires: root.Expires},
		{Name: trust.TargetsRole, Version: targets.Version, Expires: targets.Expires},
	}
	for i, doc := range [][]byte{f.Root(), f.Targets} {
		sigs, err := root.Authority().Check(doc)
		if err != nil {
			return nil, err
		}
		d := &out[i]
		d.Threshold, d.Keys = root.Threshold, len(root.Keys)
		d.DaysLeft = int(math.Round(d.Expires.Sub(now).Hours() / 24))
		if now.After(d.Expires) {
			d.DaysLeft = min(-1, d.DaysLeft)
		}
		for _, key := range sigs.Signed {
			d.SignedBy = append(d.SignedBy, Short(key))
		}
	}
	return out, nil
}

func (f Folder) warnings(docs []Document) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, d := range docs {
		switch left := time.Duration(d.DaysLeft) * 24 * time.Hour; {
		case d.DaysLeft < 0:
			say("%s expired on %s: devices take no update until `pawl keys root renew` is signed and published", d.Name, day(d.Expires))
		case left < WarnBefore:
			say("%s expires in %d days: `pawl keys root renew` gives it a new date", d.Name, d.DaysLeft)
		}
	}
	root := f.State.Root
	if len(root.Keys) == root.Threshold {
		say("all %d root keys must sign: if one is lost, no key can be changed ever again; `pawl keys root add` a spare one", root.Threshold)
	}
	if root.Threshold == 1 {
		say("one root key alone can change everything: `pawl keys root threshold 2` asks for a second person")
	}
	if len(f.State.Targets.Products) == 0 {
		say("there is no product: `pawl keys product add` adds one")
	}
	return out
}

// KeyRows lists the keys of a state with the files in the two folders that hold them.
func (l Layout) KeyRows(s State) ([]KeyRow, error) {
	private, err := l.privateKeys()
	if err != nil {
		return nil, err
	}
	files := map[string]KeyRow{} // by fingerprint
	note := func(key string, row func(*KeyRow)) {
		r := files[key]
		row(&r)
		files[key] = r
	}
	for _, path := range slices.Sorted(maps.Keys(private)) {
		f, err := sign.Fingerprint(private[path])
		if err != nil {
			return nil, err
		}
		note(f, func(r *KeyRow) { r.Private = path })
	}
	for _, dir := range []string{l.Keys, l.Trust} {
		pubs, err := publicKeys(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(pubs)) {
			f, err := sign.Fingerprint(pubs[name])
			if err != nil {
				return nil, err
			}
			note(f, func(r *KeyRow) { r.Public = filepath.Join(dir, name) })
		}
	}
	var out []KeyRow
	for _, u := range s.uses() {
		f, err := sign.Fingerprint(u.key)
		if err != nil {
			return nil, err
		}
		row := files[f]
		row.Role, row.Product, row.Fingerprint = u.role, u.product, f
		out = append(out, row)
	}
	return out, nil
}

// Status says what a draft changes and whose signature it lacks.
func (d Draft) Status() (DraftStatus, error) {
	needs, err := d.Needs()
	if err != nil {
		return DraftStatus{}, err
	}
	out := DraftStatus{Changes: d.Changes(), Ready: d.Incomplete() == nil}
	for _, n := range needs {
		row := NeedRow{Document: n.Document, Version: n.Version, ByRoot: n.By, Threshold: n.Threshold, SignedBy: []string{}, Missing: []string{}}
		for _, key := range n.Signed {
			row.SignedBy = append(row.SignedBy, Short(key))
		}
		for _, key := range n.Missing {
			row.Missing = append(row.Missing, Short(key))
		}
		out.Needs = append(out.Needs, row)
	}
	return out, nil
}
