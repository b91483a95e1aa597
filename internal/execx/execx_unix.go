// SPDX-License-Identifier: Apache-2.0

//go:build unix

package execx

import (
	"os/exec"
	"syscall"
)

// contain gives the program a process group of its own, so that all it starts can be ended with it.
func contain(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
}

// endGroup ends what the program left running behind it: a build that is over writes no more files. An error means that
// nothing is left.
func endGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}
