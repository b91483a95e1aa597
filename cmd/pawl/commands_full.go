// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"io"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"
)

// roles says what this build can do.
const roles = "release, serve, agent"

// commands are the commands of the full build. The device build has its own, shorter list.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newInitCommand(a),
		newKeysCommand(a),
		newReleaseCommand(a),
		newServeCommand(a),
		newRepoCommand(a),
		newAgentCommand(a),
		newVerifyCommand(a),
		newDemoCommand(a),
		newDoctorCommand(a),
		newManCommand(a),
	}
}

// execute runs the command line with help that is laid out for reading. Errors are printed by the app.
func execute(ctx context.Context, root *cobra.Command) error {
	return fang.Execute(ctx, root, fang.WithoutVersion(), fang.WithoutManpage(),
		fang.WithErrorHandler(func(io.Writer, fang.Styles, error) {}))
}
