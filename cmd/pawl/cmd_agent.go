// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed" // the commented agent.yaml
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/agent"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry/oci"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/slot/container"
	"github.com/pawl-project/pawl/internal/slot/file"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
)

// agentYAML is what "pawl agent init" writes.
//
//go:embed starter/agent.yaml
var agentYAML string

// agentApp is what all commands below "pawl agent" share.
type agentApp struct {
	*app
	config string
}

func newAgentCommand(a *app) *cobra.Command {
	g := &agentApp{app: a}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep a device or host up to date, as its owner wants it",
		Long: `Keep a device or host up to date, as its owner wants it.

The agent asks the publisher's server or folder, believes only what the root proves that came to the
device out of band, and installs the newest release that is meant for this device: never one with a
lower version, never one below the floor. A release that is not healthy in time is put back.

Security updates install by themselves unless the owner says otherwise; feature releases wait for
approval. The owner can turn that off, postpone, approve, and set a maintenance window. Nothing that a
server sends overrides the owner, and the owner is told of security updates all the same.`,
		Example: `  pawl agent init > /etc/pawl/agent.yaml      # then edit it
  pawl agent check                            # 0 nothing, 3 a feature release, 4 a security release
  pawl agent install
  pawl agent auto off                         # opt out; "auto on" comes back
  pawl agent run                              # as a service`,
	}
	cmd.PersistentFlags().StringVar(&g.config, "config", "/etc/pawl/agent.yaml", "configuration of the agent")
	cmd.AddCommand(g.initCommand(), g.checkCommand(), g.installCommand(), g.runCommand(), g.statusCommand(), g.historyCommand(),
		g.autoCommand(), g.postponeCommand(), g.approveCommand())
	return cmd
}

func (g *agentApp) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Print a commented agent.yaml to begin with",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(g.out, agentYAML)
			return err
		},
	}
}

func (g *agentApp) checkCommand() *cobra.Command {
	var product, from string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Ask for updates and tell the owner; install nothing",
		Long: `Ask for updates and tell the owner; install nothing.

The exit status is 0 if there is nothing to install, 3 if there is a feature release, 4 if there is a
security update. A release that the owner has postponed or opted out of counts: it is there.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			outcomes, err := g.do(cmd.Context(), agent.Request{Product: product}, from)
			if err != nil {
				return err
			}
			status := refusal.Done
			for _, o := range outcomes {
				for _, offer := range o.Offers {
					if offer.Security {
						status = refusal.SecurityAvailable
					} else if status == refusal.Done {
						status = refusal.UpdateAvailable
					}
				}
			}
			if status != refusal.Done {
				return exitStatus(status)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product")
	cmd.Flags().StringVar(&from, "from", "", "folder or URL to ask instead of the configured servers")
	return cmd
}

func (g *agentApp) installCommand() *cobra.Command {
	var product, text, from string
	var retry bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install what the owner has agreed to, and finish what was interrupted",
		Long: `Install what the owner has agreed to, and finish what was interrupted.

With --version the owner says to install exactly that release now. Every other check still holds: the
signatures, the hardware, a higher version, the floor. With --from a folder on a stick is asked instead
of the servers; it has no privileges.

The exit status is 16 if a security update is there and the owner has not agreed to it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := agent.Request{Product: product, Install: true, Retry: retry}
			if text != "" {
				v, err := version.Parse(text)
				if err != nil {
					return usageError{err}
				}
				req.Version = v
			}
			_, err := g.do(cmd.Context(), req, from)
			return err
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product")
	cmd.Flags().StringVar(&text, "version", "", "install exactly this release")
	cmd.Flags().StringVar(&from, "from", "", "folder or URL to ask instead of the configured servers")
	cmd.Flags().BoolVar(&retry, "retry", false, "try releases again that were put back here before")
	return cmd
}

