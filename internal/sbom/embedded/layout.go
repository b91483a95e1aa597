// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/sbom"
)

// Limits on an OCI layout.
const (
	maxManifest  = 4 << 20 // bytes of a manifest or index (OCI distribution specification, "Pushing Manifests")
	maxLayers    = 512
	maxPlatforms = 64
)

// Media types of before the OCI specification, which images still carry.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// lookIntoLayout looks into the image, or into all images of the index, that the subject's digest names.
func (w *work) lookIntoLayout(src sbom.Source) ([]evidence.Component, error) {
	root, err := os.OpenRoot(src.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return w.manifest(root, src.Subject.Digest.SHA256, "", 0)
}

// manifest looks into a manifest or an index. prefix is "" or "linux/arm64:", for locations.
func (w *work) manifest(root *os.Root, d digest.SHA256, prefix string, depth int) ([]evidence.Component, error) {
	data, err := readBlob(root, d)
	if err != nil {
		return nil, err
	}
	var doc struct {
		MediaType string             `json:"mediaType"`
		Config    ociv1.Descriptor   `json:"config"`
		Layers    []ociv1.Descriptor `json:"layers"`
		Manifests []ociv1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, malformed("manifest %s: %w", d, err)
	}
	switch doc.MediaType {
	case ociv1.MediaTypeImageManifest, dockerManifest:
	case ociv1.MediaTypeImageIndex, dockerList:
		return w.index(root, doc.Manifests, depth)
	case "": // the field is recommended only (OCI image specification, "Image Manifest")
		if len(doc.Manifests) > 0 {
			return w.index(root, doc.Manifests, depth)
		}
	default:
		return nil, fmt.Errorf("media type %q: %w", clip(doc.MediaType, 80), sbom.ErrUnsupported)
	}
	if len(doc.Layers) > maxLayers {
		return nil, malformed("manifest %s: %d layers, at most %d are allowed", d, len(doc.Layers), maxLayers)
	}
	return w.image(root, doc.Layers, prefix)
}

func (w *work) index(root *os.Root, list []ociv1.Descriptor, depth int) ([]evidence.Component, error) {
	if depth > 0 {
		return nil, malformed("an index within an index")
	}
	if len(list) > maxPlatforms {
		return nil, malformed("%d images in an index, at most %d are allowed", len(list), maxPlatforms)
	}
	var all []evidence.Component
	images := 0
	for _, m := range list {
		prefix := ""
		if p := m.Platform; p != nil {
			if p.OS == "unknown" && p.Architecture == "unknown" {
				continue // how build tools mark attestations
			}
			prefix = path.Join(p.OS, p.Architecture, p.Variant) + ":"
		}
		d, err := digest.Parse(string(m.Digest))
		if err != nil {
			return nil, malformed("index: %w", err)
		}
		found, err := w.manifest(root, d, prefix, depth+1)
		if err != nil {
			return nil, err
		}
		images++
		all = append(all, found...)
	}
	if images == 0 {
		return nil, fmt.Errorf("an index without images: %w", sbom.ErrUnsupported)
	}
	return all, nil
}

// image looks into what a container of the image would see. Layers are read from the top down, so that a file which an
// upper layer replaces or removes (OCI image specification, "Whiteouts") is never looked at, and nothing has to be
// written to disk in order to be removed again.
func (w *work) image(root *os.Root, layers []ociv1.Descriptor, prefix string) ([]evidence.Component, error) {
	c := w.collector(prefix, 0)
	upper := newCover()
	for _, layer := range slices.Backward(layers) {
		if !strings.Contains(layer.MediaType, "tar") {
			return nil, fmt.Errorf("layer of media type %q: %w", clip(layer.MediaType, 80), sbom.ErrUnsupported)
		}
		own := newCover()
		if err := w.layer(root, layer, c, upper, own); err != nil {
			return nil, err
		}
		upper.add(own)
	}
	return c.finish()
}

// layer reads one layer to its end and checks its digest.
func (w *work) layer(root *os.Root, layer ociv1.Descriptor, c *collector, upper, own *cover) error {
	d, err := digest.Parse(string(layer.Digest))
	if err != nil {
		return malformed("layer: %w", err)
	}
	f, err := openBlob(root, d)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	blob := bufio.NewReaderSize(io.TeeReader(f, hash), 256<<10)
	head, err := blob.Peek(sniffLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	k := sniff(head)
	r, err := w.inflate(k, blob)
	if err != nil {
		return err
	}
	defer r.Close()
	err = w.eachTar(r, func(h *tar.Header, name string, r io.Reader) error {
		base := path.Base(name)
		switch {
		case base == ".wh..wh..opq":
			own.emptied[path.Dir(name)] = true
			return nil
		case strings.HasPrefix(base, ".wh."):
			own.hidden[path.Join(path.Dir(name), strings.TrimPrefix(base, ".wh."))] = true
			return nil
		case upper.covers(name):
			return nil
		case h.Typeflag == tar.TypeDir:
			return nil
		}
		own.hidden[name] = true
		switch {
		case h.Typeflag == tar.TypeReg:
			return c.file(name, h.Size, r)
		case h.Typeflag == tar.TypeLink && keeps(name):
			// The content came under another name, under which nobody knew that it would be needed.
			c.note("%s%s: a package list as a hard link is not read", c.prefix, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// What follows the end of the archive is hashed as well.
	if _, err := io.Copy(io.Discard, blob); err != nil {
		return err
	}
	if got := digest.SHA256(hash.Sum(nil)); got != d {
		return malformed("layer %s: its bytes are %s", d, got)
	}
	return nil
}

// cover is what upper layers hide from lower ones.
type cover struct {
	hidden  map[string]bool // names that exist above, or are removed; what lies below them is hidden too
	emptied map[string]bool // folders whose lower content is hidden
}

func newCover() *cover { return &cover{hidden: map[string]bool{}, emptied: map[string]bool{}} }

// add puts the cover of a layer under this one.
func (c *cover) add(other *cover) {
	for name := range other.hidden {
		c.hidden[name] = true
	}
	for name := range other.emptied {
		c.emptied[name] = true
	}
}

// covers reports whether name in a lower layer is not seen any more.
func (c *cover) covers(name string) bool {
	if c.hidden[name] {
		return true
	}
	for name != "." {
		name = path.Dir(name)
		if c.hidden[name] || c.emptied[name] {
			return true
		}
	}
	return false
}

func openBlob(root *os.Root, d digest.SHA256) (*os.File, error) {
	f, err := root.Open(filepath.Join("blobs", "sha256", d.Hex()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, malformed("%s is not in the layout", d)
	}
	return f, err
}

// readBlob reads a small blob and checks its digest.
func readBlob(root *os.Root, d digest.SHA256) ([]byte, error) {
	f, err := openBlob(root, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, malformed("%s: more than %d bytes", d, maxManifest)
	}
	if got := digest.Of(data); got != d {
		return nil, malformed("%s: its bytes are %s", d, got)
	}
	return data, nil
}
