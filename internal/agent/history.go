// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
)

// The history is bounded: beyond maxHistory bytes the older half is dropped.
const (
	maxHistory   = 1 << 20
	maxEventText = 1024
)

// Events of the history.
const (
	EventFound     = "found"     // something runs that the agent has not installed
	EventOffered   = "offered"   // the owner is told of a release
	EventRefused   = "refused"   // metadata, a release or bytes were refused
	EventDecided   = "decided"   // why a release is not installed now
	EventStaged    = "staged"    // verified beside what runs
	EventActivated = "activated" // runs, on trial
	EventConfirmed = "confirmed" // works
	EventFellBack  = "fell-back" // did not work, the previous one was put back
	EventKept      = "kept"      // did not work, and there is nothing to go back to
	EventFloor     = "floor"     // lowered by the holders of the root keys
	EventOwner     = "owner"     // the owner has decided something
	EventNotified  = "notified"  // the owner's program was told, or could not be told
	EventSupport   = "support"   // support ends
	EventState     = "state"     // the agent's own memory
)

// Event is one line of the history.
type Event struct {
	// Number grows by one.
	Number int64     `json:"number"`
	At     time.Time `json:"at"`
	// Previous is the SHA-256 of the line before, without its newline: a line that is changed or taken out breaks the chain.
	Previous digest.SHA256 `json:"previous,omitzero"`
	Event    string        `json:"event"`
	Product  string        `json:"product,omitzero"`
	Version  string        `json:"version,omitzero"`
	Class    refusal.Class `json:"class,omitzero"`
	Text     string        `json:"text,omitzero"`
}

func (e *Engine) historyPath() string { return filepath.Join(e.opt.Config.State, "history.jsonl") }

// record appends to the history. The caller holds the lock of the state folder or of the owner.
func (e *Engine) record(ctx context.Context, ev Event) error {
	held, err := durable.LockWait(ctx, filepath.Join(e.opt.Config.State, "history.lock"))
	if err != nil {
		return fmt.Errorf("cannot write the history: %w", err)
	}
	defer held.Unlock()
	lines, _, err := durable.ReadLines(e.historyPath(), 2*maxHistory)
	if err != nil {
		return fmt.Errorf("cannot write the history: %w", err)
	}
	ev.At = e.now().UTC().Truncate(time.Second)
	ev.Text = cut(ev.Text, maxEventText)
	if n := len(lines); n > 0 {
		var last Event
		// A last line that cannot be read still goes into the chain: that shows what happened to it.
		if err := json.Unmarshal(lines[n-1], &last); err == nil {
			ev.Number = last.Number
		}
		ev.Previous = digest.Of(lines[n-1])
	}
	ev.Number++
	line, err := json.Marshal(ev, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("cannot write the history: %w", err)
	}
	size := len(line) + 1
	for _, l := range lines {
		size += len(l) + 1
	}
	if size <= maxHistory {
		if err := durable.Append(e.historyPath(), line, 0o644); err != nil {
			return fmt.Errorf("cannot write the history: %w", err)
		}
		return nil
	}
	var kept []byte
	for _, l := range append(lines[len(lines)/2:], line) {
		kept = append(append(kept, l...), '\n')
	}
	if err := durable.WriteFile(e.historyPath(), kept, 0o644); err != nil {
		return fmt.Errorf("cannot write the history: %w", err)
	}
	return nil
}

// note records, and logs what could not be recorded: a full disk must not stop a fix that makes room or ends an attack.
func (e *Engine) note(ctx context.Context, ev Event) {
	e.log.InfoContext(ctx, ev.Event, "product", ev.Product, "version", ev.Version, "class", string(ev.Class), "text", ev.Text)
	if err := e.record(ctx, ev); err != nil {
		e.log.ErrorContext(ctx, "history", "error", err)
	}
}

// History returns the last most events, oldest first; 0 means all. If a line was changed or taken out, or the end was cut
// off in the middle of a line, the events are returned beside an error of class Mixed.
func (e *Engine) History(most int) ([]Event, error) {
	lines, _, err := durable.ReadLines(e.historyPath(), 2*maxHistory)
	if err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	var (
		events []Event
		broken []int
		before digest.SHA256
	)
	for i, line := range lines {
		var ev Event
		if err := json.Unmarshal(line, &ev); err != nil {
			broken = append(broken, i+1)
		} else {
			if i > 0 && ev.Previous != before || i > 0 && len(events) > 0 && ev.Number != events[len(events)-1].Number+1 {
				broken = append(broken, i+1)
			}
			events = append(events, ev)
		}
		before = digest.Of(line)
	}
	if most > 0 && len(events) > most {
		events = events[len(events)-most:]
	}
	if len(broken) > 0 {
		return events, refusal.New(refusal.Mixed, "history "+e.historyPath(), "the chain is broken at line %d (%d places)", broken[0], len(broken)).
			Do("somebody has changed it on this device, or its disk is damaged")
	}
	return events, nil
}

// tidy removes what a crash has left behind in a folder of the agent.
func tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if durable.IsTemp(entry.Name()) {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// cut shortens a text that somebody else has written, at the boundary of a character.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xC0 == 0x80 {
		most--
	}
	return s[:most]
}
