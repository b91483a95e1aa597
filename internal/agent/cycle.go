// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
)

// maxStatements is how many statements of one kind of releases a check reads for one product, when the better ones turn
// out not to be for this device.
const maxStatements = 8

// Request says what is to be done with the products.
type Request struct {
	// Product limits it to one product; empty means all.
	Product string
	// Install installs what the owner has agreed to. Without it the owner is told, and nothing else.
	Install bool
	// Version installs exactly this release now: the owner, who says so, agrees to it. Every check still holds.
	Version version.Version
	// Retry forgets that releases have failed here before.
	Retry bool
	// Sources are asked instead of the configured ones, under the same rules.
	Sources []Source
}

// OfferStatus is an offer as it is shown.
type OfferStatus struct {
	Version         version.Version `json:"version"`
	Digest          digest.SHA256   `json:"digest"`
	Kind            statement.Kind  `json:"kind"`
	Security        bool            `json:"security"` // a security update of the installed line
	SecurityVersion uint32          `json:"securityVersion"`
	Size            int64           `json:"size"`
	Decision        update.Action   `json:"decision"`
	Reason          string          `json:"reason"`
	Until           time.Time       `json:"until,omitzero"`
	Summary         string          `json:"summary,omitempty"`
	Severity        string          `json:"severity,omitempty"`
	Risk            string          `json:"risk,omitempty"`
	Action          string          `json:"action,omitempty"`
	Disruption      string          `json:"disruption,omitempty"`
	Fixes           []string        `json:"fixes,omitempty"`
	SupportEnd      string          `json:"supportEnd,omitempty"`
}

// RefusedStatus is a release that may not be taken.
type RefusedStatus struct {
	Version version.Version `json:"version"`
	Class   refusal.Class   `json:"class"`
	Reason  string          `json:"reason"`
}

// Outcome is what a check or an installation of one product came to.
type Outcome struct {
	Product string          `json:"product"`
	Before  version.Version `json:"before,omitzero"`
	Running version.Version `json:"running,omitzero"`
	// Changed says that another release runs than before.
	Changed bool            `json:"changed"`
	Offers  []OfferStatus   `json:"offers,omitempty"`
	Refused []RefusedStatus `json:"refused,omitempty"`
	Floor   update.Floor    `json:"floor"`
	Support update.Support  `json:"support,omitempty"`
	// SupportEnd is the last month of support of what runs, "YYYY-MM".
	SupportEnd string `json:"supportEnd,omitempty"`
	// Err is why it could not be done; it stands beside what was found out before.
	Err error `json:"-"`
}

// Do checks or installs. Every product has an outcome; the error joins those of all.
func (e *Engine) Do(ctx context.Context, req Request) ([]Outcome, error) {
	products := e.opt.Config.Products
	if req.Product != "" {
		p, err := e.opt.Config.Product(req.Product)
		if err != nil {
			return nil, err
		}
		products = []Product{p}
	}
	if !req.Version.IsZero() && len(products) > 1 {
		return nil, fmt.Errorf("a version is of one product: name it")
	}
	held, err := e.lock()
	if err != nil {
		return nil, err
	}
	defer held.Unlock()
	l := &lookup{e: e, sources: e.opt.Sources}
	if req.Sources != nil {
		l.sources = req.Sources
	}
	defer l.close()
	var outcomes []Outcome
	var failures []error
	for _, p := range products {
		o := e.product(ctx, l, p, req)
		if o.Err != nil {
			failures = append(failures, o.Err)
		}
		outcomes = append(outcomes, o)
		if ctx.Err() != nil {
			break
		}
	}
	return outcomes, errors.Join(failures...)
}

// product goes through a whole check, or installation, of one product.
func (e *Engine) product(ctx context.Context, l *lookup, p Product, req Request) Outcome {
	out := Outcome{Product: p.Name}
	s, err := e.open(ctx, p)
	if err != nil {
		out.Err = err
		return out
	}
	if s.Installed != nil {
		out.Before = s.Installed.Version
	}
	out.Err = e.steps(ctx, l, p, s, req, &out)
	// Whatever happened, what is known of it goes out.
	for _, deliver := range []func(context.Context, *state) error{e.deliver, e.send} {
		if err := deliver(ctx, s); err != nil && out.Err == nil {
			out.Err = err
		}
	}
	if s.Installed != nil {
		out.Running, out.SupportEnd = s.Installed.Version, s.Installed.SupportEnd
		out.Support = update.SupportAt(s.Installed.SupportEnd, e.signedNow(s))
	}
	out.Changed = out.Running != out.Before
	out.Floor = s.Floor
	return out
}

