// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "metadata/1.root.json", "targets/p/1.0.0-rc.1+b/x~y", strings.Repeat("a", MaxName)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	huge := strings.Repeat("a", 1<<20)
	if err := CheckName(huge); !errors.Is(err, ErrName) || len(err.Error()) > 200 {
		t.Errorf("%d characters reach the message", len(err.Error()))
	}
}

func FuzzCheckName(f *testing.F) {
	f.Add("metadata/1.root.json")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) == nil && !filepath.IsLocal(filepath.FromSlash(name)) {
			t.Fatalf("%q is accepted and climbs out", name)
		}
	})
}
