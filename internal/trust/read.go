// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// document is a parsed root, snapshot or timestamp; go-tuf holds its content.
type document[T metadata.Roles] struct {
	envelope
	tuf *metadata.Metadata[T]
}

// parse reads a document for go-tuf: size and shape first, then go-tuf's own parser. Nothing is verified.
func parse[T metadata.Roles](data []byte) (document[T], error) {
	e, err := open(data)
	if err != nil {
		return document[T]{}, err
	}
	if err := checkShape(e.Signed); err != nil {
		return document[T]{}, err
	}
	m, err := new(metadata.Metadata[T]).FromBytes(data)
	if err != nil {
		return document[T]{}, err
	}
	var spec string
	var number int64
	var expires time.Time
	switch s := any(&m.Signed).(type) {
	case *metadata.RootType:
		spec, number, expires = s.SpecVersion, s.Version, s.Expires
	case *metadata.SnapshotType:
		spec, number, expires = s.SpecVersion, s.Version, s.Expires
	case *metadata.TimestampType:
		spec, number, expires = s.SpecVersion, s.Version, s.Expires
	}
	if err := checkHead(spec, number, expires); err != nil {
		return document[T]{}, err
	}
	return document[T]{e, m}, nil
}

func checkHead(spec string, number int64, expires time.Time) error {
	switch {
	case !strings.HasPrefix(spec, "1."):
		return fmt.Errorf("made for version %q of the TUF specification, this reader knows 1.x", clip(spec))
	case number < 1 || number > MaxVersion:
		return fmt.Errorf("version %d is not between 1 and %d", number, int64(MaxVersion))
	case expires.IsZero():
		return errors.New("no time of expiry")
	}
	return nil
}

// tufKey is a public key as TUF writes it.
type tufKey struct {
	Type   string `json:"keytype"`
	Scheme string `json:"scheme"`
	Value  struct {
		Public string `json:"public"`
	} `json:"keyval"`
}

// read returns the key. Only ECDSA P-256 is taken, and only under its own key identifier: one key has one name.
func (k tufKey) read(id string) (*ecdsa.PublicKey, error) {
	if k.Scheme != metadata.KeySchemeECDSA_SHA2_P256 || k.Type != metadata.KeyTypeECDSA_SHA2_P256 {
		return nil, fmt.Errorf("key %s: %q with scheme %q: %w", clip(id), clip(k.Type), clip(k.Scheme), sign.ErrUnsupportedKey)
	}
	key, err := sign.ParsePublicKey([]byte(k.Value.Public))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", clip(id), err)
	}
	own, err := KeyID(key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", clip(id), err)
	}
	if own != id {
		return nil, fmt.Errorf("key %s stands under the name %s", own, clip(id))
	}
	return key, nil
}

// readAuthority reads the keys of a role and checks that its threshold can be met by distinct keys.
func readAuthority(ids []string, threshold int, keys map[string]tufKey) (Authority, error) {
	if len(ids) > MaxKeys {
		return Authority{}, fmt.Errorf("%d keys, at most %d are allowed", len(ids), MaxKeys)
	}
	a := Authority{Threshold: threshold}
	for _, id := range ids {
		k, ok := keys[id]
		if !ok {
			return Authority{}, fmt.Errorf("key %s is named and not given", clip(id))
		}
		key, err := k.read(id)
		if err != nil {
			return Authority{}, err
		}
		a.Keys = append(a.Keys, key)
	}
	return a, checkKeys(a.Keys, threshold)
}

// checkKeys refuses an authority that is not what it seems: no threshold, one that cannot be met, one key twice.
func checkKeys(keys []*ecdsa.PublicKey, threshold int) error {
	if len(keys) > MaxKeys {
		return fmt.Errorf("%d keys, at most %d are allowed", len(keys), MaxKeys)
	}
	for i, key := range keys {
		if key == nil || key.Curve != elliptic.P256() {
			return sign.ErrUnsupportedKey
		}
		if slices.ContainsFunc(keys[:i], func(o *ecdsa.PublicKey) bool { return o.Equal(key) }) {
			id, err := KeyID(key)
			if err != nil {
				return err
			}
			return fmt.Errorf("key %s stands twice: one key counts once", id)
		}
	}
	if threshold < 1 || threshold > len(keys) {
		return fmt.Errorf("a threshold of %d with %d keys", threshold, len(keys))
	}
	return nil
}

