// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pawl-project/pawl/internal/refusal"
)

// Outcome is what became of a check.
type Outcome string

// The outcomes. NotProven is the state of a check that could not be made; it never counts as passed.
const (
	Passed    Outcome = "passed"
	Failed    Outcome = "failed"
	NotProven Outcome = "not-proven"
)

// Check is one check with what proved it.
type Check struct {
	// Name is stable, for machines: "root", "freshness", "catalogue", "statement", "bytes", "cosign", "sbom", "verdict", "image".
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	// Proof says what proved it, or what failed.
	Proof string        `json:"proof"`
	Class refusal.Class `json:"class,omitempty"`
	Next  string        `json:"next,omitempty"`
}

// Result lists every check in the order in which they were made. A check that depends on a failed one is not listed as
// passed: it is not proven.
type Result struct {
	Subject string  `json:"subject"`
	Product string  `json:"product,omitempty"`
	Version string  `json:"version,omitempty"`
	Kind    string  `json:"kind,omitempty"`
	Checks  []Check `json:"checks"`
	// Notes are worth knowing and decide nothing: that a newer release exists, for example.
	Notes []string `json:"notes,omitempty"`
	// Verified is true if every check passed.
	Verified bool `json:"verified"`
}

func (r *Result) pass(name, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, Outcome: Passed, Proof: fmt.Sprintf(format, args...)})
}

// fail records err under its refusal class; an error that is not a refusal could not be checked: not proven.
func (r *Result) fail(name string, err error) {
	var refused *refusal.Error
	if errors.As(err, &refused) && refused.Class != refusal.NotProven {
		r.Checks = append(r.Checks, Check{Name: name, Outcome: Failed, Proof: refused.Failed, Class: refused.Class, Next: refused.Next})
		return
	}
	c := Check{Name: name, Outcome: NotProven, Proof: err.Error(), Class: refusal.NotProven}
	if refused != nil {
		c.Proof, c.Next = refused.Failed, refused.Next
	}
	r.Checks = append(r.Checks, c)
}

// Err is nil if every check passed. Otherwise it is the first failed check as a refusal, or, if none failed, the first
// check that is not proven.
func (r *Result) Err() error {
	for _, outcome := range []Outcome{Failed, NotProven} {
		for _, c := range r.Checks {
			if c.Outcome == outcome {
				err := refusal.New(c.Class, r.Subject, "%s: %s", c.Name, c.Proof)
				if c.Next != "" {
					err = err.Do("%s", c.Next)
				}
				return err
			}
		}
	}
	if len(r.Checks) == 0 {
		return refusal.New(refusal.NotProven, r.Subject, "nothing was checked")
	}
	return nil
}

// Text writes the result for people.
func (r *Result) Text(w io.Writer) {
	title := r.Subject
	if r.Product != "" {
		title = fmt.Sprintf("%s: %s %s (%s release)", r.Subject, r.Product, r.Version, r.Kind)
	}
	fmt.Fprintln(w, title)
	mark := map[Outcome]string{Passed: "ok", Failed: "FAILED", NotProven: "NOT PROVEN"}
	for _, c := range r.Checks {
		fmt.Fprintf(w, "  %-10s  %-10s  %s\n", mark[c.Outcome], c.Name, strings.ReplaceAll(c.Proof, "\n", " "))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note        %s\n", n)
	}
	if r.Verified {
		fmt.Fprintln(w, "verified")
	} else {
		fmt.Fprintln(w, "NOT verified")
	}
}
