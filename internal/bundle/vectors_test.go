// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

var update = flag.Bool("update", false, "write vectors that are missing; those that exist are kept for ever")

const vectors = "../../docs/spec/testdata/signatures"

// vector is described in docs/spec/signatures.md, section "Vectors".
type vector struct {
	About         string        `json:"about"`
	Expect        refusal.Class `json:"expect"`
	As            string        `json:"as"`
	Keys          []string      `json:"keys"`
	Digest        digest.SHA256 `json:"digest,omitzero"`
	PredicateType string        `json:"predicateType,omitzero"`
	Bundle        string        `json:"bundle,omitzero"`
	Payload       []byte        `json:"payload,omitzero"`
	Signature     []byte        `json:"signature,omitzero"`
}

// check does what a verifier does with a vector.
func (v vector) check() error {
	var keys []*ecdsa.PublicKey
	for _, text := range v.Keys {
		key, err := sign.ParsePublicKey([]byte(text))
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	if v.As == "simple" {
		return VerifySimpleSigning(keys, v.Payload, v.Signature, v.Digest)
	}
	b, err := Parse([]byte(v.Bundle))
	if err != nil {
		return err
	}
	switch v.As {
	case "file":
		return b.VerifyBlob(keys, v.Digest)
	case "statement":
		payload, err := b.VerifyStatement(keys)
		if err == nil && !bytes.Equal(payload, v.Payload) {
			return errors.New("another payload")
		}
		return err
	case "attestation":
		_, err = b.VerifyAttestation(keys, v.PredicateType, v.Digest)
		return err
	case "image":
		return b.VerifyImage(keys, v.Digest)
	}
	return errors.New("nobody knows how to check this vector")
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	files, err := filepath.Glob(filepath.Join(vectors, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v vector
			if err := json.Unmarshal(text, &v, json.RejectUnknownMembers(true)); err != nil {
				t.Fatal(err)
			}
			err = v.check()
			if refusal.Of(err) != v.Expect || v.Expect == "" && err != nil {
				t.Fatalf("got %v, want class %q", err, v.Expect)
			}
			if want := string(v.Expect); !strings.HasPrefix(name, want) || want == "" && !strings.HasPrefix(name, "good") {
				t.Errorf("the name does not begin with what is expected")
			}
		})
	}
}

