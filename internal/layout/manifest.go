// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"slices"

	json "github.com/go-json-experiment/json"
	godigest "github.com/opencontainers/go-digest"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
)

// The media types of manifests and indexes that are read, in the forms of OCI and of Docker.
const (
	MediaTypeManifest       = ociv1.MediaTypeImageManifest
	MediaTypeIndex          = ociv1.MediaTypeImageIndex
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Limits on a manifest or index. Whoever writes it chooses these sizes.
const (
	MaxManifest  = 4 << 20 // of the JSON text, in bytes (distribution specification, "Pushing Manifests")
	MaxLayers    = 256     // of one image; engines take 127
	MaxManifests = 128     // in one index
)

// Manifest is what a manifest or index names. Unknown members are ignored, as the image specification demands.
type Manifest struct {
	MediaType string
	// Manifests are the entries of an index; empty for an image.
	Manifests []ociv1.Descriptor
	// Config and Layers belong to an image.
	Config ociv1.Descriptor
	Layers []ociv1.Descriptor
	// Subject is what the manifest refers to, if anything.
	Subject *ociv1.Descriptor
	// Annotations are unverified words.
	Annotations map[string]string
}

// Blobs returns configuration and layers, each digest once.
func (m Manifest) Blobs() []ociv1.Descriptor {
	var out []ociv1.Descriptor
	if m.IsIndex() {
		return nil
	}
	for _, d := range append([]ociv1.Descriptor{m.Config}, m.Layers...) {
		if !slices.ContainsFunc(out, func(o ociv1.Descriptor) bool { return o.Digest == d.Digest }) {
			out = append(out, d)
		}
	}
	return out
}

// IsIndex reports whether the document is an index.
func (m Manifest) IsIndex() bool { return isIndex(m.MediaType) }

// IsManifestType reports whether mediaType is that of a manifest or index that can be read.
func IsManifestType(mediaType string) bool {
	return isIndex(mediaType) || mediaType == MediaTypeManifest || mediaType == mediaTypeDockerManifest
}

func isIndex(mediaType string) bool {
	return mediaType == MediaTypeIndex || mediaType == mediaTypeDockerIndex
}

// ManifestTypes lists the media types for which IsManifestType is true.
func ManifestTypes() []string {
	return []string{MediaTypeIndex, MediaTypeManifest, mediaTypeDockerIndex, mediaTypeDockerManifest}
}

// document is the JSON shape of a manifest and of an index.
type document struct {
	SchemaVersion int                 `json:"schemaVersion"`
	MediaType     string              `json:"mediaType"`
	Config        *ociv1.Descriptor   `json:"config"`
	Layers        *[]ociv1.Descriptor `json:"layers"`
	Manifests     *[]ociv1.Descriptor `json:"manifests"`
	Subject       *ociv1.Descriptor   `json:"subject"`
	Annotations   map[string]string   `json:"annotations"`
}

// ParseManifest reads a manifest or index that goes by mediaType. A document that could be read as the other kind is
// refused: one digest must mean one thing to every reader (CVE-2021-41190). Every error is a refusal of class Malformed.
func ParseManifest(mediaType string, data []byte) (Manifest, error) {
	if len(data) > MaxManifest {
		return Manifest{}, malformed("image manifest", "%d bytes, at most %d are allowed", len(data), MaxManifest)
	}
	if !IsManifestType(mediaType) {
		return Manifest{}, malformed("image manifest", "media type %q is not one of an image or index", clip(mediaType))
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return Manifest{}, malformed("image manifest", "%s", clip(err.Error()))
	}
	m := Manifest{MediaType: mediaType, Subject: doc.Subject, Annotations: doc.Annotations}
	switch {
	case doc.SchemaVersion != 2:
		return Manifest{}, malformed("image manifest", "schema version %d is not 2", doc.SchemaVersion)
	case doc.MediaType != "" && doc.MediaType != mediaType:
		return Manifest{}, malformed("image manifest", "it says that it is %q, it came as %q", clip(doc.MediaType), mediaType)
	case isIndex(mediaType) && (doc.Config != nil || doc.Layers != nil || doc.Manifests == nil):
		return Manifest{}, malformed("image index", "it has the members of an image")
	case !isIndex(mediaType) && (doc.Config == nil || doc.Manifests != nil):
		return Manifest{}, malformed("image manifest", "it has the members of an index")
	}
	var all []ociv1.Descriptor
	if isIndex(mediaType) {
		m.Manifests = *doc.Manifests
		if len(m.Manifests) > MaxManifests {
			return Manifest{}, malformed("image index", "%d manifests, at most %d are allowed", len(m.Manifests), MaxManifests)
		}
		all = m.Manifests
	} else {
		m.Config = *doc.Config
		if doc.Layers != nil {
			m.Layers = *doc.Layers
		}
		if len(m.Layers) > MaxLayers {
			return Manifest{}, malformed("image manifest", "%d layers, at most %d are allowed", len(m.Layers), MaxLayers)
		}
		all = append([]ociv1.Descriptor{m.Config}, m.Layers...)
	}
	if m.Subject != nil {
		all = append(slices.Clone(all), *m.Subject)
	}
	for _, d := range all {
		if _, err := digest.Parse(string(d.Digest)); err != nil {
			return Manifest{}, malformed("image manifest", "%w", err)
		}
		if d.Size < 0 {
			return Manifest{}, malformed("image manifest", "a size of %d bytes", d.Size)
		}
	}
	return m, nil
}

// DigestOf returns the digest of a descriptor that ParseManifest or Layout.Images has checked.
func DigestOf(d ociv1.Descriptor) (digest.SHA256, error) { return digest.Parse(string(d.Digest)) }

// Digest returns d as the specification's types have it.
func Digest(d digest.SHA256) godigest.Digest { return godigest.Digest(d.String()) }

// Platform returns "os/arch[/variant]", or "" if the descriptor names none.
func Platform(d ociv1.Descriptor) string {
	if d.Platform == nil || d.Platform.OS == "" {
		return ""
	}
	text := d.Platform.OS + "/" + d.Platform.Architecture
	if d.Platform.Variant != "" {
		text += "/" + d.Platform.Variant
	}
	return text
}

// IsFor reports whether the entry of an index is for the platform "os/arch[/variant]". An architecture without variant
// means its usual one (OCI image specification, "Platform Variants"): v8 for arm64, v7 for arm.
func IsFor(d ociv1.Descriptor, platform string) bool {
	have := Platform(d)
	return have != "" && usual(have) == usual(platform)
}

func usual(platform string) string {
	switch platform {
	case "linux/arm64/v8":
		return "linux/arm64"
	case "linux/arm":
		return "linux/arm/v7"
	}
	return platform
}

func malformed(checked, format string, args ...any) error {
	return refusal.New(refusal.Malformed, checked, format, args...)
}

func clip(s string) string {
	const most = 160
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
