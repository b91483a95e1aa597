// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import "github.com/spf13/cobra"

func newRepoCommand(a *app) *cobra.Command { return &cobra.Command{Use: "repo", Hidden: true} }
