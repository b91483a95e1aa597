// SPDX-License-Identifier: Apache-2.0

// Package policy is the gate of a release: it decides from evidence alone whether a candidate may be published.
//
// The candidate is compared with the previous release of the same line, both scanned with the same snapshot of the same
// database by the same tool, today: what was published long ago is judged by what is known now, so only what the new
// release really brings counts against it. Four questions are asked and all of them are always answered, so that one
// screen shows everything that is wrong:
//
//   - Does the candidate bring a known vulnerability that the previous release did not have? (class vulnerable)
//   - Is every claimed fix true: there before, gone now? (class false-fix)
//   - Does a security release have what it must have: advisory text, SBOM, a fix claim? (class incomplete)
//   - Could all of this be checked? What could not be checked did not pass. (class not-proven)
//
// A vulnerability is the same one in two scans if it shares a name (CVE, GHSA, GO, DSA) and sits in the same component,
// whatever the component's version. An advisory that stands for several CVEs is the same only if each of them was there
// before. A component with a vulnerability that only another component had before is new.
//
// The gate is pure: the same input always gives the same verdict. It has no override. The rules and the format of the
// verdict are specified in docs/spec/gate.md.
package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// Input is all that the gate looks at.
type Input struct {
	Product  string
	Version  version.Version
	Line     version.Line
	Kind     statement.Kind
	Fixes    []string            // names of vulnerabilities that the candidate claims to fix
	Advisory *statement.Advisory // nil: none
	// Artifacts are the candidate's.
	Artifacts []Artifact
	// Previous is the version of the previous release of the line; zero if there is none.
	Previous version.Version
	// Before are the artifacts of the previous release.
	Before []Artifact
	// Tool and At say who judges and when.
	Tool evidence.Tool
	At   time.Time
}

// Artifact is one artifact with its evidence.
type Artifact struct {
	Name   string
	Digest digest.SHA256
	SBOM   *evidence.SBOM   // nil: there is none
	Report *evidence.Report // nil: it was not scanned
	// Failed says why there is no SBOM or no report, in the words of the error; may be empty.
	Failed string
}

// Gate judges a candidate.
func Gate(in Input) Verdict {
	v := Verdict{
		Product: in.Product, Version: in.Version, Line: in.Line, Kind: in.Kind, Previous: in.Previous,
		Tool: in.Tool, At: in.At.UTC().Truncate(time.Second),
		Artifacts: []Judged{}, Fixes: []Fix{},
	}
	for _, a := range in.Artifacts {
		j := Judged{Name: a.Name, Digest: a.Digest}
		if a.SBOM != nil {
			j.Components, j.Opaque = len(a.SBOM.Components), a.SBOM.Opaque
		}
		if a.Report != nil {
			j.Checked = a.Report.Checked
		}
		v.Artifacts = append(v.Artifacts, j)
	}
	v.Missing = missing(in)
	v.Unproven = unproven(in)
	v.Scanner, v.Database = source(in)
	v.Rows = rows(in)
	for _, row := range v.Rows {
		switch row.State {
		case Introduced:
			v.Counts.Introduced++
		case Inherited:
			v.Counts.Inherited++
		case Fixed:
			v.Counts.Fixed++
		}
	}
	for _, name := range in.Fixes {
		if !slices.ContainsFunc(v.Fixes, func(f Fix) bool { return f.Name == name }) {
			v.Fixes = append(v.Fixes, claim(in, name))
		}
	}
	v.Notes = notes(in)
	v.Passed = len(v.Refusals()) == 0
	return v
}

