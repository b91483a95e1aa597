// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/ceremony"
	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/repository/remote"
	"github.com/pawl-project/pawl/internal/trust"
)

const (
	// shownReleases is how many releases of a product "pawl repo show" shows unless it is asked for all.
	shownReleases = 10
	// maxValidDays bounds how long snapshot and timestamp may be valid: a device notices no earlier that news is held back.
	maxValidDays = 60
	// keepUnpublished is how long uploads are kept that nobody publishes, keepUnfinished what killed processes left.
	keepUnpublished = 7 * 24 * time.Hour
	keepUnfinished  = 24 * time.Hour
)

func newRepoCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repo",
		Short: "Keep a repository in a folder, and look at any repository",
		Long: `Keep a repository in a folder, and look at any repository.

A repository is the signed catalogue of releases and their files. "pawl serve" keeps and serves one
by itself. Without a server, any static web server or bucket that is given the folders metadata/ and
targets/ of one serves it as well: make it here, release into it, copy it there, and renew it from
a scheduled job, since devices refuse a catalogue that nobody has renewed for a week: somebody
might be holding back news.`,
		Example: `  # a repository for a static web server
  pawl repo init --dir public

  # every day, from a scheduled job
  pawl repo refresh --dir public && rsync -a public/metadata public/targets host:/srv/updates/

  # what a repository offers
  pawl repo show --repo https://updates.example.com --root root.json

  # on a stick, for a place without a network
  pawl repo export --from https://updates.example.com --to /media/stick/repository --root root.json`,
	}
	cmd.AddCommand(newRepoInit(a), newRepoRefresh(a), newRepoTrust(a), newRepoShow(a), newRepoExport(a), newRepoCheck(a))
	return cmd
}

// repoFolder are the flags of the commands that change a repository in a folder.
type repoFolder struct {
	*app
	dir, trust, online string
	days               int
	config             *config.Config // nil: there is no pawl.yaml
}

func (f *repoFolder) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "", "folder of the repository (default: that of pawl.yaml)")
	flags.StringVar(&f.trust, "trust", "", "folder with the public root of trust (default: that of pawl.yaml, or \""+config.DefaultTrust+"\")")
	flags.StringVar(&f.online, "online-key", "", "private key that signs snapshot and timestamp (default: that of pawl.yaml, or \""+config.DefaultOnlineKey+"\")")
}

func (f *repoFolder) daysFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.days, "valid-days", 7, "days until snapshot and timestamp expire if nobody renews them")
}

