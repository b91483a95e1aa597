// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/ecdsa"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

// BenchmarkBlob verifies a signed file of 1 GiB, beside openssl hashing the same file in the same run: the physical limit
// of a verification is the hash.
func BenchmarkBlob(b *testing.B) {
	const size = 1 << 30
	path := filepath.Join(b.TempDir(), "artifact")
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(file, io.LimitReader(mathrand.NewChaCha8([32]byte{1}), size)); err != nil {
		b.Fatal(err)
	}
	if err := file.Close(); err != nil {
		b.Fatal(err)
	}
	key := signtest.New(b)
	open := func() *os.File {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		return f
	}
	src := open()
	d, _, err := digest.Copy(nil, src)
	src.Close()
	if err != nil {
		b.Fatal(err)
	}
	text, err := bundle.SignBlob(b.Context(), key, d)
	if err != nil {
		b.Fatal(err)
	}

	b.Run("pawl", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			src := open()
			r := Blob(path, src, text, []*ecdsa.PublicKey{key.PublicKey()})
			src.Close()
			if err := r.Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("openssl", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if out, err := exec.CommandContext(b.Context(), "openssl", "dgst", "-sha256", path).CombinedOutput(); err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
		}
	})
}
