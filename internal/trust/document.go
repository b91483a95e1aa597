// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
)

// envelope is the outer shape of every document: signatures, and the bytes that they are about.
type envelope struct {
	Signatures []signature    `json:"signatures"`
	Signed     jsontext.Value `json:"signed"`
}

type signature struct {
	KeyID string  `json:"keyid"`
	Sig   hexText `json:"sig"`
}

// hexText is bytes as hexadecimal digits.
type hexText []byte

func (h hexText) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexText) UnmarshalText(text []byte) error {
	const most = 512 // an ECDSA P-256 signature has at most 144 digits
	if len(text) > most {
		return fmt.Errorf("a signature of %d digits, at most %d are allowed", len(text), most)
	}
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// open reads the outer shape. Unknown members and members in another spelling are refused there: nothing signs them.
// The inside of "signed" is syntactically valid JSON after this and no more: duplicate members are refused by whoever
// reads it.
func open(data []byte) (envelope, error) {
	var e envelope
	dec := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true)) // once is enough, see above
	if err := e.read(dec); err != nil {
		return envelope{}, fmt.Errorf("not a signed document: %w", err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return envelope{}, errors.New("not a signed document: something follows it")
	}
	if e.Signed.Kind() != '{' || e.Signatures == nil {
		return envelope{}, errors.New("not a signed document: without \"signed\" or without \"signatures\"")
	}
	for i, s := range e.Signatures {
		if slices.ContainsFunc(e.Signatures[:i], func(o signature) bool { return o.KeyID == s.KeyID }) {
			return envelope{}, fmt.Errorf("two signatures of key %s", clip(s.KeyID))
		}
	}
	return e, nil
}

