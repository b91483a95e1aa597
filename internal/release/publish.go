// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/bundle"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/journal"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

// The endings of the names of targets beside an artifact.
const (
	bundleEnding        = ".sigstore.json"
	sbomEnding          = ".cdx.json"
	sbomBundleEnding    = ".sbom.sigstore.json"
	verdictEnding       = ".verdict.json"
	verdictBundleEnding = ".verdict.sigstore.json"
)

// roleLife is how long the catalogue of a product is valid without a new release.
const roleLife = 365 * 24 * time.Hour

// attempts bounds how often a release is published: it is planned anew when somebody else has published meanwhile, and
// uploaded anew when what was uploaded has been swept away.
const attempts = 2

// signed is the result of the step sign: the files of the release that are not artifacts.
type signed struct {
	// Statement is the digest of the statement's bundle: it names the release.
	Statement digest.SHA256 `json:"statement"`
	Files     []kept        `json:"files"`
	Index     trust.Index   `json:"index"`
	Issued    time.Time     `json:"issued"`
}

// claim makes the statement of a plan.
func (r *run) claim(plan Plan, issued time.Time) statement.Release {
	p := r.product
	s := statement.Release{
		Product: p.Name, Channel: p.Channel, Version: plan.Version, Line: plan.Line, Kind: plan.Kind,
		SecurityVersion: plan.SecurityVersion, Hardware: p.Hardware, MinimumSource: plan.MinimumSource,
		Issued: issued.UTC().Truncate(time.Second), SupportEnd: p.SupportEnd, Fixes: plan.Fixes, Advisory: p.Advisory,
	}
	for i, a := range r.artifacts {
		known := p.Artifacts[i]
		s.Artifacts = append(s.Artifacts, statement.Artifact{
			Name: a.Name, Digest: a.Digest, Size: a.Size, MediaType: a.MediaType,
			Platform: known.Platform, Hardware: known.Hardware, Images: known.Images,
		})
	}
	return s
}

// sign is the step sign. What it has signed once is not signed again: a second signature would be another file.
func (r *run) sign(ctx context.Context) error {
	releaseKey, err := sign.Fingerprint(r.product.Release.PublicKey())
	if err != nil {
		return err
	}
	evidenceKey, err := sign.Fingerprint(r.product.Evidence.PublicKey())
	if err != nil {
		return err
	}
	type input struct {
		Claim   statement.Release `json:"claim"`
		Digests []digest.Set      `json:"digests"` // which the claim's text does not have
		SBOMs   []kept            `json:"sboms"`
		Verdict kept              `json:"verdict"`
		Keys    [2]string         `json:"keys"`
	}
	in := input{Claim: r.claim(r.result.Plan, time.Time{}), SBOMs: r.sboms, Verdict: r.verdict, Keys: [2]string{releaseKey, evidenceKey}}
	for _, a := range r.artifacts {
		in.Digests = append(in.Digests, a.Digest)
	}
	r.signed, err = step(ctx, r, "sign", in, r.makeSignatures, func(s signed) error {
		for _, k := range s.Files {
			if _, err := r.recall(targetsDir, k); err != nil {
				return err
			}
		}
		return nil
	})
	r.result.Statement = r.signed.Statement
	r.describe()
	return err
}

func (r *run) makeSignatures(ctx context.Context) (signed, error) {
	claim := r.claim(r.result.Plan, r.engine.Now())
	payload, err := claim.Encode()
	if err != nil {
		return signed{}, fmt.Errorf("cannot state release %s: %w", r.about(), err)
	}
	out := signed{Index: *trust.IndexOf(claim), Issued: claim.Issued}
	if err := os.RemoveAll(filepath.Join(r.dir, targetsDir)); err != nil {
		return signed{}, err
	}
	keep := func(name string, data []byte, err error) error {
		if err != nil {
			return fmt.Errorf("cannot sign %s: %w", name, err)
		}
		k, err := r.keep(targetsDir, name, data)
		out.Files = append(out.Files, k)
		return err
	}
	data, err := bundle.SignStatement(ctx, r.product.Release, payload)
	if err := keep(trust.StatementName, data, err); err != nil {
		return signed{}, err
	}
	out.Statement = out.Files[0].Digest
	verdict, err := r.recall(evidenceDir, r.verdict)
	if err != nil {
		return signed{}, err
	}
	for i, a := range r.artifacts {
		if err := r.signArtifact(ctx, a, r.sboms[i], verdict, keep); err != nil {
			return signed{}, err
		}
	}
	return out, nil
}