// missing lists what a security release must have and has not (Regulation (EU) 2024/2847, Annex I, Part II (1), (4), (8)).
func missing(in Input) []string {
	if in.Kind != statement.Security {
		return nil
	}
	var list []string
	a := in.Advisory
	if a == nil {
		a = &statement.Advisory{}
	}
	if strings.TrimSpace(a.Summary) == "" {
		list = append(list, "advisory summary: what was wrong and what the update does about it")
	}
	switch strings.TrimSpace(a.Severity) {
	case "critical", "high", "medium", "low":
	case "":
		list = append(list, "advisory severity: critical, high, medium or low")
	default:
		list = append(list, fmt.Sprintf("advisory severity: %q is not critical, high, medium or low", clip(a.Severity)))
	}
	if strings.TrimSpace(a.Action) == "" {
		list = append(list, "advisory action: what the user has to do, also if it is nothing")
	}
	if len(in.Fixes) == 0 {
		list = append(list, "fix claim: the name of at least one vulnerability that is fixed")
	}
	for _, x := range in.Artifacts {
		if x.SBOM == nil {
			list = append(list, fmt.Sprintf("SBOM of %s%s", x.Name, because(x.Failed)))
		}
	}
	return list
}

// unproven lists the checks that could not be made.
func unproven(in Input) []string {
	var list []string
	add := func(why string) {
		if why != "" {
			list = append(list, why)
		}
	}
	if in.Kind != statement.Security && in.Kind != statement.Feature {
		add(fmt.Sprintf("kind %q is neither security nor feature", clip(string(in.Kind))))
	}
	if len(in.Artifacts) == 0 {
		add("there is no artifact to look at")
	}
	for _, a := range in.Artifacts {
		if a.SBOM == nil && in.Kind == statement.Security {
			continue // already missing; without it nothing can be scanned
		}
		if why := a.broken(); why != "" {
			add(why)
		} else {
			add(a.blind())
		}
	}
	add(incomparable(in))
	return list
}

// broken says why there is no usable scan of an artifact; empty if there is one.
func (a Artifact) broken() string {
	switch {
	case a.SBOM == nil:
		return fmt.Sprintf("%s has no SBOM, so nothing was scanned%s", a.Name, because(a.Failed))
	case a.Report == nil:
		return fmt.Sprintf("%s was not scanned%s", a.Name, because(a.Failed))
	case a.SBOM.Subject.Digest.SHA256 != a.Digest:
		return fmt.Sprintf("the SBOM of %s is about other bytes", a.Name)
	case a.Report.Subject.Digest.SHA256 != a.Digest:
		return fmt.Sprintf("the scan of %s is about other bytes", a.Name)
	case a.Report.Database.Snapshot == "":
		return fmt.Sprintf("the scan of %s does not say which snapshot of the database it used", a.Name)
	case a.Report.Checked+len(a.Report.Unchecked) != len(a.SBOM.Components):
		return fmt.Sprintf("the scan of %s accounts for %d of %d components", a.Name,
			a.Report.Checked+len(a.Report.Unchecked), len(a.SBOM.Components))
	}
	return ""
}

// blind says why a usable scan of an artifact shows nothing; empty if it shows something.
func (a Artifact) blind() string {
	components := len(a.SBOM.Components)
	undeclared := slices.ContainsFunc(a.SBOM.Components, func(c evidence.Component) bool { return !c.Declared })
	switch {
	case components == 0 && a.SBOM.Opaque:
		return fmt.Sprintf("nothing in %s says what it was made of: declare its components", a.Name)
	case components > 0 && a.Report.Checked == 0 && undeclared:
		return fmt.Sprintf("none of the %d components of %s could be compared with the database: %s", components, a.Name, a.Report.Unchecked[0].Why)
	}
	return ""
}