// do makes an engine, does what is asked and prints what came of it. from, if it is not empty, is asked instead of the
// configured servers.
func (g *agentApp) do(ctx context.Context, req agent.Request, from string) ([]agent.Outcome, error) {
	c, err := g.load()
	if err != nil {
		return nil, err
	}
	e, done, err := g.engineFor(c)
	if err != nil {
		return nil, err
	}
	if from != "" {
		req.Sources = []agent.Source{g.source(from, c.CA)}
	}
	if !req.Version.IsZero() && req.Product == "" && len(c.Products) > 1 {
		return nil, usagef("--version is of one product: name it with --product")
	}
	outcomes, err := e.Do(ctx, req)
	done()
	if errors.Is(err, agent.ErrNoProduct) {
		return nil, usageError{err}
	}
	if outcomes != nil {
		g.report(map[string]any{"products": outcomes}, func(w io.Writer) {
			for _, o := range outcomes {
				printOutcome(w, o)
			}
		})
	}
	return outcomes, err
}

func printOutcome(w io.Writer, o agent.Outcome) {
	switch {
	case o.Changed && o.Before.IsZero():
		fmt.Fprintf(w, "%s: installed %s\n", o.Product, o.Running)
	case o.Changed:
		fmt.Fprintf(w, "%s: updated %s -> %s\n", o.Product, o.Before, o.Running)
	case o.Running.IsZero():
		fmt.Fprintf(w, "%s: nothing is installed\n", o.Product)
	case len(o.Offers) == 0 && o.Err == nil:
		fmt.Fprintf(w, "%s: %s is up to date\n", o.Product, o.Running)
	default:
		fmt.Fprintf(w, "%s: runs %s\n", o.Product, o.Running)
	}
	for _, offer := range o.Offers {
		if o.Changed && offer.Version == o.Running {
			printTexts(w, offer)
			continue
		}
		fmt.Fprintf(w, "  %s release %s is available: %s\n", offer.Kind, offer.Version, offer.Reason)
		printTexts(w, offer)
	}
	for _, r := range o.Refused {
		fmt.Fprintf(w, "  %s is not taken (%s): %s\n", r.Version, r.Class, r.Reason)
	}
	if o.Changed {
		fmt.Fprintf(w, "  confirmed; nothing below security version %d is taken here any more\n", o.Floor.Security)
	}
	switch o.Support {
	case update.SupportEnding:
		fmt.Fprintf(w, "  security updates end with %s\n", o.SupportEnd)
	case update.SupportEnded:
		fmt.Fprintf(w, "  security updates ended with %s: known faults are not corrected any more\n", o.SupportEnd)
	}
}

func printTexts(w io.Writer, offer agent.OfferStatus) {
	for _, row := range []struct{ label, text string }{
		{"why", offer.Summary}, {"fixes", strings.Join(offer.Fixes, ", ")}, {"severity", offer.Severity}, {"without it", offer.Risk},
		{"you", offer.Action}, {"meanwhile", offer.Disruption},
	} {
		if row.text != "" {
			fmt.Fprintf(w, "    %-10s  %s\n", row.label, strings.ReplaceAll(row.text, "\n", " "))
		}
	}
}

