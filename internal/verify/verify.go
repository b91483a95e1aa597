// SPDX-License-Identifier: Apache-2.0

// Package verify checks a file, an image or a whole release as a stranger would, and lists every check with what proved it.
//
// It believes one thing: the root that the caller was given out of band. From there the signed catalogue says which
// releases exist, the statement says what belongs to a release, and every byte is compared with them. Signatures of the
// release key and attestations of the evidence key are checked in the same form in which cosign checks them. A folder
// that was exported is checked like a server, so all of it works without a network.
//
// A result is never a bare yes. What could not be checked reads "not proven" and does not count as passed.
package verify

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/policy"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// MaxBundle bounds the JSON text of a bundle that is read from a repository, in bytes.
const MaxBundle = 64 << 20

// Images is the part of a registry that verification needs.
type Images interface {
	registry.Resolver
	registry.Verifier
}

// Verifier checks against one repository.
type Verifier struct {
	catalog *catalog.Catalog
	images  Images // nil: there is no registry to ask
	begun   []Check
}

// Open refreshes the catalogue from src and remembers the checks of that as the first ones of every result. The error is
// the refusal of the refresh; the result lists it as a failed check.
func Open(ctx context.Context, src catalog.Opener, cache catalog.Cache, opt catalog.Options, images Images) (*Verifier, *Result) {
	var first Result
	c, err := catalog.Refresh(ctx, src, cache, opt)
	if err != nil {
		first.Subject = "repository"
		first.fail("catalogue", err)
		return nil, &first
	}
	first.pass("root", "version %d, reached from the root that was given", c.RootVersion())
	first.pass("freshness", "signed metadata is valid until %s", c.Expires().UTC().Format(time.RFC3339))
	return &Verifier{catalog: c, images: images, begun: first.Checks}, nil
}

func (v *Verifier) begin(subject string) *Result {
	return &Result{Subject: subject, Checks: slices.Clone(v.begun)}
}

func (r *Result) finish() *Result {
	r.Verified = r.Err() == nil
	return r
}

// File checks the bytes of src: which release they belong to, and everything that is known about it. Product may be empty:
// then the digest decides among all products.
func (v *Verifier) File(ctx context.Context, name, product string, src io.Reader) *Result {
	r := v.begin(name)
	d, size, err := digest.Copy(nil, src)
	if err != nil {
		r.fail("bytes", fmt.Errorf("cannot read: %w", err))
		return r.finish()
	}
	products := v.catalog.Products()
	if product != "" {
		products = []string{product}
	}
	for _, p := range products {
		listed, artifact, ok := v.holding(p, d)
		if !ok {
			continue
		}
		rel, ok := v.release(ctx, r, listed)
		if !ok {
			return r.finish()
		}
		i := slices.IndexFunc(rel.Artifacts, func(a statement.Artifact) bool { return a.Name == artifact && a.Digest.SHA256 == d && a.Size == size })
		if i < 0 {
			r.fail("bytes", refusal.New(refusal.WrongTarget, name, "%s is %s of %s %s, and not an artifact of it", d, artifact, p, rel.Version))
			return r.finish()
		}
		r.pass("bytes", "%s, %d bytes, as signed for artifact %s", d, size, artifact)
		v.evidence(ctx, r, rel, rel.Artifacts[i])
		v.supersession(r, rel)
		return r.finish()
	}
	v.refused(r, products)
	r.fail("bytes", refusal.New(refusal.Digest, name, "%s is not in any release of %s", d, strings.Join(products, ", ")).
		Do("fetch the file again from the publisher; if it stays like this, it is not theirs"))
	return r.finish()
}

// refused lists the products whose part of the catalogue was refused, and reports whether there is one.
func (v *Verifier) refused(r *Result, products []string) bool {
	found := false
	for _, p := range products {
		if err := v.catalog.Refused(p); err != nil {
			r.fail("catalogue", err)
			found = true
		}
	}
	return found
}

// holding returns the listed release that has a target with this digest, without reading statements.
func (v *Verifier) holding(product string, d digest.SHA256) (listed catalog.Listed, artifact string, ok bool) {
	role, _ := v.catalog.Role(product)
	for p, t := range role.Targets {
		if t.Digest != d {
			continue
		}
		for _, listed := range v.catalog.Releases(product) {
			if path.Dir(p) == product+"/"+listed.Version.String() {
				return listed, path.Base(p), true
			}
		}
	}
	return catalog.Listed{}, "", false
}

