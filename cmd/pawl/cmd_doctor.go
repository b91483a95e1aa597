// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/ceremony"
	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/release"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// expiryWarning is how long before trust documents expire the doctor speaks of it.
const expiryWarning = 60 * 24 * time.Hour

// finding is one line of the doctor's report.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, note or problem
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"`
}

// doctor collects findings.
type doctor struct {
	*app
	findings []finding
}

func newDoctorCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at this machine and this project, and say what would stop a release",
		Long: `Look at this machine and this project, and say what would stop a release.

It looks for the programs that pawl can use, and, in a folder with a pawl.yaml, at everything that a
release needs: the configuration, the trust folder and its expiry, the keys and their passwords, the
vulnerability database, the repository, and the registries. It changes nothing. The exit status is 1
if there is a problem.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{app: a}
			d.machine(cmd.Context())
			d.project(cmd.Context(), file)
			problems := 0
			for _, f := range d.findings {
				if f.State == "problem" {
					problems++
				}
			}
			a.report(map[string]any{"findings": d.findings, "problems": problems}, d.print)
			if problems > 0 {
				return exitStatus(refusal.Failed)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", config.FileName, "the file that describes the products")
	return cmd
}

func (d *doctor) ok(check, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, State: "ok", Text: fmt.Sprintf(format, args...)})
}

func (d *doctor) note(check, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, State: "note", Text: fmt.Sprintf(format, args...)})
}

// problem adds every error that is joined in err.
func (d *doctor) problem(check string, err error) {
	for _, e := range flatten(err) {
		f := finding{Check: check, State: "problem", Text: e.Error()}
		var r *refusal.Error
		if errors.As(e, &r) {
			f.Text, f.Next = r.Failed, r.Next
			if r.Checked != "" {
				f.Text = r.Checked + ": " + r.Failed
			}
		}
		d.findings = append(d.findings, f)
	}
}

func (d *doctor) print(w io.Writer) {
	for _, f := range d.findings {
		fmt.Fprintf(w, "%-8s %-13s %s\n", f.State, f.Check, strings.ReplaceAll(f.Text, "\n", "\n                       "))
		if f.Next != "" {
			fmt.Fprintf(w, "                       next: %s\n", f.Next)
		}
	}
}

// machine looks at what is installed. Nothing of it is needed by every project.
func (d *doctor) machine(ctx context.Context) {
	info := readBuildInfo()
	d.ok("pawl", "%s, %s", info.Version, info.Platform)
	if built, err := time.Parse(time.RFC3339, info.Time); err == nil && d.now().Before(built) {
		d.problem("clock", fmt.Errorf("it is %s here, and this program was made on %s: the clock is behind", d.now().Format(time.DateOnly), built.Format(time.DateOnly)))
	} else {
		d.ok("clock", "%s", d.now().UTC().Format(time.RFC3339))
	}
	for _, tool := range []struct{ programs, use string }{
		{"docker podman buildah", "builds images from a Dockerfile; not needed for images from files"},
		{"cosign", "verifies what pawl signs, as your users may; not needed by pawl"},
		{"git", "tells whether sources have changed, so that a build can be reused"},
	} {
		var found []string
		for p := range strings.FieldsSeq(tool.programs) {
			if path, err := exec.LookPath(p); err == nil {
				found = append(found, path)
			}
		}
		name, _, _ := strings.Cut(tool.programs, " ")
		if len(found) > 0 {
			d.ok(name, "%s", strings.Join(found, ", "))
		} else {
			d.note(name, "none of %s is here: %s", strings.ReplaceAll(tool.programs, " ", ", "), tool.use)
		}
	}
	if dir, err := os.MkdirTemp("", "pawl-doctor-"); err != nil {
		d.problem("temporary", fmt.Errorf("cannot write to the folder for temporary files: %w", err))
	} else if err := os.Remove(dir); err != nil {
		d.problem("temporary", err)
	}
}

// project looks at everything that a release would need.
func (d *doctor) project(ctx context.Context, file string) {
	c, err := config.Load(file)
	if errors.Is(err, config.ErrNotFound) {
		d.note("project", "there is no %s here; \"pawl init\" writes one", file)
		return
	}
	if err != nil {
		d.problem("project", err)
		return
	}
	d.ok("project", "%s: %d products", filepath.Base(file), len(c.Products))
	d.trust(c)
	selected, err := c.Select(nil)
	if err != nil {
		d.problem("project", err)
		return
	}
	// The release itself knows best what it needs: it is put together as for a release that nobody makes.
	s := &releaseSetup{app: d.app, config: c}
	s.request = release.Request{Version: version.MustParse("0.0.0-doctor"), Kind: statement.Feature, DryRun: true}
	defer s.close() //nolint:errcheck // nothing was written
	if err := s.setup(ctx, selected); err != nil {
		d.problem("setup", err)
		return
	}
	if len(s.request.Problems) == 0 {
		d.ok("setup", "keys open, database %s", s.engine.Database)
	}
	for _, problem := range s.request.Problems {
		d.problem("setup", problem)
	}
	d.repository(ctx, c, s)
	d.registries(ctx, s)
}

// trust looks at the trust folder and its expiry.
func (d *doctor) trust(c *config.Config) {
	folder, err := ceremony.Load(c.Abs(c.Repository.Trust))
	if err != nil {
		d.problem("trust", err)
		return
	}
	for _, doc := range []struct {
		name    string
		expires time.Time
	}{{"root", folder.State.Root.Expires}, {"targets", folder.State.Targets.Expires}} {
		left := doc.expires.Sub(d.now())
		text := fmt.Sprintf("%s is valid until %s", doc.name, doc.expires.Format(time.DateOnly))
		switch {
		case left <= 0:
			d.problem("trust", refusal.New(refusal.Expired, doc.name, "expired on %s", doc.expires.Format(time.DateOnly)).Do("\"pawl keys root renew\""))
		case left < expiryWarning:
			d.note("trust", "%s: renew it soon with \"pawl keys root renew\"", text)
		default:
			d.ok("trust", "%s", text)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	keys, err := filepath.Glob(filepath.Join(c.Dir(), "keys", "*.key"))
	if err != nil {
		return
	}
	for _, key := range keys {
		if info, err := os.Stat(key); err == nil && info.Mode().Perm()&0o077 != 0 {
			d.note("keys", "%s can be read by others on this machine: chmod 600 it", key)
		}
	}
}

// repository reads the catalogue as a device would.
func (d *doctor) repository(ctx context.Context, c *config.Config, s *releaseSetup) {
	location := c.Repository.URL
	if location == "" {
		location = c.Abs(c.Repository.Folder)
	}
	root, err := readSmall(filepath.Join(c.Abs(c.Repository.Trust), "1.root.json"))
	if err != nil {
		return // the trust folder was found missing before
	}
	src, err := d.openSource(location, "")
	if err != nil {
		d.problem("repository", err)
		return
	}
	found, err := catalog.Refresh(ctx, src, catalog.Memory{}, catalog.Options{Now: d.now(), Root: root})
	if err != nil {
		d.problem("repository", err)
		return
	}
	releases := 0
	for _, p := range found.Products() {
		releases += len(found.Releases(p))
		if err := found.Refused(p); err != nil {
			d.problem("repository", err)
		}
	}
	d.ok("repository", "%s: %d products, %d releases, valid until %s", location, len(found.Products()), releases, found.Expires().Format(time.DateOnly))
	if found.Late() > 0 {
		d.problem("clock", fmt.Errorf("the repository was signed %s in the future of this clock", found.Late().Round(time.Second)))
	}
}

// registries asks whether images would be taken.
func (d *doctor) registries(ctx context.Context, s *releaseSetup) {
	for _, p := range s.request.Products {
		for _, a := range p.Artifacts {
			for _, repository := range a.Images {
				if err := s.engine.Images.Probe(ctx, repository); err != nil {
					d.problem("registry", err)
				} else {
					d.ok("registry", "%s takes images", repository)
				}
			}
		}
	}
}
