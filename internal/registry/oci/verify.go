// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
)

// The names in signature manifests, as cosign writes them.
const (
	bundleTypes         = "application/vnd.dev.sigstore.bundle" // the beginning of the media type of every version
	simpleType          = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// maxReasons is how many of the signatures that do not count are named in a refusal.
const maxReasons = 3

// Verify checks that one of keys has signed the image for release.
func (c *Client) Verify(ctx context.Context, keys []*ecdsa.PublicKey, img registry.Image) (registry.Signatures, error) {
	if img.Digest.IsZero() {
		return nil, refusal.New(refusal.Digest, "image "+img.Repository, "no digest to check against")
	}
	// What cannot be read in one form does not spoil a good signature in the other.
	found, err := c.verifyBundles(ctx, keys, img)
	if err != nil {
		found = append(found, registry.Outcome{Form: registry.Bundle, Err: err})
	}
	simple, err := c.verifySimple(ctx, keys, img)
	if err != nil {
		simple = append(simple, registry.Outcome{Form: registry.Simple, Err: err})
	}
	found = append(found, simple...)
	return found, conclude(keys, img, found)
}

// conclude decides over what was found. One good signature is enough, whatever else is there. What could not be read is
// never counted as absent.
func conclude(keys []*ecdsa.PublicKey, img registry.Image, found registry.Signatures) error {
	if found.Valid(registry.Bundle) || found.Valid(registry.Simple) {
		return nil
	}
	var reasons []string
	for _, o := range found {
		if refusal.Of(o.Err) == "" {
			return fmt.Errorf("cannot verify %s: %w", img, o.Err)
		}
		var r *refusal.Error
		if errors.As(o.Err, &r) && len(reasons) < maxReasons {
			reasons = append(reasons, fmt.Sprintf("%s %s: %s", o.Form, o.Where.Short(), clean(r.Failed)))
		}
	}
	text := "nothing is attached to it"
	if len(found) > 0 {
		text = fmt.Sprintf("none of the %d signatures attached to it counts (%s)", len(found), strings.Join(reasons, "; "))
	}
	return refusal.New(refusal.Signature, "image "+img.String(), "not signed for release by any of the %d trusted keys: %s", len(keys), text).
		Do("do not run it; check that the digest and the key are those that the maker published")
}

// verifyBundles looks at everything that refers to the image. Things that hold no bundle are passed over.
func (c *Client) verifyBundles(ctx context.Context, keys []*ecdsa.PublicKey, img registry.Image) (registry.Signatures, error) {
	repo, err := c.repo(img.Repository)
	if err != nil {
		return nil, err
	}
	list, err := referrers(ctx, repo, img)
	if err != nil {
		return nil, err
	}
	var found registry.Signatures
	for _, d := range list {
		where, err := layout.DigestOf(d)
		if err != nil {
			continue // what has no proper digest cannot be fetched by digest
		}
		holds, err := c.verifyReferrer(ctx, repo, keys, img, where)
		if holds || err != nil {
			found = append(found, registry.Outcome{Form: registry.Bundle, Where: where, Err: err})
		}
	}
	return found, nil
}

// referrers lists what refers to the image, what calls itself a bundle first.
func referrers(ctx context.Context, repo *remote.Repository, img registry.Image) ([]ociv1.Descriptor, error) {
	subject := ociv1.Descriptor{Digest: layout.Digest(img.Digest)}
	var list []ociv1.Descriptor
	collect := func(page []ociv1.Descriptor) error {
		list = append(list, page...)
		return nil
	}
	repository := img.Repository
	err := repo.Referrers(ctx, subject, "", collect)
	if unsupported(err) {
		// The answer of registries that know the path and not what it means. It is remembered; only its first mention can
		// fail, when the registry has told two things.
		if err := repo.SetReferrersCapability(false); err != nil {
			return nil, explain(repository, err)
		}
		err = repo.Referrers(ctx, subject, "", collect)
	}
	if errors.Is(err, errdef.ErrTooManyPages) {
		err = nil // the first pages are enough: there are limits for what is looked at anyway
	}
	if err = explain(repository, err); err != nil && !errors.Is(err, registry.ErrNotExist) {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b ociv1.Descriptor) int { return rank(a) - rank(b) })
	return list[:min(len(list), maxReferrers)], nil
}

