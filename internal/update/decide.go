// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"
	"time"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
)

// Action is what is to be done with an acceptable release.
type Action string

// The actions.
const (
	Install   Action = "install"
	Wait      Action = "wait"      // for the owner's approval
	Postponed Action = "postponed" // by the owner, until a time
	Outside   Action = "window"    // outside the owner's maintenance window
	OptedOut  Action = "opted-out" // by the owner
)

// Decision is an action with its reason. The owner is told of every release that there is a decision on, whatever it
// says: there is no decision that keeps one secret.
type Decision struct {
	Action Action
	// Until is when a postponement ends or a window opens.
	Until time.Time
	// Reason is a sentence for the owner, without a full stop.
	Reason string
}

// Decide asks the owner's settings about a release that Accept accepts. now is in the local time of the device, for the
// maintenance window. Nothing in a release changes the answer: there is no mandatory update.
func Decide(d Device, o Owner, r statement.Release, now time.Time) Decision {
	what, mode := "feature release", o.FeatureMode()
	if IsSecurity(d, r) {
		what, mode = "security update", o.SecurityMode()
	} else if r.Kind == statement.Security && !d.Installed.IsZero() {
		what = fmt.Sprintf("security release of line %s, which brings the functions of that line", r.Line)
	}
	first := d.Installed.IsZero()
	why := what + "s are installed automatically"
	approved := o.Approved.Version == r.Version && holds(r, o.Approved)
	switch {
	case approved:
		why = "the owner has approved it"
	case first && (o.SecurityMode() != Off || o.FeatureMode() == Auto):
		why = "nothing is installed yet"
	case first || mode == Off:
		return Decision{Action: OptedOut, Reason: "the owner has turned automatic installation off; it is installed when the owner says so"}
	case mode != Auto:
		return Decision{Action: Wait, Reason: fmt.Sprintf("it is a %s, and the owner wants to approve it first", what)}
	}
	if o.postponed(now) && !approved {
		return Decision{Action: Postponed, Until: o.Postponed.Until, Reason: "the owner has postponed it until " + stamp(o.Postponed.Until)}
	}
	if !o.Window.Open(now) {
		next := o.Window.Next(now)
		return Decision{Action: Outside, Until: next, Reason: "it waits for the maintenance window, which opens " + next.Format("2006-01-02 15:04")}
	}
	return Decision{Action: Install, Reason: why}
}

// holds reports whether the approved artifact is in the release: the owner said yes to these bytes.
func holds(r statement.Release, a Approval) bool {
	for _, artifact := range r.Artifacts {
		if artifact.Digest.SHA256 == a.Digest {
			return true
		}
	}
	return false
}

// Err returns nil if the release is to be installed, and otherwise a refusal of class OwnerPolicy that says what the
// owner can do.
func (o Offer) Err() error {
	subject := fmt.Sprintf("release %s of %s", o.Release.Version, o.Release.Product)
	e := refusal.New(refusal.OwnerPolicy, subject, "%s", o.Decision.Reason)
	switch o.Decision.Action {
	case Install:
		return nil
	case Postponed, Outside:
		return e.Do("it is installed then; \"pawl agent install --version %s\" installs it now", o.Release.Version)
	}
	return e.Do("\"pawl agent approve %s %s\" agrees to it", o.Release.Product, o.Release.Version)
}

// Support says where a product is in its support period.
type Support string

// The states of support.
const (
	SupportUnknown Support = ""
	Supported      Support = "supported"
	SupportEnding  Support = "ending" // within SupportWarning
	SupportEnded   Support = "ended"
)

// SupportWarning is how long before the end of support the owner is told.
const SupportWarning = 90 * 24 * time.Hour

// SupportAt returns the state of support at now. end is the last month of support, "YYYY-MM" (Article 13(19)); support
// ends with the end of that month, UTC.
func SupportAt(end string, now time.Time) Support {
	month, err := time.Parse("2006-01", end)
	if err != nil {
		return SupportUnknown
	}
	over := month.AddDate(0, 1, 0)
	switch {
	case !now.Before(over):
		return SupportEnded
	case over.Sub(now) <= SupportWarning:
		return SupportEnding
	}
	return Supported
}

// Notice is what the owner is told about a release before it is installed (Annex I, Part II (8); IEC 62443-4-1 SUM-2).
type Notice struct {
	Product   string `json:"product"`
	Version   string `json:"version"`
	Installed string `json:"installed,omitempty"`
	Kind      string `json:"kind"`
	Summary   string `json:"summary"`
	Severity  string `json:"severity,omitempty"`
	// Risk is what could happen without the update.
	Risk string `json:"risk,omitempty"`
	// Action is what the owner has to do.
	Action string `json:"action,omitempty"`
	// Disruption is what does not work meanwhile, and for how long.
	Disruption string   `json:"disruption,omitempty"`
	Fixes      []string `json:"fixes,omitempty"`
	Advisory   string   `json:"advisory,omitempty"`
	URL        string   `json:"url,omitempty"`
	SupportEnd string   `json:"supportEnd,omitempty"`
	// Decision and Reason say what happens now.
	Decision Action    `json:"decision,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Until    time.Time `json:"until,omitzero"`
}

// NoticeOf makes the notice of an offer. All texts come from the signed statement.
func NoticeOf(d Device, o Offer) Notice {
	r := o.Release
	n := Notice{
		Product: r.Product, Version: r.Version.String(), Installed: d.Installed.Version.String(), Kind: string(r.Kind),
		Summary: fmt.Sprintf("version %s of %s is available", r.Version, r.Product), Fixes: r.Fixes, SupportEnd: r.SupportEnd,
		Decision: o.Decision.Action, Reason: o.Decision.Reason, Until: o.Decision.Until,
	}
	if a := r.Advisory; a != nil {
		n.Summary, n.Severity, n.Risk, n.Action, n.Disruption = a.Summary, a.Severity, a.Impact, a.Action, a.Disrupts
		n.Advisory, n.URL = a.ID, a.URL
	}
	return n
}