// rootAuthorities reads the four roles of a root document.
func rootAuthorities(m *metadata.Metadata[metadata.RootType]) (map[string]Authority, error) {
	if !m.Signed.ConsistentSnapshot {
		return nil, errors.New("without consistent snapshots")
	}
	keys := make(map[string]tufKey, len(m.Signed.Keys))
	for id, k := range m.Signed.Keys {
		out := tufKey{Type: k.Type, Scheme: k.Scheme}
		out.Value.Public = k.Value.PublicKey
		keys[id] = out
	}
	out := map[string]Authority{}
	for _, name := range metadata.TOP_LEVEL_ROLE_NAMES {
		role, ok := m.Signed.Roles[name]
		if !ok {
			return nil, fmt.Errorf("no role %s", name)
		}
		a, err := readAuthority(role.KeyIDs, role.Threshold, keys)
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", name, err)
		}
		out[name] = a
	}
	if len(m.Signed.Roles) != len(out) {
		return nil, fmt.Errorf("%d roles, %d are known", len(m.Signed.Roles), len(out))
	}
	return out, nil
}

// ParseRoot reads a root document. Nothing is verified. A root that is arranged in another way than Root describes is an
// error here, although a Set takes it.
func ParseRoot(doc []byte) (Root, error) {
	if err := tooLarge(RootRole, doc, MaxRoot); err != nil {
		return Root{}, err
	}
	d, err := parse[metadata.RootType](doc)
	if err != nil {
		return Root{}, malformed(RootRole, "%w", err)
	}
	roles, err := rootAuthorities(d.tuf)
	if err != nil {
		return Root{}, malformed(RootRole, "%w", err)
	}
	root, online := roles[RootRole], roles[TimestampRole]
	switch {
	case !sameAuthority(root, roles[TargetsRole]):
		return Root{}, malformed(RootRole, "targets has other keys or another threshold than root")
	case !sameAuthority(online, roles[SnapshotRole]) || len(online.Keys) != 1:
		return Root{}, malformed(RootRole, "snapshot and timestamp do not have one and the same key")
	}
	return Root{
		Version: d.tuf.Signed.Version, Expires: d.tuf.Signed.Expires,
		Keys: root.Keys, Threshold: root.Threshold, Online: online.Keys[0],
	}, nil
}

func sameAuthority(a, b Authority) bool {
	return a.Threshold == b.Threshold && len(a.Keys) == len(b.Keys) &&
		!slices.ContainsFunc(a.Keys, func(k *ecdsa.PublicKey) bool {
			return !slices.ContainsFunc(b.Keys, func(o *ecdsa.PublicKey) bool { return o.Equal(k) })
		})
}

// Authority returns the keys that sign root and top-level targets.
func (r Root) Authority() Authority { return Authority{Keys: r.Keys, Threshold: r.Threshold} }

// Authority returns the keys that sign the role of the product.
func (p Product) Authority() Authority { return Authority{Keys: p.Release, Threshold: p.Threshold} }

// StatementKeys returns the keys whose statements and artifact signatures hold: of the role, and those that were retired
// in good standing.
func (p Product) StatementKeys() []*ecdsa.PublicKey { return slices.Concat(p.Release, p.Former) }

// ParseTargets reads a top-level targets document. Nothing is verified.
func ParseTargets(doc []byte) (Targets, error) {
	_, t, _, err := readTargets(doc)
	return t, err
}

// targetsSigned is the signed part of the top-level targets.
type targetsSigned struct {
	head
	Targets     map[string]contentTarget `json:"targets"`
	Delegations struct {
		Keys     map[string]tufKey `json:"keys"`
		Roles    []delegation      `json:"roles"`
		Succinct jsontext.Value    `json:"succinct_roles"`
	} `json:"delegations"`
}

type contentTarget struct {
	Length int64     `json:"length"`
	Hashes tufHashes `json:"hashes"`
	Custom struct {
		Pawl struct {
			Content string `json:"content"`
		} `json:"pawl"`
	} `json:"custom"`
}

type delegation struct {
	Name         string         `json:"name"`
	KeyIDs       []string       `json:"keyids"`
	Threshold    int            `json:"threshold"`
	Terminating  bool           `json:"terminating"`
	Paths        []string       `json:"paths"`
	HashPrefixes jsontext.Value `json:"path_hash_prefixes"`
}

// tufHashes are the hashes of a file: one SHA-256 and nothing else. A second hash would give a file two names in a
// consistent snapshot.
type tufHashes digest.SHA256

