// SPDX-License-Identifier: Apache-2.0

// Package bundle reads and writes signatures in the form that cosign reads and writes: the Sigstore bundle v0.3.
//
// A bundle holds one signature by one plain key and says what was signed: either a file, by its SHA-256 (a message
// signature), or an in-toto statement in a DSSE envelope. Both are ECDSA P-256 over SHA-256. A bundle also carries a hint
// that names its key; the hint is not signed, so it only chooses which of the trusted keys is tried first and which words
// an error has. A bundle never brings a key of its own: callers pass the keys they trust.
//
// What this package does not do, on purpose: certificates, transparency logs and timestamps are not read. A bundle that
// is signed with a certificate is refused; log entries beside a signature by a plain key are ignored. Freshness and the
// time of signing are the business of the TUF metadata in front of every bundle.
//
// Reading is strict and bounded: exact member names, no duplicates, no unknown members, one signature per envelope (the
// Sigstore bundle format demands it), one payload type. Refusals have three classes: Malformed for what is not such a
// bundle, Digest for a bundle over something else than the bytes at hand, Signature for everything that no trusted key
// has signed. When nothing is proven, nothing is returned.
//
// The format is specified in docs/spec/signatures.md.
package bundle

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"strconv"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
)

const (
	// MediaType is the media type of a bundle, and of the layer and manifest that hold one in a registry.
	MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// PayloadType is the DSSE payload type of an in-toto statement, the only one that is signed or accepted.
	PayloadType = "application/vnd.in-toto+json"
)

// Limits on a bundle. Whoever writes it chooses these sizes.
const (
	MaxBytes     = 32 << 20 // of the JSON text; an SBOM of a large image inside an attestation has about 10 MiB
	MaxSignature = 256      // of one signature, in bytes; ECDSA P-256 in DER has at most 72
	MaxHint      = 256      // of the key's name, in bytes
	MaxKeys      = 64       // trusted keys that one call may try
)

// hashName is how a bundle names SHA-256 (sigstore_common.proto, HashAlgorithm).
const hashName = "SHA2_256"

// Bundle is a parsed bundle. Nothing in it is verified.
type Bundle struct {
	hint      string
	statement *envelope // exactly one of the two is set
	message   *message
}

// document is the JSON shape (sigstore_bundle.proto in its canonical JSON form).
type document struct {
	MediaType string    `json:"mediaType"`
	Material  material  `json:"verificationMaterial"`
	Message   *message  `json:"messageSignature,omitzero"`
	Envelope  *envelope `json:"dsseEnvelope,omitzero"`
}

type material struct {
	PublicKey *publicKey `json:"publicKey,omitzero"`
	// The rest is known so that a bundle of another kind can be told from garbage. It is never interpreted.
	Certificate jsontext.Value `json:"certificate,omitzero"`
	Chain       jsontext.Value `json:"x509CertificateChain,omitzero"`
	Log         jsontext.Value `json:"tlogEntries,omitzero"`
	Timestamps  jsontext.Value `json:"timestampVerificationData,omitzero"`
}

type publicKey struct {
	Hint string `json:"hint,omitzero"`
}

type message struct {
	Digest    messageDigest `json:"messageDigest"`
	Signature []byte        `json:"signature"`
}

type messageDigest struct {
	Algorithm string `json:"algorithm"`
	Digest    []byte `json:"digest"`
}

// envelope is a DSSE envelope (github.com/secure-systems-lab/dsse, envelope.md).
type envelope struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid,omitzero"`
}

// SignBlob signs a file by its SHA-256 and returns the bundle for `cosign verify-blob`.
func SignBlob(ctx context.Context, s sign.Signer, d digest.SHA256) ([]byte, error) {
	if d.IsZero() {
		return nil, fmt.Errorf("cannot sign: no digest")
	}
	sig, err := s.SignDigest(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("cannot sign %s: %w", d, err)
	}
	return encode(s, document{Message: &message{Digest: messageDigest{hashName, d[:]}, Signature: sig}})
}

