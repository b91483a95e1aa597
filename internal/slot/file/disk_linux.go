// SPDX-License-Identifier: Apache-2.0

package file

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteback asks the kernel to begin writing, and does not wait. It is advice: Sync is what counts.
func beginWriteback(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}
