// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/journal"
	"github.com/pawl-project/pawl/internal/refusal"
)

var subject = journal.Subject{Work: "release", Name: "greeter", Version: "1.4.3"}

func now() time.Time { return time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC) }

func open(t *testing.T, path string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(path, subject, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// built is the result of a step, with everything that results carry.
type built struct {
	Name string    `json:"name"`
	Size int64     `json:"size"`
	At   time.Time `json:"at"`
}

func TestDoRecordsAndAnswers(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "journal")
	want := built{"greeter", 12, now()}
	calls := 0
	do := func(j *journal.Journal, input string) built {
		t.Helper()
		got, err := journal.Do(ctx, j, "build", input, func(context.Context) (built, error) { calls++; return want, nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	j := open(t, path)
	if got := do(j, "1.4.3"); got != want {
		t.Errorf("first run: %+v, want %+v", got, want)
	}
	if got := do(j, "1.4.3"); got != want {
		t.Errorf("second run: %+v, want %+v", got, want)
	}
	j.Close()
	j = open(t, path)
	if got := do(j, "1.4.3"); got != want {
		t.Errorf("after reopening: %+v, want %+v", got, want)
	}
	// A step without a result is done as well.
	for range 2 {
		j.Close()
		j = open(t, path)
		if _, err := journal.Do(ctx, j, "publish", 1, func(context.Context) (struct{}, error) { calls += 10; return struct{}{}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if calls -= 10; calls != 1 {
		t.Errorf("the effect happened %d times, want 1", calls)
	}
	got, ok, err := journal.Recorded[built](j, "build")
	if got != want || !ok || err != nil {
		t.Errorf("recorded: %+v, %v, %v", got, ok, err)
	}
	if _, ok, _ := journal.Recorded[built](j, "sign"); ok {
		t.Error("a step that was never done is recorded")
	}
}

func TestOtherInputRedoesTheStepAndAllAfterIt(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "journal")
	var done []string
	run := func(inputs ...string) {
		t.Helper()
		j := open(t, path)
		defer j.Close()
		done = nil
		for i, step := range []string{"plan", "build", "sign"} {
			_, err := journal.Do(ctx, j, step, inputs[i], func(context.Context) (int, error) { done = append(done, step); return i, nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(j.Steps(), " "); got != "plan build sign" {
			t.Errorf("marked: %s", got)
		}
	}
	for _, c := range []struct{ inputs, want []string }{
		{[]string{"a", "b", "c"}, []string{"plan", "build", "sign"}},
		{[]string{"a", "b", "c"}, nil},
		{[]string{"a", "B", "c"}, []string{"build", "sign"}},
		{[]string{"a", "B", "c"}, nil},
		{[]string{"a", "B", "C"}, []string{"sign"}},
		{[]string{"A", "B", "C"}, []string{"plan", "build", "sign"}},
	} {
		if run(c.inputs...); !slices.Equal(done, c.want) {
			t.Errorf("inputs %v: did %v, want %v", c.inputs, done, c.want)
		}
	}
}

func TestFailedStepIsNotMarked(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	broken := errors.New("registry is not there")
	if _, err := journal.Do(t.Context(), j, "stage", 1, func(context.Context) (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("error: %v", err)
	}
	if len(j.Steps()) != 0 {
		t.Errorf("marked: %v", j.Steps())
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	open(t, path)
	_, err := journal.Open(path, subject, now)
	if refusal.Of(err) != refusal.Busy {
		t.Fatalf("error: %v, want class busy", err)
	}
	if want := "release of greeter 1.4.3: another process is at work on it"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
}

func TestRefusals(t *testing.T) {
	head := `{"journal":1,"work":"release","name":"greeter","version":"1.4.3"}` + "\n"
	step := `{"at":"2026-11-23T08:00:00Z","input":"sha256:` + strings.Repeat("ab", 32) + `","result":1,"step":"plan"}` + "\n"
	for name, c := range map[string]struct {
		content string
		err     error
		words   string
	}{
		"newer":      {strings.Replace(head, ":1,", ":2,", 1), journal.ErrVersion, "it has version 2, this program reads version 1"},
		"other":      {strings.Replace(head, "1.4.3", "1.4.4", 1), journal.ErrOther, "it is of the release of greeter 1.4.4, not of the release of greeter 1.4.3"},
		"no header":  {step + step, journal.ErrVersion, "it has version 0"},
		"header":     {"{\n" + step, journal.ErrDamaged, "line 1"},
		"middle":     {head + "{}\n" + step, journal.ErrDamaged, "line 2: it has to be either a step or a strike"},
		"member":     {head + strings.Replace(step, `"at"`, `"when"`, 1) + step, journal.ErrDamaged, "line 2"},
		"no result":  {head + strings.Replace(step, `"result":1,`, ``, 1) + step, journal.ErrDamaged, "a step without input or result"},
		"step name":  {head + strings.Replace(step, `"plan"`, `"../x"`, 1) + step, journal.ErrDamaged, "bad name of a step"},
		"endless":    {head + strings.Repeat("x", journal.MaxBytes), nil, "more than 16777216 bytes"},
		"twice said": {head + strings.Replace(step, `"at"`, `"step":"a","at"`, 1) + step, journal.ErrDamaged, "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			j, err := journal.Open(path, subject, now)
			if err == nil {
				j.Close()
				t.Fatal("opened")
			}
			if c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %q, want %v with %q", err, c.err, c.words)
			}
			// The lock is given back.
			if _, err := journal.Open(path, subject, now); refusal.Of(err) == refusal.Busy {
				t.Error("the lock is still held")
			}
		})
	}
}

// killed stands for the death of the process at a fault point.
type killed struct{ point string }

// work does three steps, each an effect on world, and dies at the point at (none: "").
func work(ctx context.Context, path string, world map[string]string, at string) (points []string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("killed at %s", r.(killed).point)
		}
	}()
	ctx = fault.With(ctx, func(point string) {
		points = append(points, point)
		if point == at {
			panic(killed{point})
		}
	})
	j, err := journal.Open(path, subject, now)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	previous := "nothing"
	for _, step := range []string{"build", "sign", "publish"} {
		previous, err = journal.Do(ctx, j, step, previous, func(context.Context) (string, error) {
			world[step] = previous + " " + step
			return world[step], nil
		})
		if err != nil {
			return points, err
		}
	}
	return points, nil
}

func TestCrashAtEveryPoint(t *testing.T) {
	want := map[string]string{}
	points, err := work(t.Context(), filepath.Join(t.TempDir(), "journal"), want, "")
	if err != nil {
		t.Fatal(err)
	}
	if n := 3 * 4; len(points) != n {
		t.Fatalf("%d points, want %d: %v", len(points), n, points)
	}
	if !slices.Contains(points, "release.sign.greeter:before") || !slices.Contains(points, "release.sign.greeter.mark:after") {
		t.Errorf("points: %v", points)
	}
	for _, point := range points {
		path, got := filepath.Join(t.TempDir(), "journal"), map[string]string{}
		if _, err := work(t.Context(), path, got, point); err == nil {
			t.Fatalf("%s: not killed", point)
		}
		again, err := work(t.Context(), path, got, "")
		if err != nil {
			t.Fatalf("%s: second run: %v", point, err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", point, got, want)
		}
		if slices.Contains(again, "release.build.greeter:before") && !strings.HasPrefix(point, "release.build.greeter") {
			t.Errorf("%s: the build was done again", point)
		}
	}
}

// A power cut can leave any beginning of the file, or a last line with damaged bytes in it.
func TestTornAtEveryByte(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "journal")
	want := map[string]string{}
	if _, err := work(t.Context(), whole, want, ""); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	try := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		maps.Copy(got, want)
		if _, err := work(t.Context(), path, got, ""); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		if points, err := work(t.Context(), path, got, ""); err != nil || len(points) != 0 {
			t.Errorf("%s: third run: %v, %v", what, points, err)
		}
	}
	for n := range len(data) {
		try(fmt.Sprintf("%d bytes", n), data[:n])
		if n > 0 && data[n-1] == '\n' {
			try(fmt.Sprintf("%d bytes and zeros", n), append(slices.Clone(data[:n]), "\x00\x00\x00\n"...))
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte(`{"journal":1,"work":"release","name":"greeter","version":"1.4.3"}` + "\n" + `{"strike":"plan","at":"2026-11-23T08:00:00Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(path, subject, now)
		if err != nil {
			return
		}
		defer j.Close()
		// What opens can be worked with.
		if _, err := journal.Do(t.Context(), j, "plan", 1, func(context.Context) (int, error) { return 7, nil }); err != nil && !errors.Is(err, journal.ErrDamaged) {
			t.Error(err)
		}
	})
}
