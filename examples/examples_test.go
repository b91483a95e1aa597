// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/policy"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sbom"
	"github.com/pawl-project/pawl/internal/sbom/embedded"
	"github.com/pawl-project/pawl/internal/scan/osv"
	"github.com/pawl-project/pawl/internal/scan/scantest"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

const (
	vulnerable = "1.0.0"
	patched    = "1.0.1"
	// header is an Accept-Language header that golang.org/x/text v0.3.5 does not bear (CVE-2021-38561).
	header = "de-u-phonebk-ca"
)

var tool = evidence.Tool{Name: "pawl", Version: "1.0.0"}

func now() time.Time { return time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC) }

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := Greeter.ReadFile(path.Join("greeter", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// build builds a version of greeter in a new folder and returns the program.
func build(t *testing.T, v string, env ...string) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"main.go": "main.go", "v" + v + ".mod": "go.mod", "v" + v + ".sum": "go.sum"} {
		if err := os.WriteFile(filepath.Join(dir, to), read(t, from), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	output := filepath.Join(t.TempDir(), "greeter")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+v, "-o", output, ".")
	cmd.Dir = dir
	cmd.Env = slices.Concat(os.Environ(), []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="}, env)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return output
}

func contents(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// look lists the components of a program.
func look(t *testing.T, program string) evidence.SBOM {
	t.Helper()
	data := contents(t, program)
	bom, err := embedded.New(embedded.Options{Tool: tool, Now: now}).Make(t.Context(), sbom.Source{
		Shape: sbom.File, Path: program, Subject: evidence.Subject{Name: "greeter", Digest: digest.SetOf(data), Size: int64(len(data))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return bom
}

// database holds some of the example's records, and others.
func database(t *testing.T, names []string, others ...string) *osv.Folder {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), read(t, "vulnerabilities/"+name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range others {
		if err := os.WriteFile(filepath.Join(dir, "other.json"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	f, err := osv.OpenFolder(t.Context(), dir, osv.Options{Tool: tool, Now: now, AnyAgeUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func artifact(t *testing.T, bom evidence.SBOM, db *osv.Folder) policy.Artifact {
	t.Helper()
	report, err := db.Scan(t.Context(), bom)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Artifact{Name: "greeter", Digest: bom.Subject.Digest.SHA256, SBOM: &bom, Report: &report}
}

// TestGreeter is the example's story, from the bytes of two programs to the verdicts of the gate on different days.
func TestGreeter(t *testing.T) {
	old, update := build(t, vulnerable), build(t, patched)
	if digest.Of(contents(t, old)) != digest.Of(contents(t, build(t, vulnerable, "GOPROXY=off"))) {
		t.Error("the same source in another folder gives other bytes")
	}
	before, after := look(t, old), look(t, update)
	for _, bom := range []evidence.SBOM{before, after} {
		if len(bom.Components) != 2 || bom.Components[1].PURL != "pkg:golang/stdlib@"+evidence.GoVersion(runtime.Version()) || bom.Opaque || len(bom.Gaps) > 0 {
			t.Fatalf("components %+v, gaps %q", bom.Components, bom.Gaps)
		}
	}
	if before.Components[0].PURL != "pkg:golang/golang.org/x/text@0.3.5" {
		t.Errorf("%+v", before.Components[0])
	}

	calm := []string{"EXAMPLE-2020-1.json"}
	disclosed := append(calm, "GO-2021-0113.json")
	first := policy.Input{
		Product: "greeter", Version: version.MustParse(vulnerable), Line: version.MustParse(vulnerable).Line(), Kind: statement.Feature,
		Artifacts: []policy.Artifact{artifact(t, before, database(t, calm))}, Tool: tool, At: now(),
	}
	if v := policy.Gate(first); !v.Passed || len(v.Notes) > 0 {
		t.Errorf("first release before the disclosure: %v %v", v.Refusals(), v.Notes)
	}
	patch := func(db *osv.Folder) policy.Verdict {
		return policy.Gate(policy.Input{
			Product: "greeter", Version: version.MustParse(patched), Line: version.MustParse(patched).Line(), Kind: statement.Security, Fixes: []string{"CVE-2021-38561"},
			Advisory: &statement.Advisory{ID: "GREETER-2026-1", Summary: "A header stops a request.", Severity: "high", Action: "None."},
			Previous: version.MustParse(vulnerable), Artifacts: []policy.Artifact{artifact(t, after, db)}, Before: []policy.Artifact{artifact(t, before, db)},
			Tool: tool, At: now(),
		})
	}
	if v := patch(database(t, disclosed)); !v.Passed || v.Counts != (policy.Counts{Fixed: 1}) || v.Rows[0].Severity != evidence.High {
		t.Errorf("patch: %v %+v", v.Refusals(), v.Rows)
	}
	if v := patch(database(t, calm)); v.Passed || v.Refusals()[0].Class != refusal.FalseFix {
		t.Errorf("patch before the disclosure: %v", v.Refusals())
	}
	// An invented record, which calls the library vulnerable from the patched release on.
	invented := scantest.Record{ID: "EXAMPLE-2026-1", Ecosystem: "Go", Package: "golang.org/x/text", Events: []string{"introduced 0.3.6"}, Word: "CRITICAL", Summary: "Invented"}
	if v := patch(database(t, disclosed, invented.JSON())); v.Passed || !strings.Contains(v.Refusals()[0].Error(), "1 vulnerability introduced, compared with 1.0.0: EXAMPLE-2026-1 (critical)") {
		t.Errorf("patch that brings something new: %v", v.Refusals())
	}

	for program, bears := range map[string]bool{old: false, update: true} {
		out, err := exec.CommandContext(t.Context(), program, "-greet", header).CombinedOutput()
		if answered := err == nil && string(out) == "Guten Tag\n"; answered != bears {
			t.Errorf("%s: %v %s", program, err, out)
		}
		if !bears && !strings.Contains(string(out), "index out of range") {
			t.Errorf("it fails in another way: %s", out)
		}
	}
	for program, v := range map[string]string{old: vulnerable, update: patched} {
		if out, err := exec.CommandContext(t.Context(), program, "-version").CombinedOutput(); err != nil || string(out) != v+"\n" {
			t.Errorf("-version: %v %s", err, out)
		}
	}
}
