// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/sign"
)

// Annotations of a manifest that holds a bundle (Sigstore bundle specification, cosign BUNDLE_SPEC.md).
const (
	contentAnnotation   = "dev.sigstore.bundle.content"
	predicateAnnotation = "dev.sigstore.bundle.predicateType"
	contentStatement    = "dsse-envelope"
)

// Sign attaches a signature in both forms to the image and, if it is an index, to everything in it: users of a platform
// verify either. The index itself comes last, so that a signed index has signed images.
func (c *Client) Sign(ctx context.Context, s sign.Signer, img registry.Image, at time.Time) error {
	targets, err := c.targets(ctx, img)
	if err != nil {
		return fmt.Errorf("cannot sign %s: %w", img, err)
	}
	for _, desc := range targets {
		d, err := layout.DigestOf(desc)
		if err != nil {
			return err
		}
		target := registry.Image{Repository: img.Repository, Digest: d}
		if err := c.signBundle(ctx, s, target, desc, at); err != nil {
			return fmt.Errorf("cannot sign %s: %w", target, err)
		}
		if err := c.signSimple(ctx, s, target); err != nil {
			return fmt.Errorf("cannot sign %s: %w", target, err)
		}
	}
	return nil
}

// targets lists the image and, if it is an index, every manifest below it, the image itself last.
func (c *Client) targets(ctx context.Context, img registry.Image) ([]ociv1.Descriptor, error) {
	m, data, err := c.image(ctx, img)
	if err != nil {
		return nil, err
	}
	root := layout.Describe(m.MediaType, data)
	var load cargo
	err = load.load(root, 0, func(d ociv1.Descriptor) (layout.Manifest, []byte, error) {
		if d.Digest == root.Digest {
			return m, data, nil
		}
		return c.child(ctx, img.Repository, d)
	}, all)
	if err != nil {
		return nil, err
	}
	out := make([]ociv1.Descriptor, 0, len(load.manifests))
	for _, m := range load.manifests {
		out = append(out, m.desc)
	}
	return out, nil
}

// signBundle attaches a bundle unless there is one by this key. Where the registry has no referrers API the list of
// referrers is a tag that every signer rewrites, and two signers at once can lose an entry: so the list is read again
// until the new entry is in it.
func (c *Client) signBundle(ctx context.Context, s sign.Signer, img registry.Image, subject ociv1.Descriptor, at time.Time) error {
	repo, err := c.repo(img.Repository)
	if err != nil {
		return err
	}
	var manifest []byte
	pause := c.opt.Pause
	for range attempts {
		found, err := c.verifyBundles(ctx, []*ecdsa.PublicKey{s.PublicKey()}, img)
		if err != nil {
			return err
		}
		if found.Valid(registry.Bundle) {
			return nil
		}
		if err := unread(found); err != nil {
			return err
		}
		if manifest != nil {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, maxPause)
		} else if manifest, err = c.pushBundle(ctx, s, img, repo, subject, at); err != nil {
			return err
		}
		err = fault.Around(ctx, "registry.sign.bundle", func() error {
			return repo.Manifests().Push(ctx, layout.Describe(layout.MediaTypeManifest, manifest), bytes.NewReader(manifest))
		})
		if err := explain(img.Repository, err); err != nil {
			return err
		}
	}
	return c.conflict(img)
}

// unread returns the error of the first thing that could not be read: it may be the signature that is looked for.
func unread(found registry.Signatures) error {
	for _, o := range found {
		if o.Err != nil && refusal.Of(o.Err) == "" {
			return o.Err
		}
	}
	return nil
}

func (c *Client) conflict(img registry.Image) error {
	return refusal.New(refusal.Conflict, "signatures of "+img.String(), "the new one did not stay in %d attempts", attempts).
		Do("see who else signs this image now, and run it again")
}

// pushBundle signs, writes the two blobs and returns the manifest that names them, member for member as cosign writes it.
func (c *Client) pushBundle(ctx context.Context, s sign.Signer, img registry.Image, repo *remote.Repository, subject ociv1.Descriptor, at time.Time) ([]byte, error) {
	data, err := bundle.SignStatement(ctx, s, bundle.ImageStatement(img.Digest))
	if err != nil {
		return nil, err
	}
	config := layout.Describe(ociv1.MediaTypeEmptyJSON, []byte("{}"))
	config.ArtifactType = bundle.MediaType
	layer := layout.Describe(bundle.MediaType, data)
	if err := c.putBlob(ctx, img.Repository, repo, config, []byte("{}")); err != nil {
		return nil, err
	}
	if err := c.putBlob(ctx, img.Repository, repo, layer, data); err != nil {
		return nil, err
	}
	manifest := ociv1.Manifest{
		MediaType:    layout.MediaTypeManifest,
		ArtifactType: bundle.MediaType,
		Config:       config,
		Layers:       []ociv1.Descriptor{layer},
		Subject:      &ociv1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{
			contentAnnotation:       contentStatement,
			predicateAnnotation:     bundle.ImagePredicate,
			ociv1.AnnotationCreated: at.UTC().Format(time.RFC3339),
		},
	}
	manifest.SchemaVersion = 2
	return layout.Encode(manifest)
}

