// SPDX-License-Identifier: Apache-2.0

// Package digest names artifacts by the hashes of their bytes and computes those hashes at the speed of the machine.
//
// SHA-256 is the name of an artifact everywhere. SHA-512 stands beside it where a format asks for it (TUF targets, the
// binding of an SBOM to a deployable component) and is never the only thing that is compared.
package digest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrMalformed reports text that is not the digest that it should be.
var ErrMalformed = errors.New("malformed digest")

// SHA256 is a SHA-256 value. Its text form is "sha256:" and 64 lower-case hexadecimal digits, as in the OCI image
// specification, section "Digests". The zero value means "no digest" and is refused by every parser.
type SHA256 [sha256.Size]byte

// SHA512 is a SHA-512 value. Its text form is "sha512:" and 128 lower-case hexadecimal digits.
type SHA512 [sha512.Size]byte

// Set holds both digests of the same bytes.
type Set struct {
	SHA256 SHA256 `json:"sha256"`
	SHA512 SHA512 `json:"sha512,omitzero"`
}

// Of returns the SHA-256 of data.
func Of(data []byte) SHA256 { return sha256.Sum256(data) }

// SetOf returns both digests of data.
func SetOf(data []byte) Set { return Set{SHA256: sha256.Sum256(data), SHA512: sha512.Sum512(data)} }

// Parse reads the text form "sha256:<hex>".
func Parse(s string) (SHA256, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return SHA256{}, fmt.Errorf("%w: %q does not begin with \"sha256:\"", ErrMalformed, clip(s))
	}
	return ParseHex(h)
}

// ParseHex reads 64 lower-case hexadecimal digits.
func ParseHex(s string) (SHA256, error) {
	var d SHA256
	if err := decodeHex(d[:], s); err != nil {
		return SHA256{}, err
	}
	if d.IsZero() {
		return SHA256{}, fmt.Errorf("%w: all zero", ErrMalformed)
	}
	return d, nil
}

// ParseHex512 reads 128 lower-case hexadecimal digits.
func ParseHex512(s string) (SHA512, error) {
	var d SHA512
	if err := decodeHex(d[:], s); err != nil {
		return SHA512{}, err
	}
	if d.IsZero() {
		return SHA512{}, fmt.Errorf("%w: all zero", ErrMalformed)
	}
	return d, nil
}

// decodeHex is stricter than package hex: one spelling for one digest, so that names can be compared as text.
func decodeHex(dst []byte, s string) error {
	if len(s) != 2*len(dst) {
		return fmt.Errorf("%w: %d characters where %d are expected", ErrMalformed, len(s), 2*len(dst))
	}
	if strings.ToLower(s) != s {
		return fmt.Errorf("%w: upper-case hexadecimal digits", ErrMalformed)
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// IsZero reports whether d is "no digest".
func (d SHA256) IsZero() bool { return d == SHA256{} }

// Hex returns 64 lower-case hexadecimal digits.
func (d SHA256) Hex() string { return hex.EncodeToString(d[:]) }

// String returns the text form.
func (d SHA256) String() string { return "sha256:" + d.Hex() }

// Short returns the first twelve hexadecimal digits, for people; never compare it.
func (d SHA256) Short() string { return d.Hex()[:12] }

// MarshalText writes the text form.
func (d SHA256) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, fmt.Errorf("%w: no digest to write", ErrMalformed)
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads the text form.
func (d *SHA256) UnmarshalText(text []byte) error {
	v, err := Parse(string(text))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// IsZero reports whether d is "no digest".
func (d SHA512) IsZero() bool { return d == SHA512{} }

// Hex returns 128 lower-case hexadecimal digits.
func (d SHA512) Hex() string { return hex.EncodeToString(d[:]) }

// String returns the text form.
func (d SHA512) String() string { return "sha512:" + d.Hex() }

// MarshalText writes the text form.
func (d SHA512) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, fmt.Errorf("%w: no digest to write", ErrMalformed)
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads the text form.
func (d *SHA512) UnmarshalText(text []byte) error {
	h, ok := strings.CutPrefix(string(text), "sha512:")
	if !ok {
		return fmt.Errorf("%w: %q does not begin with \"sha512:\"", ErrMalformed, clip(string(text)))
	}
	v, err := ParseHex512(h)
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// clip keeps hostile text out of long error messages.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
