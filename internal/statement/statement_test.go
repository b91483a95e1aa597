// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/version"
)

func example() Release {
	v := version.MustParse("1.0.1")
	return Release{
		Product: "greeter", Channel: File, Version: v, Line: v.Line(), Kind: Security, SecurityVersion: 2,
		Hardware: []string{"rev-a"}, MinimumSource: version.MustParse("1.0.0"), Issued: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		SupportEnd: "2031-12", Fixes: []string{"CVE-2021-38561"},
		Advisory:  &Advisory{ID: "GREETER-2026-1", Summary: "A crafted header stops the service.", Severity: "high", Action: "None, the update installs itself."},
		Artifacts: []Artifact{{Name: "greeter", Digest: digest.SetOf([]byte("x")), Size: 1}},
	}
}

func TestEncodeDecode(t *testing.T) {
	want := example()
	text, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(again, text) {
		t.Fatalf("encoding is not stable: %v\n%s\n%s", err, text, again)
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, change := range map[string]func(*Release){
		"path in product":     func(r *Release) { r.Product = "../root" },
		"reserved product":    func(r *Release) { r.Product = "snapshot" },
		"absolute artifact":   func(r *Release) { r.Artifacts[0].Name = "/etc/passwd" },
		"dotted artifact":     func(r *Release) { r.Artifacts[0].Name = "a..b" },
		"hidden artifact":     func(r *Release) { r.Artifacts[0].Name = ".profile" },
		"two of one name":     func(r *Release) { r.Artifacts = append(r.Artifacts, r.Artifacts[0]) },
		"no artifact":         func(r *Release) { r.Artifacts = nil },
		"no digest":           func(r *Release) { r.Artifacts[0].Digest = digest.Set{} },
		"empty artifact":      func(r *Release) { r.Artifacts[0].Size = 0 },
		"negative size":       func(r *Release) { r.Artifacts[0].Size = -1 },
		"other line":          func(r *Release) { r.Line = version.MustParse("2.0.0").Line() },
		"source above":        func(r *Release) { r.MinimumSource = version.MustParse("1.0.1") },
		"unknown kind":        func(r *Release) { r.Kind = "hotfix" },
		"unknown channel":     func(r *Release) { r.Channel = "carrier-pigeon" },
		"escape sequence":     func(r *Release) { r.Advisory.Summary = "\x1b[2J" },
		"advisory no action":  func(r *Release) { r.Advisory.Action = "" },
		"unknown critical":    func(r *Release) { r.Critical = []string{"moonPhase"} },
		"image on a file":     func(r *Release) { r.Artifacts[0].Images = []string{"registry.example/a"} },
		"expired at birth":    func(r *Release) { r.Expires = r.Issued },
		"month thirteen":      func(r *Release) { r.SupportEnd = "2031-13" },
		"fix with a newline":  func(r *Release) { r.Fixes = []string{"CVE-2021-1\nCVE-2021-2"} },
		"too many artifacts":  func(r *Release) { r.Artifacts = make([]Artifact, MaxArtifacts+1) },
		"container, no image": func(r *Release) { r.Channel = Container },
	} {
		t.Run(name, func(t *testing.T) {
			r := example()
			change(&r)
			if err := r.Check(); err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	text, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	for name, bad := range map[string]string{
		"empty":             "",
		"truncated":         good[:len(good)/2],
		"trailing":          good + "{}",
		"duplicate member":  strings.Replace(good, `"kind":"security"`, `"kind":"security","kind":"feature"`, 1),
		"other case":        strings.Replace(good, `"securityVersion":2`, `"securityversion":2`, 1),
		"other type":        strings.Replace(good, Type, "https://in-toto.io/Statement/v0", 1),
		"other predicate":   strings.Replace(good, PredicateType, "https://example.com/scan/v1", 1),
		"renamed subject":   strings.Replace(good, `"subject":[{"name":"greeter"`, `"subject":[{"name":"other"`, 1),
		"negative security": strings.Replace(good, `"securityVersion":2`, `"securityVersion":-2`, 1),
		"huge security":     strings.Replace(good, `"securityVersion":2`, `"securityVersion":4294967296`, 1),
		"oversized":         good + strings.Repeat(" ", MaxBytes),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Decode([]byte(bad))
			if name == "other case" {
				// A member in another spelling is another member: the number is then absent, which is the lowest floor
				// and never a higher one.
				if err == nil && r.SecurityVersion != 0 {
					t.Fatal("read a member in another spelling")
				}
				return
			}
			if refusal.Of(err) != refusal.Malformed {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	text, err := example().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		out, err := r.Encode()
		if err != nil {
			t.Fatalf("accepted but cannot be encoded: %v", err)
		}
		again, err := Decode(out)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("does not survive: %v\n%+v\n%+v", err, r, again)
		}
	})
}
