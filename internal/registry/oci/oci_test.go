// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/registry/embedded"
	"github.com/pawl-project/pawl/internal/registry/registrytest"
)

// serve runs a registry behind wrap and returns a client for it.
func serve(t *testing.T, wrap func(http.Handler) http.Handler) (*Client, string) {
	t.Helper()
	handler, stop, err := embedded.Handler("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if wrap != nil {
		handler = wrap(handler)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // tests break connections on purpose
	server.Start()
	t.Cleanup(server.Close)
	return New(Options{DockerConfig: t.TempDir(), Pause: time.Millisecond}), strings.TrimPrefix(server.URL, "http://")
}

func TestContract(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"without referrers API": nil,
		"with referrers API":    registrytest.WithReferrers,
		"referrers API answers 405": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/referrers/") {
					http.Error(w, `{"errors":[{"code":"UNSUPPORTED"}]}`, http.StatusMethodNotAllowed)
					return
				}
				next.ServeHTTP(w, r)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) (registry.Registry, string) { return serve(t, wrap) })
		})
	}
}
