// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/registry/registrytest"
)

func TestProbe(t *testing.T) {
	var calls []string
	client, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			path, _, _ := strings.Cut(r.URL.Path, "/uploads/")
			calls = append(calls, r.Method+" "+path)
			switch {
			case strings.Contains(path, "readonly"):
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"you may not push"}]}`)
			case strings.Contains(path, "full"):
				http.Error(w, "disk is full", http.StatusInsufficientStorage)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	if err := client.Probe(t.Context(), host+"/acme/gateway"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"POST /v2/acme/gateway/blobs", "DELETE /v2/acme/gateway/blobs"}; !slices.Equal(calls, want) {
		t.Errorf("requests %v, want %v", calls, want)
	}
	// A probe does not get in the way of a push.
	dir := filepath.Join(t.TempDir(), "layout")
	img := registry.Image{Repository: host + "/acme/gateway", Digest: registrytest.WriteImage(t, dir, "text")}
	if err := client.Push(t.Context(), img, dir, nil); err != nil {
		t.Error(err)
	}

	err := client.Probe(t.Context(), host+"/acme/readonly")
	if refusal.Of(err) != refusal.Unauthorised || !strings.Contains(err.Error(), "you may not push") {
		t.Errorf("read-only: %v", err)
	}
	if err := client.Probe(t.Context(), host+"/acme/full"); err == nil || !strings.Contains(err.Error(), "status 507") {
		t.Errorf("full: %v", err)
	}
	if err := client.Probe(t.Context(), "127.0.0.1:1/acme/gateway"); !errors.Is(err, registry.ErrUnreachable) {
		t.Errorf("unreachable: %v", err)
	}
	if err := client.Probe(t.Context(), "gateway"); err == nil {
		t.Error("a name without a registry is probed")
	}
}
