// SPDX-License-Identifier: Apache-2.0

package update

import (
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// Check is one condition on a release and what became of it.
type Check struct {
	// Name is stable, for machines: product, channel, artifact, health, hardware, line, version, floor, source, expiry.
	Name string
	// Proof says what was compared.
	Proof string
	// Refusal is nil if the condition holds.
	Refusal *refusal.Error
}

// Checks are all conditions, in the order in which they are reported.
type Checks []Check

// Err returns the first refusal, or nil if every condition holds.
func (c Checks) Err() error {
	for _, check := range c {
		if check.Refusal != nil {
			return check.Refusal
		}
	}
	return nil
}

// Accept compares a verified release with the device.
func Accept(d Device, r statement.Release, now time.Time) Checks {
	c := checker{subject: "release " + r.Version.String() + " of " + clip(r.Product)}
	c.check("product", r.Product == d.Product, refusal.WrongTarget, "for product %q, this device runs %q", clip(r.Product), d.Product)
	c.check("channel", r.Channel == d.Channel, refusal.WrongTarget, "comes as %s, this device takes %s", r.Channel, d.Channel)
	a, err := Artifact(d, r)
	if err != nil {
		c.refuse("artifact", err)
	} else {
		c.pass("artifact", "%s, %d bytes, %s", a.Name, a.Size, a.Digest.SHA256)
		c.check("health", !slices.Contains(d.Failed, a.Digest.SHA256), refusal.Unhealthy, "it was not healthy here when it was tried before")
		if e := c.last(); e.Refusal != nil {
			e.Refusal = e.Refusal.Do("wait for a newer release, or try it once more with \"pawl agent install --retry\"")
		} else {
			e.Proof = "has not failed here before"
		}
	}
	c.index(d, *trust.IndexOf(r), now)
	return c.checks
}

// AcceptIndex compares an index entry with the device: what can be said before the statement is read. What it refuses,
// Accept refuses.
func AcceptIndex(d Device, x trust.Index, now time.Time) Checks {
	c := checker{subject: "release " + x.Version.String() + " of " + clip(d.Product)}
	c.index(d, x, now)
	return c.checks
}

// Artifact returns the one artifact of r that is for the device, or a refusal of class WrongTarget.
func Artifact(d Device, r statement.Release) (statement.Artifact, error) {
	subject := "release " + r.Version.String() + " of " + clip(r.Product)
	var fit []statement.Artifact
	for _, a := range r.Artifacts {
		if a.Fits(d.Hardware, d.Platform) && (d.Artifact == "" || d.Artifact == a.Name) {
			fit = append(fit, a)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return statement.Artifact{}, refusal.New(refusal.WrongTarget, subject, "%d artifacts fit %s", len(fit), d.describe()).
			Do("name one of them as \"artifact\" in the agent's configuration: %s, ...", fit[0].Name)
	case d.Artifact != "":
		return statement.Artifact{}, refusal.New(refusal.WrongTarget, subject, "no artifact %q for %s", d.Artifact, d.describe())
	}
	return statement.Artifact{}, refusal.New(refusal.WrongTarget, subject, "none of its %d artifacts is for %s", len(r.Artifacts), d.describe())
}

func (d Device) describe() string {
	parts := []string{"hardware " + d.Hardware, "platform " + d.Platform}
	if d.Hardware == "" {
		parts[0] = "hardware without a name"
	}
	if d.Platform == "" {
		parts = parts[:1]
	}
	return strings.Join(parts, ", ")
}

func (c *checker) index(d Device, x trust.Index, now time.Time) {
	c.check("hardware", len(x.Hardware) == 0 || slices.Contains(x.Hardware, d.Hardware), refusal.WrongTarget,
		"for hardware %s, this is %s", list(x.Hardware), orNone(d.Hardware))
	onLine := len(d.Lines) == 0 || slices.ContainsFunc(d.Lines, func(l version.Line) bool { return l.Holds(x.Version) })
	switch {
	case !onLine:
		c.check("line", false, refusal.WrongTarget, "%s is on none of the allowed lines %s", x.Version, list(texts(d.Lines)))
	case x.Version.Prerelease() && !d.Prereleases:
		c.check("line", false, refusal.WrongTarget, "%s is a pre-release, and this device takes none", x.Version)
	default:
		c.pass("line", "%s is on an allowed line", x.Version)
	}
	if d.Installed.IsZero() {
		c.pass("version", "%s, and nothing is installed", x.Version)
	} else {
		c.check("version", x.Version.Compare(d.Installed.Version) > 0, refusal.Rollback,
			"%s, and %s is installed", x.Version, d.Installed.Version)
	}
	c.check("floor", x.SecurityVersion >= d.Floor.Security, refusal.Rollback,
		"security version %d, and the floor is %d", x.SecurityVersion, d.Floor.Security)
	if x.MinimumSource.IsZero() || d.Installed.IsZero() {
		c.pass("source", "from any version")
	} else {
		c.check("source", d.Installed.Version.Compare(x.MinimumSource) >= 0, refusal.WrongTarget,
			"it updates from %s or higher, and %s is installed", x.MinimumSource, d.Installed.Version)
		if e := c.last(); e.Refusal != nil {
			e.Refusal = e.Refusal.Do("install a release between the two first")
		}
	}
	if x.Expires.IsZero() {
		c.pass("expiry", "does not expire")
	} else {
		c.check("expiry", now.Before(x.Expires), refusal.Expired, "it may be installed until %s, now it is %s", stamp(x.Expires), stamp(now))
	}
}

type checker struct {
	subject string
	checks  Checks
}

// check records a condition; the proof is the reason of the refusal if it does not hold.
func (c *checker) check(name string, ok bool, class refusal.Class, format string, args ...any) {
	e := refusal.New(class, c.subject, format, args...)
	if ok {
		c.checks = append(c.checks, Check{Name: name, Proof: e.Failed})
		return
	}
	c.checks = append(c.checks, Check{Name: name, Proof: e.Failed, Refusal: e})
}

func (c *checker) pass(name, format string, args ...any) { c.check(name, true, "", format, args...) }

func (c *checker) refuse(name string, err error) {
	e, ok := err.(*refusal.Error)
	if !ok {
		e = refusal.New(refusal.WrongTarget, c.subject, "%w", err)
	}
	c.checks = append(c.checks, Check{Name: name, Proof: e.Failed, Refusal: e})
}

func (c *checker) last() *Check { return &c.checks[len(c.checks)-1] }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func orNone(s string) string {
	if s == "" {
		return "hardware without a name"
	}
	return s
}

func texts(lines []version.Line) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l.String()
	}
	return out
}

// list writes the first few words of a list that somebody else has chosen.
func list(words []string) string {
	const most = 4
	switch {
	case len(words) == 0:
		return "of any kind"
	case len(words) > most:
		return strings.Join(words[:most], ", ") + ", ..."
	}
	return strings.Join(words, ", ")
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
