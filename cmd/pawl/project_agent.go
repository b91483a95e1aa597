// SPDX-License-Identifier: Apache-2.0

//go:build agent

package main

// projectRepository is for the machine of a manufacturer; a device has no project.
func (a *app) projectRepository() (repo, root string, err error) { return "", "", nil }
