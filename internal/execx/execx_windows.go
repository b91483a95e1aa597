// SPDX-License-Identifier: Apache-2.0

package execx

import (
	"os/exec"
	"strconv"
)

// contain ends the whole tree of processes when the program has to end.
func contain(cmd *exec.Cmd) {
	cmd.Cancel = func() error {
		return exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(cmd.Process.Pid)).Run()
	}
}

// endGroup has nothing to hold on to: a process whose parent is gone belongs to no tree.
func endGroup(*exec.Cmd) {}
