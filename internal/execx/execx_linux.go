// SPDX-License-Identifier: Apache-2.0

package execx

import "syscall"

// endWithParent ends the program when the thread that started it ends: a build must not write on while the release that
// was killed is run again.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
