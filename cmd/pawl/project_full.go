// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/pawl-project/pawl/internal/config"
)

// projectRepository returns the repository and the path of the first root of the project in this folder; both are empty
// if there is no pawl.yaml.
func (a *app) projectRepository() (repo, root string, err error) {
	c, err := config.Load(config.FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	repo = c.Repository.URL
	if repo == "" {
		repo = c.Abs(c.Repository.Folder)
	}
	return repo, filepath.Join(c.Abs(c.Repository.Trust), "1.root.json"), nil
}
