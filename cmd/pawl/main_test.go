// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/httpx"
)

var updateGolden = flag.Bool("update", false, "rewrite the golden parts of the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pawl": func() { os.Exit(runForTest()) }})
}

// runForTest is main with a clock and a fault point that a script chooses:
//
//	PAWL_TEST_CLOCK      an offset ("-8760h") or a time (RFC 3339)
//	PAWL_TEST_FAULT      the process is killed at this point
//	PAWL_TEST_FAULT_LOG  every point is appended to this file
//	PAWL_TEST_PATIENCE   how long a server may be silent or slow ("200ms")
//
// A file that becomes larger than "ulimit -f" allows is an error of the write, as on a full disk, and no signal.
func runForTest() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	now := time.Now
	if text := os.Getenv("PAWL_TEST_CLOCK"); text != "" {
		if offset, err := time.ParseDuration(text); err == nil {
			now = func() time.Time { return time.Now().Add(offset) }
		} else if at, err := time.Parse(time.RFC3339, text); err == nil {
			began := time.Now()
			now = func() time.Time { return at.Add(time.Since(began)) }
		} else {
			panic("PAWL_TEST_CLOCK: " + text)
		}
	}
	kill, log := os.Getenv("PAWL_TEST_FAULT"), os.Getenv("PAWL_TEST_FAULT_LOG")
	if kill != "" || log != "" {
		ctx = fault.With(ctx, func(point string) {
			if log != "" {
				f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
				if err != nil {
					panic(err)
				}
				fmt.Fprintln(f, point)
				f.Close()
			}
			if point == kill {
				// A kill that nothing can catch, as a power cut: no deferred function runs.
				self, _ := os.FindProcess(os.Getpid())
				_ = self.Kill()
				select {}
			}
		})
	}
	signal.Ignore(syscall.SIGXFSZ)
	a := newApp(now)
	if text := os.Getenv("PAWL_TEST_PATIENCE"); text != "" {
		patience, err := time.ParseDuration(text)
		if err != nil {
			panic("PAWL_TEST_PATIENCE: " + text)
		}
		a.limits = httpx.Limits{Answer: patience, Grace: patience, Pause: time.Millisecond, Attempts: 2}
	}
	return a.run(ctx, os.Args[1:])
}

// TestScript runs every script. One script is one promise, typed as a user would type it.
func TestScript(t *testing.T) { testscript.Run(t, scripts("testdata/script")) }

// scripts are the scripts of a folder, with the commands that they may use beside testscript's own.
func scripts(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		UpdateScripts:       *updateGolden,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			root, err := filepath.Abs("../..")
			if err != nil {
				return err
			}
			env.Values[serversKey{}] = make(map[string]*server)
			env.Setenv("REPO", root)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("PAWL_PASSWORD", "correct horse battery staple")
			for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPATH"} {
				out, err := exec.Command("go", "env", name).Output()
				if err != nil {
					return err
				}
				env.Setenv(name, strings.TrimSpace(string(out)))
			}
			return os.MkdirAll(filepath.Join(env.WorkDir, "home"), 0o755)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":  cmdExits,
			"serve":  cmdServe,
			"http":   cmdHTTP,
			"tamper": cmdTamper,
			"clock":  cmdClock,
			"absent": cmdAbsent,
			"same":   cmdSame,
			// What an attacker does, see attack_test.go.
			"thief":    cmdThief,
			"resign":   cmdResign,
			"liar":     cmdLiar,
			"registry": cmdRegistry,
		},
	}
}

// cmdExits runs a program and asks for an exact exit status: exits 12 pawl agent install.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARG ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%s exits %d, want %d", args[1], got, want)
	}
}

// server is a "pawl serve" that a script has started.
type server struct {
	process *os.Process
	ended   chan struct{} // closed when the process has ended, after err is set
	err     error
}

type serversKey struct{}

