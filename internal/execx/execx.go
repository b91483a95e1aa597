// SPDX-License-Identifier: Apache-2.0

// Package execx runs other people's programs without handing them more than they need.
//
// A program that builds a release is the least trusted part of it: compilers, package managers and their plug-ins. It
// gets an environment made from a short allow-list, never the passwords and tokens of the process that starts it. No
// shell is in between. Its output goes to a log, bounded, and the last lines of it into the error. It has a time limit,
// and when the limit is over or the context ends, the program and everything that it started are ended: on Unix it runs
// in a process group of its own, on Windows its tree of processes is taken down.
//
// Not promised: a program that leaves its process group on purpose lives on, and files that the user can read can be
// read by the program. Who does not trust a build runs it in a container.
package execx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Limits.
const (
	// MaxOutput bounds what is kept of a program's output, in bytes.
	MaxOutput = 64 << 20
	// tailBytes and tailLines bound what an error quotes.
	tailBytes = 4 << 10
	tailLines = 12
	// grace is the time between asking a program to end and ending it.
	grace = 5 * time.Second
)

// ErrTimeLimit reports a program that was ended because it took too long.
var ErrTimeLimit = errors.New("time limit is over")

// Command is a program to run.
type Command struct {
	// Args are the program and its arguments. A name without a slash is looked up in PATH; a relative path is relative
	// to Dir.
	Args []string
	Dir  string
	// Env is the whole environment, "NAME=value"; see Environ.
	Env []string
	// In is the standard input; nil: an empty one.
	In io.Reader
	// Log receives standard output and standard error, at most MaxOutput bytes. Nil: nobody reads it.
	Log io.Writer
	// Out, if set, receives standard output instead of Log, at most MaxOutput bytes; more is an error.
	Out io.Writer
	// Limit is the longest that the program may take. Zero is an error: there is no safe default.
	Limit time.Duration
}

// Error says how a program ended.
type Error struct {
	Args   []string
	Status int    // exit status; -1 if it did not start or was ended by a signal
	Tail   string // the last lines of its output
	Err    error
}

// Error returns one line, and the last lines of the output below it.
func (e *Error) Error() string {
	text := fmt.Sprintf("command %q: %v", strings.Join(e.Args, " "), e.Err)
	if e.Tail != "" {
		text += "\n    " + strings.ReplaceAll(e.Tail, "\n", "\n    ")
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Run runs the command to its end. The error is an *Error; it wraps the context's error if that was the reason, or
// ErrTimeLimit.
func Run(ctx context.Context, c Command) error {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return fmt.Errorf("no command to run")
	}
	if c.Limit <= 0 {
		return fmt.Errorf("command %q: no time limit", c.Args[0])
	}
	limited, cancel := context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("%w (%s)", ErrTimeLimit, c.Limit))
	defer cancel()

	tail := &tail{}
	log := &bounded{w: c.Log, left: MaxOutput}
	cmd := exec.CommandContext(limited, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, c.In
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would hand over everything
	}
	both := io.MultiWriter(log, tail)
	cmd.Stdout, cmd.Stderr = both, both
	if c.Out != nil {
		cmd.Stdout = &bounded{w: c.Out, left: MaxOutput, strict: true}
	}
	cmd.WaitDelay = grace
	contain(cmd)

	// On Linux the program is ended if this process is killed. The kernel watches the thread that started it.
	runtime.LockOSThread()
	err := cmd.Run()
	runtime.UnlockOSThread()
	endGroup(cmd)
	if errors.Is(err, exec.ErrWaitDelay) && limited.Err() == nil {
		err = nil // it has ended well; something that it left behind held its output open, and is ended now
	}
	if err == nil && log.err == nil {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("cannot keep its output: %w", log.err)
	}
	if cause := context.Cause(limited); cause != nil {
		err = cause
	}
	status := -1
	if cmd.ProcessState != nil {
		status = cmd.ProcessState.ExitCode()
	}
	return &Error{Args: slices.Clone(c.Args), Status: status, Tail: tail.String(), Err: err}
}

// allowed are the variables that a program gets from the environment: where programs, home and temporary files are, the
// language, the time zone, and what Windows needs to start a program at all.
var allowed = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TMP", "TEMP", "SOURCE_DATE_EPOCH",
	"SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES",
}

// Secret reports whether a variable may hold a password or token of pawl or cosign. Such a variable is never handed on.
func Secret(name string) bool {
	name = strings.ToUpper(name)
	return strings.HasPrefix(name, "PAWL_") && name != "PAWL_PRODUCT" && name != "PAWL_VERSION" || strings.HasPrefix(name, "COSIGN_")
}

// Environ makes the environment of a program: the variables of the allow-list and those in pass, as far as lookup knows
// them, and then set, which wins. Secrets in pass are left out.
func Environ(lookup func(string) (string, bool), pass []string, set map[string]string) []string {
	vars := map[string]string{}
	for _, name := range slices.Concat(allowed, pass) {
		if value, ok := lookup(name); ok && !Secret(name) {
			vars[name] = value
		}
	}
	for name, value := range set {
		vars[name] = value
	}
	env := make([]string, 0, len(vars))
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// bounded hands on the first bytes and, unless strict, silently drops the rest after saying so once. A failing log does
// not stop the program; the error is kept.
type bounded struct {
	w      io.Writer
	left   int
	strict bool
	err    error
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.w == nil || b.err != nil || b.left == 0 && !b.strict {
		return len(p), nil
	}
	part := p[:min(len(p), b.left)]
	b.left -= len(part)
	_, b.err = b.w.Write(part)
	if b.strict {
		if b.err == nil && len(part) < len(p) {
			b.err = fmt.Errorf("more than %d bytes of output", MaxOutput)
		}
		return len(p), b.err
	}
	if b.err == nil && b.left == 0 {
		_, b.err = fmt.Fprintf(b.w, "\n[output ends here: %d bytes are kept]\n", MaxOutput)
	}
	return len(p), nil
}

// tail keeps the end of the output.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p[max(0, len(p)-tailBytes):]...)
	if len(t.buf) > 2*tailBytes {
		t.buf = slices.Clone(t.buf[len(t.buf)-tailBytes:])
	}
	return len(p), nil
}

// String returns the last lines without the escape sequences that would act on a terminal.
func (t *tail) String() string {
	text := bytes.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\t' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return -1
		}
		return c
	}, bytes.TrimRight(t.buf[max(0, len(t.buf)-tailBytes):], "\n\r "))
	lines := strings.Split(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
