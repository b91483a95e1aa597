// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/execx"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/update"
)

// What the owner is told of.
const (
	TellOffer     = "offer"     // a release is available; Decision says what happens with it
	TellInstalled = "installed" // a release was installed and works
	TellFellBack  = "fell-back" // a release did not work and was put back, or could not be
	TellAlarm     = "alarm"     // metadata or bytes were refused: somebody may try to deceive this device
	TellSupport   = "support"   // support ends soon, or has ended
)

// notifyLimit is how long the owner's program may take.
const notifyLimit = 30 * time.Second

// Notice is what the owner is told, as JSON on the standard input of the owner's program.
type Notice struct {
	Event string `json:"event"`
	update.Notice
	// Class and Reason of update.Notice explain refusals and failures.
	Class refusal.Class `json:"class,omitzero"`
	At    time.Time     `json:"at"`
}

// tell puts a notice into the state, from where deliver brings it to the owner: at least once, also after a crash.
func (e *Engine) tell(s *state, n Notice) {
	n.At = e.now().UTC().Truncate(time.Second)
	if len(e.opt.Config.Notify) > 0 {
		s.Notices = append(s.Notices, n)
	}
}

// tellOffers tells of the offers that the owner does not know yet, and again of one whose postponement is over. It
// reports whether there was something to tell.
func (e *Engine) tellOffers(ctx context.Context, s *state, d update.Device, o update.Owner, offers []update.Offer, now time.Time) {
	for _, offer := range offers {
		key := told{offer.Artifact.Digest.SHA256, o.Reminder(offer.Release.Version, now)}
		if slices.Contains(s.Told, key) {
			continue
		}
		s.Told = append(s.Told, key)
		n := update.NoticeOf(d, offer)
		e.tell(s, Notice{Event: TellOffer, Notice: n})
		e.queue(s, offer.Release, offer.Artifact, stateOffered, nil)
		e.note(ctx, Event{
			Event: EventOffered, Product: s.Product, Version: n.Version,
			Text: fmt.Sprintf("%s release: %s: %s", n.Kind, n.Summary, n.Reason),
		})
	}
}

// tellSupport tells once that support will end, and once that it has ended.
func (e *Engine) tellSupport(ctx context.Context, s *state, now time.Time) {
	if s.Installed == nil {
		return
	}
	support := update.SupportAt(s.Installed.SupportEnd, now)
	if support == s.SupportTold || support != update.SupportEnding && support != update.SupportEnded {
		return
	}
	s.SupportTold = support
	text := fmt.Sprintf("support ends with %s: after that there are no more security updates", s.Installed.SupportEnd)
	if support == update.SupportEnded {
		text = fmt.Sprintf("support ended with %s: vulnerabilities that become known are not repaired any more", s.Installed.SupportEnd)
	}
	n := Notice{Event: TellSupport}
	n.Product, n.Version, n.Installed = s.Product, s.Installed.Version.String(), s.Installed.Version.String()
	n.Summary, n.SupportEnd = text, s.Installed.SupportEnd
	e.tell(s, n)
	e.note(ctx, Event{Event: EventSupport, Product: s.Product, Version: n.Version, Text: text})
}

// deliver calls the owner's program for every notice that waits. What cannot be delivered waits on; it never holds up a
// security update.
func (e *Engine) deliver(ctx context.Context, s *state) error {
	for len(s.Notices) > 0 {
		n := s.Notices[0]
		err := fault.Around(ctx, "agent.notify."+n.Event, func() error { return e.call(ctx, n) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			e.note(ctx, Event{Event: EventNotified, Product: s.Product, Version: n.Version, Text: "the owner's program failed: " + err.Error()})
			return nil
		}
		e.note(ctx, Event{Event: EventNotified, Product: s.Product, Version: n.Version, Text: "the owner's program was told: " + n.Event})
		s.Notices = slices.Clone(s.Notices[1:])
		if err := e.save(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) call(ctx context.Context, n Notice) error {
	if len(e.opt.Config.Notify) == 0 {
		return nil
	}
	text, err := json.Marshal(n, json.Deterministic(true))
	if err != nil {
		return err
	}
	set := map[string]string{
		"PAWL_EVENT": n.Event, "PAWL_PRODUCT": n.Product, "PAWL_VERSION": n.Version, "PAWL_INSTALLED": n.Installed, "PAWL_KIND": n.Kind,
		"PAWL_SUMMARY": n.Summary, "PAWL_SEVERITY": n.Severity, "PAWL_RISK": n.Risk, "PAWL_ACTION": n.Action,
		"PAWL_DISRUPTION": n.Disruption, "PAWL_FIXES": strings.Join(n.Fixes, " "), "PAWL_URL": n.URL, "PAWL_SUPPORT_END": n.SupportEnd,
		"PAWL_DECISION": string(n.Decision), "PAWL_REASON": n.Reason, "PAWL_CLASS": string(n.Class),
	}
	for name, value := range set {
		set[name] = strings.ReplaceAll(value, "\x00", "")
	}
	return execx.Run(ctx, execx.Command{
		Args: e.opt.Config.Notify, Env: execx.Environ(e.opt.Env, nil, set), In: bytes.NewReader(append(text, '\n')), Limit: notifyLimit,
	})
}