// SignStatement signs the JSON text of an in-toto statement and returns the bundle. The payload is signed as it is,
// byte for byte.
func SignStatement(ctx context.Context, s sign.Signer, payload []byte) ([]byte, error) {
	if len(payload) == 0 {
		return nil, fmt.Errorf("cannot sign: empty statement")
	}
	sig, err := s.SignDigest(ctx, preAuthDigest(PayloadType, payload))
	if err != nil {
		return nil, fmt.Errorf("cannot sign statement: %w", err)
	}
	return encode(s, document{Envelope: &envelope{payload, PayloadType, []signature{{Sig: sig}}}})
}

func encode(s sign.Signer, doc document) ([]byte, error) {
	hint, err := sign.Hint(s.PublicKey())
	if err != nil {
		return nil, fmt.Errorf("cannot name the key of a signature: %w", err)
	}
	doc.MediaType = MediaType
	doc.Material.PublicKey = &publicKey{hint}
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("cannot encode signature: %w", err)
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("cannot encode signature: %d bytes, at most %d are allowed", len(data), MaxBytes)
	}
	return data, nil
}

// Parse reads a bundle. It refuses what is not a bundle v0.3 with class Malformed, and a bundle that is signed with a
// certificate and not with a plain key with class Signature.
func Parse(data []byte) (*Bundle, error) {
	if len(data) > MaxBytes {
		return nil, malformed("%d bytes, at most %d are allowed", len(data), MaxBytes)
	}
	var doc document
	if err := json.Unmarshal(data, &doc, json.RejectUnknownMembers(true)); err != nil {
		return nil, malformed("%s", clip(err.Error())) // the text of the error quotes the input
	}
	if doc.MediaType != MediaType {
		return nil, malformed("media type %q is not %q", clip(doc.MediaType), MediaType)
	}
	certified := doc.Material.Certificate != nil || doc.Material.Chain != nil
	switch {
	case certified && doc.Material.PublicKey != nil:
		return nil, malformed("both a certificate and a key")
	case certified:
		return nil, refused("it is signed with a certificate (keyless), not with a plain key").
			Do("get the bundle that was signed with the release key")
	case doc.Material.PublicKey == nil:
		return nil, malformed("no key is named")
	case len(doc.Material.PublicKey.Hint) > MaxHint:
		return nil, malformed("a key name of %d bytes, at most %d are allowed", len(doc.Material.PublicKey.Hint), MaxHint)
	}
	var err error
	switch {
	case doc.Message != nil && doc.Envelope != nil:
		return nil, malformed("both a file and a statement are signed")
	case doc.Message != nil:
		err = doc.Message.check()
	case doc.Envelope != nil:
		err = doc.Envelope.check()
	default:
		return nil, malformed("no signature")
	}
	if err != nil {
		return nil, err
	}
	return &Bundle{hint: doc.Material.PublicKey.Hint, statement: doc.Envelope, message: doc.Message}, nil
}

func (m *message) check() error {
	switch {
	case m.Digest.Algorithm != hashName:
		return malformed("hash algorithm %q is not %q", clip(m.Digest.Algorithm), hashName)
	case len(m.Digest.Digest) != len(digest.SHA256{}):
		return malformed("a digest of %d bytes, %d are expected", len(m.Digest.Digest), len(digest.SHA256{}))
	}
	return checkSignature(m.Signature)
}

func (e *envelope) check() error {
	switch {
	case e.PayloadType != PayloadType:
		return malformed("payload type %q is not %q", clip(e.PayloadType), PayloadType)
	case len(e.Payload) == 0:
		return malformed("empty payload")
	case len(e.Signatures) != 1:
		// sigstore_bundle.proto: "DSSE envelopes in a bundle MUST have exactly one signature".
		return malformed("%d signatures in the envelope, exactly 1 is allowed", len(e.Signatures))
	}
	return checkSignature(e.Signatures[0].Sig)
}

