// SPDX-License-Identifier: Apache-2.0

package release

import (
	"slices"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// published makes the index of a product from "version:securityVersion" words.
func published(t *testing.T, words string) []trust.Index {
	t.Helper()
	var list []trust.Index
	for word := range strings.FieldsSeq(words) {
		text, number, _ := strings.Cut(word, ":")
		v, err := version.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, trust.Index{Version: v, Line: v.Line(), SecurityVersion: uint32(number[0] - '0')})
	}
	slices.SortFunc(list, func(a, b trust.Index) int { return b.Version.Compare(a.Version) })
	return list
}

func TestDecide(t *testing.T) {
	number := func(n uint32) *uint32 { return &n }
	for name, c := range map[string]struct {
		known    string
		version  string
		security bool
		explicit *uint32
		channel  statement.Channel
		previous string
		want     uint32
		note     string
		refused  refusal.Class
	}{
		"first":                          {version: "1.0.0", want: 1},
		"first security":                 {version: "1.0.0", security: true, want: 1},
		"feature keeps":                  {known: "1.0.0:3", version: "1.0.1", previous: "1.0.0", want: 3},
		"security raises":                {known: "1.0.0:3", version: "1.0.1", security: true, previous: "1.0.0", want: 4},
		"security above all lines":       {known: "1.0.0:3 2.0.0:5", version: "1.0.1", security: true, previous: "1.0.0", want: 6},
		"line before height":             {known: "1.0.0:1 1.0.1:1 2.0.0:2", version: "1.0.2", previous: "1.0.1", want: 1},
		"new line":                       {known: "1.0.0:1 1.0.1:2", version: "1.1.0", previous: "1.0.1", want: 2},
		"new line below another":         {known: "1.0.0:1 2.0.0:2", version: "1.1.0", previous: "1.0.0", want: 1},
		"older line has more fixes":      {known: "1.0.0:1 1.0.1:5 2.0.0:1", version: "2.0.1", previous: "2.0.0", want: 1, note: "security version 1 is below 5 of 1.0.1"},
		"stable after pre-release":       {known: "1.4.3:1 1.5.0-rc.1:1", version: "1.5.0", previous: "1.4.3", want: 1},
		"stable after raised candidate":  {known: "1.4.3:1 1.4.4-rc.1:2", version: "1.4.4", previous: "1.4.3", want: 2},
		"nothing but pre-releases":       {known: "1.0.0-rc.1:1 1.0.0-rc.2:1", version: "1.0.0", previous: "1.0.0-rc.2", want: 1},
		"pre-release after pre-release":  {known: "1.4.3:1 1.5.0-rc.1:1", version: "1.5.0-rc.2", previous: "1.5.0-rc.1", want: 1},
		"first pre-release of a line":    {known: "1.4.3:1 1.4.4-rc.1:1", version: "1.5.0-rc.1", previous: "1.4.4-rc.1", want: 1},
		"firmware is not raised alone":   {known: "1.0.0:3", version: "1.0.1", security: true, channel: statement.Firmware, previous: "1.0.0", want: 3, note: "--security-version 4"},
		"firmware raised on purpose":     {known: "1.0.0:3", version: "1.0.1", security: true, explicit: number(4), channel: statement.Firmware, previous: "1.0.0", want: 4},
		"explicit":                       {known: "1.0.0:3", version: "1.0.1", explicit: number(7), previous: "1.0.0", want: 7},
		"explicit too low":               {known: "1.0.0:3", version: "1.0.1", explicit: number(2), refused: refusal.Rollback},
		"explicit zero":                  {version: "1.0.0", explicit: number(0), refused: refusal.Rollback},
		"lower than what is released":    {known: "1.0.0:1 1.0.2:1", version: "1.0.1", refused: refusal.Rollback},
		"pre-release after its release":  {known: "1.0.0:1", version: "1.0.0-rc.1", refused: refusal.Rollback},
		"higher line does not forbid it": {known: "1.0.0:1 2.0.0:1", version: "1.0.1", previous: "1.0.0", want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Product{Name: "greeter", Channel: statement.File, Line: version.Version.Line}
			if c.channel != "" {
				p.Channel = c.channel
			}
			req := Request{Version: version.MustParse(c.version), Kind: statement.Feature, SecurityVersion: c.explicit}
			if c.security {
				req.Kind = statement.Security
			}
			plan, err := decide(p, req, published(t, c.known))
			if refusal.Of(err) != c.refused {
				t.Fatalf("error %v, want class %q", err, c.refused)
			}
			if err != nil {
				return
			}
			if plan.Previous.String() != c.previous || plan.SecurityVersion != c.want {
				t.Errorf("previous %q, security version %d; want %q, %d", plan.Previous, plan.SecurityVersion, c.previous, c.want)
			}
			if notes := strings.Join(plan.Notes, "\n"); !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
		})
	}
}

func TestMinimumSource(t *testing.T) {
	p := &Product{Name: "greeter", Channel: statement.File, Line: version.Version.Line, MinimumSource: version.MustParse("1.2.0")}
	for v, want := range map[string]string{"1.1.0": "", "1.2.0": "", "1.2.1": "1.2.0"} {
		plan, err := decide(p, Request{Version: version.MustParse(v), Kind: statement.Feature}, nil)
		if err != nil || plan.MinimumSource.String() != want {
			t.Errorf("%s: %q, %v, want %q", v, plan.MinimumSource, err, want)
		}
	}
}

func TestDifference(t *testing.T) {
	a := Plan{Kind: statement.Feature, SecurityVersion: 1}
	b := Plan{Kind: statement.Security, SecurityVersion: 2, Fixes: []string{"CVE-2026-1"}}
	if got, want := a.difference(b), "kind was feature and is security now, fixes was [] and is [CVE-2026-1] now, security version was 1 and is 2 now"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := a.difference(a); got != "" {
		t.Errorf("%q", got)
	}
}
