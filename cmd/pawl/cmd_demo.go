// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/examples"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry/embedded"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/version"
)

// crafted is an Accept-Language header that makes golang.org/x/text before v0.3.7 read out of bounds (CVE-2021-38561).
const crafted = "ext-u-true-m0-co"

func newDemoCommand(a *app) *cobra.Command {
	var dir string
	var stay bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch a real patch travel from build to device, and four attacks refused",
		Long: `Watch a real patch for a real vulnerability travel from the build to an updated, verified product, and
see four attacks refused.

Everything is real and on this machine: a project with keys, an update server and an OCI registry on
loopback, a device with an agent, and a small product that is built with Go. Every step is a command
that you could type yourself; it is printed with what it does. The folder stays for you to look at.`,
		Example: `  pawl demo

  # keep server and registry running afterwards, to verify by hand
  pawl demo --dir my-demo --stay`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &demo{app: a, stay: stay}
			return d.run(cmd.Context(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "an empty or new folder to work in; default: a temporary one")
	cmd.Flags().BoolVar(&stay, "stay", false, "keep the server and the registry running until Ctrl-C")
	return cmd
}

// demo is one run of the demonstration.
type demo struct {
	app      *app
	stay     bool
	dir      string
	password string
	token    string
	ahead    time.Duration // by how much the clock of the next command is ahead
	url      string        // of the update server
	registry string        // host:port
	// yesterday is the timestamp of the repository before the patch.
	yesterday []byte
	result    demoResult
}

// demoResult is what --json prints.
type demoResult struct {
	Folder   string       `json:"folder"`
	Server   string       `json:"server"`
	Registry string       `json:"registry"`
	Steps    []demoStep   `json:"steps"`
	Attacks  []demoAttack `json:"attacks"`
	Seconds  float64      `json:"seconds"`
}

type demoStep struct {
	Title   string  `json:"title"`
	Command string  `json:"command,omitempty"`
	Output  string  `json:"output,omitempty"`
	Seconds float64 `json:"seconds"`
}

type demoAttack struct {
	Title   string        `json:"title"`
	Command string        `json:"command"`
	Status  int           `json:"status"`
	Class   refusal.Class `json:"class"`
	Words   string        `json:"words"`
}

func (d *demo) run(ctx context.Context, dir string) error {
	began := time.Now()
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("the demo builds its product with Go, which is not on the path: %w", err)
	}
	if err := d.prepare(dir); err != nil {
		return fmt.Errorf("cannot prepare the demo: %w", err)
	}
	defer os.Chdir(d.result.Folder) //nolint:errcheck // the process ends next

	d.line("pawl demo, in %s", d.dir)
	registry, err := embedded.Start(ctx, embedded.Options{Dir: filepath.Join(d.dir, "registry")})
	if err != nil {
		return err
	}
	defer registry.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends next
	d.registry = registry.Host()

	for _, act := range []func(context.Context) error{d.keys, d.serve, d.firstRelease, d.install, d.disclosure, d.patch, d.update, d.attacks} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	d.result.Folder, d.result.Server, d.result.Registry = d.dir, d.url, d.registry
	d.result.Seconds = time.Since(began).Seconds()
	d.app.report(d.result, d.epilogue)
	if d.stay {
		d.app.say("server and registry keep running; Ctrl-C ends them")
		<-ctx.Done()
	}
	return nil
}

