// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/ceremony"
	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/repository/remote"
	"github.com/pawl-project/pawl/internal/sign"
)

const (
	// defaultRepository is the folder of a repository where pawl.yaml names none.
	defaultRepository = "repository"
	// maxValidDays bounds how long snapshot and timestamp may be valid: a device notices a freeze no earlier.
	maxValidDays = 60
	// keepUnpublished is how long uploads are kept that nobody publishes, keepUnfinished what killed processes left.
	keepUnpublished = 7 * 24 * time.Hour
	keepUnfinished  = 24 * time.Hour
)

// repoApp is what all commands below "pawl repo" share.
type repoApp struct {
	*app
	dir, trust, online string
	days               int
	config             *config.Config // nil: there is no pawl.yaml
}

func newRepoCommand(a *app) *cobra.Command {
	r := &repoApp{app: a}
	cmd := &cobra.Command{
		Use:   "repo",
		Short: "Make, renew, copy and check a repository in a folder",
		Long: `Make, renew, copy and check a repository in a folder.

A repository is the signed catalogue of releases and their files. "pawl serve" serves one; so does
any static web server or bucket that is given the folders metadata/ and targets/ of one. Then a
scheduled job runs "pawl repo refresh" at least every few days: devices refuse a catalogue whose
timestamp has expired, since somebody might be holding back news.

Folder, trust folder and online key are those of pawl.yaml in this folder, if there is one.`,
		Example: `  pawl repo init
  pawl repo show

  # a scheduled job for a static host
  pawl repo refresh && pawl repo export public && rsync -a public/ host:/srv/updates/`,
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&r.dir, "dir", "", "folder of the repository (default: that of pawl.yaml, or \""+defaultRepository+"\")")
	flags.StringVar(&r.trust, "trust", "", "folder with the root of trust, as \"pawl keys\" keeps it (default: that of pawl.yaml, or \""+config.DefaultTrust+"\")")
	flags.StringVar(&r.online, "online-key", "", "private key that signs snapshot and timestamp (default: that of pawl.yaml, or \""+config.DefaultOnlineKey+"\")")
	cmd.AddCommand(newRepoInit(r), newRepoShow(r), newRepoTrust(r), newRepoRefresh(r), newRepoExport(r), newRepoCheck(r))
	return cmd
}

// settle fills in what no flag says.
func (r *repoApp) settle() error {
	c, err := config.Load(config.FileName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	own := config.Config{Repository: config.Repository{Folder: defaultRepository, Trust: config.DefaultTrust}, Keys: config.Keys{Online: config.DefaultOnlineKey}}
	if err == nil {
		r.config = c
		own.Repository = c.Repository
		own.Repository.Trust = c.Abs(c.Repository.Trust)
		if c.Repository.Folder != "" {
			own.Repository.Folder = c.Abs(c.Repository.Folder)
			own.Keys.Online = c.Abs(c.Keys.Online)
		}
	}
	for _, f := range []struct {
		flag  *string
		value string
	}{{&r.dir, own.Repository.Folder}, {&r.trust, own.Repository.Trust}, {&r.online, own.Keys.Online}} {
		if *f.flag == "" {
			*f.flag = f.value
		}
	}
	return nil
}

// open opens the repository. Without a signer it can be read.
func (r *repoApp) open(ctx context.Context, signing bool) (*repository.Repository, *folder.Store, error) {
	if err := r.settle(); err != nil {
		return nil, nil, err
	}
	if r.dir == "" {
		return nil, nil, usagef("pawl.yaml names a server, %s: give the folder of a repository with --dir", r.config.Repository.URL)
	}
	missing := refusal.New(refusal.Incomplete, "repository "+r.dir, "there is none").Do("make it with \"pawl repo init\", or say with --dir where it is")
	if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, missing
	}
	var online sign.Signer
	if signing {
		var err error
		if online, err = r.openOnlineKey(r.online); err != nil {
			return nil, nil, err
		}
	}
	store, err := folder.Open(r.dir)
	if err != nil {
		return nil, nil, err
	}
	repo, err := repository.Open(ctx, store, online, r.options())
	if errors.Is(err, repository.ErrNone) {
		err = missing
	}
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return repo, store, nil
}