func (h *tufHashes) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var text [3]string // the object, its only name and its only value
	for i := range text {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		text[i] = token.String()
	}
	end, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if text[1] != "sha256" || end.Kind() != '}' {
		return errors.New("not exactly one hash, a SHA-256")
	}
	d, err := digest.ParseHex(text[2])
	*h = tufHashes(d)
	return err
}

// readTargets returns the content and, by path, the targets of the top-level role.
func readTargets(doc []byte) (envelope, Targets, map[string]Target, error) {
	fail := func(err error) (envelope, Targets, map[string]Target, error) {
		return envelope{}, Targets{}, nil, malformed(TargetsRole, "%w", err)
	}
	if err := tooLarge(TargetsRole, doc, MaxTargets); err != nil {
		return envelope{}, Targets{}, nil, err
	}
	e, err := open(doc)
	if err != nil {
		return fail(err)
	}
	var in targetsSigned
	if err := json.Unmarshal(e.Signed, &in); err != nil {
		return fail(err)
	}
	if err := in.head.check(TargetsRole); err != nil {
		return fail(err)
	}
	files, err := readContents(in.Targets)
	if err != nil {
		return fail(err)
	}
	out := Targets{Version: in.Version, Expires: in.Expires}
	switch {
	case in.Delegations.Succinct != nil:
		return fail(errors.New("delegation to hash bins"))
	case len(in.Delegations.Roles) > MaxProducts:
		return fail(fmt.Errorf("%d products, at most %d are allowed", len(in.Delegations.Roles), MaxProducts))
	}
	used, seen, byProduct := 0, map[string]bool{}, groupByProduct(files)
	for _, role := range in.Delegations.Roles {
		if seen[role.Name] {
			return fail(fmt.Errorf("product %s stands twice", clip(role.Name)))
		}
		seen[role.Name] = true
		p, err := readProduct(role, in.Delegations.Keys, byProduct[role.Name])
		if err != nil {
			return fail(fmt.Errorf("product %s: %w", clip(role.Name), err))
		}
		used += len(byProduct[role.Name])
		out.Products = append(out.Products, p)
	}
	if used != len(files) {
		return fail(fmt.Errorf("%d targets below %q belong to no product", len(files)-used, keysDir))
	}
	return e, out, files, nil
}

// readContents reads the targets of the top-level role. Each is small and stands inside the metadata.
func readContents(targets map[string]contentTarget) (map[string]Target, error) {
	out := make(map[string]Target, len(targets))
	for name, t := range targets {
		if !strings.HasPrefix(name, keysDir) {
			return nil, fmt.Errorf("target %q is not below %q: files of a product are named by its own role", clip(name), keysDir)
		}
		if t.Length < 1 || t.Length > MaxContent {
			return nil, fmt.Errorf("target %q: %d bytes, 1 to %d are allowed", clip(name), t.Length, MaxContent)
		}
		content, d := []byte(t.Custom.Pawl.Content), digest.SHA256(t.Hashes)
		if int64(len(content)) != t.Length || digest.Of(content) != d {
			return nil, fmt.Errorf("target %q: its content is not the content that its digest names", clip(name))
		}
		out[name] = Target{Size: t.Length, Digest: d, Content: content}
	}
	return out, nil
}

// onlySHA256 reads the hashes of a file. A second hash would give a file two names in a consistent snapshot.
func onlySHA256(h metadata.Hashes) (digest.SHA256, error) {
	sum, ok := h["sha256"]
	if !ok || len(h) != 1 || len(sum) != len(digest.SHA256{}) {
		return digest.SHA256{}, errors.New("not exactly one digest, a SHA-256")
	}
	return digest.SHA256(sum), nil
}

func groupByProduct(files map[string]Target) map[string]map[string]Target {
	out := map[string]map[string]Target{}
	for name, t := range files {
		product, base, _ := strings.Cut(strings.TrimPrefix(name, keysDir), "/")
		if out[product] == nil {
			out[product] = map[string]Target{}
		}
		out[product][base] = t
	}
	return out
}

