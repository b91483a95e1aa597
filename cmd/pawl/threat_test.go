// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryPromiseHasItsScript compares THREAT_MODEL.md with the scripts: every promise is kept by a test of its name.
func TestEveryPromiseHasItsScript(t *testing.T) {
	text, err := os.ReadFile("../../THREAT_MODEL.md")
	if err != nil {
		t.Fatal(err)
	}
	var promised []string
	for _, m := range regexp.MustCompile("`(threat_[a-z_]+)`").FindAllStringSubmatch(string(text), -1) {
		promised = append(promised, m[1])
	}
	scripts, err := filepath.Glob("testdata/script/threat_*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range scripts {
		scripts[i] = strings.TrimSuffix(filepath.Base(s), ".txt")
	}
	for _, p := range promised {
		if !slices.Contains(scripts, p) {
			t.Errorf("THREAT_MODEL.md names %s, and there is no such script", p)
		}
	}
	for _, s := range scripts {
		if !slices.Contains(promised, s) {
			t.Errorf("script %s keeps no promise of THREAT_MODEL.md", s)
		}
	}
	if len(promised) == 0 {
		t.Error("no promises found")
	}
}