// incomparable says why the two releases cannot be compared: the previous one was not scanned, or not by the same tool
// with the same snapshot. A previous release that was scanned and showed nothing can be compared: everything is new then.
func incomparable(in Input) string {
	switch {
	case in.Previous.IsZero() && len(in.Before) > 0:
		return "artifacts of a previous release were given without its version"
	case !in.Previous.IsZero() && len(in.Before) == 0:
		return fmt.Sprintf("the previous release %s was not scanned, so nothing can be compared", in.Previous)
	}
	for _, a := range in.Before {
		if why := a.broken(); why != "" {
			return fmt.Sprintf("the previous release %s cannot be compared: %s", in.Previous, why)
		}
	}
	var first *evidence.Report
	for _, a := range slices.Concat(in.Artifacts, in.Before) {
		r := a.Report
		switch {
		case r == nil:
		case first == nil:
			first = r
		case r.Tool != first.Tool:
			return fmt.Sprintf("scans by different tools cannot be compared: %s %s and %s %s", first.Tool.Name, first.Tool.Version, r.Tool.Name, r.Tool.Version)
		case r.Database.Name != first.Database.Name || r.Database.Snapshot != first.Database.Snapshot:
			return fmt.Sprintf("scans with different snapshots of the database cannot be compared: %s %s and %s %s",
				first.Database.Name, first.Database.Snapshot, r.Database.Name, r.Database.Snapshot)
		}
	}
	return ""
}

func source(in Input) (evidence.Tool, evidence.Database) {
	for _, a := range slices.Concat(in.Artifacts, in.Before) {
		if a.Report != nil {
			return a.Report.Tool, a.Report.Database
		}
	}
	return evidence.Tool{}, evidence.Database{}
}

// rows compares the two releases, vulnerability by vulnerability. There are none if they cannot be compared.
func rows(in Input) []Row {
	list := rowList{rows: []Row{}}
	if incomparable(in) != "" {
		return list.rows
	}
	for _, a := range in.Artifacts {
		if a.Report == nil {
			continue
		}
		before := counterpart(a.Name, in.Before)
		for _, f := range a.Report.Findings {
			row := Row{State: Introduced, Blocks: true, Why: "was not in " + in.Previous.String()}
			switch {
			case in.Previous.IsZero():
				row.Why = "no previous release on line " + in.Line.String() + " to compare with"
			case known(f, before):
				row = Row{State: Inherited, Why: "was in " + in.Previous.String()}
			}
			list.add(row, f, a.Name)
		}
	}
	for _, b := range in.Before {
		if b.Report == nil {
			continue
		}
		now := counterpart(b.Name, in.Artifacts)
		for _, f := range b.Report.Findings {
			if !known(f, now) && allScanned(in.Artifacts) {
				list.add(Row{State: Fixed, Why: "is no longer in " + in.Version.String()}, f, b.Name)
			}
		}
	}
	slices.SortFunc(list.rows, compareRows)
	return list.rows
}

// counterpart returns the findings to compare an artifact with: those of the artifact of the same name in the other
// release, or of all its artifacts if names have changed.
func counterpart(name string, others []Artifact) []evidence.Finding {
	var all []evidence.Finding
	for _, o := range others {
		if o.Report == nil {
			continue
		}
		if o.Name == name {
			return o.Report.Findings
		}
		all = append(all, o.Report.Findings...)
	}
	return all
}

func allScanned(list []Artifact) bool {
	return !slices.ContainsFunc(list, func(a Artifact) bool { return a.Report == nil })
}

// known reports whether f is among others: the same component, and a name in common. A finding that stands for several
// CVEs is known only if every one of them is, in whatever findings.
func known(f evidence.Finding, others []evidence.Finding) bool {
	same := component(f)
	cves := make(map[string]bool)
	for _, name := range names(f) {
		if strings.HasPrefix(name, "CVE-") {
			cves[name] = true
		}
	}
	several := len(cves) > 1
	for _, o := range others {
		if component(o) != same {
			continue
		}
		if !several && slices.ContainsFunc(names(f), o.Is) {
			return true
		}
		for _, name := range names(o) {
			delete(cves, name)
		}
	}
	return several && len(cves) == 0
}

func names(f evidence.Finding) []string { return append([]string{f.ID}, f.Aliases...) }

