// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/trust"
)

// MaxDraft bounds a draft: two roots, two targets and what stands around them.
const MaxDraft = 2*(trust.MaxRoot+trust.MaxTargets) + 64<<10

// maxNames bounds the labels of a draft.
const maxNames = 64

// Draft is a change on its way to its signatures: what was in force, and what shall be. A Draft is never changed;
// operations return a new one. Everything that ParseDraft returns has been checked but the number of signatures.
type Draft struct {
	base, next docs
	// names are labels by fingerprint: under which name a public key is filed when the draft is applied.
	names map[string]string

	before, after State
}

// docs are documents that belong together. In a draft's next either may be missing: it stays as it was.
type docs struct {
	Root    jsontext.Value `json:"root,omitzero"`
	Targets jsontext.Value `json:"targets,omitzero"`
}

// draftJSON is the file.
type draftJSON struct {
	Draft int               `json:"draft"` // version of this format: 1
	Base  docs              `json:"base,omitzero"`
	Next  docs              `json:"next"`
	Names map[string]string `json:"names,omitempty"`
}

const draftVersion = 1

// ParseDraft reads a draft and checks it: what was in force is signed as it must be, what shall be follows from it by one
// version, and every signature is right and of a key that counts. All errors are of class Malformed.
func ParseDraft(data []byte) (Draft, error) {
	d, err := parseDraft(data)
	if err != nil {
		return Draft{}, refusal.New(refusal.Malformed, "draft", "%w", err)
	}
	return d, nil
}

func parseDraft(data []byte) (Draft, error) {
	if len(data) > MaxDraft {
		return Draft{}, fmt.Errorf("%d bytes, at most %d are allowed", len(data), MaxDraft)
	}
	var in draftJSON
	if err := json.Unmarshal(data, &in, json.RejectUnknownMembers(true)); err != nil {
		return Draft{}, fmt.Errorf("not a draft of `pawl keys`: %w", err)
	}
	if in.Draft != draftVersion {
		return Draft{}, fmt.Errorf("format %d, this program reads format %d", in.Draft, draftVersion)
	}
	if err := checkNames(in.Names); err != nil {
		return Draft{}, err
	}
	return newDraft(in.Base, in.Next, in.Names)
}

