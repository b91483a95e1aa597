// SPDX-License-Identifier: Apache-2.0

package bundle_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"testing"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sigstorebundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstoresign "github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

// The tests of this file hold the package against the reference implementation, in both directions.

// TestSigstoreReadsOurs verifies what is signed here with sigstore-go.
func TestSigstoreReadsOurs(t *testing.T) {
	s := signtest.New(t)
	file := []byte("firmware")
	sum := digest.SetOf(file)
	blob, err := bundle.SignBlob(t.Context(), s, sum.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	attestation, err := bundle.Attest(t.Context(), s, bundle.Attestation{
		Subject: bundle.Subject{Name: "firmware", Digest: sum}, PredicateType: "https://cyclonedx.org/bom", Predicate: []byte(`{"a":[1]}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	image, err := bundle.SignStatement(t.Context(), s, bundle.ImageStatement(sum.SHA256))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data          []byte
		predicateType string
	}{
		"file":        {blob, ""},
		"attestation": {attestation, "https://cyclonedx.org/bom"},
		"image":       {image, bundle.ImagePredicate},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := sigstoreVerify(t, s.PublicKey(), c.data, sum.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if c.predicateType != "" && result.Statement.GetPredicateType() != c.predicateType {
				t.Fatalf("predicate type %q", result.Statement.GetPredicateType())
			}
			if _, err := sigstoreVerify(t, s.PublicKey(), c.data, digest.Of([]byte("other"))); err == nil {
				t.Fatal("verifies for another file")
			}
			if _, err := sigstoreVerify(t, signtest.New(t).PublicKey(), c.data, sum.SHA256); err == nil {
				t.Fatal("verifies with another key")
			}
		})
	}
}

func sigstoreVerify(t testing.TB, key *ecdsa.PublicKey, data []byte, d digest.SHA256) (*verify.VerificationResult, error) {
	t.Helper()
	var b sigstorebundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	verifier, err := signature.LoadECDSAVerifier(key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
	})
	v, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	if err != nil {
		t.Fatal(err)
	}
	return v.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", d[:]), verify.WithKey()))
}

// BenchmarkSigstoreVerifyBlob is the peer of BenchmarkVerifyBlob: the same bundle, the same key.
func BenchmarkSigstoreVerifyBlob(b *testing.B) {
	s := signtest.New(b)
	d := digest.Of([]byte("firmware"))
	data, err := bundle.SignBlob(b.Context(), s, d)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sigstoreVerify(b, s.PublicKey(), data, d); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWeReadSigstores verifies here what sigstore-go signs, in the JSON that protobuf writes.
func TestWeReadSigstores(t *testing.T) {
	s := signtest.New(t)
	file := []byte("firmware")
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"name":"firmware","digest":{"sha256":"` +
		digest.Of(file).Hex() + `"}}],"predicateType":"https://example.com/x/v1","predicate":{}}`)
	keys := []*ecdsa.PublicKey{s.PublicKey()}

	b := sigstoreSign(t, s, &sigstoresign.PlainData{Data: file})
	if err := b.VerifyBlob(keys, digest.Of(file)); err != nil {
		t.Error(err)
	}
	b = sigstoreSign(t, s, &sigstoresign.DSSEData{Data: statement, PayloadType: bundle.PayloadType})
	payload, err := b.VerifyStatement(keys)
	if err != nil || !bytes.Equal(payload, statement) {
		t.Errorf("got %q, %v", payload, err)
	}
	if _, err := b.VerifyAttestation(keys, "https://example.com/x/v1", digest.Of(file)); err != nil {
		t.Error(err)
	}
}

func sigstoreSign(t *testing.T, s sign.Signer, content sigstoresign.Content) *bundle.Bundle {
	t.Helper()
	pb, err := sigstoresign.Bundle(content, keypair{s}, sigstoresign.BundleOptions{Context: t.Context()})
	if err != nil {
		t.Fatal(err)
	}
	data, err := protojson.Marshal(pb)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Parse(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return b
}

// keypair lends one of our signers to sigstore-go.
type keypair struct{ s sign.Signer }

func (k keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return protocommon.HashAlgorithm_SHA2_256
}

func (k keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
}

func (k keypair) GetHint() []byte                { return []byte("some name") }
func (k keypair) GetKeyAlgorithm() string        { return "ECDSA" }
func (k keypair) GetPublicKey() crypto.PublicKey { return k.s.PublicKey() }

func (k keypair) GetPublicKeyPem() (string, error) {
	text, err := sign.EncodePublicKey(k.s.PublicKey())
	return string(text), err
}

func (k keypair) SignData(ctx context.Context, data []byte) (sig, sum []byte, err error) {
	d := sha256.Sum256(data)
	sig, err = k.s.SignDigest(ctx, d)
	return sig, d[:], err
}
