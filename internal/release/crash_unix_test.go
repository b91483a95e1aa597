// SPDX-License-Identifier: Apache-2.0

//go:build unix

package release_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/release"
	"github.com/pawl-project/pawl/internal/repository"
)

// TestMain makes this test binary a "pawl release" in a world that is there, which dies at a point.
func TestMain(m *testing.M) {
	dir := os.Getenv("RELEASE_TEST_WORLD")
	if dir == "" {
		// A killed process leaves the same on every disk. In memory the many kills take seconds and not minutes.
		if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" {
			if err := os.Setenv("TMPDIR", "/dev/shm"); err != nil {
				panic(err)
			}
		}
		os.Exit(m.Run())
	}
	w := &world{dir: dir}
	log, err := os.OpenFile(w.path("points"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	w.check(err)
	ctx := fault.With(context.Background(), func(point string) {
		if point == os.Getenv("RELEASE_TEST_POINT") {
			// Nothing can catch this: no deferred function runs.
			w.check(syscall.Kill(os.Getpid(), syscall.SIGKILL))
			select {}
		}
		fmt.Fprintln(log, point)
	})
	if _, err := w.run(ctx, crashRequest(w)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(max(1, refusal.Status(err)))
	}
	os.Exit(0)
}

// crashRequest is a security release of both products, each with everything that has an effect once.
func crashRequest(w *world) release.Request {
	greeter, gateway := w.greeter(), w.gateway()
	gateway.Tags = []string{"latest"}
	return security(w.request("1.0.1", greeter, gateway), "CVE-2026-1")
}

// again runs a release in another process, to its end or until it dies at the point.
func (w *world) again(point string) error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RELEASE_TEST_WORLD="+w.dir, "RELEASE_TEST_POINT="+point)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) > 0 {
		return fmt.Errorf("%w: %s", err, out)
	}
	return err
}

// A release is killed at every point before and after every effect, and run again. Outside it then looks as if nobody had
// interrupted it: the same releases, everything once, nothing left over.
func TestKillAtEveryPoint(t *testing.T) {
	begin := released(t)
	begin.patch()
	quiet := begin.copyWorld(t)
	if err := quiet.again(""); err != nil {
		t.Fatal(err)
	}
	want := quiet.swept()
	points := quiet.points()
	for _, known := range []string{
		"release.build.greeter:before", "release.gate.gateway.mark:after", "release.sign.greeter:after",
		"release.stage.greeter.release.sigstore.json:after", "release.stage.gateway.gateway.1.sign:after", "release.role.greeter:after",
		"release.publish.greeter:after", "release.publish.gateway.mark:before", "release.tag.gateway.gateway.1.latest:after",
	} {
		if !points[known] {
			t.Errorf("point %s is not reached", known)
		}
	}
	t.Logf("%d points", len(points))
	for point := range points {
		t.Run(strings.NewReplacer("/", "_", ":", "-").Replace(point), func(t *testing.T) {
			t.Parallel()
			w := begin.copyWorld(t)
			var exit *exec.ExitError
			if err := w.again(point); !errors.As(err, &exit) || exit.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("not killed: %v", err)
			}
			if err := w.again(""); err != nil {
				t.Fatalf("second run: %v", err)
			}
			if got := w.swept(); got != want {
				t.Errorf("%s", differ(got, want))
			}
		})
	}
}

// swept is outside after the daily sweep of the repository. What it removes was never listed and belongs to nobody: a
// snapshot that was signed by a process which died before it could write down what for.
func (w *world) swept() string {
	w.t.Helper()
	store, err := folder.Open(w.path("repository"))
	w.check(err)
	defer store.Close()
	repo, err := repository.Open(w.t.Context(), store, w.key(onlineKey), repository.Options{Now: now})
	w.check(err)
	_, err = repo.Sweep(w.t.Context(), now().Add(time.Hour))
	w.check(err)
	return w.outside()
}

// points returns the points that were reached in this world.
func (w *world) points() map[string]bool {
	text, err := os.ReadFile(w.path("points"))
	w.check(err)
	points := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		points[strings.TrimSpace(line)] = true
	}
	return points
}

// differ returns the lines that only one of two texts has.
func differ(got, want string) string {
	var out strings.Builder
	for _, line := range strings.Split(got, "\n") {
		if !strings.Contains(want, line) {
			fmt.Fprintln(&out, "+", line)
		}
	}
	for _, line := range strings.Split(want, "\n") {
		if !strings.Contains(got, line) {
			fmt.Fprintln(&out, "-", line)
		}
	}
	return out.String()
}
