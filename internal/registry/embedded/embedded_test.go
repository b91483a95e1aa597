// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestStartAndStop(t *testing.T) {
	r, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if status := get(t, "http://"+r.Host()+"/v2/"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if status := get(t, "http://"+r.Host()+"/v2/a/referrers/sha256:"+strings.Repeat("0", 64)); status != http.StatusNotFound {
		t.Fatalf("the referrers API answers %d", status)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := http.Get("http://" + r.Host() + "/v2/"); err == nil {
		t.Fatal("still listens")
	}
}

func TestStartInAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "content")
	for range 2 { // a second start serves the same folder
		r, err := Start(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartRefuses(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "localhost", "registry.example:80"} {
		if r, err := Start(t.Context(), Options{Addr: addr}); err == nil {
			t.Errorf("%s: listens on %s", addr, r.Host())
		}
	}
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	r, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	body, hold := io.Pipe()
	defer hold.Close()
	req, err := http.NewRequest(http.MethodPost, "http://"+r.Host()+"/v2/a/blobs/uploads/", body)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	if _, err := hold.Write([]byte("x")); err != nil { // the request is under way
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = r.Close(ctx) // whether it had to cut the request off is not decided here
	hold.Close()
	<-ended
}

func TestQuiet(t *testing.T) {
	_, stop, err := Handler("")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if logrus.StandardLogger().Out != io.Discard {
		t.Fatal("the registry writes a log")
	}
}

func get(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