// readProduct reads one delegation and the files of the product, by base name.
func readProduct(role delegation, keys map[string]tufKey, files map[string]Target) (Product, error) {
	if err := statement.CheckProduct(role.Name); err != nil {
		return Product{}, err
	}
	if !role.Terminating || role.HashPrefixes != nil || !slices.Equal(role.Paths, []string{productPaths(role.Name)}) {
		return Product{}, fmt.Errorf("the delegation is not a terminating one for %q", productPaths(role.Name))
	}
	a, err := readAuthority(role.KeyIDs, role.Threshold, keys)
	if err != nil {
		return Product{}, err
	}
	p := Product{Name: role.Name, Release: a.Keys, Threshold: a.Threshold}
	used := 0
	for i, key := range p.Release {
		name, content, err := keyFile(releaseKey, i == 0, key)
		if err != nil {
			return Product{}, err
		}
		if got, ok := files[name]; !ok || string(got.Content) != string(content) {
			return Product{}, fmt.Errorf("target %q is missing or is not the key that signs the role", keysDir+role.Name+"/"+name)
		}
		used++
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		kind, _, _ := strings.Cut(strings.TrimSuffix(name, ".pub"), "-")
		switch {
		case name == path.Base(RecoveryPath(role.Name)):
			if err := json.Unmarshal(files[name].Content, &p.Recovery, json.RejectUnknownMembers(true)); err != nil {
				return Product{}, fmt.Errorf("target %q: %w", name, err)
			}
			if p.Recovery.Epoch == 0 {
				return Product{}, fmt.Errorf("target %q: epoch 0", name)
			}
		case kind == evidenceKey || kind == formerKey:
			key, err := sign.ParsePublicKey(files[name].Content)
			if err != nil {
				return Product{}, fmt.Errorf("target %q: %w", clip(name), err)
			}
			list, at := &p.Former, len(p.Former)
			if kind == evidenceKey {
				if list, at = &p.Evidence, len(p.Evidence); name == evidenceKey+".pub" {
					at = 0
				}
			}
			*list = slices.Insert(*list, at, key)
			if err := checkKeys(*list, 1); err != nil {
				return Product{}, err
			}
			if want, _, err := keyFile(kind, name == evidenceKey+".pub", key); err != nil || want != name {
				return Product{}, fmt.Errorf("target %q does not have the name of its key", clip(name))
			}
		default:
			continue
		}
		used++
	}
	if used != len(files) {
		return Product{}, fmt.Errorf("%d targets of unknown use", len(files)-used)
	}
	if _, ok := files[evidenceKey+".pub"]; !ok && len(p.Evidence) > 0 {
		return Product{}, fmt.Errorf("no target %q", evidenceKey+".pub")
	}
	return p, checkRoles(p)
}

// checkRoles refuses a key in two places: a release key must never sign an attestation, and a retired key signs nothing.
func checkRoles(p Product) error {
	all := slices.Concat(p.Release, p.Former, p.Evidence)
	for i, key := range all {
		if slices.ContainsFunc(all[:i], func(o *ecdsa.PublicKey) bool { return o.Equal(key) }) {
			f, err := sign.Fingerprint(key)
			if err != nil {
				return err
			}
			return fmt.Errorf("key %s has two uses: a release key signs no evidence, and a former key nothing", f[:12])
		}
	}
	return nil
}

func productPaths(product string) string { return product + "/*/*" }

// The kinds of public keys of a product.
const (
	releaseKey  = "release"
	evidenceKey = "evidence"
	formerKey   = "former"
)

// keyFile returns the base name and the content of the target that shows a key. The newest release key and the newest
// evidence key have the plain name, so that a person with cosign finds them.
func keyFile(kind string, plain bool, key *ecdsa.PublicKey) (string, []byte, error) {
	text, err := sign.EncodePublicKey(key)
	if err != nil {
		return "", nil, err
	}
	if plain {
		return kind + ".pub", text, nil
	}
	f, err := sign.Fingerprint(key)
	if err != nil {
		return "", nil, err
	}
	return kind + "-" + f[:12] + ".pub", text, nil
}

// roleSigned is the signed part of a product's role.
type roleSigned struct {
	head
	Targets     roleTargets    `json:"targets"`
	Delegations jsontext.Value `json:"delegations"`
}

// roleTargets are the targets of a product, read without an intermediate form: they are most of what a device reads.
type roleTargets map[string]Target

func (m *roleTargets) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if token, err := dec.ReadToken(); err != nil || token.Kind() != '{' {
		return errors.Join(errors.New("targets are not an object"), err)
	}
	*m = roleTargets{}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		path := name.String()
		if len(*m) >= MaxInRole {
			return fmt.Errorf("more than %d targets", MaxInRole)
		}
		var t struct {
			Length int64     `json:"length"`
			Hashes tufHashes `json:"hashes"`
			Custom struct {
				Pawl *Index `json:"pawl"`
			} `json:"custom"`
		}
		if err := json.UnmarshalDecode(dec, &t); err != nil {
			return err
		}
		(*m)[path] = Target{Size: t.Length, Digest: digest.SHA256(t.Hashes), Index: t.Custom.Pawl}
	}
	_, err := dec.ReadToken()
	return err
}