// signSimple attaches the older form unless there is one by this key. The layers of others stay as they are.
func (c *Client) signSimple(ctx context.Context, s sign.Signer, img registry.Image) error {
	repo, err := c.repo(img.Repository)
	if err != nil {
		return err
	}
	var layer *ociv1.Descriptor
	pause := c.opt.Pause
	for range attempts {
		found, err := c.verifySimple(ctx, []*ecdsa.PublicKey{s.PublicKey()}, img)
		if err != nil {
			return err
		}
		if found.Valid(registry.Simple) {
			return nil
		}
		if err := unread(found); err != nil {
			return err
		}
		if layer != nil {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, maxPause)
		} else if layer, err = c.pushSimple(ctx, s, img, repo); err != nil {
			return err
		}
		if err := c.addSimple(ctx, img, repo, *layer); err != nil {
			return err
		}
	}
	return c.conflict(img)
}

// pushSimple signs and writes the payload, and returns the layer that names it.
func (c *Client) pushSimple(ctx context.Context, s sign.Signer, img registry.Image, repo *remote.Repository) (*ociv1.Descriptor, error) {
	payload, err := bundle.SimpleSigning(img.Repository, img.Digest)
	if err != nil {
		return nil, err
	}
	sig, err := sign.Message(ctx, s, payload)
	if err != nil {
		return nil, err
	}
	layer := layout.Describe(simpleType, payload)
	if err := c.putBlob(ctx, img.Repository, repo, layer, payload); err != nil {
		return nil, err
	}
	layer.Annotations = map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(sig)}
	return &layer, nil
}

// simpleDocument is a manifest of the older form. Layers are kept as text: what others wrote comes back as it was.
type simpleDocument struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	Config        ociv1.Descriptor `json:"config"`
	Layers        []jsontext.Value `json:"layers"`
	Rest          jsontext.Value   `json:",embed"`
}

// addSimple appends the layer to what the older tag names now.
func (c *Client) addSimple(ctx context.Context, img registry.Image, repo *remote.Repository, layer ociv1.Descriptor) error {
	doc := simpleDocument{SchemaVersion: 2, MediaType: layout.MediaTypeManifest}
	m, data, err := c.simpleManifest(ctx, img)
	switch {
	case errors.Is(err, registry.ErrNotExist):
	case err != nil:
		return err
	case m.MediaType != layout.MediaTypeManifest:
		return refusal.New(refusal.Conflict, "tag "+simpleTag(img.Digest), "it names a %q, not signatures", m.MediaType).Do("see who has put it there, and remove it")
	default:
		if err := json.Unmarshal(data, &doc); err != nil {
			return err
		}
		if len(m.Layers) >= layout.MaxLayers {
			return refusal.New(refusal.Conflict, "tag "+simpleTag(img.Digest), "it holds %d signatures already", len(m.Layers)).Do("remove those that nobody needs")
		}
	}
	text, err := layout.Encode(layer)
	if err != nil {
		return err
	}
	doc.Layers = append(doc.Layers, text)
	config, err := simpleConfig(append(m.Layers, layer))
	if err != nil {
		return err
	}
	doc.Config = layout.Describe(ociv1.MediaTypeImageConfig, config)
	if err := c.putBlob(ctx, img.Repository, repo, doc.Config, config); err != nil {
		return err
	}
	out, err := layout.Encode(doc)
	if err != nil {
		return err
	}
	return fault.Around(ctx, "registry.sign.simple", func() error {
		err := repo.Manifests().PushReference(ctx, layout.Describe(layout.MediaTypeManifest, out), bytes.NewReader(out), simpleTag(img.Digest))
		return explain(img.Repository, err)
	})
}

// simpleConfig returns the configuration that makes registries take the manifest for that of an image.
func simpleConfig(layers []ociv1.Descriptor) ([]byte, error) {
	var config ociv1.Image
	config.RootFS.Type = "layers"
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	return layout.Encode(config)
}

// putBlob writes a small blob unless it is there.
func (c *Client) putBlob(ctx context.Context, repository string, repo *remote.Repository, desc ociv1.Descriptor, data []byte) error {
	none := func() int64 { return 0 }
	return c.again(ctx, none, func() error {
		there, err := repo.Blobs().Exists(ctx, desc)
		if err != nil || there {
			return explain(repository, err)
		}
		return explain(repository, repo.Blobs().Push(ctx, desc, bytes.NewReader(data)))
	})
}
