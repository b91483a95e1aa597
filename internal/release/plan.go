// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"strings"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// Plan is what follows from the command line and from what is published already.
type Plan struct {
	Product string          `json:"product"`
	Version version.Version `json:"version"`
	Line    version.Line    `json:"line"`
	Kind    statement.Kind  `json:"kind"`
	Fixes   []string        `json:"fixes,omitempty"`
	// Previous is the release that the candidate is compared with; zero if there is none.
	Previous        version.Version `json:"previous,omitzero"`
	SecurityVersion uint32          `json:"securityVersion"`
	// MinimumSource is the product's, if it is lower than the version.
	MinimumSource version.Version `json:"minimumSource,omitzero"`
	// Notes are sentences for the person who releases.
	Notes []string `json:"notes,omitempty"`
}

// firstSecurityVersion is that of the first release of a product: zero is kept for "no floor yet".
const firstSecurityVersion = 1

// decide makes the plan. known are the other releases of the product that the repository lists, the highest version first.
// Every error is a refusal.
func decide(p *Product, req Request, known []trust.Index) (Plan, error) {
	plan := Plan{Product: p.Name, Version: req.Version, Line: p.Line(req.Version), Kind: req.Kind, Fixes: req.Fixes, MinimumSource: p.minimumSource(req.Version)}
	checked := fmt.Sprintf("version %s of %s", req.Version, p.Name)
	for _, x := range known {
		if plan.Line.Holds(x.Version) && x.Version.Compare(req.Version) > 0 {
			return Plan{}, refusal.New(refusal.Rollback, checked, "it is lower than %s, which is released on line %s already: it would reach nobody", x.Version, plan.Line).
				Do("choose a version above %s, or one on another line", x.Version)
		}
	}
	previous, found := previousOf(req.Version, plan.Line, known)
	if found {
		plan.Previous = previous.Version
	}
	if err := plan.raise(p, req, previous, found, known); err != nil {
		return Plan{}, err
	}
	for _, x := range known {
		if x.SecurityVersion > plan.SecurityVersion && x.Version.Compare(req.Version) < 0 {
			plan.Notes = append(plan.Notes, fmt.Sprintf(
				"security version %d is below %d of %s: a device that runs %s will not take this release. If it holds those fixes too, give --security-version %d",
				plan.SecurityVersion, x.SecurityVersion, x.Version, x.Version, x.SecurityVersion))
			break
		}
	}
	return plan, nil
}

// minimumSource is the product's, if v is above it.
func (p *Product) minimumSource(v version.Version) version.Version {
	if p.MinimumSource.Compare(v) < 0 {
		return p.MinimumSource
	}
	return version.Version{}
}

// difference says in what two plans of one version differ; empty if they do not.
func (plan Plan) difference(other Plan) string {
	var list []string
	differ := func(what string, a, b any) {
		if x, y := fmt.Sprint(a), fmt.Sprint(b); x != y {
			list = append(list, fmt.Sprintf("%s was %s and is %s now", what, x, y))
		}
	}
	differ("kind", plan.Kind, other.Kind)
	differ("line", plan.Line, other.Line)
	differ("fixes", plan.Fixes, other.Fixes)
	differ("previous release", plan.Previous, other.Previous)
	differ("security version", plan.SecurityVersion, other.SecurityVersion)
	differ("minimum source", plan.MinimumSource, other.MinimumSource)
	return strings.Join(list, ", ")
}

// raise chooses the security version.
func (plan *Plan) raise(p *Product, req Request, previous trust.Index, found bool, known []trust.Index) error {
	lowest, top := uint32(firstSecurityVersion), uint32(0)
	if found {
		lowest = max(lowest, previous.SecurityVersion)
	}
	for _, x := range known {
		top = max(top, x.SecurityVersion)
		if plan.Line.Holds(x.Version) { // also of a pre-release: it never falls on a line
			lowest = max(lowest, x.SecurityVersion)
		}
	}
	switch {
	case req.SecurityVersion != nil:
		plan.SecurityVersion = *req.SecurityVersion
		if plan.SecurityVersion < lowest {
			return refusal.New(refusal.Rollback, fmt.Sprintf("security version of %s %s", p.Name, req.Version),
				"%d is lower than %d, which is published already", plan.SecurityVersion, lowest).
				Do("leave --security-version away, or give %d or more", lowest)
		}
	case req.Kind != statement.Security:
		plan.SecurityVersion = lowest
	case p.Channel == statement.Firmware:
		// On a microcontroller the floor is burnt into fuses that cannot be put back: nobody raises it by accident.
		plan.SecurityVersion = lowest
		plan.Notes = append(plan.Notes, fmt.Sprintf(
			"the security version stays %d: on firmware it is raised on purpose only, with --security-version %d", lowest, max(lowest, top+1)))
	case !found:
		plan.SecurityVersion = lowest
	default:
		plan.SecurityVersion = max(lowest, top+1)
	}
	return nil
}

// previousOf returns the release to compare v with: the highest lower one on its line, or else the highest lower one at
// all. Pre-releases count for a pre-release, or if there is nothing else.
func previousOf(v version.Version, line version.Line, known []trust.Index) (trust.Index, bool) {
	best, rank := trust.Index{}, 0
	for _, x := range known {
		if x.Version.Compare(v) >= 0 {
			continue
		}
		r := 1
		if line.Holds(x.Version) {
			r++
		}
		if v.Prerelease() || !x.Version.Prerelease() {
			r += 2
		}
		if r > rank || r == rank && x.Version.Compare(best.Version) > 0 {
			best, rank = x, r
		}
	}
	return best, rank > 0
}
