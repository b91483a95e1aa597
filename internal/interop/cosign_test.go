// SPDX-License-Identifier: Apache-2.0

//go:build interop

package interop

import (
	"bytes"
	"crypto/ecdsa"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/build/image"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/registry/embedded"
	"github.com/pawl-project/pawl/internal/registry/oci"
	"github.com/pawl-project/pawl/internal/registry/registrytest"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

const password = "correct horse battery staple"

// bench is a folder with a key pair, in which cosign runs.
type bench struct {
	t       *testing.T
	program string
	dir     string
	signer  *keyfile.Signer
	keys    []*ecdsa.PublicKey
}

// newBench makes a key pair with pawl's code: every test shows as well that cosign can use it.
func newBench(t *testing.T) *bench {
	t.Helper()
	program := os.Getenv("PAWL_COSIGN")
	if program == "" {
		var err error
		if program, err = filepath.Abs("../../.cache/bin/cosign"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("cosign is missing: run tools/cosign/install, or set PAWL_COSIGN (%v)", err)
	}
	b := &bench{t: t, program: program, dir: t.TempDir()}
	private, public, err := keyfile.Generate([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	b.write("pawl.key", private)
	b.write("pawl.pub", public)
	b.signer, b.keys = b.open("pawl")
	// The signing config of `cosign signing-config create`: no services.
	b.write("nothing.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}`))
	return b
}

func (b *bench) write(name string, data []byte) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *bench) read(name string) []byte {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// open opens the key pair NAME.key and NAME.pub.
func (b *bench) open(name string) (*keyfile.Signer, []*ecdsa.PublicKey) {
	b.t.Helper()
	s, err := keyfile.Open(b.read(name+".key"), []byte(password))
	if err != nil {
		b.t.Fatal(err)
	}
	public, err := sign.ParsePublicKey(b.read(name + ".pub"))
	if err != nil || !public.Equal(s.PublicKey()) {
		b.t.Fatalf("%s.pub is not the public half of %s.key: %v", name, name, err)
	}
	return s, []*ecdsa.PublicKey{public}
}

// cosign runs cosign and returns whether it said yes. Only the exit status counts: its words are not a format.
func (b *bench) cosign(args ...string) (bool, string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), b.program, args...)
	cmd.Dir = b.dir
	cmd.Env = []string{"HOME=" + b.dir, "TUF_ROOT=" + b.dir, "COSIGN_PASSWORD=" + password, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		b.t.Fatal(err)
	}
	return err == nil, string(out)
}

func (b *bench) accepts(args ...string) {
	b.t.Helper()
	if ok, out := b.cosign(args...); !ok {
		b.t.Errorf("cosign %s: refused\n%s", strings.Join(args, " "), out)
	}
}

func (b *bench) refuses(args ...string) {
	b.t.Helper()
	if ok, out := b.cosign(args...); ok {
		b.t.Errorf("cosign %s: accepted\n%s", strings.Join(args, " "), out)
	}
}

// flip returns data with one bit changed.
func flip(data []byte) []byte {
	out := bytes.Clone(data)
	out[len(out)-1] ^= 1
	return out
}

func TestKeys(t *testing.T) {
	b := newBench(t)
	b.accepts("public-key", "--key", "pawl.key")
	if _, out := b.cosign("public-key", "--key", "pawl.key"); !strings.Contains(out, string(b.read("pawl.pub"))) {
		t.Errorf("cosign reads another public key:\n%s", out)
	}
	b.accepts("generate-key-pair", "--output-key-prefix", "theirs")
	signer, _ := b.open("theirs")
	signed, err := bundle.SignBlob(t.Context(), signer, digest.Of([]byte("file")))
	if err != nil {
		t.Fatal(err)
	}
	b.write("file", []byte("file"))
	b.write("file.sigstore.json", signed)
	b.accepts("verify-blob", "--key", "theirs.pub", "--bundle", "file.sigstore.json", "--insecure-ignore-tlog", "file")
	b.refuses("verify-blob", "--key", "pawl.pub", "--bundle", "file.sigstore.json", "--insecure-ignore-tlog", "file")
	if _, err := keyfile.Open(b.read("theirs.key"), []byte("another password")); refusal.Of(err) != refusal.Key {
		t.Errorf("got %v", err)
	}
}

func TestBlobOfOurs(t *testing.T) {
	b := newBench(t)
	file := bytes.Repeat([]byte("firmware"), 1<<17)
	b.write("firmware.bin", file)
	signed, err := bundle.SignBlob(t.Context(), b.signer, digest.Of(file))
	if err != nil {
		t.Fatal(err)
	}
	b.write("firmware.bin.sigstore.json", signed)
	verify := []string{"verify-blob", "--key", "pawl.pub", "--insecure-ignore-tlog", "--bundle"}
	b.accepts(append(verify, "firmware.bin.sigstore.json", "firmware.bin")...)
	b.write("flipped.bin", flip(file))
	b.refuses(append(verify, "firmware.bin.sigstore.json", "flipped.bin")...)

	other, err := bundle.SignBlob(t.Context(), b.signer, digest.Of(flip(file)))
	if err != nil {
		t.Fatal(err)
	}
	b.write("other.sigstore.json", other)
	b.refuses(append(verify, "other.sigstore.json", "firmware.bin")...)
}

func TestBlobOfTheirs(t *testing.T) {
	b := newBench(t)
	file := []byte("firmware")
	b.write("firmware.bin", file)
	b.accepts("sign-blob", "--yes", "--key", "pawl.key", "--signing-config", "nothing.json", "--bundle", "out.json", "firmware.bin")
	parsed, err := bundle.Parse(b.read("out.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.VerifyBlob(b.keys, digest.Of(file)); err != nil {
		t.Error(err)
	}
	if err := parsed.VerifyBlob(b.keys, digest.Of(flip(file))); refusal.Of(err) != refusal.Digest {
		t.Errorf("got %v", err)
	}
	if hint, err := sign.Hint(b.keys[0]); err != nil || parsed.Hint() != hint {
		t.Errorf("it names its key %q, we %q", parsed.Hint(), hint)
	}
}

func TestAttestationOfOurs(t *testing.T) {
	b := newBench(t)
	file := []byte("firmware")
	b.write("firmware.bin", file)
	b.write("flipped.bin", flip(file))
	signed, err := bundle.Attest(t.Context(), b.signer, bundle.Attestation{
		Subject: bundle.Subject{Name: "firmware.bin", Digest: digest.SetOf(file)}, PredicateType: "https://cyclonedx.org/bom",
		Predicate: []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.write("sbom.sigstore.json", signed)
	verify := []string{"verify-blob-attestation", "--key", "pawl.pub", "--insecure-ignore-tlog", "--bundle", "sbom.sigstore.json", "--type"}
	b.accepts(append(verify, "cyclonedx", "firmware.bin")...)
	b.accepts(append(verify, "https://cyclonedx.org/bom", "firmware.bin")...)
	b.refuses(append(verify, "spdxjson", "firmware.bin")...)
	b.refuses(append(verify, "cyclonedx", "flipped.bin")...)
}

func TestAttestationOfTheirs(t *testing.T) {
	b := newBench(t)
	file := []byte("firmware")
	b.write("firmware.bin", file)
	b.write("predicate.json", []byte(`{"result":"passed"}`))
	b.accepts("attest-blob", "--yes", "--key", "pawl.key", "--signing-config", "nothing.json", "--type", "https://example.com/test/v1",
		"--predicate", "predicate.json", "--bundle", "out.json", "firmware.bin")
	parsed, err := bundle.Parse(b.read("out.json"))
	if err != nil {
		t.Fatal(err)
	}
	predicate, err := parsed.VerifyAttestation(b.keys, "https://example.com/test/v1", digest.Of(file))
	if err != nil || string(predicate) != `{"result":"passed"}` {
		t.Errorf("got %s, %v", predicate, err)
	}
	if _, err := parsed.VerifyAttestation(b.keys, "https://example.com/test/v1", digest.Of(flip(file))); refusal.Of(err) != refusal.Digest {
		t.Errorf("got %v", err)
	}
}

// shelf is a registry with an image for two platforms.
type shelf struct {
	client *oci.Client
	index  registry.Image
	one    registry.Image // the image for linux/arm64
	other  registry.Image // never signed
}

func newShelf(t *testing.T, wrap func(http.Handler) http.Handler) shelf {
	t.Helper()
	handler, stop, err := embedded.Handler("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	server := httptest.NewServer(wrap(handler))
	t.Cleanup(server.Close)
	repository := strings.TrimPrefix(server.URL, "http://") + "/acme/gateway"
	s := shelf{client: oci.New(oci.Options{DockerConfig: t.TempDir()})}

	dir := filepath.Join(t.TempDir(), "index")
	s.index = registry.Image{Repository: repository, Digest: registrytest.WriteIndex(t, dir, "content", "amd64", "arm64")}
	if err := s.client.Push(t.Context(), s.index, dir, nil); err != nil {
		t.Fatal(err)
	}
	if s.one, err = s.client.Pull(t.Context(), s.index, filepath.Join(t.TempDir(), "one"), "linux/arm64", nil); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "other")
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	made, err := image.Write(t.Context(), dir, image.Spec{Platform: "linux/amd64", Files: []image.File{{Path: program, To: "/program"}}, Entrypoint: []string{"/program"}})
	if err != nil {
		t.Fatal(err)
	}
	s.other = registry.Image{Repository: repository, Digest: made.Digest}
	if err := s.client.Push(t.Context(), s.other, dir, nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// shelves are the two kinds of registries.
func shelves(t *testing.T, test func(t *testing.T, s shelf)) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"without referrers API": func(h http.Handler) http.Handler { return h },
		"with referrers API":    registrytest.WithReferrers,
	} {
		t.Run(name, func(t *testing.T) { test(t, newShelf(t, wrap)) })
	}
}

// verify are the two ways in which cosign looks for signatures of images.
func verify(newFormat bool, key string) []string {
	if newFormat {
		return []string{"verify", "--insecure-ignore-tlog", "--key", key}
	}
	return []string{"verify", "--insecure-ignore-tlog", "--new-bundle-format=false", "--key", key}
}

func TestImageOfOurs(t *testing.T) {
	shelves(t, func(t *testing.T, s shelf) {
		b := newBench(t)
		b.accepts("generate-key-pair", "--output-key-prefix", "stranger")
		at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
		if err := s.client.Sign(t.Context(), b.signer, s.index, at); err != nil {
			t.Fatal(err)
		}
		check := func() {
			t.Helper()
			for _, newFormat := range []bool{true, false} {
				for _, img := range []registry.Image{s.index, s.one} {
					b.accepts(append(verify(newFormat, "pawl.pub"), img.String())...)
				}
				b.refuses(append(verify(newFormat, "pawl.pub"), s.other.String())...)
			}
		}
		check()
		b.refuses(append(verify(true, "stranger.pub"), s.index.String())...)
		b.refuses(append(verify(false, "stranger.pub"), s.index.String())...)

		// A stranger signs beside us, with cosign, in both forms. Everybody still finds their own.
		b.accepts("sign", "--yes", "--key", "stranger.key", "--signing-config", "nothing.json", s.index.String())
		b.accepts("sign", "--yes", "--key", "stranger.key", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false", s.index.String())
		check()
		b.accepts(append(verify(true, "stranger.pub"), s.index.String())...)
		b.accepts(append(verify(false, "stranger.pub"), s.index.String())...)
		found, err := s.client.Verify(t.Context(), b.keys, s.index)
		if err != nil || len(found) != 4 || !found.Valid(registry.Bundle) || !found.Valid(registry.Simple) {
			t.Errorf("found %v, %v", found, err)
		}
		// Signing again adds nothing to what cosign has written meanwhile.
		if err := s.client.Sign(t.Context(), b.signer, s.index, at); err != nil {
			t.Fatal(err)
		}
		if again, err := s.client.Verify(t.Context(), b.keys, s.index); err != nil || len(again) != len(found) {
			t.Errorf("found %v, %v", again, err)
		}
		// We sign where only the stranger has signed before.
		b.accepts("sign", "--yes", "--key", "stranger.key", "--signing-config", "nothing.json", s.other.String())
		b.accepts("sign", "--yes", "--key", "stranger.key", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false", s.other.String())
		if err := s.client.Sign(t.Context(), b.signer, s.other, at); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"pawl.pub", "stranger.pub"} {
			b.accepts(append(verify(true, key), s.other.String())...)
			b.accepts(append(verify(false, key), s.other.String())...)
		}
	})
}

func TestImageOfTheirs(t *testing.T) {
	shelves(t, func(t *testing.T, s shelf) {
		b := newBench(t)
		b.accepts("sign", "--yes", "--key", "pawl.key", "--signing-config", "nothing.json", s.index.String())
		found, err := s.client.Verify(t.Context(), b.keys, s.index)
		if err != nil || !found.Valid(registry.Bundle) || found.Valid(registry.Simple) {
			t.Errorf("new form: %v, %v", found, err)
		}
		b.accepts("sign", "--yes", "--key", "pawl.key", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false", s.one.String())
		found, err = s.client.Verify(t.Context(), b.keys, s.one)
		if err != nil || found.Valid(registry.Bundle) || !found.Valid(registry.Simple) {
			t.Errorf("older form: %v, %v", found, err)
		}
		if _, err := s.client.Verify(t.Context(), b.keys, s.other); refusal.Of(err) != refusal.Signature {
			t.Errorf("got %v", err)
		}
		// Evidence is not a release.
		b.write("predicate.json", []byte(`{"result":"passed"}`))
		b.accepts("attest", "--yes", "--key", "pawl.key", "--signing-config", "nothing.json", "--type", "https://example.com/test/v1", "--predicate", "predicate.json", s.other.String())
		if found, err := s.client.Verify(t.Context(), b.keys, s.other); refusal.Of(err) != refusal.Signature || len(found) != 1 {
			t.Errorf("got %v, %v", found, err)
		}
	})
}

// TestCommandsOfTheSpecification runs what docs/spec/signatures.md tells a reader to type.
func TestCommandsOfTheSpecification(t *testing.T) {
	text, err := os.ReadFile("../../docs/spec/signatures.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```sh\n")
	commands, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatal("the page has no commands")
	}
	b := newBench(t)
	b.accepts("generate-key-pair", "--output-key-prefix", "evidence")
	evidence, _ := b.open("evidence")
	b.write("release.pub", b.read("pawl.pub"))
	file := []byte("the program")
	b.write("greeter", file)
	keep := func(name string, data []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		b.write(name, data)
	}
	attest := func(s sign.Signer, predicateType string) ([]byte, error) {
		return bundle.Attest(t.Context(), s, bundle.Attestation{
			Subject: bundle.Subject{Name: "greeter", Digest: digest.SetOf(file)}, PredicateType: predicateType, Predicate: []byte("{}"),
		})
	}
	data, err := bundle.SignBlob(t.Context(), b.signer, digest.Of(file))
	keep("greeter.sigstore.json", data, err)
	v := version.MustParse("1.0.0")
	payload, err := statement.Release{
		Product: "greeter", Channel: statement.File, Version: v, Line: v.Line(), Kind: statement.Feature, Issued: time.Unix(1, 0),
		Artifacts: []statement.Artifact{{Name: "greeter", Digest: digest.SetOf(file), Size: int64(len(file))}},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	data, err = bundle.SignStatement(t.Context(), b.signer, payload)
	keep("release.sigstore.json", data, err)
	data, err = attest(evidence, "https://cyclonedx.org/bom")
	keep("greeter.sbom.sigstore.json", data, err)
	data, err = attest(evidence, "https://github.com/pawl-project/pawl/verdict/v1")
	keep("greeter.verdict.sigstore.json", data, err)
	s := newShelf(t, func(h http.Handler) http.Handler { return h })
	if err := s.client.Sign(t.Context(), b.signer, s.index, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}

	if err := os.Symlink(b.program, filepath.Join(b.dir, "cosign")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", commands)
	cmd.Dir = b.dir
	cmd.Env = []string{"HOME=" + b.dir, "TUF_ROOT=" + b.dir, "PATH=" + b.dir + ":" + os.Getenv("PATH"), "IMAGE=" + s.index.String()}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
