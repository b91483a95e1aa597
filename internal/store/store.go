// SPDX-License-Identifier: Apache-2.0

// Package store is the seam to the small, changing facts of a server: who may publish, what devices said last, and what
// happened when. The repository itself is not here: it lives in a blob store, and no decision about trust is made from
// anything in this package.
//
// Of a device only what an update needs is kept: the last report per product and a short history, by the name that the
// device gives itself. Remote addresses stand only in audit events of refused callers and are forgotten by Forget.
//
// Adapters are children: store/sqlite is a file. The contract is tested by store/storetest.
package store

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// ErrNotExist reports something that the store does not know.
var ErrNotExist = errors.New("does not exist")

// ErrExists reports a name that is taken.
var ErrExists = errors.New("exists already")

// ErrFull reports a limit that is reached.
var ErrFull = errors.New("limit reached")

// Limits of what callers can make the store keep.
const (
	MaxTokens  = 1000
	MaxScope   = 64      // products of one token
	MaxDevices = 200_000 // of one product
	MaxHistory = 20      // reports of one device and product
	MaxRefused = 10_000  // audit events of refused callers
	MaxText    = 1024    // bytes of a text in a report or an event
	MaxPage    = 1000    // rows of one answer
)

// Store is everything together. Safe for concurrent use, also by several processes. What it confirms is durable.
type Store interface {
	Tokens
	Reports
	Audit
	Close() error
}

// Tokens knows who may publish.
type Tokens interface {
	// AddToken adds a token. A name that an unrevoked token has is ErrExists.
	AddToken(ctx context.Context, t Token) error
	// Token returns the token with this ID, also a revoked one, or ErrNotExist.
	Token(ctx context.Context, id string) (Token, error)
	// Tokens returns all tokens, the oldest first.
	Tokens(ctx context.Context) ([]Token, error)
	// UseToken notes when a token was used, RevokeToken that it ends. Revoking twice keeps the first time; a token that is
	// not there is ErrNotExist.
	UseToken(ctx context.Context, id string, at time.Time) error
	RevokeToken(ctx context.Context, id string, at time.Time) error
}

// Reports knows what devices said.
type Reports interface {
	// AddReport keeps a report as the latest of its device and product, and in the history. What counts is the order of
	// arrival, since the clock of a device may be years off. A report that is in the history already changes nothing.
	// ErrFull if the product has MaxDevices and the device is not one of them.
	AddReport(ctx context.Context, r Report) error
	// Latest returns the latest reports of a product, by device, at most MaxPage, beginning behind device after.
	Latest(ctx context.Context, product, after string) ([]Report, error)
	// History returns what a device said about a product, the newest first, at most MaxHistory.
	History(ctx context.Context, device, product string) ([]Report, error)
}

// Audit knows what happened.
type Audit interface {
	// AddEvent keeps an event. Of refused callers only the newest MaxRefused are kept.
	AddEvent(ctx context.Context, e Event) error
	// Events returns events, the newest first, at most MaxPage, beginning behind the event with this ID; 0 is the newest.
	Events(ctx context.Context, before int64) ([]Event, error)
	// Forget deletes events of refused callers from before a time.
	Forget(ctx context.Context, before time.Time) error
}

// Token is a permission to publish. The secret itself is known to its owner only.
type Token struct {
	ID       string        `json:"id"`
	Name     string        `json:"name"`
	Products []string      `json:"products,omitempty"` // in order; empty: every product, and the trust of the repository
	Hash     digest.SHA256 `json:"-"`
	Created  time.Time     `json:"created"`
	LastUsed time.Time     `json:"lastUsed,omitzero"`
	Revoked  time.Time     `json:"revoked,omitzero"`
}

const (
	tokenPrefix = "pawl_" // lets secret scanners find one that was committed by mistake
	idBytes     = 8
	secretBytes = 32
)

