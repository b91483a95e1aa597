// SPDX-License-Identifier: Apache-2.0

package keyfile_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

func TestContract(t *testing.T) {
	private, public, err := keyfile.Generate([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := keyfile.Open(private, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := sign.ParsePublicKey(public); err != nil || !key.Equal(s.PublicKey()) {
		t.Fatalf("the public half is not the half of the private one: %v", err)
	}
	signtest.Run(t, func(t *testing.T) sign.Signer { return s })
}

// TestOpenFilesOfCosign reads key files that cosign wrote, in the header of today and in the one before version 2. The
// password is "cosign".
func TestOpenFilesOfCosign(t *testing.T) {
	public := read(t, "cosign.pub")
	want, err := sign.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	private := read(t, "cosign.key")
	for name, text := range map[string]string{
		"now": string(private),
		// Older header, lines of another system, blank lines at the end: scrypt is slow, so all at once.
		"older": strings.ReplaceAll(strings.ReplaceAll(string(private), "SIGSTORE", "COSIGN"), "\n", "\r\n") + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			s, err := keyfile.Open([]byte(text), []byte("cosign"))
			if err != nil {
				t.Fatal(err)
			}
			if !s.PublicKey().Equal(want) {
				t.Fatal("another key")
			}
		})
	}
}

func TestGenerateWritesTheHeaderOfCosign(t *testing.T) {
	private, public, err := keyfile.Generate([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(private), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n") {
		t.Errorf("private half begins %q", private[:60])
	}
	if !strings.HasPrefix(string(public), "-----BEGIN PUBLIC KEY-----\n") {
		t.Errorf("public half begins %q", public[:40])
	}
}

func TestGenerateRefusesAnEmptyPassword(t *testing.T) {
	if _, _, err := keyfile.Generate(nil); !errors.Is(err, sign.ErrPassword) || refusal.Of(err) != refusal.Key {
		t.Fatalf("got %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := read(t, "cosign.key")
	public := read(t, "cosign.pub")
	block, _ := pem.Decode(good)
	change := func(old, new string) []byte {
		text := strings.Replace(string(block.Bytes), old, new, 1)
		if text == string(block.Bytes) {
			t.Fatalf("%q is not in the file", old)
		}
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: []byte(text)})
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file     []byte
		password string
		want     error
	}{
		"wrong password":      {good, "Cosign", sign.ErrPassword},
		"missing password":    {good, "", sign.ErrPassword},
		"damaged ciphertext":  {change(`"ciphertext":"`, `"ciphertext":"AAAA`), "cosign", sign.ErrPassword},
		"empty":               {nil, "cosign", keyfile.ErrFormat},
		"not PEM":             {[]byte("hunter2"), "cosign", keyfile.ErrFormat},
		"truncated":           {good[:len(good)/2], "cosign", keyfile.ErrFormat},
		"public half":         {public, "cosign", keyfile.ErrFormat},
		"both halves":         {append(append([]byte{}, good...), public...), "cosign", keyfile.ErrFormat},
		"huge":                {append(append([]byte{}, good...), make([]byte, keyfile.MaxBytes)...), "cosign", keyfile.ErrFormat},
		"in the clear":        {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "cosign", keyfile.ErrFormat},
		"not JSON":            {pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: []byte("x")}), "cosign", keyfile.ErrFormat},
		"duplicate member":    {change(`{"kdf":`, `{"kdf":{},"kdf":`), "cosign", keyfile.ErrFormat},
		"unknown member":      {change(`{"kdf":`, `{"x":1,"kdf":`), "cosign", keyfile.ErrFormat},
		"expensive scrypt":    {change(`"N":65536`, `"N":1073741824`), "cosign", keyfile.ErrFormat},
		"weak scrypt":         {change(`"N":65536`, `"N":2`), "cosign", keyfile.ErrFormat},
		"parallel scrypt":     {change(`"p":1`, `"p":9`), "cosign", keyfile.ErrFormat},
		"other kdf":           {change(`"scrypt"`, `"none"`), "cosign", keyfile.ErrFormat},
		"other cipher":        {change(`"nacl/secretbox"`, `"none"`), "cosign", keyfile.ErrFormat},
		"short nonce":         {change(`"nonce":"`, `"nonce":"AAAA","x":"`), "cosign", keyfile.ErrFormat},
		"another curve":       {seal(t, p384), "cosign", sign.ErrUnsupportedKey},
		"another algorithm":   {seal(t, edwards), "cosign", sign.ErrUnsupportedKey},
		"something else":      {sealBytes(t, []byte("not a key")), "cosign", keyfile.ErrFormat},
		"empty inside a file": {sealBytes(t, nil), "cosign", keyfile.ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := keyfile.Open(c.file, []byte(c.password))
			if !errors.Is(err, c.want) || refusal.Of(err) != refusal.Key || s != nil {
				t.Fatalf("got %v, %v, want %v", s, err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatal("the message quotes the file")
			}
		})
	}
}

func seal(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return sealBytes(t, der)
}

func sealBytes(t *testing.T, data []byte) []byte {
	t.Helper()
	box, err := encrypted.EncryptWithCustomKDFParameters(data, []byte("cosign"), encrypted.Legacy)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: box})
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzOpen uses files that are refused before scrypt runs, which costs a tenth of a second.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"))
	f.Add(read(f, "cosign.pub"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := keyfile.Open(data, []byte("x")); err == nil || s != nil || refusal.Of(err) != refusal.Key {
			t.Fatalf("accepted: %v", err)
		}
	})
}
