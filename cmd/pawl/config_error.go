// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/pawl-project/pawl/internal/yamlx"
)

// isConfigError reports whether err is a mistake in a configuration file.
func isConfigError(err error) bool { return errors.As(err, new(*yamlx.Error)) }
