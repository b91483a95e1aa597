// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

// First is what the first root and targets are made of.
type First struct {
	RootKeys  int
	Threshold int
	Products  []string
}

func (f First) check() error {
	if f.RootKeys < 1 || f.RootKeys > trust.MaxKeys {
		return fmt.Errorf("%d root keys, from 1 to %d are possible", f.RootKeys, trust.MaxKeys)
	}
	if f.Threshold < 1 || f.Threshold > f.RootKeys {
		return fmt.Errorf("a threshold of %d with %d root keys", f.Threshold, f.RootKeys)
	}
	for i, name := range f.Products {
		if err := statement.CheckProduct(name); err != nil {
			return err
		}
		if slices.Contains(f.Products[:i], name) {
			return fmt.Errorf("product %s is named twice", name)
		}
	}
	return nil
}

// Init makes all keys of a new project and its first root and targets. Files that are there already are refused with
// class Conflict. It happens as a whole or not at all; killed in between, the same call again finishes it.
func Init(ctx context.Context, o Options, first First) (Folder, error) {
	if err := first.check(); err != nil {
		return Folder{}, err
	}
	names := []string{}
	for n := range first.RootKeys {
		names = append(names, filepath.Base(o.RootKey(n+1)))
	}
	names = append(names, filepath.Base(o.OnlineKey()))
	for _, p := range first.Products {
		names = append(names, filepath.Base(o.ReleaseKey(p)), filepath.Base(o.EvidenceKey(p)))
	}
	if pending, err := readPending(o.Trust); err != nil {
		return Folder{}, err
	} else if pending != nil && pending.base.Root == nil {
		return o.resume(ctx)
	}
	if err := o.refuseExisting(names); err != nil {
		return Folder{}, err
	}
	pairs, err := o.makePairs(ctx, names)
	if err != nil {
		return Folder{}, err
	}
	d, err := o.genesis(ctx, first, pairs)
	if err != nil {
		return Folder{}, err
	}
	if err := o.prepare(); err != nil {
		return Folder{}, err
	}
	lock, err := o.lock()
	if err != nil {
		return Folder{}, err
	}
	defer lock.Close()
	if err := o.refuseExisting(names); err != nil { // somebody else was faster
		return Folder{}, err
	}
	if err := o.stageKeys(ctx, pairs); err != nil {
		return Folder{}, err
	}
	if err := o.commit(ctx, d); err != nil {
		return Folder{}, err
	}
	return Load(o.Trust)
}

// resume finishes an Init that was killed after it had happened.
func (o Options) resume(ctx context.Context) (Folder, error) {
	lock, err := o.lock()
	if err != nil {
		return Folder{}, err
	}
	defer lock.Close()
	if err := o.finish(ctx); err != nil {
		return Folder{}, err
	}
	return Load(o.Trust)
}

// prepare makes the two folders and tells git what not to take.
func (o Options) prepare() error {
	if err := durable.Mkdir(o.Keys, keysMode); err != nil {
		return err
	}
	if err := durable.Mkdir(o.Trust, dirMode); err != nil {
		return err
	}
	for path, text := range map[string]string{
		filepath.Join(o.Keys, ".gitignore"):  "# Private keys are never committed, not even encrypted ones.\n*\n",
		filepath.Join(o.Trust, ".gitignore"): lockFile + "\n",
	} {
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := durable.WriteFile(path, []byte(text), publicMode); err != nil {
			return err
		}
	}
	return nil
}

