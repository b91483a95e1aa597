// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/digest"
)

func TestParseReference(t *testing.T) {
	d := digest.Of([]byte("x"))
	for text, want := range map[string]Reference{
		"registry.example/a":                      {"registry.example/a", "", digest.SHA256{}},
		"registry.example/a/b-c/d:1.0.1":          {"registry.example/a/b-c/d", "1.0.1", digest.SHA256{}},
		"localhost/a":                             {"localhost/a", "", digest.SHA256{}},
		"127.0.0.1:5000/a:v1":                     {"127.0.0.1:5000/a", "v1", digest.SHA256{}},
		"[::1]:5000/a":                            {"[::1]:5000/a", "", digest.SHA256{}},
		"registry.example/a@" + d.String():        {"registry.example/a", "", d},
		"registry.example:443/a:v1@" + d.String(): {"registry.example:443/a", "v1", d},
	} {
		got, err := ParseReference(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if img, pinned := got.Image(); pinned != !want.Digest.IsZero() || pinned && img.Host() != Host(want.Repository) {
			t.Errorf("%s: image %v, %v", text, img, pinned)
		}
	}
	for _, text := range []string{
		"", "a", "acme/gateway", "https://registry.example/a", "registry.example", "registry.example/", "registry.example/A",
		"registry.example/a//b", "registry.example/../a", "registry.example/a:", "registry.example/a:-x", "registry.example/a@sha256:00",
		"registry.example/a@" + strings.ToUpper(d.String()), "user:secret@registry.example/a", "registry.example/a b", "registry.example/a:" + strings.Repeat("x", 129),
		"registry.example/" + strings.Repeat("a", MaxReference), "registry.example/a?b", "registry.example:port/a", "-registry.example/a",
	} {
		if got, err := ParseReference(text); err == nil {
			t.Errorf("%q: accepted as %+v", text, got)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]:80": true, "[::1]": true,
		"registry.example": false, "localhost.example": false, "127.0.0.1.example:80": false, "192.0.2.1:80": false, "0.0.0.0": false, "": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("registry.example:443/a/b:v1@sha256:" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReference(text)
		if err != nil {
			return
		}
		again := r.Repository
		if r.Tag != "" {
			again += ":" + r.Tag
		}
		if !r.Digest.IsZero() {
			again += "@" + r.Digest.String()
		}
		if again != text {
			t.Fatalf("%q became %q", text, again)
		}
	})
}