// rank orders candidates. The artifact type in a list is a hint: some tools write a wrong one.
func rank(d ociv1.Descriptor) int {
	if strings.HasPrefix(d.ArtifactType, bundleTypes) {
		return 0
	}
	return 1
}

// unsupported reports an answer that means "no referrers API", beside the 404 that the library knows.
func unsupported(err error) bool {
	var answer *errcode.ErrorResponse
	return errors.As(err, &answer) &&
		slices.Contains([]int{http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented}, answer.StatusCode)
}

// verifyReferrer reports whether the manifest holds a bundle, and if so, whether that is a signature for release.
func (c *Client) verifyReferrer(ctx context.Context, repo *remote.Repository, keys []*ecdsa.PublicKey, img registry.Image, where digest.SHA256) (holds bool, err error) {
	m, _, err := c.image(ctx, registry.Image{Repository: img.Repository, Digest: where})
	switch {
	case refusal.Of(err) == refusal.Malformed, errors.Is(err, registry.ErrNotExist):
		return false, nil // not an image manifest, or listed and gone
	case err != nil:
		return false, err
	case len(m.Layers) == 0 || !strings.HasPrefix(m.Layers[0].MediaType, bundleTypes):
		return false, nil
	}
	data, err := c.small(ctx, repo, img.Repository, m.Layers[0], maxBundleBytes)
	if err != nil {
		return true, err
	}
	b, err := bundle.Parse(data)
	if err != nil {
		return true, err
	}
	return true, b.VerifyImage(keys, img.Digest)
}

// verifySimple looks at the layers of the older tag.
func (c *Client) verifySimple(ctx context.Context, keys []*ecdsa.PublicKey, img registry.Image) (registry.Signatures, error) {
	repo, err := c.repo(img.Repository)
	if err != nil {
		return nil, err
	}
	m, data, err := c.simpleManifest(ctx, img)
	if errors.Is(err, registry.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found registry.Signatures
	for i, l := range m.Layers {
		if l.MediaType != simpleType || i >= maxReferrers {
			continue
		}
		found = append(found, registry.Outcome{Form: registry.Simple, Where: digest.Of(data), Err: c.verifyLayer(ctx, repo, keys, img, l)})
	}
	return found, nil
}

// simpleManifest fetches what the older tag names.
func (c *Client) simpleManifest(ctx context.Context, img registry.Image) (layout.Manifest, []byte, error) {
	mediaType, data, err := c.manifest(ctx, img.Repository, simpleTag(img.Digest))
	if err != nil {
		return layout.Manifest{}, nil, err
	}
	m, err := layout.ParseManifest(mediaType, data)
	return m, data, err
}

func simpleTag(d digest.SHA256) string { return "sha256-" + d.Hex() + ".sig" }

func (c *Client) verifyLayer(ctx context.Context, repo *remote.Repository, keys []*ecdsa.PublicKey, img registry.Image, l ociv1.Descriptor) error {
	text := l.Annotations[signatureAnnotation]
	sig, err := base64.StdEncoding.DecodeString(text[:min(len(text), base64.StdEncoding.EncodedLen(bundle.MaxSignature))])
	if err != nil || len(sig) == 0 {
		return refusal.New(refusal.Malformed, "image signature", "no signature in the annotation %q", signatureAnnotation)
	}
	payload, err := c.small(ctx, repo, img.Repository, l, bundle.MaxSimpleSigning)
	if err != nil {
		return err
	}
	return bundle.VerifySimpleSigning(keys, payload, sig, img.Digest)
}

// small fetches a small blob and checks it against its digest.
func (c *Client) small(ctx context.Context, repo *remote.Repository, repository string, desc ociv1.Descriptor, most int64) ([]byte, error) {
	d, err := layout.DigestOf(desc)
	if err != nil {
		return nil, err
	}
	if desc.Size > most {
		return nil, refusal.New(refusal.Malformed, "image signature", "%d bytes, at most %d are allowed", desc.Size, most)
	}
	body, err := repo.Blobs().Fetch(ctx, desc)
	if err = explain(repository, err); errors.Is(err, registry.ErrNotExist) {
		return nil, refusal.New(refusal.Malformed, "image signature", "its bytes %s are not there", d)
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, desc.Size+1))
	if err != nil {
		return nil, explain(repository, err)
	}
	if digest.Of(data) != d {
		return nil, refusal.New(refusal.Digest, "image signature", "%w: the registry sent other bytes than %s", digest.ErrMismatch, d)
	}
	return data, nil
}