// settle fills in what no flag says.
func (f *repoFolder) settle() error {
	if f.days < 0 || f.days > maxValidDays {
		return usagef("--valid-days %d: from 1 to %d days are possible", f.days, maxValidDays)
	}
	c, err := config.Load(config.FileName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	trustDir, online := config.DefaultTrust, config.DefaultOnlineKey
	if err == nil {
		f.config = c
		trustDir = c.Abs(c.Repository.Trust)
		if c.Repository.Folder != "" {
			online = c.Abs(c.Keys.Online)
			f.dir = or(f.dir, c.Abs(c.Repository.Folder))
		}
	}
	f.trust, f.online = or(f.trust, trustDir), or(f.online, online)
	return nil
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// settleDir is settle for commands that need a folder.
func (f *repoFolder) settleDir() error {
	if err := f.settle(); err != nil {
		return err
	}
	return f.needDir()
}

func (f *repoFolder) needDir() error {
	if f.dir == "" {
		return usagef("say with --dir which folder the repository is in")
	}
	return nil
}

// change opens folder and key for fn, and shows what it made.
func (f *repoFolder) change(ctx context.Context, fn func(blobs *folder.Store, trusted ceremony.Folder, opt repository.Options) (*repository.Repository, error)) (err error) {
	trusted, err := ceremony.Load(f.trust)
	if errors.Is(err, fs.ErrNotExist) {
		return refusal.New(refusal.Signature, "root of trust", "there is none in %s", f.trust).
			Do("make the first keys with \"pawl keys init\", or say with --trust where they are")
	}
	if err != nil {
		return err
	}
	blobs, err := folder.Open(f.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	repo, err := fn(blobs, trusted, repository.Options{Now: f.now, Log: f.log, Expiry: time.Duration(f.days) * 24 * time.Hour})
	if err != nil {
		return err
	}
	s, err := repo.Summary(ctx)
	if err != nil {
		return err
	}
	f.report(struct {
		Folder string `json:"folder"`
		repository.Summary
	}{f.dir, s}, func(w io.Writer) {
		fmt.Fprintf(w, "Repository %s: root version %d, targets version %d, timestamp version %d.\n", f.dir, s.Root.Version, s.Targets.Version, s.Timestamp.Version)
		fmt.Fprintf(w, "next: renew it before %s: \"pawl repo refresh\" from a scheduled job, or \"pawl serve\"\n", moment(s.Timestamp.Expires))
	})
	return nil
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func newRepoInit(a *app) *cobra.Command {
	f := &repoFolder{app: a}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make an empty repository in a folder, from the root of trust",
		Long: `Make an empty repository in a folder, from the root of trust that "pawl keys init" has made.

Needs the public trust folder and the online key, and no other private key. If it was interrupted,
or the repository is there already, the same command again is success; a folder that holds another
repository is refused. Name the folder in pawl.yaml, and "pawl release" publishes into it.`,
		Example: `  pawl keys init --product greeter
  pawl repo init --dir public`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.settleDir(); err != nil {
				return err
			}
			return f.change(cmd.Context(), func(blobs *folder.Store, trusted ceremony.Folder, opt repository.Options) (*repository.Repository, error) {
				online, err := a.openOnlineKey(f.online)
				if err != nil {
					return nil, err
				}
				return repository.Create(cmd.Context(), blobs, trusted.Roots, trusted.Targets, online, opt)
			})
		},
	}
	f.flags(cmd)
	f.daysFlag(cmd)
	return cmd
}

// existing refuses a folder without a repository before anything is made there.
func (f *repoFolder) existing() error {
	_, err := os.Stat(filepath.Join(f.dir, "metadata"))
	if errors.Is(err, fs.ErrNotExist) {
		return refusal.New(refusal.Incomplete, "repository "+f.dir, "there is none").Do("make it with \"pawl repo init\", or say with --dir where it is")
	}
	return err
}

func newRepoRefresh(a *app) *cobra.Command {
	f := &repoFolder{app: a}
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "Renew snapshot and timestamp, and publish what is newer in the trust folder",
		Long: `Renew snapshot and timestamp, which say that nothing newer exists; publish what "pawl keys" has
changed; finish what a killed command has begun; and delete uploads that were never published.

For a repository on a static host, once a day from a scheduled job. "pawl serve" does it by itself. A
clock that is far behind, or so far ahead that the root has expired, is refused.`,
		Example: `  pawl repo refresh --dir public`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.settleDir(); err != nil {
				return err
			}
			if err := f.existing(); err != nil {
				return err
			}
			return f.change(cmd.Context(), func(blobs *folder.Store, trusted ceremony.Folder, opt repository.Options) (*repository.Repository, error) {
				return f.refresh(cmd.Context(), blobs, trusted, opt)
			})
		},
	}
	f.flags(cmd)
	f.daysFlag(cmd)
	return cmd
}

func (f *repoFolder) refresh(ctx context.Context, blobs *folder.Store, trusted ceremony.Folder, opt repository.Options) (*repository.Repository, error) {
	online, err := f.openOnlineKey(f.online)
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, blobs, online, opt)
	if err != nil {
		return nil, err
	}
	if err := takeTrust(ctx, repo, trusted); err != nil {
		return nil, err
	}
	if _, err := repo.Refresh(ctx); err != nil {
		return nil, err
	}
	if _, err := repo.Sweep(ctx, f.now().Add(-keepUnpublished)); err != nil {
		return nil, err
	}
	_, err = blobs.Sweep(ctx, f.now().Add(-keepUnfinished))
	return repo, err
}

func newRepoTrust(a *app) *cobra.Command {
	f := &repoFolder{app: a}
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Publish what \"pawl keys\" has changed: roots, products and their keys",
		Long: `Publish what "pawl keys" has changed: roots, products and their keys.

Publishes what is newer in the trust folder, into a folder or onto the server that pawl.yaml names,
with a publish token that is for all products. What is public already is left as it is. If the online
key has changed, give the new one with --online-key; a server is started again with the new one.`,
		Example: `  pawl keys product add sensor
  pawl repo trust`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.settle(); err != nil {
				return err
			}
			if f.dir == "" && f.config != nil && f.config.Repository.URL != "" {
				return f.trustServer(cmd.Context())
			}
			if err := f.needDir(); err != nil {
				return err
			}
			if err := f.existing(); err != nil {
				return err
			}
			return f.change(cmd.Context(), func(blobs *folder.Store, trusted ceremony.Folder, opt repository.Options) (*repository.Repository, error) {
				online, err := a.openOnlineKey(f.online)
				if err != nil {
					return nil, err
				}
				repo, err := repository.Open(cmd.Context(), blobs, online, opt)
				if err != nil {
					return nil, err
				}
				return repo, repo.Trust(cmd.Context(), trusted.Roots, trusted.Targets)
			})
		},
	}
	f.flags(cmd)
	return cmd
}

