// SPDX-License-Identifier: Apache-2.0

// Package version orders the versions of a product and says which line of maintenance a version belongs to.
//
// A version is a Semantic Version 2.0.0 without a leading "v": MAJOR.MINOR.PATCH, optionally a pre-release and build
// metadata. What does not parse is refused: a version is compared to decide an update, so there is no best guess.
package version

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/semver"
)

// ErrMalformed reports text that is not a version or not a line.
var ErrMalformed = errors.New("malformed version")

// MaxLength bounds the text of a version, in bytes.
const MaxLength = 64

// Version is a parsed version. The zero value is "no version", lower than every version.
type Version struct{ text string }

// Parse reads MAJOR.MINOR.PATCH with optional pre-release and build metadata (Semantic Versioning 2.0.0, section 2, 9
// and 10).
func Parse(s string) (Version, error) {
	if len(s) > MaxLength {
		return Version{}, fmt.Errorf("%w: %d characters, at most %d are allowed", ErrMalformed, len(s), MaxLength)
	}
	core, _, _ := strings.Cut(s, "+")
	core, _, _ = strings.Cut(core, "-")
	// The library also reads "1" and "1.2": two spellings of one version would be two releases of it.
	if strings.Count(core, ".") != 2 || !semver.IsValid("v"+s) {
		return Version{}, fmt.Errorf("%w: %q is not MAJOR.MINOR.PATCH, for example 1.4.3", ErrMalformed, s)
	}
	return Version{s}, nil
}

// MustParse is Parse for constants in tests and examples. It panics.
func MustParse(s string) Version {
	v, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return v
}

// IsZero reports whether v is "no version".
func (v Version) IsZero() bool { return v.text == "" }

// String returns the text as it was parsed.
func (v Version) String() string { return v.text }

// Compare returns -1, 0 or +1 by semantic-version precedence. Build metadata does not count (section 10).
func (v Version) Compare(w Version) int {
	switch {
	case v.IsZero() && w.IsZero():
		return 0
	case v.IsZero():
		return -1
	case w.IsZero():
		return +1
	}
	return semver.Compare("v"+v.text, "v"+w.text)
}

// Prerelease reports whether v has a pre-release part ("1.4.0-rc.1").
func (v Version) Prerelease() bool { return semver.Prerelease("v"+v.text) != "" }

// Line returns the line of maintenance that v belongs to unless a product says otherwise: "MAJOR.MINOR".
func (v Version) Line() Line {
	if v.IsZero() {
		return Line{}
	}
	return Line{strings.TrimPrefix(semver.MajorMinor("v"+v.text), "v")}
}

// MarshalText writes the version as it was parsed.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.text), nil }

// UnmarshalText is Parse; empty text is "no version".
func (v *Version) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*v = Version{}
		return nil
	}
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*v = parsed
	return nil
}

// Line is a pattern over versions: "1.4" holds 1.4.x, "1" holds 1.x.y, "*" holds everything. The zero value holds
// nothing.
type Line struct{ text string }

// Any is the line that holds every version.
var Any = Line{"*"}

// ParseLine reads "MAJOR", "MAJOR.MINOR" or "*".
func ParseLine(s string) (Line, error) {
	if s == "*" {
		return Any, nil
	}
	if len(s) > MaxLength || strings.Count(s, ".") > 1 || strings.ContainsAny(s, "-+") || !semver.IsValid("v"+s) {
		return Line{}, fmt.Errorf("%w: line %q is not MAJOR, MAJOR.MINOR or \"*\"", ErrMalformed, s)
	}
	return Line{s}, nil
}

// IsZero reports whether l holds nothing.
func (l Line) IsZero() bool { return l.text == "" }

// String returns the text as it was parsed.
func (l Line) String() string { return l.text }

// Holds reports whether v is on the line.
func (l Line) Holds(v Version) bool {
	switch {
	case l.IsZero() || v.IsZero():
		return false
	case l == Any:
		return true
	case strings.Contains(l.text, "."):
		return v.Line() == l
	}
	return strings.TrimPrefix(semver.Major("v"+v.text), "v") == l.text
}

// MarshalText writes the line as it was parsed.
func (l Line) MarshalText() ([]byte, error) { return []byte(l.text), nil }

// UnmarshalText is ParseLine; empty text is the line that holds nothing.
func (l *Line) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*l = Line{}
		return nil
	}
	parsed, err := ParseLine(string(text))
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}
