// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
)

// quick are limits under which a test does not wait for anything that it does not test.
var quick = Limits{Pause: time.Microsecond, MaxPause: time.Millisecond, Answer: 10 * time.Second, Grace: 10 * time.Second}

func client(t *testing.T, opt Options) *Client {
	t.Helper()
	if opt.Limits == (Limits{}) {
		opt.Limits = quick
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// content is more than one connection's worth of progress.
var content = bytes.Repeat([]byte("0123456789abcdef"), 20000)

// tearing serves content honestly, with a strong tag, but closes every connection after cut bytes.
func tearing(cut int64, requests *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(&cutting{w, cut}, r, "", time.Time{}, bytes.NewReader(content))
	}
}

type cutting struct {
	http.ResponseWriter
	left int64
}

func (c *cutting) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		n, _ := c.ResponseWriter.Write(p[:c.left])
		c.left -= int64(n)
		http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= int64(len(p))
	return c.ResponseWriter.Write(p)
}

func TestTornBodyIsContinued(t *testing.T) {
	var requests atomic.Int32
	url := serve(t, tearing(100000, &requests))
	for _, offset := range []int64{0, 1, 319999, 320000} {
		body, info, err := client(t, Options{}).Open(t.Context(), url, offset)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, content[offset:]) || info.Size != int64(len(content)) {
			t.Fatalf("from %d: %d of %d bytes", offset, len(data), info.Size)
		}
	}
	if n := requests.Load(); n != 4+4+1+1 {
		t.Fatalf("%d requests", n)
	}
	if _, _, err := client(t, Options{}).Open(t.Context(), url, 320001); !errors.Is(err, blob.ErrOffset) {
		t.Fatalf("behind the end: %v", err)
	}
	if _, _, err := client(t, Options{}).Open(t.Context(), url, -1); !errors.Is(err, blob.ErrOffset) {
		t.Fatalf("negative: %v", err)
	}
}

// lying answers the first request with the beginning of content and then breaks off; every further request goes to lie.
func lying(t *testing.T, lie http.HandlerFunc) string {
	var requests atomic.Int32
	honest := tearing(100000, &requests)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Load() == 0 {
			honest(w, r)
			return
		}
		if r.Header.Get("If-Range") != `"one"` {
			t.Errorf("request continues without its validator: %v", r.Header)
		}
		lie(w, r)
	})
}

func partial(w http.ResponseWriter, tag, span string, data []byte) {
	w.Header().Set("ETag", tag)
	w.Header().Set("Content-Range", span)
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(data) // a client that hangs up is what is tested
}

func TestLiesAboutTheRest(t *testing.T) {
	other := bytes.Repeat([]byte("x"), len(content))
	size := strconv.Itoa(len(content))
	start := func(r *http.Request) int {
		var n int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &n); err != nil {
			t.Errorf("range: %v", err)
		}
		return n
	}
	for name, c := range map[string]struct {
		lie  http.HandlerFunc
		want string // of the error; empty: the content arrives all the same
	}{
		"other content": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"two"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(other))
		}, "content changed"},
		"other tag on a range": {func(w http.ResponseWriter, r *http.Request) {
			n := start(r)
			partial(w, `"two"`, fmt.Sprintf("bytes %d-%d/%s", n, len(content)-1, size), other[n:])
		}, "content changed"},
		"other size": {func(w http.ResponseWriter, r *http.Request) {
			n := start(r)
			partial(w, `"one"`, fmt.Sprintf("bytes %d-%d/%d", n, len(content), len(content)+1), append(content[n:len(content):len(content)], 'x'))
		}, "content changed"},
		"wrong start": {func(w http.ResponseWriter, r *http.Request) {
			partial(w, `"one"`, "bytes 0-99/"+size, content[:100])
		}, "is not what was asked for"},
		"no range": {func(w http.ResponseWriter, r *http.Request) {
			partial(w, `"one"`, "", content[:100])
		}, "is not what was asked for"},
		"several ranges": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			partial(w, `"one"`, "", []byte("--x"))
		}, "is not what was asked for"},
		"huge range": {func(w http.ResponseWriter, r *http.Request) {
			partial(w, `"one"`, "bytes "+strings.Repeat("9", 30000)+"-1/2", nil)
		}, "is not what was asked for"},
		"ends before": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes */5")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, "content changed"},
		"gone": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) }, "404"},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusOK)
		}, "was not asked for"},
		"whole to a range": {func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			w.Header().Set("ETag", `"one"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		}, ""},
		"small ranges": {func(w http.ResponseWriter, r *http.Request) {
			n := start(r)
			end := min(n+resumeProgress, len(content))
			partial(w, `"one"`, fmt.Sprintf("bytes %d-%d/%s", n, end-1, size), content[n:end])
		}, ""},
		"nothing more": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"one"`)
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "broke off at byte 100000"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := client(t, Options{}).Get(t.Context(), lying(t, c.lie), 1<<20)
			if c.want == "" {
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestGivesUpOnAServerThatAlwaysBreaks(t *testing.T) {
	var requests atomic.Int32
	url := serve(t, tearing(10, &requests))
	_, err := client(t, Options{}).Get(t.Context(), url, 1<<20)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "broke off at byte 60") {
		t.Fatalf("got %v", err)
	}
	if n := requests.Load(); n != 6 {
		t.Fatalf("%d requests", n)
	}
}

func TestEndlessBody(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write(content)
		}
	})
	if _, err := client(t, Options{}).Get(t.Context(), url, 1000); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("get: %v", err)
	}
	limits := quick
	limits.MaxSize = 1 << 20
	body, info, err := client(t, Options{Limits: limits}).Open(t.Context(), url, 0)
	if err != nil || info.Size != -1 {
		t.Fatalf("%+v %v", info, err)
	}
	defer body.Close()
	if n, err := io.Copy(io.Discard, body); n != 1<<20 || !errors.Is(err, ErrTooLarge) {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

func TestAnnouncedTooLarge(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "1000000000000") })
	if _, err := client(t, Options{}).Get(t.Context(), url, 1000); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("get: %v", err)
	}
	if _, _, err := client(t, Options{}).Open(t.Context(), url, 0); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("open: %v", err)
	}
}

