// SPDX-License-Identifier: Apache-2.0

// Package sign is the seam to private keys: something that signs a digest and says which public key checks it.
//
// One algorithm is used everywhere: ECDSA on P-256 over SHA-256 with an ASN.1 DER signature (FIPS 186-5; the default of
// cosign, key type "ecdsa" and scheme "ecdsa-sha2-nistp256" in TUF). A second one is added when a key store asks for it.
// Adapters are children: sign/keyfile reads and writes the encrypted file that cosign writes.
package sign

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/pawl-project/pawl/internal/digest"
)

// ErrPassword reports a missing or wrong password.
var ErrPassword = errors.New("wrong or missing password")

// ErrUnsupportedKey reports a key that is not ECDSA P-256.
var ErrUnsupportedKey = errors.New("not an ECDSA P-256 key")

// Signer signs with one private key. It may be called from several goroutines. Signing is not idempotent: every call
// may give another valid signature.
type Signer interface {
	// PublicKey returns the key that checks the signatures.
	PublicKey() *ecdsa.PublicKey
	// SignDigest returns an ASN.1 DER signature over a SHA-256 digest.
	SignDigest(ctx context.Context, d digest.SHA256) ([]byte, error)
}

// Message signs the SHA-256 of message.
func Message(ctx context.Context, s Signer, message []byte) ([]byte, error) {
	return s.SignDigest(ctx, sha256.Sum256(message))
}

// Verify reports whether sig is a signature over d by key.
func Verify(key *ecdsa.PublicKey, d digest.SHA256, sig []byte) bool {
	return ecdsa.VerifyASN1(key, d[:], sig)
}

// ParsePublicKey reads a PEM "PUBLIC KEY" (SubjectPublicKeyInfo, RFC 5280 section 4.1), as cosign.pub.
func ParsePublicKey(text []byte) (*ecdsa.PublicKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("no PEM block \"PUBLIC KEY\"")
	}
	if len(rest) > 0 && len(rest) != countSpace(rest) {
		return nil, fmt.Errorf("text after the public key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve.Params().BitSize != 256 {
		return nil, ErrUnsupportedKey
	}
	return key, nil
}

// EncodePublicKey writes key as PEM "PUBLIC KEY".
func EncodePublicKey(key *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// Hint returns the base64 SHA-256 of the key's SubjectPublicKeyInfo: what a Sigstore bundle carries to name its key.
func Hint(key *ecdsa.PublicKey) (string, error) {
	sum, err := fingerprint(key)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

// Fingerprint returns the same SHA-256 as 64 hexadecimal digits, for people.
func Fingerprint(key *ecdsa.PublicKey) (string, error) {
	sum, err := fingerprint(key)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(sum[:]), nil
}

func fingerprint(key *ecdsa.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(der), nil
}

func countSpace(b []byte) int {
	n := 0
	for _, c := range b {
		if c == ' ' || c == '\n' || c == '\r' || c == '\t' {
			n++
		}
	}
	return n
}
