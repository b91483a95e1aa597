// SPDX-License-Identifier: Apache-2.0

// Package statement is the signed claim about a release: an in-toto Statement whose subjects are the artifacts and whose
// predicate holds everything that a device compares before it installs.
//
// The statement is written once by the release key of the product, carried in a Sigstore bundle (DSSE), and listed as a
// TUF target. What is not in it is not known: product, hardware, version, security version, kind, sizes, digests, expiry
// and the lowest version to update from are signed, so the comparison on a device never uses a word of the server.
//
// The format is specified in docs/spec/statement.md. Reading is strict: member names are compared exactly, duplicate
// members are refused, every list has a limit, and a member that a later revision of the format adds may be ignored by
// an older reader unless the statement names it in "critical".
package statement

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/version"
)

const (
	// Type is the statement type (in-toto attestation framework v1, "Statement").
	Type = "https://in-toto.io/Statement/v1"
	// PredicateType names the predicate of this package.
	PredicateType = "https://github.com/pawl-project/pawl/release/v1"
	// PayloadType is the DSSE payload type of every in-toto statement.
	PayloadType = "application/vnd.in-toto+json"
)

// Limits on a statement. Whoever signs it could choose these sizes; a device must not be exhausted by any of them.
const (
	MaxBytes     = 256 << 10 // of the JSON text
	MaxArtifacts = 64
	MaxHardware  = 64
	MaxFixes     = 256
	MaxImages    = 16   // repositories of one image
	MaxText      = 4096 // of one text, in bytes
)

// Channel is the way a product travels to its users.
type Channel string

// The channels.
const (
	Container Channel = "container"
	Firmware  Channel = "firmware"
	NPM       Channel = "npm"
	NuGet     Channel = "nuget"
	File      Channel = "file"
)

// Kind tells a security release from a feature release (Regulation (EU) 2024/2847, Annex I, Part II (2): security
// updates are provided separately from functionality updates).
type Kind string

// The kinds.
const (
	Security Kind = "security"
	Feature  Kind = "feature"
)

// Release is the claim. Times are UTC with second precision.
type Release struct {
	Product         string          `json:"product"`
	Channel         Channel         `json:"channel"`
	Version         version.Version `json:"version"`
	Line            version.Line    `json:"line"`
	Kind            Kind            `json:"kind"`
	SecurityVersion uint32          `json:"securityVersion"`
	// Hardware lists the hardware that the release is for. Empty means any hardware.
	Hardware []string `json:"hardware,omitempty"`
	// MinimumSource is the lowest installed version that may update to this one directly.
	MinimumSource version.Version `json:"minimumSource,omitzero"`
	Issued        time.Time       `json:"issued"`
	// Expires ends the time in which the release may be installed. Zero means that it does not expire by itself: the
	// last update of a product must stay installable for ever.
	Expires time.Time `json:"expires,omitzero"`
	// SupportEnd is the end of the support period as "YYYY-MM" (Article 13(19)).
	SupportEnd string     `json:"supportEnd,omitempty"`
	Fixes      []string   `json:"fixes,omitempty"`
	Advisory   *Advisory  `json:"advisory,omitempty"`
	Artifacts  []Artifact `json:"artifacts"`
	// Critical names members that a reader must understand; a reader that does not know one refuses the statement.
	Critical []string `json:"critical,omitempty"`
}

// Advisory is what the user of a device is told before it installs (Annex I, Part II (4) and (8)).
type Advisory struct {
	ID       string `json:"id"`
	Summary  string `json:"summary"`            // what was wrong and what the update does about it
	Severity string `json:"severity"`           // critical, high, medium, low
	Impact   string `json:"impact,omitempty"`   // what could happen without the update
	Action   string `json:"action"`             // what the user has to do, if anything
	Disrupts string `json:"disrupts,omitempty"` // what does not work meanwhile, and for how long
	URL      string `json:"url,omitempty"`
}

