// SPDX-License-Identifier: Apache-2.0

// Package journal remembers which steps of a long piece of work are done, so that work that was killed anywhere goes on
// where it stopped.
//
// A journal is a file of lines, one JSON object each; the format is specified in docs/spec/journal.md. The first line
// says whose journal it is. A step is marked when its effect has happened: the mark carries the SHA-256 of the step's
// input and its result. Asked for the same step with the same input again, the journal answers with the recorded result
// and does nothing. Asked with another input, it first strikes out that step and all steps that were marked after it,
// because they were built on what is no longer true, and then does the step anew.
//
// The designed case is the crash between an effect and its mark. Then the step is done again, so every effect has to be
// an "ensure": done twice it leaves what one time would have left.
//
// Promised: a mark that Do has returned survives a power cut; a torn last line is dropped; one process at a time works
// with a journal (others are refused, class Busy). Not promised: protection from somebody who edits the file. A journal
// is a memory and not a proof; who uses a recorded result for a decision checks it again.
package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
)

// Version is the version of the format that this package reads and writes.
const Version = 1

// MaxBytes bounds a journal, and with it the results that its steps may record.
const MaxBytes = 16 << 20

// ErrDamaged reports a journal that a crash cannot have left behind.
var ErrDamaged = errors.New("journal is damaged")

// ErrVersion reports a journal of another version of the format.
var ErrVersion = errors.New("journal of another version")

// ErrOther reports the journal of other work than the one that was asked for.
var ErrOther = errors.New("journal of other work")

