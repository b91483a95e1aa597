// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

// Change is one thing that somebody asks for. Changes add up in one draft.
type Change func(*edit) error

// edit is a state that is being changed. Its slices are shared with the old one: changes replace them.
type edit struct {
	State
	renew bool // new dates for both documents
	names map[string]string
}

// AddRootKey adds a root key; file is the name under which its public half is filed.
func AddRootKey(key *ecdsa.PublicKey, file string) Change {
	return func(e *edit) error {
		if contains(e.Root.Keys, key) {
			return fmt.Errorf("key %s is a root key already", Short(key))
		}
		e.Root.Keys = append(slices.Clone(e.Root.Keys), key)
		return e.name(key, file)
	}
}

// RemoveRootKey removes the root key with a fingerprint, of which the first digits are enough.
func RemoveRootKey(ref string) Change {
	return func(e *edit) error {
		at, err := e.findRoot(ref)
		if err != nil {
			return err
		}
		e.Root.Keys = slices.Delete(slices.Clone(e.Root.Keys), at, at+1)
		if n := len(e.Root.Keys); n < e.Root.Threshold {
			return fmt.Errorf("%d root keys would be left where %d must sign: lower the threshold or add a key first", n, e.Root.Threshold)
		}
		return nil
	}
}

// RotateRootKey puts a new root key in the place of the one with a fingerprint.
func RotateRootKey(ref string, key *ecdsa.PublicKey, file string) Change {
	return func(e *edit) error {
		at, err := e.findRoot(ref)
		if err != nil {
			return err
		}
		if contains(e.Root.Keys, key) {
			return fmt.Errorf("key %s is a root key already", Short(key))
		}
		e.Root.Keys = slices.Clone(e.Root.Keys)
		e.Root.Keys[at] = key
		return e.name(key, file)
	}
}

// SetThreshold changes how many root keys must sign.
func SetThreshold(n int) Change {
	return func(e *edit) error {
		if n < 1 || n > len(e.Root.Keys) {
			return fmt.Errorf("a threshold of %d with %d root keys", n, len(e.Root.Keys))
		}
		if n == e.Root.Threshold {
			return fmt.Errorf("the threshold is %d already", n)
		}
		e.Root.Threshold = n
		return nil
	}
}

// Renew gives root and targets new dates of expiry.
func Renew() Change {
	return func(e *edit) error {
		e.renew = true
		return nil
	}
}

// RotateOnline replaces the key that signs snapshot and timestamp.
func RotateOnline(key *ecdsa.PublicKey) Change {
	return func(e *edit) error {
		if e.Root.Online.Equal(key) {
			return fmt.Errorf("key %s is the online key already", Short(key))
		}
		e.Root.Online = key
		return nil
	}
}

// AddProduct delegates a new product to a release key and an evidence key.
func AddProduct(name string, release, evidence *ecdsa.PublicKey) Change {
	return func(e *edit) error {
		if err := statement.CheckProduct(name); err != nil {
			return err
		}
		if slices.ContainsFunc(e.Targets.Products, func(p trust.Product) bool { return p.Name == name }) {
			return fmt.Errorf("there is a product %s already", name)
		}
		e.Targets.Products = append(slices.Clone(e.Targets.Products), trust.Product{
			Name: name, Threshold: 1, Release: []*ecdsa.PublicKey{release}, Evidence: []*ecdsa.PublicKey{evidence},
		})
		return nil
	}
}

// RemoveProduct ends the delegation of a product.
func RemoveProduct(name string) Change {
	return func(e *edit) error {
		at, err := e.findProduct(name)
		if err != nil {
			return err
		}
		e.Targets.Products = slices.Delete(slices.Clone(e.Targets.Products), at, at+1)
		return nil
	}
}

// RotateProduct gives a product new keys; nil keeps that kind. What the old keys have signed still counts, unless
// distrustOld says that only the newest key of the kind counts from now on: of the kinds that get a new key, or of both
// if none does.
func RotateProduct(name string, release, evidence *ecdsa.PublicKey, distrustOld bool) Change {
	return func(e *edit) error {
		if release == nil && evidence == nil && !distrustOld {
			return errors.New("neither a new key nor old ones to distrust")
		}
		both := release == nil && evidence == nil
		return e.product(name, func(p *trust.Product) error {
			if release != nil {
				if contains(p.Release, release) {
					return fmt.Errorf("key %s is the release key of %s already", Short(release), name)
				}
				p.Former = slices.Concat(p.Release, p.Former)
				p.Release, p.Threshold = []*ecdsa.PublicKey{release}, 1
			}
			if evidence != nil {
				if contains(p.Evidence, evidence) {
					return fmt.Errorf("key %s is an evidence key of %s already", Short(evidence), name)
				}
				p.Evidence = slices.Concat([]*ecdsa.PublicKey{evidence}, p.Evidence)
			}
			if distrustOld && (both || release != nil) {
				p.Release, p.Former, p.Threshold = p.Release[:1:1], nil, 1
			}
			if distrustOld && (both || evidence != nil) && len(p.Evidence) > 0 {
				p.Evidence = p.Evidence[:1:1]
			}
			return nil
		})
	}
}

