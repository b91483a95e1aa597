// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/trust"
)

// Signed is a private key that was tried on a draft.
type Signed struct {
	Key  *ecdsa.PublicKey
	Path string
	Err  error // why it has not signed
}

// Outcome is what became of a draft.
type Outcome struct {
	Draft Draft
	// Applied reports that the change is in force; else it waits in the draft file.
	Applied bool
	Tried   []Signed
	// Foreign reports that no key was tried of itself, because the draft held changes that no key here had signed.
	Foreign bool
}

// Signing says which private keys sign a draft when it is made.
type Signing struct {
	// Keys are paths of private keys that must be opened and sign.
	Keys []string
	// None leaves the keys of the keys folder alone. Otherwise those that a threshold still lacks are opened.
	None bool
}

// Amend puts a change into the draft, beginning one if there is none, signs it with the keys at hand and applies it if
// every threshold is met. Keys of the folder that cannot be opened are reported in the outcome and refuse nothing.
func Amend(ctx context.Context, o Options, c Change, s Signing) (Outcome, error) {
	var out Outcome
	err := o.locked(ctx, func(f Folder, d *Draft) error {
		if d == nil {
			d = &Draft{base: f.docs(), before: f.State, after: f.State}
		} else if err := d.current(f); err != nil {
			return err
		}
		next, err := d.amend(c, o)
		if err != nil {
			return err
		}
		mine, err := o.privateKeys()
		if err != nil {
			return err
		}
		out.Foreign, err = foreign(*d, mine)
		if err != nil {
			return err
		}
		if out.Draft, err = o.signWith(ctx, next, s.Keys, &out); err != nil {
			return err
		}
		if !s.None && !out.Foreign {
			if out.Draft, err = o.signAtHand(ctx, out.Draft, mine, &out); err != nil {
				return err
			}
		}
		if out.Draft.Incomplete() == nil {
			out.Applied = true
			return o.commit(ctx, out.Draft)
		}
		return o.writeDraft(ctx, out.Draft)
	})
	return out, err
}

// foreign reports whether a draft that exists was signed by none of the keys here. Adding to it must not sign what
// somebody else has put there.
func foreign(d Draft, mine map[string]*ecdsa.PublicKey) (bool, error) {
	if d.next.Root == nil && d.next.Targets == nil {
		return false, nil
	}
	needs, err := d.Needs()
	if err != nil {
		return false, err
	}
	for _, n := range needs {
		for _, key := range mine {
			if contains(n.Signed, key) {
				return false, nil
			}
		}
	}
	return true, nil
}

// signWith signs with keys that were named.
func (o Options) signWith(ctx context.Context, d Draft, paths []string, out *Outcome) (Draft, error) {
	for _, path := range paths {
		s, err := o.OpenKey(path)
		if err != nil {
			return Draft{}, err
		}
		if d, err = d.Sign(ctx, s); err != nil {
			return Draft{}, err
		}
		out.Tried = append(out.Tried, Signed{Key: s.PublicKey(), Path: path})
	}
	return d, nil
}

// signAtHand signs with keys of the folder until nothing is missing.
func (o Options) signAtHand(ctx context.Context, d Draft, mine map[string]*ecdsa.PublicKey, out *Outcome) (Draft, error) {
	for _, path := range slices.Sorted(maps.Keys(mine)) {
		wanted, err := d.Wanted()
		if err != nil {
			return Draft{}, err
		}
		if !contains(wanted, mine[path]) {
			continue
		}
		s, err := o.OpenKey(path)
		if err == nil && !s.PublicKey().Equal(mine[path]) {
			err = refusal.New(refusal.Key, "private key "+path, "it is not the other half of %s", pubOf(path))
		}
		if ctx.Err() != nil {
			return Draft{}, ctx.Err()
		}
		out.Tried = append(out.Tried, Signed{Key: mine[path], Path: path, Err: err})
		if err != nil {
			continue
		}
		if d, err = d.Sign(ctx, s); err != nil {
			return Draft{}, err
		}
	}
	return d, nil
}

// privateKeys returns the public halves of the private keys in the keys folder, by the path of the private half.
func (l Layout) privateKeys() (map[string]*ecdsa.PublicKey, error) {
	pubs, err := publicKeys(l.Keys)
	if err != nil {
		return nil, err
	}
	out := map[string]*ecdsa.PublicKey{}
	for name, key := range pubs {
		path := filepath.Join(l.Keys, name[:len(name)-len(pubSuffix)]+keySuffix)
		if _, err := os.Stat(path); err == nil {
			out[path] = key
		}
	}
	return out, nil
}

// OpenKey opens a private key file that `pawl keys` or cosign made.
func (o Options) OpenKey(path string) (sign.Signer, error) {
	private, err := readFile(path, keyfile.MaxBytes)
	if err != nil {
		return nil, err
	}
	password, err := o.Password(path, false)
	if err != nil {
		return nil, err
	}
	if o.open == nil {
		o.open = open
	}
	s, err := o.open(private, password)
	var r *refusal.Error
	if errors.As(err, &r) {
		named := *r
		named.Checked = "private key " + path
		return nil, &named
	}
	return s, err
}

func open(private, password []byte) (sign.Signer, error) { return keyfile.Open(private, password) }

