// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/journal"
	"github.com/pawl-project/pawl/internal/policy"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sbom"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// run is the release of one product.
type run struct {
	engine  *Engine
	product *Product
	request Request
	dir     string
	journal *journal.Journal
	result  Result

	// What the steps have found so far.
	known     trust.Role    // the catalogue without this release
	listed    *trust.Target // the statement of this version, if it is published already
	artifacts []build.Artifact
	sboms     []kept
	verdict   kept
	signed    signed
}

// open takes the lock on the release and its journal.
func (e *Engine) open(p *Product, req Request) (*run, error) {
	r := &run{engine: e, product: p, request: req, dir: filepath.Join(e.Dir, p.Name, req.Version.String())}
	r.result = Result{
		Plan:    Plan{Product: p.Name, Version: req.Version, Line: p.Line(req.Version), Kind: req.Kind, Fixes: req.Fixes},
		Outcome: Refused, Channel: p.Channel, Dir: r.dir,
	}
	if err := durable.Mkdir(r.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	subject := journal.Subject{Work: "release", Name: p.Name, Version: req.Version.String()}
	r.journal, err = journal.Open(filepath.Join(r.dir, journalFile), subject, e.Now)
	return r, err
}

func (r *run) close() { _ = r.journal.Close() } // the lock goes with the process at the latest

// refused notes why the product is not released, if it is not.
func (r *run) refused(err error) error {
	if err == nil {
		return nil
	}
	r.result.Outcome, r.result.Error = Refused, err.Error()
	return err
}

// about is what errors are about.
func (r *run) about() string { return r.product.Name + " " + r.request.Version.String() }

// unprepared looks for everything that would stop the release later and can be found without the repository.
func (r *run) unprepared(ctx context.Context) []error {
	var problems []error
	p := r.product
	incomplete := func(next, format string, args ...any) {
		problems = append(problems, refusal.New(refusal.Incomplete, "release "+r.about(), format, args...).Do("%s", next))
	}
	security := r.request.Kind == statement.Security
	switch {
	case security && p.Advisory == nil && p.NoAdvisory != nil:
		problems = append(problems, p.NoAdvisory)
	case security && p.Advisory == nil:
		incomplete("write the advisory: what was wrong, how bad it is, what the user has to do", "a security release needs an advisory, and there is none")
	}
	switch {
	case security && len(r.request.Fixes) == 0:
		incomplete("name them: --fixes CVE-...", "a security release needs the names of the vulnerabilities that it fixes")
	case !security && len(r.request.Fixes) > 0:
		incomplete("add --security, or leave --fixes away", "vulnerabilities are fixed by a security release, and this is a feature release")
	}
	if c, ok := p.Builder.(build.Checker); ok {
		if err := c.Check(); err != nil {
			problems = append(problems, fmt.Errorf("cannot build %s: %w", r.about(), err))
		}
	}
	probed := map[string]bool{}
	for _, a := range p.Artifacts {
		for _, repository := range a.Images {
			if probed[repository] {
				continue
			}
			probed[repository] = true
			if err := r.engine.Images.Probe(ctx, repository); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return problems
}

// unauthorised asks whether the repository accepts us, compares the keys with what the root keys have authorised, and the
// version with what is listed.
func (r *run) unauthorised(ctx context.Context, catalogue Catalogue) []error {
	var problems []error
	p := r.product
	if _, err := r.engine.Publisher.Metadata(ctx, p.Name); err != nil && !errors.Is(err, blob.ErrNotExist) {
		problems = append(problems, err)
	}
	delegated, known := catalogue.Product(p.Name)
	if !known {
		return append(problems, refusal.New(refusal.Unauthorised, "product "+p.Name, "the root keys have not authorised a release key for it").
			Do("add it with \"pawl keys product add %s\", with the signatures of the root keys", p.Name))
	}
	compare := func(kind string, mine sign.Signer, theirs []*ecdsa.PublicKey) {
		if mine != nil && !has(theirs, mine.PublicKey()) {
			problems = append(problems, refusal.New(refusal.Signature, kind+" key of "+p.Name,
				"it is not among the keys that the root keys have authorised: %s", strings.Join(keysOf(theirs), ", ")).
				Do("use the right key, or authorise this one with \"pawl keys product rotate %s\"", p.Name))
		}
	}
	compare("release", p.Release, delegated.Release)
	compare("evidence", p.Evidence, delegated.Evidence)
	if delegated.Threshold > 1 {
		problems = append(problems, refusal.New(refusal.Signature, "catalogue of "+p.Name,
			"%d release keys have to sign it, and a release signs with one", delegated.Threshold).
			Do("set the threshold of the product to 1 with \"pawl keys\""))
	}
	err := r.look(catalogue)
	if err == nil && r.listed == nil {
		_, err = r.plan()
	}
	if err != nil {
		problems = append(problems, r.refused(err))
	}
	return problems
}

// prepare goes from the build to the gate, or finds that the version is published already.
func (r *run) prepare(ctx context.Context, catalogue Catalogue) error {
	if err := r.look(catalogue); err != nil {
		return err
	}
	if r.listed != nil {
		return r.again(ctx, catalogue)
	}
	if err := r.build(ctx); err != nil {
		return err
	}
	boms, err := r.inventory(ctx)
	if err != nil {
		return err
	}
	if err := r.decide(ctx); err != nil {
		return err
	}
	if err := r.gate(ctx, catalogue, boms); err != nil {
		return err
	}
	r.result.Outcome = Ready
	if r.request.DryRun {
		r.result.Outcome = Would
	}
	return nil
}

// look finds this version, and all others, in the catalogue.
func (r *run) look(catalogue Catalogue) error {
	role, _ := catalogue.Role(r.product.Name)
	r.known = trust.Role{Product: r.product.Name, Version: role.Version, Targets: role.Targets}
	r.listed = nil
	if t, ok := role.Targets[r.path(trust.StatementName)]; ok {
		r.listed = &t
	}
	for _, t := range role.Targets {
		// Build metadata does not order versions: 1.4.3+a and 1.4.3+b are one version with two contents.
		if t.Index != nil && t.Index.Version != r.request.Version && t.Index.Version.Compare(r.request.Version) == 0 {
			return conflict(r.product, r.request.Version, "%s is published, and build metadata does not make another version", t.Index.Version).
				Do("choose a higher version")
		}
	}
	return nil
}

func (r *run) path(name string) string {
	return trust.TargetPath(r.product.Name, r.request.Version, name)
}

// builtFrom is the input of the build.
type builtFrom struct {
	Product string          `json:"product"`
	Version version.Version `json:"version"`
	Recipe  string          `json:"recipe"`
	Sources string          `json:"sources"`
}

func (r *run) build(ctx context.Context) error {
	sources, err := r.sources(ctx)
	if err != nil {
		return err
	}
	in := builtFrom{r.product.Name, r.request.Version, r.product.Recipe, sources}
	out := filepath.Join(r.dir, artifactsDir)
	r.artifacts, err = step(ctx, r, "build", in, func(ctx context.Context) ([]build.Artifact, error) {
		return r.makeArtifacts(ctx, out)
	}, func(list []build.Artifact) error { return build.Check(out, list) })
	if err != nil {
		return err
	}
	r.describe()
	return nil
}

// describe puts the artifacts into the result.
func (r *run) describe() {
	r.result.Artifacts = nil
	for i, a := range r.artifacts {
		done := Released{Name: a.Name, Digest: a.Digest.SHA256, Size: a.Size, Images: r.product.Artifacts[i].Images}
		if !a.Image {
			done.Blob = trust.BlobName(r.path(a.Name), a.Digest.SHA256)
			name := r.path(a.Name + bundleEnding)
			if t, ok := r.known.Targets[name]; ok {
				done.Bundle = trust.BlobName(name, t.Digest)
			}
			for _, k := range r.signed.Files {
				if k.Name == a.Name+bundleEnding {
					done.Bundle = trust.BlobName(name, k.Digest)
				}
			}
		}
		r.result.Artifacts = append(r.result.Artifacts, done)
	}
}

// sources names the state of the sources. If it is not known, the name is one that never comes again.
func (r *run) sources(ctx context.Context) (string, error) {
	if r.product.Sources != nil {
		name, err := r.product.Sources(ctx)
		if err != nil || name != "" {
			return name, err
		}
	}
	if slices.Contains(r.journal.Steps(), "build") {
		r.tell("build", Noted, "whether the sources have changed is not known, so they are built again")
	}
	return "unknown " + r.engine.Now().UTC().Format(time.RFC3339Nano), nil
}

func (r *run) makeArtifacts(ctx context.Context, out string) (list []build.Artifact, err error) {
	if err := os.RemoveAll(out); err != nil {
		return nil, err
	}
	if err := durable.Mkdir(out, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(r.dir, logFile))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	in := build.Input{Product: r.product.Name, Version: r.request.Version.String(), Out: out, Log: log}
	if r.engine.Verbose != nil {
		in.Log = io.MultiWriter(log, r.engine.Verbose)
	}
	if list, err = r.product.Builder.Build(ctx, in); err != nil {
		return nil, fmt.Errorf("cannot build %s: %w", r.about(), err)
	}
	if len(list) != len(r.product.Artifacts) {
		return nil, fmt.Errorf("cannot build %s: %d artifacts were made, %d are configured", r.about(), len(list), len(r.product.Artifacts))
	}
	for i, want := range r.product.Artifacts {
		if list[i].Name != want.Name || list[i].Image != (len(want.Images) > 0) {
			return nil, fmt.Errorf("cannot build %s: artifact %s was made, %s is configured", r.about(), list[i].Name, want.Name)
		}
		if want.MediaType != "" {
			list[i].MediaType = want.MediaType
		}
	}
	return list, nil
}

// inventory is the step sbom: the components of every artifact, each list in a file of its own.
func (r *run) inventory(ctx context.Context) ([]evidence.SBOM, error) {
	type input struct {
		Artifacts []build.Artifact       `json:"artifacts"`
		Declared  [][]evidence.Component `json:"declared"`
		Tool      evidence.Tool          `json:"tool"`
	}
	in := input{Artifacts: r.artifacts, Tool: r.engine.Tool}
	for _, a := range r.product.Artifacts {
		in.Declared = append(in.Declared, a.Components)
	}
	var boms []evidence.SBOM
	list, err := step(ctx, r, "sbom", in, func(ctx context.Context) ([]kept, error) {
		var list []kept
		for i, a := range r.artifacts {
			bom, err := r.components(ctx, a, r.product.Artifacts[i].Components)
			if err != nil {
				return nil, fmt.Errorf("cannot list the components of %s: %w", a.Name, err)
			}
			data, err := bom.EncodeCycloneDX()
			if err != nil {
				return nil, fmt.Errorf("cannot write the SBOM of %s: %w", a.Name, err)
			}
			k, err := r.keep(evidenceDir, a.Name+sbomEnding, data)
			if err != nil {
				return nil, err
			}
			list = append(list, k)
		}
		return list, nil
	}, func(list []kept) error {
		// What is scanned and judged is what will be published: the file, read back.
		boms = nil
		for _, k := range list {
			data, err := r.recall(evidenceDir, k)
			if err != nil {
				return err
			}
			bom, err := evidence.DecodeCycloneDX(data)
			if err != nil {
				return err
			}
			boms = append(boms, bom)
		}
		return nil
	})
	r.sboms = list
	return boms, err
}

// components looks into one artifact. What no tool can look into is opaque: only what is declared is known of it.
func (r *run) components(ctx context.Context, a build.Artifact, declared []evidence.Component) (evidence.SBOM, error) {
	src := sbom.Source{
		Shape: sbom.File, Path: filepath.Join(r.dir, artifactsDir, a.Name),
		Subject: evidence.Subject{Name: a.Name, Version: r.request.Version.String(), Digest: a.Digest, Size: a.Size},
	}
	if a.Image {
		src.Shape = sbom.Layout
	}
	bom, err := r.engine.Maker.Make(ctx, src)
	if errors.Is(err, sbom.ErrUnsupported) {
		bom, err = evidence.SBOM{Tool: r.engine.Tool, Opaque: true}, nil
	}
	if err != nil {
		return evidence.SBOM{}, err
	}
	bom.Subject, bom.Created = src.Subject, r.engine.Now().UTC().Truncate(time.Second)
	for _, c := range declared {
		c.Declared, c.Ecosystem = true, evidence.Identify(c.PURL).Ecosystem
		bom.Components = append(bom.Components, c)
	}
	bom.Components = evidence.Merge(bom.Components)
	return bom, nil
}

// plan makes the plan from what is listed.
func (r *run) plan() (Plan, error) {
	var known []trust.Index
	for _, t := range r.known.Targets {
		if t.Index != nil && t.Index.Version != r.request.Version {
			known = append(known, *t.Index)
		}
	}
	// The same catalogue always gives the same plan, to the letter: it is the input of what follows.
	slices.SortFunc(known, func(a, b trust.Index) int { return b.Version.Compare(a.Version) })
	return decide(r.product, r.request, known)
}

// decide is the step plan.
func (r *run) decide(ctx context.Context) error {
	plan, err := r.plan()
	if err != nil {
		return err
	}
	if before, ok, err := journal.Recorded[Plan](r.journal, "plan"); err == nil && ok && before.difference(plan) != "" {
		r.tell("plan", Noted, "it differs from that of an earlier run: "+before.difference(plan))
	}
	r.result.Plan, err = step(ctx, r, "plan", plan, func(context.Context) (Plan, error) { return plan, nil }, nil)
	return err
}

// gate is the steps scan and gate. The verdict is written down in any case; only one that passes is marked.
func (r *run) gate(ctx context.Context, catalogue Catalogue, boms []evidence.SBOM) error {
	before, err := r.previous(ctx, catalogue)
	if err != nil {
		return err
	}
	type input struct {
		Plan      Plan            `json:"plan"`
		Artifacts []kept          `json:"artifacts"`
		Previous  []digest.SHA256 `json:"previous"`
		Database  string          `json:"database"`
	}
	in := input{Plan: r.result.Plan, Artifacts: r.sboms, Database: r.engine.Database}
	for _, b := range before {
		in.Previous = append(in.Previous, b.digest)
	}
	var found scans
	list, err := step(ctx, r, "scan", in, func(ctx context.Context) (kept, error) {
		s, err := r.scan(ctx, boms, before)
		if err != nil {
			return kept{}, err
		}
		data, err := json.Marshal(s, json.Deterministic(true))
		if err != nil {
			return kept{}, err
		}
		return r.keep(evidenceDir, scanFile, data)
	}, func(k kept) error {
		data, err := r.recall(evidenceDir, k)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &found)
	})
	if err != nil {
		return err
	}
	verdict := policy.Gate(r.judge(boms, before, found))
	r.result.Verdict = &verdict
	text, err := verdict.Encode()
	if err != nil {
		return err
	}
	type judged struct {
		Scan     kept                `json:"scan"`
		Advisory *statement.Advisory `json:"advisory,omitempty"`
		Verdict  digest.SHA256       `json:"verdict"`
	}
	r.verdict, err = step(ctx, r, "gate", judged{list, r.product.Advisory, digest.Of(text)}, func(context.Context) (kept, error) {
		k, err := r.keep(evidenceDir, verdictFile, text)
		if err != nil {
			return kept{}, err
		}
		var refusals []error
		for _, refused := range verdict.Refusals() {
			refusals = append(refusals, refused)
		}
		return k, errors.Join(refusals...)
	}, func(k kept) error { _, err := r.recall(evidenceDir, k); return err })
	return err
}

// scans are the reports of all artifacts, in the order of the candidate's and of the previous release's artifacts.
type scans struct {
	Now    []evidence.Report `json:"now"`
	Before []evidence.Report `json:"before"`
	// At is the time of the verdict.
	At time.Time `json:"at"`
}

// earlier is an artifact of the previous release.
type earlier struct {
	name   string
	digest digest.SHA256 // of the artifact
	bom    *evidence.SBOM
	failed string
}

// previous reads the SBOMs of the previous release from the repository.
func (r *run) previous(ctx context.Context, catalogue Catalogue) ([]earlier, error) {
	v := r.result.Plan.Previous
	if v.IsZero() {
		return nil, nil
	}
	claim, _, err := r.read(ctx, catalogue, v)
	if err != nil {
		return nil, fmt.Errorf("cannot read the previous release: %w", err)
	}
	var list []earlier
	for _, a := range claim.Artifacts {
		e := earlier{name: a.Name, digest: a.Digest.SHA256}
		data, err := catalogue.ReadTarget(ctx, trust.TargetPath(r.product.Name, v, a.Name+sbomEnding), evidence.MaxSBOMBytes)
		if err == nil {
			var bom evidence.SBOM
			if bom, err = evidence.DecodeCycloneDX(data); err == nil {
				e.bom = &bom
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			e.failed = err.Error()
		}
		list = append(list, e)
	}
	return list, nil
}

// read reads the statement of a version and verifies it as a device would.
func (r *run) read(ctx context.Context, catalogue Catalogue, v version.Version) (statement.Release, digest.SHA256, error) {
	checked := fmt.Sprintf("statement of %s %s", r.product.Name, v)
	path := trust.TargetPath(r.product.Name, v, trust.StatementName)
	data, err := catalogue.ReadTarget(ctx, path, catalog.MaxStatement)
	if err != nil {
		return statement.Release{}, digest.SHA256{}, err
	}
	delegated, _ := catalogue.Product(r.product.Name)
	b, err := bundle.Parse(data)
	if err != nil {
		return statement.Release{}, digest.SHA256{}, err
	}
	payload, err := b.VerifyStatement(delegated.StatementKeys())
	if err != nil {
		return statement.Release{}, digest.SHA256{}, err
	}
	claim, err := statement.Decode(payload)
	if err != nil {
		return statement.Release{}, digest.SHA256{}, err
	}
	if claim.Product != r.product.Name || claim.Version != v {
		return statement.Release{}, digest.SHA256{}, refusal.New(refusal.Mixed, checked, "it is about %s %s", claim.Product, claim.Version)
	}
	return claim, digest.Of(data), nil
}

func (r *run) scan(ctx context.Context, boms []evidence.SBOM, before []earlier) (scans, error) {
	s := scans{At: r.engine.Now().UTC().Truncate(time.Second)}
	for _, bom := range boms {
		report, err := r.engine.Scanner.Scan(ctx, bom)
		if err != nil {
			return scans{}, refusal.New(refusal.NotProven, "scan of "+bom.Subject.Name, "%w", err).
				Do("make the vulnerability database usable and run the release again")
		}
		s.Now = append(s.Now, report)
	}
	for _, b := range before {
		if b.bom == nil {
			s.Before = append(s.Before, evidence.Report{})
			continue
		}
		report, err := r.engine.Scanner.Scan(ctx, *b.bom)
		if err != nil {
			return scans{}, refusal.New(refusal.NotProven, "scan of "+b.name+" of "+r.result.Plan.Previous.String(), "%w", err).
				Do("make the vulnerability database usable and run the release again")
		}
		s.Before = append(s.Before, report)
	}
	return s, nil
}

// judge puts together what the gate looks at.
func (r *run) judge(boms []evidence.SBOM, before []earlier, found scans) policy.Input {
	plan := r.result.Plan
	in := policy.Input{
		Product: plan.Product, Version: plan.Version, Line: plan.Line, Kind: plan.Kind, Fixes: plan.Fixes,
		Advisory: r.product.Advisory, Previous: plan.Previous, Tool: r.engine.Tool, At: found.At,
	}
	for i, a := range r.artifacts {
		x := policy.Artifact{Name: a.Name, Digest: a.Digest.SHA256, SBOM: &boms[i]}
		if i < len(found.Now) {
			// The subject is not part of a report's text; the report was made from this SBOM.
			found.Now[i].Subject = boms[i].Subject
			x.Report = &found.Now[i]
		}
		in.Artifacts = append(in.Artifacts, x)
	}
	for i, b := range before {
		x := policy.Artifact{Name: b.name, Digest: b.digest, SBOM: b.bom, Failed: b.failed}
		if b.bom != nil && i < len(found.Before) {
			found.Before[i].Subject = b.bom.Subject
			x.Report = &found.Before[i]
		}
		in.Before = append(in.Before, x)
	}
	return in
}