// trustServer publishes the trust folder onto the server of pawl.yaml.
func (f *repoFolder) trustServer(ctx context.Context) error {
	set := f.config.Repository
	trusted, err := ceremony.Load(f.trust)
	if err != nil {
		return err
	}
	token, _ := f.env(set.TokenEnv)
	if token == "" {
		return refusal.New(refusal.Unauthorised, "server "+set.URL, "there is no publish token in the variable %s", set.TokenEnv).
			Do("ask its operator for one (\"pawl serve token add\") and set the variable")
	}
	opt := httpx.Options{UserAgent: "pawl/" + readBuildInfo().Version, Token: token, Logger: f.log}
	if set.CA != "" {
		opt.CAFile = f.config.Abs(set.CA)
	}
	client, err := httpx.New(opt)
	if err != nil {
		return err
	}
	defer client.Close()
	publisher, err := remote.New(client, set.URL)
	if err != nil {
		return err
	}
	if err := publisher.Trust(ctx, trusted.Roots, trusted.Targets); err != nil {
		return err
	}
	root, targets := int64(len(trusted.Roots)), trusted.State.Targets.Version
	f.report(map[string]any{"repository": set.URL, "root": root, "targets": targets}, func(w io.Writer) {
		fmt.Fprintf(w, "%s has root version %d and targets version %d.\n", set.URL, root, targets)
	})
	return nil
}

// repoSource are the flags of the commands that read a repository, wherever it is.
type repoSource struct {
	location, root, ca string
}

func (f *repoSource) flags(cmd *cobra.Command, name string) {
	cmd.Flags().StringVar(&f.location, name, "", "repository: URL of a server, or a folder (default: that of pawl.yaml)")
	cmd.Flags().StringVar(&f.root, "root", "", "root.json of the publisher, received out of band (default: that of pawl.yaml)")
	cmd.Flags().StringVar(&f.ca, "ca", "", "PEM file with further certificate authorities for the server")
}

// open opens the source. Without flags it is the repository of the project in this folder.
func (f *repoSource) open(a *app) (catalog.Opener, []byte, error) {
	if f.location == "" {
		location, root, err := a.projectRepository()
		if err != nil {
			return nil, nil, err
		}
		f.location, f.root = location, or(f.root, root)
	}
	if f.location == "" {
		return nil, nil, usagef("say which repository: the URL of a server, or a folder")
	}
	var root []byte
	if f.root != "" {
		var err error
		if root, err = readSmall(f.root); err != nil {
			return nil, nil, fmt.Errorf("cannot read the root: %w", err)
		}
	}
	src, err := a.openSource(f.location, f.ca)
	return src, root, err
}

// openVerified refreshes from a source as a device that trusts root does, and returns what the device sees together with
// the repository, which can be read. Without a root the source speaks for itself.
func (a *app) openVerified(ctx context.Context, src catalog.Opener, root []byte) (*repository.Repository, *catalog.Catalog, error) {
	only := readOnly{Opener: src}
	if root == nil {
		var err error
		if root, err = blob.ReadAll(ctx, only, trust.MetadataName(trust.RootRole, 1), trust.MaxRoot); errors.Is(err, blob.ErrNotExist) {
			return nil, nil, fmt.Errorf("%w: %w", repository.ErrNone, err)
		} else if err != nil {
			return nil, nil, fmt.Errorf("cannot read the repository: %w", err)
		}
	}
	head, err := trust.Describe(root)
	if err != nil {
		return nil, nil, err
	}
	only.name, only.root = trust.MetadataName(trust.RootRole, head.Version), root
	view, err := catalog.Refresh(ctx, only, catalog.Memory{}, catalog.Options{Now: a.now(), Root: root})
	if err != nil {
		return nil, nil, err
	}
	repo, err := repository.Open(ctx, only, nil, repository.Options{Now: a.now, Log: a.log})
	return repo, view, err
}

// repoView is what "pawl repo show" shows.
type repoView struct {
	Repository string `json:"repository"`
	// RootGiven reports that the root was given out of band. Otherwise the repository speaks for itself.
	RootGiven bool                `json:"rootGiven"`
	Root      repository.Document `json:"root"`
	Targets   repository.Document `json:"targets"`
	Snapshot  repository.Document `json:"snapshot"`
	Timestamp repository.Document `json:"timestamp"`
	Products  []repoProduct       `json:"products"`
}