func (o Options) refuseExisting(names []string) error {
	paths := []string{filepath.Join(o.Trust, rootFile(1)), filepath.Join(o.Trust, targetsFile), o.Draft(), filepath.Join(o.Trust, applyingFile)}
	for _, name := range names {
		paths = append(paths, filepath.Join(o.Keys, name), filepath.Join(o.Keys, pubOf(name)))
	}
	var found []string
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			found = append(found, path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if found == nil {
		return nil
	}
	return refusal.New(refusal.Conflict, "new root of trust", "%s exists already (%d files in all), and nothing is overwritten", found[0], len(found)).
		Do("a project has one root of trust: `pawl keys show` shows it, and `pawl keys product add` adds a product; for another project give another --dir")
}

// pair is a new key pair.
type pair struct {
	private, public []byte
	signer          sign.Signer
}

// generate makes a key pair that password opens.
func generate(password []byte) (pair, error) {
	private, public, err := keyfile.Generate(password)
	if err != nil {
		return pair{}, err
	}
	s, err := keyfile.Open(private, password)
	return pair{private, public, s}, err
}

// makePairs makes a key pair for every name. All passwords are asked for before the first key is made.
func (o Options) makePairs(ctx context.Context, names []string) (map[string]pair, error) {
	if o.generate == nil {
		o.generate = generate
	}
	passwords := make([][]byte, len(names))
	for i, name := range names {
		var err error
		if passwords[i], err = o.Password(filepath.Join(o.Keys, name), true); err != nil {
			return nil, err
		}
	}
	made := make([]pair, len(names))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range names {
		group.Go(func() (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			made[i], err = o.generate(passwords[i])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	out := map[string]pair{}
	for i, name := range names {
		out[name] = made[i]
	}
	return out, nil
}

// atOnce bounds how many passwords are stretched at a time: each takes 64 MiB of memory.
const atOnce = 4

// stageKeys writes the keys into a folder of their own beside their place. What an interrupted init left there was never
// named by a root.
func (o Options) stageKeys(ctx context.Context, pairs map[string]pair) error {
	dir := filepath.Join(o.Keys, newKeys)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := durable.Mkdir(dir, keysMode); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		if err := writePair(ctx, filepath.Join(dir, name), pairs[name].private, pairs[name].public); err != nil {
			return err
		}
	}
	return nil
}

// genesis is the draft of the first root, signed by all root keys.
func (o Options) genesis(ctx context.Context, first First, pairs map[string]pair) (Draft, error) {
	public := func(path string) *ecdsa.PublicKey { return pairs[filepath.Base(path)].signer.PublicKey() }
	root := trust.Root{Version: 1, Expires: o.rootExpires(), Threshold: first.Threshold, Online: public(o.OnlineKey())}
	names := map[string]string{}
	for n := range first.RootKeys {
		key := public(o.RootKey(n + 1))
		root.Keys = append(root.Keys, key)
		f, err := sign.Fingerprint(key)
		if err != nil {
			return Draft{}, err
		}
		names[f] = pubOf(filepath.Base(o.RootKey(n + 1)))
	}
	targets := trust.Targets{Version: 1, Expires: o.targetsExpires()}
	for _, name := range first.Products {
		targets.Products = append(targets.Products, trust.Product{
			Name: name, Threshold: 1,
			Release: []*ecdsa.PublicKey{public(o.ReleaseKey(name))}, Evidence: []*ecdsa.PublicKey{public(o.EvidenceKey(name))},
		})
	}
	var next docs
	var err error
	if next.Root, err = trust.NewRoot(root); err != nil {
		return Draft{}, err
	}
	if next.Targets, err = trust.NewTargets(targets); err != nil {
		return Draft{}, err
	}
	d, err := newDraft(docs{}, next, names)
	if err != nil {
		return Draft{}, err
	}
	for n := range first.RootKeys {
		if d, err = d.Sign(ctx, pairs[filepath.Base(o.RootKey(n+1))].signer); err != nil {
			return Draft{}, err
		}
	}
	return d, nil
}

// reserved reports whether a name is that of a key that signs releases, so that no root key can take it.
func reserved(name string) bool {
	return name == roleOnline+pubSuffix || strings.HasPrefix(name, roleRelease+"-") || strings.HasPrefix(name, roleEvidence+"-")
}

// pubOf returns the name of the public half of a key pair.
func pubOf(keyPath string) string { return strings.TrimSuffix(keyPath, keySuffix) + pubSuffix }

// writePair writes a key pair, the private half first: from that one the other can be made again.
func writePair(ctx context.Context, keyPath string, private, public []byte) error {
	name := filepath.Base(keyPath)
	err := fault.Around(ctx, "keys.new."+name, func() error { return durable.WriteFile(keyPath, private, privateMode) })
	if err != nil {
		return err
	}
	return fault.Around(ctx, "keys.new."+pubOf(name), func() error { return durable.WriteFile(pubOf(keyPath), public, publicMode) })
}
