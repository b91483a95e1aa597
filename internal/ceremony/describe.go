// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"crypto/ecdsa"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/trust"
)

// Changes says in plain words what the draft changes, one sentence each.
func (d Draft) Changes() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	before, after := d.before.Root, d.after.Root
	if d.base.Root == nil {
		say("first root of trust: %d of %d root keys must sign", after.Threshold, len(after.Keys))
	}
	for _, key := range without(after.Keys, before.Keys) {
		say("root key %s is added", Short(key))
	}
	for _, key := range without(before.Keys, after.Keys) {
		say("root key %s is removed", Short(key))
	}
	if d.base.Root != nil && (after.Threshold != before.Threshold || len(after.Keys) != len(before.Keys)) {
		say("%d of %d root keys must sign, instead of %d of %d", after.Threshold, len(after.Keys), before.Threshold, len(before.Keys))
	}
	switch {
	case before.Online == nil:
		say("the online key is %s", Short(after.Online))
	case !before.Online.Equal(after.Online):
		say("the online key is %s, instead of %s", Short(after.Online), Short(before.Online))
	}
	if d.next.Root != nil {
		say("root version %d is valid until %s%s", after.Version, day(after.Expires), insteadOf(before.Expires, after.Expires))
	}
	for _, p := range d.after.Targets.Products {
		old, ok := d.before.product(p.Name)
		out = append(out, describeProduct(old, p, !ok)...)
	}
	for _, p := range d.before.Targets.Products {
		if _, ok := d.after.product(p.Name); !ok {
			say("product %s is removed: devices take nothing of it any more", p.Name)
		}
	}
	if d.next.Targets != nil {
		say("targets version %d is valid until %s%s", d.after.Targets.Version, day(d.after.Targets.Expires), insteadOf(d.before.Targets.Expires, d.after.Targets.Expires))
	}
	return out
}

func describeProduct(old, p trust.Product, isNew bool) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if isNew {
		say("product %s is added", p.Name)
	}
	for _, key := range without(p.Release, old.Release) {
		say("product %s: release key %s is added", p.Name, Short(key))
	}
	for _, key := range without(p.Evidence, old.Evidence) {
		say("product %s: evidence key %s is added", p.Name, Short(key))
	}
	for _, key := range without(old.Release, p.Release) {
		if contains(p.Former, key) {
			say("product %s: release key %s is retired, what it has signed still counts", p.Name, Short(key))
		} else {
			say("product %s: release key %s is distrusted, what it has signed no longer counts", p.Name, Short(key))
		}
	}
	for _, key := range without(old.Former, p.StatementKeys()) {
		say("product %s: former release key %s is distrusted, what it has signed no longer counts", p.Name, Short(key))
	}
	for _, key := range without(p.Former, slices.Concat(old.Former, old.Release)) {
		say("product %s: what key %s has signed counts from now on", p.Name, Short(key))
	}
	for _, key := range without(old.Evidence, p.Evidence) {
		say("product %s: evidence key %s is distrusted, what it has signed no longer counts", p.Name, Short(key))
	}
	if !isNew && old.Threshold != p.Threshold {
		say("product %s: %d release keys must sign, instead of %d", p.Name, p.Threshold, old.Threshold)
	}
	if old.Recovery != p.Recovery {
		say("product %s: devices lower their floor to security version %d once (recovery %d)", p.Name, p.Recovery.Floor, p.Recovery.Epoch)
	}
	return out
}

// without returns the keys of a that are not in b.
func without(a, b []*ecdsa.PublicKey) []*ecdsa.PublicKey {
	return slices.DeleteFunc(slices.Clone(a), func(k *ecdsa.PublicKey) bool { return contains(b, k) })
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func insteadOf(before, after time.Time) string {
	if before.IsZero() || day(before) == day(after) {
		return ""
	}
	return ", instead of " + day(before)
}

// shorts lists keys as messages show them.
func shorts(keys []*ecdsa.PublicKey) string {
	var out []string
	for _, key := range keys {
		out = append(out, Short(key))
	}
	return strings.Join(out, ", ")
}
