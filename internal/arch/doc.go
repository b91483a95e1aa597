// SPDX-License-Identifier: Apache-2.0

// Package arch holds the rules of this repository as tests: which way imports point, what a package must say of itself,
// what no file may contain, and which modules the device build links.
package arch