// cmdServe starts "pawl serve --listen 127.0.0.1:0 ARGS" and keeps it until the script ends; its URL is put into the
// variable: serve URL --dir server. "serve -stop URL" asks it to end and waits for exit status 0; "serve -kill URL"
// ends it at once.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: serve VARIABLE [ARG ...] | serve -stop VARIABLE | serve -kill VARIABLE")
	}
	running := ts.Value(serversKey{}).(map[string]*server)
	if args[0] == "-stop" || args[0] == "-kill" {
		if len(args) != 2 || running[args[1]] == nil {
			ts.Fatalf("usage: serve %s VARIABLE", args[0])
		}
		s := running[args[1]]
		delete(running, args[1])
		if args[0] == "-kill" {
			ts.Check(s.process.Kill())
			<-s.ended
			return
		}
		ts.Check(s.process.Signal(syscall.SIGTERM))
		<-s.ended
		ts.Check(s.err)
		return
	}
	name := args[0]
	cmd := exec.Command(lookPath(ts, "pawl"), append([]string{"serve", "--listen", "127.0.0.1:0"}, args[1:]...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "WORK", "PAWL_PASSWORD", "PAWL_TEST_CLOCK", "PAWL_TEST_FAULT", "PAWL_TEST_FAULT_LOG"} {
		if value := ts.Getenv(v); value != "" {
			cmd.Env = append(cmd.Env, v+"="+value)
		}
	}
	stderr, err := os.Create(filepath.Join(ts.Getenv("WORK"), "serve-"+name+".log"))
	ts.Check(err)
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	s := &server{process: cmd.Process, ended: make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, stdout)
		s.err = cmd.Wait()
		stderr.Close()
		close(s.ended)
	}()
	ts.Defer(func() {
		_ = s.process.Kill()
		<-s.ended
	})
	url := regexp.MustCompile(`https?://[^\s]+`).FindString(line)
	if err != nil || url == "" {
		text, _ := os.ReadFile(stderr.Name())
		ts.Fatalf("serve does not say where it listens: %q %v\n%s", line, err, text)
	}
	ts.Setenv(name, url)
	running[name] = s
}

// lookPath finds a program as the script's exec would.
func lookPath(ts *testscript.TestScript, program string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	ts.Fatalf("no program %s", program)
	return ""
}

// cmdHTTP makes a request and prints status and body: http GET URL [Header:value ...].
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] http METHOD URL [HEADER:VALUE ...]")
	}
	req, err := http.NewRequest(args[0], args[1], nil)
	ts.Check(err)
	for _, h := range args[2:] {
		name, value, _ := strings.Cut(h, ":")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n", resp.Status)
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Range", "Etag", "Cache-Control", "Retry-After"} {
		if v := resp.Header.Get(name); v != "" {
			fmt.Fprintf(ts.Stdout(), "%s: %s\n", name, v)
		}
	}
	fmt.Fprintf(ts.Stdout(), "\n%s", body)
	if (resp.StatusCode >= 400) != neg {
		ts.Fatalf("%s %s: %s", args[0], args[1], resp.Status)
	}
}

// cmdTamper flips every bit of the byte at an offset, negative from the end, of each file: tamper -1 FILE ...
func cmdTamper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: tamper OFFSET FILE ...")
	}
	offset, err := strconv.Atoi(args[0])
	ts.Check(err)
	for _, pattern := range args[1:] {
		matches, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		if len(matches) == 0 {
			ts.Fatalf("no file matches %s", pattern)
		}
		for _, file := range matches {
			data, err := os.ReadFile(file)
			ts.Check(err)
			at := offset
			if at < 0 {
				at += len(data)
			}
			if at < 0 || at >= len(data) {
				ts.Fatalf("%s has %d bytes: no byte %d", file, len(data), offset)
			}
			data[at] ^= 0xff
			ts.Check(os.Chmod(file, 0o600))
			ts.Check(os.WriteFile(file, data, 0o600))
		}
	}
}

// cmdClock sets the clock of every later pawl: clock +240h, clock 1999-12-31T00:00:00Z, clock real.
func cmdClock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: clock OFFSET | TIME | real")
	}
	if args[0] == "real" {
		args[0] = ""
	}
	ts.Setenv("PAWL_TEST_CLOCK", args[0])
}

// cmdAbsent asks that no file matches a pattern.
func cmdAbsent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: absent PATTERN ...")
	}
	for _, pattern := range args {
		matches, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		if len(matches) > 0 {
			ts.Fatalf("%s exists", matches[0])
		}
	}
}

// cmdSame asks that two folders hold the same files with the same bytes; with ! that they differ.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] same FOLDER FOLDER")
	}
	a, b := tree(ts, args[0]), tree(ts, args[1])
	if (a == b) == neg {
		left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
		for _, line := range left {
			if !slices.Contains(right, line) {
				ts.Logf("- %s", line)
			}
		}
		for _, line := range right {
			if !slices.Contains(left, line) {
				ts.Logf("+ %s", line)
			}
		}
		ts.Fatalf("same %s %s: %v", args[0], args[1], a == b)
	}
}

func tree(ts *testscript.TestScript, dir string) string {
	var out bytes.Buffer
	root := ts.MkAbs(dir)
	ts.Check(filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		fmt.Fprintf(&out, "%s %s", d.Type(), rel)
		if d.Type()&os.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " -> %s", to)
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %d bytes %x", len(data), sha256.Sum256(data))
		}
		fmt.Fprintln(&out)
		return nil
	}))
	return out.String()
}