func (g *agentApp) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Check and install again and again, as a service",
		Long: `Check and install again and again, as a service.

It begins with what an interruption has left, then checks at the configured interval with a random
part, so that a fleet does not ask all at once. SIGHUP asks for a check now. What it does is logged to
standard error and kept in "pawl agent history".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A service says what it does, and draws nothing.
			g.terminal = false
			if !g.verbose {
				g.log = slog.New(slog.NewTextHandler(g.err, nil))
			}
			e, done, err := g.engine()
			if err != nil {
				return err
			}
			defer done()
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, hangup...)
			defer signal.Stop(hup)
			wake := make(chan struct{}, 1)
			go func() {
				for {
					select {
					case <-cmd.Context().Done():
						return
					case <-hup:
						select {
						case wake <- struct{}{}:
						default: // a check is asked for already
						}
					}
				}
			}()
			err = e.Run(cmd.Context(), wake)
			if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
				return nil // a service that is asked to stop has done its work
			}
			return err
		},
	}
}

func (g *agentApp) statusCommand() *cobra.Command {
	var product string
	var verify bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, its floor, what is offered, and what the owner has decided",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, done, err := g.engine()
			if err != nil {
				return err
			}
			defer done()
			s, err := e.Status(cmd.Context(), product, verify)
			if errors.Is(err, agent.ErrNoProduct) {
				return usageError{err}
			}
			if len(s.Products) > 0 {
				g.report(s, func(w io.Writer) { printAgentStatus(w, s) })
			}
			return err
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product")
	cmd.Flags().BoolVar(&verify, "verify", false, "read the installed bytes and compare them with what was signed")
	return cmd
}

func printAgentStatus(out io.Writer, s agent.Status) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "device\t%s\n", s.Device)
	fmt.Fprintf(w, "servers\t%s\n", strings.Join(s.Servers, ", "))
	if !s.Root.IsZero() {
		fmt.Fprintf(w, "root\t%s\n", s.Root)
	}
	for _, p := range s.Products {
		fmt.Fprintf(w, "\n%s\t%s\n", p.Product, running(p))
		fmt.Fprintf(w, "  floor\tsecurity version %d\n", p.Floor.Security)
		fmt.Fprintf(w, "  owner\tsecurity updates: %s; feature releases: %s\n", p.Owner.Security, p.Owner.Feature)
		if !p.Owner.PostponedUntil.IsZero() {
			fmt.Fprintf(w, "  postponed\tuntil %s (%d times)\n", when(p.Owner.PostponedUntil), p.Owner.Postponements)
		}
		if !p.Previous.IsZero() {
			fmt.Fprintf(w, "  kept\t%s, to go back to\n", p.Previous)
		}
		for _, offer := range p.Offers {
			fmt.Fprintf(w, "  offered\t%s (%s release): %s\n", offer.Version, offer.Kind, offer.Reason)
		}
		if p.SupportEnd != "" {
			fmt.Fprintf(w, "  support\tsecurity updates until the end of %s\n", p.SupportEnd)
		}
		if p.Verified != nil {
			fmt.Fprintf(w, "  bytes\t%s\n", map[bool]string{true: "as they were signed", false: "DIFFERENT from what was signed"}[*p.Verified])
		}
		if !p.Checked.IsZero() {
			fmt.Fprintf(w, "  asked\t%s\n", when(p.Checked))
		}
		if p.CheckError != "" {
			fmt.Fprintf(w, "  problem\t%s\n", p.CheckError)
		}
		if p.Problem != "" {
			fmt.Fprintf(w, "  problem\t%s\n", p.Problem)
		}
	}
}

func running(p agent.ProductStatus) string {
	switch {
	case p.Running.IsZero():
		return "nothing is installed"
	case p.Phase != agent.Idle:
		return fmt.Sprintf("%s (%s; %s)", p.Running, p.Digest, p.Phase)
	case p.Confirmed:
		return fmt.Sprintf("%s (%s), confirmed", p.Running, p.Digest)
	}
	return fmt.Sprintf("%s (%s)", p.Running, p.Digest)
}

func (g *agentApp) historyCommand() *cobra.Command {
	var most int
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show what happened on this device, and why",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			e, done, err := g.engine()
			if err != nil {
				return err
			}
			defer done()
			events, err := e.History(most)
			if events == nil {
				events = []agent.Event{}
			}
			g.report(map[string]any{"events": events}, func(out io.Writer) {
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				defer w.Flush()
				for _, ev := range events {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", when(ev.At), ev.Event, ev.Product, ev.Version, ev.Text)
				}
			})
			return err
		},
	}
	cmd.Flags().IntVarP(&most, "number", "n", 0, "show only the last `N` events")
	return cmd
}

func (g *agentApp) autoCommand() *cobra.Command {
	var product string
	var features bool
	cmd := &cobra.Command{
		Use:   "auto on|off|approve",
		Short: "Say what happens with security updates: installed, not installed, or only after approval",
		Long: `Say what happens with security updates on this device.

  on       they install by themselves (the default)
  approve  they wait until the owner approves each
  off      they are not installed; the owner is still told. It has no end, and no server overrides it

