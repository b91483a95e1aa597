// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

var now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func v(s string) version.Version { return version.MustParse(s) }

func lines(texts ...string) []version.Line {
	var out []version.Line
	for _, s := range texts {
		l, err := version.ParseLine(s)
		if err != nil {
			panic(err)
		}
		out = append(out, l)
	}
	return out
}

func device() Device {
	return Device{
		Product: "greeter", Channel: statement.File, Hardware: "rev-a", Platform: "linux/arm64",
		Installed: Installed{v("1.4.2"), digest.Of([]byte("1.4.2"))}, Floor: Floor{Security: 2},
	}
}

func release(ver string, change ...func(*statement.Release)) statement.Release {
	r := statement.Release{
		Product: "greeter", Channel: statement.File, Version: v(ver), Line: v(ver).Line(), Kind: statement.Security, SecurityVersion: 3,
		Issued: now.Add(-time.Hour), Artifacts: []statement.Artifact{{Name: "greeter", Digest: digest.SetOf([]byte(ver)), Size: 5}},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

func feature(r *statement.Release) { r.Kind = statement.Feature }

func sv(n uint32) func(*statement.Release) {
	return func(r *statement.Release) { r.SecurityVersion = n }
}

func TestAccept(t *testing.T) {
	for name, c := range map[string]struct {
		device  func(*Device)
		release func(*statement.Release)
		check   string // the one that refuses; empty: accepted
		class   refusal.Class
		words   string
	}{
		"newer":              {},
		"other product":      {release: func(r *statement.Release) { r.Product = "other" }, check: "product", class: refusal.WrongTarget, words: `for product "other", this device runs "greeter"`},
		"other channel":      {release: func(r *statement.Release) { r.Channel = statement.Firmware }, check: "channel", class: refusal.WrongTarget, words: "comes as firmware, this device takes file"},
		"other hardware":     {release: func(r *statement.Release) { r.Hardware = []string{"rev-b", "rev-c"} }, check: "hardware", class: refusal.WrongTarget, words: "for hardware rev-b, rev-c, this is rev-a"},
		"nameless hardware":  {device: func(d *Device) { d.Hardware = "" }, release: func(r *statement.Release) { r.Hardware = []string{"rev-a"} }, check: "hardware", class: refusal.WrongTarget},
		"my hardware":        {release: func(r *statement.Release) { r.Hardware = []string{"rev-b", "rev-a"} }},
		"other platform":     {release: func(r *statement.Release) { r.Artifacts[0].Platform = "linux/amd64" }, check: "artifact", class: refusal.WrongTarget, words: "none of its 1 artifacts is for hardware rev-a, platform linux/arm64"},
		"no artifact name":   {device: func(d *Device) { d.Artifact = "tool" }, check: "artifact", class: refusal.WrongTarget, words: `no artifact "tool"`},
		"two artifacts":      {release: func(r *statement.Release) { r.Artifacts = append(r.Artifacts, statement.Artifact{Name: "tool"}) }, check: "artifact", class: refusal.WrongTarget, words: "2 artifacts fit"},
		"artifact by name":   {device: func(d *Device) { d.Artifact = "greeter" }, release: func(r *statement.Release) { r.Artifacts = append(r.Artifacts, statement.Artifact{Name: "tool"}) }},
		"artifact hardware":  {release: func(r *statement.Release) { r.Artifacts[0].Hardware = []string{"rev-b"} }, check: "artifact", class: refusal.WrongTarget},
		"failed before":      {device: func(d *Device) { d.Failed = []digest.SHA256{digest.Of([]byte("1.4.3"))} }, check: "health", class: refusal.Unhealthy, words: "it was not healthy here when it was tried before"},
		"off the lines":      {device: func(d *Device) { d.Lines = lines("1.3", "2") }, check: "line", class: refusal.WrongTarget, words: "1.4.3 is on none of the allowed lines 1.3, 2"},
		"on a line":          {device: func(d *Device) { d.Lines = lines("1.3", "1") }},
		"pre-release":        {release: func(r *statement.Release) { r.Version = v("1.4.3-rc.1") }, check: "line", class: refusal.WrongTarget, words: "pre-release"},
		"taken pre-release":  {device: func(d *Device) { d.Prereleases = true }, release: func(r *statement.Release) { r.Version = v("1.4.3-rc.1") }},
		"same version":       {device: func(d *Device) { d.Installed.Version = v("1.4.3") }, check: "version", class: refusal.Rollback, words: "1.4.3, and 1.4.3 is installed"},
		"other build":        {device: func(d *Device) { d.Installed.Version = v("1.4.3+a") }, check: "version", class: refusal.Rollback},
		"lower version":      {device: func(d *Device) { d.Installed.Version = v("1.10.0") }, check: "version", class: refusal.Rollback, words: "1.4.3, and 1.10.0 is installed"},
		"back to a pre":      {device: func(d *Device) { d.Installed.Version, d.Prereleases = v("1.4.3"), true }, release: func(r *statement.Release) { r.Version = v("1.4.3-rc.1") }, check: "version", class: refusal.Rollback},
		"at the floor":       {device: func(d *Device) { d.Floor.Security = 3 }},
		"below the floor":    {device: func(d *Device) { d.Floor.Security = 4 }, check: "floor", class: refusal.Rollback, words: "security version 3, and the floor is 4"},
		"source too old":     {release: func(r *statement.Release) { r.MinimumSource = v("1.4.3-a") }, check: "source", class: refusal.WrongTarget, words: "it updates from 1.4.3-a or higher, and 1.4.2 is installed"},
		"source just right":  {release: func(r *statement.Release) { r.MinimumSource = v("1.4.2") }},
		"expired":            {release: func(r *statement.Release) { r.Expires = now }, check: "expiry", class: refusal.Expired, words: "it may be installed until 2026-11-23 08:00 UTC"},
		"not yet expired":    {release: func(r *statement.Release) { r.Expires = now.Add(time.Second) }},
		"nothing there":      {device: func(d *Device) { d.Installed = Installed{} }, release: func(r *statement.Release) { r.MinimumSource = v("1.4.0") }},
		"reset, below floor": {device: func(d *Device) { d.Installed, d.Floor.Security = Installed{}, 9 }, check: "floor", class: refusal.Rollback},
	} {
		t.Run(name, func(t *testing.T) {
			d, r := device(), release("1.4.3")
			if c.device != nil {
				c.device(&d)
			}
			if c.release != nil {
				c.release(&r)
			}
			checks := Accept(d, r, now)
			var refused []string
			for _, check := range checks {
				if check.Proof == "" {
					t.Errorf("check %s has no proof", check.Name)
				}
				if check.Refusal != nil {
					refused = append(refused, check.Name)
				}
			}
			if c.check == "" {
				if len(refused) > 0 {
					t.Fatalf("refused: %v", checks.Err())
				}
				return
			}
			if !slices.Equal(refused, []string{c.check}) || refusal.Of(checks.Err()) != c.class || !strings.Contains(checks.Err().Error(), c.words) {
				t.Fatalf("refused by %v: %v", refused, checks.Err())
			}
			if index := AcceptIndex(d, *trust.IndexOf(r), now).Err(); index != nil && index.Error() != checks.Err().Error() {
				t.Fatalf("the index says %v, the statement %v", index, checks.Err())
			}
		})
	}
}

func TestFloor(t *testing.T) {
	f := Floor{Security: 2, Epoch: 1}
	if got := f.Confirm(1); got != f {
		t.Errorf("an older release changes the floor: %+v", got)
	}
	if got := f.Confirm(5); got != (Floor{5, 1}) {
		t.Errorf("%+v", got)
	}
	for _, r := range []trust.Recovery{{Epoch: 0, Floor: 0}, {Epoch: 1, Floor: 0}} {
		if got := f.Recover(r); got != f {
			t.Errorf("recovery of an epoch that is known changes the floor: %+v", got)
		}
	}
	if got := f.Recover(trust.Recovery{Epoch: 2, Floor: 1}); got != (Floor{1, 2}) {
		t.Errorf("%+v", got)
	}
	if got := f.Recover(trust.Recovery{Epoch: 2, Floor: 7}); got != (Floor{2, 2}) {
		t.Errorf("recovery raises the floor: %+v", got)
	}
	if err := f.Fallback(2); err != nil {
		t.Error(err)
	}
	if err := f.Fallback(1); refusal.Of(err) != refusal.Rollback {
		t.Error(err)
	}
}

func TestRememberIsBounded(t *testing.T) {
	var failed []digest.SHA256
	for i := range 3 * MaxFailed {
		failed = Remember(failed, digest.Of([]byte{byte(i)}))
		failed = Remember(failed, digest.Of([]byte{byte(i)}))
	}
	newest := digest.Of([]byte{3*MaxFailed - 1})
	if len(failed) != MaxFailed || failed[MaxFailed-1] != newest {
		t.Fatalf("%d remembered", len(failed))
	}
	if slices.Contains(Forget(failed, newest), newest) {
		t.Fatal("not forgotten")
	}
}

func indexes(releases ...statement.Release) []trust.Index {
	var out []trust.Index
	for _, r := range releases {
		out = append(out, *trust.IndexOf(r))
	}
	return out
}

func names(list []trust.Index) string {
	var out []string
	for _, x := range list {
		out = append(out, x.Version.String())
	}
	return strings.Join(out, " ")
}

func TestSelect(t *testing.T) {
	all := indexes(release("1.4.1"), release("1.4.2"), release("1.4.3"), release("1.4.4"), release("1.4.5", feature),
		release("1.5.0", feature), release("1.5.1"), release("2.0.0", feature, sv(1)), release("1.4.6", func(r *statement.Release) { r.Hardware = []string{"rev-z"} }))
	s := Select(device(), all, now)
	if names(s.Security) != "1.4.4 1.4.3" || names(s.Other) != "1.5.1 1.5.0 1.4.5" {
		t.Errorf("security %s, other %s", names(s.Security), names(s.Other))
	}
	if len(s.Refused) != 2 || s.Refused[0].Index.Version != v("2.0.0") || refusal.Of(s.Refused[0].Err) != refusal.Rollback || refusal.Of(s.Refused[1].Err) != refusal.WrongTarget {
		t.Errorf("refused %+v", s.Refused)
	}

	// A line of the maker that is wider than MAJOR.MINOR.
	wide := release("1.6.0")
	wide.Line = lines("1")[0]
	if s := Select(device(), indexes(wide), now); names(s.Security) != "1.6.0" {
		t.Errorf("security %s", names(s.Security))
	}

	// Nothing installed: no stream of the installed line; the release with the most fixes comes first.
	d := device()
	d.Installed, d.Floor = Installed{}, Floor{}
	if s := Select(d, all, now); len(s.Security) != 0 || names(s.Other) != "1.5.1 1.5.0 1.4.5 1.4.4 1.4.3 1.4.2 1.4.1 2.0.0" {
		t.Errorf("security %s, other %s", names(s.Security), names(s.Other))
	}
}

func TestDecide(t *testing.T) {
	nothing := func(d *Device) { d.Installed = Installed{} }
	night := &Window{From: 2 * 60, To: 4 * 60}
	for name, c := range map[string]struct {
		owner   Owner
		device  func(*Device)
		release statement.Release
		want    Action
		words   string
	}{
		"security by default":      {Owner{}, nil, release("1.4.3"), Install, "security updates are installed automatically"},
		"feature by default":       {Owner{}, nil, release("1.5.0", feature), Wait, "it is a feature release, and the owner wants to approve it first"},
		"security, other line":     {Owner{}, nil, release("1.5.1"), Wait, "security release of line 1.5, which brings the functions of that line"},
		"feature auto":             {Owner{Feature: Auto}, nil, release("1.5.0", feature), Install, ""},
		"feature off":              {Owner{Feature: Off}, nil, release("1.5.0", feature), OptedOut, ""},
		"opted out":                {Owner{Security: Off}, nil, release("1.4.3"), OptedOut, "the owner has turned automatic installation off"},
		"opted out, critical":      {Owner{Security: Off}, nil, release("1.4.3", func(r *statement.Release) { r.Advisory = &statement.Advisory{Severity: "critical"} }), OptedOut, ""},
		"approve first":            {Owner{Security: Approve}, nil, release("1.4.3"), Wait, ""},
		"approved":                 {Owner{Security: Approve}.Approve(v("1.4.3"), digest.Of([]byte("1.4.3"))), nil, release("1.4.3"), Install, "the owner has approved it"},
		"approved though off":      {Owner{Security: Off}.Approve(v("1.4.3"), digest.Of([]byte("1.4.3"))), nil, release("1.4.3"), Install, ""},
		"other version approved":   {Owner{Security: Approve}.Approve(v("1.4.3"), digest.Of([]byte("1.4.4"))), nil, release("1.4.4"), Wait, ""},
		"other bytes approved":     {Owner{Security: Approve}.Approve(v("1.4.3"), digest.Of([]byte("x"))), nil, release("1.4.3"), Wait, ""},
		"postponed":                {Owner{Postponed: Postponement{v("1.4.3"), now.Add(time.Hour), 1}}, nil, release("1.4.3"), Postponed, "postponed it until 2026-11-23 09:00 UTC"},
		"postponed, newer one":     {Owner{Postponed: Postponement{v("1.4.3"), now.Add(time.Hour), 1}}, nil, release("1.4.4"), Postponed, ""},
		"postponement over":        {Owner{Postponed: Postponement{v("1.4.3"), now, 1}}, nil, release("1.4.3"), Install, ""},
		"postponed for ever":       {Owner{Postponed: Postponement{v("1.4.3"), now.Add(MaxPostponement + time.Second), 1}}, nil, release("1.4.3"), Install, ""},
		"postponed and opted out":  {Owner{Security: Off, Postponed: Postponement{v("1.4.3"), now.Add(time.Hour), 1}}, nil, release("1.4.3"), OptedOut, ""},
		"window closed":            {Owner{Window: night}, nil, release("1.4.3"), Outside, "opens 2026-11-24 02:00"},
		"window closed, approved":  {Owner{Window: night}.Approve(v("1.4.3"), digest.Of([]byte("1.4.3"))), nil, release("1.4.3"), Outside, ""},
		"window open":              {Owner{Window: &Window{From: 7 * 60, To: 9 * 60}}, nil, release("1.4.3"), Install, ""},
		"first installation":       {Owner{}, nothing, release("1.5.0", feature), Install, "nothing is installed yet"},
		"first, opted out":         {Owner{Security: Off}, nothing, release("1.5.0", feature), OptedOut, ""},
		"first, security off only": {Owner{Security: Off, Feature: Auto}, nothing, release("1.5.0", feature), Install, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := device()
			if c.device != nil {
				c.device(&d)
			}
			got := Decide(d, c.owner, c.release, now)
			if got.Action != c.want || got.Reason == "" || !strings.Contains(got.Reason, c.words) {
				t.Fatalf("%+v", got)
			}
			offer := Offer{Release: c.release, Decision: got}
			if err := offer.Err(); (err == nil) != (c.want == Install) || err != nil && refusal.Of(err) != refusal.OwnerPolicy {
				t.Fatalf("%v", err)
			}
			if n := NoticeOf(d, offer); n.Version != c.release.Version.String() || n.Decision != c.want || n.Summary == "" && c.release.Advisory == nil {
				t.Fatalf("notice %+v", n)
			}
		})
	}
}

func TestWeigh(t *testing.T) {
	for name, c := range map[string]struct {
		owner    Owner
		releases []statement.Release
		want     string
	}{
		"security first":               {Owner{}, []statement.Release{release("1.5.0", feature), release("1.4.3")}, "1.4.3 install, 1.5.0 wait"},
		"both automatic: the newer":    {Owner{Feature: Auto}, []statement.Release{release("1.4.3"), release("1.5.0", feature)}, "1.5.0 install"},
		"never the one without a fix":  {Owner{Feature: Auto}, []statement.Release{release("1.4.3"), release("1.5.0", feature, sv(2))}, "1.4.3 install"},
		"feature approved":             {Owner{}.Approve(v("1.5.0"), digest.Of([]byte("1.5.0"))), []statement.Release{release("1.4.3"), release("1.5.0", feature)}, "1.5.0 install"},
		"feature approved, stale":      {Owner{}.Approve(v("1.5.0"), digest.Of([]byte("1.5.0"))), []statement.Release{release("1.4.3"), release("1.5.0", feature, sv(2))}, "1.4.3 install"},
		"opted out, both are told":     {Owner{Security: Off, Feature: Off}, []statement.Release{release("1.5.0", feature), release("1.4.3")}, "1.4.3 opted-out, 1.5.0 opted-out"},
		"older feature says nothing":   {Owner{}, []statement.Release{release("1.4.3", feature), release("1.4.4")}, "1.4.4 install"},
		"security off, features taken": {Owner{Security: Off, Feature: Auto}, []statement.Release{release("1.5.0", feature), release("1.4.3")}, "1.5.0 install"},
		"nothing":                      {Owner{}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			offers, err := Weigh(device(), c.owner, c.releases, now)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range offers {
				got = append(got, fmt.Sprintf("%s %s", o.Release.Version, o.Decision.Action))
			}
			if strings.Join(got, ", ") != c.want {
				t.Fatalf("got %s, want %s", strings.Join(got, ", "), c.want)
			}
		})
	}
}