// Subject says whose journal it is: "release" of "greeter" at "1.4.3".
type Subject struct {
	Work    string `json:"work"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

// String returns the subject for people.
func (s Subject) String() string { return s.Work + " of " + s.Name + " " + s.Version }

// header is the first line.
type header struct {
	Journal int `json:"journal"`
	Subject
}

// mark is every other line: a step that is done, or one that is struck out with all that follow it.
type mark struct {
	Step   string         `json:"step,omitzero"`
	Strike string         `json:"strike,omitzero"`
	Input  digest.SHA256  `json:"input,omitzero"`
	Result jsontext.Value `json:"result,omitzero"`
	At     time.Time      `json:"at"`
}

// Journal is an open journal. Not safe for concurrent use: steps come one after the other.
type Journal struct {
	path    string
	lock    *durable.Held
	subject Subject
	now     func() time.Time
	marks   []mark // in order of their marking, without those that are struck out
}

// stepName keeps the names of steps, and so of fault points, stable and printable.
var stepName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Open opens or begins the journal of subject in the file at path, whose folder must exist. It holds a lock on
// path+".lock" until Close and refuses with class Busy if another process does. now says when a step was marked.
func Open(path string, subject Subject, now func() time.Time) (_ *Journal, err error) {
	lock, err := durable.Lock(path + ".lock")
	if refusal.Of(err) == refusal.Busy {
		return nil, refusal.New(refusal.Busy, subject.String(), "another process is at work on it: %w", err).
			Do("wait until it has finished, then run the command again")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock journal: %w", err)
	}
	j := &Journal{path: path, lock: lock, subject: subject, now: now}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open journal %s: %w", path, err), lock.Unlock())
	}
	return j, nil
}

// Close gives the lock back.
func (j *Journal) Close() error { return j.lock.Unlock() }

func (j *Journal) load() error {
	lines, _, err := durable.ReadLines(j.path, MaxBytes)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return j.append(header{Version, j.subject})
	}
	var first header
	if err := json.Unmarshal(lines[0], &first); err != nil {
		if len(lines) > 1 {
			return fmt.Errorf("%w: line 1: %w", ErrDamaged, err)
		}
		// The crash came while the journal was begun: no step was marked yet.
		if err := durable.WriteFile(j.path, nil, 0o644); err != nil {
			return err
		}
		return j.append(header{Version, j.subject})
	}
	if first.Journal != Version {
		return fmt.Errorf("%w: it has version %d, this program reads version %d: finish the work with the program that began it, or remove %s to begin again",
			ErrVersion, first.Journal, Version, filepath.Dir(j.path))
	}
	if first.Subject != j.subject {
		return fmt.Errorf("%w: it is of the %s, not of the %s", ErrOther, first.Subject, j.subject)
	}
	for i, line := range lines[1:] {
		m, err := decodeMark(line)
		if err != nil && i == len(lines)-2 {
			// A crash can leave the last line with its newline and damaged bytes before it. Its step is done again. The
			// line is cut off, because only a last line is forgiven.
			return durable.WriteFile(j.path, append(bytes.Join(lines[:len(lines)-1], []byte{'\n'}), '\n'), 0o644)
		}
		if err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrDamaged, i+2, err)
		}
		j.apply(m)
	}
	return nil
}

func decodeMark(line []byte) (mark, error) {
	var m mark
	if err := json.Unmarshal(line, &m, json.RejectUnknownMembers(true)); err != nil {
		return mark{}, err
	}
	switch {
	case (m.Step == "") == (m.Strike == ""):
		return mark{}, fmt.Errorf("it has to be either a step or a strike")
	case !stepName.MatchString(m.Step + m.Strike):
		return mark{}, fmt.Errorf("bad name of a step")
	case m.Step != "" && (m.Input.IsZero() || len(m.Result) == 0):
		return mark{}, fmt.Errorf("a step without input or result")
	}
	return m, nil
}

func (j *Journal) apply(m mark) {
	if m.Strike != "" {
		if i := j.find(m.Strike); i >= 0 {
			j.marks = j.marks[:i]
		}
		return
	}
	j.marks = append(j.marks, m)
}

func (j *Journal) find(step string) int {
	return slices.IndexFunc(j.marks, func(m mark) bool { return m.Step == step })
}

func (j *Journal) append(line any) error {
	data, err := json.Marshal(line, json.Deterministic(true))
	if err != nil {
		return err
	}
	return durable.Append(j.path, data, 0o644)
}

// Point returns the name of the fault point around the effect of a step; the one around its mark has ".mark" behind it.
func (j *Journal) Point(step string) string {
	return j.subject.Work + "." + step + "." + j.subject.Name
}

// Do returns the result of a step. If the step is marked with the same input, ensure is not called. Otherwise ensure
// makes the effect happen, and the step is marked before Do returns. Input and T must be what JSON carries without loss;
// what is returned is the decoded mark on the first run too, so that a resumed run sees the same values.
func Do[T any](ctx context.Context, j *Journal, step string, input any, ensure func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if !stepName.MatchString(step) {
		return none, fmt.Errorf("cannot do step %q: bad name of a step", step)
	}
	encoded, err := json.Marshal(input, json.Deterministic(true))
	if err != nil {
		return none, fmt.Errorf("cannot encode the input of step %s: %w", step, err)
	}
	sum := digest.Of(encoded)
	if i := j.find(step); i >= 0 {
		if j.marks[i].Input == sum {
			return decodeResult[T](step, j.marks[i].Result)
		}
		if err := j.Strike(ctx, step); err != nil {
			return none, err
		}
	}
	var result T
	err = fault.Around(ctx, j.Point(step), func() (err error) {
		result, err = ensure(ctx)
		return err
	})
	if err != nil {
		return none, err
	}
	m := mark{Step: step, Input: sum, At: j.now().UTC().Truncate(time.Second)}
	if m.Result, err = json.Marshal(result, json.Deterministic(true)); err != nil {
		return none, fmt.Errorf("cannot encode the result of step %s: %w", step, err)
	}
	err = fault.Around(ctx, j.Point(step)+".mark", func() error { return j.append(m) })
	if err != nil {
		return none, fmt.Errorf("cannot mark step %s: %w", step, err)
	}
	j.apply(m)
	return decodeResult[T](step, m.Result)
}

// Strike forgets a step and all that were marked after it. A step that is not marked is success.
func (j *Journal) Strike(ctx context.Context, step string) error {
	if j.find(step) < 0 {
		return nil
	}
	m := mark{Strike: step, At: j.now().UTC().Truncate(time.Second)}
	err := fault.Around(ctx, j.Point(step)+".strike", func() error { return j.append(m) })
	if err != nil {
		return fmt.Errorf("cannot strike out step %s: %w", step, err)
	}
	j.apply(m)
	return nil
}

// Recorded returns the result of a step whatever its input was, and whether it is marked.
func Recorded[T any](j *Journal, step string) (T, bool, error) {
	i := j.find(step)
	if i < 0 {
		var none T
		return none, false, nil
	}
	result, err := decodeResult[T](step, j.marks[i].Result)
	return result, err == nil, err
}

// Steps returns the names of the marked steps in the order in which they were done.
func (j *Journal) Steps() []string {
	names := make([]string, len(j.marks))
	for i, m := range j.marks {
		names[i] = m.Step
	}
	return names
}

func decodeResult[T any](step string, data jsontext.Value) (T, error) {
	var result T
	if err := json.Unmarshal(data, &result); err != nil {
		var none T
		return none, fmt.Errorf("%w: result of step %s: %w", ErrDamaged, step, err)
	}
	return result, nil
}