// open loads the state of a product. A file that a crash cannot have left is set aside: a device that nobody can reach
// must not stop for ever because a block of its disk went bad. What it then may take is bounded by what runs, whose
// security version is learnt again from its signed statement.
func (e *Engine) open(ctx context.Context, p Product) (*state, error) {
	s, err := e.load(p)
	if !errors.Is(err, errDamaged) {
		return s, err
	}
	e.note(ctx, Event{Event: EventState, Product: p.Name, Text: "set aside as state.json.damaged: " + err.Error()})
	if rerr := os.Rename(e.statePath(p.Name), e.statePath(p.Name)+".damaged"); rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	return e.load(p)
}

func (e *Engine) steps(ctx context.Context, l *lookup, p Product, s *state, req Request, out *Outcome) error {
	sl := e.opt.Slots[p.Name]
	resumed := s.Phase != Idle && s.Phase != Staging && s.Phase != Staged
	if resumed {
		if !req.Install {
			return fmt.Errorf("an installation of %s was interrupted (%s); \"pawl agent install\" or \"pawl agent run\" finishes it", p.Name, s.Phase)
		}
		if err := e.finish(ctx, p, sl, s); err != nil {
			return err
		}
	}
	if err := e.observe(ctx, sl, s); err != nil {
		return err
	}
	if !resumed && s.Installed != nil {
		out.Before = s.Installed.Version
	}
	cat, err := l.catalog(ctx, p.Name)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return e.unchecked(ctx, s, err)
	}
	now := cat.Time().In(e.now().Location())
	if late := cat.Late(); late > 0 {
		s.SignedTime = now
		e.log.WarnContext(ctx, "the clock of this device is behind", "by", late)
	}
	if floor := s.Floor.Recover(cat.Recovery(p.Name)); floor != s.Floor {
		e.note(ctx, Event{
			Event: EventFloor, Product: p.Name,
			Text: fmt.Sprintf("floor %d becomes %d, epoch %d: the holders of the root keys have signed it", s.Floor.Security, floor.Security, floor.Epoch),
		})
		s.Floor = floor
	}
	if err := e.learn(ctx, cat, s); err != nil {
		return err
	}
	if req.Retry && len(s.Failed) > 0 {
		e.note(ctx, Event{Event: EventOwner, Product: p.Name, Text: fmt.Sprintf("%d releases that have failed here may be tried once more", len(s.Failed))})
		s.Failed = nil
	}
	owner, err := e.owner(p)
	if err != nil {
		return err
	}
	d := device(p, s)
	offers, refused, err := e.choose(ctx, cat, d, owner, now, req.Version)
	if err != nil {
		return err
	}
	for _, r := range refused {
		out.Refused = append(out.Refused, RefusedStatus{r.Index.Version, refusal.Of(r.Err), r.Err.Error()})
	}
	for _, o := range offers {
		out.Offers = append(out.Offers, offerStatus(o))
	}
	e.tellOffers(ctx, s, d, owner, offers, now)
	e.tellSupport(ctx, s, now)
	before := s.Check
	s.Check = &lastCheck{At: now.UTC().Truncate(time.Second), Offers: out.Offers}
	e.noteDecisions(ctx, s, before)
	if !req.Install || len(offers) == 0 || offers[0].Decision.Action != update.Install {
		s.Phase, s.Candidate = Idle, nil
	}
	// The owner is told before anything is installed.
	if err := e.save(ctx, s); err != nil {
		return err
	}
	if err := e.deliver(ctx, s); err != nil {
		return err
	}
	if !req.Install || len(offers) == 0 {
		return nil
	}
	// Being told is the moment to say no: what the owner's program has decided counts.
	explicit := !req.Version.IsZero()
	if !explicit {
		if owner, err = e.owner(p); err != nil {
			return err
		}
		offers[0].Decision = update.Decide(d, owner, offers[0].Release, now)
	}
	if err := offers[0].Err(); err != nil {
		if offers[0].Security || s.Installed == nil {
			return err
		}
		return nil // a feature release that waits is no refusal: it has been told
	}
	return e.install(ctx, cat, p, sl, s, d, offers[0], explicit)
}