// signArtifact makes the signature of a file and the attestations of its evidence. The signature of an image is attached
// to it in the registry.
func (r *run) signArtifact(ctx context.Context, a build.Artifact, bom kept, verdict []byte, keep func(string, []byte, error) error) error {
	if !a.Image {
		data, err := bundle.SignBlob(ctx, r.product.Release, a.Digest.SHA256)
		if err := keep(a.Name+bundleEnding, data, err); err != nil {
			return err
		}
	}
	attest := func(predicateType string, predicate []byte) ([]byte, error) {
		return bundle.Attest(ctx, r.product.Evidence, bundle.Attestation{
			Subject: bundle.Subject{Name: a.Name, Digest: a.Digest}, PredicateType: predicateType, Predicate: predicate,
		})
	}
	text, err := r.recall(evidenceDir, bom)
	if err := keep(a.Name+sbomEnding, text, err); err != nil {
		return err
	}
	data, err := attest(evidence.CycloneDXPredicate, text)
	if err := keep(a.Name+sbomBundleEnding, data, err); err != nil {
		return err
	}
	if err := keep(a.Name+verdictEnding, verdict, nil); err != nil {
		return err
	}
	data, err = attest(evidence.VerdictPredicate, verdict)
	return keep(a.Name+verdictBundleEnding, data, err)
}

