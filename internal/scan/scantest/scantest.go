// SPDX-License-Identifier: Apache-2.0

// Package scantest is the contract suite of scan.Scanner: what every scanner must find, must not find and must say about
// the same records.
package scantest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/scan"
)

// Records returns the database of the suite: OSV records as JSON text. Everything in them is invented, except for names
// of packages.
func Records() []string {
	var list []string
	add := func(r Record) { list = append(list, r.JSON()) }
	add(Record{ID: "GO-1", Aliases: []string{"CVE-2026-1", "GHSA-1"}, Ecosystem: "Go", Package: "golang.org/x/text", Events: []string{"introduced 0", "fixed 0.3.7"}, Details: "First line.\nSecond line."})
	add(Record{ID: "GHSA-1", Aliases: []string{"CVE-2026-1"}, Ecosystem: "Go", Package: "golang.org/x/text", Events: []string{"introduced 0", "fixed 0.3.8"}, Summary: "A \x1b[1mshort\x1b[0m summary", CVSS: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"})
	add(Record{ID: "GO-2", Aliases: []string{"CVE-2026-2"}, Ecosystem: "Go", Package: "stdlib", Events: []string{"introduced 0", "fixed 1.26.4", "introduced 1.27.0-0", "fixed 1.27.0-rc.2"}})
	add(Record{ID: "GO-3", Ecosystem: "Go", Package: "github.com/BurntSushi/toml", Events: []string{"introduced 1.0.0"}, Word: "LOW"})
	add(Record{ID: "GO-4", Ecosystem: "Go", Package: "example.com/withdrawn", Events: []string{"introduced 0"}, Withdrawn: true})
	add(Record{ID: "GHSA-2", Ecosystem: "npm", Package: "@babel/core", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed 6.26.1", "introduced 7.0.0", "fixed 7.23.2"}, CVSS: "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H"})
	add(Record{ID: "GHSA-3", Ecosystem: "npm", Package: "left", Type: "SEMVER", Events: []string{"introduced 1.0.0", "last_affected 1.2.0"}, CVSS: "CVSS:3.0/AV:L/AC:H/PR:L/UI:R/S:U/C:L/I:N/A:N"})
	add(Record{ID: "MAL-1", Ecosystem: "npm", Package: "evil", Versions: []string{"1.0.0", "1.0.1"}})
	add(Record{ID: "GHSA-4", Ecosystem: "NuGet", Package: "Newtonsoft.Json", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed 13.0.1"}, Word: "MODERATE"})
	add(Record{ID: "PYSEC-1", Ecosystem: "PyPI", Package: "zope-interface", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed 5.0rc1"}, Versions: []string{"4.0"}, CVSS2: "AV:N/AC:L/Au:N/C:P/I:P/A:P"})
	add(Record{ID: "PYSEC-2", Ecosystem: "PyPI", Package: "listed", Versions: []string{"1.0.0"}})
	add(Record{ID: "DSA-1", Upstream: []string{"CVE-2026-5", "CVE-2026-6"}, Ecosystem: "Debian:12", Package: "openssl", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed 3.0.11-1~deb12u2"}})
	add(Record{ID: "DEBIAN-CVE-2026-5", Upstream: []string{"CVE-2026-5"}, Ecosystem: "Debian:12", Package: "openssl", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed 3.0.11-1~deb12u2"}})
	add(Record{ID: "DSA-2", Ecosystem: "Debian", Package: "everywhere", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed 1:2.0-1"}})
	add(Record{ID: "ALPINE-1", Upstream: []string{"CVE-2026-7"}, Ecosystem: "Alpine:v3.18", Package: "openssl", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed 3.1.4-r1"}})
	add(Record{ID: "UBUNTU-1", Ecosystem: "Ubuntu:22.04:LTS", Package: "bash", Type: "ECOSYSTEM", Events: []string{"introduced 0"}, Ubuntu: "medium"})
	return list
}

// Record builds an OSV record with one affected package.
type Record struct {
	ID                 string
	Aliases, Upstream  []string
	Ecosystem, Package string
	Type               string   // of the range; empty is SEMVER
	Events             []string // "introduced 0", "fixed 1.2.3"
	Versions           []string
	Summary, Details   string
	CVSS, CVSS2        string // vectors
	Ubuntu             string // priority
	Word               string // database_specific.severity
	Modified           string // empty is 2026-11-20T00:00:00Z
	Withdrawn          bool
}

// JSON returns the record's text.
func (r Record) JSON() string {
	affected := map[string]any{"package": map[string]any{"ecosystem": r.Ecosystem, "name": r.Package}}
	if r.Events != nil {
		var events []map[string]string
		for _, e := range r.Events {
			kind, version, _ := strings.Cut(e, " ")
			events = append(events, map[string]string{kind: version})
		}
		kind := r.Type
		if kind == "" {
			kind = "SEMVER"
		}
		affected["ranges"] = []any{map[string]any{"type": kind, "events": events}}
	}
	if r.Versions != nil {
		affected["versions"] = r.Versions
	}
	var ratings []map[string]string
	for kind, score := range map[string]string{"CVSS_V2": r.CVSS2, "Ubuntu": r.Ubuntu} {
		if score != "" {
			ratings = append(ratings, map[string]string{"type": kind, "score": score})
		}
	}
	if r.CVSS != "" {
		ratings = append(ratings, map[string]string{"type": "CVSS_V" + r.CVSS[5:6], "score": r.CVSS})
	}
	doc := map[string]any{
		"schema_version": "1.7.4", "id": r.ID, "modified": "2026-11-20T00:00:00Z", "published": "2026-11-01T00:00:00Z",
		"aliases": r.Aliases, "upstream": r.Upstream, "summary": r.Summary, "details": r.Details, "severity": ratings,
		"affected": []any{affected}, "database_specific": map[string]any{"severity": r.Word},
	}
	if r.Modified != "" {
		doc["modified"] = r.Modified
	}
	if r.Withdrawn {
		doc["withdrawn"] = "2026-11-10T00:00:00Z"
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err) // strings and lists of strings can always be written
	}
	return string(text)
}

// Run checks a scanner that open makes over the records.
func Run(t *testing.T, open func(t *testing.T, records []string) scan.Scanner) {
	t.Run("findings", func(t *testing.T) { findings(t, open(t, Records())) })
	t.Run("report", func(t *testing.T) { whole(t, open(t, Records())) })
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := open(t, Records()).Scan(ctx, SBOM("pkg:golang/golang.org/x/text@0.3.5")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// SBOM lists components by package URL.
func SBOM(purls ...string) evidence.SBOM {
	s := evidence.SBOM{Subject: evidence.Subject{Name: "artifact", Digest: digest.SetOf([]byte("artifact"))}}
	for _, p := range purls {
		id := evidence.Identify(p)
		s.Components = append(s.Components, evidence.Component{Name: id.Name, Version: id.Version, PURL: p, Ecosystem: id.Ecosystem})
	}
	return s
}

// findings checks one component at a time: "ID severity fixed-in", or "? why" for a component that is not checked.
func findings(t *testing.T, s scan.Scanner) {
	const debian, alpine = "?distro=debian-12&upstream=openssl", "?distro=alpine-3.18.4&upstream=openssl"
	for purl, want := range map[string]string{
		"pkg:golang/golang.org/x/text@0.3.5":                               "GHSA-1 high 0.3.8",
		"pkg:golang/golang.org/x/text@v0.3.5":                              "GHSA-1 high 0.3.8",
		"pkg:golang/golang.org/x/text@0.3.7":                               "GHSA-1 high 0.3.8",
		"pkg:golang/golang.org/x/text@0.3.8":                               "",
		"pkg:golang/golang.org/x/text@0.4.0":                               "",
		"pkg:golang/stdlib@1.26.3":                                         "GO-2 unknown 1.26.4",
		"pkg:golang/stdlib@1.26.4":                                         "",
		"pkg:golang/stdlib@1.27rc1":                                        "GO-2 unknown 1.27.0-rc.2",
		"pkg:golang/stdlib@1.27rc2":                                        "",
		"pkg:golang/stdlib@1.27.0":                                         "",
		"pkg:golang/github.com/burntsushi/toml@1.2":                        "GO-3 low ",
		"pkg:golang/github.com/burntsushi/toml@0.9":                        "",
		"pkg:golang/example.com/withdrawn@1.0.0":                           "",
		"pkg:golang/example.com/other@1.0.0":                               "",
		"pkg:npm/%40babel/core@6.0.0":                                      "GHSA-2 critical 6.26.1",
		"pkg:npm/%40babel/core@6.26.1":                                     "",
		"pkg:npm/%40babel/core@7.0.0-beta.1":                               "",
		"pkg:npm/%40babel/core@7.1.0":                                      "GHSA-2 critical 7.23.2",
		"pkg:npm/core@7.1.0":                                               "",
		"pkg:npm/left@1.2.0":                                               "GHSA-3 low ",
		"pkg:npm/left@1.2.1":                                               "",
		"pkg:npm/left@0.9.0":                                               "",
		"pkg:npm/evil@1.0.1":                                               "MAL-1 critical ",
		"pkg:npm/evil@1.0.2":                                               "",
		"pkg:nuget/newtonsoft.json@12.0.3":                                 "GHSA-4 medium 13.0.1",
		"pkg:nuget/Newtonsoft.Json@13.0.1":                                 "",
		"pkg:nuget/Newtonsoft.Json@13.0.1.0":                               "",
		"pkg:pypi/zope.interface@4.9":                                      "PYSEC-1 high 5.0rc1",
		"pkg:pypi/Zope_Interface@5.0b2":                                    "PYSEC-1 high 5.0rc1",
		"pkg:pypi/zope-interface@5.0":                                      "",
		"pkg:pypi/listed@1.0":                                              "PYSEC-2 unknown ",
		"pkg:pypi/listed@1.0.1":                                            "",
		"pkg:deb/debian/libssl3@3.0.9-1" + debian:                          "DEBIAN-CVE-2026-5 unknown 3.0.11-1~deb12u2, DSA-1 unknown 3.0.11-1~deb12u2",
		"pkg:deb/debian/libssl3@3.0.11-1" + debian:                         "",
		"pkg:deb/debian/x@1:1.9-1?distro=debian-12&upstream=everywhere":    "DSA-2 unknown 1:2.0-1",
		"pkg:deb/debian/libssl3@3.0.9-1?distro=debian-11&upstream=openssl": "",
		"pkg:deb/ubuntu/bash@5.1?distro=ubuntu-22.04":                      "UBUNTU-1 medium ",
		"pkg:apk/alpine/libssl3@3.1.4-r0" + alpine:                         "ALPINE-1 unknown 3.1.4-r1",
		"pkg:apk/alpine/libssl3@3.1.4-r1" + alpine:                         "",
		"pkg:apk/alpine/libssl3@not-one" + alpine:                          "? cannot be compared",
		"pkg:golang/golang.org/x/text@main":                                "? cannot be compared",
		"pkg:npm/left@latest":                                              "? cannot be compared",
		"pkg:golang/golang.org/x/text":                                     "? version is not known",
		"pkg:generic/zlib@1.2.11":                                          "? no vulnerability database",
		"pkg:deb/debian/bash@5.2":                                          "? no vulnerability database",
	} {
		t.Run(purl, func(t *testing.T) {
			r, err := s.Scan(t.Context(), SBOM(purl))
			if err != nil {
				t.Fatal(err)
			}
			if why, unchecked := strings.CutPrefix(want, "? "); unchecked {
				if len(r.Unchecked) != 1 || r.Checked != 0 || len(r.Findings) != 0 || !strings.Contains(r.Unchecked[0].Why, why) || r.Unchecked[0].PURL != purl {
					t.Errorf("got %+v", r)
				}
				return
			}
			var got []string
			for _, f := range r.Findings {
				got = append(got, fmt.Sprintf("%s %s %s", f.ID, f.Severity, f.FixedIn))
				if f.PURL != purl || f.Name == "" || f.Version == "" {
					t.Errorf("incomplete: %+v", f)
				}
			}
			if strings.Join(got, ", ") != want || r.Checked != 1 || len(r.Unchecked) != 0 {
				t.Errorf("got %q and %d unchecked (%v), want %q", got, len(r.Unchecked), r.Unchecked, want)
			}
		})
	}
}

// whole checks a report over several components.
func whole(t *testing.T, s scan.Scanner) {
	bom := SBOM(
		"pkg:golang/golang.org/x/text@0.3.5", "pkg:golang/golang.org/x/text@0.3.5#again",
		"pkg:deb/debian/libssl3@3.0.9-1?distro=debian-12&upstream=openssl", "pkg:deb/debian/openssl@3.0.9-1?distro=debian-12",
		"pkg:npm/evil@1.0.0", "pkg:generic/zlib@1.2.11", "pkg:golang/example.com/fine@1.0.0",
	)
	bom.Components[0].Name = "golang.org/x/text"
	first, err := s.Scan(t.Context(), bom)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, f := range first.Findings {
		ids = append(ids, f.ID)
	}
	if want := []string{"MAL-1", "GHSA-1", "DEBIAN-CVE-2026-5", "DSA-1"}; !slices.Equal(ids, want) {
		t.Errorf("findings %v, want %v: by severity, one for packages of one source, one for aliases", ids, want)
	}
	if len(first.Findings) > 1 {
		f := first.Findings[1]
		if !slices.Equal(f.Aliases, []string{"CVE-2026-1", "GO-1"}) || f.Summary != "A [1mshort[0m summary" || f.Published.IsZero() || f.Name != "golang.org/x/text" {
			t.Errorf("%+v", f)
		}
	}
	if len(first.Findings) > 3 && (!first.Findings[3].Is("CVE-2026-6") || first.Findings[2].Is("CVE-2026-6")) {
		t.Errorf("vulnerabilities upstream are names, and join nothing: %+v", first.Findings[2:])
	}
	if first.Checked+len(first.Unchecked) != len(bom.Components) || len(first.Unchecked) != 1 {
		t.Errorf("%d checked and %d unchecked of %d", first.Checked, len(first.Unchecked), len(bom.Components))
	}
	if first.Subject != bom.Subject || first.Tool.Name == "" || first.Database.Snapshot == "" || first.Database.Name == "" || first.At.IsZero() {
		t.Errorf("%+v", first)
	}
	second, err := s.Scan(t.Context(), bom)
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("the second scan differs: %v\n%+v\n%+v", err, first, second)
	}
	empty, err := s.Scan(t.Context(), SBOM())
	if err != nil || len(empty.Findings) != 0 || empty.Findings == nil || empty.Database != first.Database {
		t.Errorf("nothing to scan: %v %+v", err, empty)
	}
}
