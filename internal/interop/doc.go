// SPDX-License-Identifier: Apache-2.0

// Package interop holds what pawl writes against the foreign programs that must be able to read it, and the other way
// round. It has tests only, behind the build tag "interop": `make interop` builds or installs the programs first. A
// program that is missing fails the tests; nothing is skipped.
//
// The peer for signatures is cosign, unmodified, in the version of tools/cosign/go.mod. It runs with a home of its own and
// without services of others: no log, no timestamps, keys in files.
package interop
