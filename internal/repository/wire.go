// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"errors"
	"strings"

	"github.com/pawl-project/pawl/internal/refusal"
)

// The HTTP form of a Publisher, spoken by remote.Client and package serve. Every request carries a bearer token.
//
//	GET  /api/v1/metadata/{role}        the current document
//	HEAD /api/v1/staging/{sha256}       headers Upload-Offset and Upload-Complete (?0 or ?1); query size=BYTES
//	PUT  /api/v1/staging/{sha256}       header Content-Range: bytes FIRST-LAST/SIZE; FIRST is the Upload-Offset
//	POST /api/v1/publish/{product}      the signed role
//	POST /api/v1/trust                  a TrustUpdate
//
// A refusal is a Problem. What has arrived of a PUT that breaks off is kept.
const (
	PathMetadata = "/api/v1/metadata/"
	PathStaging  = "/api/v1/staging/"
	PathPublish  = "/api/v1/publish/"
	PathTrust    = "/api/v1/trust"

	HeaderOffset   = "Upload-Offset"
	HeaderComplete = "Upload-Complete"
)

// MaxTrustUpdate bounds a TrustUpdate, in bytes of JSON.
const MaxTrustUpdate = 32 << 20

// TrustUpdate is the body of a request to PathTrust.
type TrustUpdate struct {
	Roots   [][]byte `json:"roots,omitempty"`
	Targets []byte   `json:"targets,omitempty"`
}

// Problem is the body of an answer that is not a success.
type Problem struct {
	Class   refusal.Class `json:"class,omitempty"`
	Checked string        `json:"checked,omitempty"`
	Failed  string        `json:"failed"`
	Next    string        `json:"next,omitempty"`
}

// ProblemOf returns what a caller may know about err: a refusal in full, of everything else that it is an error.
func ProblemOf(err error) Problem {
	var e *refusal.Error
	if !errors.As(err, &e) {
		return Problem{Failed: "the server could not do it, and its log says why"}
	}
	return Problem{e.Class, e.Checked, e.Failed, e.Next}
}

// Refusal returns the refusal that a server has told, or nil if its class is not one that this program knows. The words
// are those of the server, made fit for a terminal.
func (p Problem) Refusal() *refusal.Error {
	for _, row := range refusal.Table() {
		if row.Class != "" && row.Class == p.Class {
			return &refusal.Error{Class: p.Class, Checked: printable(p.Checked), Failed: printable(p.Failed), Next: printable(p.Next)}
		}
	}
	return nil
}

// printable keeps escape sequences of a hostile server away from the terminal.
func printable(s string) string {
	const most = 1000
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return ' '
		}
		return c
	}, s)
	return s[:min(len(s), most)]
}