type repoProduct struct {
	Name string `json:"name"`
	repository.Document
	Refused  string        `json:"refused,omitempty"` // why devices take nothing of it
	Releases []repoRelease `json:"releases"`
	Count    int           `json:"count"` // of all releases, also those that are not shown
}

type repoRelease struct {
	repository.ReleaseSummary
	Issued  time.Time `json:"issued,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	Fixes   []string  `json:"fixes,omitempty"`
	Refused string    `json:"refused,omitempty"`
}

func newRepoShow(a *app) *cobra.Command {
	var f repoSource
	var all bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the products and releases of a repository, verified",
		Long: `Show the products and releases of a repository, and what expires when.

Everything is verified as a device would, each statement too. With --root it is proven from the root
that you were given; without, the repository speaks for itself, and that is said.`,
		Example: `  pawl repo show --repo https://updates.example.com --root root.json
  pawl repo show --repo /media/stick/repository`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			src, root, err := f.open(a)
			if err != nil {
				return err
			}
			view, err := a.look(cmd.Context(), src, root, all)
			if err != nil {
				return err
			}
			view.Repository = f.location
			a.report(view, func(w io.Writer) { view.print(w, a.now()) })
			return nil
		},
	}
	f.flags(cmd, "repo")
	cmd.Flags().BoolVar(&all, "all", false, fmt.Sprintf("show all releases, not the highest %d of each product", shownReleases))
	return cmd
}

func (a *app) look(ctx context.Context, src catalog.Opener, root []byte, all bool) (repoView, error) {
	repo, c, err := a.openVerified(ctx, src, root)
	if err != nil {
		return repoView{}, err
	}
	s, err := repo.Summary(ctx)
	if err != nil {
		return repoView{}, err
	}
	view := repoView{RootGiven: root != nil, Root: s.Root, Targets: s.Targets, Snapshot: s.Snapshot, Timestamp: s.Timestamp, Products: []repoProduct{}}
	for _, known := range s.Products {
		p := repoProduct{Name: known.Name, Document: known.Document, Releases: []repoRelease{}}
		if err := c.Refused(known.Name); err != nil {
			p.Refused = err.Error()
		}
		list := c.Releases(known.Name)
		if p.Count = len(list); !all {
			list = list[:min(len(list), shownReleases)]
		}
		for _, l := range list {
			r := repoRelease{
				ReleaseSummary: repository.ReleaseSummary{Version: l.Version, Line: l.Line, Kind: l.Kind, SecurityVersion: l.SecurityVersion}, Expires: l.Expires,
			}
			statement, err := c.Release(ctx, l)
			switch {
			case refusal.Of(err) != "":
				r.Refused = err.Error()
			case err != nil:
				return repoView{}, err
			default:
				r.Issued, r.Fixes = statement.Issued, statement.Fixes
			}
			p.Releases = append(p.Releases, r)
		}
		view.Products = append(view.Products, p)
	}
	return view, nil
}

func (v repoView) print(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "%s\n", v.Repository)
	if !v.RootGiven {
		fmt.Fprintln(w, "No root was given (--root): this is what the repository says of itself.")
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DOCUMENT\tVERSION\tVALID UNTIL\t")
	row := func(name string, d repository.Document) {
		note := fmt.Sprintf("%d days left", int(d.Expires.Sub(now)/(24*time.Hour)))
		if !now.Before(d.Expires) {
			note = "expired: devices take nothing"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", name, d.Version, moment(d.Expires), note)
	}
	row("root", v.Root)
	row("targets", v.Targets)
	row("snapshot", v.Snapshot)
	row("timestamp", v.Timestamp)
	for _, p := range v.Products {
		if p.Version > 0 {
			row("catalogue of "+p.Name, p.Document)
		}
	}
	t.Flush()
	for _, p := range v.Products {
		fmt.Fprintf(w, "\n%s\n", p.Name)
		switch {
		case p.Refused != "":
			fmt.Fprintf(w, "  %s\n", p.Refused)
			continue
		case p.Count == 0:
			fmt.Fprintln(w, "  nothing has been released yet")
			continue
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  VERSION\tKIND\tLINE\tSECURITY VERSION\tISSUED\tFIXES")
		for _, r := range p.Releases {
			last := strings.Join(r.Fixes, ", ")
			if r.Refused != "" {
				last = r.Refused
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%d\t%s\t%s\n", r.Version, r.Kind, r.Line, r.SecurityVersion, day(r.Issued), last)
		}
		t.Flush()
		if n := p.Count - len(p.Releases); n > 0 {
			fmt.Fprintf(w, "  and %d more: --all\n", n)
		}
	}
}

func newRepoExport(a *app) *cobra.Command {
	var f repoSource
	var to string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Copy a repository, verified on the way",
		Long: `Copy everything that a repository offers into a folder: for a stick, a static web server, an archive.

The state is verified from the root that you give, as a device does, and every file while it is
copied. What the folder has already is read and compared. The timestamp comes last, so a copy that
was interrupted is what it was before, and the same command finishes it. In a place without a
network, "pawl verify --repo FOLDER" and "pawl agent" use the copy as they would use the server.`,
		Example: `  pawl repo export --from https://updates.example.com --to /media/stick/repository --root root.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			src, root, err := f.open(a)
			if err != nil {
				return err
			}
			switch {
			case root == nil:
				return usagef("--root is needed: the root that the publisher gave out of band")
			case to == "":
				return usagef("say with --to where the copy shall be")
			}
			return a.export(cmd.Context(), f.location, src, root, to)
		},
	}
	f.flags(cmd, "from")
	cmd.Flags().StringVar(&to, "to", "", "folder for the copy")
	return cmd
}

