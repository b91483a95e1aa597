// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/refusal"
)

// errLocked reports that somebody else holds a lock.
var errLocked = errors.New("locked")

// lockPoll is how often a waiting LockWait looks again. Operating systems can wait by themselves, but not until a
// context ends.
const lockPoll = 10 * time.Millisecond

// Held is a lock that this process holds.
type Held struct{ file *os.File }

// Lock takes the lock whose file is path, creating the file if it is not there. If somebody else holds it, also in this
// process, it is refused at once with class Busy.
func Lock(path string) (*Held, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	return take(f)
}

// LockIn is Lock for a name below root.
func LockIn(root *os.Root, name string) (*Held, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	return take(f)
}

// LockWait is Lock that waits for the holder until ctx ends; then the refusal is wrapped around the context's error.
func LockWait(ctx context.Context, path string) (*Held, error) {
	return wait(ctx, func() (*Held, error) { return Lock(path) })
}

// LockWaitIn is LockWait for a name below root.
func LockWaitIn(ctx context.Context, root *os.Root, name string) (*Held, error) {
	return wait(ctx, func() (*Held, error) { return LockIn(root, name) })
}

func wait(ctx context.Context, lock func() (*Held, error)) (*Held, error) {
	for {
		held, err := lock()
		if refusal.Of(err) != refusal.Busy {
			return held, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

func take(f *os.File) (*Held, error) {
	err := lockFile(f)
	switch {
	case errors.Is(err, errLocked):
		holder := readHolder(f)
		f.Close()
		return nil, refusal.New(refusal.Busy, "lock file "+f.Name(), "held by %s", holder).
			Do("wait until it has finished, or stop it")
	case err != nil:
		f.Close()
		return nil, err
	}
	// The number of the process is a hint for people. Not being able to leave it does not weaken the lock.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Held{f}, nil
}

func readHolder(f *os.File) string {
	var buf [32]byte
	n, _ := f.ReadAt(buf[:], 0) // a hint: nothing to read is an answer too
	if pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n]))); err == nil && pid > 0 {
		return "process " + strconv.Itoa(pid)
	}
	return "another process"
}

// LockOpen locks a file that is open already, until it is closed, and leaves its bytes alone. If somebody else holds it,
// it is refused at once with class Busy.
func LockOpen(f *os.File) error {
	err := lockFile(f)
	if errors.Is(err, errLocked) {
		return refusal.New(refusal.Busy, "file "+f.Name(), "another process is writing it").Do("wait until it has finished")
	}
	return err
}

// Unlock gives the lock back. The file stays: deleting it would let two processes hold "the" lock.
func (h *Held) Unlock() error {
	// Closing alone would not do it while a program that is just being started still has the file.
	return errors.Join(unlockFile(h.file), h.file.Close())
}
