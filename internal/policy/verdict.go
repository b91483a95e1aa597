// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// MaxBytes bounds the JSON text of a verdict that is read.
const MaxBytes = 32 << 20

// Verdict is the gate's answer with every reason. It is the predicate of an attestation (evidence.VerdictPredicate), and
// everything in it can be compared again with the SBOMs and the named snapshot of the database.
type Verdict struct {
	Product string          `json:"product"`
	Version version.Version `json:"version"`
	Line    version.Line    `json:"line"`
	Kind    statement.Kind  `json:"kind"`
	// Previous is the release that the candidate was compared with; empty if there is none on the line.
	Previous version.Version `json:"previous,omitzero"`
	// Passed reports that nothing stands against publishing. It is false unless every check was made and passed.
	Passed bool          `json:"passed"`
	At     time.Time     `json:"at"`
	Tool   evidence.Tool `json:"tool"` // the program that judged
	// Scanner and Database are those of every scan, today's of the previous release included.
	Scanner   evidence.Tool     `json:"scanner"`
	Database  evidence.Database `json:"database"`
	Artifacts []Judged          `json:"artifacts"`
	Counts    Counts            `json:"counts"`
	// Rows are ordered by state (introduced, inherited, fixed), then by severity, component and name.
	Rows     []Row    `json:"rows"`
	Fixes    []Fix    `json:"fixes"`
	Missing  []string `json:"missing,omitempty"`  // what a security release needs and has not
	Unproven []string `json:"unproven,omitempty"` // checks that could not be made
	Notes    []Note   `json:"notes,omitempty"`    // what was not looked into and does not block
}

// Judged is an artifact of the candidate.
type Judged struct {
	Name       string        `json:"name"`
	Digest     digest.SHA256 `json:"digest,omitzero"`
	Components int           `json:"components"`
	Checked    int           `json:"checked"` // components that were compared with the database
	Opaque     bool          `json:"opaque,omitempty"`
}

// Counts are the numbers of rows.
type Counts struct {
	Introduced int `json:"introduced"`
	Inherited  int `json:"inherited"`
	Fixed      int `json:"fixed"`
}

// State is what has become of a vulnerability between two releases.
type State string

// The states.
const (
	Introduced State = "introduced" // in the candidate, not in the previous release
	Inherited  State = "inherited"  // in both
	Fixed      State = "fixed"      // in the previous release, not in the candidate
)

// Row is one vulnerability of one component.
type Row struct {
	State     State             `json:"state"`
	Blocks    bool              `json:"blocks"`
	Why       string            `json:"why"`
	ID        string            `json:"id"`
	Aliases   []string          `json:"aliases,omitempty"`
	Severity  evidence.Severity `json:"severity"`
	Summary   string            `json:"summary,omitempty"`
	Component string            `json:"component"`
	Version   string            `json:"version"` // of the component, in the release that has the vulnerability
	PURL      string            `json:"purl"`
	FixedIn   string            `json:"fixedIn,omitempty"`
	Artifacts []string          `json:"artifacts"`
}

// FixState is the truth of a claimed fix.
type FixState string

// The states of a claim.
const (
	True         FixState = "true"          // there before, gone now
	NotBefore    FixState = "not-before"    // was not there before
	StillPresent FixState = "still-present" // is there now
	NotProven    FixState = "not-proven"    // could not be checked
)

// Fix is a claimed fix and its truth.
type Fix struct {
	Name  string   `json:"name"`
	State FixState `json:"state"`
	Why   string   `json:"why"`
}

// Note is a sentence about an artifact.
type Note struct {
	Artifact string `json:"artifact"`
	Text     string `json:"text"`
}

// rowList collects rows; the same vulnerability of the same component in several artifacts is one row.
type rowList struct {
	rows []Row
	at   map[string]int
}

func (l *rowList) add(row Row, f evidence.Finding, artifact string) {
	row.ID, row.Severity, row.Summary, row.FixedIn = f.ID, f.Severity, f.Summary, f.FixedIn
	row.Component, row.Version, row.PURL = f.Name, f.Version, f.PURL
	row.Aliases = slices.Clone(f.Aliases)
	slices.Sort(row.Aliases)
	if f.Severity == "" {
		row.Severity = evidence.Unknown
	}
	key := strings.Join([]string{string(row.State), f.ID, component(f), f.Version}, "\n")
	if i, ok := l.at[key]; ok {
		if !slices.Contains(l.rows[i].Artifacts, artifact) {
			l.rows[i].Artifacts = append(l.rows[i].Artifacts, artifact)
		}
		return
	}
	if l.at == nil {
		l.at = make(map[string]int)
	}
	row.Artifacts = []string{artifact}
	l.at[key] = len(l.rows)
	l.rows = append(l.rows, row)
}

