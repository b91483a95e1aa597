// SPDX-License-Identifier: Apache-2.0

// Package registry is the seam to container registries: images by digest, their tags, and the signatures beside them.
//
// An image is always named by repository and digest. A tag is a wish of the moment: it is set last, after everything
// behind it is in place, and it is never read to decide anything.
//
// A signature is attached in two forms, because half of the tools read only one of them: a Sigstore bundle in a manifest
// that refers to the image (the referrers API, or the tag "sha256-<hex>" where a registry does not have it), and the
// older tag "sha256-<hex>.sig". Both say the same: the holder of the release key has signed this digest. Other things
// that hang on an image, such as attestations and signatures of other people, are neither needed nor in the way.
//
// The contract suite is registry/registrytest; the adapter is registry/oci; registry/embedded is a registry to talk to.
package registry

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/sign"
)

// ErrNotExist reports an image or tag that the registry does not have.
var ErrNotExist = errors.New("does not exist")

// ErrUnreachable reports a registry that does not answer.
var ErrUnreachable = errors.New("registry cannot be reached")

// Image names an image or index.
type Image struct {
	// Repository is "host/name" or "host:port/name", without tag and digest.
	Repository string
	Digest     digest.SHA256
}

// String returns "repository@sha256:<hex>".
func (i Image) String() string { return i.Repository + "@" + i.Digest.String() }

// Host returns the registry: "host" or "host:port".
func (i Image) Host() string { return Host(i.Repository) }

// Host returns the registry of a repository: "host" or "host:port".
func Host(repository string) string {
	host, _, _ := strings.Cut(repository, "/")
	return host
}

// Progress is called with the number of bytes that are in place and of all bytes.
type Progress func(done, total int64)

// Resolver looks things up. Safe for concurrent use.
type Resolver interface {
	// Resolve returns what a tag names now; ErrNotExist if it names nothing.
	Resolve(ctx context.Context, repository, tag string) (Image, error)
	// Exists reports whether the registry has the manifest or index.
	Exists(ctx context.Context, img Image) (bool, error)
}

// Pusher writes images. Every call may be repeated: what is there already is success and is not sent again. Transient
// errors are tried again.
type Pusher interface {
	// Push copies the image or index, and everything that it names, from the OCI layout in folder dir. It sets no tag.
	// The manifest comes last, so an image that the registry has is complete. progress may be nil.
	Push(ctx context.Context, img Image, dir string, progress Progress) error
	// Tag makes a tag name the image, also if it named another one.
	Tag(ctx context.Context, img Image, tag string) error
}

// Prober finds out before the work whether it can be done.
type Prober interface {
	// Probe asks the registry whether it would take an image into the repository from this caller, without leaving anything
	// there. It fails as Push would.
	Probe(ctx context.Context, repository string) error
}

// Puller reads images.
type Puller interface {
	// Pull copies the image or index, and everything that it names, to the OCI layout in folder dir, which it creates.
	// From an index it takes the manifests for platform ("os/arch[/variant]"), or all if platform is empty; none is an
	// error. Every byte is checked against the digest that names it before it is stored. A Pull that was interrupted goes
	// on where it stopped. The layout lists the image only when it is complete. progress may be nil.
	//
	// It returns the image to run: the one for the platform, or img.
	Pull(ctx context.Context, img Image, dir, platform string, progress Progress) (Image, error)
}

// Attacher signs images.
type Attacher interface {
	// Sign attaches a signature in both forms to the image, or to the index and every manifest in it. Where there is a
	// signature by this key already, none is added. Signatures of others are kept. at is written into the manifests as the
	// time of creation.
	Sign(ctx context.Context, s sign.Signer, img Image, at time.Time) error
}

// Verifier checks signatures.
type Verifier interface {
	// Verify checks that one of keys has signed the image for release, in either form. It refuses with class Signature
	// if there is no such signature, whatever else is attached. The result lists what was looked at, also beside an error.
	Verify(ctx context.Context, keys []*ecdsa.PublicKey, img Image) (Signatures, error)
}

