// SPDX-License-Identifier: Apache-2.0

//go:build linux

package file

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/slot/slottest"
	"github.com/pawl-project/pawl/internal/statement"
)

// large is a payload of the bytes of a file.
func large(t testing.TB, name string) slot.Payload {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, n, err := digest.Copy(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	r := slottest.Release("1.0.0", statement.File, "greeter", nil)
	r.Artifacts[0].Digest, r.Artifacts[0].Size = digest.Set{SHA256: d}, n
	return slot.Payload{Release: r, Artifact: r.Artifacts[0], Open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		_, err = f.Seek(offset, io.SeekStart)
		return f, err
	}}
}

// fill writes a file of size bytes that no file system can compress or leave sparse.
func fill(t testing.TB, name string, size int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	random, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer random.Close()
	if _, err := io.CopyN(f, random, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMemory stages in a process of its own and asks for its peak. The peak does not depend on the size.
func TestMemory(t *testing.T) {
	const size, most = 256 << 20, 64 << 20
	if source := os.Getenv("PAWL_TEST_STAGE"); source != "" {
		s, err := New(Options{Path: filepath.Join(t.TempDir(), "slot")})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stage(t.Context(), large(t, source)); err != nil {
			t.Fatal(err)
		}
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("peak %d\n", usage.Maxrss<<10)
		return
	}
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(source, size); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "PAWL_TEST_STAGE="+source)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var peak int64
	for line := range strings.Lines(string(out)) {
		if _, err := fmt.Sscanf(line, "peak %d", &peak); err == nil {
			break
		}
	}
	if peak == 0 || peak > most {
		t.Fatalf("peak of %d bytes resident, at most %d are allowed", peak, most)
	}
	t.Logf("peak of %d MiB resident for %d MiB", peak>>20, size>>20)
}

// BenchmarkStage stages 1 GiB, beside the two programs that do one half of it each, on the same file in the same run.
// The promise is 90 % of the slower one: the metric "%-of-slower-peer".
func BenchmarkStage(b *testing.B) {
	const size = 1 << 30
	dir := b.TempDir()
	source := filepath.Join(dir, "source")
	fill(b, source, size)
	p := large(b, source)
	peer := func(args ...string) time.Duration {
		begin := time.Now()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, out)
		}
		return time.Since(begin)
	}
	var openssl, dd, stage time.Duration
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		copied, folder := filepath.Join(dir, "copy"), filepath.Join(dir, "slot")
		openssl += peer("openssl", "dgst", "-sha256", source)
		dd += peer("dd", "if="+source, "of="+copied, "bs=1M", "conv=fsync")
		if err := os.Remove(copied); err != nil {
			b.Fatal(err)
		}
		s, err := New(Options{Path: folder})
		if err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		b.StartTimer()
		err = s.Stage(b.Context(), p)
		b.StopTimer()
		stage += time.Since(begin)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.RemoveAll(folder); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	n := float64(b.N)
	b.ReportMetric(openssl.Seconds()/n, "openssl-s/op")
	b.ReportMetric(dd.Seconds()/n, "dd-s/op")
	b.ReportMetric(100*max(openssl, dd).Seconds()/stage.Seconds(), "%-of-slower-peer")
}