// ParseRole reads the document of a product's role. Nothing is verified but what the document says about itself: that
// all its targets lie below the product.
func ParseRole(product string, doc []byte) (Role, error) {
	_, r, err := readRole(product, doc)
	return r, err
}

func readRole(product string, doc []byte) (envelope, Role, error) {
	if err := tooLarge(product, doc, MaxRole); err != nil {
		return envelope{}, Role{}, err
	}
	e, err := open(doc)
	if err != nil {
		return envelope{}, Role{}, malformed(product, "%w", err)
	}
	var in roleSigned
	if err := json.Unmarshal(e.Signed, &in); err != nil {
		return envelope{}, Role{}, malformed(product, "%w", err)
	}
	if err := in.head.check(TargetsRole); err != nil {
		return envelope{}, Role{}, malformed(product, "%w", err)
	}
	if in.Targets == nil {
		return envelope{}, Role{}, malformed(product, "no member \"targets\"")
	}
	r := Role{Product: product, Version: in.Version, Expires: in.Expires, Targets: in.Targets}
	if in.Delegations != nil {
		return envelope{}, Role{}, mixed(product, "the role of a product delegates to nobody, this one does")
	}
	if err := r.check(); err != nil {
		return envelope{}, Role{}, err
	}
	return e, r, nil
}

// check refuses a role that says what it has no right to say, or that contradicts itself.
func (r Role) check() error {
	if len(r.Targets) > MaxInRole {
		return malformed(r.Product, "%d targets, at most %d are allowed", len(r.Targets), MaxInRole)
	}
	releases, versions := map[string]string{}, map[string]version.Version{}
	for name, t := range r.Targets {
		product, rest, _ := strings.Cut(name, "/")
		dir, base, _ := strings.Cut(rest, "/")
		if product != r.Product {
			return mixed(r.Product, "it names target %q, and may name targets below %q only", clip(name), r.Product+"/")
		}
		v, ok := versions[dir]
		if !ok {
			var err error
			if v, err = version.Parse(dir); err != nil {
				return malformed(r.Product, "target %q: %w", clip(name), err)
			}
			versions[dir] = v
		}
		if err := statement.CheckName(base); err != nil {
			return malformed(r.Product, "target %q: %w", clip(name), err)
		}
		if t.Size < 1 || t.Digest.IsZero() || t.Content != nil {
			return malformed(r.Product, "target %q has no size or no SHA-256", clip(name))
		}
		if (t.Index != nil) != (base == StatementName) {
			return malformed(r.Product, "target %q: the index entry stands on %s, and only there", clip(name), StatementName)
		}
		if t.Index == nil {
			continue
		}
		if err := t.Index.check(); err != nil {
			return malformed(r.Product, "target %q: %w", clip(name), err)
		}
		if t.Index.Version != v {
			return mixed(r.Product, "target %q is indexed as version %s", clip(name), t.Index.Version)
		}
		// Build metadata does not order versions: two of one precedence would be two releases of one version.
		key, _, _ := strings.Cut(dir, "+")
		if other, ok := releases[key]; ok {
			return mixed(r.Product, "two releases of one version: %s and %s", min(other, dir), max(other, dir))
		}
		releases[key] = dir
	}
	return nil
}

func (x *Index) check() error {
	switch {
	case x.Version.IsZero() || !x.Line.Holds(x.Version):
		return fmt.Errorf("version %q is not on line %q", x.Version, x.Line)
	case x.Kind != statement.Security && x.Kind != statement.Feature:
		return fmt.Errorf("kind %q is neither security nor feature", clip(string(x.Kind)))
	case len(x.Hardware) > statement.MaxHardware || len(strings.Join(x.Hardware, "")) > MaxIndexText:
		return fmt.Errorf("%d kinds of hardware in %d bytes, at most %d in %d are allowed", len(x.Hardware), len(strings.Join(x.Hardware, "")), statement.MaxHardware, MaxIndexText)
	}
	return nil
}

// Equal reports whether two index entries say the same.
func (x Index) Equal(y Index) bool {
	return x.Version == y.Version && x.Line == y.Line && x.Kind == y.Kind && x.SecurityVersion == y.SecurityVersion &&
		slices.Equal(x.Hardware, y.Hardware) && x.MinimumSource == y.MinimumSource && x.Expires.Equal(y.Expires)
}

