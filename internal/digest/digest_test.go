// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParse(t *testing.T) {
	good := Of([]byte("pawl"))
	if got, err := Parse(good.String()); err != nil || got != good {
		t.Fatalf("Parse(%s) = %s, %v", good, got, err)
	}
	for name, s := range map[string]string{
		"empty":      "",
		"no prefix":  good.Hex(),
		"other hash": "sha512:" + good.Hex(),
		"upper case": "sha256:" + strings.ToUpper(good.Hex()),
		"short":      good.String()[:70],
		"long":       good.String() + "0",
		"not hex":    "sha256:" + strings.Repeat("z", 64),
		"all zero":   "sha256:" + strings.Repeat("0", 64),
		"huge":       strings.Repeat("a", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(s)
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
			if len(err.Error()) > 200 {
				t.Fatalf("hostile text reaches the message: %d bytes", len(err.Error()))
			}
		})
	}
}

func TestCopy(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 7*chunk + 13} {
		data := make([]byte, size)
		if _, err := random.Read(data); err != nil {
			t.Fatal(err)
		}
		for name, src := range map[string]io.Reader{
			"whole":   bytes.NewReader(data),
			"halves":  iotest.HalfReader(bytes.NewReader(data)),
			"dataErr": iotest.DataErrReader(bytes.NewReader(data)),
		} {
			var out bytes.Buffer
			got, n, err := Copy(&out, src)
			if err != nil || n != int64(size) || got != Of(data) || !bytes.Equal(out.Bytes(), data) {
				t.Fatalf("%s of %d bytes: %s, %d, %v", name, size, got, n, err)
			}
		}
		set, _, err := CopySet(nil, bytes.NewReader(data))
		if err != nil || set != SetOf(data) {
			t.Fatalf("CopySet of %d bytes: %v", size, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 3*chunk)
	want := Of(data)
	flipped := bytes.Clone(data)
	flipped[chunk] ^= 1
	for name, c := range map[string]struct {
		src  io.Reader
		size int64
		err  error
	}{
		"flipped":   {bytes.NewReader(flipped), int64(len(data)), ErrMismatch},
		"truncated": {bytes.NewReader(data[:len(data)-1]), int64(len(data)), ErrSize},
		"trailing":  {bytes.NewReader(append(bytes.Clone(data), 0)), int64(len(data)), ErrSize},
		"endless":   {endless{}, int64(len(data)), ErrSize},
		"torn":      {io.MultiReader(bytes.NewReader(data[:10]), iotest.ErrReader(io.ErrUnexpectedEOF)), int64(len(data)), io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Verify(io.Discard, c.src, want, c.size); !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
		})
	}
	if err := Verify(nil, bytes.NewReader(data), want, int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func TestCopyStopsAtAFailedWriter(t *testing.T) {
	full := errors.New("no space left on device")
	_, n, err := Copy(failAfter{2, full}.writer(), endless{})
	if !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
	if n > (2+2*buffers)*chunk {
		t.Fatalf("read %d bytes after the writer had failed", n)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type failAfter struct {
	writes int
	err    error
}

func (f failAfter) writer() io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if f.writes--; f.writes < 0 {
			return 0, f.err
		}
		return len(p), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// BenchmarkCopy shows how near Copy comes to hashing alone.
func BenchmarkCopy(b *testing.B) {
	const size = 256 << 20
	b.Run("hash only", func(b *testing.B) {
		buf := make([]byte, chunk)
		b.SetBytes(size)
		for b.Loop() {
			h := sha256.New()
			for range size / chunk {
				h.Write(buf)
			}
			h.Sum(nil)
		}
	})
	b.Run("Copy", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := Copy(io.Discard, io.LimitReader(endless{}, size)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestSetIsTextInJSON(t *testing.T) {
	want := SetOf([]byte("greeter"))
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if text := `{"sha256":"` + want.SHA256.String() + `","sha512":"` + want.SHA512.String() + `"}`; string(data) != text {
		t.Errorf("%s, want %s", data, text)
	}
	var got Set
	if err := json.Unmarshal(data, &got); err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{`{"sha512":"` + want.SHA256.String() + `"}`, `{"sha512":"sha512:00"}`} {
		if err := json.Unmarshal([]byte(bad), &got); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
