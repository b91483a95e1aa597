// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/blob/blobtest"
	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/repository/remote"
	"github.com/pawl-project/pawl/internal/repository/repositorytest"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/store/sqlite"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
)

const product = repositorytest.Product

// world is a server with its maker.
type world struct {
	*Server
	t     *testing.T
	maker *repositorytest.Maker
	repo  *repository.Repository
	blobs blob.Store
	store *sqlite.Store
	url   string
}

func newWorld(t *testing.T, m *repositorytest.Maker, blobs blob.Store, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, maker: m, blobs: blobs}
	now := func() time.Time { return m.Now }
	var err error
	w.repo, err = repository.Create(t.Context(), blobs, m.Roots(), m.TopTargets(), m.Online, repository.Options{Now: now})
	must(t, err)
	w.store, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "pawl.db"))
	must(t, err)
	t.Cleanup(func() { must(t, w.store.Close()) })
	opt := Options{Repository: w.repo, Blobs: blobs, Store: w.store, Now: now}
	if change != nil {
		change(&opt)
	}
	w.Server, err = New(opt)
	must(t, err)
	s := httptest.NewServer(w.Server)
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

func (w *world) token(name string, products ...string) string {
	w.t.Helper()
	token, secret, err := store.NewToken(name, products, w.maker.Now)
	must(w.t, err)
	must(w.t, w.store.AddToken(w.t.Context(), token))
	return secret
}