func checkSignature(sig []byte) error {
	if len(sig) == 0 || len(sig) > MaxSignature {
		return malformed("a signature of %d bytes, 1 to %d are allowed", len(sig), MaxSignature)
	}
	return nil
}

// VerifyBlob checks that one of keys has signed the file with SHA-256 d. It refuses with class Digest if the bundle is
// for another file, and with class Signature if no key has signed.
func (b *Bundle) VerifyBlob(keys []*ecdsa.PublicKey, d digest.SHA256) error {
	if b.message == nil {
		return malformed("it holds a statement, not a signature over a file")
	}
	if d.IsZero() {
		return refusal.New(refusal.Digest, checked, "no digest to check against")
	}
	// The digest in the bundle is not signed. It only tells another file from another key; the signature below is
	// checked over d.
	if got := digest.SHA256(b.message.Digest.Digest); got != d {
		return refusal.New(refusal.Digest, checked, "%w: it is for %s, the file is %s", digest.ErrMismatch, got, d).
			Do("get the file again, or the bundle that was published with it")
	}
	return b.verify(keys, d, b.message.Signature)
}

// VerifyStatement checks that one of keys has signed the statement and returns its JSON text. Callers then check the
// predicate type and the subjects: DecodeStatement, or one of VerifyImage and VerifyAttestation that do all of it.
func (b *Bundle) VerifyStatement(keys []*ecdsa.PublicKey) (payload []byte, err error) {
	if b.statement == nil {
		return nil, malformed("it holds a signature over a file, not a statement")
	}
	// Parse has checked the payload type; the signature covers it as well.
	d := preAuthDigest(b.statement.PayloadType, b.statement.Payload)
	if err := b.verify(keys, d, b.statement.Signatures[0].Sig); err != nil {
		return nil, err
	}
	return b.statement.Payload, nil
}

// Hint returns the name that the bundle gives to its key, unverified: what sign.Hint returns, if pawl or cosign wrote it.
func (b *Bundle) Hint() string { return b.hint }

// IsStatement reports whether the bundle holds a statement, and not a signature over a file.
func (b *Bundle) IsStatement() bool { return b.statement != nil }

// verify tries the keys.
func (b *Bundle) verify(keys []*ecdsa.PublicKey, d digest.SHA256, sig []byte) error {
	if len(keys) == 0 {
		return refused("no key to check against").Do("give the public key that the signature must be made with")
	}
	if len(keys) > MaxKeys {
		return refused("%d keys to check against, at most %d are allowed", len(keys), MaxKeys)
	}
	named := false
	for _, key := range keys {
		if sign.Verify(key, d, sig) {
			return nil
		}
		if hint, err := sign.Hint(key); err == nil && hint == b.hint {
			named = true
		}
	}
	if named {
		return refused("the signature does not match, though it names a trusted key").
			Do("get it again: the file or the signature was changed")
	}
	return refused("not signed by any of the %d trusted keys (it names key %q)", len(keys), clip(b.hint)).
		Do("check that the public key is the right one; if it is, do not use what was signed")
}

// preAuthDigest returns the SHA-256 of the DSSE pre-authentication encoding (dsse protocol.md):
// "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body. It hashes as it goes: a body may be large.
func preAuthDigest(payloadType string, payload []byte) digest.SHA256 {
	h := sha256.New()
	head := "DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " "
	h.Write([]byte(head))
	h.Write(payload)
	return digest.SHA256(h.Sum(nil))
}

// checked is what refusals of this package say they looked at. Callers that know more wrap it.
const checked = "signature bundle"

func malformed(format string, args ...any) *refusal.Error {
	return refusal.New(refusal.Malformed, checked, format, args...)
}

func refused(format string, args ...any) *refusal.Error {
	return refusal.New(refusal.Signature, checked, format, args...)
}

func clip(s string) string {
	const most = 160
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
