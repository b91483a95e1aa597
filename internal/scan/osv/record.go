// SPDX-License-Identifier: Apache-2.0

package osv

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/osv-scalibr/semantic"

	"github.com/pawl-project/pawl/internal/evidence"
)

// Limits on a database. Whoever publishes it could choose these sizes.
const (
	maxRecordBytes = 32 << 20 // of one record
	maxRecords     = 5_000_000
	maxNames       = 10_000 // identifiers and aliases of one record
	maxSummary     = 300    // of a summary that is kept, in bytes
	maxVersion     = 1024   // of a version that is compared, in bytes
)

// header is the part of a record that the index needs.
type header struct {
	ID        string `json:"id"`
	Modified  string `json:"modified"`
	Withdrawn string `json:"withdrawn"`
	Affected  []struct {
		Package name `json:"package"`
	} `json:"affected"`
}

// name is a package as a record names it.
type name struct {
	Ecosystem string `json:"ecosystem"`
	Name      string `json:"name"`
}

// record is the part of an OSV record (OSV schema 1.7.4) that a scan needs.
type record struct {
	ID        string     `json:"id"`
	Modified  string     `json:"modified"`
	Published string     `json:"published"`
	Withdrawn string     `json:"withdrawn"`
	Aliases   []string   `json:"aliases"`
	Upstream  []string   `json:"upstream"`
	Summary   string     `json:"summary"`
	Details   string     `json:"details"`
	Severity  []rating   `json:"severity"`
	Affected  []affected `json:"affected"`
	Specific  specific   `json:"database_specific"`
}

type rating struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

type affected struct {
	Package   name     `json:"package"`
	Severity  []rating `json:"severity"`
	Ranges    []span   `json:"ranges"`
	Versions  []string `json:"versions"`
	Ecosystem specific `json:"ecosystem_specific"`
	Database  specific `json:"database_specific"`
}

// span is one range of affected versions.
type span struct {
	Type   string  `json:"type"`
	Events []event `json:"events"`
}

type event struct {
	Introduced   string `json:"introduced"`
	Fixed        string `json:"fixed"`
	LastAffected string `json:"last_affected"`
	Limit        string `json:"limit"`
}

// specific is what a database adds in its own way: a member may have any type, and only a text is a severity.
type specific struct {
	Severity jsontext.Value `json:"severity"`
}

// UnmarshalJSONFrom skips whatever is not an object.
func (s *specific) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, err := dec.ReadValue()
	if err != nil || value.Kind() != '{' {
		return err
	}
	type plain specific
	return json.Unmarshal(value, (*plain)(s))
}

func (s specific) text() string {
	var text string
	if len(s.Severity) == 0 || json.Unmarshal(s.Severity, &text) != nil {
		return ""
	}
	return text
}

// parse reads and checks a record.
func parse(data []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if err := checkHeader(r.ID, r.Modified); err != nil {
		return nil, err
	}
	if n := len(r.Aliases) + len(r.Upstream); n > maxNames {
		return nil, fmt.Errorf("record %s: %d names, at most %d are allowed", r.ID, n, maxNames)
	}
	return &r, nil
}

