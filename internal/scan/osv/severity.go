// SPDX-License-Identifier: Apache-2.0

package osv

import (
	"strings"

	cvss20 "github.com/pandatix/go-cvss/20"
	cvss30 "github.com/pandatix/go-cvss/30"
	cvss31 "github.com/pandatix/go-cvss/31"
	cvss40 "github.com/pandatix/go-cvss/40"

	"github.com/pawl-project/pawl/internal/evidence"
)

// severity returns how bad a record calls the vulnerability for a package: by the newest CVSS that it has, else by the
// word of its database. A package that is malicious by itself is critical, whatever else it says.
func (r *record) severity(p evidence.Package) evidence.Severity {
	if strings.HasPrefix(r.ID, "MAL-") {
		return evidence.Critical
	}
	ratings, words := r.Severity, []string{r.Specific.text()}
	for _, a := range r.Affected {
		if a.Package.speaksOf(p) {
			ratings = append(ratings[:len(ratings):len(ratings)], a.Severity...)
			words = append(words, a.Ecosystem.text(), a.Database.text())
		}
	}
	for _, kind := range []string{"CVSS_V4", "CVSS_V3", "CVSS_V2", "Ubuntu"} {
		worst := evidence.Unknown
		for _, s := range ratings {
			if s.Type == kind {
				worst = worse(worst, rate(s))
			}
		}
		if worst != evidence.Unknown {
			return worst
		}
	}
	worst := evidence.Unknown
	for _, w := range words {
		worst = worse(worst, word(w))
	}
	return worst
}

func worse(a, b evidence.Severity) evidence.Severity {
	if b.Rank() < a.Rank() {
		return b
	}
	return a
}

// rate computes the severity of a vector. A vector that cannot be read says nothing.
func rate(r rating) evidence.Severity {
	v := strings.TrimSpace(r.Score)
	if len(v) > maxVersion {
		return evidence.Unknown
	}
	score := -1.0
	switch {
	case r.Type == "Ubuntu":
		return word(v)
	case strings.HasPrefix(v, "CVSS:4.0/"):
		if c, err := cvss40.ParseVector(v); err == nil {
			score = c.Score()
		}
	case strings.HasPrefix(v, "CVSS:3.1/"):
		if c, err := cvss31.ParseVector(v); err == nil {
			score = c.BaseScore()
		}
	case strings.HasPrefix(v, "CVSS:3.0/"):
		if c, err := cvss30.ParseVector(v); err == nil {
			score = c.BaseScore()
		}
	case r.Type == "CVSS_V2":
		if c, err := cvss20.ParseVector(strings.Trim(v, "()")); err == nil {
			score = c.BaseScore()
		}
	}
	// Qualitative severity rating scale, CVSS v3.1 section 5 and v4.0 section 6; the one of v2 has no word for 9 and more,
	// so its numbers are read on the same scale.
	switch {
	case score >= 9:
		return evidence.Critical
	case score >= 7:
		return evidence.High
	case score >= 4:
		return evidence.Medium
	case score >= 0:
		return evidence.Low
	}
	return evidence.Unknown
}

// word reads the words of databases: GitHub's, Debian's, Ubuntu's.
func word(s string) evidence.Severity {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "critical":
		return evidence.Critical
	case "high", "important":
		return evidence.High
	case "medium", "moderate":
		return evidence.Medium
	case "low", "negligible", "unimportant":
		return evidence.Low
	}
	return evidence.Unknown
}