var (
	fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)
	pubName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,59}\.pub$`)
)

func checkNames(names map[string]string) error {
	if len(names) > maxNames {
		return fmt.Errorf("%d names, at most %d are allowed", len(names), maxNames)
	}
	for f, name := range names {
		if !fingerprint.MatchString(f) || !pubName.MatchString(name) {
			return errors.New("a name that is not a fingerprint and the name of a .pub file")
		}
	}
	return nil
}

// newDraft checks that the documents belong together. A base without documents is that of the first root.
func newDraft(base, next docs, names map[string]string) (Draft, error) {
	d := Draft{base: base, next: next, names: names}
	if next.Root == nil && next.Targets == nil {
		return Draft{}, errors.New("it changes nothing")
	}
	if base.Root != nil || base.Targets != nil {
		var err error
		if d.before, err = base.read(); err != nil {
			return Draft{}, fmt.Errorf("what is in force: %w", err)
		}
		if err := checkSigned(base.Root, base.Targets, d.before.Root.Authority()); err != nil {
			return Draft{}, fmt.Errorf("what is in force: %w", err)
		}
	}
	var err error
	if d.after, err = d.effective().read(); err != nil {
		return Draft{}, fmt.Errorf("what shall be: %w", err)
	}
	if v, want := d.after.Root.Version, d.before.Root.Version+1; next.Root != nil && v != want {
		return Draft{}, fmt.Errorf("root version %d where version %d must come next", v, want)
	}
	if v, want := d.after.Targets.Version, d.before.Targets.Version+1; next.Targets != nil && v != want {
		return Draft{}, fmt.Errorf("targets version %d where version %d must come next", v, want)
	}
	if err := d.after.check(); err != nil {
		return Draft{}, err
	}
	if next.Targets == nil {
		if err := checkSigned(nil, base.Targets, d.after.Root.Authority()); err != nil {
			return Draft{}, fmt.Errorf("the new root does not accept the old targets, and there are no new ones: %w", err)
		}
	}
	return d, d.checkSignatures()
}

// read parses both documents.
func (d docs) read() (State, error) {
	if d.Root == nil || d.Targets == nil {
		return State{}, errors.New("a document is missing")
	}
	root, err := trust.ParseRoot(d.Root)
	if err != nil {
		return State{}, err
	}
	targets, err := trust.ParseTargets(d.Targets)
	return State{root, targets}, err
}

// checkSigned checks that each document that is given is signed by the authority.
func checkSigned(root, targets []byte, a trust.Authority) error {
	for name, doc := range map[string][]byte{trust.RootRole: root, trust.TargetsRole: targets} {
		if doc == nil {
			continue
		}
		sigs, err := a.Check(doc)
		if err != nil {
			return err
		}
		if !sigs.Met() {
			return refusal.New(refusal.Signature, name+" metadata", "signature threshold not met: %d of %d", len(sigs.Signed), sigs.Threshold)
		}
	}
	return nil
}

// effective returns the documents that are in force after the draft.
func (d Draft) effective() docs {
	out := d.base
	if d.next.Root != nil {
		out.Root = d.next.Root
	}
	if d.next.Targets != nil {
		out.Targets = d.next.Targets
	}
	return out
}

// Need is one threshold that a draft must meet.
type Need struct {
	Document string // "root" or "targets"
	Version  int64
	// By is the version of the root whose keys must sign.
	By int64
	trust.Signatures
}

// Needs returns every threshold of the draft, met or not, the old keys first.
func (d Draft) Needs() ([]Need, error) {
	var out []Need
	add := func(doc []byte, role string, version int64, by trust.Root) error {
		sigs, err := by.Authority().Check(doc)
		out = append(out, Need{role, version, by.Version, sigs})
		return err
	}
	if d.next.Root != nil {
		if d.base.Root != nil {
			if err := add(d.next.Root, trust.RootRole, d.after.Root.Version, d.before.Root); err != nil {
				return nil, err
			}
		}
		if err := add(d.next.Root, trust.RootRole, d.after.Root.Version, d.after.Root); err != nil {
			return nil, err
		}
	}
	if d.next.Targets != nil {
		if err := add(d.next.Targets, trust.TargetsRole, d.after.Targets.Version, d.after.Root); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkSignatures refuses a signature that is wrong or of a key that does not count: neither is ever published.
func (d Draft) checkSignatures() error {
	needs, err := d.Needs()
	if err != nil {
		return err
	}
	counts := map[string][]string{} // by document: the identifiers of keys whose signature is right
	for _, n := range needs {
		if len(n.Invalid) > 0 {
			return fmt.Errorf("the signature of key %s on %s version %d is wrong", Short(n.Invalid[0]), n.Document, n.Version)
		}
		for _, key := range n.Signed {
			id, err := trust.KeyID(key)
			if err != nil {
				return err
			}
			counts[n.Document] = append(counts[n.Document], id)
		}
	}
	for role, doc := range map[string]jsontext.Value{trust.RootRole: d.next.Root, trust.TargetsRole: d.next.Targets} {
		if doc == nil {
			continue
		}
		head, err := trust.Describe(doc)
		if err != nil {
			return err
		}
		for _, id := range head.KeyIDs {
			if !slices.Contains(counts[role], id) {
				return fmt.Errorf("a signature on %s of a key that does not count for it", role)
			}
		}
	}
	return nil
}

// Incomplete returns nil if every threshold is met, or a refusal of class Signature that names what is missing.
func (d Draft) Incomplete() error {
	needs, err := d.Needs()
	if err != nil {
		return err
	}
	var missing []string
	for _, n := range needs {
		if !n.Met() {
			missing = append(missing, fmt.Sprintf("%s version %d has %d of %d signatures by the keys of root version %d",
				n.Document, n.Version, len(n.Signed), n.Threshold, n.By))
		}
	}
	if missing == nil {
		return nil
	}
	wanted, err := d.Wanted()
	if err != nil {
		return err
	}
	return refusal.New(refusal.Signature, "draft", "signature threshold not met: %s", strings.Join(missing, "; ")).
		Do("keys that can still sign: %s; each holder runs `pawl keys sign DRAFT --key KEY --out FILE`, and all files go to one `pawl keys apply`", shorts(wanted))
}

// Wanted returns the keys that can still sign and whose signature a threshold still lacks.
func (d Draft) Wanted() ([]*ecdsa.PublicKey, error) {
	needs, err := d.Needs()
	if err != nil {
		return nil, err
	}
	var out []*ecdsa.PublicKey
	for _, n := range needs {
		for _, key := range n.Missing {
			if !n.Met() && !contains(out, key) {
				out = append(out, key)
			}
		}
	}
	return out, nil
}

// Sign adds the signature of s wherever it counts. A key that counts nowhere is refused with class Signature.
func (d Draft) Sign(ctx context.Context, s sign.Signer) (Draft, error) {
	key := s.PublicKey()
	next, signed := d.next, false
	if d.next.Root != nil && (contains(d.before.Root.Keys, key) || contains(d.after.Root.Keys, key)) {
		doc, err := trust.Sign(ctx, d.next.Root, s)
		if err != nil {
			return Draft{}, err
		}
		next.Root, signed = doc, true
	}
	if d.next.Targets != nil && contains(d.after.Root.Keys, key) {
		doc, err := trust.Sign(ctx, d.next.Targets, s)
		if err != nil {
			return Draft{}, err
		}
		next.Targets, signed = doc, true
	}
	if !signed {
		return Draft{}, refusal.New(refusal.Signature, "key "+Short(key), "it is none of the root keys that this draft asks for").
			Do("`pawl keys show` lists them")
	}
	return newDraft(d.base, next, d.names)
}

// Merge returns d with the signatures of other, which must be a copy of the same draft; another one is refused with
// class Malformed.
func (d Draft) Merge(other Draft) (Draft, error) {
	next, err := d.merge(other)
	if err != nil {
		return Draft{}, refusal.New(refusal.Malformed, "draft", "%w", err).
			Do("sign a copy of the draft as it is now; whoever changed it after it was sent must send it again")
	}
	return newDraft(d.base, next, d.names)
}

func (d Draft) merge(other Draft) (docs, error) {
	if !d.base.same(other.base) {
		return docs{}, errors.New("it begins at other documents")
	}
	next := d.next
	for _, pair := range []struct {
		mine, theirs jsontext.Value
		to           *jsontext.Value
	}{{d.next.Root, other.next.Root, &next.Root}, {d.next.Targets, other.next.Targets, &next.Targets}} {
		switch {
		case (pair.mine == nil) != (pair.theirs == nil):
			return docs{}, errors.New("it changes other documents")
		case pair.mine != nil:
			doc, err := trust.Merge(pair.mine, pair.theirs)
			if err != nil {
				return docs{}, err
			}
			*pair.to = doc
		}
	}
	return next, nil
}

// same reports whether two sets of documents say the same; signatures may differ.
func (d docs) same(other docs) bool {
	return sameOrNone(d.Root, other.Root) && sameOrNone(d.Targets, other.Targets)
}

// Encode returns the file.
func (d Draft) Encode() ([]byte, error) {
	return json.Marshal(draftJSON{draftVersion, d.base, d.next, d.names}, json.Deterministic(true))
}

// After returns what shall be in force.
func (d Draft) After() State { return d.after }

func contains(keys []*ecdsa.PublicKey, key *ecdsa.PublicKey) bool {
	return slices.ContainsFunc(keys, func(k *ecdsa.PublicKey) bool { return k.Equal(key) })
}