// Registry does everything. Callers ask for the part that they need.
type Registry interface {
	Resolver
	Prober
	Pusher
	Puller
	Attacher
	Verifier
}

// Form is a way of attaching a signature.
type Form string

// The forms.
const (
	Bundle Form = "bundle" // Sigstore bundle v0.3 in a manifest that refers to the image
	Simple Form = "simple" // layer of the tag "sha256-<hex>.sig"
)

// Signatures are the outcomes of everything that was looked at as a possible signature.
type Signatures []Outcome

// Outcome is one thing that was looked at.
type Outcome struct {
	Form Form
	// Where is the digest of the manifest that holds it; zero if the list of what is there could not be read.
	Where digest.SHA256
	// Err says why it is not a signature for release by one of the keys; nil if it is.
	Err error
}

// Valid reports whether there is a good signature of the form.
func (s Signatures) Valid(f Form) bool {
	for _, o := range s {
		if o.Form == f && o.Err == nil {
			return true
		}
	}
	return false
}

// MaxReference bounds the text of an image name, in bytes.
const MaxReference = 512

var (
	repositoryName = regexp.MustCompile(`^[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*$`)
	hostName       = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	tagName        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// CheckRepository reports whether repository is "host/name" (distribution specification, "Pulling manifests"). The host
// is needed: there is no default registry.
func CheckRepository(repository string) error {
	host, name, _ := strings.Cut(repository, "/")
	switch {
	case len(repository) > MaxReference:
		return fmt.Errorf("repository of %d characters, at most %d are allowed", len(repository), MaxReference)
	case !hostName.MatchString(host) || !strings.ContainsAny(host, ".:") && host != "localhost":
		return fmt.Errorf("repository %q does not begin with a registry, for example registry.example/acme/gateway", repository)
	case !repositoryName.MatchString(name):
		return fmt.Errorf("repository %q: %q is not a name of lower-case letters, digits and single separators", repository, name)
	}
	return nil
}

// CheckTag reports whether tag is a tag (distribution specification, "Pulling manifests").
func CheckTag(tag string) error {
	if !tagName.MatchString(tag) {
		return fmt.Errorf("tag %q: 1 to 128 of letters, digits, '.', '_', '-' are allowed, not first '.' or '-'", clip(tag))
	}
	return nil
}

// Reference is an image as people write it: "host/name", "host/name:tag", "host/name@sha256:<hex>" or both.
type Reference struct {
	Repository string
	Tag        string        // empty if there is none
	Digest     digest.SHA256 // zero if there is none
}

// ParseReference reads the text of a reference.
func ParseReference(text string) (Reference, error) {
	if len(text) > MaxReference {
		return Reference{}, fmt.Errorf("image name of %d characters, at most %d are allowed", len(text), MaxReference)
	}
	var r Reference
	rest, sum, pinned := strings.Cut(text, "@")
	if pinned {
		var err error
		if r.Digest, err = digest.Parse(sum); err != nil {
			return Reference{}, fmt.Errorf("image name %q: %w", text, err)
		}
	}
	r.Repository = rest
	// A colon before the last slash belongs to the port of the host.
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Repository, r.Tag = rest[:i], rest[i+1:]
		if err := CheckTag(r.Tag); err != nil {
			return Reference{}, fmt.Errorf("image name %q: %w", text, err)
		}
	}
	if err := CheckRepository(r.Repository); err != nil {
		return Reference{}, fmt.Errorf("image name %q: %w", text, err)
	}
	return r, nil
}

// Image returns the image that r names by digest.
func (r Reference) Image() (Image, bool) {
	return Image{r.Repository, r.Digest}, !r.Digest.IsZero()
}

// IsLoopback reports whether host ("host" or "host:port") is this machine: the only place that is spoken to without TLS.
func IsLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