func TestSlowServers(t *testing.T) {
	limits := quick
	limits.Grace, limits.MinRate, limits.Resumes = 30*time.Millisecond, 1<<20, 1
	for name, h := range map[string]http.HandlerFunc{
		"drips": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000000")
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("x"))
				_ = http.NewResponseController(w).Flush()
				<-tick.C
			}
		},
		"stalls after a fast start": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000000")
			_, _ = w.Write(content)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client(t, Options{Limits: limits}).Get(t.Context(), serve(t, h), 1<<30)
			if !errors.Is(err, ErrSlow) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// A reader that takes its time is not a slow server.
func TestSlowReader(t *testing.T) {
	limits := quick
	limits.Grace, limits.MinRate = 20*time.Millisecond, 1<<30
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(content) })
	body, _, err := client(t, Options{Limits: limits}).Open(t.Context(), url, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	buf := make([]byte, 100)
	if _, err := io.ReadFull(body, buf); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * limits.Grace)
	if _, err := io.ReadFull(body, buf); err != nil {
		t.Fatal(err)
	}
}

func TestSilentServer(t *testing.T) {
	limits := quick
	limits.Answer, limits.Attempts = 20*time.Millisecond, 2
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	_, err := client(t, Options{Limits: limits}).Get(t.Context(), url, 100)
	if !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "attempt 2 of 2") {
		t.Fatalf("got %v", err)
	}
}

func TestRepeats(t *testing.T) {
	for name, c := range map[string]struct {
		status   int
		after    string
		requests int32
		ok       bool
	}{
		"overloaded":       {429, "0", 3, true},
		"no reason":        {500, "", 3, true},
		"bad gateway":      {502, "soon", 3, true},
		"comes back later": {503, "3600", 1, false},
		"not found":        {404, "0", 1, false},
		"unauthorised":     {401, "", 1, false},
		"not implemented":  {501, "", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) < 3 {
					if c.after != "" {
						w.Header().Set("Retry-After", c.after)
					}
					w.WriteHeader(c.status)
				}
			})
			_, err := client(t, Options{}).Get(t.Context(), url, 100)
			if (err == nil) != c.ok || requests.Load() != c.requests || !c.ok && Status(err) != c.status {
				t.Fatalf("%d requests, %v", requests.Load(), err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	const date = "Mon, 23 Nov 2026 08:00:00 GMT"
	for text, want := range map[string]time.Duration{
		"7": 7 * time.Second, "Mon, 23 Nov 2026 08:00:09 GMT": 9 * time.Second, "Mon, 23 Nov 2026 07:00:00 GMT": 0,
		"-1": -1, "x": -1, "99999999999999999999": -1, "": -1,
	} {
		got, ok := retryAfter(http.Header{"Retry-After": {text}, "Date": {date}})
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %s, %v", text, got, ok)
		}
	}
}

func TestUnreachableServerIsTriedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = client(t, Options{}).Get(t.Context(), url, 100)
	if err == nil || !strings.Contains(err.Error(), "refused (attempt 5 of 5)") {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client(t, Options{}).Get(ctx, url, 100); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	var elsewhere atomic.Int32
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		elsewhere.Add(1)
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went to another host")
		}
	})
	var loops atomic.Int32
	here := serve(t, func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{"/loop": "/loop", "/other": other, "/plain": "http://192.0.2.1/", "/file": "file:///etc/passwd"}[r.URL.Path]
		if r.URL.Path == "/loop" {
			loops.Add(1)
		}
		http.Redirect(w, r, to, http.StatusFound)
	})
	c := client(t, Options{})
	for path, want := range map[string]string{"/loop": "more than 5 redirects", "/plain": "plain http", "/file": "names no host"} {
		if _, err := c.Get(t.Context(), here+path, 100); !errors.Is(err, ErrTransport) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := loops.Load(); n != 6 {
		t.Errorf("%d requests in the loop", n)
	}
	if _, err := c.Get(t.Context(), here+"/other", 100); err != nil || elsewhere.Load() != 1 {
		t.Errorf("other: %v", err)
	}
	if _, err := client(t, Options{Token: "secret", Limits: quick}).Get(t.Context(), here+"/other", 100); !errors.Is(err, ErrTransport) {
		t.Errorf("with a token: %v", err)
	}
	_, err := c.Do(t.Context(), Request{Method: "POST", URL: here + "/other"})
	if Status(err) != http.StatusFound || elsewhere.Load() != 1 {
		t.Errorf("post: %v", err)
	}
}

func TestTLS(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) {})
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain, http.StatusFound)
		}
	}))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := client(t, Options{CAFile: file, Limits: quick})
	if _, err := c.Get(t.Context(), s.URL, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), s.URL+"/down", 100); !errors.Is(err, ErrTransport) || !strings.Contains(err.Error(), "from https to http") {
		t.Fatalf("downgrade: %v", err)
	}
	if _, err := client(t, Options{}).Get(t.Context(), s.URL, 100); err == nil || strings.Contains(err.Error(), "attempt") {
		t.Fatalf("unknown authority: %v", err)
	}
	if err := os.WriteFile(file, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{CAFile: file}); err == nil {
		t.Fatal("took a file without certificates")
	}
}

func TestCheckURL(t *testing.T) {
	for text, ok := range map[string]bool{
		"https://example.com/x": true, "http://127.0.0.1:1/": true, "http://localhost:1": true, "http://[::1]/": true,
		"http://example.com/": false, "http://10.0.0.1/": false, "http://localhost.example.com/": false, "ftp://example.com": false,
		"https://user:secret@example.com/": false, "https://": false, "": false, "/path": false, "://": false, "http://0.0.0.0/": false,
	} {
		_, err := CheckURL(text)
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %v", err)
		}
	}
}

func TestRequestBodyIsSentAgain(t *testing.T) {
	var requests atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil || string(data) != "body" || r.ContentLength != 4 {
			t.Errorf("%q %d %v", data, r.ContentLength, err)
		}
		if requests.Add(1) == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	})
	resp, err := client(t, Options{Token: "secret", Limits: quick}).Do(t.Context(), Request{
		Method: "PUT", URL: url, Size: 4, Body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := ReadBody(resp, 100); err != nil || string(data) != "Bearer secret" {
		t.Fatalf("%q %v", data, err)
	}
}

func TestRepository(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.EscapedPath() {
		case "/base/metadata/1.root.json":
			_, _ = io.WriteString(w, "root")
		case "/base/targets/p/1.0.0+b/x%25y":
			_, _ = io.WriteString(w, "target")
		case "/base/forbidden":
			w.WriteHeader(http.StatusForbidden)
		default:
			http.NotFound(w, r)
		}
	})
	r := Repository{client(t, Options{}), url + "/base/"}
	for name, want := range map[string]string{"metadata/1.root.json": "root", "targets/p/1.0.0+b/x%y": "target"} {
		body, info, err := r.Open(t.Context(), name, 0)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil || string(data) != want || info.Name != name || info.Size != int64(len(want)) {
			t.Fatalf("%s: %q %+v %v", name, data, info, err)
		}
	}
	for _, name := range []string{"missing", "forbidden"} {
		if _, _, err := r.Open(t.Context(), name, 0); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"../x", "/x", "a/../../x"} {
		if _, _, err := r.Open(t.Context(), name, 0); !errors.Is(err, blob.ErrName) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10", int64(5), int64(5))
	f.Add("bytes 5-9/*", int64(5), int64(-1))
	f.Fuzz(func(t *testing.T, text string, pos, length int64) {
		b := &body{pos: pos, size: -1}
		resp := &http.Response{Header: http.Header{"Content-Range": {text}}, ContentLength: length, Body: io.NopCloser(strings.NewReader(""))}
		size, err := b.contentRange(resp)
		if err == nil && (pos <= 0 || size >= 0 && size <= pos) {
			t.Fatalf("%q at %d: size %d", text, pos, size)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	data := make([]byte, 64<<20)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	b.Cleanup(s.Close)
	c, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	buf := make([]byte, 1<<20)
	for b.Loop() {
		body, _, err := c.Open(b.Context(), s.URL, 0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, body, buf); err != nil {
			b.Fatal(err)
		}
		body.Close()
	}
}
