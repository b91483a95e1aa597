// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"crypto/ecdsa"
	"fmt"
	"slices"

	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/trust"
)

// State is what root and top-level targets say together.
type State struct {
	Root    trust.Root
	Targets trust.Targets
}

// product returns the product with a name.
func (s State) product(name string) (trust.Product, bool) {
	for _, p := range s.Targets.Products {
		if p.Name == name {
			return p, true
		}
	}
	return trust.Product{}, false
}

// use is one place in which a key stands.
type use struct {
	key     *ecdsa.PublicKey
	role    string // root, online, release, former or evidence
	product string
	newest  bool // of release or evidence keys: the one that signs
}

// uses lists every key of a state in the order in which people read it.
func (s State) uses() []use {
	var out []use
	add := func(role, product string, keys ...*ecdsa.PublicKey) {
		for i, key := range keys {
			out = append(out, use{key, role, product, i == 0})
		}
	}
	add(roleRoot, "", s.Root.Keys...)
	if s.Root.Online != nil {
		add(roleOnline, "", s.Root.Online)
	}
	for _, p := range s.Targets.Products {
		add(roleRelease, p.Name, p.Release...)
		add(roleFormer, p.Name, p.Former...)
		add(roleEvidence, p.Name, p.Evidence...)
	}
	return out
}

// names reports whether a key has a use.
func (s State) names(key *ecdsa.PublicKey) bool {
	return slices.ContainsFunc(s.uses(), func(u use) bool { return u.key.Equal(key) })
}

const (
	roleRoot     = "root"
	roleOnline   = "online"
	roleRelease  = "release"
	roleFormer   = "former"
	roleEvidence = "evidence"
)

// String says what the key is for: "release key of greeter".
func (u use) String() string {
	text := u.role + " key"
	if u.role == roleFormer {
		text = "former release key"
	}
	if u.product != "" {
		text += " of " + u.product
	}
	return text
}

// check refuses a key with two uses. Products may share a release key or an evidence key, and nothing else is shared: a
// root key signs on no build machine, the online key signs nothing that a device installs, and a release key never
// signs evidence.
func (s State) check() error {
	first := map[string]use{}
	for _, u := range s.uses() {
		f, err := sign.Fingerprint(u.key)
		if err != nil {
			return err
		}
		other, ok := first[f]
		if !ok {
			first[f] = u
			continue
		}
		shared := []string{u.role, other.role}
		slices.Sort(shared)
		shared = slices.Compact(shared)
		if slices.Equal(shared, []string{roleFormer, roleRelease}) && u.product != other.product ||
			len(shared) == 1 && u.product != other.product {
			continue
		}
		return fmt.Errorf("key %s would be %s and %s: every key has one use", f[:shortDigits], other, u)
	}
	return nil
}
