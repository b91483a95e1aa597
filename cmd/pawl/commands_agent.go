// SPDX-License-Identifier: Apache-2.0

//go:build agent

package main

import (
	"context"

	"github.com/spf13/cobra"
)

// roles says what this build can do.
const roles = "agent"

// commands are the commands of the device build (-tags agent): what a device needs, and nothing that signs or serves.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newAgentCommand(a),
		newVerifyCommand(a),
	}
}

func execute(ctx context.Context, root *cobra.Command) error { return root.ExecuteContext(ctx) }
