// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

// Selection is what a catalogue has for a device. The best comes first: a higher security version, then a higher
// version. The entries are acceptable by their index; the statement of a release decides.
type Selection struct {
	// Security are the security releases of the installed line.
	Security []trust.Index
	// Other are all others: feature releases, releases of other lines and, if nothing is installed, every release.
	Other []trust.Index
	// Refused are the releases that are higher than the installed one and may not be taken, each with its first reason.
	Refused []Refused
}

// Refused is a release that may not be taken.
type Refused struct {
	Index trust.Index
	Err   error
}

// Select sorts the releases of a catalogue.
func Select(d Device, releases []trust.Index, now time.Time) Selection {
	var s Selection
	for _, x := range releases {
		// Most of a catalogue is history: it gets no words.
		if !d.Installed.IsZero() && x.Version.Compare(d.Installed.Version) <= 0 {
			continue
		}
		switch err := AcceptIndex(d, x, now).Err(); {
		case err != nil:
			s.Refused = append(s.Refused, Refused{x, err})
		case isSecurity(d, x):
			s.Security = append(s.Security, x)
		default:
			s.Other = append(s.Other, x)
		}
	}
	best := func(a, b trust.Index) int {
		return cmp.Or(cmp.Compare(b.SecurityVersion, a.SecurityVersion), b.Version.Compare(a.Version))
	}
	slices.SortStableFunc(s.Security, best)
	slices.SortStableFunc(s.Other, best)
	slices.SortStableFunc(s.Refused, func(a, b Refused) int { return b.Index.Version.Compare(a.Index.Version) })
	return s
}

// isSecurity reports whether a release is a security update for the device: one that brings fixes and stays on the
// installed line.
func isSecurity(d Device, x trust.Index) bool {
	return x.Kind == statement.Security && !d.Installed.IsZero() && x.Line.Holds(d.Installed.Version)
}

// IsSecurity is the same question about a statement.
func IsSecurity(d Device, r statement.Release) bool { return isSecurity(d, *trust.IndexOf(r)) }

// Offer is an acceptable release and what is to be done with it.
type Offer struct {
	Release  statement.Release
	Artifact statement.Artifact
	// Security is true for a security update of the installed line.
	Security bool
	Decision Decision
}

// Weigh decides on each of the releases, which are acceptable and verified, and puts the one to install first. At most
// one offer says Install: the one with the higher security version, then the higher version, so that a feature release
// that lacks a fix never comes before the fix. An offer that is lower than what is to be installed is left out.
func Weigh(d Device, o Owner, releases []statement.Release, now time.Time) ([]Offer, error) {
	var offers []Offer
	for _, r := range releases {
		a, err := Artifact(d, r)
		if err != nil {
			return nil, err
		}
		offers = append(offers, Offer{Release: r, Artifact: a, Security: IsSecurity(d, r), Decision: Decide(d, o, r, now)})
	}
	slices.SortStableFunc(offers, func(a, b Offer) int {
		return cmp.Or(rank(a)-rank(b), cmp.Compare(b.Release.SecurityVersion, a.Release.SecurityVersion), b.Release.Version.Compare(a.Release.Version))
	})
	if len(offers) == 0 || offers[0].Decision.Action != Install {
		return offers, nil
	}
	first := offers[0]
	kept := offers[:1]
	for _, other := range offers[1:] {
		if other.Decision.Action != Install && other.Release.Version.Compare(first.Release.Version) > 0 {
			kept = append(kept, other)
		}
	}
	return kept, nil
}

func rank(o Offer) int {
	switch {
	case o.Decision.Action == Install:
		return 0
	case o.Security:
		return 1
	}
	return 2
}