// publisher is the HTTP client with a token.
func (w *world) publisher(token string) *remote.Client {
	w.t.Helper()
	c, err := httpx.New(httpx.Options{Token: token, Limits: httpx.Limits{Pause: time.Microsecond, RetryAfter: time.Nanosecond}})
	must(w.t, err)
	w.t.Cleanup(c.Close)
	p, err := remote.New(c, w.url)
	must(w.t, err)
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestContract runs the contract of a publisher over HTTP.
func TestContract(t *testing.T) {
	repositorytest.Run(t, func(t *testing.T, m *repositorytest.Maker) repositorytest.Env {
		w := newWorld(t, m, blobtest.NewMemory(), nil)
		return repositorytest.Env{First: w.publisher(w.token("first")), Second: w.publisher(w.token("second")), Blobs: w.blobs}
	})
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (w *world) do(method, path string, body io.Reader, header ...string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	must(w.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	must(w.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return reply{resp.StatusCode, resp.Header, data}
}

func stores(t *testing.T) map[string]blob.Store {
	s, err := folder.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return map[string]blob.Store{"folder": s, "store without seeking": blobtest.NewMemory()}
}

func TestFiles(t *testing.T) {
	for name, blobs := range stores(t) {
		t.Run(name, func(t *testing.T) {
			m := repositorytest.NewMaker(t)
			w := newWorld(t, m, blobs, nil)
			d := m.Release(w.repo, "1.0.0")
			path := trust.TargetPath(product, d.Statement.Version, product)
			data := d.Files[path]
			url := "/" + trust.BlobName(path, digest.Of(data))

			whole := w.do("GET", url, nil)
			if whole.status != 200 || !bytes.Equal(whole.body, data) || whole.header.Get("Content-Length") != fmt.Sprint(len(data)) ||
				whole.header.Get("Accept-Ranges") != "bytes" || whole.header.Get("Cache-Control") != immutable || whole.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Fatalf("whole: %d %v", whole.status, whole.header)
			}
			tag := whole.header.Get("ETag")
			if tag != `"`+digest.Of(data).Hex()+`"` {
				t.Fatalf("tag %s", tag)
			}
			for what, c := range map[string]struct {
				header []string
				status int
				body   string
			}{
				"rest":              {[]string{"Range", "bytes=5-"}, 206, string(data[5:])},
				"rest of the same":  {[]string{"Range", "bytes=5-", "If-Range", tag}, 206, string(data[5:])},
				"rest of another":   {[]string{"Range", "bytes=5-", "If-Range", `"other"`}, 200, string(data)},
				"last bytes":        {[]string{"Range", "bytes=-3"}, 206, string(data[len(data)-3:])},
				"behind the end":    {[]string{"Range", "bytes=1000-"}, 416, ""},
				"known already":     {[]string{"If-None-Match", tag}, 304, ""},
				"range in nonsense": {[]string{"Range", "bytes=x"}, 416, ""},
			} {
				got := w.do("GET", url, nil, c.header...)
				if got.status != c.status || c.status < 300 && string(got.body) != c.body {
					t.Errorf("%s: %d %q", what, got.status, got.body)
				}
			}
			head := w.do("HEAD", url, nil)
			if head.status != 200 || len(head.body) != 0 || head.header.Get("Content-Length") != fmt.Sprint(len(data)) || head.header.Get("ETag") != tag {
				t.Errorf("HEAD: %d %v", head.status, head.header)
			}
			stamp := w.do("GET", "/metadata/timestamp.json", nil, "Accept-Encoding", "gzip")
			if stamp.status != 200 || stamp.header.Get("Cache-Control") != "no-cache" || stamp.header.Get("Content-Type") != "application/json" ||
				stamp.header.Get("Content-Encoding") != "" || stamp.header.Get("Content-Length") != fmt.Sprint(len(stamp.body)) {
				t.Errorf("timestamp: %d %v", stamp.status, stamp.header)
			}
			if got := w.do("GET", "/metadata/1.root.json", nil); got.status != 200 || got.header.Get("Cache-Control") != immutable {
				t.Errorf("root: %d %v", got.status, got.header)
			}
			before := stamp.header.Get("ETag")
			_, err := w.repo.Refresh(t.Context())
			must(t, err)
			if got := w.do("GET", "/metadata/timestamp.json", nil, "If-None-Match", before); got.status != 200 {
				t.Errorf("new timestamp: %d", got.status)
			}
		})
	}
}

// Only what is public is served, whatever the path says.
func TestNothingElseIsServed(t *testing.T) {
	m := repositorytest.NewMaker(t)
	dir := t.TempDir()
	blobs, err := folder.Open(dir)
	must(t, err)
	defer blobs.Close()
	w := newWorld(t, m, blobs, nil)
	secret := []byte("not published yet")
	must(t, w.repo.Stage(t.Context(), digest.Of(secret), int64(len(secret)), bytes.NewReader(secret)))
	name := digest.Of(secret).Hex()
	for _, path := range []string{
		"/staging/" + name, "/staging/commit", "/targets/../staging/" + name, "/targets/%2e%2e/staging/" + name, "/targets/..%2fstaging%2f" + name,
		"/metadata/..%2f..%2f..%2f..%2fetc/passwd", "/metadata//etc/passwd", "/metadata/", "/targets/", "/targets/" + product, "/metadata/.lock", "/.lock",
		"/metadata/2.root.json", "/targets/" + product + "/1.0.0/release.sigstore.json", "/metadata/" + strings.Repeat("a", 5000), "/metadata/%00", "/metadata/a%5cb", "/pawl.db",
	} {
		got := w.do("GET", path, nil)
		if got.status != 404 && got.status != 301 && got.status != 307 || bytes.Contains(got.body, secret) {
			t.Errorf("%.60s: %d %.40q", path, got.status, got.body)
		}
		if got.status == 404 && strings.Contains(got.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%.60s: may be kept for ever: %v", path, got.header)
		}
	}
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH", "TRACE"} {
		if got := w.do(method, "/metadata/timestamp.json", nil); got.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, got.status)
		}
	}
}

// A device refreshes over HTTP and downloads with a broken connection in between.
func TestDevice(t *testing.T) {
	m := repositorytest.NewMaker(t)
	w := newWorld(t, m, blobtest.NewMemory(), nil)
	d := m.Release(w.repo, "1.0.0")
	c, err := httpx.New(httpx.Options{})
	must(t, err)
	defer c.Close()
	src := httpx.Repository{Client: c, Base: w.url}
	cat, err := catalog.Refresh(t.Context(), src, catalog.Memory{}, catalog.Options{Now: m.Now, Root: m.Roots()[0]})
	must(t, err)
	releases := cat.Releases(product)
	if len(releases) != 1 {
		t.Fatalf("%d releases", len(releases))
	}
	_, err = cat.Release(t.Context(), releases[0])
	must(t, err)
	path := trust.TargetPath(product, d.Statement.Version, product)
	for offset := range int64(len(d.Files[path])) {
		body, err := cat.OpenTarget(t.Context(), path, offset)
		must(t, err)
		rest, err := io.ReadAll(body)
		must(t, errors.Join(err, body.Close()))
		if !bytes.Equal(rest, d.Files[path][offset:]) {
			t.Fatalf("from %d: %q", offset, rest)
		}
	}
}

