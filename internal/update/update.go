// SPDX-License-Identifier: Apache-2.0

// Package update decides on a device: which release it may take, which one is best, and whether its owner has agreed.
// Facts and the time come in, a decision with its reasons goes out. It does no I/O.
//
// Four questions, kept apart:
//
// May it be taken? (Accept) A release is acceptable if and only if it is for this product, channel, hardware and line, its
// version is higher than the installed one, its security version is at least the floor, the installed version is not
// lower than its minimum source, it has not expired, and it has not failed here before. Who signed it is not asked here:
// what comes in has been verified. No setting of the owner and no word of a server skips a check.
//
// Which one is best? (Select) Security releases of the installed line form a stream of their own, so that an owner who
// takes no new functions still gets every fix (Regulation (EU) 2024/2847, Annex I, Part II (2)). A security release of
// another line brings the functions of that line; for this device it is an offer like a feature release.
//
// Has the owner agreed? (Decide) Security updates install by themselves unless the owner says otherwise, features wait
// for approval. Opting out has no bound and nothing overrides it; postponing has one, because a postponement is not a
// decision. Whatever the answer is, there is something to tell.
//
// What may never come back? (Floor) The floor rises when a release is confirmed and never before: a release that does
// not start must not burn the way back. It is lowered only by the holders of the root keys, once for each epoch.
package update

import (
	"slices"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// MaxFailed is how many releases that failed their health check a device remembers. Older ones are forgotten.
const MaxFailed = 32

// Device is everything that a decision depends on, except the owner and the time.
type Device struct {
	Product  string
	Channel  statement.Channel
	Hardware string // empty if the device has no name for it
	Platform string // "os/arch[/variant]"; empty accepts any
	// Artifact names the artifact to install, where a release has more than one that fits.
	Artifact string
	// Lines are the lines that the device may move on. Empty means all.
	Lines []version.Line
	// Prereleases lets the device take versions with a pre-release part.
	Prereleases bool
	Installed   Installed
	Floor       Floor
	// Failed are the artifacts that failed their health check here.
	Failed []digest.SHA256
}

// Installed is what runs. The zero value is nothing.
type Installed struct {
	Version version.Version
	Digest  digest.SHA256
}

// IsZero reports whether nothing is installed.
func (i Installed) IsZero() bool { return i.Version.IsZero() }

// Floor is the lowest security version that a device will ever take again, and the newest recovery that it has seen.
type Floor struct {
	Security uint32 `json:"security"`
	Epoch    uint32 `json:"epoch"`
}

// Confirm returns the floor after a release with this security version has been confirmed.
func (f Floor) Confirm(securityVersion uint32) Floor {
	f.Security = max(f.Security, securityVersion)
	return f
}

// Recover returns the floor after a recovery that the holders of the root keys have signed. It is taken once, when its
// epoch is higher than every epoch seen before, and it never raises the floor: that only a confirmed release does.
func (f Floor) Recover(r trust.Recovery) Floor {
	if r.Epoch <= f.Epoch {
		return f
	}
	return Floor{Security: min(f.Security, r.Floor), Epoch: r.Epoch}
}

// Fallback returns nil if a device may go back to a release with this security version, and a refusal of class Rollback
// if not.
func (f Floor) Fallback(securityVersion uint32) error {
	if securityVersion >= f.Security {
		return nil
	}
	return refusal.New(refusal.Rollback, "previous release", "security version %d is below the floor %d", securityVersion, f.Security).
		Do("wait for a newer release; this one stays")
}

// Remember adds an artifact to the failed ones. The result has at most MaxFailed entries, the newest last.
func Remember(failed []digest.SHA256, d digest.SHA256) []digest.SHA256 {
	kept := slices.DeleteFunc(slices.Clone(failed), func(f digest.SHA256) bool { return f == d })
	kept = append(kept, d)
	return kept[max(0, len(kept)-MaxFailed):]
}

// Forget removes an artifact from the failed ones: its owner wants to try it again.
func Forget(failed []digest.SHA256, d digest.SHA256) []digest.SHA256 {
	return slices.DeleteFunc(slices.Clone(failed), func(f digest.SHA256) bool { return f == d })
}