// component names the place of a finding without its version: "golang golang.org/x/text".
func component(f evidence.Finding) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(f.PURL, "pkg:"), "/")
	return kind + " " + f.Name
}

// claim judges one claimed fix.
func claim(in Input, name string) Fix {
	fix := Fix{Name: name}
	before, scannedBefore := where(name, in.Before)
	now, scannedNow := where(name, in.Artifacts)
	switch {
	case incomparable(in) != "":
		fix.State, fix.Why = NotProven, "cannot be checked, because the two releases cannot be compared"
	case in.Previous.IsZero():
		fix.State, fix.Why = NotBefore, fmt.Sprintf("there is no previous release on line %s that had it", in.Line)
	case len(now) > 0 && len(before) == 0 && scannedBefore:
		fix.State, fix.Why = StillPresent, fmt.Sprintf("is present now in %s and was not in %s", places(now), in.Previous)
	case len(now) > 0:
		fix.State, fix.Why = StillPresent, "is still present in "+places(now)
	case !scannedBefore || !scannedNow:
		fix.State, fix.Why = NotProven, "cannot be checked, because not everything could be scanned"
	case len(before) == 0:
		fix.State, fix.Why = NotBefore, fmt.Sprintf("no component of %s had it, by what the database knows", in.Previous)
	default:
		if why := uncheckable(before, in.Artifacts); why != "" {
			fix.State, fix.Why = NotProven, why
			break
		}
		fix.State, fix.Why = True, fmt.Sprintf("was in %s of %s and is in no component now", places(before), in.Previous)
	}
	return fix
}

// where returns the findings that go by a name, and whether every artifact could be looked at.
func where(name string, list []Artifact) (found []evidence.Finding, complete bool) {
	complete = len(list) > 0
	for _, a := range list {
		if a.broken() != "" || a.blind() != "" {
			complete = false
		}
		if a.Report == nil {
			continue
		}
		for _, f := range a.Report.Findings {
			if f.Is(name) && !slices.ContainsFunc(found, func(o evidence.Finding) bool { return o.Name == f.Name && o.Version == f.Version }) {
				found = append(found, f)
			}
		}
	}
	return found, complete
}

// uncheckable says why the absence of these findings proves nothing: their component is there, but was not compared.
func uncheckable(before []evidence.Finding, now []Artifact) string {
	for _, f := range before {
		for _, a := range now {
			for _, u := range a.Report.Unchecked {
				if u.Name == f.Name || trimVersion(u.PURL) == trimVersion(f.PURL) {
					return fmt.Sprintf("%s had it, and could not be compared in %s: %s", f.Name, a.Name, u.Why)
				}
			}
		}
	}
	return ""
}

// trimVersion cuts a package URL before its version.
func trimVersion(purl string) string {
	purl, _, _ = strings.Cut(purl, "?")
	if i := strings.LastIndexByte(purl, '@'); i > 0 {
		return purl[:i]
	}
	return purl
}

func places(list []evidence.Finding) string {
	var texts []string
	for _, f := range list {
		texts = append(texts, strings.TrimSpace(f.Name+" "+f.Version))
	}
	return enumerate(texts)
}

// notes lists what does not block and has to be said: components and parts that nobody could look into.
func notes(in Input) []Note {
	var list []Note
	for _, a := range in.Artifacts {
		if a.SBOM != nil {
			for _, gap := range a.SBOM.Gaps {
				list = append(list, Note{Artifact: a.Name, Text: gap})
			}
		}
		if a.Report != nil {
			for _, u := range a.Report.Unchecked {
				list = append(list, Note{Artifact: a.Name, Text: strings.TrimSpace(u.Name+" "+u.Version) + ": " + u.Why})
			}
		}
	}
	return list
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// enumerate joins up to five texts and counts the rest.
func enumerate(texts []string) string {
	const most = 5
	if len(texts) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
	}
	return strings.Join(texts, ", ")
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
