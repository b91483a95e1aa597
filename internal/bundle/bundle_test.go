// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

const exampleStatement = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"` +
	`5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"}}],"predicateType":"https://example.com/x/v1","predicate":{}}`

var artifact = []byte("hello\n")

func keysOf(signers ...sign.Signer) []*ecdsa.PublicKey {
	var keys []*ecdsa.PublicKey
	for _, s := range signers {
		keys = append(keys, s.PublicKey())
	}
	return keys
}

func TestBlob(t *testing.T) {
	mine, other := signtest.New(t), signtest.New(t)
	d := digest.Of(artifact)
	data, err := SignBlob(t.Context(), mine, d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys []*ecdsa.PublicKey
		d    digest.SHA256
		want refusal.Class
	}{
		"its key":          {keysOf(mine), d, ""},
		"among other keys": {keysOf(other, mine, other), d, ""},
		"another file":     {keysOf(mine), digest.Of([]byte("hello")), refusal.Digest},
		"no digest":        {keysOf(mine), digest.SHA256{}, refusal.Digest},
		"another key":      {keysOf(other), d, refusal.Signature},
		"no key":           {nil, d, refusal.Signature},
		"too many keys":    {append(make([]*ecdsa.PublicKey, MaxKeys), mine.PublicKey()), d, refusal.Signature},
	} {
		t.Run(name, func(t *testing.T) {
			if err := b.VerifyBlob(c.keys, c.d); refusal.Of(err) != c.want || (err == nil) != (c.want == "") {
				t.Fatalf("got %v, want class %q", err, c.want)
			}
		})
	}
	if _, err := b.VerifyStatement(keysOf(mine)); refusal.Of(err) != refusal.Malformed {
		t.Fatalf("a file was read as a statement: %v", err)
	}
}