// noteDecisions writes down why an offer waits, when that has changed.
func (e *Engine) noteDecisions(ctx context.Context, s *state, before *lastCheck) {
	for _, o := range s.Check.Offers {
		known := before != nil && slices.ContainsFunc(before.Offers, func(b OfferStatus) bool {
			return b.Version == o.Version && b.Decision == o.Decision && b.Until.Equal(o.Until)
		})
		if !known && o.Decision != update.Install {
			e.note(ctx, Event{Event: EventDecided, Product: s.Product, Version: o.Version.String(), Text: string(o.Decision) + ": " + o.Reason})
		}
	}
}

// unchecked remembers that no server could be believed or reached. A refusal is an alarm: it is told and reported once,
// until it changes or goes away.
func (e *Engine) unchecked(ctx context.Context, s *state, err error) error {
	check := &lastCheck{At: e.now().UTC().Truncate(time.Second), Class: string(refusal.Of(err)), Error: cut(err.Error(), maxEventText)}
	if s.Check != nil {
		check.Offers = s.Check.Offers
	}
	// The words may name the time, so the class alone says whether it is the same refusal.
	if class := refusal.Of(err); class != "" && (s.Check == nil || s.Check.Class != check.Class) {
		e.alarm(ctx, s, "", err)
		e.queueRefusal(s, err)
	}
	s.Check = check
	return errors.Join(err, e.save(ctx, s))
}

// alarm tells the owner that something was refused.
func (e *Engine) alarm(ctx context.Context, s *state, version string, err error) {
	n := Notice{Event: TellAlarm, Class: refusal.Of(err)}
	n.Product, n.Version, n.Summary = s.Product, version, "something that came from a server was refused"
	n.Reason = cut(err.Error(), maxEventText)
	var r *refusal.Error
	if errors.As(err, &r) {
		n.Action = r.Next
	}
	if s.Installed != nil {
		n.Installed = s.Installed.Version.String()
	}
	e.tell(s, n)
	e.note(ctx, Event{Event: EventRefused, Product: s.Product, Version: version, Class: n.Class, Text: n.Reason})
}

// observe compares what runs with what should run. What really runs counts.
func (e *Engine) observe(ctx context.Context, sl slot.Slot, s *state) error {
	run, err := sl.Running(ctx)
	switch {
	case errors.Is(err, slot.ErrNothing):
		if s.Installed != nil {
			e.note(ctx, Event{Event: EventFound, Product: s.Product, Text: fmt.Sprintf("nothing is installed where %s was", s.Installed.Version)})
			s.Installed, s.Previous = nil, nil
		}
		return nil
	case err != nil:
		return fmt.Errorf("cannot tell what runs: %w", err)
	case s.Installed != nil && s.Installed.Version == run.Version && s.Installed.Digest == run.Digest:
		return nil
	}
	was := "nothing"
	if s.Installed != nil {
		was = s.Installed.Version.String()
	}
	e.note(ctx, Event{Event: EventFound, Product: s.Product, Version: run.Version.String(), Text: fmt.Sprintf("it runs, %s was expected", was)})
	s.Previous = nil
	// Until its statement is read, what runs counts as being at the floor: it does run.
	s.Installed = &installed{Version: run.Version, Digest: run.Digest, SecurityVersion: s.Floor.Security, Found: true, At: e.now().UTC().Truncate(time.Second)}
	return nil
}

// learn reads the statement of a release that was found running, for its security version and the end of its support.
func (e *Engine) learn(ctx context.Context, cat *catalog.Catalog, s *state) error {
	if s.Installed == nil || !s.Installed.Found {
		return nil
	}
	for _, listed := range cat.Releases(s.Product) {
		if listed.Version != s.Installed.Version {
			continue
		}
		r, err := cat.Release(ctx, listed)
		if refusal.Of(err) != "" {
			return nil // it may run all the same; it only says nothing
		}
		if err != nil {
			return err
		}
		for _, a := range r.Artifacts {
			if a.Digest.SHA256 == s.Installed.Digest {
				s.Floor = s.Floor.Confirm(r.SecurityVersion)
				s.Installed.SecurityVersion, s.Installed.SupportEnd = max(r.SecurityVersion, s.Installed.SecurityVersion), r.SupportEnd
				s.Installed.Found, s.Installed.Confirmed = false, true
			}
		}
		return nil
	}
	return nil
}

func device(p Product, s *state) update.Device {
	d := update.Device{
		Product: p.Name, Channel: p.Channel, Hardware: p.Hardware, Platform: p.Platform, Artifact: p.Artifact,
		Lines: p.Lines, Prereleases: p.Prereleases, Floor: s.Floor, Failed: s.Failed,
	}
	if s.Installed != nil {
		d.Installed = update.Installed{Version: s.Installed.Version, Digest: s.Installed.Digest}
	}
	return d
}

