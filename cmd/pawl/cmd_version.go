// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildInfo is what a binary says of itself.
type buildInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Roles    string `json:"roles"`
}

func readBuildInfo() buildInfo {
	info := buildInfo{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Roles: roles}
	read, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	if v := read.Main.Version; v != "" && v != "(devel)" {
		info.Version = v
	}
	for _, s := range read.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.time":
			info.Time = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	return info
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of pawl and how it was built",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info := readBuildInfo()
			a.report(info, func(w io.Writer) {
				fmt.Fprintf(w, "pawl %s (%s, %s, %s)\n", info.Version, info.Roles, info.Go, info.Platform)
				if info.Revision != "" {
					fmt.Fprintf(w, "revision %s of %s\n", info.Revision, info.Time)
				}
			})
			return nil
		},
	}
}
