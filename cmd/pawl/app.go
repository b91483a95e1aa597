// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
)

// app is what every command shares: the streams, the environment, the clock, and the flags that all of them have.
type app struct {
	in       io.Reader
	out      io.Writer // results; JSON with --json
	err      io.Writer // progress, log, errors
	env      func(string) (string, bool)
	now      func() time.Time
	terminal bool         // standard error is a terminal: progress may be drawn
	limits   httpx.Limits // of servers that are read from; tests have less patience

	json         bool
	verbose      bool
	passwordFile string

	log     *slog.Logger
	started bool // a command's own code has begun: errors before that are the command line's
}

func newApp(now func() time.Time) *app {
	return &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv, now: now,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
		log:      slog.New(slog.DiscardHandler),
	}
}

// run executes the command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := execute(ctx, root)
	status := a.status(ctx, err)
	if err != nil && !errors.As(err, new(exitStatus)) {
		a.printError(err, status)
	}
	return status
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "pawl",
		Short: "Security updates that people can trust, from the build to the device",
		Long: `pawl takes a patch from the manufacturer's build to the product in the user's hands, and proves it.

It builds, scans, signs and publishes releases; serves them; installs them on devices and
hosts that never go back below a security floor; and lets anybody check every step again.`,
		Example: `  # watch a real patch travel, and four attacks refused
  pawl demo

  # start a project in this folder
  pawl init`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
			if a.verbose {
				a.log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
		},
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print the result as JSON on standard output, errors as JSON on standard error")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log what is done to standard error")
	flags.StringVar(&a.passwordFile, "password-file", "", "file with the password of private keys, instead of the environment")
	root.AddCommand(newVersionCommand(a), newExitStatusTopic())
	root.AddCommand(commands(a)...)
	return root
}

// exitStatus is returned by a command that has said everything itself and only wants this status.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a mistake in the command line or in a configuration file.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (a *app) status(ctx context.Context, err error) int {
	var own exitStatus
	switch {
	case err == nil:
		return refusal.Done
	case errors.As(err, &own):
		return int(own)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return refusal.Cancelled
	case !a.started || errors.As(err, new(usageError)) || isConfigError(err):
		return refusal.Usage
	}
	return refusal.Status(err)
}

// printError prints err once, with every refusal in it.
func (a *app) printError(err error, status int) {
	if a.json {
		type jsonError struct {
			Class   refusal.Class `json:"class,omitempty"`
			Checked string        `json:"checked,omitempty"`
			Failed  string        `json:"failed"`
			Next    string        `json:"next,omitempty"`
		}
		var list []jsonError
		for _, e := range flatten(err) {
			var r *refusal.Error
			if errors.As(e, &r) {
				list = append(list, jsonError{r.Class, r.Checked, r.Failed, r.Next})
			} else {
				list = append(list, jsonError{Failed: e.Error()})
			}
		}
		a.encode(a.err, map[string]any{"status": status, "errors": list})
		return
	}
	for _, e := range flatten(err) {
		fmt.Fprintf(a.err, "pawl: %s\n", e)
		var r *refusal.Error
		if errors.As(e, &r) && r.Next != "" {
			fmt.Fprintf(a.err, "  next: %s\n", r.Next)
		}
	}
	if status == refusal.Usage {
		fmt.Fprintln(a.err, "  next: \"pawl help\" and \"pawl COMMAND --help\" explain the commands")
	}
}

// flatten returns the errors that were joined into err, or err itself.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}

// report prints a result: v as JSON with --json, else what text writes.
func (a *app) report(v any, text func(w io.Writer)) {
	if a.json {
		a.encode(a.out, v)
		return
	}
	text(a.out)
}

func (a *app) encode(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		fmt.Fprintf(a.err, "pawl: cannot print the result: %v\n", err)
	}
}

// say prints a line about what is being done, to standard error, unless the output is for machines.
func (a *app) say(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}

// password returns the password of a private key. It is looked for in --password-file, then in PAWL_PASSWORD_<NAME>
// (the key's file name without ".key", in capitals, with "_" for everything that is not a letter or digit), in
// PAWL_PASSWORD and in COSIGN_PASSWORD; then it is asked for at the terminal, twice if confirm is set.
func (a *app) password(keyPath string, confirm bool) ([]byte, error) {
	if a.passwordFile != "" {
		data, err := os.ReadFile(a.passwordFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the password file: %w", err)
		}
		return []byte(strings.TrimRight(string(data), "\r\n")), nil
	}
	own := passwordVariable(keyPath)
	for _, name := range []string{own, "PAWL_PASSWORD", "COSIGN_PASSWORD"} {
		if value, ok := a.env(name); ok {
			return []byte(value), nil
		}
	}
	file, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, refusal.New(refusal.Key, "private key "+keyPath, "%w: no password given and no terminal to ask at", sign.ErrPassword).
			Do("set %s or PAWL_PASSWORD, or give --password-file", own)
	}
	return a.askPassword(file, keyPath, confirm)
}

func (a *app) askPassword(terminal *os.File, keyPath string, confirm bool) ([]byte, error) {
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(a.err, prompt)
		defer fmt.Fprintln(a.err)
		return term.ReadPassword(int(terminal.Fd()))
	}
	first, err := ask(fmt.Sprintf("Password of %s: ", keyPath))
	if err != nil || !confirm {
		return first, err
	}
	second, err := ask("The same password again: ")
	if err != nil {
		return nil, err
	}
	if string(first) != string(second) {
		return nil, refusal.New(refusal.Key, "private key "+keyPath, "%w: the two passwords differ", sign.ErrPassword)
	}
	return first, nil
}

// passwordVariable names the environment variable with the password of one key: "keys/release-greeter.key" is
// PAWL_PASSWORD_RELEASE_GREETER.
func passwordVariable(keyPath string) string {
	name := strings.TrimSuffix(filepath.Base(keyPath), ".key")
	return "PAWL_PASSWORD_" + strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, name)
}