func TestTokens(t *testing.T) {
	m := repositorytest.NewMaker(t)
	w := newWorld(t, m, blobtest.NewMemory(), func(o *Options) { o.Limits.Refused = 4 })
	good, other, revoked := w.token("good", product), w.token("other", "other"), w.token("revoked")
	id, _ := store.TokenID(revoked)
	must(t, w.store.RevokeToken(t.Context(), id, m.Now))
	flipped := good[:len(good)-1] + string(good[len(good)-1]^1)
	for _, c := range []struct {
		name, token, path string
		status            int
	}{
		{"no token", "", repository.PathPublish + product, 401},
		{"not a token", "secret", repository.PathPublish + product, 401},
		{"one character differs", flipped, repository.PathPublish + product, 401},
		{"revoked", revoked, repository.PathPublish + product, 401},
		{"other product", other, repository.PathPublish + product, 403},
		{"trust with a token for one product", good, repository.PathTrust, 403},
		{"metadata of another product", other, repository.PathPublish + product, 403},
		{"good", good, repository.PathPublish + product, 400}, // the role is garbage, and that is found out
	} {
		got := w.do("POST", c.path, strings.NewReader("{}"), "Authorization", "Bearer "+c.token)
		if got.status != c.status {
			t.Errorf("%s: %d %s", c.name, got.status, got.body)
		}
		if (c.status == 401) != (got.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %v", c.name, got.header)
		}
	}
	events, err := w.store.Events(t.Context(), 0)
	must(t, err)
	if len(events) != 4+1 {
		t.Errorf("%d events: %+v", len(events), events)
	}
	for _, e := range events {
		text := fmt.Sprint(e)
		if strings.Contains(text, "secret") || strings.Contains(text, good[len(good)-20:]) {
			t.Errorf("a secret is written down: %s", text)
		}
	}
	if text := string(w.do("GET", "/metrics", nil).body); !strings.Contains(text, "pawl_refused_callers_total 7") {
		t.Error("the metric does not count refused callers")
	}
	err = w.publisher(other).Publish(t.Context(), product, []byte("{}"))
	if refusal.Of(err) != refusal.Unauthorised || !strings.Contains(err.Error(), "it is for product other") {
		t.Errorf("the client says %v", err)
	}
	tokens, err := w.store.Tokens(t.Context())
	must(t, err)
	for _, token := range tokens {
		if used := !token.LastUsed.IsZero(); used != (token.Name != "revoked") {
			t.Errorf("%s: used %v", token.Name, token.LastUsed)
		}
	}
}

func TestUploadGoesOn(t *testing.T) {
	m := repositorytest.NewMaker(t)
	w := newWorld(t, m, blobtest.NewMemory(), nil)
	data := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	d, size := digest.Of(data), int64(len(data))
	auth := []string{"Authorization", "Bearer " + w.token("ci")}
	put := func(first, last int64, body io.Reader) reply {
		return w.do("PUT", repository.PathStaging+d.Hex(), body, append(auth, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))...)
	}
	if got := put(0, 99_999, bytes.NewReader(data[:100_000])); got.status != 202 || got.header.Get("Upload-Offset") != "100000" {
		t.Fatalf("first piece: %d %v", got.status, got.header)
	}
	if got := put(0, size-1, bytes.NewReader(data)); got.status != 409 || got.header.Get("Upload-Offset") != "100000" {
		t.Fatalf("wrong offset: %d %v", got.status, got.header)
	}
	for _, span := range []string{"bytes 0-1", "bytes 5-1/9", "bytes -1-5/9", "bytes 0-9/9", "bytes 0-99/999999999999999999999", strings.Repeat("9", 1000)} {
		got := w.do("PUT", repository.PathStaging+d.Hex(), strings.NewReader("x"), append(auth, "Content-Range", span)...)
		if got.status != 400 {
			t.Errorf("%.30q: %d %s", span, got.status, got.body)
		}
	}
	if got := w.do("HEAD", repository.PathStaging+"nothex?size=5", nil, auth...); got.status != 400 {
		t.Errorf("bad name: %d", got.status)
	}
	// A source that cannot go back begins where the server stands.
	must(t, w.publisher(auth[1][len("Bearer "):]).Stage(t.Context(), d, size, iotest.HalfReader(bytes.NewReader(data))))
	if _, done, err := w.repo.Staged(t.Context(), d, size); !done || err != nil {
		t.Fatalf("done %v, %v", done, err)
	}

	// Damaged bytes are found out at the end, forgotten, and can be sent again.
	bad := bytes.Clone(data)
	bad[7] ^= 1
	sum := digest.Of(append(data, 'x'))
	p := w.publisher(auth[1][len("Bearer "):])
	if err := p.Stage(t.Context(), sum, size+1, bytes.NewReader(append(bad, 'x'))); refusal.Of(err) != refusal.Digest {
		t.Fatalf("damaged: %v", err)
	}
	must(t, p.Stage(t.Context(), sum, size+1, bytes.NewReader(append(data, 'x'))))
}

