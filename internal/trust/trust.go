// SPDX-License-Identifier: Apache-2.0

// Package trust holds the rules by which a device believes a repository: bytes and a time come in, a new state or a
// refusal goes out. It opens no file, asks no clock and logs nothing.
//
// The metadata is TUF (The Update Framework 1.0): a root of offline keys with a threshold; the top-level targets role,
// signed by the same offline keys, which delegates to one role per product; snapshot and timestamp, signed by the one
// online key. A product's role is signed by its release key and can name targets below "<product>/" only. Whoever steals
// the online key can withhold news. He cannot invent a release, change one, or bring an old one back.
//
// The rules for the chain of roots, timestamp and snapshot, which compare states over time, are those of go-tuf
// (metadata/trustedmetadata). This package looks at the shape of a document before go-tuf sees it (go-tuf may crash, or
// take quadratic time, on a hostile one), bounds every list, and turns what go-tuf says into words with numbers. The
// rules for the targets roles compare one document with its keys and its entry in the snapshot. They stand here: go-tuf
// parses and encodes a document many times over, which costs a gateway with 50 products more than everything else
// together. A test compares both implementations document by document.
//
// Beyond TUF: the timestamp carries a signed time of issue, a lower bound of time for devices without a clock; the
// version of a product's role never goes down even when the snapshot is lost; the public keys of a product and a
// lowered floor stand inside the top-level targets, so a device learns them with the metadata and not by a download
// that a server could withhold.
//
// Not promised: confidentiality, and news when somebody holds it back. Holding back is noticed when the timestamp
// expires, by a device that knows the time.
//
// The format is specified in docs/spec/repository.md.
package trust

