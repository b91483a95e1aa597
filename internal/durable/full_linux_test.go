// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// limit is the size at which the kernel refuses to let a file grow, in the process that plays the full disk.
const limit = 64 << 10

// TestFullDisk lets the kernel stop the growth of files (RLIMIT_FSIZE) in a process of its own, since the limit holds for
// the whole process: to the code that writes, this looks like a disk that is full in the middle of a write.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv("PAWL_TEST_FULL_DISK"); dir != "" {
		onFullDisk(t, dir)
		return
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestFullDisk$")
	cmd.Env = append(os.Environ(), "PAWL_TEST_FULL_DISK="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	only(t, filepath.Join(dir, "state"), "old", "journal")
	lines, torn, err := ReadLines(filepath.Join(dir, "journal"), 1<<20)
	if err != nil || torn || len(lines) != 2 || string(lines[1]) != "fits" {
		t.Fatalf("journal: %d lines, torn %v, %v", len(lines), torn, err)
	}
}

func onFullDisk(t *testing.T, dir string) {
	signal.Ignore(unix.SIGXFSZ) // then a write fails instead of killing the process
	state, journal := filepath.Join(dir, "state"), filepath.Join(dir, "journal")
	if err := WriteFile(state, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Append(journal, []byte("first"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(state, bytes.Repeat([]byte("n"), 2*limit), 0o644); !errors.Is(err, unix.EFBIG) {
		t.Fatalf("WriteFile: %v", err)
	}
	if _, _, err := WriteFrom(state, io.LimitReader(endless{}, 2*limit), 0o644); !errors.Is(err, unix.EFBIG) {
		t.Fatalf("WriteFrom: %v", err)
	}
	if err := Append(journal, []byte(strings.Repeat("x", 2*limit)), 0o644); !errors.Is(err, unix.EFBIG) {
		t.Fatalf("Append: %v", err)
	}
	if err := Append(journal, []byte("fits"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// /dev/full refuses every write with "no space left on device".
func TestAppendToFullDevice(t *testing.T) {
	if err := Append("/dev/full", []byte("line"), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v", err)
	}
}