// Apply brings drafts back together and applies the result. The draft of the folder takes part if there is one; without
// it the first one given begins. Below a threshold it is refused with class Signature, and nothing changes. A draft that
// is in force already is success.
func Apply(ctx context.Context, o Options, drafts []Draft) (Outcome, error) {
	var out Outcome
	err := o.locked(ctx, func(f Folder, own *Draft) error {
		all := slices.Clone(drafts)
		if own != nil {
			all = slices.Insert(all, 0, *own)
		}
		if len(all) == 0 {
			return errors.New("there is no draft: nothing waits to be applied")
		}
		d := all[0]
		var err error
		for _, other := range all[1:] {
			if d, err = d.Merge(other); err != nil {
				return err
			}
		}
		out.Draft = d
		if d.inForce(f) {
			out.Applied = true
			return nil
		}
		if err := d.current(f); err != nil {
			return err
		}
		for name, doc := range map[string]struct{ expires, now bool }{
			trust.RootRole:    {d.next.Root != nil, o.Now.After(d.after.Root.Expires)},
			trust.TargetsRole: {d.next.Targets != nil, o.Now.After(d.after.Targets.Expires)},
		} {
			if doc.expires && doc.now {
				return refusal.New(refusal.Expired, "draft", "its %s would be expired already", name).
					Do("`pawl keys discard` it, begin again, and check the clock here")
			}
		}
		if err := d.Incomplete(); err != nil {
			return err
		}
		out.Applied = true
		return o.commit(ctx, d)
	})
	return out, err
}

// current refuses a draft that begins at other documents than the folder's newest.
func (d Draft) current(f Folder) error {
	if d.base.same(f.docs()) {
		return nil
	}
	return refusal.New(refusal.Conflict, "draft", "it begins at root version %d and targets version %d, the trust folder is at %d and %d, or at others of that version",
		d.before.Root.Version, d.before.Targets.Version, f.State.Root.Version, f.State.Targets.Version).
		Do("another change was applied meanwhile: `pawl keys discard` the draft and begin again")
}

// inForce reports whether everything in the draft is what the folder holds.
func (d Draft) inForce(f Folder) bool {
	docs := f.docs()
	return (d.next.Root == nil || sameContent(d.next.Root, docs.Root)) && (d.next.Targets == nil || sameContent(d.next.Targets, docs.Targets))
}

// Check compares a draft with a trust folder, for a holder who has a copy of it.
func (d Draft) Check(f Folder) error { return d.current(f) }

// Discard gives up the draft. There being none is success.
func Discard(ctx context.Context, o Options) error {
	lock, err := o.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	return o.remove(ctx, draftFile)
}

// locked runs work with the folder's content and its draft, if there is one, after finishing what was interrupted.
func (o Options) locked(ctx context.Context, work func(Folder, *Draft) error) error {
	lock, err := o.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := o.finish(ctx); err != nil {
		return err
	}
	f, err := Load(o.Trust)
	if err != nil {
		return err
	}
	d, err := o.readDraft()
	if err != nil {
		return err
	}
	return work(f, d)
}

// lock takes the trust folder for this process until the file is closed. Nothing is written into it: a folder of which
// nothing has changed is the same to git and to people.
func (o Options) lock() (io.Closer, error) {
	if _, err := os.Stat(o.Trust); err != nil {
		_, err := Load(o.Trust) // says what to do about a folder that is not there
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(o.Trust, lockFile), os.O_RDWR|os.O_CREATE, publicMode)
	if err != nil {
		return nil, err
	}
	if err := durable.LockOpen(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (l Layout) readDraft() (*Draft, error) {
	d, err := ReadDraft(l.Draft())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// ReadDraft reads a draft file.
func ReadDraft(path string) (Draft, error) {
	data, err := readFile(path, MaxDraft)
	if err != nil {
		return Draft{}, err
	}
	d, err := parseDraft(data)
	if err != nil {
		return Draft{}, refusal.New(refusal.Malformed, "draft "+path, "%w", err).Do("take the file again from the person who sent it")
	}
	return d, nil
}

func (l Layout) writeDraft(ctx context.Context, d Draft) error {
	data, err := d.Encode()
	if err != nil {
		return err
	}
	return l.write(ctx, draftFile, data)
}

// NewKey makes a key pair in the file at path and the .pub beside it. Files that exist are refused with class Conflict;
// a private key whose .pub is missing gets it, so that an interrupted call can be repeated.
func NewKey(ctx context.Context, o Options, path string) (*ecdsa.PublicKey, error) {
	if filepath.Ext(path) != keySuffix {
		return nil, fmt.Errorf("%s: the name of a private key ends in %s", path, keySuffix)
	}
	_, keyErr := os.Lstat(path)
	_, pubErr := os.Lstat(pubOf(path))
	switch {
	case pubErr == nil:
		return nil, conflict(pubOf(path))
	case keyErr == nil:
		s, err := o.OpenKey(path)
		if err != nil {
			return nil, err
		}
		text, err := sign.EncodePublicKey(s.PublicKey())
		if err != nil {
			return nil, err
		}
		return s.PublicKey(), durable.WriteFile(pubOf(path), text, publicMode)
	case !errors.Is(keyErr, fs.ErrNotExist) || !errors.Is(pubErr, fs.ErrNotExist):
		return nil, errors.Join(keyErr, pubErr)
	}
	password, err := o.Password(path, true)
	if err != nil {
		return nil, err
	}
	if o.generate == nil {
		o.generate = generate
	}
	p, err := o.generate(password)
	if err != nil {
		return nil, err
	}
	return p.signer.PublicKey(), writePair(ctx, path, p.private, p.public)
}

func conflict(path string) error {
	return refusal.New(refusal.Conflict, "new key", "%s exists, and nothing is overwritten", path).Do("choose another name")
}
