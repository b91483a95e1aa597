// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/acme/autocert"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/ceremony"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/serve"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/store/sqlite"
)

// What lies in the folder of a server.
const (
	serverRepository = "repository"
	serverDatabase   = "pawl.db"
	serverLock       = "serve.lock"
	serverACME       = "acme"
)

// serveFlags are the flags of "pawl serve".
type serveFlags struct {
	dir         string
	trust       string
	onlineKey   string
	listen      string
	cert, key   string
	acmeHosts   []string
	behindProxy bool
}

func newServeCommand(a *app) *cobra.Command {
	var flags serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve updates, take releases from those who may publish, and keep the catalogue fresh",
		Long: `Serve updates, take releases from those who may publish, and keep the catalogue fresh.

On its first start it makes a repository from the trust folder; on later starts it takes what is
newer there. It holds the online key and no other: with everything on it, a thief can withhold
news, and cannot invent, change or bring back a release.

Devices and people read /metadata/ and /targets/; publishers need a token ("pawl serve token add").
/healthz fails long before a device would notice that something is wrong, /metrics is for
Prometheus, and / is a page for people.

Everything is below --dir: a repository that any web server could serve, and a SQLite database.
Without TLS only this machine is served, unless a proxy in front speaks TLS (--behind-proxy).
--acme-host fetches certificates by itself; the server must then be reachable on port 443.`,
		Example: `  # in the folder of a project, for trying out
  pawl serve

  # on a machine of its own
  pawl serve --dir /var/lib/pawl --trust /etc/pawl/trust --online-key /etc/pawl/online.key \
    --listen :443 --acme-host updates.example.com

  # who may publish
  pawl serve token add release-pipeline --product greeter --dir /var/lib/pawl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return a.serve(cmd.Context(), flags)
		},
	}
	f := cmd.Flags()
	cmd.PersistentFlags().StringVar(&flags.dir, "dir", "server", "folder of the server: its repository and its database")
	f.StringVar(&flags.trust, "trust", "trust", "folder with the public root of trust, made by \"pawl keys init\"")
	f.StringVar(&flags.onlineKey, "online-key", "keys/online.key", "private key that signs snapshot and timestamp")
	f.StringVar(&flags.listen, "listen", "127.0.0.1:8480", "address to listen on; port 0 takes a free one")
	f.StringVar(&flags.cert, "tls-cert", "", "PEM file with the certificate chain of the server")
	f.StringVar(&flags.key, "tls-key", "", "PEM file with the key of the certificate")
	f.StringArrayVar(&flags.acmeHosts, "acme-host", nil, "host name to fetch certificates for from Let's Encrypt, whose terms are thereby accepted; may be repeated")
	f.BoolVar(&flags.behindProxy, "behind-proxy", false, "a proxy in front speaks TLS and sets X-Forwarded-For")
	cmd.AddCommand(newServeTokenCommand(a, &flags.dir))
	return cmd
}

func (f serveFlags) check() error {
	switch {
	case (f.cert == "") != (f.key == ""):
		return usagef("--tls-cert and --tls-key belong together")
	case f.cert != "" && len(f.acmeHosts) > 0:
		return usagef("either a certificate of your own or --acme-host")
	case f.behindProxy && f.secure():
		return usagef("either TLS here or in the proxy, which sets --behind-proxy")
	}
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return usageError{fmt.Errorf("--listen: %w", err)}
	}
	if ip := net.ParseIP(host); f.secure() || f.behindProxy || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usagef("--listen %s is reachable from other machines, and without TLS nobody knows whom they talk to: give a certificate (--tls-cert, --tls-key), let one be fetched (--acme-host), or say that a proxy in front speaks TLS (--behind-proxy)", f.listen)
}

func (f serveFlags) secure() bool { return f.cert != "" || len(f.acmeHosts) > 0 }

func (a *app) serve(ctx context.Context, flags serveFlags) (err error) {
	log := a.log
	if !a.verbose {
		log = slog.New(a.logHandler())
	}
	config, err := flags.tls()
	if err != nil {
		return err
	}
	if err := durable.Mkdir(flags.dir, 0o700); err != nil {
		return err
	}
	lock, err := durable.Lock(filepath.Join(flags.dir, serverLock))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	blobs, err := folder.Open(filepath.Join(flags.dir, serverRepository))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	online, err := a.openOnlineKey(flags.onlineKey)
	if err != nil {
		return err
	}
	repo, err := openOrCreate(ctx, blobs, flags.trust, online, repository.Options{Now: a.now, Log: log})
	if err != nil {
		return err
	}
	db, err := sqlite.Open(ctx, filepath.Join(flags.dir, serverDatabase))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	engine, err := serve.New(serve.Options{
		Repository: repo, Blobs: blobs, Store: db, Now: a.now, Log: log, Version: readBuildInfo().Version, BehindProxy: flags.behindProxy,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", flags.listen)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	defer l.Close()
	url := flags.url(l)
	if a.json {
		line, err := json.Marshal(map[string]string{"listening": url})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", line)
	} else {
		fmt.Fprintf(a.out, "listening on %s\n", url)
	}
	// Opening the key took 64 MiB for a moment, as its encryption wants it. They are not needed again.
	debug.FreeOSMemory()
	return engine.Run(ctx, l, config)
}

// logHandler writes the log of a server, which always has one.
func (a *app) logHandler() slog.Handler {
	if a.json {
		return slog.NewJSONHandler(a.err, nil)
	}
	return slog.NewTextHandler(a.err, nil)
}

// openOnlineKey opens the key that signs snapshot and timestamp.
func (a *app) openOnlineKey(path string) (sign.Signer, error) {
	return ceremony.Options{Now: a.now(), Password: a.password}.OpenKey(path)
}

// openOrCreate opens the repository in blobs and takes what is newer in the trust folder, or makes it from there.
func openOrCreate(ctx context.Context, blobs *folder.Store, trustDir string, online sign.Signer, opt repository.Options) (*repository.Repository, error) {
	trusted, err := ceremony.Load(trustDir)
	noTrust := errors.Is(err, fs.ErrNotExist)
	if err != nil && !noTrust {
		return nil, err
	}
	repo, err := repository.Open(ctx, blobs, online, opt)
	switch {
	case errors.Is(err, repository.ErrNone) && noTrust:
		return nil, refusal.New(refusal.Signature, "root of trust", "there is none in %s, and a new repository begins with it", trustDir).
			Do("make it with \"pawl keys init\", or name its folder with --trust")
	case errors.Is(err, repository.ErrNone):
		return repository.Create(ctx, blobs, trusted.Roots, trusted.Targets, online, opt)
	case err != nil:
		return nil, err
	case noTrust:
		return repo, nil // what is public goes on; the trust folder may be elsewhere
	}
	return repo, takeTrust(ctx, repo, trusted)
}

// takeTrust publishes what is newer in a trust folder. A folder that is behind what is public changes nothing.
func takeTrust(ctx context.Context, repo *repository.Repository, trusted ceremony.Folder) error {
	public, err := repo.Summary(ctx)
	if err != nil {
		return err
	}
	targets := trusted.Targets
	if trusted.State.Targets.Version < public.Targets.Version {
		targets = nil
	}
	return repo.Trust(ctx, trusted.Roots, targets)
}

// tls returns the configuration for HTTPS, or nil.
func (f serveFlags) tls() (*tls.Config, error) {
	switch {
	case f.cert != "":
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("cannot load the certificate: %w", err)
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, nil
	case len(f.acmeHosts) > 0:
		m := &autocert.Manager{
			Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(f.acmeHosts...), Cache: autocert.DirCache(filepath.Join(f.dir, serverACME)),
		}
		config := m.TLSConfig()
		config.MinVersion = tls.VersionTLS12
		return config, nil
	}
	return nil, nil
}

// url returns the address of the server.
func (f serveFlags) url(l net.Listener) string {
	switch {
	case len(f.acmeHosts) > 0:
		return "https://" + f.acmeHosts[0]
	case f.secure():
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

func newServeTokenCommand(a *app, dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Say who may publish",
		Long: `Say who may publish. Works while the server runs.

A token is a secret that a release pipeline shows, usually from the variable PAWL_TOKEN. It lets its
owner upload; what is uploaded becomes public only if the release key has signed it, so a stolen
token cannot invent a release. The server keeps a hash of it.`,
	}
	cmd.AddCommand(newTokenAdd(a, dir), newTokenList(a, dir), newTokenRevoke(a, dir))
	return cmd
}

// withStore opens the database of a server whose folder is there.
func withStore(ctx context.Context, dir string, fn func(s store.Store) error) (err error) {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("cannot open the folder of the server: %w", err)
	} else if !info.IsDir() {
		return usagef("%s is not a folder", dir)
	}
	db, err := sqlite.Open(ctx, filepath.Join(dir, serverDatabase))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fn(db)
}

// tokenEvent records what the operator does with tokens.
func (a *app) tokenEvent(ctx context.Context, s store.Store, t store.Token, what string) error {
	return s.AddEvent(ctx, store.Event{At: a.now(), Action: store.ActionToken, Actor: t.ID, Outcome: what + " " + t.Name})
}

func newTokenAdd(a *app, dir *string) *cobra.Command {
	var products []string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a publish token; it is shown once",
		Long: `Make a publish token. It is printed once and cannot be shown again.

With --product it is for these products only; without, for all products and for changes of the
root of trust, which need the signatures of the root keys all the same.`,
		Example: `  pawl serve token add release-pipeline --product greeter --dir /var/lib/pawl`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, secret, err := store.NewToken(args[0], products, a.now())
			if err != nil {
				return usageError{err}
			}
			return withStore(cmd.Context(), *dir, func(s store.Store) error {
				if err := s.AddToken(cmd.Context(), t); errors.Is(err, store.ErrExists) {
					return refusal.New(refusal.Conflict, "publish token", "%w", err).Do("choose another name, or revoke that one first")
				} else if err != nil {
					return err
				}
				if err := a.tokenEvent(cmd.Context(), s, t, "added"); err != nil {
					return err
				}
				result := struct {
					store.Token
					Secret string `json:"token"`
				}{t, secret}
				a.report(result, func(w io.Writer) {
					fmt.Fprintln(w, secret)
					a.say("This is token %s for %s. It is not shown again.\nnext: keep it where the pipeline keeps its secrets, as PAWL_TOKEN", t.Name, scope(t))
				})
				return nil
			})
		},
	}
	cmd.Flags().StringArrayVar(&products, "product", nil, "product that it may publish; may be repeated; default: all, and the root of trust")
	return cmd
}

func scope(t store.Token) string {
	if t.ForAll() {
		return "all products"
	}
	return strings.Join(t.Products, ", ")
}

func newTokenList(a *app, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the publish tokens",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd.Context(), *dir, func(s store.Store) error {
				tokens, err := s.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				a.report(map[string]any{"tokens": append([]store.Token{}, tokens...)}, func(w io.Writer) {
					if len(tokens) == 0 {
						fmt.Fprintln(w, "There are no tokens: nobody can publish. \"pawl serve token add\" makes one.")
						return
					}
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "NAME\tID\tPRODUCTS\tMADE\tLAST USED\tREVOKED")
					for _, token := range tokens {
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", token.Name, token.ID, scope(token), day(token.Created), day(token.LastUsed), day(token.Revoked))
					}
					t.Flush()
				})
				return nil
			})
		},
	}
}

// day writes a date, or a dash for none.
func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

func newTokenRevoke(a *app, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke NAME|ID",
		Short:   "End a publish token, at once",
		Example: `  pawl serve token revoke release-pipeline --dir /var/lib/pawl`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd.Context(), *dir, func(s store.Store) error {
				tokens, err := s.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				for _, t := range tokens {
					if t.ID != args[0] && (t.Name != args[0] || !t.Revoked.IsZero()) {
						continue
					}
					if err := s.RevokeToken(cmd.Context(), t.ID, a.now()); err != nil {
						return err
					}
					if err := a.tokenEvent(cmd.Context(), s, t, "revoked"); err != nil {
						return err
					}
					a.report(map[string]any{"revoked": t.ID, "name": t.Name}, func(w io.Writer) {
						fmt.Fprintf(w, "Token %s (%s) publishes nothing any more.\n", t.Name, t.ID)
					})
					return nil
				}
				return fmt.Errorf("there is no token %q: %w", args[0], store.ErrNotExist)
			})
		},
	}
}