With --features the same is said of feature releases, whose default is "approve".`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"on", "off", "approve"},
		RunE: func(cmd *cobra.Command, args []string) error {
			mode := map[string]update.Mode{"on": update.Auto, "off": update.Off, "approve": update.Approve}[args[0]]
			security, feature := mode, update.Mode("")
			if features {
				security, feature = "", mode
			}
			return g.each(product, func(e *agent.Engine, name string) (decided, error) {
				owner, err := e.SetMode(cmd.Context(), name, security, feature)
				status := agent.OwnerStatusOf(owner)
				return decided{
					Product: name, Owner: status,
					text: fmt.Sprintf("security updates: %s; feature releases: %s", status.Security, status.Feature),
				}, err
			})
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product")
	cmd.Flags().BoolVar(&features, "features", false, "say it of feature releases instead")
	return cmd
}

func (g *agentApp) postponeCommand() *cobra.Command {
	var product string
	var by time.Duration
	cmd := &cobra.Command{
		Use:   "postpone",
		Short: "Put off the update that is offered, for a bounded time",
		Long: fmt.Sprintf(`Put off the update that is offered. It is installed when the time is over, and told once more before.

A postponement lasts at most %d days, and one release can be put off %d times in a row. Not wanting updates at
all is "pawl agent auto off", which has no bound.`, update.MaxPostponement/(24*time.Hour), update.MaxPostponements),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			until := g.now().Add(by)
			return g.each(product, func(e *agent.Engine, name string) (decided, error) {
				owner, offer, err := e.Postpone(cmd.Context(), name, until)
				return decided{
					Product: name, Owner: agent.OwnerStatusOf(owner), Offer: &offer,
					text: fmt.Sprintf("%s is postponed until %s", offer.Version, when(until)),
				}, err
			})
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product")
	cmd.Flags().DurationVar(&by, "for", 24*time.Hour, "how long: 8h, 24h, 168h")
	return cmd
}

func (g *agentApp) approveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "approve PRODUCT [VERSION]",
		Short: "Agree to a release that waits for the owner",
		Long: `Agree to a release that waits for the owner; without a version, to the first one that waits. It is
installed at the next check. What is agreed to are these bytes: others under the same version ask again.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var v version.Version
			if len(args) == 2 {
				var err error
				if v, err = version.Parse(args[1]); err != nil {
					return usageError{err}
				}
			}
			return g.each(args[0], func(e *agent.Engine, name string) (decided, error) {
				owner, offer, err := e.Approve(cmd.Context(), name, v)
				return decided{
					Product: name, Owner: agent.OwnerStatusOf(owner), Offer: &offer,
					text: fmt.Sprintf("%s is approved; \"pawl agent install\" installs it now", offer.Version),
				}, err
			})
		},
	}
}

// when writes a time as the clock on the wall shows it.
func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// decided is what the owner has decided about a product.
type decided struct {
	Product string             `json:"product"`
	Owner   agent.OwnerStatus  `json:"owner"`
	Offer   *agent.OfferStatus `json:"offer,omitempty"`
	text    string
}

// each lets the owner decide about one product, or about all of the configuration that there is something to decide on.
func (g *agentApp) each(product string, decide func(e *agent.Engine, name string) (decided, error)) error {
	e, done, err := g.engine()
	if err != nil {
		return err
	}
	defer done()
	names := e.Products()
	if product != "" {
		names = []string{product}
	}
	var list []decided
	var failures, none []error
	for _, name := range names {
		d, err := decide(e, name)
		switch {
		case errors.Is(err, agent.ErrNoProduct):
			return usageError{err}
		case errors.Is(err, agent.ErrNoOffer):
			none = append(none, err)
		case err != nil:
			failures = append(failures, err)
		default:
			list = append(list, d)
		}
	}
	if len(list) == 0 {
		return errors.Join(append(failures, none...)...)
	}
	g.report(map[string]any{"products": list}, func(w io.Writer) {
		for _, d := range list {
			fmt.Fprintf(w, "%s: %s\n", d.Product, d.text)
		}
	})
	return errors.Join(failures...)
}

func (g *agentApp) load() (agent.Config, error) {
	c, err := agent.LoadConfig(g.config)
	if errors.Is(err, fs.ErrNotExist) {
		return c, usagef("%w; \"pawl agent init\" prints one to begin with", err)
	}
	return c, err
}

