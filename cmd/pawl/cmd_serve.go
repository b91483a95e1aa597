// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import "github.com/spf13/cobra"

func newServeCommand(a *app) *cobra.Command { return &cobra.Command{Use: "serve", Hidden: true} }
