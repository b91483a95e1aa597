// SPDX-License-Identifier: Apache-2.0

//go:build show

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// TestShow shows each promise of a capability as one script against the real parts. PAWL_COSIGN names the real cosign; a
// peer that is missing is a failure.
func TestShow(t *testing.T) {
	cosign := os.Getenv("PAWL_COSIGN")
	if _, err := os.Stat(cosign); err != nil {
		t.Fatalf("PAWL_COSIGN: %v; \"make show-spine\" builds it", err)
	}
	params := scripts("testdata/show")
	setup := params.Setup
	params.Setup = func(env *testscript.Env) error {
		env.Setenv("COSIGN", cosign)
		return setup(env)
	}
	params.Cmds["gotuf"] = cmdGoTUF
	params.Cmds["demo"] = cmdDemo
	params.Cmds["killeach"] = cmdKillEach
	testscript.Run(t, params)
}

// cmdGoTUF downloads a target with go-tuf's own updater, which is given nothing but the first root:
// gotuf URL ROOT TARGET.
func cmdGoTUF(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: gotuf URL ROOT TARGET")
	}
	cfg, err := config.New(args[0]+"/metadata", []byte(ts.ReadFile(args[1])))
	ts.Check(err)
	cfg.RemoteTargetsURL = args[0] + "/targets"
	cfg.LocalMetadataDir, cfg.LocalTargetsDir = ts.MkAbs("gotuf/metadata"), ts.MkAbs("gotuf/targets")
	ts.Check(os.MkdirAll(cfg.LocalMetadataDir, 0o755))
	ts.Check(os.MkdirAll(cfg.LocalTargetsDir, 0o755))
	up, err := updater.New(cfg)
	ts.Check(err)
	ts.Check(up.Refresh())
	target, err := up.GetTargetInfo(args[2])
	ts.Check(err)
	path, _, err := up.DownloadTarget(target, "", "")
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), path)
}

// cmdDemo runs "pawl demo --stay --dir DIR" until its server and registry run, and ends it with the script:
// demo DIR VARIABLE puts the host of the registry into the variable.
func cmdDemo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: demo DIR VARIABLE")
	}
	out, err := os.Create(ts.MkAbs("demo.log"))
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, lookPath(ts, "pawl"), "demo", "--stay", "--dir", ts.MkAbs(args[0]))
	cmd.Stdout, cmd.Stderr = out, out
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB"} {
		cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
	}
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ts.Defer(func() {
		cancel()
		out.Close()
	})
	for deadline := time.After(3 * time.Minute); ; {
		text := ts.ReadFile("demo.log")
		if strings.Contains(text, "keep running") {
			_, host, found := strings.Cut(text, "allow-insecure-registry ")
			if !found {
				ts.Fatalf("the demo does not name its image:\n%s", text)
			}
			host, _, _ = strings.Cut(host, "/")
			ts.Setenv(args[1], host)
			return
		}
		select {
		case err := <-ended:
			ts.Fatalf("the demo ended: %v\n%s", err, text)
		case <-deadline:
			ts.Fatalf("the demo does not come up:\n%s", text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// cmdKillEach kills a command at every one of its fault points, one after the other, runs it again, and compares the end
// with that of an undisturbed run: killeach FOLDER STATE PROGRAM [ARG ...]. Every run begins with a copy of FOLDER. STATE
// is a shell script that prints what has to be the same. Points of both forms are met: "before" an effect and "after" it.
func cmdKillEach(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: killeach FOLDER STATE PROGRAM [ARG ...]")
	}
	base, state, program := ts.MkAbs(args[0]), ts.MkAbs(args[1]), lookPath(ts, args[2])
	work := ts.MkAbs("killeach")
	run := func(point, log string) (killed bool, output string) {
		cmd := exec.Command(program, args[3:]...)
		cmd.Dir = work
		for _, v := range []string{"PATH", "HOME", "TMPDIR", "PAWL_PASSWORD", "PAWL_TOKEN", "PAWL_TEST_CLOCK", "GOCACHE", "GOMODCACHE", "GOPATH"} {
			cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
		}
		cmd.Env = append(cmd.Env, "PAWL_TEST_FAULT="+point, "PAWL_TEST_FAULT_LOG="+log)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		if err != nil && exit.ExitCode() != -1 {
			ts.Fatalf("killed at %q: ends with status %d\n%s", point, exit.ExitCode(), out)
		}
		return err != nil, string(out)
	}
	fresh := func() {
		ts.Check(os.RemoveAll(work))
		ts.Check(os.CopyFS(work, os.DirFS(base)))
	}
	look := func() string {
		cmd := exec.Command("sh", state)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "PAWL_PASSWORD="+ts.Getenv("PAWL_PASSWORD"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			ts.Fatalf("%s: %v\n%s", args[1], err, out)
		}
		return string(out)
	}

	log := filepath.Join(ts.Getenv("WORK"), "points")
	ts.Check(os.RemoveAll(log))
	fresh()
	run("", log)
	want := look()
	var points []string
	for point := range strings.FieldsSeq(ts.ReadFile(log)) {
		if !slices.Contains(points, point) {
			points = append(points, point)
		}
	}
	if len(points) < 2 {
		ts.Fatalf("%d fault points: nothing is tested", len(points))
	}
	for _, point := range points {
		fresh()
		if killed, out := run(point, ""); !killed {
			ts.Fatalf("was not killed at %q\n%s", point, out)
		}
		run("", "")
		if got := look(); got != want {
			ts.Fatalf("killed at %q and run again, the end is another one:\n%s\nundisturbed:\n%s", point, got, want)
		}
	}
	fmt.Fprintf(ts.Stdout(), "killed at %d points\n", len(points))
}
