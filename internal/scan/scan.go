// SPDX-License-Identifier: Apache-2.0

// Package scan is the seam to scanners: components in, known vulnerabilities out.
package scan

import (
	"context"
	"errors"

	"github.com/pawl-project/pawl/internal/evidence"
)

// ErrDatabase reports a database that is missing, unreadable, empty or too old to prove anything.
var ErrDatabase = errors.New("vulnerability database cannot be used")

// Scanner matches components with a database. Two scans by one Scanner use the same snapshot of the database, so their
// results can be compared. A Scanner that cannot look at everything fails; it never returns a shorter report.
type Scanner interface {
	Scan(ctx context.Context, bom evidence.SBOM) (evidence.Report, error)
}