// Release checks every artifact of one release. A zero version means the newest.
func (v *Verifier) Release(ctx context.Context, product string, ver version.Version) *Result {
	r := v.begin(strings.TrimSpace(product + " " + ver.String()))
	if v.refused(r, []string{product}) {
		return r.finish()
	}
	listed, ok := v.listed(product, ver)
	if !ok {
		r.fail("catalogue", refusal.New(refusal.WrongTarget, r.Subject, "the catalogue lists no such release").
			Do("\"pawl repo show\" lists what there is"))
		return r.finish()
	}
	rel, ok := v.release(ctx, r, listed)
	if !ok {
		return r.finish()
	}
	for _, a := range rel.Artifacts {
		if rel.Channel == statement.Container {
			for _, repository := range a.Images {
				v.image(ctx, r, rel, a, registry.Image{Repository: repository, Digest: a.Digest.SHA256})
			}
		} else {
			v.bytes(ctx, r, rel, a)
		}
		v.evidence(ctx, r, rel, a)
	}
	v.supersession(r, rel)
	return r.finish()
}

// Image checks an image in a registry. A tag is resolved once and never believed: the digest must be in the catalogue.
func (v *Verifier) Image(ctx context.Context, ref registry.Reference, product string) *Result {
	r := v.begin(ref.Repository)
	img, ok := ref.Image()
	if !ok {
		if v.images == nil {
			r.fail("image", errors.New("a tag can only be looked up in its registry"))
			return r.finish()
		}
		var err error
		if img, err = v.images.Resolve(ctx, ref.Repository, ref.Tag); err != nil {
			r.fail("image", err)
			return r.finish()
		}
	}
	r.Subject = img.String()
	products := v.catalog.Products()
	if product != "" {
		products = []string{product}
	}
	for _, p := range products {
		for _, listed := range v.catalog.Releases(p) {
			rel, err := v.catalog.Release(ctx, listed)
			if err != nil || rel.Channel != statement.Container {
				continue
			}
			i := slices.IndexFunc(rel.Artifacts, func(a statement.Artifact) bool { return a.Digest.SHA256 == img.Digest })
			if i < 0 {
				continue
			}
			if rel, ok = v.release(ctx, r, listed); !ok {
				return r.finish()
			}
			v.image(ctx, r, rel, rel.Artifacts[i], img)
			v.evidence(ctx, r, rel, rel.Artifacts[i])
			v.supersession(r, rel)
			return r.finish()
		}
	}
	v.refused(r, products)
	r.fail("image", refusal.New(refusal.Digest, r.Subject, "%s is not in any release", img.Digest).
		Do("pull the image by the digest of a release: \"pawl repo show\" lists them"))
	return r.finish()
}

func (v *Verifier) listed(product string, ver version.Version) (catalog.Listed, bool) {
	for _, l := range v.catalog.Releases(product) {
		if ver.IsZero() || l.Version == ver {
			return l, true
		}
	}
	return catalog.Listed{}, false
}

// release reads and checks the statement.
func (v *Verifier) release(ctx context.Context, r *Result, listed catalog.Listed) (statement.Release, bool) {
	rel, err := v.catalog.Release(ctx, listed)
	if err != nil {
		r.fail("statement", err)
		return rel, false
	}
	r.Product, r.Version, r.Kind = rel.Product, rel.Version.String(), string(rel.Kind)
	if product, ok := v.catalog.Product(rel.Product); ok {
		r.pass("catalogue", "listed in the role of %s, signed by %d of its release keys (%s)", rel.Product, product.Threshold, names(product.Release))
	}
	r.pass("statement", "signed by a release key of %s on %s; security version %d", rel.Product, rel.Issued.UTC().Format(time.DateOnly), rel.SecurityVersion)
	return rel, true
}

// bytes checks the target of an artifact in the repository.
func (v *Verifier) bytes(ctx context.Context, r *Result, rel statement.Release, a statement.Artifact) {
	src, err := v.catalog.OpenTarget(ctx, trust.TargetPath(rel.Product, rel.Version, a.Name), 0)
	if err == nil {
		err = digest.Verify(nil, src, a.Digest.SHA256, a.Size)
		src.Close()
	}
	switch {
	case errors.Is(err, digest.ErrMismatch), errors.Is(err, digest.ErrSize):
		r.fail("bytes", refusal.New(refusal.Digest, a.Name, "%s: %w", a.Name, err).
			Do("do not use this copy; fetch the release from another place"))
	case err != nil:
		r.fail("bytes", fmt.Errorf("%s: %w", a.Name, err))
	default:
		r.pass("bytes", "%s: %s, %d bytes, as signed", a.Name, a.Digest.SHA256, a.Size)
	}
}

