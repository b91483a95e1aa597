// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	json "github.com/go-json-experiment/json"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/layout"
)

var (
	manifestPath  = regexp.MustCompile(`^/v2/(.+)/manifests/[^/]+$`)
	referrersPath = regexp.MustCompile(`^/v2/(.+)/referrers/(sha256:[0-9a-f]{64})$`)
)

// WithReferrers puts the referrers API in front of a registry that does not have it (distribution specification 1.1,
// "Listing Referrers").
func WithReferrers(next http.Handler) http.Handler {
	return &referrers{next: next, list: map[string][]ociv1.Descriptor{}}
}

type referrers struct {
	next http.Handler

	mu   sync.Mutex
	list map[string][]ociv1.Descriptor // by "repository@subject"; guarded by mu
}

func (h *referrers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m := referrersPath.FindStringSubmatch(r.URL.Path); m != nil && r.Method == http.MethodGet {
		h.mu.Lock()
		index := ociv1.Index{MediaType: layout.MediaTypeIndex, Manifests: slices.Clone(h.list[m[1]+"@"+m[2]])}
		h.mu.Unlock()
		index.SchemaVersion = 2
		if index.Manifests == nil {
			index.Manifests = []ociv1.Descriptor{}
		}
		data, err := layout.Encode(index)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", layout.MediaTypeIndex)
		_, _ = w.Write(data) // the client sees a short answer by itself
		return
	}
	m := manifestPath.FindStringSubmatch(r.URL.Path)
	if m == nil || r.Method != http.MethodPut {
		h.next.ServeHTTP(w, r)
		return
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, layout.MaxManifest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var manifest ociv1.Manifest
	if err := json.Unmarshal(data, &manifest); err == nil && manifest.Subject != nil {
		w.Header().Set("OCI-Subject", string(manifest.Subject.Digest))
		desc := layout.Describe(manifest.MediaType, data)
		desc.ArtifactType, desc.Annotations = manifest.ArtifactType, manifest.Annotations
		key := m[1] + "@" + string(manifest.Subject.Digest)
		h.mu.Lock()
		if !slices.ContainsFunc(h.list[key], func(o ociv1.Descriptor) bool { return o.Digest == desc.Digest }) {
			h.list[key] = append(h.list[key], desc)
		}
		h.mu.Unlock()
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	h.next.ServeHTTP(w, r)
}

// IsFallbackTag reports whether the path is that of the tag that stands in for the referrers API.
func IsFallbackTag(path string) bool {
	_, tag, ok := strings.Cut(path, "/manifests/sha256-")
	return ok && !strings.HasSuffix(tag, ".sig")
}
