// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ecdsa"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-project/pawl/internal/digest"
)

// NewRoot returns the unsigned document. A root key that also is the online key is refused: what lies on a server is not
// offline.
func NewRoot(r Root) ([]byte, error) {
	if err := checkKeys(r.Keys, r.Threshold); err != nil {
		return nil, fmt.Errorf("root keys: %w", err)
	}
	if err := checkKeys([]*ecdsa.PublicKey{r.Online}, 1); err != nil {
		return nil, fmt.Errorf("online key: %w", err)
	}
	if slices.ContainsFunc(r.Keys, func(k *ecdsa.PublicKey) bool { return k.Equal(r.Online) }) {
		return nil, errors.New("the online key is also a root key")
	}
	m := metadata.Root(seconds(r.Expires))
	m.Signed.SpecVersion, m.Signed.Version = SpecVersion, r.Version
	for name, keys := range map[string][]*ecdsa.PublicKey{
		RootRole: r.Keys, TargetsRole: r.Keys, SnapshotRole: {r.Online}, TimestampRole: {r.Online},
	} {
		for _, key := range keys {
			k, err := metadata.KeyFromPublicKey(key)
			if err != nil {
				return nil, err
			}
			if err := m.Signed.AddKey(k, name); err != nil {
				return nil, err
			}
		}
	}
	m.Signed.Roles[RootRole].Threshold, m.Signed.Roles[TargetsRole].Threshold = r.Threshold, r.Threshold
	doc, err := encode(m.Signed)
	if err != nil {
		return nil, err
	}
	_, err = ParseRoot(doc)
	return doc, err
}

// NewTargets returns the unsigned document.
func NewTargets(t Targets) ([]byte, error) {
	m := metadata.Targets(seconds(t.Expires))
	m.Signed.SpecVersion, m.Signed.Version = SpecVersion, t.Version
	m.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{}}
	for _, p := range t.Products {
		if err := addProduct(&m.Signed, p); err != nil {
			return nil, fmt.Errorf("product %s: %w", clip(p.Name), err)
		}
	}
	doc, err := encode(m.Signed)
	if err != nil {
		return nil, err
	}
	_, err = ParseTargets(doc)
	return doc, err
}

func addProduct(signed *metadata.TargetsType, p Product) error {
	role := metadata.DelegatedRole{Name: p.Name, Threshold: p.Threshold, Terminating: true, Paths: []string{productPaths(p.Name)}, KeyIDs: []string{}}
	for _, key := range p.Release {
		id, err := KeyID(key)
		if err != nil {
			return err
		}
		if signed.Delegations.Keys[id], err = metadata.KeyFromPublicKey(key); err != nil {
			return err
		}
		role.KeyIDs = append(role.KeyIDs, id)
	}
	signed.Delegations.Roles = append(signed.Delegations.Roles, role)
	files, err := contents(p)
	if err != nil {
		return err
	}
	for base, content := range files {
		custom, err := json.Marshal(map[string]any{"pawl": map[string]any{"content": string(content)}})
		if err != nil {
			return err
		}
		sum := digest.Of(content)
		signed.Targets[keysDir+p.Name+"/"+base] = &metadata.TargetFiles{
			Length: int64(len(content)), Hashes: metadata.Hashes{"sha256": sum[:]}, Custom: (*stdjson.RawMessage)(&custom),
		}
	}
	return nil
}

// contents returns the small files of a product, by base name.
func contents(p Product) (map[string][]byte, error) {
	out := map[string][]byte{}
	for kind, keys := range map[string][]*ecdsa.PublicKey{releaseKey: p.Release, evidenceKey: p.Evidence, formerKey: p.Former} {
		for i, key := range keys {
			name, text, err := keyFile(kind, i == 0 && kind != formerKey, key)
			if err != nil {
				return nil, err
			}
			out[name] = text
		}
	}
	if p.Recovery != (Recovery{}) {
		text, err := json.Marshal(p.Recovery)
		if err != nil {
			return nil, err
		}
		out[path.Base(RecoveryPath(p.Name))] = text
	}
	return out, nil
}

// Contents returns the files that the top-level targets document contains, by blob name: public keys and recoveries, to
// be published beside it for people and for other TUF clients.
func Contents(doc []byte) (map[string][]byte, error) {
	_, _, files, err := readTargets(doc)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(files))
	for name, t := range files {
		out[BlobName(name, t.Digest)] = t.Content
	}
	return out, nil
}

// NewRole returns the unsigned document of a product's role, in canonical form: its signatures are over the bytes as they
// stand, so that a reader need not encode them again.
func NewRole(r Role) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	m := metadata.Targets(seconds(r.Expires))
	m.Signed.SpecVersion, m.Signed.Version = SpecVersion, r.Version
	for name, t := range r.Targets {
		file := &metadata.TargetFiles{Length: t.Size, Hashes: metadata.Hashes{"sha256": t.Digest[:]}}
		if t.Index != nil {
			x := *t.Index
			x.Expires = seconds(x.Expires)
			custom, err := json.Marshal(map[string]any{"pawl": x})
			if err != nil {
				return nil, err
			}
			file.Custom = (*stdjson.RawMessage)(&custom)
		}
		m.Signed.Targets[name] = file
	}
	signed, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		return nil, err
	}
	doc, err := envelope{Signed: signed}.encode()
	if err != nil {
		return nil, err
	}
	_, err = ParseRole(r.Product, doc)
	return doc, err
}

// NewSnapshot returns the unsigned document.
func NewSnapshot(s Snapshot) ([]byte, error) {
	m := metadata.Snapshot(seconds(s.Expires))
	m.Signed.SpecVersion, m.Signed.Version = SpecVersion, s.Version
	m.Signed.Meta = map[string]*metadata.MetaFiles{}
	for name, file := range s.Roles {
		m.Signed.Meta[name+".json"] = file.meta()
	}
	doc, err := encode(m.Signed)
	if err != nil {
		return nil, err
	}
	_, err = ParseSnapshot(doc)
	return doc, err
}

// NewTimestamp returns the unsigned document.
func NewTimestamp(t Timestamp) ([]byte, error) {
	m := metadata.Timestamp(seconds(t.Expires))
	m.Signed.SpecVersion, m.Signed.Version = SpecVersion, t.Version
	m.Signed.Meta = map[string]*metadata.MetaFiles{snapshotFile: t.File.meta()}
	m.Signed.UnrecognizedFields = map[string]any{issuedMember: seconds(t.Issued)}
	doc, err := encode(m.Signed)
	if err != nil {
		return nil, err
	}
	_, err = ParseTimestamp(doc)
	return doc, err
}

func (f File) meta() *metadata.MetaFiles {
	return &metadata.MetaFiles{Version: f.Version, Length: f.Size, Hashes: metadata.Hashes{"sha256": f.Digest[:]}}
}

// encode puts a signed part into an envelope without signatures.
func encode(signed any) ([]byte, error) {
	raw, err := stdjson.Marshal(signed)
	if err != nil {
		return nil, err
	}
	return envelope{Signed: jsontext.Value(raw)}.encode()
}

// seconds drops what the format cannot say.
func seconds(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}
