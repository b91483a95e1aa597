// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

func TestAttest(t *testing.T) {
	evidence, release := signtest.New(t), signtest.New(t)
	subject := Subject{Name: "greeter", Digest: digest.SetOf(artifact)}
	data, err := Attest(t.Context(), evidence, Attestation{subject, "https://cyclonedx.org/bom", []byte(`{"bomFormat":"CycloneDX"}`)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	predicate, err := b.VerifyAttestation(keysOf(evidence), "https://cyclonedx.org/bom", subject.Digest.SHA256)
	if err != nil || string(predicate) != `{"bomFormat":"CycloneDX"}` {
		t.Fatalf("got %s, %v", predicate, err)
	}
	payload, err := b.VerifyStatement(keysOf(evidence))
	if err != nil {
		t.Fatal(err)
	}
	s, err := DecodeStatement(payload)
	if err != nil || len(s.Subjects) != 1 || s.Subjects[0] != subject {
		t.Fatalf("got %+v, %v", s, err)
	}
	for name, c := range map[string]struct {
		key           sign.Signer
		predicateType string
		d             digest.SHA256
		want          refusal.Class
	}{
		"the release key":        {release, "https://cyclonedx.org/bom", subject.Digest.SHA256, refusal.Signature},
		"another predicate type": {evidence, "https://openvex.dev/ns", subject.Digest.SHA256, refusal.Signature},
		"another artifact":       {evidence, "https://cyclonedx.org/bom", digest.Of([]byte("x")), refusal.Digest},
		"no artifact":            {evidence, "https://cyclonedx.org/bom", digest.SHA256{}, refusal.Digest},
	} {
		t.Run(name, func(t *testing.T) {
			predicate, err := b.VerifyAttestation(keysOf(c.key), c.predicateType, c.d)
			if refusal.Of(err) != c.want || predicate != nil {
				t.Fatalf("got %s, %v, want class %s", predicate, err, c.want)
			}
		})
	}
}

func TestAttestRefuses(t *testing.T) {
	subject := Subject{Name: "a", Digest: digest.SetOf(artifact)}
	for name, a := range map[string]Attestation{
		"a release":       {subject, ImagePredicate, []byte("{}")},
		"no type":         {subject, "", []byte("{}")},
		"no predicate":    {subject, "https://example.com/x", nil},
		"not an object":   {subject, "https://example.com/x", []byte("[]")},
		"broken":          {subject, "https://example.com/x", []byte(`{"a"}`)},
		"duplicate names": {subject, "https://example.com/x", []byte(`{"a":1,"a":2}`)},
		"no digest":       {Subject{Name: "a"}, "https://example.com/x", []byte("{}")},
		"only SHA-512":    {Subject{Name: "a", Digest: digest.Set{SHA512: digest.SetOf(artifact).SHA512}}, "https://example.com/x", []byte("{}")},
	} {
		t.Run(name, func(t *testing.T) {
			if data, err := Attest(t.Context(), signtest.New(t), a); err == nil {
				t.Fatalf("signed %s", data)
			}
		})
	}
}

// TestImageNeedsItsOwnPredicate is the check that keeps an image with only evidence from passing as a release.
func TestImageNeedsItsOwnPredicate(t *testing.T) {
	s, d := signtest.New(t), digest.Of([]byte("manifest"))
	verify := func(data []byte, err error) error {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return b.VerifyImage(keysOf(s), d)
	}
	if err := verify(SignStatement(t.Context(), s, ImageStatement(d))); err != nil {
		t.Fatal(err)
	}
	failedScan := Attestation{Subject{Digest: digest.Set{SHA256: d}}, "https://example.com/scan-failed/v1", []byte(`{"result":"FAILED"}`)}
	if err := verify(Attest(t.Context(), s, failedScan)); refusal.Of(err) != refusal.Signature {
		t.Fatalf("got %v", err)
	}
	if err := verify(SignStatement(t.Context(), s, ImageStatement(digest.Of([]byte("other"))))); refusal.Of(err) != refusal.Digest {
		t.Fatalf("got %v", err)
	}
}

func TestImageStatement(t *testing.T) {
	const want = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":` +
		`"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"},"annotations":{}}],` +
		`"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
	if got := string(ImageStatement(digest.Of(artifact))); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestDecodeStatementRefuses(t *testing.T) {
	for name, c := range map[string]struct{ old, new string }{
		"other type":       {"Statement/v1", "Statement/v2"},
		"no type":          {`"_type"`, `"type"`},
		"no predicate":     {`,"predicate":{}`, ``},
		"null predicate":   {`"predicate":{}`, `"predicate":null`},
		"predicate text":   {`"predicate":{}`, `"predicate":"{}"`},
		"no subject":       {`"subject":[{`, `"subject":[],"x":[{`},
		"short digest":     {`"sha256":"5891`, `"sha256":"`},
		"capital digest":   {`b5b522`, `B5B522`},
		"bad SHA-512":      {`"sha256"`, `"sha512":"00","sha256"`},
		"no predicate id":  {`"https://example.com/x/v1"`, `""`},
		"duplicate":        {`"predicateType"`, `"predicateType":"https://sigstore.dev/cosign/sign/v1","predicateType"`},
		"duplicate digest": {`"digest":{`, `"digest":{"sha256":"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be04",`},
		"many subjects":    {`"subject":[`, `"subject":[` + strings.Repeat(`{"digest":{}},`, MaxSubjects)},
		"trailing":         {`"predicate":{}}`, `"predicate":{}}{}`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(exampleStatement, c.old, c.new, 1)
			if bad == exampleStatement {
				t.Fatalf("%q is not in the statement", c.old)
			}
			if s, err := DecodeStatement([]byte(bad)); refusal.Of(err) != refusal.Malformed {
				t.Fatalf("got %+v, %v", s, err)
			}
		})
	}
}

func TestDecodeStatementReadsBothTypes(t *testing.T) {
	for _, text := range []string{
		exampleStatement,
		strings.Replace(exampleStatement, "/v1", "/v0.1", 1),
		strings.Replace(exampleStatement, `"predicate"`, `"later":{"a":[]},"predicate"`, 1), // unknown members are ignored
		strings.Replace(exampleStatement, `"sha256"`, `"gitCommit":"00","sha256"`, 1),
	} {
		s, err := DecodeStatement([]byte(text))
		if err != nil || !s.Covers(digest.Of(artifact)) || s.PredicateType != "https://example.com/x/v1" {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
}

func TestSimpleSigning(t *testing.T) {
	d := digest.Of(artifact)
	const want = `{"critical":{"identity":{"docker-reference":"registry.example/acme/greeter"},"image":{"docker-manifest-digest":` +
		`"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"},"type":"cosign container image signature"},"optional":null}`
	payload, err := SimpleSigning("registry.example/acme/greeter", d)
	if err != nil || string(payload) != want {
		t.Fatalf("got  %s, %v\nwant %s", payload, err, want)
	}
	if got, err := ParseSimpleSigning(payload); err != nil || got != d {
		t.Fatalf("got %s, %v", got, err)
	}
	if _, err := SimpleSigning("not \xff text", d); err == nil {
		t.Fatal("wrote a repository that is not text")
	}
	for name, c := range map[string]struct{ old, new string }{
		"other type": {"container image", "something else"},
		"no digest":  {"sha256:5891", "sha256:"},
		"other hash": {"sha256:", "sha512:"},
		"duplicate":  {`"critical":`, `"critical":{},"critical":`},
		"huge":       {`"optional":null`, `"optional":"` + strings.Repeat("a", MaxSimpleSigning) + `"`},
		"trailing":   {`"optional":null}`, `"optional":null}x`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(want, c.old, c.new, 1)
			if got, err := ParseSimpleSigning([]byte(bad)); refusal.Of(err) != refusal.Malformed || bad == want {
				t.Fatalf("got %s, %v", got, err)
			}
		})
	}
}

func FuzzDecodeStatement(f *testing.F) {
	f.Add([]byte(exampleStatement))
	f.Add(ImageStatement(digest.Of(artifact)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeStatement(data)
		if err != nil {
			if refusal.Of(err) != refusal.Malformed {
				t.Fatalf("got %v", err)
			}
			return
		}
		if s.PredicateType == "" || len(s.Subjects) == 0 || s.Covers(digest.SHA256{}) {
			t.Fatalf("accepted %+v", s)
		}
	})
}

func FuzzParseSimpleSigning(f *testing.F) {
	payload, err := SimpleSigning("registry.example/a", digest.Of(artifact))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := ParseSimpleSigning(data); (err == nil) == d.IsZero() {
			t.Fatalf("got %s, %v", d, err)
		}
	})
}