// TestBlobWithAForgedDigest has an attacker who changes the file and the unsigned digest in the bundle.
func TestBlobWithAForgedDigest(t *testing.T) {
	s := signtest.New(t)
	d, forged := digest.Of(artifact), digest.Of([]byte("evil"))
	data, err := SignBlob(t.Context(), s, d)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	b, err := Parse(bytes.Replace(data, []byte(b64(d[:])), []byte(b64(forged[:])), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.VerifyBlob(keysOf(s), forged); refusal.Of(err) != refusal.Signature {
		t.Fatalf("got %v", err)
	}
	if err := b.VerifyBlob(keysOf(s), d); refusal.Of(err) != refusal.Digest {
		t.Fatalf("got %v", err)
	}
}

func TestStatement(t *testing.T) {
	mine, other := signtest.New(t), signtest.New(t)
	data, err := SignStatement(t.Context(), mine, []byte(exampleStatement))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := b.VerifyStatement(keysOf(other, mine))
	if err != nil || string(payload) != exampleStatement {
		t.Fatalf("got %q, %v", payload, err)
	}
	if payload, err := b.VerifyStatement(keysOf(other)); refusal.Of(err) != refusal.Signature || payload != nil {
		t.Fatalf("another key: %q, %v", payload, err)
	}
	if err := b.VerifyBlob(keysOf(mine), digest.Of([]byte(exampleStatement))); refusal.Of(err) != refusal.Malformed {
		t.Fatalf("a statement was read as a file: %v", err)
	}
	if hint, err := sign.Hint(mine.PublicKey()); err != nil || b.Hint() != hint {
		t.Fatalf("hint %q", b.Hint())
	}
}

// TestEveryFlippedBit changes a bundle bit by bit: no change makes another payload verify.
func TestEveryFlippedBit(t *testing.T) {
	s := signtest.New(t)
	data, err := SignStatement(t.Context(), s, []byte(exampleStatement))
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		b, err := Parse(bad)
		if err != nil {
			continue
		}
		payload, err := b.VerifyStatement(keysOf(s))
		switch {
		case err == nil && string(payload) != exampleStatement:
			t.Fatalf("byte %d: accepted another payload %q", i, payload)
		case err != nil && refusal.Of(err) != refusal.Signature:
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	s := signtest.New(t)
	blob, err := SignBlob(t.Context(), s, digest.Of(artifact))
	if err != nil {
		t.Fatal(err)
	}
	statement, err := SignStatement(t.Context(), s, []byte(exampleStatement))
	if err != nil {
		t.Fatal(err)
	}
	hint, err := sign.Hint(s.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	material := `"publicKey":{"hint":"` + hint + `"}`
	for name, c := range map[string]struct {
		from     []byte
		old, new string
		want     refusal.Class
	}{
		"keyless":             {blob, material, `"certificate":{"rawBytes":"AAAA"}`, refusal.Signature},
		"keyless, chain":      {statement, material, `"x509CertificateChain":{"certificates":[]}`, refusal.Signature},
		"key and certificate": {blob, material, material + `,"certificate":{"rawBytes":"AAAA"}`, refusal.Malformed},
		"no key":              {blob, material, ``, refusal.Malformed},
		"long hint":           {blob, hint, strings.Repeat("A", MaxHint+1), refusal.Malformed},
		"other media type":    {blob, `v0.3+json`, `v0.4+json`, refusal.Malformed},
		"older media type":    {blob, `.v0.3+json`, `+json;version=0.2`, refusal.Malformed},
		"no media type":       {blob, `"mediaType":"` + MediaType + `",`, ``, refusal.Malformed},
		"unknown member":      {blob, `{"mediaType"`, `{"x":1,"mediaType"`, refusal.Malformed},
		"duplicate member":    {blob, `{"mediaType"`, `{"messageSignature":null,"mediaType"`, refusal.Malformed},
		"member in capitals":  {blob, `"messageSignature"`, `"MESSAGESIGNATURE"`, refusal.Malformed},
		"other hash":          {blob, `SHA2_256`, `SHA2_512`, refusal.Malformed},
		"short digest":        {blob, `"digest":"`, `"digest":"AAAA`, refusal.Malformed},
		"no message digest":   {blob, `"messageDigest":{"algorithm":"SHA2_256"`, `"messageDigest":{"algorithm":""`, refusal.Malformed},
		"no signature":        {blob, `"signature":"`, `"signature":"","x":"`, refusal.Malformed},
		"huge signature":      {blob, `"signature":"`, `"signature":"` + strings.Repeat("AAAA", MaxSignature/3+1), refusal.Malformed},
		"both":                {blob, `"messageSignature"`, `"dsseEnvelope":{"payload":"AAAA","payloadType":"` + PayloadType + `","signatures":[{"sig":"AAAA"}]},"messageSignature"`, refusal.Malformed},
		"neither":             {blob, string(blob[bytes.Index(blob, []byte(`,"messageSignature"`)):]), `}`, refusal.Malformed},
		"other payload type":  {statement, PayloadType, "application/json", refusal.Malformed},
		"two signatures":      {statement, `"signatures":[`, `"signatures":[{"sig":"AAAA"},`, refusal.Malformed},
		"no signatures":       {statement, `"signatures":[`, `"signatures":[],"x":[`, refusal.Malformed},
		"empty payload":       {statement, `"payload":"`, `"payload":"","x":"`, refusal.Malformed},
		"bad base64":          {statement, `"payload":"`, `"payload":"!`, refusal.Malformed},
		"trailing":            {statement, `{"mediaType"`, `{} {"mediaType"`, refusal.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(string(c.from), c.old, c.new, 1)
			if bad == string(c.from) {
				t.Fatalf("%q is not in the bundle", c.old)
			}
			b, err := Parse([]byte(bad))
			if refusal.Of(err) != c.want || b != nil {
				t.Fatalf("got %v, want class %s", err, c.want)
			}
		})
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "null": []byte("null"), "list": []byte("[]"), "text": []byte("hello"), "truncated": blob[:len(blob)/2],
		"oversized": append(bytes.Clone(blob), bytes.Repeat([]byte(" "), MaxBytes)...),
		"deep":      []byte(strings.Repeat(`{"dsseEnvelope":`, 20000)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(data)
			if refusal.Of(err) != refusal.Malformed {
				t.Fatalf("got %v", err)
			}
			if len(err.Error()) > 400 {
				t.Fatalf("hostile text reaches the message: %d bytes", len(err.Error()))
			}
		})
	}
}

// TestLogEntriesAreIgnored reads a bundle that a public log has seen as well.
func TestLogEntriesAreIgnored(t *testing.T) {
	s := signtest.New(t)
	data, err := SignBlob(t.Context(), s, digest.Of(artifact))
	if err != nil {
		t.Fatal(err)
	}
	logged := strings.Replace(string(data), `"publicKey":`, `"tlogEntries":[{"logIndex":"1"}],"timestampVerificationData":{},"publicKey":`, 1)
	b, err := Parse([]byte(logged))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.VerifyBlob(keysOf(s), digest.Of(artifact)); err != nil {
		t.Fatal(err)
	}
}

// TestBundlesOfCosign reads what cosign 3.1.3 wrote with the key beside it.
func TestBundlesOfCosign(t *testing.T) {
	key, err := sign.ParsePublicKey(golden(t, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	keys, d := []*ecdsa.PublicKey{key}, digest.Of(golden(t, "artifact"))

	blob, err := Parse(golden(t, "blob.sigstore.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := blob.VerifyBlob(keys, d); err != nil {
		t.Error(err)
	}
	attestation, err := Parse(golden(t, "attestation.sigstore.json"))
	if err != nil {
		t.Fatal(err)
	}
	predicate, err := attestation.VerifyAttestation(keys, "https://example.com/x/v1", d)
	if err != nil || string(predicate) != `{"a":1}` {
		t.Errorf("got %s, %v", predicate, err)
	}
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func FuzzParse(f *testing.F) {
	f.Add(golden(f, "blob.sigstore.json"))
	f.Add(golden(f, "attestation.sigstore.json"))
	f.Add([]byte(`{"mediaType":"` + MediaType + `","verificationMaterial":{"certificate":{}}}`))
	key, err := sign.ParsePublicKey(golden(f, "cosign.pub"))
	if err != nil {
		f.Fatal(err)
	}
	keys := []*ecdsa.PublicKey{key}
	d := digest.Of(golden(f, "artifact"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			if class := refusal.Of(err); b != nil || class != refusal.Malformed && class != refusal.Signature {
				t.Fatalf("got %v, %v", b, err)
			}
			return
		}
		if err := b.VerifyBlob(keys, digest.Of([]byte("never signed"))); err == nil {
			t.Fatal("accepted a signature that was never made")
		}
		if err := b.VerifyBlob(keys, d); err != nil && refusal.Of(err) == "" {
			t.Fatalf("not a refusal: %v", err)
		}
		if payload, err := b.VerifyStatement(keys); err == nil {
			if _, err := DecodeStatement(payload); err != nil {
				t.Fatalf("the one signed statement does not decode: %v", err)
			}
		}
	})
}

func BenchmarkVerifyBlob(b *testing.B) {
	s := signtest.New(b)
	d := digest.Of(artifact)
	data, err := SignBlob(b.Context(), s, d)
	if err != nil {
		b.Fatal(err)
	}
	keys := keysOf(s)
	b.ReportAllocs()
	for b.Loop() {
		parsed, err := Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		if err := parsed.VerifyBlob(keys, d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyStatement(b *testing.B) {
	s := signtest.New(b)
	data, err := SignStatement(b.Context(), s, []byte(exampleStatement))
	if err != nil {
		b.Fatal(err)
	}
	keys := keysOf(s)
	b.ReportAllocs()
	for b.Loop() {
		parsed, err := Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := parsed.VerifyStatement(keys); err != nil {
			b.Fatal(err)
		}
	}
}
