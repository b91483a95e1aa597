// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDocs types what the README and the guides tell a reader to type, and compares what they show with what is printed.
//
// A page's blocks marked "console" run in one folder and one order. A line "$ COMMAND" is given to sh (a trailing
// backslash continues it, and a here-document goes on to its end); the lines below it are what it prints. A line "..."
// stands for any lines, "..." inside a line for any text. "$ COMMAND   # exit 16" expects an exit status. Blocks
// marked otherwise (text, yaml) are shown and not run.
func TestDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../../README.md") {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			runPage(t, page)
		})
	}
}

// step is one command of a page and what the page says that it prints.
type step struct {
	line    int
	command string
	exit    int
	want    []string
}

var exitComment = regexp.MustCompile(`\s+# exit ([0-9]+)$`)

func runPage(t *testing.T, page string) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	env := append(os.Environ(), "HOME="+filepath.Join(dir, ".home"), "PAWL_PASSWORD=correct horse battery staple", "TERM=dumb", "NO_COLOR=1")
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	if err := os.Mkdir(filepath.Join(dir, ".home"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range parsePage(t, string(text)) {
		got, exit := runStep(t, dir, env, s.command)
		if exit != s.exit {
			t.Fatalf("%s:%d: %s\nexits %d, the page says %d\n%s", page, s.line, s.command, exit, s.exit, got)
		}
		if !matchLines(s.want, strings.Split(strings.TrimRight(got, "\n"), "\n")) {
			t.Errorf("%s:%d: %s\nthe page shows:\n%s\nit prints:\n%s", page, s.line, s.command, strings.Join(s.want, "\n"), got)
		}
	}
}

func parsePage(t *testing.T, text string) []step {
	var steps []step
	inside, here := false, ""
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
			if !inside && here != "" {
				t.Fatalf("line %d: the block ends inside a here-document", i+1)
			}
		case !inside:
		case here != "":
			last := &steps[len(steps)-1]
			last.command += "\n" + line
			if line == here {
				here = ""
			}
		case strings.HasPrefix(line, "$ "):
			s := step{line: i + 1, command: line[2:]}
			if m := exitComment.FindStringSubmatch(s.command); m != nil {
				fmt.Sscan(m[1], &s.exit)
				s.command = strings.TrimSuffix(s.command, m[0])
			}
			if m := regexp.MustCompile(`<<'?([A-Z]+)'?`).FindStringSubmatch(s.command); m != nil {
				here = m[1]
			}
			steps = append(steps, s)
		case len(steps) > 0 && strings.HasSuffix(steps[len(steps)-1].command, "\\") && len(steps[len(steps)-1].want) == 0:
			steps[len(steps)-1].command += "\n" + line
		case len(steps) > 0:
			steps[len(steps)-1].want = append(steps[len(steps)-1].want, line)
		}
	}
	return steps
}

// runStep runs one command. "go run ./cmd/pawl" is this very program; "make" is left out, because it runs this test.
func runStep(t *testing.T, dir string, env []string, command string) (output string, exit int) {
	if strings.HasPrefix(command, "make ") {
		return "", 0
	}
	command = strings.ReplaceAll(command, "go run ./cmd/pawl", "pawl")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// A server that a page starts in the background runs until the page ends and does not hold up the next command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	if cmd.Process != nil {
		t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	}
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		exit = failed.ExitCode()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		t.Fatalf("%s: %v", command, err)
	}
	return out.String(), exit
}

// matchLines compares with "..." as a wildcard for lines and inside lines.
func matchLines(want, got []string) bool {
	for len(want) > 0 && strings.TrimSpace(want[len(want)-1]) == "" {
		want = want[:len(want)-1]
	}
	if len(want) == 0 {
		return true // the page shows only the command
	}
	if want[0] == "..." {
		for i := range len(got) + 1 {
			if len(want) == 1 || matchLines(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	if len(got) == 0 || !matchLine(want[0], got[0]) {
		return false
	}
	if len(want) == 1 {
		return len(got) == 1
	}
	return matchLines(want[1:], got[1:])
}

func matchLine(want, got string) bool {
	parts := strings.Split(strings.TrimRight(want, " "), "...")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(strings.TrimRight(got, " "))
}

func TestMatchLines(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"a\nb", "a\nb", true}, {"a", "a\nb", false}, {"a\n...", "a\nb\nc", true}, {"...\nc", "a\nb\nc", true},
		{"a\n...\nc", "a\nc", true}, {"sha256:... ok", "sha256:12ab ok", true}, {"x", "a", false}, {"", "anything", true},
	} {
		if got := matchLines(strings.Split(c.want, "\n"), strings.Split(c.got, "\n")); got != c.ok {
			t.Errorf("%q against %q: %v", c.want, c.got, got)
		}
	}
}
