// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
)

var update = flag.Bool("update", false, "rewrite golden files")

func example() SBOM {
	return SBOM{
		Subject: Subject{Name: "greeter", Version: "1.0.0", Digest: digest.SetOf([]byte("greeter"))},
		Tool:    Tool{Name: "pawl", Version: "1.0.0"},
		Created: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		Gaps:    []string{"lib/filter.so: a native program without build information"},
		Components: []Component{
			{Name: "libssl3", Version: "3.0.11-1", PURL: "pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12&upstream=openssl", Ecosystem: "Debian:12", Locations: []string{"var/lib/dpkg/status"}},
			{Name: "mbedtls", Version: "2.28.0", PURL: "pkg:generic/mbedtls@2.28.0", Licences: []string{"Apache-2.0"}, Declared: true},
			{Name: "github.com/BurntSushi/toml", Version: "1.2.0", PURL: "pkg:golang/github.com/burntsushi/toml@1.2.0", Ecosystem: "Go", Locations: []string{"bin/a", "bin/b"}, Licences: []string{"BSD", "MIT licence"}},
			{Name: "stdlib", Version: "1.26.3", PURL: "pkg:golang/stdlib@1.26.3", Ecosystem: "Go"},
			{Name: "homemade"},
		},
	}
}

func TestGolden(t *testing.T) {
	got, err := example().EncodeCycloneDX()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "sbom.cdx.json")
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

func TestRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*SBOM){
		"as it is": func(*SBOM) {},
		"opaque":   func(s *SBOM) { s.Opaque, s.Components, s.Gaps = true, nil, nil },
		"no tool":  func(s *SBOM) { s.Tool = Tool{} },
	} {
		t.Run(name, func(t *testing.T) {
			want := example()
			change(&want)
			text, err := want.EncodeCycloneDX()
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeCycloneDX(text)
			if err != nil {
				t.Fatal(err)
			}
			want.Components = Merge(want.Components)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestEncodeIsStable(t *testing.T) {
	a, b := example(), example()
	for i, j := 0, len(b.Components)-1; i < j; i, j = i+1, j-1 {
		b.Components[i], b.Components[j] = b.Components[j], b.Components[i]
	}
	b.Components = append(b.Components, b.Components[0])
	first, err := a.EncodeCycloneDX()
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.EncodeCycloneDX()
	if err != nil || !bytes.Equal(first, second) {
		t.Fatalf("another order gives other bytes: %v", err)
	}
	other := example()
	other.Subject.Digest = digest.SetOf(nil)
	third, err := other.EncodeCycloneDX()
	if err != nil || serial(t, third) == serial(t, first) {
		t.Fatalf("another subject has the same serial number: %v", err)
	}
	if bytes.Contains(first, []byte("vulnerabilit")) {
		t.Error("an SBOM speaks of vulnerabilities")
	}
}

func serial(t *testing.T, text []byte) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(text), "urn:uuid:")
	if !ok {
		t.Fatal("no serial number")
	}
	return rest[:36]
}

func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*SBOM){
		"no name":    func(s *SBOM) { s.Subject.Name = "" },
		"no SHA-512": func(s *SBOM) { s.Subject.Digest.SHA512 = digest.SHA512{} },
		"no SHA-256": func(s *SBOM) { s.Subject.Digest.SHA256 = digest.SHA256{} },
		"no time":    func(s *SBOM) { s.Created = time.Time{} },
	} {
		s := example()
		change(&s)
		if _, err := s.EncodeCycloneDX(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// others is a document as other tools write it: groups, nested components, files, lock files, an operating system, a
// subject without SHA-512, vulnerabilities, members of later versions.
const others = `{
  "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
  "metadata": {
    "timestamp": "2026-11-20T10:00:00.123+01:00",
    "tools": [{"vendor": "somebody", "name": "scanner", "version": "9"}],
    "component": {"type": "container", "name": "image", "hashes": [{"alg": "SHA-256", "content": "HASH"}, {"alg": "MD5", "content": "x"}],
      "components": [{"type": "library", "name": "below", "purl": "pkg:npm/below@1"}]}
  },
  "components": [
    {"type": "operating-system", "name": "debian", "version": "12.5"},
    {"type": "application", "name": "app/package-lock.json"},
    {"type": "file", "name": "/bin/sh", "hashes": [{"alg": "SHA-1", "content": "y"}]},
    {"type": "library", "group": "@babel", "name": "core", "version": "7.0.0", "purl": "pkg:npm/%40babel/core@7.0.0", "licenses": [{"license": {"id": "MIT"}}, {"license": {"name": "Other"}}],
     "components": [{"type": "library", "name": "inner", "version": "2", "purl": "pkg:npm/inner@2"}]},
    {"type": "library", "name": "libssl3", "version": "3.0.11-1", "purl": "pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=debian-12.5&upstream=openssl"},
    {"type": "library", "name": "core", "purl": "pkg:npm/core@1", "someday": {"a": [1, null]}}
  ],
  "vulnerabilities": [{"id": "CVE-1"}]
}`

func TestDecodeOthers(t *testing.T) {
	s, err := DecodeCycloneDX([]byte(strings.Replace(others, "HASH", digest.Of(nil).Hex(), 1)))
	if err != nil {
		t.Fatal(err)
	}
	if s.Tool.Name != "scanner" || s.Subject.Name != "image" || s.Subject.Digest.SHA256 != digest.Of(nil) || s.Created.Format(time.RFC3339) != "2026-11-20T09:00:00Z" {
		t.Errorf("%+v", s)
	}
	var got []string
	for _, c := range s.Components {
		p := c.Package()
		got = append(got, fmt.Sprintf("%s|%s|%s|%s", c.Name, c.Ecosystem, p.Name, strings.Join(c.Licences, ",")))
	}
	want := "libssl3|Debian:12|openssl| @babel/core|npm|@babel/core|MIT,Other below|npm|below| core|npm|core| inner|npm|inner|"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	text, err := example().EncodeCycloneDX()
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	sha := example().Subject.Digest.SHA256.Hex()
	many := `{"type":"library","name":"a"},`
	for name, test := range map[string][2]string{
		"empty":             {"", "SBOM"},
		"truncated":         {good[:len(good)/2], "SBOM"},
		"two documents":     {good + good, "after"},
		"XML":               {"<bom/>", "SBOM"},
		"other format":      {strings.Replace(good, `"CycloneDX"`, `"SPDX"`, 1), `format "SPDX"`},
		"old version":       {strings.Replace(good, `"1.6"`, `"1.4"`, 1), `version "1.4"`},
		"no version":        {strings.Replace(good, `"specVersion": "1.6",`, ``, 1), `version ""`},
		"version twice":     {strings.Replace(good, `"specVersion": "1.6"`, `"specVersion": "1.6", "specVersion": "1.6"`, 1), "duplicate"},
		"no subject":        {`{"bomFormat":"CycloneDX","specVersion":"1.6"}`, "metadata.component"},
		"unbound":           {strings.Replace(good, `"alg": "SHA-256"`, `"alg": "SHA-1"`, 1), "not bound"},
		"two digests":       {strings.Replace(good, `"alg": "SHA-256"`, `"alg": "SHA-256","content":"`+strings.Repeat("ab", 32)+`"},{"alg":"SHA-256"`, 1), "two different"},
		"broken digest":     {strings.Replace(good, sha, sha[1:], 1), "63 characters"},
		"wrong time":        {strings.Replace(good, "2026-11-23T08:00:00Z", "yesterday", 1), "timestamp"},
		"nameless":          {strings.Replace(good, `"name": "stdlib"`, `"name": ""`, 1), "without a name"},
		"long name":         {strings.Replace(good, `"name": "stdlib"`, `"name": "`+strings.Repeat("x", MaxText+1)+`"`, 1), "at most 4096"},
		"oversized":         {good + strings.Repeat(" ", MaxSBOMBytes), "at most"},
		"too many":          {strings.Replace(good, `"components": [`+"\n    {", `"components": [`+strings.Repeat(many, MaxComponents+1)+"\n    {", 1), "more than 200000 components"},
		"too many small":    {`{"x":[` + strings.Repeat("{},", maxObjects) + `{}]}`, "objects"},
		"components object": {strings.Replace(good, `"components": [`+"\n    {", `"components": {"a":[{`, 1), "SBOM"},
		"too deep":          {deep(good, maxNesting+2), "nested deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeCycloneDX([]byte(test[0]))
			if refusal.Of(err) != refusal.Malformed || !strings.Contains(err.Error(), test[1]) {
				t.Errorf("got %v, want %q", err, test[1])
			}
		})
	}
}

// deep nests components below the first one.
func deep(good string, n int) string {
	inner := strings.Repeat(`{"type":"library","name":"a","components":[`, n) + strings.Repeat("]}", n)
	return strings.Replace(good, `"components": [`+"\n    {", `"components": [`+inner+`,{`, 1)
}

func TestMerge(t *testing.T) {
	got := Merge(
		[]Component{{Name: "b", PURL: "pkg:npm/b@1", Declared: true, Locations: []string{"y", "x"}}},
		[]Component{{Name: "b", PURL: "pkg:npm/b@1", Locations: []string{"x", ""}}, {Name: "a", PURL: "pkg:npm/a@1"}},
	)
	if len(got) != 2 || got[0].Name != "a" || got[1].Declared || strings.Join(got[1].Locations, " ") != "x y" {
		t.Errorf("%+v", got)
	}
}

func FuzzDecodeCycloneDX(f *testing.F) {
	text, err := example().EncodeCycloneDX()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(strings.Replace(others, "HASH", digest.Of(nil).Hex(), 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeCycloneDX(data)
		if err != nil {
			return
		}
		if s.Created.IsZero() || s.Subject.Digest.SHA512.IsZero() {
			return // readable, but not something that we would write
		}
		out, err := s.EncodeCycloneDX()
		if err != nil {
			t.Fatalf("accepted but cannot be encoded: %v", err)
		}
		again, err := DecodeCycloneDX(out)
		if err != nil {
			t.Fatalf("does not survive: %v\n%s", err, out)
		}
		if !reflect.DeepEqual(again, s) {
			t.Fatalf("changes:\n%+v\n%+v", s, again)
		}
	})
}

func BenchmarkDecodeCycloneDX(b *testing.B) {
	s := example()
	for i := range 2000 {
		name := fmt.Sprintf("example.com/module%d", i)
		s.Components = append(s.Components, Component{Name: name, Version: "1.0.0", PURL: "pkg:golang/" + name + "@1.0.0", Ecosystem: "Go"})
	}
	text, err := s.EncodeCycloneDX()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := DecodeCycloneDX(text); err != nil {
			b.Fatal(err)
		}
	}
}