func TestPostpone(t *testing.T) {
	o := Owner{}
	at := now
	for i := range MaxPostponements {
		var err error
		if o, err = o.Postpone(v("1.4.3"), at.Add(MaxPostponement), at); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if got := Decide(device(), o, release("1.4.3"), at.Add(MaxPostponement-time.Second)); got.Action != Postponed {
			t.Fatalf("%d: %+v", i, got)
		}
		if got := o.Reminder(v("1.4.3"), at); got != 0 {
			t.Fatalf("%d reminders while it holds", got)
		}
		at = at.Add(MaxPostponement)
		if got := Decide(device(), o, release("1.4.3"), at); got.Action != Install {
			t.Fatalf("%d: %+v", i, got)
		}
		if got := o.Reminder(v("1.4.3"), at); got != i+1 {
			t.Fatalf("%d reminders after %d", got, i+1)
		}
	}
	if _, err := o.Postpone(v("1.4.3"), at.Add(time.Hour), at); refusal.Of(err) != refusal.OwnerPolicy || !strings.Contains(err.Error(), "postponed 3 times already, at most 3") {
		t.Fatalf("a fourth time: %v", err)
	}
	if _, err := o.Postpone(v("1.4.4"), at.Add(time.Hour), at); err != nil {
		t.Fatalf("another release: %v", err)
	}
	for name, until := range map[string]time.Time{"past": at, "too long": at.Add(MaxPostponement + time.Minute)} {
		if _, err := (Owner{}).Postpone(v("1.4.3"), until, at); refusal.Of(err) != refusal.OwnerPolicy {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if o := o.Approve(v("1.4.3"), digest.Of([]byte("1.4.3"))); !o.Postponed.Until.IsZero() {
		t.Fatal("approval leaves the postponement")
	}
}

func TestWindow(t *testing.T) {
	var mon Day
	if err := mon.UnmarshalText([]byte("mon")); err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		at, err := time.ParseInLocation("2006-01-02 15:04", s, time.FixedZone("home", 2*3600))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	night := &Window{From: 22 * 60, To: 4 * 60}
	mondays := &Window{Days: []Day{mon}, From: 22 * 60, To: 4 * 60}
	for _, c := range []struct {
		w    *Window
		at   string
		open bool
		next string
	}{
		{night, "2026-11-23 21:59", false, "2026-11-23 22:00"},
		{night, "2026-11-23 22:00", true, "2026-11-24 22:00"},
		{night, "2026-11-24 03:59", true, "2026-11-24 22:00"},
		{night, "2026-11-24 04:00", false, "2026-11-24 22:00"},
		{mondays, "2026-11-23 23:00", true, "2026-11-30 22:00"}, // a Monday
		{mondays, "2026-11-24 03:00", true, "2026-11-30 22:00"}, // the night after it
		{mondays, "2026-11-23 03:00", false, "2026-11-23 22:00"},
		{mondays, "2026-11-24 23:00", false, "2026-11-30 22:00"},
	} {
		if got := c.w.Open(at(c.at)); got != c.open {
			t.Errorf("%s: open %v", c.at, got)
		}
		if got := c.w.Next(at(c.at)); !got.Equal(at(c.next)) {
			t.Errorf("%s: next %s", c.at, got)
		}
	}
	for _, bad := range []string{"", "24:00", "7", "07:60", "mon"} {
		if new(Clock).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("time of day %q is accepted", bad)
		}
	}
	for _, bad := range []string{"", "monday", "onm", "mo"} {
		if new(Day).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("day %q is accepted", bad)
		}
	}
	text, err := (mondays.From).MarshalText()
	if day, derr := mon.MarshalText(); err != nil || derr != nil || string(text)+string(day) != "22:00mon" {
		t.Errorf("%s %s", text, day)
	}
}

