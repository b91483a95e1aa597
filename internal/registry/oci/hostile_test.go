// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	ociv1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/registry/registrytest"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

var at = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func keysOf(signers ...sign.Signer) []*ecdsa.PublicKey {
	var keys []*ecdsa.PublicKey
	for _, s := range signers {
		keys = append(keys, s.PublicKey())
	}
	return keys
}

// pushed pushes a small image.
func pushed(t *testing.T, c *Client, host string, content ...string) registry.Image {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	img := registry.Image{Repository: host + "/acme/x", Digest: registrytest.WriteImage(t, dir, content...)}
	if err := c.Push(t.Context(), img, dir, nil); err != nil {
		t.Fatal(err)
	}
	return img
}

// attach attaches a bundle as a referrer, as any tool could.
func attach(t *testing.T, c *Client, img registry.Image, layer ociv1.Descriptor, data []byte) {
	t.Helper()
	repo, err := c.repo(img.Repository)
	if err != nil {
		t.Fatal(err)
	}
	m, raw, err := c.image(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	subject := layout.Describe(m.MediaType, raw)
	config := layout.Describe(ociv1.MediaTypeEmptyJSON, []byte("{}"))
	if err := c.putBlob(t.Context(), img.Repository, repo, config, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := c.putBlob(t.Context(), img.Repository, repo, layer, data); err != nil {
		t.Fatal(err)
	}
	manifest := ociv1.Manifest{MediaType: layout.MediaTypeManifest, ArtifactType: layer.MediaType, Config: config, Layers: []ociv1.Descriptor{layer}, Subject: &subject}
	manifest.SchemaVersion = 2
	text, err := layout.Encode(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Manifests().Push(t.Context(), layout.Describe(layout.MediaTypeManifest, text), bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

func attachBundle(t *testing.T, c *Client, img registry.Image, data []byte, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	attach(t, c, img, layout.Describe(bundle.MediaType, data), data)
}

// TestEvidenceIsNotARelease refuses an image that carries only attestations: it was never signed for release, whoever made
// them.
func TestEvidenceIsNotARelease(t *testing.T) {
	c, host := serve(t, nil)
	release, evidence := signtest.New(t), signtest.New(t)
	img := pushed(t, c, host, "content")
	for _, s := range []sign.Signer{evidence, release} {
		a, err := bundle.Attest(t.Context(), s, bundle.Attestation{
			Subject:       bundle.Subject{Name: "x", Digest: digest.Set{SHA256: img.Digest}},
			PredicateType: "https://example.com/scan-failed/v1", Predicate: []byte(`{"result":"FAILED"}`),
		})
		attachBundle(t, c, img, a, err)
	}
	found, err := c.Verify(t.Context(), keysOf(release), img)
	if refusal.Of(err) != refusal.Signature || len(found) != 2 {
		t.Fatalf("got %v, %v", found, err)
	}
	if !strings.Contains(err.Error(), "not signed for release") || !strings.Contains(err.Error(), "scan-failed") {
		t.Errorf("the words do not say why: %v", err)
	}
	if _, err := c.Verify(t.Context(), keysOf(evidence), img); refusal.Of(err) != refusal.Signature {
		t.Fatalf("got %v", err)
	}
}

// TestStrangersDoNotGetInTheWay attaches everything that others may attach, before and after signing.
func TestStrangersDoNotGetInTheWay(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{"without API": nil, "with API": registrytest.WithReferrers} {
		t.Run(name, func(t *testing.T) {
			c, host := serve(t, wrap)
			release, stranger := signtest.New(t), signtest.New(t)
			img := pushed(t, c, host, "content")
			clutter := func() {
				data, err := bundle.SignStatement(t.Context(), stranger, bundle.ImageStatement(img.Digest))
				attachBundle(t, c, img, data, err)
				data, err = bundle.SignStatement(t.Context(), stranger, bundle.ImageStatement(digest.Of([]byte("another image"))))
				attachBundle(t, c, img, data, err)
				data, err = bundle.SignBlob(t.Context(), release, img.Digest)
				attachBundle(t, c, img, data, err)
				attachBundle(t, c, img, []byte(`{"mediaType":"`+bundle.MediaType+`","verificationMaterial":{"certificate":{}}}`), nil)
				attachBundle(t, c, img, []byte("not a bundle"), nil)
				attachBundle(t, c, img, bytes.Repeat([]byte("x"), maxBundleBytes+1), nil)
				sbom := []byte(`{"bomFormat":"CycloneDX"}`)
				attach(t, c, img, layout.Describe("application/vnd.cyclonedx+json", sbom), sbom)
			}
			clutter()
			if _, err := c.Verify(t.Context(), keysOf(release), img); refusal.Of(err) != refusal.Signature {
				t.Fatalf("got %v", err)
			}
			if err := c.Sign(t.Context(), release, img, at); err != nil {
				t.Fatal(err)
			}
			clutter()
			found, err := c.Verify(t.Context(), keysOf(release), img)
			if err != nil || !found.Valid(registry.Bundle) || !found.Valid(registry.Simple) {
				t.Fatalf("got %v, %v", found, err)
			}
			before := len(found)
			if err := c.Sign(t.Context(), release, img, at); err != nil {
				t.Fatal(err)
			}
			if found, err := c.Verify(t.Context(), keysOf(release), img); err != nil || len(found) != before {
				t.Fatalf("%d, then %d signatures, %v", before, len(found), err)
			}
		})
	}
}

// TestOlderSignaturesOfOthersStay adds to a manifest that another tool wrote, with members that are unknown here.
func TestOlderSignaturesOfOthersStay(t *testing.T) {
	c, host := serve(t, nil)
	img := pushed(t, c, host, "content")
	repo, err := c.repo(img.Repository)
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte(`{"critical":{}}`)
	layer := layout.Describe(simpleType, payload)
	layer.Annotations = map[string]string{signatureAnnotation: "AAAA", "dev.sigstore.cosign/certificate": "PEM"}
	if err := c.putBlob(t.Context(), img.Repository, repo, layer, payload); err != nil {
		t.Fatal(err)
	}
	text, err := layout.Encode(layer)
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Replace(string(text), `{`, `{"x-unknown":[1],`, 1)
	config, err := simpleConfig([]ociv1.Descriptor{layer})
	if err != nil {
		t.Fatal(err)
	}
	configDesc := layout.Describe(ociv1.MediaTypeImageConfig, config)
	if err := c.putBlob(t.Context(), img.Repository, repo, configDesc, config); err != nil {
		t.Fatal(err)
	}
	configText, err := layout.Encode(configDesc)
	if err != nil {
		t.Fatal(err)
	}
	manifest := []byte(`{"schemaVersion":2,"mediaType":"` + layout.MediaTypeManifest + `","config":` + string(configText) + `,"layers":[` + theirs + `],"annotations":{"who":"them"}}`)
	err = repo.Manifests().PushReference(t.Context(), layout.Describe(layout.MediaTypeManifest, manifest), bytes.NewReader(manifest), simpleTag(img.Digest))
	if err != nil {
		t.Fatal(err)
	}
	s := signtest.New(t)
	if err := c.Sign(t.Context(), s, img, at); err != nil {
		t.Fatal(err)
	}
	m, data, err := c.simpleManifest(t.Context(), img)
	if err != nil || len(m.Layers) != 2 {
		t.Fatalf("got %s, %v", data, err)
	}
	if !bytes.Contains(data, []byte(theirs)) || !bytes.Contains(data, []byte(`"who":"them"`)) {
		t.Errorf("what they wrote was changed: %s", data)
	}
	if found, err := c.Verify(t.Context(), keysOf(s), img); err != nil || !found.Valid(registry.Simple) {
		t.Errorf("got %v, %v", found, err)
	}
}

// TestOneFormIsEnough hides one form behind errors, or puts something else in its place.
func TestOneFormIsEnough(t *testing.T) {
	var hide atomic.Pointer[regexp.Regexp]
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := hide.Load(); h != nil && h.MatchString(r.URL.Path) {
				http.Error(w, "", http.StatusTeapot)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	img := pushed(t, c, host, "content")
	s := signtest.New(t)
	if err := c.Sign(t.Context(), s, img, at); err != nil {
		t.Fatal(err)
	}
	for path, left := range map[string]registry.Form{`\.sig$`: registry.Bundle, `/manifests/sha256-[0-9a-f]+$`: registry.Simple} {
		hide.Store(regexp.MustCompile(path))
		if found, err := c.Verify(t.Context(), keysOf(s), img); err != nil || !found.Valid(left) || len(found) != 2 {
			t.Errorf("without %s: %v, %v", path, found, err)
		}
	}
	hide.Store(nil)
	repo, err := c.repo(img.Repository)
	if err != nil {
		t.Fatal(err)
	}
	index := []byte(`{"schemaVersion":2,"mediaType":"` + layout.MediaTypeIndex + `","manifests":[]}`)
	if err := repo.Manifests().PushReference(t.Context(), layout.Describe(layout.MediaTypeIndex, index), bytes.NewReader(index), simpleTag(img.Digest)); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Verify(t.Context(), keysOf(s), img); err != nil || !found.Valid(registry.Bundle) || found.Valid(registry.Simple) {
		t.Errorf("got %v, %v", found, err)
	}
	if err := c.Sign(t.Context(), s, img, at); refusal.Of(err) != refusal.Conflict {
		t.Errorf("overwrote what somebody has put there: %v", err)
	}
}

// TestReferrersAPIIsUsed leaves no tag behind where none is needed.
func TestReferrersAPIIsUsed(t *testing.T) {
	var tags atomic.Int64
	c, host := serve(t, func(next http.Handler) http.Handler {
		next = registrytest.WithReferrers(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if registrytest.IsFallbackTag(r.URL.Path) {
				tags.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	img := pushed(t, c, host, "content")
	s := signtest.New(t)
	if err := c.Sign(t.Context(), s, img, at); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Verify(t.Context(), keysOf(s), img); err != nil || !found.Valid(registry.Bundle) || tags.Load() != 0 {
		t.Errorf("%v, %v, %d requests for the tag", found, err, tags.Load())
	}
}

// TestManifestOfABundle compares what is written with what cosign writes, member by member.
func TestManifestOfABundle(t *testing.T) {
	c, host := serve(t, nil)
	img := pushed(t, c, host, "content")
	if err := c.Sign(t.Context(), signtest.New(t), img, at); err != nil {
		t.Fatal(err)
	}
	repo, err := c.repo(img.Repository)
	if err != nil {
		t.Fatal(err)
	}
	list, err := referrers(t.Context(), repo, img)
	if err != nil || len(list) != 1 || list[0].ArtifactType != bundle.MediaType {
		t.Fatalf("got %+v, %v", list, err)
	}
	where, err := layout.DigestOf(list[0])
	if err != nil {
		t.Fatal(err)
	}
	_, data, err := c.image(t.Context(), registry.Image{Repository: img.Repository, Digest: where})
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := c.image(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`"layers":\[\{"mediaType":"([^"]*)","digest":"sha256:[0-9a-f]{64}","size":[0-9]+\}\]`).ReplaceAllString(string(data), `"layers":["$1"]`)
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,` +
		`"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"},` +
		`"layers":["application/vnd.dev.sigstore.bundle.v0.3+json"],` +
		`"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + img.Digest.String() + `","size":` + fmt.Sprint(len(raw)) + `},` +
		`"annotations":{"dev.sigstore.bundle.content":"dsse-envelope","dev.sigstore.bundle.predicateType":"https://sigstore.dev/cosign/sign/v1",` +
		`"org.opencontainers.image.created":"2026-11-23T08:00:00Z"}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestTwoSignersAtOnce lets signers of separate processes race for the lists that each rewrites.
func TestTwoSignersAtOnce(t *testing.T) {
	first, host := serve(t, nil)
	img := pushed(t, first, host, "content")
	var signers []sign.Signer
	var running sync.WaitGroup
	errs := make(chan error, 2)
	for range cap(errs) {
		s := signtest.New(t)
		signers = append(signers, s)
		client := New(Options{DockerConfig: t.TempDir(), Pause: time.Millisecond})
		running.Go(func() { errs <- client.Sign(t.Context(), s, img, at) })
	}
	running.Wait()
	for range signers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	// A lost entry is possible between the check of one and the write of the other. Running it again mends it.
	for _, s := range signers {
		if err := first.Sign(t.Context(), s, img, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range signers {
		if found, err := first.Verify(t.Context(), keysOf(s), img); err != nil || !found.Valid(registry.Bundle) || !found.Valid(registry.Simple) {
			t.Errorf("found %v, %v", found, err)
		}
	}
}

// TestLostEntriesAreWrittenAgain drops the first writes of both lists, as another signer's write would.
func TestLostEntriesAreWrittenAgain(t *testing.T) {
	var dropped sync.Map
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && (registrytest.IsFallbackTag(r.URL.Path) || strings.HasSuffix(r.URL.Path, ".sig")) {
				if _, again := dropped.LoadOrStore(r.URL.Path, true); !again {
					data, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					w.Header().Set("Docker-Content-Digest", digest.Of(data).String())
					w.WriteHeader(http.StatusCreated)
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	img := pushed(t, c, host, "content")
	s := signtest.New(t)
	if err := c.Sign(t.Context(), s, img, at); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Verify(t.Context(), keysOf(s), img); err != nil || len(found) != 2 {
		t.Fatalf("found %v, %v", found, err)
	}
}

func TestAListThatNobodyKeepsIsAConflict(t *testing.T) {
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && registrytest.IsFallbackTag(r.URL.Path) {
				data, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				w.Header().Set("Docker-Content-Digest", digest.Of(data).String())
				w.WriteHeader(http.StatusCreated)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	img := pushed(t, c, host, "content")
	if err := c.Sign(t.Context(), signtest.New(t), img, at); refusal.Of(err) != refusal.Conflict {
		t.Fatalf("got %v", err)
	}
}

// TestLyingRegistry changes one byte of everything that is read.
func TestLyingRegistry(t *testing.T) {
	var lie atomic.Pointer[regexp.Regexp]
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if about := lie.Load(); about == nil || r.Method != http.MethodGet || !about.MatchString(r.URL.Path) {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			data := rec.Body.Bytes()
			if len(data) > 0 {
				data[len(data)-1] ^= 1
			}
			_, _ = w.Write(data)
		})
	})
	img := pushed(t, c, host, "some content")
	s := signtest.New(t)
	if err := c.Sign(t.Context(), s, img, at); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/manifests/sha256:" + img.Digest.Hex(), "/blobs/"} {
		lie.Store(regexp.MustCompile(path))
		dir := filepath.Join(t.TempDir(), "to")
		if _, err := c.Pull(t.Context(), img, dir, "", nil); refusal.Of(err) != refusal.Digest {
			t.Errorf("pull with changed %s: %v", path, err)
		}
		if l, err := layout.Open(dir); err == nil {
			if images, err := l.Images(); err != nil || len(images) != 0 {
				t.Errorf("the layout lists %v, %v", images, err)
			}
			l.Close()
		}
		lie.Store(nil)
		if _, err := c.Pull(t.Context(), img, dir, "", nil); err != nil {
			t.Errorf("pull after the lie: %v", err)
		}
	}
	// Signatures are read from blobs and manifests, by digest or by tag. Whatever is changed, nothing counts.
	lie.Store(regexp.MustCompile("/(manifests|blobs)/"))
	if found, err := c.Verify(t.Context(), keysOf(s), img); err == nil || found.Valid(registry.Bundle) || found.Valid(registry.Simple) {
		t.Errorf("verify: %v, %v", found, err)
	}
}

// TestPullGoesOn breaks every connection after some bytes, and asks for the rest.
func TestPullGoesOn(t *testing.T) {
	for name, ranges := range map[string]bool{"with ranges": true, "without ranges": false} {
		t.Run(name, func(t *testing.T) {
			var sent, asked atomic.Int64
			var breaking atomic.Bool
			c, host := serve(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || !breaking.Load() {
						next.ServeHTTP(w, r)
						return
					}
					if r.Header.Get("Range") != "" {
						asked.Add(1)
					}
					next.ServeHTTP(&breaker{ResponseWriter: w, left: 300 << 10, ranges: ranges, sent: &sent}, r)
				})
			})
			big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
			img := pushed(t, c, host, big, "small")
			breaking.Store(true)
			dir := filepath.Join(t.TempDir(), "to")
			var last, total int64
			_, err := c.Pull(t.Context(), img, dir, "", func(done, all int64) { last, total = done, all })
			if ranges {
				if err != nil {
					t.Fatal(err)
				}
				if last != total || asked.Load() < 3 {
					t.Fatalf("%d of %d bytes, %d times asked for the rest", last, total, asked.Load())
				}
				return
			}
			// Without ranges it never comes further than the first break: bounded, not endless.
			if err == nil || refusal.Of(err) != "" {
				t.Fatalf("got %v", err)
			}
			if sent.Load() > 20<<20 {
				t.Fatalf("read %d bytes for 1 MiB", sent.Load())
			}
			breaking.Store(false)
			if _, err := c.Pull(t.Context(), img, dir, "", nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

type breaker struct {
	http.ResponseWriter
	left   int
	ranges bool
	sent   *atomic.Int64
}

func (b *breaker) WriteHeader(status int) {
	if !b.ranges {
		b.Header().Del("Accept-Ranges")
	}
	b.ResponseWriter.WriteHeader(status)
}

func (b *breaker) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		panic(http.ErrAbortHandler)
	}
	b.sent.Add(int64(len(p)))
	return b.ResponseWriter.Write(p)
}

func TestStalledRegistryIsCutOff(t *testing.T) {
	released := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-released:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(released)
	c := New(Options{DockerConfig: t.TempDir(), Stall: 20 * time.Millisecond, Pause: time.Millisecond})
	_, err := c.Resolve(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/a", "v1")
	if !errors.Is(err, registry.ErrUnreachable) || !strings.Contains(err.Error(), "stopped sending") {
		t.Fatalf("got %v", err)
	}
}

func TestStalledBodyIsCutOff(t *testing.T) {
	var hang atomic.Bool
	released := make(chan struct{})
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !hang.Load() || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/blobs/"+digest.Of([]byte("content")).String()) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Length", "7")
			_, _ = w.Write([]byte("con"))
			w.(http.Flusher).Flush()
			select {
			case <-released:
			case <-r.Context().Done():
			}
		})
	})
	defer close(released)
	img := pushed(t, c, host, "content")
	hang.Store(true)
	impatient := New(Options{DockerConfig: t.TempDir(), Stall: 20 * time.Millisecond, Pause: time.Millisecond})
	if _, err := impatient.Pull(t.Context(), img, filepath.Join(t.TempDir(), "to"), "", nil); !errors.Is(err, errStalled) {
		t.Fatalf("got %v", err)
	}
}

func TestFlakyRegistry(t *testing.T) {
	var requests atomic.Int64
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1)%4 == 1 {
				http.Error(w, "try again", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	img := pushed(t, c, host, "one", "two", "three")
	s := signtest.New(t)
	if err := c.Sign(t.Context(), s, img, at); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(t.Context(), keysOf(s), img); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pull(t.Context(), img, filepath.Join(t.TempDir(), "to"), "", nil); err != nil {
		t.Fatal(err)
	}
}

// TestWhatCannotBeReadIsNotAbsent has a registry that hides signatures behind errors: that is not "unsigned", and not
// "signed" either.
func TestWhatCannotBeReadIsNotAbsent(t *testing.T) {
	var broken atomic.Bool
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() && strings.Contains(r.URL.Path, "/blobs/") {
				http.Error(w, "\x1b[31mno\x1b[0m", http.StatusTeapot)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	img := pushed(t, c, host, "content")
	s := signtest.New(t)
	if err := c.Sign(t.Context(), s, img, at); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	_, err := c.Verify(t.Context(), keysOf(s), img)
	if err == nil || refusal.Of(err) != "" || !strings.Contains(err.Error(), "status 418") {
		t.Fatalf("got %v", err)
	}
	if strings.ContainsRune(err.Error(), 0x1b) {
		t.Fatal("an escape sequence of the registry reaches the terminal")
	}
	if err := c.Sign(t.Context(), s, img, at); err == nil {
		t.Fatal("signed again without knowing")
	}
}

func TestUnauthorised(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:secret"))
	c, host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != basic {
				w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	dir := filepath.Join(t.TempDir(), "image")
	img := registry.Image{Repository: host + "/acme/x", Digest: registrytest.WriteImage(t, dir, strings.Repeat("large ", 1<<16))}

	config := func(user string) string {
		dir := t.TempDir()
		text := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user)))
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, client := range map[string]*Client{
		"nobody":         c,
		"wrong password": New(Options{DockerConfig: config("alice:wrong"), Pause: time.Millisecond}),
	} {
		err := client.Push(t.Context(), img, dir, nil)
		var r *refusal.Error
		if refusal.Of(err) != refusal.Unauthorised || !errors.As(err, &r) {
			t.Fatalf("%s: got %v", name, err)
		}
		if !strings.Contains(err.Error(), host) || !strings.Contains(r.Next, "docker login "+host) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: %v; %s", name, err, r.Next)
		}
	}
	alice := New(Options{DockerConfig: config("alice:secret"), Pause: time.Millisecond})
	if err := alice.Push(t.Context(), img, dir, nil); err != nil {
		t.Fatal(err)
	}

	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(Options{DockerConfig: broken}).Push(t.Context(), img, dir, nil); err == nil || !strings.Contains(err.Error(), "cannot read the credentials") {
		t.Errorf("got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	c := New(Options{DockerConfig: t.TempDir()})
	_, err = c.Resolve(t.Context(), host+"/a", "v1")
	if !errors.Is(err, registry.ErrUnreachable) || !strings.Contains(err.Error(), host) {
		t.Fatalf("got %v", err)
	}
}

// TestTLS is needed everywhere but on loopback, and is never left. The dialer leads every name to this machine.
func TestTLS(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer secure.Close()
	dialTo := func(server *httptest.Server) http.RoundTripper {
		base := secure.Client().Transport.(*http.Transport).Clone()
		base.DialContext = (&lead{server.Listener.Addr().String()}).dial
		return base
	}
	for name, c := range map[string]struct {
		server *httptest.Server
		words  string
	}{
		"plain HTTP": {plain, "plain HTTP"},
		"redirect":   {secure, "redirect from HTTPS to http"},
	} {
		client := New(Options{DockerConfig: t.TempDir(), Transport: dialTo(c.server)})
		_, err := client.Resolve(t.Context(), "example.com/a", "v1") // the name in the certificate of the test server
		if err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), "example.com") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestPushRefusesADamagedLayout reads before it sends.
func TestPushRefusesADamagedLayout(t *testing.T) {
	c, host := serve(t, nil)
	for name, damage := range map[string]func(path string) error{
		"missing blob":   os.Remove,
		"truncated blob": func(path string) error { return os.Truncate(path, 3) },
		"flipped byte":   func(path string) error { return os.WriteFile(path, []byte("Content"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "image")
			img := registry.Image{Repository: host + "/acme/damaged", Digest: registrytest.WriteImage(t, dir, "content")}
			if err := damage(filepath.Join(dir, "blobs", "sha256", digest.Of([]byte("content")).Hex())); err != nil {
				t.Fatal(err)
			}
			err := c.Push(t.Context(), img, dir, nil)
			if err == nil || name != "missing blob" && refusal.Of(err) != refusal.Digest {
				t.Fatalf("got %v", err)
			}
			if there, err := c.Exists(t.Context(), img); err != nil || there {
				t.Fatalf("the manifest is there: %v, %v", there, err)
			}
		})
	}
}

// TestNestedIndexesEnd refuses a chain of indexes that only costs time.
func TestNestedIndexesEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	registrytest.WriteImage(t, dir, "content")
	l, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := l.Images()
	if err != nil {
		t.Fatal(err)
	}
	desc := entries[0]
	for range maxIndexDepth + 1 {
		index := ociv1.Index{MediaType: layout.MediaTypeIndex, Manifests: []ociv1.Descriptor{desc}}
		index.SchemaVersion = 2
		data, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Write(data); err != nil {
			t.Fatal(err)
		}
		desc = layout.Describe(layout.MediaTypeIndex, data)
	}
	if err := errors.Join(l.Add(desc), l.Close()); err != nil {
		t.Fatal(err)
	}
	d, err := layout.DigestOf(desc)
	if err != nil {
		t.Fatal(err)
	}
	c, host := serve(t, nil)
	if err := c.Push(t.Context(), registry.Image{Repository: host + "/acme/x", Digest: d}, dir, nil); refusal.Of(err) != refusal.Malformed {
		t.Fatalf("got %v", err)
	}
}

// lead dials one address for every name.
type lead struct{ addr string }

func (l *lead) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, l.addr)
}
