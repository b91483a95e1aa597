// SPDX-License-Identifier: Apache-2.0

// Command pawl takes a patch from the manufacturer's build to the product in the user's hands, and proves it.
//
// This package is the composition root: it reads flags and the environment, constructs the adapters by name, hands them
// to an engine, and prints what comes back. One file per command; rules live in internal/.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := newApp(time.Now).run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
