// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/ecdsa"
	"fmt"
	"slices"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
)

// simpleType is the type of the older payload (cosign SIGNATURE_SPEC.md, "Payload").
const simpleType = "cosign container image signature"

// MaxSimpleSigning bounds an older payload, in bytes. One that cosign writes has about 250.
const MaxSimpleSigning = 64 << 10

// simpleSigning is the JSON shape. Members are in the order in which cosign writes them.
type simpleSigning struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional jsontext.Value `json:"optional"`
}

// SimpleSigning returns the payload of the older signature form of an image: what is signed is the SHA-256 of these
// bytes. Repository is "host/name"; readers do not compare it.
func SimpleSigning(repository string, d digest.SHA256) ([]byte, error) {
	var p simpleSigning
	p.Critical.Identity.Reference = repository
	p.Critical.Image.Digest = d.String()
	p.Critical.Type = simpleType
	p.Optional = jsontext.Value("null")
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("cannot encode signature payload for %q: %w", clip(repository), err)
	}
	return data, nil
}

// VerifySimpleSigning checks that one of keys has signed an older payload, and that it speaks of the image or index with
// digest d. It refuses with class Digest if it speaks of another, and with class Signature if no key has signed.
func VerifySimpleSigning(keys []*ecdsa.PublicKey, payload, sig []byte, d digest.SHA256) error {
	const checked = "image signature"
	if len(payload) > MaxSimpleSigning || len(sig) == 0 || len(sig) > MaxSignature {
		return refusal.New(refusal.Malformed, checked, "a payload of %d and a signature of %d bytes, at most %d and %d are allowed",
			len(payload), len(sig), MaxSimpleSigning, MaxSignature)
	}
	sum := digest.Of(payload)
	if len(keys) > MaxKeys || !slices.ContainsFunc(keys, func(key *ecdsa.PublicKey) bool { return sign.Verify(key, sum, sig) }) {
		return refusal.New(refusal.Signature, checked, "not signed by any of the %d trusted keys", len(keys))
	}
	signed, err := ParseSimpleSigning(payload)
	if err != nil {
		return err
	}
	if signed != d || d.IsZero() {
		return refusal.New(refusal.Digest, checked, "%w: it is for %s, the image is %s", digest.ErrMismatch, signed, d)
	}
	return nil
}

// ParseSimpleSigning returns the digest of the image that an older payload speaks of. The caller has verified the
// signature over the payload, or treats the result as unverified. Every error is a refusal of class Malformed.
func ParseSimpleSigning(payload []byte) (digest.SHA256, error) {
	bad := func(format string, args ...any) (digest.SHA256, error) {
		return digest.SHA256{}, refusal.New(refusal.Malformed, "image signature payload", format, args...)
	}
	if len(payload) > MaxSimpleSigning {
		return bad("%d bytes, at most %d are allowed", len(payload), MaxSimpleSigning)
	}
	var p simpleSigning
	if err := json.Unmarshal(payload, &p); err != nil {
		return bad("%s", clip(err.Error()))
	}
	if p.Critical.Type != simpleType {
		return bad("type %q is not %q", clip(p.Critical.Type), simpleType)
	}
	d, err := digest.Parse(p.Critical.Image.Digest)
	if err != nil {
		return bad("%w", err)
	}
	return d, nil
}
