// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/refusal"
)

// newExitStatusTopic is a help topic: it has a text and nothing to run.
func newExitStatusTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-status",
		Short: "The exit statuses and what each means",
		Long:  "Exit statuses. A number never gets a second meaning; with --json errors carry the same number and class.\n\n" + exitStatusTable(),
	}
}

func exitStatusTable() string {
	var b strings.Builder
	for _, row := range refusal.Table() {
		fmt.Fprintf(&b, "  %3d  %-13s  %s\n", row.Status, row.Class, row.Meaning)
	}
	return b.String()
}