// prepare makes the folder of the demo and works in it from there on, as its reader would.
func (d *demo) prepare(dir string) error {
	var err error
	if dir == "" {
		if dir, err = os.MkdirTemp("", "pawl-demo-"); err != nil {
			return err
		}
	} else if err = os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if d.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return usagef("folder %s is not empty", d.dir)
	}
	d.password = rand.Text()
	if err := os.WriteFile(filepath.Join(d.dir, "password"), []byte(d.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.CopyFS(d.dir, examples.Greeter); err != nil {
		return err
	}
	// The database of vulnerabilities begins as it was before the day of disclosure: fresh, and with nothing that matters.
	if err := os.MkdirAll(filepath.Join(d.dir, "vulnerabilities"), 0o755); err != nil {
		return err
	}
	if err := d.disclose("EXAMPLE-2020-1"); err != nil {
		return err
	}
	d.result.Folder = d.dir
	return os.Chdir(d.dir)
}

// disclose puts a record into the database.
func (d *demo) disclose(id string) error {
	record, err := fs.ReadFile(examples.Greeter, "greeter/vulnerabilities/"+id+".json")
	if err != nil {
		return err
	}
	// The invented record keeps the database fresh: a database in which nothing was written lately proves nothing.
	today := d.app.now().UTC().Format(time.RFC3339)
	record = bytes.ReplaceAll(record, []byte(`"modified": "2020-01-01T00:00:00Z"`), []byte(`"modified": "`+today+`"`))
	return os.WriteFile(filepath.Join(d.dir, "vulnerabilities", id+".json"), record, 0o644)
}

func (d *demo) keys(ctx context.Context) error {
	d.title("The maker creates keys: three for the root (any two must sign), one for the server, a release and an evidence key for each product")
	_, err := d.pawl(ctx, "keys", "init", "--product", "greeter", "--product", "greeter-image")
	return err
}

// serve starts the update server in this process, as "pawl serve" would run on a machine of its own.
func (d *demo) serve(ctx context.Context) error {
	d.title("An update server starts. It has the online key only")
	args := []string{"serve", "--dir", "server", "--trust", "trust", "--online-key", "keys/online.key", "--listen", "127.0.0.1:0"}
	r, w := io.Pipe()
	sub, stderr := d.sub(w)
	ended := make(chan int, 1)
	go func() {
		ended <- sub.run(ctx, args)
		w.Close()
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	d.url = regexp.MustCompile(`https?://\S+`).FindString(line)
	if err != nil || d.url == "" {
		return fmt.Errorf("the server does not start (status %d): %s", <-ended, stderr)
	}
	go io.Copy(io.Discard, r) //nolint:errcheck // ends with the server
	d.record(args, line, 0)

	args = []string{"serve", "token", "add", "release-pipeline", "--dir", "server", "--json"}
	out, err := d.quiet(ctx, args...)
	if err != nil {
		return err
	}
	var token struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &token); err != nil {
		return fmt.Errorf("cannot read the token: %w", err)
	}
	d.token = token.Token
	d.record(args, "(a secret: it goes to the release pipeline)\n", 0)
	return d.writeConfig()
}

// writeConfig writes pawl.yaml and agent.yaml.
func (d *demo) writeConfig() error {
	expand := strings.NewReplacer("@URL@", d.url, "@REGISTRY@", d.registry).Replace
	for name, text := range map[string]string{"pawl.yaml": demoProject, "device.yaml": demoDevice, "late-device.yaml": strings.ReplaceAll(demoDevice, "device/", "late-device/")} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(expand(text)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

const demoProject = `# The project of the demo: one program, as a file for hosts and as a container image.
version: 1
repository:
  url: @URL@
  trust: trust
keys:
  release: keys/release-{product}.key
  evidence: keys/evidence-{product}.key
vulnerabilities:
  database: vulnerabilities
products:
  - name: greeter
    channel: file
    supportEnd: 2031-12
    build:
      command: [go, build, -trimpath, -ldflags, "-X main.version={version}", -o, greeter, .]
      dir: greeter
      env: { CGO_ENABLED: "0", GOFLAGS: "-buildvcs=false" }
      pass: [GOCACHE, GOMODCACHE, GOPATH, GOPROXY, GOSUMDB, GOTOOLCHAIN]
    artifacts:
      - path: greeter/greeter
    advisory: greeter/advisories/{version}.yaml
  - name: greeter-image
    channel: container
    supportEnd: 2031-12
    image:
      repositories: [@REGISTRY@/acme/greeter]
      files:
        - { path: greeter/greeter, to: /usr/bin/greeter }
      entrypoint: [/usr/bin/greeter, -listen, ":8090"]
      user: "65532:65532"
    advisory: greeter/advisories/{version}.yaml
`

const demoDevice = `# The agent of a device: what it runs, whom it asks, and what its owner wants.
servers: [@URL@]
root: trust/1.root.json
state: device/state
products:
  - name: greeter
    channel: file
    path: device/greeter
    health:
      command: [device/greeter/current/greeter, -check]
      deadline: 20s
`

func (d *demo) firstRelease(ctx context.Context) error {
	d.title("Version 1.0.0 is released: built, listed (SBOM), scanned, gated, signed, published. Nothing known stands against it")
	if err := d.choose("1.0.0"); err != nil {
		return err
	}
	_, err := d.pawl(ctx, "release", "1.0.0")
	return err
}

// choose makes the module file of one version the one that is built: the change that a developer would make.
func (d *demo) choose(v string) error {
	for _, ext := range []string{"mod", "sum"} {
		data, err := os.ReadFile(filepath.Join(d.dir, "greeter", "v"+v+"."+ext))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(d.dir, "greeter", "go."+ext), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) install(ctx context.Context) error {
	d.title("A device installs it. It knows nothing but the maker's root")
	if _, err := d.pawl(ctx, "agent", "install", "--config", "device.yaml"); err != nil {
		return err
	}
	// A second device that will come back late, to be attacked.
	if _, err := d.quiet(ctx, "agent", "install", "--config", "late-device.yaml"); err != nil {
		return err
	}
	return nil
}

func (d *demo) disclosure(ctx context.Context) error {
	d.title("CVE-2021-38561 becomes known: one request header stops the product in the field")
	if err := d.disclose("GO-2021-0113"); err != nil {
		return err
	}
	return d.greet(ctx, true)
}

// greet sends the crafted header to what the device runs.
func (d *demo) greet(ctx context.Context, wantCrash bool) error {
	program := filepath.Join("device", "greeter", "current", "greeter")
	began := time.Now()
	out, err := exec.CommandContext(ctx, filepath.Join(d.dir, program), "-greet", crafted).CombinedOutput()
	crashed := err != nil
	if crashed && !errors.As(err, new(*exec.ExitError)) {
		return err
	}
	first, _, _ := strings.Cut(string(out), "\n")
	d.add(demoStep{Command: program + " -greet " + crafted, Output: first, Seconds: time.Since(began).Seconds()})
	if crashed != wantCrash {
		return fmt.Errorf("the product with a crafted header: crashed %v, expected %v: %s", crashed, wantCrash, first)
	}
	return nil
}

func (d *demo) patch(ctx context.Context) error {
	d.title("The maker releases 1.0.1 with the corrected library. The gate proves the fix: there before, gone now")
	var err error
	if d.yesterday, err = os.ReadFile(filepath.Join("server", "repository", "metadata", "timestamp.json")); err != nil {
		return err
	}
	if err := d.choose("1.0.1"); err != nil {
		return err
	}
	_, err = d.pawl(ctx, "release", "1.0.1", "--security", "--fixes", "CVE-2021-38561")
	return err
}

func (d *demo) update(ctx context.Context) error {
	d.title("The device is told, installs it by itself, checks its health and confirms")
	if _, err := d.pawl(ctx, "agent", "install", "--config", "device.yaml"); err != nil {
		return err
	}
	if err := d.greet(ctx, false); err != nil {
		return err
	}
	d.title("Anybody can check it again")
	_, err := d.pawl(ctx, "verify", "device/greeter/current/greeter")
	return err
}

func (d *demo) attacks(ctx context.Context) error {
	d.line("")
	d.line("Four attacks. A second device still runs 1.0.0; the attacker owns the server and everything on it.")
	repository := filepath.Join("server", "repository")
	late := []string{"agent", "install", "--config", "late-device.yaml"}

	restore, err := flipByte(filepath.Join(repository, "targets", "greeter", "1.0.1", "*.greeter"))
	if err != nil {
		return err
	}
	if err := d.refused(ctx, "He changes one bit of the new program", refusal.Digest, late...); err != nil {
		return err
	}
	if err := restore(); err != nil {
		return err
	}

	if err := d.replay(ctx, repository); err != nil {
		return err
	}

	d.ahead = 8 * 24 * time.Hour
	err = d.refused(ctx, "He lets nobody renew the catalogue, and waits eight days", refusal.Expired, late...)
	d.ahead = 0
	if err != nil {
		return err
	}

	if err := d.theft(ctx, repository, late); err != nil {
		return err
	}
	out, err := d.quiet(ctx, "agent", "status", "--config", "late-device.yaml")
	if err != nil {
		return err
	}
	d.line("")
	d.line("After all of it the second device runs what it ran before:")
	d.indent(out)
	return nil
}

// theft lets somebody with every key of the server publish a release of his own, and cleans up after him.
func (d *demo) theft(ctx context.Context, repository string, device []string) error {
	private, err := os.ReadFile(filepath.Join("keys", "online.key"))
	if err != nil {
		return err
	}
	online, err := keyfile.Open(private, []byte(d.password))
	if err != nil {
		return err
	}
	stamp := filepath.Join(repository, "metadata", "timestamp.json")
	genuine, err := os.ReadFile(stamp)
	if err != nil {
		return err
	}
	t := thief{repository: repository, online: online, now: d.app.now()}
	if err := t.invent(ctx, "greeter", version.MustParse("1.0.2")); err != nil {
		return err
	}
	err = d.refused(ctx, "He signs a release of his own with every key on the server", refusal.Signature, device...)
	return errors.Join(err, replaceFile(stamp, genuine), t.leave())
}

// replay serves the repository of the day before to the device that is up to date.
func (d *demo) replay(ctx context.Context, repository string) error {
	stamp := filepath.Join(repository, "metadata", "timestamp.json")
	today, err := os.ReadFile(stamp)
	if err != nil {
		return err
	}
	if err := replaceFile(stamp, d.yesterday); err != nil {
		return err
	}
	err = d.refused(ctx, "He offers the old, vulnerable release again, with its genuine signatures", refusal.Rollback, "agent", "install", "--config", "device.yaml")
	return errors.Join(err, replaceFile(stamp, today))
}

// refused runs a command that must be refused with this class.
func (d *demo) refused(ctx context.Context, title string, class refusal.Class, args ...string) error {
	sub, stderr := d.sub(io.Discard)
	sub.json = true
	status := sub.run(ctx, append(args, "--json"))
	var said struct {
		Errors []struct {
			Class   refusal.Class `json:"class"`
			Checked string        `json:"checked"`
			Failed  string        `json:"failed"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(stderr.Bytes(), &said); err != nil || len(said.Errors) == 0 {
		return fmt.Errorf("attack %q: pawl %s ends with status %d and does not say why: %s", title, strings.Join(args, " "), status, stderr)
	}
	attack := demoAttack{Title: title, Command: "pawl " + strings.Join(args, " "), Status: status, Class: said.Errors[0].Class, Words: said.Errors[0].Failed}
	if checked := said.Errors[0].Checked; checked != "" {
		attack.Words = checked + ": " + attack.Words
	}
	d.result.Attacks = append(d.result.Attacks, attack)
	d.line("")
	d.line("  %d  %s", len(d.result.Attacks), title)
	d.line("     $ %s", attack.Command)
	d.line("     REFUSED (%s, exit status %d): %s", attack.Class, attack.Status, attack.Words)
	if attack.Class != class {
		return fmt.Errorf("attack %q: refused as %s, expected %s", title, attack.Class, class)
	}
	return nil
}

// sub returns an app for one command of the demo, and the buffer with what it says on standard error.
func (d *demo) sub(out io.Writer) (*app, *bytes.Buffer) {
	var stderr bytes.Buffer
	ahead := d.ahead
	return &app{
		in: strings.NewReader(""), out: out, err: &stderr, log: slog.New(slog.DiscardHandler),
		now: func() time.Time { return d.app.now().Add(ahead) },
		env: func(name string) (string, bool) {
			switch name {
			case "PAWL_PASSWORD":
				return d.password, true
			case "PAWL_TOKEN":
				return d.token, true
			}
			return d.app.env(name)
		},
	}, &stderr
}

// pawl runs a command and shows it with what it prints.
func (d *demo) pawl(ctx context.Context, args ...string) (string, error) {
	began := time.Now()
	out, err := d.quiet(ctx, args...)
	if err != nil {
		return "", err
	}
	d.record(args, out, time.Since(began))
	return out, nil
}

// quiet runs a command that must end with status 0 and returns what it prints.
func (d *demo) quiet(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	sub, stderr := d.sub(&out)
	if status := sub.run(ctx, args); status != 0 {
		return "", fmt.Errorf("pawl %s ends with status %d:\n%s%s", strings.Join(args, " "), status, &out, stderr)
	}
	return out.String(), nil
}

func (d *demo) record(args []string, out string, took time.Duration) {
	d.add(demoStep{Command: "pawl " + quoteArgs(args), Output: out, Seconds: took.Seconds()})
}

// add shows a command and what it printed, and keeps it for --json.
func (d *demo) add(s demoStep) {
	if n := len(d.result.Steps); n > 0 && d.result.Steps[n-1].Command == "" {
		s.Title = d.result.Steps[n-1].Title
		d.result.Steps[n-1] = s
	} else {
		d.result.Steps = append(d.result.Steps, s)
	}
	d.line("   $ %s", s.Command)
	d.indent(s.Output)
}

func (d *demo) title(text string) {
	d.result.Steps = append(d.result.Steps, demoStep{Title: text})
	d.line("")
	d.line("%s.", text)
}

func (d *demo) indent(text string) {
	for line := range strings.Lines(text) {
		d.line("     %s", strings.TrimRight(line, "\n"))
	}
}

// line prints a line of the story, unless the output is for machines.
func (d *demo) line(format string, args ...any) {
	if !d.app.json {
		fmt.Fprintln(d.app.out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

func (d *demo) epilogue(w io.Writer) {
	fmt.Fprintf(w, `
Done in %.1f s. Everything is in %s; go there and look:

  cd %s      # pawl itself: "go build ./cmd/pawl" in the source
  export PAWL_PASSWORD=$(cat password)
  pawl keys show                                     # who may sign what
  pawl agent status --config device.yaml             # what the device runs, and its floor
  pawl agent history --config device.yaml            # what happened on it, and why
  pawl verify --release greeter@1.0.1 --repo server/repository --root trust/1.root.json

The same with cosign, which knows nothing of pawl:

  cosign verify-blob --key keys/release-greeter.pub --insecure-ignore-tlog \
    --bundle server/repository/targets/greeter/1.0.1/*.greeter.sigstore.json device/greeter/current/greeter
`, d.result.Seconds, d.dir, d.dir)
	if d.stay {
		fmt.Fprintf(w, "  cosign verify --key keys/release-greeter-image.pub --insecure-ignore-tlog --allow-insecure-registry %s/acme/greeter:1.0.1\n", d.registry)
	} else {
		fmt.Fprintf(w, "\n\"pawl demo --stay\" keeps server and registry running, to verify the image as well.\n")
	}
}

// quoteArgs writes arguments as they would be typed.
func quoteArgs(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = arg
		if strings.ContainsAny(arg, " \"'$") {
			quoted[i] = "'" + arg + "'"
		}
	}
	return strings.Join(quoted, " ")
}
