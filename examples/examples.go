// SPDX-License-Identifier: Apache-2.0

// Package examples carries the small real products that the demo and the tests release.
//
// greeter is a program in two versions: the same source, built with two versions of one library. Its module files are
// named after the versions (v1.0.0.mod becomes go.mod), because a folder with a go.mod could not be embedded here.
package examples

import "embed"

// Greeter holds the folder greeter: main.go, v<version>.mod, v<version>.sum, advisories/<version>.yaml and the records of
// known vulnerabilities in the OSV format.
//
//go:embed greeter
var Greeter embed.FS