import (
	"crypto/ecdsa"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// Limits. Each bounds something that a server or the holder of a key could choose.
const (
	MaxRoot      = 512 << 10 // bytes of a root document
	MaxTimestamp = 16 << 10  // bytes of a timestamp document
	MaxSnapshot  = 1 << 20   // bytes of a snapshot document
	MaxTargets   = 4 << 20   // bytes of the top-level targets document
	MaxRole      = 6 << 20   // bytes of the document of a product's role
	MaxRootSteps = 256       // new roots in one refresh
	// MaxTimestampLife bounds how long a timestamp can keep a device content without news.
	MaxTimestampLife = 90 * 24 * time.Hour
	MaxVersion       = 1 << 53 // of any document: the largest integer that every JSON reader keeps
	MaxProducts      = 1024    // delegations
	MaxKeys          = 32      // keys of one role, and public keys of one kind of one product
	MaxSignatures    = 64      // signatures on one document
	MaxInRole        = 20_000  // targets of one product
	MaxContent       = 1 << 10 // bytes of a target that stands inside the metadata
	MaxIndexText     = 1 << 10 // bytes of all hardware names of an index entry
	maxDepth         = 12      // nesting of JSON
)

// The names of the roles that are not a product.
const (
	RootRole      = "root"
	TargetsRole   = "targets"
	SnapshotRole  = "snapshot"
	TimestampRole = "timestamp"
)

// StatementName is the base name of the target that holds the statement of a release.
const StatementName = "release.sigstore.json"

// SpecVersion is the version of the TUF specification that is written.
const SpecVersion = "1.0.31"

// Root is the content of a root document: who may sign what. The root keys also sign the top-level targets, with the same
// threshold; the online key signs snapshot and timestamp.
type Root struct {
	Version   int64
	Expires   time.Time
	Keys      []*ecdsa.PublicKey
	Threshold int
	Online    *ecdsa.PublicKey
}

// Targets is the content of the top-level targets document.
type Targets struct {
	Version  int64
	Expires  time.Time
	Products []Product
}

// Product is one delegation, with everything that the offline keys say about the product.
type Product struct {
	Name string
	// Release are the keys that may sign the product's role, the newest first. Statements and artifacts carry a signature
	// of one of them.
	Release []*ecdsa.PublicKey
	// Threshold is the number of release keys that must sign the role.
	Threshold int
	// Former are release keys that were retired in good standing: statements of theirs that the role still lists hold.
	Former []*ecdsa.PublicKey
	// Evidence are the keys that sign attestations, the newest first.
	Evidence []*ecdsa.PublicKey
	// Recovery lowers the floor; the zero value does not.
	Recovery Recovery
}

// Recovery lowers the floor of a product. A device takes Floor once, when Epoch is higher than every epoch it has seen.
type Recovery struct {
	Epoch uint32 `json:"epoch"`
	Floor uint32 `json:"floor"`
}

// Role is the content of the document of a product's role.
type Role struct {
	Product string
	Version int64
	Expires time.Time
	// Targets by path "<product>/<version>/<name>".
	Targets map[string]Target
}

// Target is what metadata says about a file.
type Target struct {
	Size   int64
	Digest digest.SHA256
	// Index stands on the statement of a release and only there.
	Index *Index
	// Content is the file itself, on the small targets of the top-level role and only there.
	Content []byte
}

// Index is what the role of a product says about a release, so that a device can choose which statement to read. The
// statement decides; the two may not contradict each other.
type Index struct {
	Version         version.Version `json:"version"`
	Line            version.Line    `json:"line"`
	Kind            statement.Kind  `json:"kind"`
	SecurityVersion uint32          `json:"securityVersion"`
	Hardware        []string        `json:"hardware,omitempty"`
	MinimumSource   version.Version `json:"minimumSource,omitzero"`
	Expires         time.Time       `json:"expires,omitzero"`
}

// Snapshot is the content of a snapshot document: the one version of the targets role and of every product's role that
// belong together. A product that was in a snapshot once stays in every later one.
type Snapshot struct {
	Version int64
	Expires time.Time
	Roles   map[string]File // by role name: TargetsRole and the products
}

// Timestamp is the content of a timestamp document.
type Timestamp struct {
	Version int64
	Issued  time.Time
	Expires time.Time
	File    File // the snapshot
}

// File is what a document says about another one.
type File struct {
	Version int64
	Size    int64
	Digest  digest.SHA256
}

// FileOf describes a document of that version.
func FileOf(version int64, doc []byte) File {
	return File{Version: version, Size: int64(len(doc)), Digest: digest.Of(doc)}
}

// IndexOf returns the index entry for a release.
func IndexOf(r statement.Release) *Index {
	return &Index{
		Version: r.Version, Line: r.Line, Kind: r.Kind, SecurityVersion: r.SecurityVersion,
		Hardware: r.Hardware, MinimumSource: r.MinimumSource, Expires: r.Expires,
	}
}

// MetadataName returns the blob name of a document. The timestamp has one name for all versions.
func MetadataName(role string, version int64) string {
	if role == TimestampRole {
		return "metadata/timestamp.json"
	}
	return "metadata/" + strconv.FormatInt(version, 10) + "." + role + ".json"
}

// BlobName returns the blob name of a target (TUF specification, section 6.2, consistent snapshots).
func BlobName(path string, d digest.SHA256) string {
	dir, base := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i+1], path[i+1:]
	}
	return "targets/" + dir + d.Hex() + "." + base
}

// TargetPath returns the path of a target of a release.
func TargetPath(product string, v version.Version, name string) string {
	return product + "/" + v.String() + "/" + name
}

// RecoveryPath returns the path of the target that lowers the floor of a product.
func RecoveryPath(product string) string { return keysDir + product + "/recovery.json" }

// keysDir holds the targets of the top-level role. No product can have this name.
const keysDir = "keys/"

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// about names a document in messages.
func about(role string) string {
	switch role {
	case RootRole, TargetsRole, SnapshotRole, TimestampRole:
		return role + " metadata"
	}
	return fmt.Sprintf("metadata of product %s", clip(role))
}