// Artifact is one file or image of the release.
type Artifact struct {
	// Name is a plain file name, unique in the release.
	Name   string     `json:"-"`
	Digest digest.Set `json:"-"`
	// Size is in bytes; for an image it is the size of the manifest or index that the digest names.
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType,omitempty"`
	// Platform is "os/arch[/variant]" as in the OCI image specification; empty means any.
	Platform string `json:"platform,omitempty"`
	// Hardware narrows the release's hardware to this artifact; empty means all of it.
	Hardware []string `json:"hardware,omitempty"`
	// Images are the repositories that hold the image, without tag and digest: "registry.example/acme/gateway".
	Images []string `json:"images,omitempty"`
}

// document, predicate and subject are the JSON shape.
type document struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

type subject struct {
	Name   string      `json:"name"`
	Digest digestNames `json:"digest"`
}

type digestNames struct {
	SHA256 string `json:"sha256"`
	SHA512 string `json:"sha512,omitempty"`
}

type predicate struct {
	Release
	Artifacts []namedArtifact `json:"artifacts"` // takes the place of Release.Artifacts
}

type namedArtifact struct {
	Name string `json:"name"`
	Artifact
}

// Encode checks r and returns the statement's JSON text. The same release always gives the same bytes.
func (r Release) Encode() ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	r.Issued = r.Issued.UTC().Truncate(time.Second)
	if !r.Expires.IsZero() {
		r.Expires = r.Expires.UTC().Truncate(time.Second)
	}
	doc := document{Type: Type, PredicateType: PredicateType, Predicate: predicate{Release: r}}
	for _, a := range r.Artifacts {
		names := digestNames{SHA256: a.Digest.SHA256.Hex()}
		if !a.Digest.SHA512.IsZero() {
			names.SHA512 = a.Digest.SHA512.Hex()
		}
		doc.Subject = append(doc.Subject, subject{Name: a.Name, Digest: names})
		doc.Predicate.Artifacts = append(doc.Predicate.Artifacts, namedArtifact{Name: a.Name, Artifact: a})
	}
	doc.Predicate.Release.Artifacts = nil
	var out bytes.Buffer
	if err := json.MarshalWrite(&out, doc, json.Deterministic(true), jsontext.Multiline(false)); err != nil {
		return nil, fmt.Errorf("cannot encode statement: %w", err)
	}
	if out.Len() > MaxBytes {
		return nil, fmt.Errorf("cannot encode statement: %d bytes, at most %d are allowed", out.Len(), MaxBytes)
	}
	return out.Bytes(), nil
}

// Decode reads and checks a statement. The caller has verified its signature, or treats the result as unverified.
// Every error is a refusal of class Malformed.
func Decode(data []byte) (Release, error) {
	if len(data) > MaxBytes {
		return Release{}, malformed("%d bytes, at most %d are allowed", len(data), MaxBytes)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return Release{}, malformed("%w", err)
	}
	if doc.Type != Type {
		return Release{}, malformed("type %q is not %q", clip(doc.Type), Type)
	}
	if doc.PredicateType != PredicateType {
		return Release{}, malformed("predicate type %q is not %q", clip(doc.PredicateType), PredicateType)
	}
	if len(doc.Subject) != len(doc.Predicate.Artifacts) {
		return Release{}, malformed("%d subjects for %d artifacts", len(doc.Subject), len(doc.Predicate.Artifacts))
	}
	r := doc.Predicate.Release
	r.Artifacts = make([]Artifact, 0, min(len(doc.Subject), MaxArtifacts+1))
	for i, s := range doc.Subject {
		if i > MaxArtifacts {
			break // Check refuses the number
		}
		a := doc.Predicate.Artifacts[i]
		if a.Name != s.Name {
			return Release{}, malformed("subject %d is %q, artifact %d is %q", i, clip(s.Name), i, clip(a.Name))
		}
		a.Artifact.Name = s.Name
		var err error
		if a.Artifact.Digest.SHA256, err = digest.ParseHex(s.Digest.SHA256); err != nil {
			return Release{}, malformed("subject %d: %w", i, err)
		}
		if s.Digest.SHA512 != "" {
			if a.Artifact.Digest.SHA512, err = digest.ParseHex512(s.Digest.SHA512); err != nil {
				return Release{}, malformed("subject %d: %w", i, err)
			}
		}
		r.Artifacts = append(r.Artifacts, a.Artifact)
	}
	if err := r.Check(); err != nil {
		return Release{}, malformed("%w", err)
	}
	return r, nil
}

