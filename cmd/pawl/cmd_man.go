// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the man pages, one for each command",
		Example: `  pawl man /usr/local/share/man/man1
  man pawl-release`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			cmd.Root().DisableAutoGenTag = true // the same pages from the same program
			today := a.now()
			header := doc.GenManHeader{Section: "1", Source: "pawl", Manual: "pawl manual", Date: &today}
			if err := doc.GenManTree(cmd.Root(), &header, args[0]); err != nil {
				return fmt.Errorf("cannot write man pages: %w", err)
			}
			// Help topics are not commands, so the tree leaves them out.
			var page bytes.Buffer
			header.Title = "PAWL-EXIT-STATUS"
			if err := doc.GenMan(newExitStatusTopic(), &header, &page); err != nil {
				return fmt.Errorf("cannot write man pages: %w", err)
			}
			if err := os.WriteFile(filepath.Join(args[0], "pawl-exit-status.1"), page.Bytes(), 0o644); err != nil {
				return fmt.Errorf("cannot write man pages: %w", err)
			}
			a.say("man pages are in %s", args[0])
			return nil
		},
	}
}
