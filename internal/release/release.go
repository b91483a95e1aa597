// SPDX-License-Identifier: Apache-2.0

// Package release takes one version of every product from its build to the users, and finishes what was interrupted.
//
// A release goes through ten steps, always in this order:
//
//	build   the manufacturer's build; the artifacts are copied, hashed, and read-only from here on
//	sbom    the components of every artifact, looked up in the artifact itself
//	plan    what follows from the command line and from what is published: line, previous release, security version
//	scan    known vulnerabilities of the candidate and, today and with the same database, of the previous release
//	gate    the verdict: new vulnerabilities, false claims, missing parts, and what could not be proven, refuse
//	sign    statement, artifacts (release key), SBOM and verdict (evidence key)
//	stage   everything is uploaded; nothing of it is listed anywhere yet
//	role    the product's catalogue with the new release in it is signed
//	publish the repository takes the catalogue: from this moment devices see the release
//	tag     the tags of images are moved, after a look at the repository as a device would take it
//
// Before the first step everything that can stop a release is looked for at once, and all of it is listed: keys, token,
// registries, database, advisory. Nothing is outside before every product has passed its gate, and nothing is listed
// before everything is uploaded everywhere.
//
// Every step is marked in a journal (package journal) and every effect may be repeated, so a release that is killed
// anywhere is run again and goes on. A step is done again when its input has changed: other sources, another previous
// release, another database. What is kept in the work folder is read back against the recorded digest first. A version
// that is published already is success if it is the same release, and a conflict if it is another one.
//
// The engine writes below its work folder and through its seams, and nowhere else. It asks no clock but its own.
package release

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/policy"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/sbom"
	"github.com/pawl-project/pawl/internal/scan"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// Catalogue is what the repository lists, verified from the maker's own root as a device would verify it.
type Catalogue interface {
	// Product returns what the offline keys say about a product; false if they do not know it.
	Product(name string) (trust.Product, bool)
	// Role returns the catalogue of a product; false if nothing of it was published yet.
	Role(product string) (trust.Role, bool)
	// ReadTarget returns the bytes of a target of at most most bytes, checked against the catalogue.
	ReadTarget(ctx context.Context, path string, most int64) ([]byte, error)
}

// Publisher takes releases into a repository: in a folder, or on a server.
type Publisher interface {
	Metadata
	// Stage uploads bytes that are not listed yet. Bytes that are there already are not sent again.
	Stage(ctx context.Context, d digest.SHA256, size int64, src io.Reader) error
	// Publish makes role the catalogue of the product. The same role again is success; a role whose version is taken by
	// another one is refused with class Conflict.
	Publish(ctx context.Context, product string, role []byte) error
}

// Images is the part of a registry that a release needs.
type Images interface {
	registry.Resolver
	registry.Pusher
	registry.Attacher
	registry.Prober
}

// Engine runs releases. Its fields are set once, by the caller.
type Engine struct {
	// Dir is the folder for work in progress: one folder per product and version.
	Dir string
	// Refresh reads the repository anew.
	Refresh   func(ctx context.Context) (Catalogue, error)
	Publisher Publisher
	// Repository names the repository for people and in the journal: a folder or an address.
	Repository string
	// Images is needed for products of channel container.
	Images  Images
	Maker   sbom.Maker
	Scanner scan.Scanner
	// Database says which snapshot of which database Scanner uses: a scan that was made with the same one is not repeated.
	Database string
	// Tool is this program.
	Tool evidence.Tool
	Now  func() time.Time
	// Verbose, if set, receives the output of builds beside their log files.
	Verbose io.Writer
	// Progress is told what happens. It may be nil.
	Progress func(Event)
}

// Product is a product as it is configured.
type Product struct {
	Name          string
	Channel       statement.Channel
	Line          func(version.Version) version.Line
	Hardware      []string
	SupportEnd    string
	MinimumSource version.Version
	// Artifacts says what is to be known of each artifact; Builder makes exactly these.
	Artifacts []Artifact
	Builder   build.Builder
	// Recipe is text that changes when the way of building does.
	Recipe string
	// Sources names the state of the sources: the same name, the same sources. Empty means that it is not known, and then
	// a build is never reused.
	Sources func(ctx context.Context) (string, error)
	// Tags are moved to the image when it is published.
	Tags []string
	// Advisory is the advisory of a security release; nil if there is none, and then NoAdvisory may say why.
	Advisory   *statement.Advisory
	NoAdvisory error
	// Release signs statements, artifacts and the catalogue, Evidence signs everything else. Nil if they could not be
	// opened; the caller then hands over the reason in Request.Problems.
	Release, Evidence sign.Signer
}

// Artifact is what is known of an artifact before it is built.
type Artifact struct {
	Name      string
	Platform  string
	Hardware  []string
	MediaType string
	// Images are the repositories of an image; empty for a file.
	Images []string
	// Components are declared by the maker and found by nobody.
	Components []evidence.Component
}