var (
	productName  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	hardwareName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/+-]{0,63}$`)
	fixName      = regexp.MustCompile(`^[A-Z][A-Z0-9]*-[A-Za-z0-9-]{1,60}$`)
	imageName    = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)
	supportMonth = regexp.MustCompile(`^[0-9]{4}-(0[1-9]|1[0-2])$`)
)

// CheckProduct reports whether name may be the name of a product. It becomes a TUF role, a folder and a part of URLs.
func CheckProduct(name string) error {
	switch {
	case !productName.MatchString(name) || strings.Contains(name, ".."):
		return fmt.Errorf("product name %q: 1 to 64 of a-z, 0-9, '.', '_', '-' without \"..\" are allowed, first a letter or digit", clip(name))
	case slices.Contains([]string{"root", "targets", "snapshot", "timestamp", "keys"}, name):
		return fmt.Errorf("product name %q is reserved", name)
	}
	return nil
}

// CheckName reports whether name may be the name of an artifact: a plain file name, no path. It is asked for every file
// of a catalogue, so it is no regular expression.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= 128 && !strings.Contains(name, "..")
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte("._+~-", c) >= 0
	}
	if !ok {
		return fmt.Errorf("artifact name %q: a plain file name of 1 to 128 characters without \"..\" is allowed", clip(name))
	}
	return nil
}

// reserved are the endings of the targets that are published beside an artifact: signatures and evidence.
var reserved = [...]string{".sigstore.json", ".cdx.json", ".verdict.json"}

// CheckArtifact reports whether name may be the name of an artifact: CheckName, and not the name of a signature or of
// evidence, which stand beside artifacts.
func CheckArtifact(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	for _, ending := range reserved {
		if strings.HasSuffix(name, ending) {
			return fmt.Errorf("artifact name %q: the ending %s is for signatures and evidence", clip(name), ending)
		}
	}
	return nil
}

// CheckFix reports whether name may be the name of a vulnerability: CVE-2026-1234, GHSA-...
func CheckFix(name string) error {
	if !fixName.MatchString(name) {
		return fmt.Errorf("fix %q is not the name of a vulnerability, for example CVE-2026-1234", clip(name))
	}
	return nil
}

// CheckImage reports whether name may be the repository of an image: with its registry, without tag and digest.
func CheckImage(name string) error {
	if len(name) > 255 || !imageName.MatchString(name) {
		return fmt.Errorf("image %q is not a repository with its registry", clip(name))
	}
	return nil
}

// Check reports the first thing in r that no statement may contain.
func (r Release) Check() error {
	if err := CheckProduct(r.Product); err != nil {
		return err
	}
	if !slices.Contains([]Channel{Container, Firmware, NPM, NuGet, File}, r.Channel) {
		return fmt.Errorf("channel %q is not known", clip(string(r.Channel)))
	}
	if r.Kind != Security && r.Kind != Feature {
		return fmt.Errorf("kind %q is neither security nor feature", clip(string(r.Kind)))
	}
	switch {
	case r.Version.IsZero():
		return fmt.Errorf("no version")
	case r.Line.IsZero():
		return fmt.Errorf("no line")
	case !r.Line.Holds(r.Version):
		return fmt.Errorf("version %s is not on line %s", r.Version, r.Line)
	case r.MinimumSource.Compare(r.Version) >= 0:
		return fmt.Errorf("minimum source version %s is not lower than version %s", r.MinimumSource, r.Version)
	case r.Issued.IsZero():
		return fmt.Errorf("no time of issue")
	case !r.Expires.IsZero() && !r.Expires.After(r.Issued):
		return fmt.Errorf("expires %s, not after its issue", r.Expires.UTC().Format(time.RFC3339))
	case r.SupportEnd != "" && !supportMonth.MatchString(r.SupportEnd):
		return fmt.Errorf("support end %q is not YYYY-MM", clip(r.SupportEnd))
	case len(r.Fixes) > MaxFixes:
		return fmt.Errorf("%d fixes, at most %d are allowed", len(r.Fixes), MaxFixes)
	case len(r.Critical) > 0:
		return fmt.Errorf("critical member %q is not known to this reader", clip(r.Critical[0]))
	}
	for _, id := range r.Fixes {
		if err := CheckFix(id); err != nil {
			return err
		}
	}
	if err := CheckHardware(r.Hardware); err != nil {
		return err
	}
	if r.Advisory != nil {
		if err := r.Advisory.Check(); err != nil {
			return fmt.Errorf("advisory: %w", err)
		}
	}
	return r.checkArtifacts()
}

func (r Release) checkArtifacts() error {
	if n := len(r.Artifacts); n == 0 || n > MaxArtifacts {
		return fmt.Errorf("%d artifacts, 1 to %d are allowed", n, MaxArtifacts)
	}
	seen := make(map[string]bool, len(r.Artifacts))
	for _, a := range r.Artifacts {
		if err := CheckArtifact(a.Name); err != nil {
			return err
		}
		switch {
		case seen[a.Name]:
			return fmt.Errorf("artifact %q stands twice", a.Name)
		case a.Digest.SHA256.IsZero():
			return fmt.Errorf("artifact %q has no SHA-256", a.Name)
		case a.Size <= 0:
			return fmt.Errorf("artifact %q: size %d is not positive", a.Name, a.Size)
		case len(a.MediaType) > 255 || len(a.Platform) > 64:
			return fmt.Errorf("artifact %q: media type or platform is too long", a.Name)
		case len(a.Images) > MaxImages:
			return fmt.Errorf("artifact %q: %d images, at most %d are allowed", a.Name, len(a.Images), MaxImages)
		case (r.Channel == Container) != (len(a.Images) > 0):
			return fmt.Errorf("artifact %q: images are for channel container, and needed there", a.Name)
		}
		for _, image := range a.Images {
			if err := CheckImage(image); err != nil {
				return fmt.Errorf("artifact %q: %w", a.Name, err)
			}
		}
		if err := CheckHardware(a.Hardware); err != nil {
			return fmt.Errorf("artifact %q: %w", a.Name, err)
		}
		seen[a.Name] = true
	}
	return nil
}

// Check reports the first thing in a that no advisory may contain or lack.
func (a Advisory) Check() error {
	if !slices.Contains([]string{"critical", "high", "medium", "low"}, a.Severity) {
		return fmt.Errorf("severity %q is not critical, high, medium or low", clip(a.Severity))
	}
	if a.ID == "" || a.Summary == "" || a.Action == "" {
		return fmt.Errorf("id, summary and action are needed")
	}
	for _, text := range []string{a.ID, a.Summary, a.Impact, a.Action, a.Disrupts, a.URL} {
		if len(text) > MaxText {
			return fmt.Errorf("a text of %d bytes, at most %d are allowed", len(text), MaxText)
		}
		// Texts are shown on terminals and displays: no escape sequences.
		if i := strings.IndexFunc(text, func(c rune) bool { return c != '\n' && (c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0) }); i >= 0 {
			return fmt.Errorf("a control character in %q", clip(text))
		}
	}
	return nil
}

// CheckHardware reports whether names may be the hardware of a release or an artifact.
func CheckHardware(names []string) error {
	if len(names) > MaxHardware {
		return fmt.Errorf("%d kinds of hardware, at most %d are allowed", len(names), MaxHardware)
	}
	for _, name := range names {
		if !hardwareName.MatchString(name) {
			return fmt.Errorf("hardware %q is not a name", clip(name))
		}
	}
	return nil
}

// Fits reports whether the artifact is for a device with this hardware and platform, each empty if the device has none.
func (a Artifact) Fits(hardware, platform string) bool {
	return (len(a.Hardware) == 0 || slices.Contains(a.Hardware, hardware)) &&
		(a.Platform == "" || platform == "" || a.Platform == platform)
}

func malformed(format string, args ...any) error {
	return refusal.New(refusal.Malformed, "release statement", format, args...)
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