var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$`)

// NewToken makes a token and the secret that its owner presents: "pawl_<id>_<256 random bits>". The secret cannot be had
// again from anywhere.
func NewToken(name string, products []string, now time.Time) (Token, string, error) {
	if !tokenName.MatchString(name) {
		return Token{}, "", fmt.Errorf("token name %q: 1 to 64 letters, digits, spaces and . _ @ - are allowed", clip(name))
	}
	if len(products) > MaxScope {
		return Token{}, "", fmt.Errorf("token for %d products, at most %d are possible: make one for every product", len(products), MaxScope)
	}
	for _, product := range products {
		if err := statement.CheckProduct(product); err != nil {
			return Token{}, "", err
		}
	}
	products = slices.Compact(slices.Sorted(slices.Values(products)))
	var random [idBytes + secretBytes]byte
	rand.Read(random[:]) // never fails (package crypto/rand)
	id := hex.EncodeToString(random[:idBytes])
	secret := tokenPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(random[idBytes:])
	return Token{ID: id, Name: name, Products: products, Hash: digest.Of([]byte(secret)), Created: now}, secret, nil
}

// TokenID returns the ID in a secret, which is checked by nobody yet.
func TokenID(secret string) (string, bool) {
	rest, ok := strings.CutPrefix(secret, tokenPrefix)
	id, key, ok2 := strings.Cut(rest, "_")
	if !ok || !ok2 || len(id) != 2*idBytes || len(key) != base64.RawURLEncoding.EncodedLen(secretBytes) {
		return "", false
	}
	return id, true
}

// Admits reports whether secret is the token's and the token is not revoked. It takes the same time for every secret.
func (t Token) Admits(secret string) bool {
	got := digest.Of([]byte(secret))
	return subtle.ConstantTimeCompare(got[:], t.Hash[:]) == 1 && t.Revoked.IsZero()
}

// For reports whether the token may publish the product.
func (t Token) For(product string) bool { return t.ForAll() || slices.Contains(t.Products, product) }

// ForAll reports whether the token may publish every product, and change the trust of the repository.
func (t Token) ForAll() bool { return len(t.Products) == 0 }

// State is a moment of an update on a device.
type State string

// The states. A rollout counts confirmed only.
const (
	Offered   State = "offered"
	Written   State = "written"
	Booted    State = "booted"
	Confirmed State = "confirmed"
	FellBack  State = "fell-back"
)

// Report is what a device says about a product, and all that it says.
type Report struct {
	Device          string          `json:"device"`
	Product         string          `json:"product"`
	Version         version.Version `json:"version"`
	Digest          digest.SHA256   `json:"digest"`
	SecurityVersion uint32          `json:"securityVersion"`
	State           State           `json:"state"`
	At              time.Time       `json:"at"` // by the clock of the device
	Refusal         *Refusal        `json:"refusal,omitzero"`
	// Received is the time of the server. It is not part of what the device sends.
	Received time.Time `json:"received,omitzero"`
}

// Refusal says why a device did not take a release.
type Refusal struct {
	Class refusal.Class `json:"class"`
	Text  string        `json:"text"`
}

var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

// Check reports the first thing in r that no report may contain.
func (r Report) Check() error {
	if !deviceName.MatchString(r.Device) {
		return fmt.Errorf("device %q: 1 to 128 letters, digits and . _ : - are allowed", clip(r.Device))
	}
	if err := statement.CheckProduct(r.Product); err != nil {
		return err
	}
	switch {
	case r.Version.IsZero():
		return errors.New("no version")
	case r.Digest.IsZero():
		return errors.New("no digest")
	case !slices.Contains([]State{Offered, Written, Booted, Confirmed, FellBack}, r.State):
		return fmt.Errorf("state %q is not known", clip(string(r.State)))
	case r.At.IsZero():
		return errors.New("no time")
	case r.Refusal != nil && (len(r.Refusal.Class) > 32 || len(r.Refusal.Text) > MaxText):
		return fmt.Errorf("a refusal of %d bytes, at most %d are allowed", len(r.Refusal.Class)+len(r.Refusal.Text), MaxText)
	case r.Refusal != nil && strings.ContainsFunc(string(r.Refusal.Class)+r.Refusal.Text, isControl):
		return errors.New("a control character in the refusal")
	}
	return nil
}

// isControl finds what a terminal or a page must not be given.
func isControl(c rune) bool { return c != '\n' && c < ' ' || c >= 0x7f && c < 0xa0 }

// The actions of audit events.
const (
	ActionPublish = "publish"
	ActionTrust   = "trust"
	ActionRefresh = "refresh"
	ActionToken   = "token"
	ActionAuth    = "auth" // a caller without a valid token
)

// Event is something that an operator or an auditor may ask about later.
type Event struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Action  string    `json:"action"`
	Actor   string    `json:"actor,omitempty"` // ID of the token; empty: this server itself, or nobody known
	Product string    `json:"product,omitempty"`
	Remote  string    `json:"remote,omitempty"` // address of a refused caller
	Outcome string    `json:"outcome"`          // "done", or the class or words of the refusal
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