func (r *repoApp) options() repository.Options {
	return repository.Options{Now: r.now, Log: r.log, Expiry: time.Duration(r.days) * 24 * time.Hour}
}

// with opens the repository for fn and closes it again.
func (r *repoApp) with(signing bool, fn func(ctx context.Context, repo *repository.Repository, store *folder.Store) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		repo, store, err := r.open(cmd.Context(), signing)
		if err != nil {
			return err
		}
		return errors.Join(fn(cmd.Context(), repo, store), store.Close())
	}
}

func (r *repoApp) daysFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&r.days, "valid-days", 7, "days until snapshot and timestamp expire, if nobody renews them")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if r.days < 1 || r.days > maxValidDays {
			return usagef("--valid-days %d: from 1 to %d days are possible", r.days, maxValidDays)
		}
		return nil
	}
}

// loadTrust reads the trust folder.
func (r *repoApp) loadTrust() (ceremony.Folder, error) {
	f, err := ceremony.Load(r.trust)
	if errors.Is(err, fs.ErrNotExist) {
		return f, refusal.New(refusal.Signature, "root of trust", "there is none in %s", r.trust).
			Do("make the first keys with \"pawl keys init\", or say with --trust where they are")
	}
	return f, err
}

func newRepoInit(r *repoApp) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a repository from the root of trust",
		Long: `Make a repository from the root of trust that "pawl keys init" has made.

Needs the public trust folder and the online key, and no other private key. If it was interrupted,
or the repository is there already, the same command again is success; a folder that holds another
repository is refused.`,
		Example: `  pawl repo init
  pawl repo init --dir public --trust trust --online-key keys/online.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.create(cmd.Context()) },
	}
	r.daysFlag(cmd)
	return cmd
}

func (r *repoApp) create(ctx context.Context) error {
	if err := r.settle(); err != nil {
		return err
	}
	if r.dir == "" {
		return usagef("pawl.yaml names a server, %s, which makes its repository itself: give a folder with --dir", r.config.Repository.URL)
	}
	trusted, err := r.loadTrust()
	if err != nil {
		return err
	}
	online, err := r.openOnlineKey(r.online)
	if err != nil {
		return err
	}
	store, err := folder.Open(r.dir)
	if err != nil {
		return err
	}
	repo, err := repository.Create(ctx, store, trusted.Roots, trusted.Targets, online, r.options())
	if err != nil {
		return errors.Join(err, store.Close())
	}
	return errors.Join(r.show(ctx, repo, func(w io.Writer, s repository.Summary) {
		fmt.Fprintf(w, "Made a repository in %s: root version %d, %s.\n", r.dir, s.Root.Version, counted(len(s.Products), "product"))
		fmt.Fprintf(w, "Renew it before %s: \"pawl repo refresh\" from a scheduled job, or \"pawl serve\".\n", minute(s.Timestamp.Expires))
	}), store.Close())
}

// show reports the summary of a repository.
func (r *repoApp) show(ctx context.Context, repo *repository.Repository, text func(w io.Writer, s repository.Summary)) error {
	s, err := repo.Summary(ctx)
	if err != nil {
		return err
	}
	r.report(struct {
		Folder string `json:"folder"`
		repository.Summary
	}{r.dir, s}, func(w io.Writer) { text(w, s) })
	return nil
}

func newRepoShow(r *repoApp) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show products, releases and what expires when",
		Long: `Show products, releases and what expires when.

