// SPDX-License-Identifier: Apache-2.0

//go:build unix

package execx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/execx"
)

// TestMain makes this test binary the program that the tests run.
func TestMain(m *testing.M) {
	switch os.Getenv("EXECX_TEST") {
	case "":
		os.Exit(m.Run())
	case "env":
		for _, v := range os.Environ() {
			fmt.Println(v)
		}
	case "fail":
		fmt.Println("compiling")
		fmt.Fprintln(os.Stderr, "main.c:3: \x1b[31mno such header\x1b[0m")
		os.Exit(3)
	case "flood":
		line := bytes.Repeat([]byte("x"), 1<<20)
		for range 70 {
			os.Stdout.Write(line)
		}
	case "hang", "child":
		if os.Getenv("EXECX_TEST") == "hang" {
			child := exec.Command(os.Args[0])
			child.Env = []string{"EXECX_TEST=child", "EXECX_FILE=" + os.Getenv("EXECX_FILE")}
			if err := child.Start(); err != nil {
				panic(err)
			}
			<-time.After(time.Hour)
		}
		signal.Ignore(syscall.SIGTERM)
		if err := os.WriteFile(os.Getenv("EXECX_FILE"), []byte(fmt.Sprint(os.Getpid())), 0o644); err != nil {
			panic(err)
		}
		<-time.After(time.Hour)
	}
	os.Exit(0)
}

func command(what string, more ...string) execx.Command {
	return execx.Command{Args: []string{os.Args[0]}, Env: append(more, "EXECX_TEST="+what), Limit: time.Minute}
}

func TestEnvironment(t *testing.T) {
	outside := map[string]string{
		"PATH": "/bin", "HOME": "/home/x", "PAWL_PASSWORD": "secret", "COSIGN_PASSWORD": "secret", "PAWL_TOKEN": "secret",
		"AWS_SECRET_ACCESS_KEY": "secret", "GOFLAGS": "-mod=mod", "CC": "gcc",
	}
	lookup := func(name string) (string, bool) { v, ok := outside[name]; return v, ok }
	c := command("env")
	c.Env = execx.Environ(lookup, []string{"GOFLAGS", "PAWL_PASSWORD", "MISSING"}, map[string]string{"EXECX_TEST": "env", "CC": "clang", "PAWL_VERSION": "1.4.3"})
	var out bytes.Buffer
	c.Out = &out
	if err := execx.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(out.String())
	slices.Sort(got)
	want := []string{"CC=clang", "EXECX_TEST=env", "GOFLAGS=-mod=mod", "HOME=/home/x", "PATH=/bin", "PAWL_VERSION=1.4.3"}
	if !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
}

func TestNothingIsInherited(t *testing.T) {
	t.Setenv("COSIGN_PASSWORD", "secret")
	var out bytes.Buffer
	c := command("env")
	c.Log = &out
	if err := execx.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if out.String() != "EXECX_TEST=env\n" {
		t.Errorf("environment: %q", out.String())
	}
}

func TestFailureSaysWhatTheProgramSaid(t *testing.T) {
	var log bytes.Buffer
	c := command("fail")
	c.Log = &log
	err := execx.Run(t.Context(), c)
	var e *execx.Error
	if !errors.As(err, &e) || e.Status != 3 {
		t.Fatalf("error: %v", err)
	}
	if want := "exit status 3\n    compiling\n    main.c:3: [31mno such header[0m"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %q does not end with %q", err, want)
	}
	if want := "compiling\nmain.c:3: \x1b[31mno such header\x1b[0m\n"; log.String() != want {
		t.Errorf("log %q, want %q", log.String(), want)
	}
}

func TestMissingProgram(t *testing.T) {
	err := execx.Run(t.Context(), execx.Command{Args: []string{"no-such-compiler"}, Limit: time.Minute})
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), `command "no-such-compiler"`) {
		t.Errorf("error: %v", err)
	}
	if err := execx.Run(t.Context(), execx.Command{Args: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "no time limit") {
		t.Errorf("without limit: %v", err)
	}
}

// counter counts and forgets.
type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

func TestFloodIsBounded(t *testing.T) {
	var kept counter
	c := command("flood")
	c.Log = &kept
	if err := execx.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if kept.n < execx.MaxOutput || kept.n > execx.MaxOutput+100 {
		t.Errorf("%d bytes are kept, want %d", kept.n, execx.MaxOutput)
	}
	c.Log, c.Out = nil, &counter{}
	if err := execx.Run(t.Context(), c); err == nil {
		t.Error("too much output for a reader is not an error")
	}
}

func TestFullDisk(t *testing.T) {
	c := command("fail")
	c.Env[len(c.Env)-1] = "EXECX_TEST=env"
	c.Log = broken{}
	if err := execx.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "cannot keep its output: no space") {
		t.Errorf("error: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestCancelEndsEverything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		await(t, func() bool { data, err := os.ReadFile(file); return err == nil && len(data) > 0 })
		cancel()
	}()
	err := execx.Run(ctx, command("hang", "EXECX_FILE="+file))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	gone(t, file)
}

func TestTimeLimit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	c := command("hang", "EXECX_FILE="+file)
	c.Limit = time.Second
	err := execx.Run(t.Context(), c)
	if !errors.Is(err, execx.ErrTimeLimit) || !strings.Contains(err.Error(), "time limit is over (1s)") {
		t.Errorf("error: %v", err)
	}
}

// gone waits until the process whose number is in file has ended.
func gone(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(state), ") Z ") {
			return true // ended, and its new parent has not looked yet
		}
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Error("it did not happen within 20 s")
			return
		}
	}
}