// breaking closes the connection of every upload after some bytes.
type breaking struct {
	next http.Handler
	mu   sync.Mutex
	puts int // guarded by mu
}

func (b *breaking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		b.mu.Lock()
		b.puts++
		n := b.puts
		b.mu.Unlock()
		if n <= 3 {
			r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 50_000), iotest.ErrReader(errors.New("broken"))))
			b.next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
	}
	b.next.ServeHTTP(w, r)
}

func TestBrokenUploadGoesOn(t *testing.T) {
	m := repositorytest.NewMaker(t)
	w := newWorld(t, m, blobtest.NewMemory(), nil)
	b := &breaking{next: w.Server}
	s := httptest.NewServer(b)
	defer s.Close()
	w.url = s.URL
	data := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	must(t, w.publisher(w.token("ci")).Stage(t.Context(), digest.Of(data), int64(len(data)), bytes.NewReader(data)))
	if b.puts != 4 {
		t.Fatalf("%d uploads", b.puts)
	}
}

func TestReports(t *testing.T) {
	m := repositorytest.NewMaker(t)
	w := newWorld(t, m, blobtest.NewMemory(), func(o *Options) { o.Limits.Reports = 9 })
	good := `{"device":"gw-1","product":"greeter","version":"1.0.0","digest":"` + digest.Of(nil).String() + `","securityVersion":1,"state":"confirmed","at":"2026-11-23T08:00:00Z"}`
	refused := strings.Replace(good, `"state":"confirmed"`, `"state":"fell-back","refusal":{"class":"unhealthy","text":"no answer"}`, 1)
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"good", good, 204}, {"the same again", good, 204}, {"with a refusal", refused, 204}, {"garbage", "no", 400},
		{"more than is asked for", strings.Replace(good, "{", `{"serialNumber":"1",`, 1), 400},
		{"unknown product", strings.Replace(good, "greeter", "other", 1), 422},
		{"unknown state", strings.Replace(good, "confirmed", "happy", 1), 400},
		{"huge", good + strings.Repeat(" ", maxReport), 413},
		{"says when it arrived", strings.Replace(good, "{", `{"received":"2026-11-23T08:00:00Z",`, 1), 400},
		{"too many", good, 429},
	} {
		if got := w.do("POST", "/api/v1/reports", strings.NewReader(c.body)); got.status != c.status {
			t.Errorf("%s: %d %s", c.name, got.status, got.body)
		}
	}
	latest, err := w.store.Latest(t.Context(), product, "")
	must(t, err)
	if len(latest) != 1 || latest[0].State != store.FellBack || latest[0].Refusal.Class != refusal.Unhealthy || !latest[0].Received.Equal(m.Now) {
		t.Fatalf("latest: %+v", latest)
	}
}

func TestOverload(t *testing.T) {
	m := repositorytest.NewMaker(t)
	w := newWorld(t, m, blobtest.NewMemory(), func(o *Options) { o.Limits.Requests = 1 })
	w.requests <- struct{}{} // somebody else is being served
	got := w.do("GET", "/metadata/timestamp.json", nil)
	if got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Fatalf("%d %v", got.status, got.header)
	}
	<-w.requests
	if got := w.do("GET", "/metadata/timestamp.json", nil); got.status != 200 {
		t.Fatalf("afterwards: %d", got.status)
	}
}