// choose returns the offers of a catalogue and what was refused. With a version, only that one is looked at, the owner
// has agreed to it, and a refusal of it is the error.
func (e *Engine) choose(ctx context.Context, cat *catalog.Catalog, d update.Device, o update.Owner, now time.Time, only version.Version) ([]update.Offer, []update.Refused, error) {
	listed := cat.Releases(d.Product)
	if !only.IsZero() {
		i := slices.IndexFunc(listed, func(l catalog.Listed) bool { return l.Version == only })
		if i < 0 {
			return nil, nil, fmt.Errorf("the publisher has no release %s of %s", only, d.Product)
		}
		r, err := cat.Release(ctx, listed[i])
		if err == nil {
			err = update.Accept(d, r, now).Err()
		}
		if err != nil {
			return nil, nil, err
		}
		a, err := update.Artifact(d, r)
		if err != nil {
			return nil, nil, err
		}
		o = o.Approve(r.Version, a.Digest.SHA256)
		o.Window = nil
		offers, err := update.Weigh(d, o, []statement.Release{r}, now)
		return offers, nil, err
	}
	index := make([]trust.Index, len(listed))
	for i, l := range listed {
		index[i] = l.Index
	}
	sel := update.Select(d, index, now)
	refused := sel.Refused
	var picked []statement.Release
	for _, list := range [][]trust.Index{sel.Security, sel.Other} {
		for i, x := range list {
			if i == maxStatements || len(picked) > 0 && x.Version.Compare(picked[0].Version) <= 0 {
				break
			}
			r, err := cat.Release(ctx, catalog.Listed{Product: d.Product, Index: x})
			if err != nil && refusal.Of(err) == "" {
				return nil, nil, err
			}
			if err == nil {
				err = update.Accept(d, r, now).Err()
			}
			if err != nil {
				refused = append(refused, update.Refused{Index: x, Err: err})
				continue
			}
			picked = append(picked, r)
			break
		}
	}
	// What the owner has approved stays approved when something newer comes, as long as it may be taken.
	if v := o.Approved.Version; !v.IsZero() && !slices.ContainsFunc(picked, func(r statement.Release) bool { return r.Version == v }) {
		i := slices.IndexFunc(listed, func(l catalog.Listed) bool { return l.Version == v })
		if i >= 0 && update.AcceptIndex(d, listed[i].Index, now).Err() == nil {
			r, err := cat.Release(ctx, listed[i])
			if err != nil && refusal.Of(err) == "" {
				return nil, nil, err
			}
			if err == nil && update.Accept(d, r, now).Err() == nil && update.Decide(d, o, r, now).Action == update.Install {
				picked = append(picked, r)
			}
		}
	}
	offers, err := update.Weigh(d, o, picked, now)
	return offers, refused, err
}

func offerStatus(o update.Offer) OfferStatus {
	n := update.NoticeOf(update.Device{}, o)
	return OfferStatus{
		Version: o.Release.Version, Digest: o.Artifact.Digest.SHA256, Kind: o.Release.Kind, Security: o.Security,
		SecurityVersion: o.Release.SecurityVersion, Size: o.Artifact.Size, Decision: o.Decision.Action, Reason: o.Decision.Reason,
		Until: o.Decision.Until, Summary: n.Summary, Severity: n.Severity, Risk: n.Risk, Action: n.Action, Disruption: n.Disruption,
		Fixes: n.Fixes, SupportEnd: n.SupportEnd,
	}
}