// LowerFloor tells every device once to take a lower floor of a product.
func LowerFloor(name string, floor uint32) Change {
	return func(e *edit) error {
		return e.product(name, func(p *trust.Product) error {
			p.Recovery = trust.Recovery{Epoch: p.Recovery.Epoch + 1, Floor: floor}
			return nil
		})
	}
}

func (e *edit) findProduct(name string) (int, error) {
	at := slices.IndexFunc(e.Targets.Products, func(p trust.Product) bool { return p.Name == name })
	if at < 0 {
		var names []string
		for _, p := range e.Targets.Products {
			names = append(names, p.Name)
		}
		return 0, fmt.Errorf("there is no product %q; products: %s", name, strings.Join(names, ", "))
	}
	return at, nil
}

func (e *edit) product(name string, change func(*trust.Product) error) error {
	at, err := e.findProduct(name)
	if err != nil {
		return err
	}
	e.Targets.Products = slices.Clone(e.Targets.Products)
	return change(&e.Targets.Products[at])
}

// minRef is how many digits of a fingerprint name a key.
const minRef = 8

func (e *edit) findRoot(ref string) (int, error) {
	at := -1
	for i, key := range e.Root.Keys {
		f, err := sign.Fingerprint(key)
		if err != nil {
			return 0, err
		}
		if len(ref) < minRef || !strings.HasPrefix(f, ref) {
			continue
		}
		if at >= 0 {
			return 0, fmt.Errorf("two root keys begin with %s", ref)
		}
		at = i
	}
	if at < 0 {
		var have []string
		for _, key := range e.Root.Keys {
			have = append(have, Short(key))
		}
		return 0, fmt.Errorf("no root key %q; root keys: %s", ref, strings.Join(have, ", "))
	}
	return at, nil
}

// name remembers the file name of a public key. One that could not be filed is left out.
func (e *edit) name(key *ecdsa.PublicKey, file string) error {
	f, err := sign.Fingerprint(key)
	if err != nil {
		return err
	}
	if base := filepath.Base(file); pubName.MatchString(base) && !reserved(base) && len(e.names) < maxNames {
		e.names = maps.Clone(e.names)
		if e.names == nil {
			e.names = map[string]string{}
		}
		e.names[f] = base
	}
	return nil
}

// amend returns d with a further change. A document whose content changes loses its signatures.
func (d Draft) amend(c Change, o Options) (Draft, error) {
	e := edit{State: d.after, names: d.names}
	if err := c(&e); err != nil {
		return Draft{}, err
	}
	if err := e.check(); err != nil {
		return Draft{}, err
	}
	next, old := d.next, d.effective()
	root, err := trust.NewRoot(e.Root)
	if err != nil {
		return Draft{}, err
	}
	targets, err := trust.NewTargets(e.Targets)
	if err != nil {
		return Draft{}, err
	}
	newRoot, newTargets := e.renew || !sameContent(old.Root, root), e.renew || !sameContent(old.Targets, targets)
	if newRoot {
		e.Root.Version, e.Root.Expires = d.before.Root.Version+1, o.rootExpires()
		if next.Root, err = trust.NewRoot(e.Root); err != nil {
			return Draft{}, err
		}
		// New holders have to see the targets too, and the old ones may not count any more.
		newTargets = newTargets || d.next.Targets != nil || checkSigned(nil, d.base.Targets, e.Root.Authority()) != nil
	}
	if newTargets {
		e.Targets.Version, e.Targets.Expires = d.before.Targets.Version+1, o.targetsExpires()
		if next.Targets, err = trust.NewTargets(e.Targets); err != nil {
			return Draft{}, err
		}
	}
	return newDraft(d.base, next, e.names)
}

// sameContent reports whether two documents say the same: signatures may differ.
func sameContent(a, b jsontext.Value) bool {
	_, err := trust.Merge(a, b)
	return err == nil
}
