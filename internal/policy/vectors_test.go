// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
)

const specification = "../../docs/spec/testdata"

func TestVectors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(specification, "gate.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name         string
		Kind         statement.Kind
		Fixes        []string
		Advisory     *bool
		SBOM         *bool
		SameSnapshot *bool
		Before       *[]string
		Now          []string
		Rows         []string
		Classes      []refusal.Class
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			in := security(c.Fixes...).now(vector(c.Now)...)
			in.Kind = c.Kind
			if c.Before == nil {
				in = in.first()
			} else {
				in = in.before(vector(*c.Before)...)
			}
			if c.Advisory != nil && !*c.Advisory {
				in.Advisory = nil
			}
			if c.SBOM != nil && !*c.SBOM {
				in.Artifacts[0].SBOM, in.Artifacts[0].Report = nil, nil
			}
			if c.SameSnapshot != nil && !*c.SameSnapshot {
				in.Before[0].Report.Database.Snapshot = "another"
			}
			v := Gate(in)
			if got := states(v); got != strings.Join(c.Rows, ", ") {
				t.Errorf("rows %q, want %q", got, c.Rows)
			}
			var classes []refusal.Class
			for _, r := range v.Refusals() {
				classes = append(classes, r.Class)
			}
			if !slices.Equal(classes, c.Classes) {
				t.Errorf("classes %q, want %q", classes, c.Classes)
			}
		})
	}
}

// vector reads "component: NAME alias ...".
func vector(texts []string) []evidence.Finding {
	var list []evidence.Finding
	for _, text := range texts {
		component, rest, _ := strings.Cut(text, ": ")
		names := strings.Fields(rest)
		list = append(list, finding(in(component, "1.0.0"), called(names[0], names[1:]...)))
	}
	return list
}

// TestExampleOfTheSpecification keeps the example the verdict that is written today.
func TestExampleOfTheSpecification(t *testing.T) {
	want, err := Gate(goldenInput()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(specification, "verdict.json")
	if *update {
		if err := os.WriteFile(path, want, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")), want) {
		t.Errorf("%s is not what is written today", path)
	}
}
