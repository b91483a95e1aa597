// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

// ErrMismatch reports bytes that are not the bytes that were named.
var ErrMismatch = errors.New("digest does not match")

// ErrSize reports more or fewer bytes than were named.
var ErrSize = errors.New("size does not match")

// chunk is the size of one buffer of a copy: large enough that hashing and system calls dominate, small enough that
// a handful of buffers stay in the processor's cache.
const chunk = 1 << 20

// buffers is how many chunks a copy owns: one being read, one being hashed, one being written, one in between.
const buffers = 4

var pool = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// Copy copies src to dst until the end and returns the SHA-256 of the bytes copied and their number. Reading, hashing
// and writing overlap, so a copy costs the slowest of the three and not their sum. Memory is bounded by four chunks
// of 1 MiB whatever the size. A nil dst only hashes.
func Copy(dst io.Writer, src io.Reader) (SHA256, int64, error) {
	h := sha256.New()
	n, err := pipeline(dst, src, h)
	if err != nil {
		return SHA256{}, n, err
	}
	return SHA256(h.Sum(nil)), n, nil
}

// CopySet is Copy for both digests. SHA-512 is slower than SHA-256 on processors with SHA extensions: use it where a
// format asks for it, not on a device's path.
func CopySet(dst io.Writer, src io.Reader) (Set, int64, error) {
	h256, h512 := sha256.New(), sha512.New()
	n, err := pipeline(dst, src, h256, h512)
	if err != nil {
		return Set{}, n, err
	}
	return Set{SHA256: SHA256(h256.Sum(nil)), SHA512: SHA512(h512.Sum(nil))}, n, nil
}

// Verify copies exactly size bytes from src to dst and fails unless their SHA-256 is want. It reads at most one byte
// more than size, so a source that never ends is stopped. What was written to dst is unverified until Verify returns
// nil.
func Verify(dst io.Writer, src io.Reader, want SHA256, size int64) error {
	got, n, err := Copy(dst, io.LimitReader(src, size+1))
	switch {
	case err != nil:
		return err
	case n > size:
		return fmt.Errorf("%w: more than the %d bytes that were signed", ErrSize, size)
	case n < size:
		return fmt.Errorf("%w: %d of the %d bytes that were signed", ErrSize, n, size)
	case got != want:
		return fmt.Errorf("%w: signed %s, got %s", ErrMismatch, want, got)
	}
	return nil
}

// piece is a filled buffer on its way through the pipeline. The last sink that is done with it returns it.
type piece struct {
	buf  *[]byte
	n    int
	left *atomic.Int32
}

// pipeline fans the bytes of src out to the writer and every hash, each in a goroutine of its own.
func pipeline(dst io.Writer, src io.Reader, hashes ...hash.Hash) (int64, error) {
	sinks := make([]io.Writer, 0, len(hashes)+1)
	for _, h := range hashes {
		sinks = append(sinks, h)
	}
	if dst != nil {
		sinks = append(sinks, dst)
	}
	free := make(chan *[]byte, buffers)
	for range buffers {
		free <- pool.Get().(*[]byte)
	}

	var (
		running sync.WaitGroup
		once    sync.Once
		failure error
		failed  = make(chan struct{})
	)
	queues := make([]chan piece, len(sinks))
	for i, sink := range sinks {
		queues[i] = make(chan piece, buffers)
		running.Go(func() {
			broken := false
			for p := range queues[i] {
				if !broken {
					if _, err := sink.Write((*p.buf)[:p.n]); err != nil {
						broken = true
						once.Do(func() { failure = err; close(failed) })
					}
				}
				if p.left.Add(-1) == 0 {
					free <- p.buf
				}
			}
		})
	}
	n, err := feed(src, queues, free, failed)
	for _, q := range queues {
		close(q)
	}
	running.Wait()
	for range buffers {
		pool.Put(<-free)
	}
	if failure != nil {
		return n, failure
	}
	return n, err
}

// feed reads src into free buffers and hands each to every queue until the end, an error, or a failed sink.
func feed(src io.Reader, queues []chan piece, free chan *[]byte, failed <-chan struct{}) (int64, error) {
	var total int64
	for {
		var buf *[]byte
		select {
		case <-failed:
			return total, nil
		case buf = <-free:
		}
		n, err := fill(src, *buf)
		total += int64(n)
		if n == 0 {
			free <- buf
		} else {
			p := piece{buf: buf, n: n, left: new(atomic.Int32)}
			p.left.Store(int32(len(queues)))
			for _, q := range queues {
				q <- p
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// fill reads until buf is full or src ends. Unlike io.ReadFull it keeps io.ErrUnexpectedEOF for sources that say so
// themselves, as a torn HTTP body does: that is an error and not the end.
func fill(src io.Reader, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		m, err := src.Read(buf[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return n, io.EOF
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