func TestPageHealthMetrics(t *testing.T) {
	m := repositorytest.NewMaker(t)
	w := newWorld(t, m, blobtest.NewMemory(), nil)
	if got := w.do("GET", "/", nil); got.status != 200 || !bytes.Contains(got.body, []byte("Nothing has been released yet")) {
		t.Fatalf("page: %d %s", got.status, got.body)
	}
	p := w.publisher(w.token("ci"))
	for i := range newest + 1 {
		m.Release(p, fmt.Sprintf("1.0.%d", i))
	}
	got := w.do("GET", "/", nil)
	if !bytes.Contains(got.body, []byte("<td>1.0.5</td>")) || bytes.Contains(got.body, []byte("<td>1.0.0</td>")) || bytes.Contains(got.body, []byte("class=\"problem\"")) {
		t.Fatalf("page:\n%s", got.body)
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
	} {
		if !strings.HasPrefix(got.header.Get(name), want) {
			t.Errorf("%s: %q", name, got.header.Get(name))
		}
	}
	ask := func() (int, health) {
		got := w.do("GET", "/healthz", nil)
		var h health
		must(t, json.Unmarshal(got.body, &h))
		return got.status, h
	}
	if status, h := ask(); status != 200 || h.Status != "ok" || h.Timestamp.Version != 7 {
		t.Fatalf("health: %d %+v", status, h)
	}
	metrics := string(w.do("GET", "/metrics", nil).body)
	for _, want := range []string{
		`pawl_healthy 1`, fmt.Sprintf("pawl_timestamp_expires_seconds %g", float64(m.Now.AddDate(0, 0, 7).Unix())),
		`pawl_changes_total{action="publish",outcome="done"} 6`, `pawl_http_requests_total{area="page",status="200"} 2`, "go_goroutines",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	// Nobody renews for five days: the page, the health and the metrics say so before devices refuse; then they say that
	// devices refuse.
	for _, days := range []int{5, 3} {
		m.Now = m.Now.AddDate(0, 0, days)
		status, h := ask()
		if status != 500 || h.Status != "failing" || len(h.Problems) == 0 {
			t.Fatalf("after %d days: %d %+v", days, status, h)
		}
		if page := w.do("GET", "/", nil); !bytes.Contains(page.body, []byte("the timestamp")) {
			t.Errorf("the page is silent: %s", page.body)
		}
		if text := string(w.do("GET", "/metrics", nil).body); !strings.Contains(text, "pawl_healthy 0") {
			t.Error("the metrics are silent")
		}
	}
	_, err := w.repo.Refresh(t.Context())
	must(t, err)
	if status, h := ask(); status != 200 || h.Status != "ok" {
		t.Fatalf("after renewal: %d %+v", status, h)
	}
	m.Now = m.Now.AddDate(0, 11, 0)
	_, err = w.repo.Refresh(t.Context())
	must(t, err)
	if status, h := ask(); status != 200 || h.Status != "ok" || !strings.Contains(strings.Join(h.Warnings, " "), "targets ends on") {
		t.Fatalf("a month before the targets expire: %d %+v", status, h)
	}
}

// failing signs until it is told not to.
type failing struct {
	trusttest.Key
	mu   sync.Mutex
	fail bool // guarded by mu
}

func (f *failing) SignDigest(ctx context.Context, d digest.SHA256) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail {
		return nil, errors.New("the key is gone")
	}
	return f.Key.SignDigest(ctx, d)
}

func (f *failing) set(fail bool) {
	f.mu.Lock()
	f.fail = fail
	f.mu.Unlock()
}

// TestRenewal lets two months pass: the timestamp is renewed daily, a failure is loud and repeated, and the end of the
// failure is quiet again.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := repositorytest.NewMaker(t)
		key := &failing{Key: m.Online}
		began := time.Now()
		now := func() time.Time { return m.Now.Add(time.Since(began)) }
		blobs := blobtest.NewMemory()
		repo, err := repository.Create(t.Context(), blobs, m.Roots(), m.TopTargets(), sign.Signer(key), repository.Options{Now: now})
		must(t, err)
		s, err := New(Options{Repository: repo, Blobs: blobs, Store: &forgetful{}, Now: now})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.keep(ctx, s.Upkeep(ctx)) })
		pass := func(d time.Duration) {
			timer := time.NewTimer(d)
			<-timer.C
			synctest.Wait()
		}
		version := func() int64 {
			summary, err := repo.Summary(ctx)
			must(t, err)
			return summary.Timestamp.Version
		}
		pass(10 * 24 * time.Hour)
		if v := version(); v < 5 || v > 6 {
			t.Fatalf("version %d after ten days", v)
		}
		if h := s.health(ctx); h.Status != "ok" {
			t.Fatalf("%+v", h)
		}
		before := version()
		key.set(true)
		pass(60 * time.Hour)
		if h := s.health(ctx); h.Status != "failing" || !strings.Contains(h.Problems[0], "are not renewed") {
			t.Fatalf("%+v", h)
		}
		if version() != before {
			t.Fatal("renewed without a key")
		}
		key.set(false)
		pass(time.Hour)
		if h := s.health(ctx); h.Status != "ok" || version() != before+1 {
			t.Fatalf("%+v, version %d", h, version())
		}
		cancel()
		running.Wait()
	})
}