const (
	snapshotFile = SnapshotRole + ".json"
	targetsFile  = TargetsRole + ".json"
	// issuedMember is signed beside the members that TUF knows; other readers ignore and keep it.
	issuedMember = "x-pawl-issued"
)

// ParseSnapshot reads a snapshot document. Nothing is verified.
func ParseSnapshot(doc []byte) (Snapshot, error) {
	if err := tooLarge(SnapshotRole, doc, MaxSnapshot); err != nil {
		return Snapshot{}, err
	}
	d, err := parse[metadata.SnapshotType](doc)
	if err != nil {
		return Snapshot{}, malformed(SnapshotRole, "%w", err)
	}
	s, err := readSnapshot(d.tuf)
	if err != nil {
		return Snapshot{}, malformed(SnapshotRole, "%w", err)
	}
	return s, nil
}

func readSnapshot(m *metadata.Metadata[metadata.SnapshotType]) (Snapshot, error) {
	out := Snapshot{Version: m.Signed.Version, Expires: m.Signed.Expires, Roles: make(map[string]File, len(m.Signed.Meta))}
	if len(m.Signed.Meta) > 2*MaxProducts+1 {
		return Snapshot{}, fmt.Errorf("%d files, at most %d are allowed", len(m.Signed.Meta), 2*MaxProducts+1)
	}
	for name, meta := range m.Signed.Meta {
		role, ok := strings.CutSuffix(name, ".json")
		if !ok || role != TargetsRole && statement.CheckProduct(role) != nil {
			return Snapshot{}, fmt.Errorf("file %q is not the metadata of a product", clip(name))
		}
		most := int64(MaxRole)
		if role == TargetsRole {
			most = MaxTargets
		}
		file, err := readFile(meta, most)
		if err != nil {
			return Snapshot{}, fmt.Errorf("file %q: %w", clip(name), err)
		}
		out.Roles[role] = file
	}
	if _, ok := out.Roles[TargetsRole]; !ok {
		return Snapshot{}, fmt.Errorf("no file %q", targetsFile)
	}
	return out, nil
}

// ParseTimestamp reads a timestamp document. Nothing is verified.
func ParseTimestamp(doc []byte) (Timestamp, error) {
	if err := tooLarge(TimestampRole, doc, MaxTimestamp); err != nil {
		return Timestamp{}, err
	}
	d, err := parse[metadata.TimestampType](doc)
	if err != nil {
		return Timestamp{}, malformed(TimestampRole, "%w", err)
	}
	t, err := readTimestamp(d.tuf)
	if err != nil {
		return Timestamp{}, malformed(TimestampRole, "%w", err)
	}
	return t, nil
}

func readTimestamp(m *metadata.Metadata[metadata.TimestampType]) (Timestamp, error) {
	out := Timestamp{Version: m.Signed.Version, Expires: m.Signed.Expires}
	meta, ok := m.Signed.Meta[snapshotFile]
	if !ok || len(m.Signed.Meta) != 1 {
		return Timestamp{}, fmt.Errorf("it does not name exactly one file %q", snapshotFile)
	}
	var err error
	if out.File, err = readFile(meta, MaxSnapshot); err != nil {
		return Timestamp{}, fmt.Errorf("file %q: %w", snapshotFile, err)
	}
	text, _ := m.Signed.UnrecognizedFields[issuedMember].(string)
	if out.Issued, err = time.Parse(time.RFC3339, text); err != nil {
		return Timestamp{}, fmt.Errorf("member %q: %w", issuedMember, err)
	}
	// A time of issue in the far future would make a device believe that everything has expired.
	if !out.Issued.Before(out.Expires) || out.Expires.Sub(out.Issued) > MaxTimestampLife {
		return Timestamp{}, fmt.Errorf("issued %s and valid until %s: at most %d days are allowed", stamp(out.Issued), stamp(out.Expires), MaxTimestampLife/(24*time.Hour))
	}
	return out, nil
}

func readFile(meta *metadata.MetaFiles, most int64) (File, error) {
	d, err := onlySHA256(meta.Hashes)
	if err != nil {
		return File{}, err
	}
	if meta.Version < 1 || meta.Version > MaxVersion || meta.Length < 1 || meta.Length > most {
		return File{}, fmt.Errorf("version %d with %d bytes, at most %d bytes are allowed", meta.Version, meta.Length, most)
	}
	return File{Version: meta.Version, Size: meta.Length, Digest: d}, nil
}