func TestModeText(t *testing.T) {
	var m Mode
	if err := m.UnmarshalText([]byte("automatic")); err == nil {
		t.Fatal("accepted")
	}
	if err := m.UnmarshalText([]byte("off")); err != nil || m != Off {
		t.Fatal(err)
	}
}

func TestSupportAt(t *testing.T) {
	for _, c := range []struct {
		end, at string
		want    Support
	}{
		{"", "2026-11-23", SupportUnknown},
		{"never", "2026-11-23", SupportUnknown},
		{"2031-12", "2026-11-23", Supported},
		{"2031-12", "2031-10-02", Supported},
		{"2031-12", "2031-10-03", SupportEnding},
		{"2031-12", "2031-12-31", SupportEnding},
		{"2031-12", "2032-01-01", SupportEnded},
	} {
		at, err := time.Parse("2006-01-02", c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := SupportAt(c.end, at); got != c.want {
			t.Errorf("%s at %s: %q", c.end, c.at, got)
		}
	}
}

// TestNeverDown lets devices live: random catalogues, owners, failures and recoveries. Whatever happens, the version
// goes up only, and the floor falls only by a recovery of a new epoch.
func TestNeverDown(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	modes := []Mode{"", Auto, Approve, Off}
	for life := range 300 {
		d := device()
		d.Floor.Security = 0
		var failed int
		for day := range 30 {
			var catalogue []statement.Release
			for range random.IntN(8) {
				r := release(fmt.Sprintf("%d.%d.%d", 1+random.IntN(2), random.IntN(6), random.IntN(6)), sv(random.Uint32N(6)))
				if random.IntN(2) == 0 {
					feature(&r)
				}
				catalogue = append(catalogue, r)
			}
			o := Owner{Security: modes[random.IntN(4)], Feature: modes[random.IntN(4)]}
			s := Select(d, indexes(catalogue...), now)
			var picked []statement.Release
			for _, list := range [][]trust.Index{s.Security, s.Other} {
				for _, x := range list {
					i := slices.IndexFunc(catalogue, func(r statement.Release) bool { return r.Version == x.Version })
					if Accept(d, catalogue[i], now).Err() == nil {
						picked = append(picked, catalogue[i])
						break
					}
				}
			}
			offers, err := Weigh(d, o, picked, now)
			if err != nil {
				t.Fatal(err)
			}
			for i, offer := range offers {
				if offer.Decision.Action != Install {
					continue
				}
				r := offer.Release
				if i > 0 || r.Version.Compare(d.Installed.Version) <= 0 || r.SecurityVersion < d.Floor.Security {
					t.Fatalf("life %d day %d: chooses %s (%d) over %s, floor %d", life, day, r.Version, r.SecurityVersion, d.Installed.Version, d.Floor.Security)
				}
				if offer.Security && o.SecurityMode() != Auto || !offer.Security && o.FeatureMode() != Auto {
					t.Fatalf("life %d day %d: the owner has not agreed to %s: %+v", life, day, r.Version, o)
				}
				if random.IntN(4) == 0 {
					d.Failed = Remember(d.Failed, offer.Artifact.Digest.SHA256)
					failed++
					continue
				}
				before := d.Floor
				d.Installed = Installed{r.Version, offer.Artifact.Digest.SHA256}
				if d.Floor = d.Floor.Confirm(r.SecurityVersion); d.Floor.Security < before.Security {
					t.Fatalf("floor falls from %v to %v", before, d.Floor)
				}
			}
			if random.IntN(10) == 0 {
				before := d.Floor
				r := trust.Recovery{Epoch: random.Uint32N(5), Floor: random.Uint32N(6)}
				d.Floor = d.Floor.Recover(r)
				if d.Floor.Epoch < before.Epoch || d.Floor.Security > before.Security || d.Floor.Security < before.Security && r.Epoch <= before.Epoch {
					t.Fatalf("recovery %+v makes %+v from %+v", r, d.Floor, before)
				}
			}
		}
	}
}

func TestRefusalsAreRefusals(t *testing.T) {
	var e *refusal.Error
	if _, err := Artifact(device(), statement.Release{Version: v("1.0.0")}); !errors.As(err, &e) || e.Class != refusal.WrongTarget {
		t.Fatal(err)
	}
}

// BenchmarkSelect is a device with 50 products of 20 releases each.
func BenchmarkSelect(b *testing.B) {
	var catalogue []trust.Index
	for i := range 20 {
		catalogue = append(catalogue, *trust.IndexOf(release(fmt.Sprintf("1.4.%d", i))))
	}
	d := device()
	for b.Loop() {
		for range 50 {
			if s := Select(d, catalogue, now); len(s.Security) != 17 {
				b.Fatal(len(s.Security))
			}
		}
	}
}
