// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package execx

import "syscall"

// endWithParent does nothing: these systems have no such signal.
func endWithParent(*syscall.SysProcAttr) {}