// install brings an acceptable, agreed release to the device. explicit means that the owner has named it just now.
func (e *Engine) install(ctx context.Context, cat *catalog.Catalog, p Product, sl slot.Slot, s *state, d update.Device, offer update.Offer, explicit bool) error {
	r, a := offer.Release, offer.Artifact
	text, err := r.Encode()
	if err != nil {
		return err
	}
	s.Phase, s.Candidate, s.Reason = Staging, &candidate{Statement: text, Artifact: a.Name, Security: offer.Security}, ""
	s.Detail = ""
	if err := e.save(ctx, s); err != nil {
		return err
	}
	pl := e.payload(cat, p, r, a)
	if err := fault.Around(ctx, "agent.stage", func() error { return sl.Stage(ctx, pl) }); err != nil {
		s.Phase, s.Candidate = Idle, nil
		if refusal.Of(err) != "" {
			e.alarm(ctx, s, r.Version.String(), err)
			e.queue(s, r, a, stateOffered, err)
		}
		return errors.Join(err, e.save(ctx, s))
	}
	s.Phase = Staged
	e.queue(s, r, a, stateWritten, nil)
	e.note(ctx, Event{Event: EventStaged, Product: p.Name, Version: r.Version.String(), Text: fmt.Sprintf("%d bytes, %s", a.Size, a.Digest.SHA256)})
	if err := e.save(ctx, s); err != nil {
		return err
	}
	// Downloads take long enough for a change of mind.
	if !explicit {
		owner, err := e.owner(p)
		if err != nil {
			return err
		}
		offer.Decision = update.Decide(d, owner, r, e.signedNow(s))
		if err := offer.Err(); err != nil {
			s.Phase, s.Candidate = Idle, nil
			return errors.Join(err, e.save(ctx, s))
		}
	}
	s.Phase = Activating
	if err := e.save(ctx, s); err != nil {
		return err
	}
	return e.finish(ctx, p, sl, s)
}

func (e *Engine) payload(cat *catalog.Catalog, p Product, r statement.Release, a statement.Artifact) slot.Payload {
	pl := slot.Payload{Release: r, Artifact: a, Keys: cat.ReleaseKeys(p.Name)}
	if r.Channel != statement.Container {
		path := trust.TargetPath(p.Name, r.Version, a.Name)
		pl.Open = func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return cat.OpenTarget(ctx, path, offset)
		}
	}
	if e.opt.Progress != nil {
		pl.Progress = func(done int64) { e.opt.Progress(p.Name, done, a.Size) }
	}
	return pl
}

// finish goes from any phase after Staged to the end. It needs no server.
func (e *Engine) finish(ctx context.Context, p Product, sl slot.Slot, s *state) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, a, err := s.Candidate.payload()
		if err != nil {
			return err
		}
		pl := slot.Payload{Release: r, Artifact: a}
		switch s.Phase {
		case Activating:
			err := fault.Around(ctx, "agent.activate", func() error { return sl.Activate(ctx, pl) })
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				s.Phase, s.Reason, s.Detail = Reverting, "it could not be made to run", cut(err.Error(), maxEventText)
				break
			}
			s.Phase = Trial
			e.queue(s, r, a, stateBooted, nil)
			e.note(ctx, Event{Event: EventActivated, Product: p.Name, Version: r.Version.String()})
		case Trial:
			if err := e.try(ctx, p, sl, s, r, a); err != nil {
				return err
			}
		case Confirming:
			if err := fault.Around(ctx, "agent.confirm", func() error { return sl.Confirm(ctx, pl) }); err != nil {
				return fmt.Errorf("cannot confirm %s of %s: %w", r.Version, p.Name, err)
			}
			e.confirmed(ctx, s, r, a)
			return e.save(ctx, s)
		case Reverting:
			return e.revert(ctx, sl, s, r, a, pl)
		default:
			return fmt.Errorf("phase %s has no end", s.Phase)
		}
		if err := e.save(ctx, s); err != nil {
			return err
		}
	}
}

// try finds out whether the release works. A trial that was interrupted too often counts as failed: a release that takes
// the device down with it never gets to fail by itself.
func (e *Engine) try(ctx context.Context, p Product, sl slot.Slot, s *state, r statement.Release, a statement.Artifact) error {
	if s.Candidate.Trials++; s.Candidate.Trials > maxTrials {
		s.Phase, s.Reason = Reverting, fmt.Sprintf("its trial was interrupted %d times", maxTrials)
		return nil
	}
	if err := e.save(ctx, s); err != nil {
		return err
	}
	run, err := sl.Running(ctx)
	if err != nil && !errors.Is(err, slot.ErrNothing) {
		return fmt.Errorf("cannot tell what runs: %w", err)
	}
	if err != nil || run.Version != r.Version || run.Digest != a.Digest.SHA256 {
		s.Phase, s.Reason = Reverting, "it does not run: "+describeRunning(run, err)
		return nil
	}
	err = e.healthy(ctx, p, map[string]string{"PAWL_PRODUCT": p.Name, "PAWL_VERSION": r.Version.String()})
	switch {
	case ctx.Err() != nil:
		s.Candidate.Trials-- // being told to stop is no interruption
		return errors.Join(ctx.Err(), e.save(ctx, s))
	case err != nil:
		s.Phase, s.Reason, s.Detail = Reverting, "it was not healthy in time", cut(err.Error(), maxEventText)
	default:
		s.Phase = Confirming
	}
	return nil
}

