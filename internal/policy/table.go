// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// maxNotes is how many notes a person is shown; the JSON text has all of them.
const maxNotes = 12

// Write prints the verdict for a person. Text from databases and artifacts is printed without control characters.
func (v Verdict) Write(w io.Writer) error {
	var out bytes.Buffer
	outcome := "refused"
	if v.Passed {
		outcome = "passed"
	}
	against := "compared with " + v.Previous.String()
	if v.Previous.IsZero() {
		against = "first release on line " + v.Line.String()
	}
	fmt.Fprintf(&out, "gate %s: %s %s, %s release, %s\n", outcome, plain(v.Product), v.Version, plain(string(v.Kind)), against)
	if v.Database.Snapshot != "" {
		fmt.Fprintf(&out, "database %s, snapshot %s", plain(v.Database.Name), plain(v.Database.Snapshot))
		if v.Database.Records > 0 { // a service does not say
			fmt.Fprintf(&out, ", %s", count(v.Database.Records, "record", "records"))
		}
		if !v.Database.Updated.IsZero() {
			fmt.Fprintf(&out, ", newest of %s", v.Database.Updated.UTC().Format("2006-01-02"))
		}
		fmt.Fprintf(&out, "; scanned by %s %s\n", plain(v.Scanner.Name), plain(v.Scanner.Version))
	}
	for _, a := range v.Artifacts {
		fmt.Fprintf(&out, "artifact %s sha256:%s: %s, %d compared\n", plain(a.Name), a.Digest.Short(), count(a.Components, "component", "components"), a.Checked)
	}
	fmt.Fprintf(&out, "%d introduced, %d inherited, %d fixed\n", v.Counts.Introduced, v.Counts.Inherited, v.Counts.Fixed)

	if len(v.Rows) > 0 {
		out.WriteByte('\n')
		table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "STATE\tBLOCKS\tSEVERITY\tVULNERABILITY\tCOMPONENT\tFIXED IN\tWHY")
		for _, r := range v.Rows {
			blocks := "no"
			if r.Blocks {
				blocks = "yes"
			}
			fixed := r.FixedIn
			if fixed == "" {
				fixed = "-"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.State, blocks, r.Severity, plain(r.Name()),
				plain(strings.TrimSpace(r.Component+" "+r.Version)), plain(fixed), plain(r.Why))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if len(v.Fixes) > 0 {
		fmt.Fprintf(&out, "\nclaimed fixes\n")
		table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		for _, f := range v.Fixes {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", plain(f.Name), f.State, plain(f.Why))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	section := func(title string, lines []string, most int) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&out, "\n%s\n", title)
		for i, line := range lines {
			if i == most {
				fmt.Fprintf(&out, "  ... and %d more\n", len(lines)-most)
				break
			}
			fmt.Fprintf(&out, "  %s\n", plain(line))
		}
	}
	section("missing", v.Missing, len(v.Missing))
	section("not proven", v.Unproven, len(v.Unproven))
	var notes []string
	for _, n := range v.Notes {
		notes = append(notes, n.Artifact+": "+n.Text)
	}
	section("not looked into (does not block)", notes, maxNotes)
	_, err := w.Write(out.Bytes())
	return err
}

// plain keeps escape sequences and line breaks of others out of a terminal and out of the table.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}