var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:+-]{0,199}$`)

// checkHeader refuses what is not an OSV record. "id" and "modified" are the two members that every record has.
func checkHeader(id, modified string) error {
	if !identifier.MatchString(id) {
		return fmt.Errorf("no OSV record: %q is not an identifier", clip(id, 80))
	}
	if _, err := time.Parse(time.RFC3339, modified); err != nil {
		return fmt.Errorf("no OSV record: %s was modified at %q, which is no time", id, clip(modified, 80))
	}
	return nil
}

// names returns the identifier and what else the vulnerability is called: its aliases, and the vulnerabilities upstream
// that a distribution's advisory is about.
func (r *record) names() []string {
	return slices.Concat([]string{r.ID}, r.Aliases, r.Upstream)
}

// text returns one line about the vulnerability.
func (r *record) text() string {
	s := strings.TrimSpace(r.Summary)
	if s == "" {
		s, _, _ = strings.Cut(strings.TrimSpace(r.Details), "\n")
	}
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, s)
	return clip(s, maxSummary)
}

// base cuts the release off an ecosystem: "Debian" of "Debian:12".
func base(ecosystem string) string {
	b, _, _ := strings.Cut(ecosystem, ":")
	return b
}

var separators = regexp.MustCompile(`[-_.]+`)

// normal returns a package's name in the one spelling that its ecosystem treats as equal with all others.
func normal(ecosystem, name string) string {
	switch base(ecosystem) {
	case "PyPI": // PEP 503, "Normalized Names"
		return separators.ReplaceAllString(strings.ToLower(name), "-")
	case "NuGet", "Packagist":
		return strings.ToLower(name)
	case "Go": // case matters to Go, but a package URL is written in lower case
		return strings.ToLower(name)
	}
	return name
}

// speaksOf reports whether a record's package is p. An ecosystem without a release stands for all of its releases.
func (n name) speaksOf(p evidence.Package) bool {
	return (n.Ecosystem == p.Ecosystem || n.Ecosystem == base(p.Ecosystem)) && normal(n.Ecosystem, n.Name) == normal(p.Ecosystem, p.Name)
}

// comparableVersions reports whether versions of an ecosystem can be ordered here, by an example that all of them have.
func comparableVersions(ecosystem string) bool {
	_, err := semantic.Parse("1.0.0", ecosystem)
	return !errors.Is(err, semantic.ErrUnsupportedEcosystem)
}

// parseVersion reads a version within bounds.
func parseVersion(version, ecosystem string) (semantic.Version, error) {
	if len(version) > maxVersion {
		return nil, fmt.Errorf("version of %d bytes, at most %d are compared", len(version), maxVersion)
	}
	v, err := semantic.Parse(version, ecosystem)
	if err != nil {
		return nil, fmt.Errorf("version %q cannot be compared: %w", clip(version, 80), err)
	}
	return v, nil
}

// hits reports whether a version of the package is affected (OSV schema, "Evaluation").
func (r *record) hits(p evidence.Package) (bool, error) {
	for _, a := range r.Affected {
		if !a.Package.speaksOf(p) {
			continue
		}
		if hit, err := a.hits(p); hit || err != nil {
			return hit, err
		}
	}
	return false, nil
}

func (a affected) hits(p evidence.Package) (bool, error) {
	if slices.Contains(a.Versions, p.Version) {
		return true, nil
	}
	ordered := false
	for _, s := range a.Ranges {
		scheme := p.Ecosystem
		switch s.Type {
		case "SEMVER":
			scheme = "Go" // whose versions are semantic versions
		case "ECOSYSTEM":
		default:
			continue // GIT: about commits, which a version says nothing of
		}
		ordered = true
		if hit, err := s.holds(p.Version, scheme); hit || err != nil {
			return hit, err
		}
	}
	if ordered || len(a.Versions) == 0 {
		if !ordered && len(a.Ranges) > 0 {
			return false, errors.New("affected versions are given as commits only")
		}
		return false, nil
	}
	// Only a list: the same version may be spelt in another way.
	v, err := parseVersion(p.Version, p.Ecosystem)
	if err != nil {
		return false, err
	}
	for _, other := range a.Versions {
		if len(other) > maxVersion {
			return false, fmt.Errorf("version of %d bytes, at most %d are compared", len(other), maxVersion)
		}
		order, err := v.CompareStr(other)
		if err != nil {
			return false, fmt.Errorf("version %q cannot be compared: %w", clip(other, 80), err)
		}
		if order == 0 {
			return true, nil
		}
	}
	return false, nil
}

// point is an event with its version.
type point struct {
	at     semantic.Version // nil: before every version
	text   string
	starts bool // introduced
	after  bool // last_affected: the version itself is still affected
}

// holds reports whether a version lies in the range.
func (s span) holds(version, scheme string) (bool, error) {
	v, err := parseVersion(version, scheme)
	if err != nil {
		return false, err
	}
	var points []point
	limited, within := false, false
	for _, e := range s.Events {
		p := point{text: e.Introduced, starts: true}
		switch {
		case e.Limit == "*":
			limited, within = true, true
			continue
		case e.Limit != "":
			limited = true
			order, err := compare(v, e.Limit)
			if err != nil {
				return false, err
			}
			within = within || order < 0
			continue
		case e.Fixed != "":
			p = point{text: e.Fixed}
		case e.LastAffected != "":
			p = point{text: e.LastAffected, after: true}
		case e.Introduced == "":
			continue
		}
		if !p.starts || p.text != "0" {
			if p.at, err = parseVersion(p.text, scheme); err != nil {
				return false, err
			}
		}
		points = append(points, p)
	}
	if limited && !within {
		return false, nil
	}
	if err := sortPoints(points); err != nil {
		return false, err
	}
	hit := false
	for _, p := range points {
		order := +1
		if p.at != nil {
			if order, err = v.Compare(p.at); err != nil {
				return false, err
			}
		}
		switch {
		case p.starts && order >= 0:
			hit = true
		case !p.starts && (order > 0 || order == 0 && !p.after):
			hit = false
		}
	}
	return hit, nil
}

// sortPoints orders events by version. At the same version an end comes before a beginning, so that a range which says
// both counts as affected.
func sortPoints(points []point) error {
	var failed error
	slices.SortStableFunc(points, func(a, b point) int {
		order := 0
		switch {
		case a.at == nil && b.at == nil:
		case a.at == nil:
			return -1
		case b.at == nil:
			return +1
		default:
			var err error
			if order, err = a.at.Compare(b.at); err != nil {
				failed = err
			}
		}
		if order == 0 && a.starts != b.starts {
			if a.starts {
				return +1
			}
			return -1
		}
		return order
	})
	return failed
}

func compare(v semantic.Version, other string) (int, error) {
	if len(other) > maxVersion {
		return 0, fmt.Errorf("version of %d bytes, at most %d are compared", len(other), maxVersion)
	}
	order, err := v.CompareStr(other)
	if err != nil {
		return 0, fmt.Errorf("version %q cannot be compared: %w", clip(other, 80), err)
	}
	return order, nil
}

// fixes returns the versions that the record calls fixed for the package.
func (r *record) fixes(p evidence.Package) []string {
	var list []string
	for _, a := range r.Affected {
		if !a.Package.speaksOf(p) {
			continue
		}
		for _, s := range a.Ranges {
			for _, e := range s.Events {
				if e.Fixed != "" && s.Type != "GIT" {
					list = append(list, e.Fixed)
				}
			}
		}
	}
	return list
}

// lowestFix returns the lowest version above p's that none of the records affects; "" if no record knows one.
func lowestFix(p evidence.Package, records []*record) string {
	current, err := parseVersion(p.Version, p.Ecosystem)
	if err != nil {
		return ""
	}
	type fix struct {
		text string
		at   semantic.Version
	}
	var list []fix
	for _, r := range records {
		for _, text := range r.fixes(p) {
			at, err := parseVersion(text, p.Ecosystem)
			if err != nil {
				continue
			}
			if order, err := at.Compare(current); err == nil && order > 0 {
				list = append(list, fix{text, at})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b fix) int {
		order, err := a.at.Compare(b.at)
		if err != nil {
			order = 0
		}
		return cmp.Or(order, cmp.Compare(a.text, b.text))
	})
	for _, f := range list {
		next := p
		next.Version = f.text
		if !slices.ContainsFunc(records, func(r *record) bool { hit, err := r.hits(next); return hit || err != nil }) {
			return f.text
		}
	}
	return ""
}

func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
