// SPDX-License-Identifier: Apache-2.0

//go:build unix

package file

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkSpace says before a download that it cannot end well, in words that name the numbers.
func checkSpace(f *os.File, need int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return nil // a file system that does not tell: the write will
	}
	free := uint64(st.Bavail) * uint64(st.Bsize)
	if need > 0 && free < uint64(need)+spare {
		return fmt.Errorf("%w: %d bytes are needed, %d are free", unix.ENOSPC, need+spare, free)
	}
	return nil
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
