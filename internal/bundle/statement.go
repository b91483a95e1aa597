// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"fmt"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
)

const (
	// StatementType is what is written; statementTypeOld is read as well, since `cosign attest` still writes it.
	StatementType    = "https://in-toto.io/Statement/v1"
	statementTypeOld = "https://in-toto.io/Statement/v0.1"
	// ImagePredicate is the predicate type of the claim "this image is signed", as `cosign sign` writes it. A statement
	// with another predicate type says something about an image and never that it is released.
	ImagePredicate = "https://sigstore.dev/cosign/sign/v1"
)

// MaxSubjects bounds the subjects of a statement.
const MaxSubjects = 1024

// Statement is the part of an in-toto statement that is the same for every predicate (in-toto attestation framework,
// "Statement"). Unknown members are ignored, as that specification demands.
type Statement struct {
	PredicateType string
	Subjects      []Subject
	// Predicate is JSON text, an object. It shares memory with the payload.
	Predicate []byte
}

// Subject is one thing that a statement speaks of. A digest that the statement does not give is zero.
type Subject struct {
	Name   string
	Digest digest.Set
}

// Covers reports whether the statement speaks of the bytes with SHA-256 d.
func (s Statement) Covers(d digest.SHA256) bool {
	for _, subject := range s.Subjects {
		if !d.IsZero() && subject.Digest.SHA256 == d {
			return true
		}
	}
	return false
}

// header is the JSON shape.
type header struct {
	Type          string          `json:"_type"`
	Subject       []headerSubject `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     jsontext.Value  `json:"predicate"`
}

type headerSubject struct {
	Name   string            `json:"name,omitzero"`
	Digest map[string]string `json:"digest"`
	// Annotations are written for an image, always empty, as cosign does. They are not read.
	Annotations *struct{} `json:"annotations,omitzero"`
}

// DecodeStatement reads the JSON text of a statement v1 or v0.1. The caller has verified its signature, or treats the
// result as unverified. Every error is a refusal of class Malformed.
func DecodeStatement(payload []byte) (Statement, error) {
	if len(payload) > MaxBytes {
		return Statement{}, badStatement("%d bytes, at most %d are allowed", len(payload), MaxBytes)
	}
	var h header
	if err := json.Unmarshal(payload, &h); err != nil {
		return Statement{}, badStatement("%s", clip(err.Error()))
	}
	switch {
	case h.Type != StatementType && h.Type != statementTypeOld:
		return Statement{}, badStatement("type %q is not %q", clip(h.Type), StatementType)
	case h.PredicateType == "":
		return Statement{}, badStatement("no predicate type")
	case h.Predicate.Kind() != '{':
		return Statement{}, badStatement("no predicate")
	case len(h.Subject) == 0 || len(h.Subject) > MaxSubjects:
		return Statement{}, badStatement("%d subjects, 1 to %d are allowed", len(h.Subject), MaxSubjects)
	}
	s := Statement{PredicateType: h.PredicateType, Predicate: h.Predicate, Subjects: make([]Subject, 0, len(h.Subject))}
	for i, from := range h.Subject {
		subject := Subject{Name: from.Name}
		var err error
		if text, ok := from.Digest["sha256"]; ok {
			if subject.Digest.SHA256, err = digest.ParseHex(text); err != nil {
				return Statement{}, badStatement("subject %d: %w", i, err)
			}
		}
		if text, ok := from.Digest["sha512"]; ok {
			if subject.Digest.SHA512, err = digest.ParseHex512(text); err != nil {
				return Statement{}, badStatement("subject %d: %w", i, err)
			}
		}
		s.Subjects = append(s.Subjects, subject)
	}
	return s, nil
}

// Attestation is a claim about one artifact.
type Attestation struct {
	Subject       Subject
	PredicateType string
	// Predicate is JSON text, an object. It is signed as it is.
	Predicate []byte
}

// Attest signs a and returns the bundle. The signer is the evidence key, never the release key: a signature by the
// release key means "released" and nothing else.
func Attest(ctx context.Context, s sign.Signer, a Attestation) ([]byte, error) {
	payload, err := a.encode()
	if err != nil {
		return nil, fmt.Errorf("cannot attest %s: %w", clip(a.Subject.Name), err)
	}
	return SignStatement(ctx, s, payload)
}

func (a Attestation) encode() ([]byte, error) {
	switch {
	case a.Subject.Digest.SHA256.IsZero():
		return nil, fmt.Errorf("the subject has no SHA-256")
	case a.PredicateType == "" || a.PredicateType == ImagePredicate:
		return nil, fmt.Errorf("predicate type %q is not one of an attestation", a.PredicateType)
	case jsontext.Value(a.Predicate).Kind() != '{' || !jsontext.Value(a.Predicate).IsValid():
		return nil, fmt.Errorf("the predicate is not a JSON object")
	}
	names := map[string]string{"sha256": a.Subject.Digest.SHA256.Hex()}
	if !a.Subject.Digest.SHA512.IsZero() {
		names["sha512"] = a.Subject.Digest.SHA512.Hex()
	}
	return encodeStatement(header{
		Type: StatementType, PredicateType: a.PredicateType, Predicate: a.Predicate,
		Subject: []headerSubject{{Name: a.Subject.Name, Digest: names}},
	})
}

// VerifyAttestation checks that one of keys has made an attestation of this predicate type about the bytes with SHA-256
// d, and returns its predicate. Another predicate type or another subject is a refusal, whoever signed it.
func (b *Bundle) VerifyAttestation(keys []*ecdsa.PublicKey, predicateType string, d digest.SHA256) (predicate []byte, err error) {
	payload, err := b.VerifyStatement(keys)
	if err != nil {
		return nil, err
	}
	s, err := DecodeStatement(payload)
	if err != nil {
		return nil, err
	}
	if s.PredicateType != predicateType {
		return nil, refused("it says %q of the artifact, not %q", clip(s.PredicateType), predicateType).
			Do("get the attestation with this predicate type")
	}
	if !s.Covers(d) {
		return nil, refusal.New(refusal.Digest, checked, "%w: none of its %d subjects is %s", digest.ErrMismatch, len(s.Subjects), d).
			Do("get the attestation that was published with the artifact")
	}
	return s.Predicate, nil
}

// VerifyImage checks that one of keys has signed the image or index with digest d for release. An attestation by the
// same key is not enough.
func (b *Bundle) VerifyImage(keys []*ecdsa.PublicKey, d digest.SHA256) error {
	_, err := b.VerifyAttestation(keys, ImagePredicate, d)
	return err
}

// ImageStatement returns the statement "the image or index with digest d is signed", byte for byte as cosign writes it.
func ImageStatement(d digest.SHA256) []byte {
	return fmt.Appendf(nil, `{"_type":%q,"subject":[{"digest":{"sha256":%q},"annotations":{}}],"predicateType":%q,"predicate":{}}`,
		StatementType, hex.EncodeToString(d[:]), ImagePredicate)
}

func encodeStatement(h header) ([]byte, error) {
	return json.Marshal(h, json.Deterministic(true), jsontext.PreserveRawStrings(true))
}

func badStatement(format string, args ...any) error {
	return refusal.New(refusal.Malformed, "in-toto statement", format, args...)
}