// Request is one call of the command.
type Request struct {
	Products []*Product
	Version  version.Version
	Kind     statement.Kind
	// Fixes are the names of vulnerabilities that the release claims to fix.
	Fixes []string
	// SecurityVersion, if set, is the security version.
	SecurityVersion *uint32
	// DryRun stops after the gate. Nothing leaves this machine.
	DryRun bool
	// Problems is what the caller could not prepare. It is reported with everything else that is missing.
	Problems []error
}

// Event is a moment of a release.
type Event struct {
	Product string
	Step    string
	State   EventState
	// Text is for people.
	Text string
	// Done and Total are bytes, for State Moving. Total is -1 if it is not known.
	Done, Total int64
}

// EventState says what happens to a step.
type EventState string

// The states of a step.
const (
	Begun  EventState = "begun"
	Moving EventState = "moving"
	Done   EventState = "done"
	Kept   EventState = "kept" // it was done by an earlier run
	Noted  EventState = "noted"
)

// Outcome says what has become of a product's release.
type Outcome string

// The outcomes.
const (
	Published Outcome = "published"
	Already   Outcome = "already published" // by an earlier run, or from another machine
	Would     Outcome = "would be published"
	Refused   Outcome = "refused"
	Ready     Outcome = "not published" // it passed; another product did not
)

// Result is what has become of one product's release.
type Result struct {
	Plan
	Outcome   Outcome           `json:"outcome"`
	Channel   statement.Channel `json:"channel"`
	Artifacts []Released        `json:"artifacts,omitempty"`
	// Verdict is nil if the release did not come to the gate.
	Verdict *policy.Verdict `json:"verdict,omitempty"`
	// RoleVersion is the version of the catalogue that lists the release.
	RoleVersion int64 `json:"roleVersion,omitempty"`
	// Statement is the digest of the signed statement.
	Statement digest.SHA256 `json:"statement,omitzero"`
	Tags      []string      `json:"tags,omitempty"`
	Dir       string        `json:"dir"` // the work folder
	Error     string        `json:"error,omitempty"`
}

// Released is an artifact of a release.
type Released struct {
	Name   string        `json:"name"`
	Digest digest.SHA256 `json:"digest"`
	Size   int64         `json:"size"`
	// Blob and Bundle are the names of a file and of its signature in the repository.
	Blob   string   `json:"blob,omitempty"`
	Bundle string   `json:"bundle,omitempty"`
	Images []string `json:"images,omitempty"`
}

// Run makes the release of every product. The results are in the order of the products, also beside an error. Nothing is
// published unless all of them pass.
func (e *Engine) Run(ctx context.Context, req Request) ([]Result, error) {
	var runs []*run
	results := func() []Result {
		list := make([]Result, len(runs))
		for i, r := range runs {
			list[i] = r.result
		}
		return list
	}
	problems := append([]error(nil), req.Problems...)
	for _, p := range req.Products {
		r, err := e.open(p, req)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		defer r.close()
		runs = append(runs, r)
	}
	for _, r := range runs {
		problems = append(problems, r.unprepared(ctx)...)
	}
	catalogue, err := e.Refresh(ctx)
	if err != nil {
		return results(), errors.Join(append(problems, err)...)
	}
	for _, r := range runs {
		problems = append(problems, r.unauthorised(ctx, catalogue)...)
	}
	if len(problems) > 0 {
		return results(), errors.Join(problems...)
	}

	// Every product passes its gate before anything of any product leaves this machine.
	for _, r := range runs {
		if err := r.refused(r.prepare(ctx, catalogue)); err != nil {
			problems = append(problems, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(problems) > 0 || req.DryRun {
		return results(), errors.Join(problems...)
	}
	// Everything is everywhere before anything is listed.
	for _, r := range runs {
		if err := r.refused(r.stage(ctx)); err != nil {
			return results(), err
		}
	}
	for _, r := range runs {
		if err := r.refused(r.publish(ctx)); err != nil {
			return results(), err
		}
	}
	return results(), nil
}

// keysOf returns the fingerprints of keys, for messages.
func keysOf(list []*ecdsa.PublicKey) []string {
	names := make([]string, 0, len(list))
	for _, key := range list {
		if f, err := sign.Fingerprint(key); err == nil {
			names = append(names, f[:12])
		}
	}
	return names
}

func has(list []*ecdsa.PublicKey, key *ecdsa.PublicKey) bool {
	for _, k := range list {
		if k.Equal(key) {
			return true
		}
	}
	return false
}

// conflict reports a version that is taken by another release.
func conflict(p *Product, v version.Version, format string, args ...any) *refusal.Error {
	return refusal.New(refusal.Conflict, fmt.Sprintf("version %s of %s", v, p.Name), format, args...)
}
