// SPDX-License-Identifier: Apache-2.0

package remote_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/repository/remote"
)

// lying returns a client of a server that answers with h.
func lying(t *testing.T, h http.HandlerFunc) *remote.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := httpx.New(httpx.Options{Token: "secret", Limits: httpx.Limits{Pause: time.Microsecond, Attempts: 2}})
	must(t, err)
	t.Cleanup(c.Close)
	client, err := remote.New(c, s.URL+"/base/")
	must(t, err)
	return client
}

func TestHostileServers(t *testing.T) {
	data := []byte("0123456789")
	d := digest.Of(data)
	upload := func(offset, complete string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(repository.HeaderOffset, offset)
			w.Header().Set(repository.HeaderComplete, complete)
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}
	problem := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	stage := func(c *remote.Client) error { return c.Stage(t.Context(), d, 10, bytes.NewReader(data)) }
	publish := func(c *remote.Client) error { return c.Publish(t.Context(), "greeter", []byte("{}")) }
	metadata := func(c *remote.Client) error { _, err := c.Metadata(t.Context(), "greeter"); return err }
	for name, c := range map[string]struct {
		lie   http.HandlerFunc
		try   func(c *remote.Client) error
		class refusal.Class
		words string
	}{
		"offset behind the end":   {upload("11", "?0"), stage, "", `the server has "11" of 10 bytes`},
		"negative offset":         {upload("-1", "?0"), stage, "", `the server has "-1" of 10 bytes`},
		"no offset":               {upload("", "?0"), stage, "", `the server has "" of 10 bytes`},
		"takes bytes, keeps none": {upload("0", "?0"), stage, "", "it broke off 5 times at byte 0"},
		"refusal with escapes": {problem(409, `{"class":"conflict","checked":"a\u001b[2Jb","failed":"c\u0007d","next":"e\nf"}`), publish,
			refusal.Conflict, "a [2Jb: c d"},
		"refusal of an unknown class": {problem(409, `{"class":"cosmic","failed":"x"}`), publish, "", "409 Conflict"},
		"no reason":                   {problem(403, "<html>"), publish, refusal.Unauthorised, "403 Forbidden"},
		"no token":                    {problem(401, ""), metadata, refusal.Unauthorised, "401 Unauthorized"},
		"endless reason":              {problem(422, strings.Repeat("x", 1<<20)), publish, "", "422 Unprocessable Entity"},
		"redirect of a publication":   {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) }, publish, "", "302 Found"},
		"endless document": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		}, metadata, "", "body is over the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.try(lying(t, c.lie))
			if err == nil || refusal.Of(err) != c.class || !strings.Contains(err.Error(), c.words) || strings.ContainsAny(err.Error(), "\x1b\x07\n") || len(err.Error()) > 2000 {
				t.Fatalf("class %q: %v", refusal.Of(err), err)
			}
		})
	}
}

// TestPathsStayPaths: the name of a product cannot become another path.
func TestPathsStayPaths(t *testing.T) {
	var asked atomic.Value
	c := lying(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.EscapedPath())
		w.WriteHeader(http.StatusNotFound)
	})
	if err := c.Publish(t.Context(), "../../trust?x#y", []byte("{}")); httpx.Status(err) != 404 {
		t.Fatalf("got %v", err)
	}
	if got := asked.Load(); got != "/base/api/v1/publish/..%2F..%2Ftrust%3Fx%23y" {
		t.Fatalf("asked for %s", got)
	}
	asked.Store("")
	if _, err := c.Metadata(t.Context(), "../trust"); !errors.Is(err, blob.ErrNotExist) || asked.Load() != "" {
		t.Fatalf("metadata: %v, asked for %s", err, asked.Load())
	}
}

// TestBusyUpload: a server that still holds the same upload for a connection that is dead is waited for.
func TestBusyUpload(t *testing.T) {
	var puts atomic.Int32
	c := lying(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(repository.HeaderOffset, "4")
		w.Header().Set(repository.HeaderComplete, "?0")
		if r.Method != http.MethodPut {
			return
		}
		if puts.Add(1) < 4 {
			w.Header().Set("Retry-After", "3600") // longer than the client waits within one request
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "456789" || r.Header.Get("Content-Range") != "bytes 4-9/10" {
			t.Errorf("%q %v %v", body, r.Header, err)
		}
		w.WriteHeader(http.StatusCreated)
	})
	data := []byte("0123456789")
	must(t, c.Stage(t.Context(), digest.Of(data), 10, bytes.NewReader(data)))
	if puts.Load() != 4 {
		t.Fatalf("%d uploads", puts.Load())
	}
}

func TestOnlyHTTPS(t *testing.T) {
	c, err := httpx.New(httpx.Options{})
	must(t, err)
	if _, err := remote.New(c, "http://updates.example.com"); !errors.Is(err, httpx.ErrTransport) {
		t.Fatalf("got %v", err)
	}
}
