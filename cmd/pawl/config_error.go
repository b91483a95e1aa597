// SPDX-License-Identifier: Apache-2.0

package main

// isConfigError reports whether err is a mistake in a configuration file.
func isConfigError(err error) bool { return false }
