// SPDX-License-Identifier: Apache-2.0

// Package ceremony creates and changes who may sign what: root keys and their threshold, the online key, and the keys of
// every product.
//
// Two folders belong to it. The trust folder is public and meant to be committed: every root since the first
// (1.root.json, 2.root.json, ...), the newest top-level targets (targets.json) and a copy of every public key that they
// name (*.pub). The keys folder holds encrypted private keys (*.key) with their public halves (*.pub) and tells git to
// ignore it; its root keys are meant to be moved to media that are not on the net.
//
// Nothing in the trust folder is believed because it lies there: Load checks that every root follows from 1.root.json
// and that targets.json is signed by the newest root. Names of *.pub files are labels for people and prove nothing.
//
// A change is a draft: one file, draft.json, with the documents that were in force and those that shall be, and the
// signatures so far. It travels to the holders of the root keys and back; every holder sees the whole content in plain
// words before signing. A root needs the threshold of the old keys and that of the new ones. Targets go into the same
// draft whenever the new root would not accept the old ones.
//
// Applying a complete draft is one step: the draft is renamed to applying.json, and whatever is killed after that is
// finished by the next command, while Load answers already with the new state. Before that rename nothing has happened.
//
// Not promised: protection from a holder who signs without reading, and secrecy of who holds which key.
package ceremony

import (
	"crypto/ecdsa"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pawl-project/pawl/internal/sign"
)

// How long documents are valid unless something else is asked for.
const (
	RootLife    = 2 * 365 * 24 * time.Hour
	TargetsLife = 365 * 24 * time.Hour
)

// WarnBefore is how long before its expiry a document begins to be mentioned.
const WarnBefore = 60 * 24 * time.Hour

// Layout is where the two folders are.
type Layout struct {
	Trust string
	Keys  string
}

// At returns the usual layout below dir.
func At(dir string) Layout {
	return Layout{Trust: filepath.Join(dir, "trust"), Keys: filepath.Join(dir, "keys")}
}

// Draft returns the path of the draft.
func (l Layout) Draft() string { return filepath.Join(l.Trust, draftFile) }

// RootKey returns the path of the private key of root holder number n, from 1.
func (l Layout) RootKey(n int) string { return l.key("root-" + strconv.Itoa(n)) }

// OnlineKey returns the path of the private key that signs snapshot and timestamp.
func (l Layout) OnlineKey() string { return l.key("online") }

// ReleaseKey returns the path of the private release key of a product.
func (l Layout) ReleaseKey(product string) string { return l.key("release-" + product) }

// EvidenceKey returns the path of the private evidence key of a product.
func (l Layout) EvidenceKey(product string) string { return l.key("evidence-" + product) }

func (l Layout) key(name string) string { return filepath.Join(l.Keys, name+keySuffix) }

// Names of files in the folders.
const (
	draftFile    = "draft.json"    // in trust: the change that is being signed
	applyingFile = "applying.json" // in trust: a complete draft whose files are being written
	targetsFile  = "targets.json"
	lockFile     = ".lock"
	newKeys      = ".new" // folder in keys: of an init that has not been committed yet
	keySuffix    = ".key"
	pubSuffix    = ".pub"
)

func rootFile(version int64) string { return strconv.FormatInt(version, 10) + ".root.json" }

// Options say where a ceremony takes place and with what.
type Options struct {
	Layout
	Now time.Time
	// Password returns the password of a private key; with confirm it is one for a new key.
	Password func(keyPath string, confirm bool) ([]byte, error)
	// Life replaces RootLife and TargetsLife for documents that are written now; zero keeps them.
	Life time.Duration

	// For tests, because stretching a password takes long; nil is the real thing.
	generate func(password []byte) (pair, error)
	open     func(private, password []byte) (sign.Signer, error)
}

func (o Options) rootExpires() time.Time    { return o.expires(RootLife) }
func (o Options) targetsExpires() time.Time { return o.expires(TargetsLife) }

func (o Options) expires(life time.Duration) time.Time {
	if o.Life != 0 {
		life = o.Life
	}
	return o.Now.UTC().Add(life).Truncate(time.Second)
}

// Short returns the first 12 digits of the fingerprint of key, as messages show it.
func Short(key *ecdsa.PublicKey) string {
	f, err := sign.Fingerprint(key)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	return f[:shortDigits]
}

const shortDigits = 12
