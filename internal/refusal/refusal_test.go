// SPDX-License-Identifier: Apache-2.0

package refusal

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestTableHasOneMeaningPerStatus(t *testing.T) {
	statuses, classes := map[int]bool{}, map[Class]bool{}
	for _, row := range Table() {
		if statuses[row.Status] || (row.Class != "" && classes[row.Class]) {
			t.Errorf("status %d or class %q stands twice", row.Status, row.Class)
		}
		statuses[row.Status], classes[row.Class] = true, true
		if row.Class != "" && row.Status < 10 {
			t.Errorf("class %q has status %d below 10", row.Class, row.Status)
		}
	}
}

func TestError(t *testing.T) {
	err := fmt.Errorf("cannot update: %w", New(Rollback, "metadata of greeter", "version %d is older than %d: %w", 3, 4, io.EOF).Do("ask the publisher"))
	if Of(err) != Rollback || Status(err) != 12 || !errors.Is(err, io.EOF) || !errors.Is(err, &Error{Class: Rollback}) || errors.Is(err, &Error{Class: Digest}) {
		t.Fatalf("%v: %v %d", err, Of(err), Status(err))
	}
	if Status(nil) != 0 || Status(io.EOF) != 1 {
		t.Fatal("plain errors")
	}
}
