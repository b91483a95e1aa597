// SPDX-License-Identifier: Apache-2.0

// Package keyfile keeps a private key in the encrypted file that cosign writes, so that either program can use the
// other's keys.
//
// The file is a PEM block "ENCRYPTED SIGSTORE PRIVATE KEY" (older cosign: "ENCRYPTED COSIGN PRIVATE KEY") around a JSON
// object: the parameters of scrypt, and the PKCS #8 key in a NaCl secretbox under the key that scrypt makes of the
// password. The public half is a plain PEM "PUBLIC KEY". Nothing here touches a disk: callers read and write the bytes,
// and a private key never leaves this package in the clear.
//
// The secretbox is authenticated, so a wrong password and damaged ciphertext look the same; both are reported as a wrong
// password.
package keyfile

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	json "github.com/go-json-experiment/json"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
)

// The PEM types of a private key file: what cosign writes now, and what it wrote before version 2.
const (
	pemType    = "ENCRYPTED SIGSTORE PRIVATE KEY"
	pemTypeOld = "ENCRYPTED COSIGN PRIVATE KEY"
)

// MaxBytes bounds a private key file. One that cosign writes has about 650 bytes.
const MaxBytes = 16 << 10

// Sizes of the NaCl secretbox format.
const (
	nonceSize   = 24
	boxOverhead = 16
)

// ErrFormat reports bytes that are not an encrypted private key file.
var ErrFormat = errors.New("not an encrypted cosign private key")

// Signer signs with the key of an opened file.
type Signer struct{ key *ecdsa.PrivateKey }

var _ sign.Signer = (*Signer)(nil)

// Generate makes a key pair: the private half encrypted under password, the public half in PEM. An empty password is
// refused: it would be a key in the clear.
func Generate(password []byte) (private, public []byte, err error) {
	if len(password) == 0 {
		return nil, nil, refusal.New(refusal.Key, "password of the new key", "%w: it is empty", sign.ErrPassword)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	box, err := encrypted.Encrypt(der, password)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot encrypt private key: %w", err)
	}
	public, err = sign.EncodePublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: box}), public, nil
}

// Open decrypts a private key file that Generate or cosign made. Every error is a refusal of class Key that wraps
// sign.ErrPassword, sign.ErrUnsupportedKey or ErrFormat.
func Open(private, password []byte) (*Signer, error) {
	box, err := decode(private)
	if err != nil {
		return nil, refusal.New(refusal.Key, "private key", "%w", err).
			Do("give the private key file that `pawl keys` or `cosign generate-key-pair` wrote")
	}
	der, err := encrypted.Decrypt(box, password)
	if err != nil {
		r := refusal.New(refusal.Key, "private key", "%w", sign.ErrPassword)
		if len(password) == 0 {
			return nil, r.Do("give the password of the key")
		}
		return nil, r.Do("check the password, and that the key file is undamaged")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, refusal.New(refusal.Key, "private key", "%w: its content is not PKCS #8", ErrFormat)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, refusal.New(refusal.Key, "private key", "%w", sign.ErrUnsupportedKey).
			Do("make a key with `pawl keys`, or with `cosign generate-key-pair` without another algorithm")
	}
	return &Signer{key}, nil
}

// PublicKey returns the key that checks the signatures.
func (s *Signer) PublicKey() *ecdsa.PublicKey { return &s.key.PublicKey }

// SignDigest returns an ASN.1 DER signature over d.
func (s *Signer) SignDigest(ctx context.Context, d digest.SHA256) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return ecdsa.SignASN1(rand.Reader, s.key, d[:])
}

// box is the JSON inside the PEM block.
type box struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

// decode returns the JSON of a private key file after checking everything that can be checked without the password. What
// the decryption still refuses is then the password, and a file cannot ask for more work than scrypt with N = 2^17.
func decode(private []byte) ([]byte, error) {
	if len(private) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrFormat, len(private), MaxBytes)
	}
	block, rest := pem.Decode(private)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: no PEM block", ErrFormat)
	case block.Type == "PUBLIC KEY":
		return nil, fmt.Errorf("%w: this is the public half", ErrFormat)
	case block.Type != pemType && block.Type != pemTypeOld:
		return nil, fmt.Errorf("%w: a PEM block of another type", ErrFormat)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%w: text after the PEM block", ErrFormat)
	}
	var b box
	if err := json.Unmarshal(block.Bytes, &b, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: its content is not the expected JSON", ErrFormat)
	}
	n := b.KDF.Params.N
	switch {
	case b.KDF.Name != "scrypt" || b.KDF.Params.R != 8 || b.KDF.Params.P != 1 || n != 1<<15 && n != 1<<16 && n != 1<<17:
		return nil, fmt.Errorf("%w: it asks for an unknown key derivation", ErrFormat)
	case b.Cipher.Name != "nacl/secretbox" || len(b.Cipher.Nonce) != nonceSize:
		return nil, fmt.Errorf("%w: it asks for an unknown cipher", ErrFormat)
	case len(b.Ciphertext) <= boxOverhead:
		return nil, fmt.Errorf("%w: it holds no ciphertext", ErrFormat)
	}
	return block.Bytes, nil
}
