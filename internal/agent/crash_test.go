// SPDX-License-Identifier: Apache-2.0

//go:build unix

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/slot/file"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/testkit"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
)

// The variables of the process that is killed.
const (
	childDir   = "PAWL_TEST_CHILD"
	childPoint = "PAWL_TEST_POINT" // "name#count" of the fault point at which it is killed; empty: never
)

// TestCrashChild is "pawl agent install" in a process of its own. It does nothing unless TestCrash has started it.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	c, err := LoadConfig(filepath.Join(dir, "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Products[0]
	sl, err := file.New(file.Options{Path: p.Path, Restart: slot.Restart{Args: p.Restart.Command, Env: os.LookupEnv}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{
		Config: c, Now: func() time.Time { return trusttest.Now }, Slots: map[string]slot.Slot{p.Name: sl}, Env: os.LookupEnv,
		Sources:  []Source{{Name: "folder", Open: func() (catalog.Opener, error) { return folder.Open(c.Servers[0]) }}},
		Reporter: fileReporter(filepath.Join(dir, "reports")),
	})
	if err != nil {
		t.Fatal(err)
	}
	points, err := os.OpenFile(filepath.Join(dir, "points"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	ctx := fault.With(t.Context(), func(name string) {
		count[name]++
		point := fmt.Sprintf("%s#%d", name, count[name])
		fmt.Fprintln(points, point)
		if point == os.Getenv(childPoint) {
			// As a power cut: nothing is flushed, no deferred function runs.
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	_, err = e.Do(ctx, Request{Install: true})
	os.Exit(refusal.Status(err))
}

// fileReporter is a server that appends what it is told to a file.
type fileReporter string

func (f fileReporter) Report(_ context.Context, r store.Report) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.Append(string(f), line, 0o600)
}

// child runs one installation and returns its exit status, or -1 if it was killed.
func child(t *testing.T, dir, point string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCrashChild$")
	cmd.Env = append(os.Environ(), childDir+"="+dir, childPoint+"="+point)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	status := cmd.ProcessState.ExitCode()
	if status == 1 {
		t.Fatalf("the agent fails after a kill at %q:\n%s", point, out)
	}
	return status
}

// TestCrash kills an installation at every fault point, before and after each effect, runs it again, and compares the end
// with that of an undisturbed one: what runs, what is remembered, and what the owner and the publisher were told.
func TestCrash(t *testing.T) {
	t.Parallel()
	for name, scenario := range map[string]struct {
		prepare func(h *home)
		status  int // of the undisturbed installation
		final   int // of the next one
	}{
		// Works; the one before the previous one is let go; a feature release waits for the owner all the time.
		"confirmed": {func(h *home) {
			h.install("")
			h.release("1.0.1")
			h.install("")
			h.release("1.1.0", testkit.Kind(statement.Feature), testkit.SecurityVersion(2))
			h.release("1.0.2", testkit.SecurityVersion(2))
		}, refusal.Done, refusal.Done},
		// Does not work and is put back.
		"reverted": {func(h *home) {
			h.install("")
			h.release("1.0.1")
			h.write("sick-1.0.1", nil)
		}, 17, refusal.Done},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deadline := "1m"
			if scenario.status == 17 {
				deadline = "100ms"
			}
			base := newHome(t, "deadline: 1m", "deadline: "+deadline)
			base.config.Products[0].Health.Deadline = time.Minute
			scenario.prepare(base)
			base.repo.Write(filepath.Join(base.dir, "repository"))

			calm := base.copy(t)
			if got := child(t, calm, ""); got != scenario.status {
				t.Fatalf("the undisturbed installation ends with %d, want %d", got, scenario.status)
			}
			points := lines(t, filepath.Join(calm, "points"))
			want := []string{describe(t, calm)}
			if got := child(t, calm, ""); got != scenario.final {
				t.Fatalf("the next installation ends with %d, want %d", got, scenario.final)
			}
			want = append(want, describe(t, calm))
			if len(points) < 30 || !slices.Contains(points, "slot.file.current:after#1") {
				t.Fatalf("%d fault points: %v", len(points), points)
			}
			for _, point := range points {
				t.Run(point, func(t *testing.T) {
					t.Parallel()
					dir := base.copy(t)
					if got := child(t, dir, point); got != -1 {
						t.Fatalf("not killed: status %d", got)
					}
					// After a kill at the very end this is the next installation already.
					status, got := child(t, dir, ""), describe(t, dir)
					if !(status == scenario.status && got == want[0] || status == scenario.final && got == want[1]) {
						t.Fatalf("after a kill, with status %d:\n%s\nundisturbed:\n%s", status, got, want[0])
					}
				})
			}
		})
	}
}

// copy copies the folder of a device. The configuration's paths into it are moved along.
func (h *home) copy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "agent.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), h.dir, dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

var probed = regexp.MustCompile(`\((not healthy in time): [^)]*\)`)

// describe tells everything that counts about a device. What is delivered at least once is listed once.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	for _, root := range []string{"slot", "state"} {
		err := filepath.WalkDir(filepath.Join(dir, root), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			switch {
			case d.IsDir() || strings.HasSuffix(rel, ".lock") || rel == "state/history.jsonl":
				return nil
			case d.Type()&fs.ModeSymlink != 0:
				target, err := os.Readlink(path)
				if err != nil {
					return err
				}
				out = append(out, rel+" -> "+target)
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if strings.HasPrefix(rel, "state/trust/") {
				data = []byte(fmt.Sprint(len(data)))
			}
			out = append(out, rel+" "+string(data))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"notices", "reports"} {
		told := lines(t, filepath.Join(dir, name))
		slices.Sort(told)
		out = append(out, name+"\n  "+strings.Join(slices.Compact(told), "\n  "))
	}
	// What the last probe said depends on how busy the machine is.
	return probed.ReplaceAllString(strings.Join(out, "\n"), "($1)")
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(data), func(c rune) bool { return c == '\n' })
}
