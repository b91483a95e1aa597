// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/version"
)

// The bounds of a postponement. Postponing is for a moment that does not suit; who does not want updates opts out, which
// has no bound. So no update is postponed for longer than three weeks by accident.
const (
	MaxPostponement  = 7 * 24 * time.Hour // of one postponement
	MaxPostponements = 3                  // in a row, of one release
)

// Mode says what happens with releases of one kind.
type Mode string

// The modes.
const (
	Auto    Mode = "auto"    // installed without asking
	Approve Mode = "approve" // installed after the owner has approved that release
	Off     Mode = "off"     // not installed; the owner is still told
)

// UnmarshalText reads a mode.
func (m *Mode) UnmarshalText(text []byte) error {
	switch v := Mode(text); v {
	case Auto, Approve, Off:
		*m = v
		return nil
	}
	return fmt.Errorf("%q is not auto, approve or off", clip(string(text)))
}

// Owner is what the owner of the device has decided. It is written on the device only. The zero value is the default:
// security updates are automatic (Annex I, Part I (2)(c)), features wait for approval.
type Owner struct {
	Security  Mode         `json:"security,omitempty"`
	Feature   Mode         `json:"feature,omitempty"`
	Approved  Approval     `json:"approved,omitzero"`
	Postponed Postponement `json:"postponed,omitzero"`
	// Window is when updates may be installed. Nil means always.
	Window *Window `json:"window,omitempty"`
}

// Approval is the owner's yes to one release, by version and artifact.
type Approval struct {
	Version version.Version `json:"version"`
	Digest  digest.SHA256   `json:"digest,omitzero"`
}

// Postponement is the owner's "not now". Version and Count only bound it: while it holds, nothing is installed.
type Postponement struct {
	Version version.Version `json:"version"`
	Until   time.Time       `json:"until"`
	Count   int             `json:"count"`
}

// SecurityMode returns the mode of security updates.
func (o Owner) SecurityMode() Mode { return or(o.Security, Auto) }

// FeatureMode returns the mode of everything else.
func (o Owner) FeatureMode() Mode { return or(o.Feature, Approve) }

func or(m, fallback Mode) Mode {
	if m == "" {
		return fallback
	}
	return m
}

// Approve records the owner's yes. It ends a postponement.
func (o Owner) Approve(v version.Version, d digest.SHA256) Owner {
	o.Approved = Approval{v, d}
	o.Postponed = Postponement{}
	return o
}

// Postpone records the owner's "not now" to release v until a time. More than the bounds allow is a refusal of class
// OwnerPolicy.
func (o Owner) Postpone(v version.Version, until, now time.Time) (Owner, error) {
	subject := "postponement of release " + v.String()
	count := 1
	if o.Postponed.Version == v {
		count = o.Postponed.Count + 1
	}
	switch {
	case !until.After(now):
		return o, refusal.New(refusal.OwnerPolicy, subject, "until %s, and now it is %s", stamp(until), stamp(now)).Do("name a time that is to come")
	case until.Sub(now) > MaxPostponement:
		return o, refusal.New(refusal.OwnerPolicy, subject, "for %s, at most %s are allowed", days(until.Sub(now)), days(MaxPostponement)).
			Do("postpone for less, or turn automatic installation off with \"pawl agent auto off\"")
	case count > MaxPostponements:
		return o, refusal.New(refusal.OwnerPolicy, subject, "postponed %d times already, at most %d times in a row are allowed", count-1, MaxPostponements).
			Do("install it, or turn automatic installation off with \"pawl agent auto off\"")
	}
	o.Postponed = Postponement{Version: v, Until: until, Count: count}
	o.Approved = Approval{}
	return o, nil
}

// postponed reports whether a postponement holds. One that ends later than any postponement may is the work of a clock
// that was put back: it does not hold, or it could hold for ever.
func (o Owner) postponed(now time.Time) bool {
	return now.Before(o.Postponed.Until) && o.Postponed.Until.Sub(now) <= MaxPostponement
}

// Reminder counts the postponements of release v that are over: each is a reason to tell the owner again.
func (o Owner) Reminder(v version.Version, now time.Time) int {
	if o.Postponed.Version != v || o.postponed(now) {
		return 0
	}
	return o.Postponed.Count
}

// Window is a daily time in which updates may be installed, in the local time of the device. If To is not after From it
// ends on the next day.
type Window struct {
	Days []Day `json:"days,omitempty" yaml:"days"` // of the beginning; empty means every day
	From Clock `json:"from" yaml:"from"`
	To   Clock `json:"to" yaml:"to"`
}

// Clock is a time of day in minutes; its text is "15:04".
type Clock int

// Day is a day of the week; its text is "mon" to "sun".
type Day time.Weekday

const dayNames = "sunmontuewedthufrisat"

// MarshalText writes "mon".
func (d Day) MarshalText() ([]byte, error) {
	if d < 0 || d > 6 {
		return nil, fmt.Errorf("day %d", int(d))
	}
	return []byte(dayNames[3*d : 3*d+3]), nil
}

// UnmarshalText reads "mon".
func (d *Day) UnmarshalText(text []byte) error {
	i := strings.Index(dayNames, string(text))
	if len(text) != 3 || i < 0 || i%3 != 0 {
		return fmt.Errorf("%q is not a day: mon, tue, wed, thu, fri, sat or sun", clip(string(text)))
	}
	*d = Day(i / 3)
	return nil
}

// MarshalText writes "15:04".
func (c Clock) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%02d:%02d", int(c)/60, int(c)%60), nil
}

// UnmarshalText reads "15:04".
func (c *Clock) UnmarshalText(text []byte) error {
	t, err := time.Parse("15:04", string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time of day, for example \"02:30\"", clip(string(text)))
	}
	*c = Clock(60*t.Hour() + t.Minute())
	return nil
}

// Open reports whether the window is open at now, in the location of now.
func (w *Window) Open(now time.Time) bool {
	if w == nil {
		return true
	}
	for back := range 2 { // a window of yesterday may reach into today
		begin, end := w.on(now, -back)
		if w.day(begin) && !now.Before(begin) && now.Before(end) {
			return true
		}
	}
	return false
}

// Next returns when the window opens next.
func (w *Window) Next(now time.Time) time.Time {
	for ahead := range 8 {
		if begin, _ := w.on(now, ahead); w.day(begin) && begin.After(now) {
			return begin
		}
	}
	return now.Add(7 * 24 * time.Hour)
}

func (w *Window) on(now time.Time, days int) (begin, end time.Time) {
	y, m, d := now.Date()
	begin = time.Date(y, m, d+days, int(w.From)/60, int(w.From)%60, 0, 0, now.Location())
	if w.To <= w.From {
		days++
	}
	return begin, time.Date(y, m, d+days, int(w.To)/60, int(w.To)%60, 0, 0, now.Location())
}

func (w *Window) day(begin time.Time) bool {
	return len(w.Days) == 0 || slices.Contains(w.Days, Day(begin.Weekday()))
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 && d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.Round(time.Minute).String()
}
