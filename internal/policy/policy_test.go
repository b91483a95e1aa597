// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

var update = flag.Bool("update", false, "rewrite golden files")

var (
	now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	db  = evidence.Database{Name: "osv folder", Snapshot: "sha256:" + strings.Repeat("ab", 32), Updated: now.AddDate(0, 0, -2), Records: 214}
)

// finding returns "CVE-1 GO-1" in golang.org/x/text, unless changed.
func finding(change ...func(*evidence.Finding)) evidence.Finding {
	f := evidence.Finding{
		ID: "GO-2021-0113", Aliases: []string{"CVE-2021-38561", "GHSA-ppp9-7jff-5vj2"}, Severity: evidence.High, Summary: "A language tag stops the program",
		PURL: "pkg:golang/golang.org/x/text@0.3.5", Name: "golang.org/x/text", Version: "0.3.5", FixedIn: "0.3.7",
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

func in(name, version string) func(*evidence.Finding) {
	return func(f *evidence.Finding) {
		f.PURL, f.Name, f.Version = "pkg:golang/"+name+"@"+version, name, version
	}
}

func called(id string, aliases ...string) func(*evidence.Finding) {
	return func(f *evidence.Finding) { f.ID, f.Aliases = id, aliases }
}

func rated(s evidence.Severity) func(*evidence.Finding) {
	return func(f *evidence.Finding) { f.Severity = s }
}

// artifact is one with three components and the findings.
func artifact(name string, findings ...evidence.Finding) Artifact {
	d := digest.SetOf([]byte(name + findingNames(findings)))
	subject := evidence.Subject{Name: name, Digest: d, Size: 1}
	return Artifact{
		Name: name, Digest: d.SHA256,
		SBOM: &evidence.SBOM{Subject: subject, Components: []evidence.Component{
			{Name: "golang.org/x/text", Version: "0.3.5", PURL: "pkg:golang/golang.org/x/text@0.3.5", Ecosystem: "Go"},
			{Name: "stdlib", Version: "1.26.3", PURL: "pkg:golang/stdlib@1.26.3", Ecosystem: "Go"},
			{Name: "example.com/lib", Version: "1.0.0", PURL: "pkg:golang/example.com/lib@1.0.0", Ecosystem: "Go"},
		}},
		Report: &evidence.Report{Subject: subject, Tool: evidence.Tool{Name: "pawl", Version: "1.0.0"}, Database: db, At: now, Checked: 3, Findings: findings},
	}
}

func findingNames(list []evidence.Finding) (s string) {
	for _, f := range list {
		s += f.ID
	}
	return s
}

func security(fixes ...string) Input {
	i := feature()
	i.Kind, i.Fixes = statement.Security, fixes
	i.Advisory = &statement.Advisory{ID: "GREETER-2026-1", Summary: "A header stops the service.", Severity: "high", Action: "None."}
	return i
}

func feature() Input {
	return Input{
		Product: "greeter", Version: version.MustParse("1.0.1"), Line: version.MustParse("1.0.1").Line(), Kind: statement.Feature,
		Previous: version.MustParse("1.0.0"), Artifacts: []Artifact{artifact("greeter")}, Before: []Artifact{artifact("greeter", finding())},
		Tool: evidence.Tool{Name: "pawl", Version: "1.0.0"}, At: now,
	}
}

func (i Input) now(list ...evidence.Finding) Input {
	i.Artifacts = []Artifact{artifact("greeter", list...)}
	return i
}

func (i Input) before(list ...evidence.Finding) Input {
	i.Before = []Artifact{artifact("greeter", list...)}
	return i
}

func (i Input) first() Input {
	i.Previous, i.Before = version.Version{}, nil
	return i
}

func (i Input) with(change func(*Input)) Input { change(&i); return i }

func states(v Verdict) string {
	var list []string
	for _, r := range v.Rows {
		s := string(r.State) + " " + r.ID
		if r.Blocks {
			s += "!"
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

func TestRows(t *testing.T) {
	text := in("golang.org/x/text", "0.3.6")
	for name, test := range map[string]struct {
		in   Input
		rows string
	}{
		"fixed":                     {feature(), "fixed GO-2021-0113"},
		"inherited, newer version":  {feature().now(finding(text)), "inherited GO-2021-0113"},
		"inherited by alias":        {feature().now(finding(text, called("GHSA-ppp9-7jff-5vj2"))), "inherited GHSA-ppp9-7jff-5vj2"},
		"inherited, alias of alias": {feature().now(finding(text, called("X-1", "CVE-2021-38561"))), "inherited X-1"},
		"inherited, now worse":      {feature().before(finding(rated(evidence.Low))).now(finding(rated(evidence.Critical))), "inherited GO-2021-0113"},
		"introduced":                {feature().now(finding(), finding(called("GO-2", "CVE-2"))), "introduced GO-2!, inherited GO-2021-0113"},
		"second component":          {feature().now(finding(), finding(in("example.com/fork", "1.0.0"))), "introduced GO-2021-0113!, inherited GO-2021-0113"},
		"same name, other kind": {feature().now(finding(func(f *evidence.Finding) { f.PURL = "pkg:npm/golang.org/x/text@0.3.5" })),
			"introduced GO-2021-0113!, fixed GO-2021-0113"},
		"first release":      {feature().first().now(finding()), "introduced GO-2021-0113!"},
		"nothing anywhere":   {feature().before().now(), ""},
		"advisory over two":  {feature().before(finding(called("DSA-1", "CVE-1", "CVE-2"))).now(finding(called("DSA-2", "CVE-2", "CVE-3"))), "introduced DSA-2!, fixed DSA-1"},
		"two, both known":    {feature().before(finding(called("A", "CVE-1")), finding(called("B", "CVE-2"))).now(finding(called("DSA-2", "CVE-1", "CVE-2"))), "inherited DSA-2"},
		"two, one elsewhere": {feature().before(finding(called("A", "CVE-1")), finding(called("B", "CVE-2"), in("other", "1"))).now(finding(called("DSA-2", "CVE-1", "CVE-2"))), "introduced DSA-2!, fixed B"},
		"ordered by severity": {feature().before().now(
			finding(called("U"), rated("")), finding(called("L"), rated(evidence.Low)), finding(called("C"), rated(evidence.Critical)), finding(called("M"), rated(evidence.Medium)), finding(called("H"))),
			"introduced C!, introduced H!, introduced M!, introduced L!, introduced U!"},
		"renamed artifact": {feature().now(finding()).with(func(i *Input) { i.Artifacts[0].Name = "greeter-amd64" }), "inherited GO-2021-0113"},
		"new artifact": {feature().now(finding()).with(func(i *Input) { i.Artifacts = append(i.Artifacts, artifact("greeter-arm64", finding())) }),
			"inherited GO-2021-0113"},
		"other artifact of the same name counts": {feature().now(finding()).before().with(func(i *Input) { i.Before = append(i.Before, artifact("tool", finding())) }),
			"introduced GO-2021-0113!"},
	} {
		t.Run(name, func(t *testing.T) {
			v := Gate(test.in)
			if got := states(v); got != test.rows {
				t.Errorf("rows %q, want %q", got, test.rows)
			}
			if blocked := strings.Contains(test.rows, "!"); v.Passed == blocked {
				t.Errorf("passed %t with rows %q: %v", v.Passed, test.rows, v.Refusals())
			}
			if v.Counts.Introduced+v.Counts.Inherited+v.Counts.Fixed != len(v.Rows) {
				t.Errorf("counts %+v of %d rows", v.Counts, len(v.Rows))
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	otherSnapshot := func(i *Input) { i.Before[0].Report.Database.Snapshot = "sha256:other" }
	for name, test := range map[string]struct {
		in    Input
		class []refusal.Class
		words []string // in the first refusal, in this order
	}{
		"feature passes":           {feature(), nil, nil},
		"security passes":          {security("CVE-2021-38561"), nil, nil},
		"claim by another name":    {security("GHSA-ppp9-7jff-5vj2", "GO-2021-0113"), nil, nil},
		"feature with a true fix":  {feature().with(func(i *Input) { i.Fixes = []string{"CVE-2021-38561"} }), nil, nil},
		"first feature, all clean": {feature().first(), nil, nil},
		"introduced": {feature().before().now(finding()), []refusal.Class{refusal.Vulnerable},
			[]string{"greeter 1.0.1", "1 vulnerability introduced", "compared with 1.0.0", "CVE-2021-38561 (high) in golang.org/x/text 0.3.5"}},
		"first release": {feature().first().now(finding()), []refusal.Class{refusal.Vulnerable},
			[]string{"1 vulnerability introduced", "no previous release on line 1.0"}},
		"many introduced": {feature().before().now(finding(called("A")), finding(called("B")), finding(called("C")), finding(called("D")), finding(called("E")), finding(called("F")), finding(called("G"))),
			[]refusal.Class{refusal.Vulnerable}, []string{"7 vulnerabilities", "and 2 more"}},
		"fix still present": {security("CVE-2021-38561").now(finding()), []refusal.Class{refusal.FalseFix},
			[]string{"1 of 1 claim is not true", "CVE-2021-38561 is still present in golang.org/x/text 0.3.5"}},
		"fix not before": {security("CVE-2021-38561", "CVE-1999-1"), []refusal.Class{refusal.FalseFix},
			[]string{"1 of 2 claims are not true", "CVE-1999-1 no component of 1.0.0 had it"}},
		"fix brought in": {security("CVE-2021-38561").before().now(finding()), []refusal.Class{refusal.Vulnerable, refusal.FalseFix},
			[]string{"1 vulnerability introduced"}},
		"fix in a first release": {security("CVE-2021-38561").first(), []refusal.Class{refusal.FalseFix},
			[]string{"there is no previous release on line 1.0 that had it"}},
		"false fix in a feature release": {feature().with(func(i *Input) { i.Fixes = []string{"CVE-1"} }), []refusal.Class{refusal.FalseFix}, nil},
		"everything is missing": {security().with(func(i *Input) { i.Advisory, i.Artifacts[0].SBOM, i.Artifacts[0].Report = nil, nil, nil }), []refusal.Class{refusal.Incomplete},
			[]string{"5 things are missing", "advisory summary", "advisory severity", "advisory action", "fix claim", "SBOM of greeter"}},
		"blank advisory": {security("CVE-2021-38561").with(func(i *Input) { i.Advisory = &statement.Advisory{Summary: " \n", Severity: "awful", Action: "\t"} }),
			[]refusal.Class{refusal.Incomplete}, []string{"3 things", "summary", `"awful" is not`, "action"}},
		"security without a claim": {security(), []refusal.Class{refusal.Incomplete}, []string{"1 thing is missing", "fix claim"}},
		"feature without SBOM": {feature().with(func(i *Input) { i.Artifacts[0].SBOM, i.Artifacts[0].Failed = nil, "cannot look into this" }),
			[]refusal.Class{refusal.NotProven}, []string{"greeter has no SBOM", "cannot look into this"}},
		"not scanned": {security("CVE-2021-38561").with(func(i *Input) { i.Artifacts[0].Report, i.Artifacts[0].Failed = nil, "no records" }),
			[]refusal.Class{refusal.NotProven}, []string{"2 checks could not be made", "greeter was not scanned: no records", "CVE-2021-38561 cannot be checked"}},
		"previous not scanned": {security("CVE-2021-38561").with(func(i *Input) { i.Before[0].Report = nil }), []refusal.Class{refusal.NotProven},
			[]string{"previous release 1.0.0 cannot be compared"}},
		"previous not given":    {feature().now(finding()).with(func(i *Input) { i.Before = nil }), []refusal.Class{refusal.NotProven}, []string{"1.0.0 was not scanned"}},
		"previous not named":    {feature().with(func(i *Input) { i.Previous = version.Version{} }), []refusal.Class{refusal.NotProven}, []string{"without its version"}},
		"snapshots differ":      {security("CVE-1").now(finding()).with(otherSnapshot), []refusal.Class{refusal.NotProven}, []string{"different snapshots", "sha256:other"}},
		"tools differ":          {feature().with(func(i *Input) { i.Before[0].Report.Tool.Version = "2" }), []refusal.Class{refusal.NotProven}, []string{"different tools", "pawl 1.0.0 and pawl 2"}},
		"no snapshot":           {feature().with(func(i *Input) { i.Artifacts[0].Report.Database.Snapshot = "" }), []refusal.Class{refusal.NotProven}, []string{"does not say which snapshot"}},
		"SBOM of another file":  {feature().with(func(i *Input) { i.Artifacts[0].SBOM.Subject.Digest = digest.SetOf(nil) }), []refusal.Class{refusal.NotProven}, []string{"SBOM of greeter is about other bytes"}},
		"scan of another file":  {feature().with(func(i *Input) { i.Artifacts[0].Report.Subject.Digest = digest.SetOf(nil) }), []refusal.Class{refusal.NotProven}, []string{"scan of greeter is about other bytes"}},
		"components lost":       {feature().with(func(i *Input) { i.Artifacts[0].Report.Checked = 1 }), []refusal.Class{refusal.NotProven}, []string{"accounts for 1 of 3 components"}},
		"no artifact":           {feature().with(func(i *Input) { i.Artifacts = nil }), []refusal.Class{refusal.NotProven}, []string{"no artifact"}},
		"unknown kind":          {feature().with(func(i *Input) { i.Kind = "hotfix" }), []refusal.Class{refusal.NotProven}, []string{`"hotfix"`}},
		"opaque, nothing known": {feature().with(opaque(0, false)), []refusal.Class{refusal.NotProven}, []string{"declare its components"}},
		"opaque, declared":      {feature().with(opaque(2, true)), nil, nil},
		"nothing comparable": {feature().with(opaque(2, false)), []refusal.Class{refusal.NotProven},
			[]string{"none of the 2 components of greeter could be compared", "no version is known"}},
		"opaque before: all is new": {feature().now(finding()).with(func(i *Input) {
			i.Before[0].SBOM.Components, i.Before[0].SBOM.Opaque = nil, true
			i.Before[0].Report.Checked, i.Before[0].Report.Findings = 0, nil
		}), []refusal.Class{refusal.Vulnerable}, []string{"introduced"}},
		"fixed by hiding the component": {security("CVE-2021-38561").with(func(i *Input) {
			r := i.Artifacts[0].Report
			r.Checked, r.Unchecked = 2, []evidence.Unchecked{{Name: "golang.org/x/text", PURL: "pkg:golang/golang.org/x/text", Why: "no version is known"}}
		}), []refusal.Class{refusal.NotProven}, []string{"CVE-2021-38561 golang.org/x/text had it, and could not be compared in greeter: no version is known"}},
		"all four": {security("CVE-2021-38561", "CVE-1").now(finding(), finding(called("N"))).with(func(i *Input) {
			i.Advisory = nil
			i.Artifacts = append(i.Artifacts, Artifact{Name: "extra", SBOM: &evidence.SBOM{}})
		}), []refusal.Class{refusal.Vulnerable, refusal.FalseFix, refusal.Incomplete, refusal.NotProven}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := Gate(test.in)
			var got []refusal.Class
			for _, r := range v.Refusals() {
				got = append(got, r.Class)
				if r.Next == "" {
					t.Errorf("%v says nothing about what to do", r)
				}
			}
			if !slices.Equal(got, test.class) || v.Passed != (len(got) == 0) {
				t.Fatalf("passed %t, classes %v, want %v: %v", v.Passed, got, test.class, v.Refusals())
			}
			rest := ""
			if len(got) > 0 {
				rest = v.Refusals()[0].Error()
			}
			for _, word := range test.words {
				_, after, ok := strings.Cut(rest, word)
				if !ok {
					t.Errorf("%q is not in the rest of %q", word, v.Refusals()[0])
				}
				rest = after
			}
			text, err := v.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			twice, err := again.Encode()
			if err != nil || !bytes.Equal(twice, text) {
				t.Errorf("does not survive a round trip: %v\n%s\n%s", err, text, twice)
			}
		})
	}
}

// opaque makes the candidate one in which nothing could be seen, with n components that could not be compared.
func opaque(n int, declared bool) func(*Input) {
	return func(i *Input) {
		a := &i.Artifacts[0]
		a.SBOM.Opaque, a.SBOM.Components = true, nil
		a.Report.Checked, a.Report.Findings, a.Report.Unchecked = 0, nil, nil
		for range n {
			a.SBOM.Components = append(a.SBOM.Components, evidence.Component{Name: "zlib", Declared: declared})
			a.Report.Unchecked = append(a.Report.Unchecked, evidence.Unchecked{Name: "zlib", Why: "no version is known"})
		}
	}
}

func TestStatuses(t *testing.T) {
	for want, input := range map[int]Input{
		20: feature().before().now(finding()),
		21: security("CVE-1"),
		22: security(),
		23: feature().with(func(i *Input) { i.Artifacts[0].Report = nil }),
	} {
		if got := refusal.Status(Gate(input).Refusals()[0]); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
}

func TestGateLeavesItsInputAlone(t *testing.T) {
	input := security("CVE-2021-38561").now(finding())
	want := security("CVE-2021-38561").now(finding())
	Gate(input)
	if !reflect.DeepEqual(input, want) {
		t.Error("changed")
	}
}

// golden is a security release that does nearly everything wrong.
func goldenInput() Input {
	i := security("CVE-2021-38561", "CVE-2020-14040").
		before(finding(), finding(called("GO-2020-0015", "CVE-2020-14040"), rated(evidence.Medium), func(f *evidence.Finding) { f.FixedIn = "0.3.3" })).
		now(finding(),
			finding(called("EXAMPLE-2026-1"), in("example.com/lib", "1.0.0"), rated(evidence.Critical), func(f *evidence.Finding) { f.FixedIn = "" }))
	i.Advisory.Action = ""
	i.Artifacts[0].SBOM.Gaps = []string{"lib/\x1b[2Jfilter.so: a native program without build information"}
	return i
}

func TestGolden(t *testing.T) {
	v := Gate(goldenInput())
	text, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Gate(goldenInput()).Encode(); err != nil || !bytes.Equal(again, text) {
		t.Errorf("the same input gives other bytes: %v", err)
	}
	var table bytes.Buffer
	if err := v.Write(&table); err != nil {
		t.Fatal(err)
	}
	golden(t, "verdict.txt", table.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); !bytes.Equal(got, want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	text, err := Gate(goldenInput()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":       "",
		"truncated":   string(text[:len(text)/2]),
		"twice":       strings.Replace(string(text), `"passed"`, `"passed": true, "passed"`, 1),
		"passed lie":  strings.Replace(string(text), `"passed": false`, `"passed": true`, 1),
		"refused lie": `{"version":"1.0.0","line":"1.0","passed":false}`,
		"bad version": strings.Replace(string(text), `"1.0.1"`, `"one"`, 1),
		"oversized":   string(text) + strings.Repeat(" ", MaxBytes),
	} {
		if _, err := Decode([]byte(bad)); refusal.Of(err) != refusal.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	text, err := Gate(goldenInput()).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Decode(data)
		if err != nil {
			return
		}
		if err := v.Write(&bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
	})
}
