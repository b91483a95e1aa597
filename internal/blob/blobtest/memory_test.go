// SPDX-License-Identifier: Apache-2.0

package blobtest_test

import (
	"testing"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/blob/blobtest"
)

func TestMemory(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) (first, second blob.Store) {
		m := blobtest.NewMemory()
		return m, m
	})
}
