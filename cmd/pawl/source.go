// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/httpx"
)

// isURL tells the address of a server from the path of a folder.
func isURL(location string) bool {
	return strings.HasPrefix(location, "https://") || strings.HasPrefix(location, "http://")
}

// openSource opens a repository for reading: a server or a folder. caFile names further authorities for TLS, or is empty.
func (a *app) openSource(location, caFile string) (catalog.Opener, error) {
	if !isURL(location) {
		info, err := os.Stat(location)
		if err != nil {
			return nil, fmt.Errorf("cannot open the repository: %w", err)
		}
		if !info.IsDir() {
			return nil, usagef("repository %s is neither a folder nor a URL", location)
		}
		return folder.Open(location)
	}
	if _, err := httpx.CheckURL(location); err != nil {
		return nil, usageError{err}
	}
	client, err := httpx.New(httpx.Options{CAFile: caFile, UserAgent: "pawl/" + readBuildInfo().Version, Logger: a.log, Limits: a.limits})
	if err != nil {
		return nil, err
	}
	return httpx.Repository{Client: client, Base: location}, nil
}
