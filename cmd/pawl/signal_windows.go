// SPDX-License-Identifier: Apache-2.0

//go:build windows

package main

import "os"

// hangup are the signals that ask an agent for a check now; this system has none. os.Interrupt ends the agent, so a signal
// that never arrives stands here: with an empty list signal.Notify would take all of them.
var hangup = []os.Signal{neverSent{}}

type neverSent struct{}

func (neverSent) Signal()        {}
func (neverSent) String() string { return "never sent" }
