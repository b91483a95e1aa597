// SPDX-License-Identifier: Apache-2.0

// Package signtest is the contract that every signer keeps, and a signer for tests that need one and nothing else.
package signtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"sync"
	"testing"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/sign"
)

// New returns a signer with a new key in memory.
func New(t testing.TB) sign.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return memory{key}
}

type memory struct{ key *ecdsa.PrivateKey }

func (m memory) PublicKey() *ecdsa.PublicKey { return &m.key.PublicKey }

func (m memory) SignDigest(ctx context.Context, d digest.SHA256) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return ecdsa.SignASN1(rand.Reader, m.key, d[:])
}

// Run checks the contract of sign.Signer. Every call of open returns a signer with the same key.
func Run(t *testing.T, open func(t *testing.T) sign.Signer) {
	t.Run("signs what its public key verifies", func(t *testing.T) {
		s := open(t)
		d := digest.Of([]byte("a message"))
		sig, err := s.SignDigest(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if !sign.Verify(s.PublicKey(), d, sig) {
			t.Fatal("the signature does not verify")
		}
		if sign.Verify(s.PublicKey(), digest.Of([]byte("another message")), sig) {
			t.Fatal("the signature verifies for another message")
		}
		sig[len(sig)-1] ^= 1
		if sign.Verify(s.PublicKey(), d, sig) {
			t.Fatal("a changed signature verifies")
		}
	})
	t.Run("keeps its key", func(t *testing.T) {
		if !open(t).PublicKey().Equal(open(t).PublicKey()) {
			t.Fatal("two openings of one signer have two keys")
		}
	})
	t.Run("has a P-256 key", func(t *testing.T) {
		if curve := open(t).PublicKey().Curve; curve != elliptic.P256() {
			t.Fatalf("the key is on %s", curve.Params().Name)
		}
	})
	t.Run("is safe for concurrent use", func(t *testing.T) {
		s := open(t)
		var running sync.WaitGroup
		for i := range 8 {
			running.Go(func() {
				d := digest.Of([]byte{byte(i)})
				sig, err := s.SignDigest(t.Context(), d)
				if err != nil || !sign.Verify(s.PublicKey(), d, sig) {
					t.Errorf("goroutine %d: no valid signature: %v", i, err)
				}
			})
		}
		running.Wait()
	})
	t.Run("stops when cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := open(t).SignDigest(ctx, digest.Of([]byte("late"))); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
	})
}