Reads the signed metadata and checks it from the first root on. "pawl repo check" also reads every file.`,
		Example: `  pawl repo show
  pawl --json repo show --dir public`,
		Args: cobra.NoArgs,
		RunE: r.with(false, func(ctx context.Context, repo *repository.Repository, _ *folder.Store) error {
			return r.show(ctx, repo, r.printSummary)
		}),
	}
}

func (r *repoApp) printSummary(w io.Writer, s repository.Summary) {
	now := r.now()
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "DOCUMENT\tVERSION\tEXPIRES\t")
	row := func(name string, d repository.Document) {
		left := d.Expires.Sub(now)
		note := fmt.Sprintf("in %s", counted(int(left/(24*time.Hour)), "day"))
		if left <= 0 {
			note = "expired: devices refuse to go on"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", name, d.Version, minute(d.Expires), note)
	}
	row("root", s.Root)
	row("targets", s.Targets)
	row("snapshot", s.Snapshot)
	row("timestamp", s.Timestamp)
	for _, p := range s.Products {
		if p.Version > 0 {
			row("product "+p.Name, p.Document)
		}
	}
	t.Flush()
	fmt.Fprintf(w, "\n%d of %d root keys must sign a change of root or products.\n", s.Threshold, s.RootKeys)
	for _, p := range s.Products {
		fmt.Fprintf(w, "\n%s\n", p.Name)
		if len(p.Releases) == 0 {
			fmt.Fprintln(w, "  no release yet")
			continue
		}
		t := tabwriter.NewWriter(w, 2, 0, 3, ' ', 0)
		for _, v := range p.Releases {
			fmt.Fprintf(t, "  %s\t%s\tline %s\tsecurity version %d\n", v.Version, v.Kind, v.Line, v.SecurityVersion)
		}
		t.Flush()
	}
}

func newRepoTrust(r *repoApp) *cobra.Command {
	return &cobra.Command{
		Use:   "trust",
		Short: "Publish what \"pawl keys\" has changed: roots, products and their keys",
		Long: `Publish what "pawl keys" has changed: roots, products and their keys.

Reads the trust folder and publishes what is newer there, into a folder, or onto the server that
pawl.yaml names, with its publish token. What is public already is left as it is. If the online key
has changed, give the new one with --online-key; a server is started again with the new one.`,
		Example: `  pawl keys product add sensor
  pawl repo trust`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.publishTrust(cmd.Context()) },
	}
}

func (r *repoApp) publishTrust(ctx context.Context) error {
	if err := r.settle(); err != nil {
		return err
	}
	trusted, err := r.loadTrust()
	if err != nil {
		return err
	}
	where := r.dir
	var publisher repository.Publisher
	if where == "" {
		where = r.config.Repository.URL
		if publisher, err = r.server(); err != nil {
			return err
		}
	} else {
		repo, store, err := r.open(ctx, true)
		if err != nil {
			return err
		}
		defer store.Close()
		publisher = repo
	}
	if err := publisher.Trust(ctx, trusted.Roots, trusted.Targets); err != nil {
		return err
	}
	root, targets := int64(len(trusted.Roots)), trusted.State.Targets.Version
	r.report(map[string]any{"repository": where, "root": root, "targets": targets}, func(w io.Writer) {
		fmt.Fprintf(w, "%s has root version %d and targets version %d.\n", where, root, targets)
	})
	return nil
}

// server opens the server of pawl.yaml for publishing.
func (r *repoApp) server() (repository.Publisher, error) {
	set := r.config.Repository
	token, _ := r.env(set.TokenEnv)
	if token == "" {
		return nil, refusal.New(refusal.Unauthorised, "server "+set.URL, "there is no publish token in the variable %s", set.TokenEnv).
			Do("ask its operator for one (\"pawl serve token add\") and set the variable")
	}
	opt := httpx.Options{UserAgent: "pawl/" + readBuildInfo().Version, Token: token, Logger: r.log}
	if set.CA != "" {
		opt.CAFile = r.config.Abs(set.CA)
	}
	client, err := httpx.New(opt)
	if err != nil {
		return nil, err
	}
	return remote.New(client, set.URL)
}

func newRepoRefresh(r *repoApp) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "Renew snapshot and timestamp, and tidy up",
		Long: `Renew snapshot and timestamp, which say that nothing newer exists.