// writeVectors makes the vectors that are missing, with new keys.
func writeVectors(t *testing.T) {
	release, evidence := signtest.New(t), signtest.New(t)
	d := digest.Of(artifact)
	pem := func(s sign.Signer) string {
		text, err := sign.EncodePublicKey(s.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text := func(data []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	swap := func(from, old, new string) string {
		out := strings.Replace(from, old, new, 1)
		if out == from {
			t.Fatalf("%q is not in %s", old, from)
		}
		return out
	}
	file := text(SignBlob(t.Context(), release, d))
	signed := text(SignStatement(t.Context(), release, []byte(exampleStatement)))
	sbom := Attestation{Subject{Name: "artifact", Digest: digest.SetOf(artifact)}, "https://cyclonedx.org/bom", []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6"}`)}
	attested := text(Attest(t.Context(), evidence, sbom))
	image := text(SignStatement(t.Context(), release, ImageStatement(d)))
	payload := []byte(text(SimpleSigning("registry.example/acme/greeter", d)))
	signature := []byte(text(sign.Message(t.Context(), release, payload)))
	key := `"publicKey":{"hint":"`
	theirs := string(golden(t, "cosign.pub"))
	pub, old := []string{pem(release)}, []string{pem(evidence)}

	for name, v := range map[string]vector{
		"good-file":           {About: "a file, signed by the release key", As: "file", Keys: pub, Digest: d, Bundle: file},
		"good-file-of-cosign": {About: "a file, signed by cosign 3.1.3", As: "file", Keys: []string{theirs}, Digest: d, Bundle: string(golden(t, "blob.sigstore.json"))},
		"good-file-two-keys":  {About: "one of two trusted keys is enough", As: "file", Keys: append(old, pub...), Digest: d, Bundle: file},
		"good-file-logged":    {About: "log entries beside a plain key are not read", As: "file", Keys: pub, Digest: d, Bundle: swap(file, key, `"tlogEntries":[{}],`+key)},
		"good-file-other-hint": {About: "the hint is not signed and decides nothing", As: "file", Keys: pub, Digest: d,
			Bundle: swap(file, key, key+"x")},
		"good-statement":             {About: "a statement", As: "statement", Keys: pub, Payload: []byte(exampleStatement), Bundle: signed},
		"good-attestation":           {About: "an SBOM, attested by the evidence key", As: "attestation", Keys: old, Digest: d, PredicateType: sbom.PredicateType, Bundle: attested},
		"good-attestation-of-cosign": {About: "an attestation by cosign 3.1.3, statement v0.1", As: "attestation", Keys: []string{theirs}, Digest: d, PredicateType: "https://example.com/x/v1", Bundle: string(golden(t, "attestation.sigstore.json"))},
		"good-image":                 {About: "an image", As: "image", Keys: pub, Digest: d, Bundle: image},
		"good-simple":                {About: "an image, in the older form", As: "simple", Keys: pub, Digest: d, Payload: payload, Signature: signature},

		"digest-file-another":        {About: "a bundle of another file", As: "file", Keys: pub, Digest: digest.Of([]byte("other")), Bundle: file},
		"digest-attestation-another": {About: "an attestation of another file", As: "attestation", Keys: old, Digest: digest.Of([]byte("other")), PredicateType: sbom.PredicateType, Bundle: attested},
		"digest-image-another":       {About: "a signature of another image", As: "image", Keys: pub, Digest: digest.Of([]byte("other")), Bundle: image},
		"digest-simple-another":      {About: "an older signature of another image", As: "simple", Keys: pub, Digest: digest.Of([]byte("other")), Payload: payload, Signature: signature},

		"signature-file-another-key":       {About: "signed by a key that is not trusted", As: "file", Keys: old, Digest: d, Bundle: file},
		"signature-file-no-key":            {About: "nobody is trusted", As: "file", Digest: d, Bundle: file},
		"signature-file-keyless":           {About: "signed with a certificate", As: "file", Keys: pub, Digest: d, Bundle: swap(file, `"publicKey":{"hint":"`+hintOf(t, release)+`"}`, `"certificate":{"rawBytes":"AAAA"}`)},
		"signature-statement-changed":      {About: "the payload was changed after signing", As: "statement", Keys: pub, Payload: []byte(exampleStatement), Bundle: swap(signed, `"payload":"eyJfdHlwZSI6`, `"payload":"eyJfdHlwZSI7`)},
		"signature-attestation-another":    {About: "says something else of the file", As: "attestation", Keys: old, Digest: d, PredicateType: "https://openvex.dev/ns", Bundle: attested},
		"signature-attestation-by-release": {About: "made by another key than the evidence key", As: "attestation", Keys: pub, Digest: d, PredicateType: sbom.PredicateType, Bundle: attested},
		"signature-image-only-evidence":    {About: "an attestation is not a release, even by the key that is trusted for releases", As: "image", Keys: old, Digest: d, Bundle: attested},
		"signature-simple-another-key":     {About: "an older signature by a key that is not trusted", As: "simple", Keys: old, Digest: d, Payload: payload, Signature: signature},
		"signature-simple-changed":         {About: "the older payload was changed after signing", As: "simple", Keys: pub, Digest: d, Payload: append(bytes.Clone(payload), '\n'), Signature: signature},

		"malformed-statement-as-file":   {About: "a statement where a file is expected", As: "file", Keys: pub, Digest: d, Bundle: signed},
		"malformed-file-as-image":       {About: "the signature of a file with the digest of an image", As: "image", Keys: pub, Digest: d, Bundle: file},
		"malformed-two-contents":        {About: "a file and a statement in one bundle", As: "file", Keys: pub, Digest: d, Bundle: swap(file, `"messageSignature"`, signed[strings.Index(signed, `"dsseEnvelope"`):len(signed)-1]+`,"messageSignature"`)},
		"malformed-two-signatures":      {About: "two signatures in one envelope", As: "statement", Keys: pub, Payload: []byte(exampleStatement), Bundle: swap(signed, `"signatures":[`, `"signatures":[{"sig":"AAAA"},`)},
		"malformed-payload-type":        {About: "an envelope around something else than a statement", As: "statement", Keys: pub, Payload: []byte(exampleStatement), Bundle: swap(signed, PayloadType, "application/json")},
		"malformed-media-type":          {About: "a bundle of another version", As: "file", Keys: pub, Digest: d, Bundle: swap(file, "v0.3+json", "v0.4+json")},
		"malformed-duplicate-member":    {About: "two members of one name", As: "file", Keys: pub, Digest: d, Bundle: swap(file, `{"mediaType"`, `{"mediaType":"x","mediaType"`)},
		"malformed-unknown-member":      {About: "a member that the format does not have", As: "file", Keys: pub, Digest: d, Bundle: swap(file, `{"mediaType"`, `{"x":1,"mediaType"`)},
		"malformed-hash":                {About: "another hash than SHA-256", As: "file", Keys: pub, Digest: d, Bundle: swap(file, hashName, "SHA2_512")},
		"malformed-key-and-certificate": {About: "a key and a certificate", As: "file", Keys: pub, Digest: d, Bundle: swap(file, key, `"certificate":{"rawBytes":"AAAA"},`+key)},
	} {
		path := filepath.Join(vectors, name+".json")
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if class, _, _ := strings.Cut(name, "-"); class != "good" {
			v.Expect = refusal.Class(class)
		}
		out, err := json.Marshal(v, jsontext.Multiline(true))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(vectors, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(out, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func hintOf(t *testing.T, s sign.Signer) string {
	t.Helper()
	hint, err := sign.Hint(s.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return hint
}
