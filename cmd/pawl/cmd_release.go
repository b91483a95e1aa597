// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/release"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// releaseFlags are the flags of "pawl release".
type releaseFlags struct {
	file            string
	products        []string
	security        bool
	fixes           []string
	securityVersion uint32
	dryRun          bool
}

func newReleaseCommand(a *app) *cobra.Command {
	var flags releaseFlags
	cmd := &cobra.Command{
		Use:   "release VERSION",
		Short: "Build, scan, sign and publish a version, or go on where it stopped",
		Long: `Build, scan, sign and publish a version of every product in pawl.yaml.

Before any time is spent, everything that a release needs is looked for, and one screen lists all
that is missing. Then the artifacts are built, their components are listed, and known
vulnerabilities are looked up for them and, with the same database, for the previous release. The
gate refuses a release that brings new vulnerabilities, one that claims a fix that is not true, and
a security release without advisory, SBOM or claim. There is no switch to skip it.

Nothing leaves this machine before every product has passed its gate, and nothing is listed before
everything is uploaded. A release that was interrupted, by whatever, is run again with the same
command and goes on; a version that is published already is left as it is.`,
		Example: `  # what would be published, and what stands against it
  pawl release 1.4.3 --dry-run

  # a feature release of all products
  pawl release 1.5.0

  # a security release of one product
  pawl release 1.4.3 --product gateway --security --fixes CVE-2026-1234`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.release(cmd, flags, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.file, "config", config.FileName, "the file that describes the products")
	f.StringArrayVar(&flags.products, "product", nil, "release only this product; may be repeated")
	f.BoolVar(&flags.security, "security", false, "this is a security release: it needs an advisory and --fixes")
	f.StringSliceVar(&flags.fixes, "fixes", nil, "vulnerabilities that this release fixes: CVE-2026-1234,GHSA-...")
	f.Uint32Var(&flags.securityVersion, "security-version", 0, "security version, below which no device goes back; default: one more for a security release, on firmware the same")
	f.BoolVar(&flags.dryRun, "dry-run", false, "stop after the gate; nothing leaves this machine")
	return cmd
}

func (a *app) release(cmd *cobra.Command, flags releaseFlags, text string) (err error) {
	v, err := version.Parse(strings.TrimPrefix(text, "v"))
	if err != nil {
		return usageError{err}
	}
	c, err := config.Load(flags.file)
	if errors.Is(err, config.ErrNotFound) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	selected, err := c.Select(flags.products)
	if err != nil {
		return usageError{err}
	}
	s := &releaseSetup{app: a, config: c}
	s.request = release.Request{Version: v, Kind: statement.Feature, Fixes: flags.fixes, DryRun: flags.dryRun}
	if flags.security {
		s.request.Kind = statement.Security
	}
	for _, name := range flags.fixes {
		if err := statement.CheckFix(name); err != nil {
			return usageError{err}
		}
	}
	if cmd.Flags().Changed("security-version") {
		s.request.SecurityVersion = &flags.securityVersion
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.setup(cmd.Context(), selected); err != nil {
		return err
	}
	progress := &releaseProgress{app: a, version: v.String()}
	s.engine.Progress = progress.tell
	results, err := s.engine.Run(cmd.Context(), s.request)
	progress.end()
	if len(results) > 0 && (err == nil || judged(results)) {
		a.report(map[string]any{"version": v, "dryRun": flags.dryRun, "repository": s.engine.Repository, "products": results}, func(w io.Writer) {
			printReleases(w, s, results)
		})
	}
	return err
}

// judged reports whether a release came to its gate.
func judged(results []release.Result) bool {
	for _, r := range results {
		if r.Verdict != nil {
			return true
		}
	}
	return false
}

// releaseProgress tells a person what is being done.
type releaseProgress struct {
	*app
	version string
	what    string
	move    func(int64)
	done    func()
}

// doing are the words for the steps that take their time.
var doing = map[string]string{
	"build": "building", "sbom": "listing components", "scan": "looking up vulnerabilities", "gate": "judging", "sign": "signing",
	"stage": "uploading", "role": "signing the catalogue", "publish": "publishing", "tag": "moving tags",
}

func (p *releaseProgress) tell(ev release.Event) {
	switch ev.State {
	case release.Moving:
		if p.what != ev.Text {
			p.end()
			p.what = ev.Text
			p.move, p.done = p.bar(ev.Text, ev.Total)
		}
		p.move(ev.Done)
	case release.Begun:
		p.end()
		if text, ok := doing[ev.Step]; ok {
			p.say("%s %s: %s", ev.Product, p.version, text)
		}
	case release.Kept:
		p.log.Debug("done by an earlier run", "product", ev.Product, "step", ev.Step)
	case release.Noted:
		p.end()
		p.say("%s %s: %s: %s", ev.Product, p.version, ev.Step, ev.Text)
	}
}

func (p *releaseProgress) end() {
	if p.done != nil {
		p.done()
	}
	p.what, p.done = "", nil
}

// printReleases prints what has become of every product, on one screen.
func printReleases(w io.Writer, s *releaseSetup, results []release.Result) {
	for i, r := range results {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if r.Verdict != nil {
			_ = r.Verdict.Write(w) // standard output; there is nowhere else to say that it is gone
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s %s: %s\n", r.Product, r.Version, r.Outcome)
		after := "the first release"
		if !r.Previous.IsZero() {
			after = "after " + r.Previous.String()
		}
		if r.Outcome == release.Already {
			after = "listed in version " + fmt.Sprint(r.RoleVersion) + " of the catalogue"
		}
		fmt.Fprintf(w, "  %s release on line %s, security version %d, %s\n", r.Kind, r.Line, r.SecurityVersion, after)
		for _, a := range r.Artifacts {
			fmt.Fprintf(w, "  %s  %s  %d bytes\n", a.Name, a.Digest, a.Size)
		}
		for _, note := range r.Notes {
			fmt.Fprintf(w, "  note: %s\n", note)
		}
		if r.Outcome == release.Published || r.Outcome == release.Already {
			printByHand(w, s, r)
		} else if r.Verdict != nil {
			fmt.Fprintf(w, "  verdict and SBOMs: %s\n", near(filepath.Join(r.Dir, "evidence")))
		}
	}
}

// printByHand prints how anybody checks the release, with pawl and without.
func printByHand(w io.Writer, s *releaseSetup, r release.Result) {
	at := s.engine.Repository
	onServer := isURL(at)
	if !onServer {
		at = near(at)
	}
	fmt.Fprintf(w, "  in %s\n  check it by hand:\n", at)
	fmt.Fprintf(w, "    pawl verify --release %s@%s\n", r.Product, r.Version)
	key := near(filepath.Join(s.config.Abs(s.config.Repository.Trust), "release-"+r.Product+".pub"))
	for _, a := range r.Artifacts {
		for _, repository := range a.Images {
			fmt.Fprintf(w, "    cosign verify --key %s --insecure-ignore-tlog %s@%s\n", key, repository, a.Digest)
		}
		switch {
		case a.Blob == "":
		case onServer:
			base := strings.TrimSuffix(at, "/") + "/"
			bundle := a.Name + ".sigstore.json"
			fmt.Fprintf(w, "    curl -fsS -o %s %s -o %s %s\n", a.Name, base+a.Blob, bundle, base+a.Bundle)
			fmt.Fprintf(w, "    cosign verify-blob --key %s --insecure-ignore-tlog --bundle %s %s\n", key, bundle, a.Name)
		default:
			fmt.Fprintf(w, "    cosign verify-blob --key %s --insecure-ignore-tlog --bundle %s %s\n", key, filepath.Join(at, a.Bundle), filepath.Join(at, a.Blob))
		}
	}
}

// near returns a path as it is written from this folder, if it lies in it.
func near(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}