// forgetful is a store for the clock test, where a database with its own threads has no place.
type forgetful struct{ store.Store }

func (*forgetful) AddEvent(context.Context, store.Event) error { return nil }
func (*forgetful) Forget(context.Context, time.Time) error     { return nil }
func (*forgetful) Token(context.Context, string) (store.Token, error) {
	return store.Token{}, store.ErrNotExist
}

// TestShutdown ends the server while a client downloads slowly: the download is finished first.
func TestShutdown(t *testing.T) {
	m := repositorytest.NewMaker(t)
	blobs := blobtest.NewMemory()
	w := newWorld(t, m, blobs, nil)
	big := bytes.Repeat([]byte("x"), 32<<20) // more than sockets buffer
	name := "targets/greeter/1.0.0/" + digest.Of(big).Hex() + ".big"
	must(t, blobs.Create(t.Context(), name, bytes.NewReader(big)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, l, nil) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/" + name)
	must(t, err)
	defer resp.Body.Close()
	first := make([]byte, 1000)
	_, err = io.ReadFull(resp.Body, first)
	must(t, err)
	stop()
	// The listener is closed when new connections are refused; the running transfer goes on.
	for {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("ended during a transfer: %v", err)
	default:
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != int64(len(big)-len(first)) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	http.DefaultClient.CloseIdleConnections()
	must(t, <-ended)
}

// TestSlowClients: who does not send, or does not read, is cut off.
func TestSlowClients(t *testing.T) {
	m := repositorytest.NewMaker(t)
	blobs := blobtest.NewMemory()
	w := newWorld(t, m, blobs, func(o *Options) {
		o.Limits.Header, o.Limits.Body, o.Limits.Stall = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	})
	big := bytes.Repeat([]byte("x"), 32<<20)
	name := "targets/greeter/1.0.0/" + digest.Of(big).Hex() + ".big"
	must(t, blobs.Create(t.Context(), name, bytes.NewReader(big)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go w.Run(ctx, l, nil) //nolint:errcheck // ends with the test
	secret := w.token("ci")
	for what, request := range map[string]string{
		"half a header":       "GET / HTTP/1.1\r\nHost: x\r\n",
		"half a body":         "POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"half an upload":      "PUT /api/v1/staging/" + digest.Of(big).Hex() + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\nContent-Range: bytes 0-99/100\r\nContent-Length: 100\r\n\r\nx",
		"header without end":  "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*maxHeader),
		"does not read reply": "GET /" + name + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			c, err := net.Dial("tcp", l.Addr().String())
			must(t, err)
			defer c.Close()
			_, err = io.WriteString(c, request)
			must(t, err)
			if what == "does not read reply" {
				waitFor(t, func() bool { return len(w.requests) > 0 })
				waitFor(t, func() bool { return len(w.requests) == 0 })
			}
			// The server ends the connection by itself.
			n, err := io.Copy(io.Discard, c)
			if n >= int64(len(big)) {
				t.Fatalf("%d bytes, %v", n, err)
			}
		})
	}
	// What had arrived of the upload is kept.
	waitFor(t, func() bool {
		n, _, err := w.repo.Staged(t.Context(), digest.Of(big), 100)
		return n == 1 && err == nil
	})
}

// waitFor waits for a condition, for as long as the test may run.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatal("it never happened")
		case <-tick.C:
		}
	}
}

func TestThrottle(t *testing.T) {
	var one throttle
	for i, c := range []struct {
		at int
		ok bool
	}{{0, true}, {1, true}, {59, false}, {60, true}, {61, true}, {62, false}, {-5000, true}, {119, true}} {
		if got := one.allow(time.Unix(int64(60_000+c.at), 0), 2); got != c.ok {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func BenchmarkTimestamp(b *testing.B) {
	m := repositorytest.NewMaker(b)
	blobs, err := folder.Open(b.TempDir())
	must(b, err)
	defer blobs.Close()
	now := func() time.Time { return m.Now }
	repo, err := repository.Create(b.Context(), blobs, m.Roots(), m.TopTargets(), m.Online, repository.Options{Now: now})
	must(b, err)
	s, err := New(Options{Repository: repo, Blobs: blobs, Store: &forgetful{}, Now: now})
	must(b, err)
	for b.Loop() {
		r := httptest.NewRequest("GET", "/metadata/timestamp.json", nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