func describeRunning(run slot.Running, err error) string {
	if err != nil {
		return "nothing does"
	}
	return run.Version.String() + " does"
}

// confirmed makes the candidate what is installed. Here and nowhere else the floor rises.
func (e *Engine) confirmed(ctx context.Context, s *state, r statement.Release, a statement.Artifact) {
	s.Previous = s.Installed
	s.Installed = &installed{
		Version: r.Version, Digest: a.Digest.SHA256, SecurityVersion: r.SecurityVersion, SupportEnd: r.SupportEnd,
		Confirmed: true, At: e.now().UTC().Truncate(time.Second),
	}
	s.Floor = s.Floor.Confirm(r.SecurityVersion)
	s.Phase, s.Candidate = Idle, nil
	s.SupportTold = update.SupportUnknown
	s.withdraw(func(o OfferStatus) bool { return o.Version.Compare(r.Version) <= 0 })
	e.queue(s, r, a, stateConfirmed, nil)
	n := Notice{Event: TellInstalled}
	n.Product, n.Version, n.Installed, n.Kind, n.Summary = s.Product, r.Version.String(), r.Version.String(), string(r.Kind), "installed, and it works"
	e.tell(s, n)
	e.note(ctx, Event{Event: EventConfirmed, Product: s.Product, Version: n.Version, Text: fmt.Sprintf("works; the floor is %d", s.Floor.Security)})
}

// withdraw takes offers back that are none any more.
func (s *state) withdraw(gone func(OfferStatus) bool) {
	if s.Check != nil {
		s.Check.Offers = slices.DeleteFunc(slices.Clone(s.Check.Offers), gone)
	}
}

// revert puts the previous release back, if there is one and the floor allows it. Otherwise what does not work stays: it
// is still the newest that may run.
func (e *Engine) revert(ctx context.Context, sl slot.Slot, s *state, r statement.Release, a statement.Artifact, pl slot.Payload) error {
	var stays error
	if s.Installed == nil {
		stays = slot.ErrNothing
	} else {
		stays = s.Floor.Fallback(s.Installed.SecurityVersion)
	}
	if stays == nil {
		err := fault.Around(ctx, "agent.revert", func() error { return sl.Revert(ctx, pl) })
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, slot.ErrNothing):
			stays = err
		case err != nil:
			return fmt.Errorf("cannot put %s of %s back: %w", s.Installed.Version, s.Product, err)
		}
	}
	detail := s.Detail
	s.withdraw(func(o OfferStatus) bool { return o.Version == r.Version })
	s.Failed = update.Remember(s.Failed, a.Digest.SHA256)
	ev := Event{Event: EventFellBack, Product: s.Product, Version: r.Version.String(), Class: refusal.Unhealthy}
	refused := refusal.New(refusal.Unhealthy, fmt.Sprintf("release %s of %s", r.Version, s.Product), "%s", s.Reason)
	s.Phase, s.Candidate, s.Reason, s.Detail = Idle, nil, "", ""
	if stays == nil {
		refused.Failed += fmt.Sprintf("; %s was put back", s.Installed.Version)
		s.Previous = nil
	} else {
		ev.Event = EventKept
		refused.Failed += fmt.Sprintf("; it stays, because there is nothing to go back to (%s)", stays)
		// Whether it was made to run at all is seen by looking.
		if run, err := sl.Running(ctx); err == nil && run.Version == r.Version && run.Digest == a.Digest.SHA256 {
			s.Previous = s.Installed
			s.Installed = &installed{
				Version: r.Version, Digest: a.Digest.SHA256, SecurityVersion: r.SecurityVersion, SupportEnd: r.SupportEnd,
				At: e.now().UTC().Truncate(time.Second),
			}
		}
	}
	refused = refused.Do("it is not tried again by itself; a newer release is, or \"pawl agent install --retry\" tries it once more")
	// What programs of the owner have printed stays on the device.
	e.queue(s, r, a, stateFellBack, refused)
	if detail != "" {
		refused.Failed += " (" + detail + ")"
	}
	ev.Text = refused.Failed
	n := Notice{Event: TellFellBack, Class: refusal.Unhealthy}
	n.Product, n.Version, n.Kind, n.Summary, n.Reason = s.Product, r.Version.String(), string(r.Kind), "it does not work here", refused.Failed
	if s.Installed != nil {
		n.Installed = s.Installed.Version.String()
	}
	e.tell(s, n)
	e.note(ctx, ev)
	return errors.Join(refused, e.save(ctx, s))
}