func compareRows(a, b Row) int {
	order := []State{Introduced, Inherited, Fixed}
	return cmp.Or(
		cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)),
		cmp.Compare(a.Severity.Rank(), b.Severity.Rank()),
		cmp.Compare(a.Component, b.Component),
		cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.ID, b.ID),
	)
}

// Refusals returns what stands against publishing, at most one refusal of each class, worst first: vulnerable, false-fix,
// incomplete, not-proven. The first one decides the exit status. It is empty if and only if the candidate passes.
func (v Verdict) Refusals() []*refusal.Error {
	var list []*refusal.Error
	checked := func(what string) string { return fmt.Sprintf("%s of %s %s", what, v.Product, v.Version) }

	var blocking, remedies []string
	for _, row := range v.Rows {
		if !row.Blocks {
			continue
		}
		blocking = append(blocking, fmt.Sprintf("%s (%s) in %s %s", row.Name(), row.Severity, row.Component, row.Version))
		if remedy := fmt.Sprintf("%s to %s", row.Component, row.FixedIn); row.FixedIn != "" && !slices.Contains(remedies, remedy) {
			remedies = append(remedies, remedy)
		}
	}
	if n := len(blocking); n > 0 {
		against := "compared with " + v.Previous.String()
		if v.Previous.IsZero() {
			against = "with no previous release on line " + v.Line.String() + " to inherit from"
		}
		next := "update or remove the components that have them and release again"
		if len(remedies) > 0 {
			next = "update " + enumerate(remedies) + " and release again"
		}
		list = append(list, refusal.New(refusal.Vulnerable, checked("known vulnerabilities"), "%s introduced, %s: %s",
			count(n, "vulnerability", "vulnerabilities"), against, enumerate(blocking)).Do("%s", next))
	}

	var untrue, unproven []string
	for _, f := range v.Fixes {
		switch f.State {
		case True:
		case NotProven:
			unproven = append(unproven, f.Name+" "+f.Why)
		default:
			untrue = append(untrue, f.Name+" "+f.Why)
		}
	}
	if len(untrue) > 0 {
		list = append(list, refusal.New(refusal.FalseFix, checked("fix claims"), "%d of %s not true: %s",
			len(untrue), count(len(v.Fixes), "claim is", "claims are"), strings.Join(untrue, "; ")).
			Do("claim only what this release fixes, or fix what it claims"))
	}
	if n := len(v.Missing); n > 0 {
		list = append(list, refusal.New(refusal.Incomplete, checked("security release"), "%s: %s",
			count(n, "thing is missing", "things are missing"), strings.Join(v.Missing, "; ")).
			Do("add all of it and run the release again"))
	}
	if unproven = append(slices.Clone(v.Unproven), unproven...); len(unproven) > 0 {
		list = append(list, refusal.New(refusal.NotProven, checked("evidence"), "%s: %s",
			count(len(unproven), "check could not be made", "checks could not be made"), strings.Join(unproven, "; ")).
			Do("what is not proven does not pass: make the check possible and run the release again"))
	}
	return list
}

// Name returns the name by which most people know the vulnerability: the CVE if it has one.
func (r Row) Name() string {
	for _, name := range append([]string{r.ID}, r.Aliases...) {
		if strings.HasPrefix(name, "CVE-") {
			return name
		}
	}
	return r.ID
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Encode returns the verdict's JSON text. The same verdict always gives the same bytes.
func (v Verdict) Encode() ([]byte, error) {
	var out bytes.Buffer
	if err := json.MarshalWrite(&out, v, json.Deterministic(true), jsontext.WithIndent("  ")); err != nil {
		return nil, fmt.Errorf("cannot encode verdict: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Decode reads a verdict. Every error is a refusal of class Malformed; so is a verdict that contradicts itself.
func Decode(data []byte) (Verdict, error) {
	if len(data) > MaxBytes {
		return Verdict{}, refusal.New(refusal.Malformed, "verdict", "%d bytes, at most %d are allowed", len(data), MaxBytes)
	}
	var v Verdict
	if err := json.Unmarshal(data, &v); err != nil {
		return Verdict{}, refusal.New(refusal.Malformed, "verdict", "%w", err)
	}
	if against := v.Refusals(); v.Passed != (len(against) == 0) {
		return Verdict{}, refusal.New(refusal.Malformed, "verdict", "says passed: %t, and lists %s against it", v.Passed, count(len(against), "reason", "reasons"))
	}
	return v, nil
}