func (e *envelope) read(dec *jsontext.Decoder) error {
	if token, err := dec.ReadToken(); err != nil || token.Kind() != '{' {
		return errors.Join(errors.New("it does not begin with an object"), err)
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		switch member := name.String(); {
		case member == "signed" && e.Signed == nil:
			raw, err := dec.ReadValue()
			if err != nil {
				return err
			}
			e.Signed = raw.Clone()
		case member == "signatures" && e.Signatures == nil:
			raw, err := dec.ReadValue()
			if err != nil {
				return err
			}
			// Counted before anything is allocated for them.
			if n := bytes.Count(raw, []byte("{")); n > MaxSignatures {
				return fmt.Errorf("%d signatures, at most %d are allowed", n, MaxSignatures)
			}
			if err := json.Unmarshal(raw, &e.Signatures, json.RejectUnknownMembers(true)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("member %q is unknown or stands twice", clip(member))
		}
	}
	_, err := dec.ReadToken()
	return err
}

func (e envelope) encode() ([]byte, error) {
	slices.SortFunc(e.Signatures, func(a, b signature) int { return strings.Compare(a.KeyID, b.KeyID) })
	if e.Signatures == nil {
		e.Signatures = []signature{}
	}
	return json.Marshal(e, json.Deterministic(true))
}

// payload returns the bytes that are signed: the canonical form (OLPC canonical JSON) of member "signed".
func (e envelope) payload() ([]byte, error) {
	return cjson.EncodeCanonical(stdjson.RawMessage(e.Signed))
}

// checkShape refuses what would make go-tuf crash or take quadratic time: nulls become nil pointers there. It also
// refuses duplicate members and text that is not UTF-8 (both by jsontext), deep nesting and fractions.
func checkShape(signed jsontext.Value) error {
	dec := jsontext.NewDecoder(bytes.NewReader(signed))
	for {
		token, err := dec.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch token.Kind() {
		case 'n':
			return fmt.Errorf("null at %s", clip(string(dec.StackPointer())))
		case '0':
			if strings.ContainsAny(token.String(), ".eE") {
				return fmt.Errorf("a number that is not an integer at %s", clip(string(dec.StackPointer())))
			}
		}
		if dec.StackDepth() > maxDepth {
			return fmt.Errorf("nested deeper than %d", maxDepth)
		}
	}
}

// head is what all documents have in common.
type head struct {
	Type    string    `json:"_type"`
	Spec    string    `json:"spec_version"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
	Issued  time.Time `json:"x-pawl-issued"`
}

func (h head) check(typ string) error {
	if h.Type != typ {
		return fmt.Errorf("type %q is not %q", clip(h.Type), typ)
	}
	return checkHead(h.Spec, h.Version, h.Expires)
}

// Head describes a document of any role. Nothing of it is verified.
type Head struct {
	// Type is the TUF type; the document of a product's role has TargetsRole.
	Type    string
	Version int64
	Expires time.Time
	// Issued is set on a timestamp.
	Issued time.Time
	// KeyIDs are the TUF key identifiers of the signatures, valid or not.
	KeyIDs []string
}

// Describe reads what all documents have in common, without verifying anything.
func Describe(doc []byte) (Head, error) {
	e, err := open(doc)
	if err != nil {
		return Head{}, err
	}
	var h head
	if err := json.Unmarshal(e.Signed, &h); err != nil {
		return Head{}, fmt.Errorf("not a signed document: %w", err)
	}
	if !slices.Contains([]string{RootRole, TargetsRole, SnapshotRole, TimestampRole}, h.Type) {
		return Head{}, fmt.Errorf("type %q is not a role of TUF", clip(h.Type))
	}
	out := Head{Type: h.Type, Version: h.Version, Expires: h.Expires, Issued: h.Issued}
	for _, s := range e.Signatures {
		out.KeyIDs = append(out.KeyIDs, s.KeyID)
	}
	return out, nil
}

// Sign adds the signature of s to a document, or replaces the one that the same key had given.
func Sign(ctx context.Context, doc []byte, s sign.Signer) ([]byte, error) {
	e, err := open(doc)
	if err != nil {
		return nil, err
	}
	payload, err := e.payload()
	if err != nil {
		return nil, err
	}
	id, err := KeyID(s.PublicKey())
	if err != nil {
		return nil, err
	}
	sig, err := sign.Message(ctx, s, payload)
	if err != nil {
		return nil, err
	}
	e.Signatures = slices.DeleteFunc(e.Signatures, func(o signature) bool { return o.KeyID == id })
	e.Signatures = append(e.Signatures, signature{KeyID: id, Sig: sig})
	return e.encode()
}

// Merge returns doc with the signatures that other, a copy of the same document, has and doc does not. Nothing is
// verified.
func Merge(doc, other []byte) ([]byte, error) {
	a, err := open(doc)
	if err != nil {
		return nil, err
	}
	b, err := open(other)
	if err != nil {
		return nil, err
	}
	pa, err := a.payload()
	if err != nil {
		return nil, err
	}
	pb, err := b.payload()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(pa, pb) {
		return nil, errors.New("the two documents say different things: signatures cannot be brought together")
	}
	for _, s := range b.Signatures {
		if !slices.ContainsFunc(a.Signatures, func(o signature) bool { return o.KeyID == s.KeyID }) {
			a.Signatures = append(a.Signatures, s)
		}
	}
	return a.encode()
}

// Unsigned returns doc without its signatures.
func Unsigned(doc []byte) ([]byte, error) {
	e, err := open(doc)
	if err != nil {
		return nil, err
	}
	e.Signatures = nil
	return e.encode()
}

// KeyID returns the TUF key identifier of key: the SHA-256 of its canonical TUF form (TUF specification, section 4.2).
// A test compares it with go-tuf's, which takes ten times as long.
func KeyID(key *ecdsa.PublicKey) (string, error) {
	if key == nil || key.Curve != elliptic.P256() {
		return "", sign.ErrUnsupportedKey
	}
	text, err := sign.EncodePublicKey(key)
	if err != nil {
		return "", err
	}
	// Canonical JSON keeps the line ends of the PEM text as they are; nothing in it needs an escape.
	form := `{"keytype":"` + metadata.KeyTypeECDSA_SHA2_P256 + `","keyval":{"public":"` + string(text) + `"},"scheme":"` + metadata.KeySchemeECDSA_SHA2_P256 + `"}`
	return digest.Of([]byte(form)).Hex(), nil
}

// Authority is a set of keys of which a number must sign.
type Authority struct {
	Keys      []*ecdsa.PublicKey
	Threshold int
}

// Signatures says which keys of an authority have signed a document.
type Signatures struct {
	Threshold int
	Signed    []*ecdsa.PublicKey // distinct keys with a valid signature, in the order of the authority
	Missing   []*ecdsa.PublicKey
	Invalid   []*ecdsa.PublicKey // of Missing: a signature stands there and is wrong
}

// Met reports whether enough distinct keys have signed.
func (s Signatures) Met() bool { return s.Threshold > 0 && len(s.Signed) >= s.Threshold }

// Check verifies the signatures of a document against an authority. A key that stands there twice counts once.
func (a Authority) Check(doc []byte) (Signatures, error) {
	e, err := open(doc)
	if err != nil {
		return Signatures{}, err
	}
	payload, err := e.payload()
	if err != nil {
		return Signatures{}, err
	}
	return a.check(e.Signatures, payload)
}

func (a Authority) check(sigs []signature, payload []byte) (Signatures, error) {
	sum := digest.SHA256(sha256.Sum256(payload))
	out := Signatures{Threshold: a.Threshold}
	for i, key := range a.Keys {
		if slices.ContainsFunc(a.Keys[:i], func(o *ecdsa.PublicKey) bool { return o.Equal(key) }) {
			continue
		}
		id, err := KeyID(key)
		if err != nil {
			return Signatures{}, err
		}
		at := slices.IndexFunc(sigs, func(s signature) bool { return s.KeyID == id })
		switch {
		case at >= 0 && sign.Verify(key, sum, sigs[at].Sig):
			out.Signed = append(out.Signed, key)
			continue
		case at >= 0:
			out.Invalid = append(out.Invalid, key)
		}
		out.Missing = append(out.Missing, key)
	}
	return out, nil
}

func malformed(role, format string, args ...any) *refusal.Error {
	return refusal.New(refusal.Malformed, about(role), format, args...)
}

// tooLarge refuses a document before anything reads it.
func tooLarge(role string, data []byte, most int) error {
	if len(data) > most {
		return malformed(role, "%d bytes, at most %d are allowed", len(data), most)
	}
	return nil
}