// image checks that a registry holds the image and that the release key has signed it there.
func (v *Verifier) image(ctx context.Context, r *Result, rel statement.Release, a statement.Artifact, img registry.Image) {
	if v.images == nil {
		r.fail("image", fmt.Errorf("%s: no registry was asked", img))
		return
	}
	product, _ := v.catalog.Product(rel.Product)
	looked, err := v.images.Verify(ctx, product.StatementKeys(), img)
	switch {
	case err != nil:
		r.fail("image", err)
	default:
		var forms []string
		for _, f := range []registry.Form{registry.Bundle, registry.Simple} {
			if looked.Valid(f) {
				forms = append(forms, string(f))
			}
		}
		r.pass("image", "%s: signed by a release key (%s), digest as in the statement of %s", img.Repository, strings.Join(forms, " and "), a.Name)
	}
}

// evidence checks the signature for cosign, the SBOM and the verdict of an artifact.
func (v *Verifier) evidence(ctx context.Context, r *Result, rel statement.Release, a statement.Artifact) {
	product, _ := v.catalog.Product(rel.Product)
	read := func(suffix string) ([]byte, error) {
		data, err := v.catalog.ReadTarget(ctx, trust.TargetPath(rel.Product, rel.Version, a.Name+suffix), MaxBundle)
		if errors.Is(err, blob.ErrNotExist) {
			return nil, fmt.Errorf("the release has no %s%s", a.Name, suffix)
		}
		return data, err
	}
	if rel.Channel != statement.Container {
		if err := func() error {
			data, err := read(".sigstore.json")
			if err != nil {
				return err
			}
			b, err := bundle.Parse(data)
			if err != nil {
				return err
			}
			return b.VerifyBlob(product.StatementKeys(), a.Digest.SHA256)
		}(); err != nil {
			r.fail("cosign", err)
		} else {
			r.pass("cosign", "%s.sigstore.json: signed by a release key, as cosign verify-blob checks it", a.Name)
		}
	}
	attested := func(suffix, predicateType string) ([]byte, error) {
		data, err := read(suffix)
		if err != nil {
			return nil, err
		}
		b, err := bundle.Parse(data)
		if err != nil {
			return nil, err
		}
		return b.VerifyAttestation(product.Evidence, predicateType, a.Digest.SHA256)
	}
	if predicate, err := attested(".sbom.sigstore.json", evidence.CycloneDXPredicate); err != nil {
		r.fail("sbom", err)
	} else if bom, err := evidence.DecodeCycloneDX(predicate); err != nil {
		r.fail("sbom", err)
	} else if bom.Subject.Digest.SHA256 != a.Digest.SHA256 {
		r.fail("sbom", refusal.New(refusal.Mixed, a.Name, "the SBOM is of %s", bom.Subject.Digest.SHA256))
	} else {
		r.pass("sbom", "%s of %s, attested by the evidence key", count(len(bom.Components), "component"), a.Name)
	}
	if predicate, err := attested(".verdict.sigstore.json", evidence.VerdictPredicate); err != nil {
		r.fail("verdict", err)
	} else if verdict, err := policy.Decode(predicate); err != nil {
		r.fail("verdict", err)
	} else if !verdict.Passed {
		r.fail("verdict", refusal.New(refusal.Vulnerable, a.Name, "the gate did not pass this release"))
	} else {
		r.pass("verdict", "gate passed on %s: %d introduced, %d inherited, %d fixed (%s, %s)", verdict.At.Format(time.DateOnly),
			verdict.Counts.Introduced, verdict.Counts.Inherited, verdict.Counts.Fixed, verdict.Database.Name, count(verdict.Database.Records, "record"))
	}
}

// supersession tells the reader of a newer release: a signature does not.
func (v *Verifier) supersession(r *Result, rel statement.Release) {
	for _, l := range v.catalog.Releases(rel.Product) {
		if l.Version.Compare(rel.Version) > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("%s %s is newer (%s release)", rel.Product, l.Version, l.Kind))
			return
		}
	}
}

// Blob checks a Sigstore bundle over src with keys that the caller trusts, without any repository: what cosign
// verify-blob does. It says who signed, and nothing about what is newest.
func Blob(name string, src io.Reader, bundleText []byte, keys []*ecdsa.PublicKey) *Result {
	r := &Result{Subject: name}
	d, size, err := digest.Copy(nil, src)
	if err != nil {
		r.fail("bytes", fmt.Errorf("cannot read: %w", err))
		return r.finish()
	}
	b, err := bundle.Parse(bundleText)
	if err == nil {
		err = b.VerifyBlob(keys, d)
	}
	if err != nil {
		r.fail("cosign", err)
		return r.finish()
	}
	r.pass("cosign", "%s, %d bytes: signed by the given key (%s)", d, size, names(keys))
	r.Notes = append(r.Notes, "a signature says who signed, not that it is the newest: give --repo and --root for that")
	return r.finish()
}

func names(keys []*ecdsa.PublicKey) string {
	var list []string
	for _, k := range keys {
		f, err := sign.Fingerprint(k)
		if err != nil {
			f = "unknown key"
		}
		list = append(list, f[:12])
	}
	return strings.Join(list, ", ")
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