func (g *agentApp) engine() (*agent.Engine, func(), error) {
	c, err := g.load()
	if err != nil {
		return nil, nil, err
	}
	return g.engineFor(c)
}

// engineFor constructs the engine with its slots and sources. done ends its progress bars.
func (g *agentApp) engineFor(c agent.Config) (e *agent.Engine, done func(), err error) {
	opt := agent.Options{
		Config: c, Now: g.now, Slots: map[string]slot.Slot{}, Env: g.env, Logger: g.log,
	}
	for _, p := range c.Products {
		if opt.Slots[p.Name], err = g.slot(p); err != nil {
			return nil, nil, usagef("%s: product %s: %w", g.config, p.Name, err)
		}
	}
	for _, s := range c.Servers {
		opt.Sources = append(opt.Sources, g.source(s, c.CA))
	}
	if opt.Reporter, err = g.reporter(c); err != nil {
		return nil, nil, err
	}
	bars := map[string]func(int64){}
	var ends []func()
	opt.Progress = func(product string, n, total int64) {
		if bars[product] == nil {
			draw, end := g.bar(product, total)
			bars[product] = draw
			ends = append(ends, end)
		}
		bars[product](n)
	}
	if e, err = agent.New(opt); err != nil {
		return nil, nil, err
	}
	return e, func() {
		for _, end := range ends {
			end()
		}
	}, nil
}

func (g *agentApp) slot(p agent.Product) (slot.Slot, error) {
	args, err := p.Restart.Args()
	if err != nil {
		return nil, err
	}
	restart := slot.Restart{Args: args, Limit: p.Restart.Limit, Env: g.env}
	if !g.json {
		restart.Log = g.err
	}
	if p.Channel == statement.Container {
		images := oci.New(oci.Options{UserAgent: "pawl/" + readBuildInfo().Version})
		return container.New(container.Options{Path: p.Path, Platform: p.Platform, Images: images, Restart: restart})
	}
	return file.New(file.Options{Path: p.Path, Restart: restart})
}

func (g *agentApp) source(location, ca string) agent.Source {
	return agent.Source{Name: location, Open: func() (catalog.Opener, error) { return g.openSource(location, ca) }}
}

// reporter sends reports to the servers of the configuration; nil if there is nobody to tell.
func (g *agentApp) reporter(c agent.Config) (agent.Reporter, error) {
	var r httpReporter
	for _, s := range c.Servers {
		if agent.IsURL(s) {
			r.urls = append(r.urls, strings.TrimSuffix(s, "/")+"/api/v1/reports")
		}
	}
	if len(r.urls) == 0 || !c.Reports {
		return nil, nil
	}
	var err error
	// A report rather waits for the next check than for a server.
	r.client, err = httpx.New(httpx.Options{
		CAFile: c.CA, UserAgent: "pawl/" + readBuildInfo().Version, Logger: g.log, Limits: httpx.Limits{Attempts: 1, Answer: 10 * time.Second},
	})
	return r, err
}

// httpReporter tells the first server that listens.
type httpReporter struct {
	client *httpx.Client
	urls   []string
}

// Report implements agent.Reporter.
func (r httpReporter) Report(ctx context.Context, report store.Report) error {
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	var failures []error
	unwanted := true
	for _, url := range r.urls {
		resp, err := r.client.Do(ctx, httpx.Request{
			Method: http.MethodPost, URL: url, Header: http.Header{"Content-Type": {"application/json"}}, Size: int64(len(body)),
			Body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		})
		if err == nil {
			return resp.Body.Close()
		}
		failures = append(failures, err)
		unwanted = unwanted && deaf(httpx.Status(err))
	}
	if unwanted {
		failures = append(failures, agent.ErrUnwanted)
	}
	return errors.Join(failures...)
}

// deaf reports whether a server with this answer takes no reports, or not this one, now and tomorrow: a static host, or
// one that does not know the product.
func deaf(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	case http.StatusNotImplemented:
		return true
	}
	return status >= 300 && status < 500
}