func (a *app) export(ctx context.Context, from string, src catalog.Opener, root []byte, to string) (err error) {
	repo, _, err := a.openVerified(ctx, src, root)
	if err != nil {
		return err
	}
	dst, err := folder.Open(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	progress, total, done := a.sizedBar("copying")
	err = repo.Export(ctx, dst, progress)
	done()
	if err != nil {
		return err
	}
	a.report(map[string]any{"from": from, "to": to, "bytes": *total}, func(w io.Writer) {
		fmt.Fprintf(w, "Copied %s to %s: %d bytes, every file verified.\n", from, to, *total)
	})
	return nil
}

func newRepoCheck(a *app) *cobra.Command {
	var f repoSource
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read everything in a repository and verify it",
		Long: `Read everything that a repository offers and verify it: every file that any release names, every
signature, every date. Says all that does not hold, and ends with the exit status of the first.`,
		Example: `  pawl repo check --repo public`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			src, root, err := f.open(a)
			if err != nil {
				return err
			}
			repo, view, err := a.openVerified(cmd.Context(), src, root)
			if err != nil {
				return err
			}
			progress, total, done := a.sizedBar("reading")
			err = repo.Check(cmd.Context(), progress)
			done()
			if err != nil {
				return err
			}
			releases := 0
			for _, product := range view.Products() {
				releases += len(view.Releases(product))
			}
			result := map[string]any{"repository": f.location, "products": len(view.Products()), "releases": releases, "bytes": *total}
			a.report(result, func(w io.Writer) {
				fmt.Fprintf(w, "Everything in %s holds: %d products, %d releases, %d bytes read and verified.\n", f.location, len(view.Products()), releases, *total)
			})
			return nil
		},
	}
	f.flags(cmd, "repo")
	return cmd
}

// sizedBar returns what draws progress whose total comes with the first step, that total, and what ends the drawing.
func (a *app) sizedBar(what string) (progress repository.Progress, total *int64, done func()) {
	total = new(int64)
	var update func(int64)
	end := func() {}
	return func(n, all int64) {
		if update == nil {
			update, end = a.bar(what, all)
		}
		*total = all
		update(n)
	}, total, func() { end() }
}

// errReadOnly reports a change of something that can only be read.
var errReadOnly = errors.New("the repository can only be read here")

// readOnly is a source as a blob store that can be read by name. One document, the root that the caller trusts, is always
// the caller's own: nothing that the source says of itself can take its place.
type readOnly struct {
	catalog.Opener
	name string
	root []byte
}

func (r readOnly) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, blob.Info, error) {
	if r.root != nil && name == r.name && offset == 0 {
		return io.NopCloser(bytes.NewReader(r.root)), blob.Info{Name: name, Size: int64(len(r.root))}, nil
	}
	return r.Opener.Open(ctx, name, offset)
}

func (r readOnly) Stat(ctx context.Context, name string) (blob.Info, error) {
	src, info, err := r.Open(ctx, name, 0)
	if err != nil {
		return blob.Info{}, err
	}
	return info, src.Close()
}

func (readOnly) List(context.Context, string, func(blob.Info) error) error { return errReadOnly }
func (readOnly) Create(context.Context, string, io.Reader) error           { return errReadOnly }
func (readOnly) Swap(context.Context, string, []byte, []byte) error        { return errReadOnly }
func (readOnly) Rename(context.Context, string, string) error              { return errReadOnly }
func (readOnly) Delete(context.Context, string) error                      { return errReadOnly }
