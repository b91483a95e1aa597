// SPDX-License-Identifier: Apache-2.0

package remote_test

import (
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/repository/remote"
	"github.com/pawl-project/pawl/internal/repository/repositorytest"
	"github.com/pawl-project/pawl/internal/serve"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/store/sqlite"
)

// TestContract runs the contract of a publisher through HTTP, against the real server.
func TestContract(t *testing.T) {
	repositorytest.Run(t, func(t *testing.T, m *repositorytest.Maker) repositorytest.Env {
		s := start(t, m)
		return repositorytest.Env{First: s.client(t, s.secret), Second: s.client(t, s.secret), Blobs: s.blobs}
	})
}

type world struct {
	*httptest.Server
	blobs  *folder.Store
	store  store.Store
	secret string
}

// start starts a server with the empty repository of a maker.
func start(t *testing.T, m *repositorytest.Maker) *world {
	t.Helper()
	now := func() time.Time { return m.Now }
	blobs, err := folder.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, blobs.Close()) })
	repo, err := repository.Create(t.Context(), blobs, m.Roots(), m.TopTargets(), m.Online, repository.Options{Now: now})
	must(t, err)
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "pawl.db"))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	engine, err := serve.New(serve.Options{Repository: repo, Blobs: blobs, Store: db, Now: now})
	must(t, err)
	w := &world{Server: httptest.NewServer(engine), blobs: blobs, store: db}
	t.Cleanup(w.Close)
	w.secret = w.token(t, m)
	return w
}

func (w *world) token(t *testing.T, m *repositorytest.Maker, products ...string) string {
	t.Helper()
	token, secret, err := store.NewToken("token", products, m.Now)
	must(t, err)
	must(t, w.store.AddToken(t.Context(), token))
	return secret
}

func (w *world) client(t *testing.T, secret string) *remote.Client {
	t.Helper()
	h, err := httpx.New(httpx.Options{Token: secret, Limits: httpx.Limits{Pause: time.Millisecond, MaxPause: 10 * time.Millisecond, RetryAfter: time.Second}})
	must(t, err)
	t.Cleanup(h.Close)
	c, err := remote.New(h, w.URL)
	must(t, err)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