For a repository on a static host, from a scheduled job: daily is good. "pawl serve" does it by
itself. It also finishes what a killed command has begun, and deletes uploads that were never
published. A clock that is far behind, or so far ahead that the root has expired, is refused.`,
		Example: `  pawl repo refresh
  pawl repo refresh --valid-days 14`,
		Args: cobra.NoArgs,
		RunE: r.with(true, func(ctx context.Context, repo *repository.Repository, store *folder.Store) error {
			expires, err := repo.Refresh(ctx)
			if err != nil {
				return err
			}
			now := r.now()
			swept, err := repo.Sweep(ctx, now.Add(-keepUnpublished))
			if err != nil {
				return err
			}
			left, err := store.Sweep(ctx, now.Add(-keepUnfinished))
			if err != nil {
				return err
			}
			r.report(map[string]any{"folder": r.dir, "expires": expires.UTC(), "deleted": swept + left}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is renewed and valid until %s.\n", r.dir, minute(expires))
			})
			return nil
		}),
	}
	r.daysFlag(cmd)
	return cmd
}

func newRepoExport(r *repoApp) *cobra.Command {
	return &cobra.Command{
		Use:   "export FOLDER",
		Short: "Copy everything that is public into a folder, verified on the way",
		Long: `Copy everything that is public into a folder, verified on the way.

The copy is for a static web server, a bucket or a medium, and holds no uploads and no private key.
Into a folder that holds an older copy only what is new is written; what is there is read and
compared. The timestamp comes last, so an interrupted copy is the old state or the new one.`,
		Example: `  pawl repo export public
  pawl repo export /media/usb/updates`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.with(false, func(ctx context.Context, repo *repository.Repository, _ *folder.Store) error {
				return r.export(ctx, repo, args[0])
			})(cmd, nil)
		},
	}
}

func (r *repoApp) export(ctx context.Context, repo *repository.Repository, to string) error {
	out, err := folder.Open(to)
	if err != nil {
		return err
	}
	progress, total, done := r.progress("copying")
	err = repo.Export(ctx, out, progress)
	done()
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	r.report(map[string]any{"folder": to, "bytes": *total}, func(w io.Writer) {
		fmt.Fprintf(w, "Copied to %s: %d bytes, every file verified.\n", to, *total)
	})
	return nil
}

// progress returns what draws progress, the total that it was told last, and what ends it.
func (r *repoApp) progress(what string) (progress repository.Progress, total *int64, done func()) {
	total = new(int64)
	var update func(int64)
	end := func() {}
	return func(n, all int64) {
		if update == nil {
			update, end = r.bar(what, all)
		}
		*total = all
		update(n)
	}, total, func() { end() }
}

func newRepoCheck(r *repoApp) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Read and verify every document and every file",
		Long: `Read and verify every document and every file that is public, as a device would: signatures from
the first root on, digests and sizes, statements, and what has expired. Everything that does not
hold is reported; then the exit status is that of the first refusal.`,
		Example: `  pawl repo check
  pawl repo check --dir /media/usb/updates`,
		Args: cobra.NoArgs,
		RunE: r.with(false, func(ctx context.Context, repo *repository.Repository, _ *folder.Store) error {
			progress, total, done := r.progress("checking")
			err := repo.Check(ctx, progress)
			done()
			if err != nil {
				return err
			}
			s, err := repo.Summary(ctx)
			if err != nil {
				return err
			}
			releases := 0
			for _, p := range s.Products {
				releases += len(p.Releases)
			}
			r.report(map[string]any{"folder": r.dir, "products": len(s.Products), "releases": releases, "bytes": *total}, func(w io.Writer) {
				fmt.Fprintf(w, "Everything in %s holds: %s, %s, %d bytes.\n", r.dir, counted(len(s.Products), "product"), counted(releases, "release"), *total)
			})
			return nil
		}),
	}
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func counted(n int, noun string) string {
	if n != 1 {
		noun = strings.TrimSuffix(noun, "s") + "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
