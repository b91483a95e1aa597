// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
)

// Modes of what is written. A private key is encrypted, and still nobody else's business.
const (
	dirMode     = 0o755
	publicMode  = 0o644
	keysMode    = 0o700
	privateMode = 0o600
)

// commit makes a complete draft the state of the folder: after the first write it has happened.
func (l Layout) commit(ctx context.Context, d Draft) error {
	if err := d.Incomplete(); err != nil {
		return err
	}
	data, err := d.Encode()
	if err != nil {
		return err
	}
	if err := l.write(ctx, applyingFile, data); err != nil {
		return err
	}
	return l.finish(ctx)
}

// finish brings an interrupted commit to its end. Every step can be repeated. The folder must be locked.
func (l Layout) finish(ctx context.Context) error {
	d, err := readPending(l.Trust)
	if err != nil {
		return err
	}
	if d == nil {
		return nil
	}
	f, err := readFolder(l.Trust)
	if err != nil {
		return err
	}
	if err := f.overlay(*d); err != nil {
		return err
	}
	if err := f.check(); err != nil { // a file that somebody has put there is no change of trust
		return err
	}
	if d.base.Root == nil {
		if err := l.adoptKeys(ctx); err != nil {
			return err
		}
	}
	if d.next.Root != nil {
		if err := l.write(ctx, rootFile(d.after.Root.Version), d.next.Root); err != nil {
			return err
		}
	}
	if d.next.Targets != nil {
		if err := l.write(ctx, targetsFile, d.next.Targets); err != nil {
			return err
		}
	}
	if err := l.filePublicKeys(ctx, *d); err != nil {
		return err
	}
	if err := l.remove(ctx, draftFile); err != nil {
		return err
	}
	return l.remove(ctx, applyingFile)
}

// filePublicKeys writes a copy of every public key of the new state and removes those that have left it. Files of other
// keys are left alone.
func (l Layout) filePublicKeys(ctx context.Context, d Draft) error {
	have, err := publicKeys(l.Trust)
	if err != nil {
		return err
	}
	want := map[string]*ecdsa.PublicKey{}
	for _, u := range d.after.uses() {
		f, err := sign.Fingerprint(u.key)
		if err != nil {
			return err
		}
		want[d.pubFile(u, f, have, want)] = u.key
	}
	for _, u := range d.before.uses() {
		for name, key := range have {
			if key.Equal(u.key) && want[name] == nil {
				if err := l.remove(ctx, name); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if old, ok := have[name]; ok && old.Equal(want[name]) {
			continue
		}
		text, err := sign.EncodePublicKey(want[name])
		if err != nil {
			return err
		}
		if err := l.write(ctx, name, text); err != nil {
			return err
		}
	}
	return nil
}

// pubFile chooses the name under which a key is filed. Keys that sign releases have names that a verifier can rely on;
// a root key keeps the name that its holder gave it, as long as that name is free.
func (d Draft) pubFile(u use, f string, have, taken map[string]*ecdsa.PublicKey) string {
	switch {
	case u.role == roleOnline:
		return roleOnline + pubSuffix
	case u.role != roleRoot && u.role != roleFormer && u.newest:
		return u.role + "-" + u.product + pubSuffix
	case u.role == roleFormer:
		return roleRelease + "-" + u.product + "-" + f[:shortDigits] + pubSuffix
	case u.role != roleRoot:
		return u.role + "-" + u.product + "-" + f[:shortDigits] + pubSuffix
	}
	free := func(name string) bool {
		there := have[name]
		leaves := there != nil && d.before.names(there) && !d.after.names(there)
		return taken[name] == nil && !reserved(name) && (there == nil || there.Equal(u.key) || leaves)
	}
	if name, ok := d.names[f]; ok && free(name) {
		return name
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if have[name].Equal(u.key) && free(name) {
			return name
		}
	}
	return roleRoot + "-" + f[:shortDigits] + pubSuffix
}

// publicKeys reads the public keys of a folder by file name. A file that is not a key is passed over: the folder may
// hold other things.
func publicKeys(dir string) (map[string]*ecdsa.PublicKey, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := map[string]*ecdsa.PublicKey{}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != pubSuffix {
			continue
		}
		if key, err := ReadPublicKey(filepath.Join(dir, e.Name())); err == nil {
			out[e.Name()] = key
		}
	}
	return out, nil
}

// ReadPublicKey reads a public key file.
func ReadPublicKey(path string) (*ecdsa.PublicKey, error) {
	text, err := readFile(path, maxKeyText)
	if err != nil {
		return nil, err
	}
	key, err := sign.ParsePublicKey(text)
	if err != nil {
		return nil, refusal.New(refusal.Malformed, "public key "+path, "%w", err).
			Do("give the .pub file that `pawl keys new` or `cosign generate-key-pair` wrote")
	}
	return key, nil
}

// adoptKeys gives the keys of an init their place.
func (l Layout) adoptKeys(ctx context.Context) error {
	from := filepath.Join(l.Keys, newKeys)
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := fault.Around(ctx, "keys.adopt."+e.Name(), func() error {
			return durable.Rename(filepath.Join(from, e.Name()), filepath.Join(l.Keys, e.Name()))
		})
		if err != nil {
			return err
		}
	}
	return fault.Around(ctx, "keys.adopted", func() error { return os.Remove(from) })
}

// write replaces a file of the trust folder.
func (l Layout) write(ctx context.Context, name string, data []byte) error {
	return fault.Around(ctx, "keys.write."+name, func() error {
		return durable.WriteFile(filepath.Join(l.Trust, name), data, publicMode)
	})
}

// remove deletes a file of the trust folder; one that is not there is success.
func (l Layout) remove(ctx context.Context, name string) error {
	return fault.Around(ctx, "keys.remove."+name, func() error {
		err := os.Remove(filepath.Join(l.Trust, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return durable.SyncDir(l.Trust)
	})
}
