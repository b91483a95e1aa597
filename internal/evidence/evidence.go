// SPDX-License-Identifier: Apache-2.0

// Package evidence holds what is known about an artifact beside its bytes: which components are in it and which of their
// vulnerabilities are known. Every piece is bound to the digest of the artifact.
package evidence

import (
	"time"

	"github.com/pawl-project/pawl/internal/digest"
)

// Predicate types of attestations over evidence, as cosign names them.
const (
	CycloneDXPredicate = "https://cyclonedx.org/bom"
	VerdictPredicate   = "https://github.com/pawl-project/pawl/verdict/v1"
)

// SBOM lists the components of one artifact, ordered by package URL, name and version.
type SBOM struct {
	Subject    Subject
	Components []Component
	Tool       Tool
	Created    time.Time
	// Opaque reports an artifact in which nothing says what it was made of: a native program without build information,
	// a raw firmware image. An empty list then means "not known" and never "nothing in it"; what is listed was declared.
	Opaque bool
	// Gaps are sentences about single parts of the artifact that the tool saw and could not look into.
	Gaps []string
}

// Subject is the artifact that a piece of evidence speaks of.
type Subject struct {
	Name    string
	Version string
	Digest  digest.Set
	Size    int64
}

// Component is one package inside an artifact.
type Component struct {
	Name    string
	Version string
	// PURL is the package URL ("pkg:golang/golang.org/x/text@0.3.5"). Its qualifiers are those that say which package
	// it is: the distribution and the source package of an operating system's package.
	PURL string
	// Ecosystem is the OSV ecosystem ("Go", "npm", "NuGet", "PyPI", "Debian:12", "Alpine:v3.20"), derived from PURL by
	// Identify; empty if OSV has none.
	Ecosystem string
	// Locations are paths inside the artifact.
	Locations []string
	Licences  []string
	// Declared marks a component that the maker of the artifact named and no tool has seen.
	Declared bool
}

// Tool is a program that made evidence.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Database is the collection of vulnerabilities that a scan looked into.
type Database struct {
	Name string `json:"name"`
	// Snapshot names the content: the SHA-256 over its records, or what the service says about itself.
	Snapshot string    `json:"snapshot"`
	Updated  time.Time `json:"updated,omitzero"`
	Records  int       `json:"records"`
}

// Report is the result of a scan of one artifact's components against one database. Every component was either compared
// with the database or stands in Unchecked with the reason; a scan that broke off returns an error and no report. So a
// report never means "nothing found because nothing was looked at".
type Report struct {
	Subject  Subject   `json:"-"`
	Tool     Tool      `json:"tool"`
	Database Database  `json:"database"`
	At       time.Time `json:"at"`
	// Checked is the number of components that were compared; Checked and len(Unchecked) add up to the SBOM's.
	Checked   int         `json:"checked"`
	Findings  []Finding   `json:"findings"`
	Unchecked []Unchecked `json:"unchecked,omitempty"`
}

// Unchecked is a component that could not be compared with the database.
type Unchecked struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Why     string `json:"why"` // "no database speaks of its kind", "no version is known"
}

// Finding is one vulnerability of one component.
type Finding struct {
	// ID is the name of the record; Aliases are the other names of the same vulnerability (CVE, GHSA, GO, DSA).
	ID       string   `json:"id"`
	Aliases  []string `json:"aliases,omitempty"`
	Severity Severity `json:"severity"`
	Summary  string   `json:"summary,omitempty"`
	// PURL is one component's; Name and Version are the package's as the database calls it (an operating system's
	// source package, of which an artifact may carry several binary packages).
	PURL    string `json:"purl"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// FixedIn is the lowest version of the component without the vulnerability; empty if none is known.
	FixedIn   string    `json:"fixedIn,omitempty"`
	Published time.Time `json:"published,omitzero"`
}

// Severity is the qualitative severity rating (CVSS v3.1 specification, section 5; v4.0 section 6).
type Severity string

// The severities.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
	Unknown  Severity = "unknown"
)

// Rank orders severities: 0 for critical to 4 for unknown and everything else.
func (s Severity) Rank() int {
	switch s {
	case Critical:
		return 0
	case High:
		return 1
	case Medium:
		return 2
	case Low:
		return 3
	}
	return 4
}

// Is reports whether the finding is the vulnerability that goes by this name.
func (f Finding) Is(name string) bool {
	if f.ID == name {
		return true
	}
	for _, alias := range f.Aliases {
		if alias == name {
			return true
		}
	}
	return false
}