// stage signs and uploads everything: files to the repository, images by digest to every registry, signatures to the
// images. Nothing of it is listed afterwards.
func (r *run) stage(ctx context.Context) error {
	if r.result.Outcome == Already {
		return nil
	}
	// A journal can say "published" of a repository that has lost it since, or of another repository.
	if _, done, err := journal.Recorded[struct{}](r.journal, "publish"); err != nil || done {
		if err := errors.Join(err, r.journal.Strike(ctx, "stage")); err != nil {
			return err
		}
	}
	if err := r.sign(ctx); err != nil {
		return err
	}
	type input struct {
		Repository string           `json:"repository"`
		Files      []kept           `json:"files"`
		Artifacts  []build.Artifact `json:"artifacts"`
		Images     [][]string       `json:"images"`
	}
	in := input{Repository: r.engine.Repository, Files: r.signed.Files, Artifacts: r.artifacts}
	for _, a := range r.product.Artifacts {
		in.Images = append(in.Images, a.Images)
	}
	_, err := step(ctx, r, "stage", in, func(ctx context.Context) (struct{}, error) {
		for i, a := range r.artifacts {
			var err error
			if a.Image {
				err = r.push(ctx, a, r.product.Artifacts[i].Images)
			} else {
				err = r.upload(ctx, artifactsDir, kept{a.Name, a.Digest.SHA256, a.Size})
			}
			if err != nil {
				return struct{}{}, err
			}
		}
		for _, k := range r.signed.Files {
			if err := r.upload(ctx, targetsDir, k); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	}, func(struct{}) error { return r.pushed(ctx) })
	return err
}

// pushed asks every registry for the image. A registry may throw away what has no tag: a release whose image has gone must
// not be listed.
func (r *run) pushed(ctx context.Context) error {
	for i, a := range r.artifacts {
		for _, repository := range r.product.Artifacts[i].Images {
			img := registry.Image{Repository: repository, Digest: a.Digest.SHA256}
			there, err := r.engine.Images.Exists(ctx, img)
			if err != nil {
				return err
			}
			if !there {
				return fmt.Errorf("%s %w", img, registry.ErrNotExist)
			}
		}
	}
	return nil
}

// upload stages one file.
func (r *run) upload(ctx context.Context, dir string, k kept) error {
	err := fault.Around(ctx, r.journal.Point("stage")+"."+k.Name, func() (err error) {
		f, err := os.Open(filepath.Join(r.dir, dir, k.Name))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		return r.engine.Publisher.Stage(ctx, k.Digest, k.Size, r.watch(f, "stage", k.Name, k.Size))
	})
	if err != nil {
		return fmt.Errorf("cannot upload %s to %s: %w", k.Name, r.engine.Repository, err)
	}
	return nil
}

// push brings an image to every registry, and signs it there. It stays without a tag.
func (r *run) push(ctx context.Context, a build.Artifact, repositories []string) error {
	for n, repository := range repositories {
		img := registry.Image{Repository: repository, Digest: a.Digest.SHA256}
		point := fmt.Sprintf("%s.%s.%d", r.journal.Point("stage"), a.Name, n)
		err := fault.Around(ctx, point, func() error {
			return r.engine.Images.Push(ctx, img, filepath.Join(r.dir, artifactsDir, a.Name), func(done, total int64) {
				r.event(Event{Product: r.product.Name, Step: "stage", State: Moving, Text: img.String(), Done: done, Total: total})
			})
		})
		if err != nil {
			return fmt.Errorf("cannot push %s: %w", img, err)
		}
		err = fault.Around(ctx, point+".sign", func() error {
			return r.engine.Images.Sign(ctx, r.product.Release, img, r.signed.Issued)
		})
		if err != nil {
			return fmt.Errorf("cannot sign %s: %w", img, err)
		}
	}
	return nil
}

// publish lists the release, looks at it as a device would, and moves the tags. If somebody else has published meanwhile,
// the release is planned anew, once.
func (r *run) publish(ctx context.Context) error {
	for attempt := 1; r.result.Outcome != Already; attempt++ {
		err := r.commit(ctx)
		if err == nil {
			break
		}
		class := refusal.Of(err)
		if class != refusal.Conflict && class != refusal.NotProven || attempt == attempts {
			return err
		}
		if class == refusal.NotProven {
			r.tell("publish", Noted, "what an earlier run has uploaded is no longer there, so it is uploaded again")
			if err := r.journal.Strike(ctx, "stage"); err != nil {
				return err
			}
		} else {
			r.tell("publish", Noted, "somebody else has published meanwhile, so the release is planned anew")
			catalogue, err := r.engine.Refresh(ctx)
			if err != nil {
				return err
			}
			if err := r.prepare(ctx, catalogue); err != nil {
				return err
			}
		}
		if err := r.stage(ctx); err != nil {
			return err
		}
	}
	if err := r.confirm(ctx); err != nil {
		return err
	}
	if err := r.tag(ctx); err != nil {
		return err
	}
	if r.result.Outcome != Already {
		r.result.Outcome = Published
	}
	return nil
}

// commit is the steps role and publish.
func (r *run) commit(ctx context.Context) error {
	targets := r.targets()
	type input struct {
		Base    int64                   `json:"base"`
		Targets map[string]trust.Target `json:"targets"`
	}
	k, err := step(ctx, r, "role", input{r.known.Version, targets}, func(ctx context.Context) (kept, error) {
		role := trust.Role{Product: r.product.Name, Version: r.known.Version + 1, Expires: r.engine.Now().Add(roleLife), Targets: maps.Clone(r.known.Targets)}
		if role.Targets == nil {
			role.Targets = map[string]trust.Target{}
		}
		maps.Copy(role.Targets, targets)
		doc, err := trust.NewRole(role)
		if err != nil {
			return kept{}, fmt.Errorf("cannot list release %s: %w", r.about(), err)
		}
		if doc, err = trust.Sign(ctx, doc, r.product.Release); err != nil {
			return kept{}, fmt.Errorf("cannot sign the catalogue of %s: %w", r.product.Name, err)
		}
		return r.keep(".", roleFile, doc)
	}, func(k kept) error { _, err := r.recall(".", k); return err })
	if err != nil {
		return err
	}
	_, err = step(ctx, r, "publish", r.publication(), func(ctx context.Context) (struct{}, error) {
		doc, err := r.recall(".", k)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, r.engine.Publisher.Publish(ctx, r.product.Name, doc)
	}, nil)
	r.result.RoleVersion = r.known.Version + 1
	return err
}

// publication is the input of the steps publish and tag: the release by its signed statement, and where it is published.
type publication struct {
	Repository string        `json:"repository"`
	Statement  digest.SHA256 `json:"statement"`
}

func (r *run) publication() publication {
	return publication{r.engine.Repository, r.result.Statement}
}

// targets are what the release adds to the catalogue.
func (r *run) targets() map[string]trust.Target {
	list := map[string]trust.Target{}
	for _, a := range r.artifacts {
		if !a.Image {
			list[r.path(a.Name)] = trust.Target{Size: a.Size, Digest: a.Digest.SHA256}
		}
	}
	for _, k := range r.signed.Files {
		t := trust.Target{Size: k.Size, Digest: k.Digest}
		if k.Name == trust.StatementName {
			t.Index = &r.signed.Index
		}
		list[r.path(k.Name)] = t
	}
	return list
}

// confirm reads the repository as a device would and finds the release in it.
func (r *run) confirm(ctx context.Context) error {
	if r.result.Outcome == Already {
		return nil
	}
	catalogue, err := r.engine.Refresh(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the release back from %s: %w", r.engine.Repository, err)
	}
	_, sum, err := r.read(ctx, catalogue, r.request.Version)
	if err != nil {
		return fmt.Errorf("cannot read the release back from %s: %w", r.engine.Repository, err)
	}
	if sum != r.result.Statement {
		return conflict(r.product, r.request.Version, "%s lists statement %s, this release has %s", r.engine.Repository, sum.Short(), r.result.Statement.Short())
	}
	return nil
}

// tag moves the tags of the images.
func (r *run) tag(ctx context.Context) error {
	type input struct {
		publication
		Tags []string `json:"tags"`
	}
	if len(r.product.Tags) == 0 {
		return nil
	}
	_, err := step(ctx, r, "tag", input{r.publication(), r.product.Tags}, func(ctx context.Context) (struct{}, error) {
		for i, a := range r.artifacts {
			for n, repository := range r.product.Artifacts[i].Images {
				img := registry.Image{Repository: repository, Digest: a.Digest.SHA256}
				for _, tag := range r.product.Tags {
					point := fmt.Sprintf("%s.%s.%d.%s", r.journal.Point("tag"), a.Name, n, tag)
					if err := fault.Around(ctx, point, func() error { return r.move(ctx, img, tag) }); err != nil {
						return struct{}{}, fmt.Errorf("cannot tag %s as %s: %w", img, tag, err)
					}
				}
			}
		}
		return struct{}{}, nil
	}, nil)
	r.result.Tags = r.product.Tags
	return err
}

// move makes a tag name the image, unless that would take it back from a later release of the line.
func (r *run) move(ctx context.Context, img registry.Image, tag string) error {
	plan := r.result.Plan
	for _, t := range r.known.Targets {
		if t.Index == nil || !plan.Line.Holds(t.Index.Version) || t.Index.Version.Compare(plan.Version) <= 0 {
			continue
		}
		now, err := r.engine.Images.Resolve(ctx, img.Repository, tag)
		if errors.Is(err, registry.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if now.Digest != img.Digest {
			r.tell("tag", Noted, fmt.Sprintf("%s:%s names another image and %s is published: it is left alone", img.Repository, tag, t.Index.Version))
		}
		return nil
	}
	return r.engine.Images.Tag(ctx, img, tag)
}

// again handles a version that is listed already: the same release is success, another one is a conflict.
func (r *run) again(ctx context.Context, catalogue Catalogue) error {
	there, sum, err := r.read(ctx, catalogue, r.request.Version)
	if err != nil {
		return fmt.Errorf("version %s of %s is published and cannot be read: %w", r.request.Version, r.product.Name, err)
	}
	r.result.Plan = Plan{
		Product: there.Product, Version: there.Version, Line: there.Line, Kind: there.Kind, Fixes: there.Fixes,
		SecurityVersion: there.SecurityVersion, MinimumSource: there.MinimumSource,
	}
	r.result.Statement, r.result.RoleVersion = sum, r.known.Version
	if err := r.rebuild(ctx, sum); err != nil {
		return err
	}
	if list := r.differences(there); len(list) > 0 {
		return conflict(r.product, r.request.Version, "it is published with other content: %s", strings.Join(list, "; ")).
			Do("a published version never changes: choose a higher version")
	}
	r.result.Outcome = Already
	r.tell("publish", Kept, "this release is published already")
	// An earlier run may have been killed between the effect and its mark.
	_, err = step(ctx, r, "publish", r.publication(), func(context.Context) (struct{}, error) { return struct{}{}, nil }, nil)
	return err
}

// rebuild brings the artifacts of a published version back, to be compared. If an earlier run on this machine has signed
// the very statement that is published and was killed before its end, then its artifacts are those: nothing is built
// unless the sources are known to differ, so that a build which never gives the same bytes twice can be finished.
func (r *run) rebuild(ctx context.Context, listed digest.SHA256) error {
	mine, ok, err := journal.Recorded[signed](r.journal, "sign")
	if err != nil {
		return err
	}
	last := "publish"
	if len(r.product.Tags) > 0 {
		last = "tag"
	}
	known := ""
	if r.product.Sources != nil {
		if known, err = r.product.Sources(ctx); err != nil {
			return err
		}
	}
	if !ok || mine.Statement != listed || known != "" || slices.Contains(r.journal.Steps(), last) {
		return r.build(ctx)
	}
	r.artifacts, _, err = journal.Recorded[[]build.Artifact](r.journal, "build")
	r.describe()
	return err
}

// differences compares what is published with what would be.
func (r *run) differences(there statement.Release) []string {
	plan := Plan{
		Product: r.product.Name, Version: r.request.Version, Line: r.product.Line(r.request.Version),
		Kind: r.request.Kind, Fixes: r.request.Fixes, SecurityVersion: there.SecurityVersion,
		MinimumSource: r.product.minimumSource(r.request.Version),
	}
	if r.request.SecurityVersion != nil {
		plan.SecurityVersion = *r.request.SecurityVersion
	}
	here := r.claim(plan, there.Issued)

	var list []string
	differ := func(what string, a, b any) {
		x, errX := json.Marshal(a, json.Deterministic(true))
		y, errY := json.Marshal(b, json.Deterministic(true))
		switch {
		case errX == nil && errY == nil && bytes.Equal(x, y):
		case len(x)+len(y) > 120: // not for a line that a person reads
			list = append(list, what+" differs")
		default:
			list = append(list, fmt.Sprintf("%s is %s there and %s here", what, x, y))
		}
	}
	differ("channel", there.Channel, here.Channel)
	differ("kind", there.Kind, here.Kind)
	differ("line", there.Line, here.Line)
	differ("security version", there.SecurityVersion, here.SecurityVersion)
	differ("hardware", there.Hardware, here.Hardware)
	differ("minimum source", there.MinimumSource, here.MinimumSource)
	differ("support end", there.SupportEnd, here.SupportEnd)
	differ("fixes", there.Fixes, here.Fixes)
	differ("advisory", there.Advisory, here.Advisory)
	if len(there.Artifacts) != len(here.Artifacts) {
		return append(list, fmt.Sprintf("%d artifacts there and %d here", len(there.Artifacts), len(here.Artifacts)))
	}
	for i, a := range there.Artifacts {
		b := here.Artifacts[i]
		differ(fmt.Sprintf("name of artifact %d", i+1), a.Name, b.Name)
		if a.Digest.SHA256 != b.Digest.SHA256 {
			list = append(list, fmt.Sprintf("%s is sha256:%s there and sha256:%s here", a.Name, a.Digest.SHA256.Short(), b.Digest.SHA256.Short()))
			continue
		}
		differ("description of "+a.Name, a, b)
	}
	return list
}

// watch tells the progress of reading f.
func (r *run) watch(f *os.File, name, text string, total int64) io.Reader {
	return &watched{file: f, tell: func(done int64) {
		r.event(Event{Product: r.product.Name, Step: name, State: Moving, Text: text, Done: done, Total: total})
	}}
}

// watched is a file that tells how much of it was read. It can be read from any place, so an upload can go on where it
// stopped.
type watched struct {
	file *os.File
	done int64
	tell func(int64)
}

// Read reads on.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.file.Read(p)
	w.done += int64(n)
	w.tell(w.done)
	return n, err
}

// Seek goes to another place.
func (w *watched) Seek(offset int64, whence int) (int64, error) {
	at, err := w.file.Seek(offset, whence)
	w.done = at
	return at, err
}
