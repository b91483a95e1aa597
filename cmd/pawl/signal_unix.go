// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"os"
	"syscall"
)

// hangup are the signals that ask an agent for a check now.
var hangup = []os.Signal{syscall.SIGHUP}
