// SPDX-License-Identifier: Apache-2.0

// Package osv finds known vulnerabilities of components in databases of the OSV format (OSV schema 1.7.4).
//
// Folder looks into a folder of records: single JSON files, and the zip archives that databases publish for each
// ecosystem. It needs no network, and its snapshot is a hash over the records, so that somebody else can scan again with
// the same ones. Service asks an OSV API (POST /v1/querybatch, GET /v1/vulns/ID); its snapshot is the service and the
// moment of the first question, and a record that has changed since then ends the scan.
//
// Records that name each other as aliases are one vulnerability and give one finding. A component is never passed over:
// it was compared, or the report says why not. In particular a database without a single record of an ecosystem has not
// compared the components of that ecosystem.
//
// Nothing is matched by guess: names are compared in the spelling of their ecosystem, versions in the order of their
// ecosystem, and a version that cannot be ordered makes the component unchecked.
package osv

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/scan"
)

// DefaultMaxAge is how old the newest record of a database may be unless Options say otherwise. Databases of this kind
// get new records every day: one of a month ago proves little about today.
const DefaultMaxAge = 30 * 24 * time.Hour

// Options configure a scanner.
type Options struct {
	// Tool is what reports name as their maker.
	Tool evidence.Tool
	// Now gives the time of a report and the time by which the age of a database is measured.
	Now func() time.Time
	// MaxAge bounds the age of the newest record of a folder; zero is DefaultMaxAge. A database that is older cannot be
	// used.
	MaxAge time.Duration
	// AnyAgeUnsafe accepts a folder of any age, for databases that are made for a test or an example.
	AnyAgeUnsafe bool
}

// lookup returns the records that may affect a package; the second result says why the package cannot be looked up.
type lookup func(ctx context.Context, p evidence.Package) (records []*record, unchecked string, err error)

// report compares every component.
func report(ctx context.Context, bom evidence.SBOM, opt Options, db evidence.Database, find lookup) (evidence.Report, error) {
	r := evidence.Report{Subject: bom.Subject, Tool: opt.Tool, Database: db, At: opt.Now().UTC().Truncate(time.Second), Findings: []evidence.Finding{}}
	type answer struct {
		findings  []evidence.Finding
		unchecked string
	}
	known := make(map[evidence.Package]answer)
	for _, c := range bom.Components {
		if err := ctx.Err(); err != nil {
			return evidence.Report{}, err
		}
		p := c.Package()
		a, again := known[p]
		if !again {
			var err error
			if a.findings, a.unchecked, err = check(ctx, p, find); err != nil {
				return evidence.Report{}, err
			}
			// Several binary packages of one source package are one finding, with the first one's package URL.
			for i := range a.findings {
				a.findings[i].PURL = c.PURL
			}
			known[p] = a
			r.Findings = append(r.Findings, a.findings...)
		}
		if a.unchecked != "" {
			r.Unchecked = append(r.Unchecked, evidence.Unchecked{Name: c.Name, Version: c.Version, PURL: c.PURL, Why: a.unchecked})
			continue
		}
		r.Checked++
	}
	slices.SortFunc(r.Findings, func(a, b evidence.Finding) int {
		return cmp.Or(cmp.Compare(a.Severity.Rank(), b.Severity.Rank()), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID))
	})
	return r, nil
}

// check compares one package.
func check(ctx context.Context, p evidence.Package, find lookup) ([]evidence.Finding, string, error) {
	switch {
	case p.Ecosystem == "":
		return nil, "no vulnerability database speaks of components of its kind", nil
	case p.Version == "":
		return nil, "its version is not known", nil
	case !comparableVersions(p.Ecosystem):
		return nil, fmt.Sprintf("versions of ecosystem %s cannot be compared", p.Ecosystem), nil
	}
	if _, err := parseVersion(p.Version, p.Ecosystem); err != nil {
		return nil, "its " + err.Error(), nil
	}
	if !orderly(p) {
		return nil, fmt.Sprintf("its version %q cannot be compared", clip(p.Version, 80)), nil
	}
	records, unchecked, err := find(ctx, p)
	if err != nil || unchecked != "" {
		return nil, unchecked, err
	}
	return merge(p, records), "", nil
}

var (
	numbered = regexp.MustCompile(`^v?[0-9]`)
	dotted   = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+)*([-+].*)?$`)
)

// orderly reports whether a version has an order at all. The orders of the library give every text some place ("latest",
// the name of a branch), which would be a guess.
func orderly(p evidence.Package) bool {
	switch base(p.Ecosystem) {
	case "Go", "npm", "crates.io", "Hex", "Pub":
		return dotted.MatchString(p.Version)
	}
	return numbered.MatchString(p.Version)
}

// merge makes one finding of all records that name each other as aliases, directly or through others. Vulnerabilities
// upstream are names of a finding too, but do not join records: an advisory may be about several of them.
func merge(p evidence.Package, records []*record) []evidence.Finding {
	slices.SortFunc(records, func(a, b *record) int { return cmp.Compare(a.ID, b.ID) })
	group := make(map[string]int) // name to index in groups
	var groups [][]*record
	for _, r := range records {
		joined := -1
		for _, n := range append([]string{r.ID}, r.Aliases...) {
			i, ok := group[n]
			switch {
			case !ok || i == joined:
				continue
			case joined < 0:
				joined = i
				continue
			}
			// r joins two groups that did not know of each other.
			groups[joined] = append(groups[joined], groups[i]...)
			groups[i] = nil
			for name, j := range group {
				if j == i {
					group[name] = joined
				}
			}
		}
		if joined < 0 {
			joined = len(groups)
			groups = append(groups, nil)
		}
		groups[joined] = append(groups[joined], r)
		for _, n := range append([]string{r.ID}, r.Aliases...) {
			group[n] = joined
		}
	}
	var list []evidence.Finding
	for _, g := range groups {
		if len(g) > 0 {
			list = append(list, finding(p, g))
		}
	}
	return list
}

// finding makes one finding of records of the same vulnerability.
func finding(p evidence.Package, group []*record) evidence.Finding {
	// A database's own identifier is more precise than a CVE, which may cover more than this package.
	slices.SortFunc(group, func(a, b *record) int {
		return cmp.Or(cmp.Compare(isCVE(a.ID), isCVE(b.ID)), cmp.Compare(a.ID, b.ID))
	})
	f := evidence.Finding{ID: group[0].ID, Severity: evidence.Unknown, Name: p.Name, Version: p.Version, FixedIn: lowestFix(p, group)}
	var names []string
	for _, r := range group {
		names = append(names, r.names()...)
		f.Severity = worse(f.Severity, r.severity(p))
		f.Summary = cmp.Or(f.Summary, r.text())
		if at, err := time.Parse(time.RFC3339, r.Published); err == nil && at.Year() > 1970 && (f.Published.IsZero() || at.Before(f.Published)) {
			f.Published = at.UTC().Truncate(time.Second)
		}
	}
	slices.Sort(names)
	f.Aliases = slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == f.ID || n == "" })
	return f
}

func isCVE(id string) int {
	if strings.HasPrefix(id, "CVE-") {
		return 1
	}
	return 0
}

// cannotUse is the refusal for a database that proves nothing.
func cannotUse(what, format string, args ...any) error {
	return refusal.New(refusal.NotProven, what, "%w: %s", scan.ErrDatabase, fmt.Sprintf(format, args...))
}
