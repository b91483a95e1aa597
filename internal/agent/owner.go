// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
)

// ownerWait is how long an owner's command waits for another one.
const ownerWait = 10 * time.Second

// maxOwner bounds the file with the owner's decisions, in bytes.
const maxOwner = 64 << 10

// ErrNoOffer reports that there is no release to decide on.
var ErrNoOffer = errors.New("no update is offered")

func (e *Engine) ownerPath(product string) string {
	return filepath.Join(e.folder(product), "owner.json")
}

// decided returns what the owner has decided by commands. A file that cannot be read is an error and not a default: it may
// say no.
func (e *Engine) decided(product string) (update.Owner, error) {
	data, err := readFile(e.ownerPath(product), maxOwner)
	if errors.Is(err, fs.ErrNotExist) {
		return update.Owner{}, nil
	}
	var o update.Owner
	if err == nil {
		err = json.Unmarshal(data, &o, json.RejectUnknownMembers(true))
	}
	if err != nil {
		return update.Owner{}, fmt.Errorf("cannot read the owner's decisions on %s, which may be a no (\"pawl agent auto\" writes them anew): %w", product, err)
	}
	return o, nil
}

// owner returns the owner's decisions over the settings of the configuration.
func (e *Engine) owner(p Product) (update.Owner, error) {
	o, err := e.decided(p.Name)
	if err != nil {
		return update.Owner{}, err
	}
	return settings(p, o), nil
}

// settings completes the owner's decisions with the configuration.
func settings(p Product, o update.Owner) update.Owner {
	if o.Security == "" {
		o.Security = p.Owner.Security
	}
	if o.Feature == "" {
		o.Feature = p.Owner.Feature
	}
	o.Window = p.Owner.Window
	return o
}

// change lets the owner decide something. anew permits a file that cannot be read.
func (e *Engine) change(ctx context.Context, product string, anew bool, fn func(o update.Owner) (update.Owner, string, error)) (update.Owner, error) {
	p, err := e.opt.Config.Product(product)
	if err != nil {
		return update.Owner{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, ownerWait)
	defer cancel()
	held, err := durable.LockWait(waiting, filepath.Join(e.opt.Config.State, "owner.lock"))
	if err != nil {
		return update.Owner{}, err
	}
	defer held.Unlock()
	o, err := e.decided(p.Name)
	if err != nil && !anew {
		return update.Owner{}, err
	}
	o, text, err := fn(o)
	if err != nil {
		return update.Owner{}, err
	}
	o.Window = nil
	data, err := json.Marshal(o, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return update.Owner{}, err
	}
	err = fault.Around(ctx, "agent.owner", func() error {
		if err := durable.Mkdir(e.folder(p.Name), 0o755); err != nil {
			return err
		}
		return durable.WriteFile(e.ownerPath(p.Name), append(data, '\n'), 0o644)
	})
	if err != nil {
		return update.Owner{}, fmt.Errorf("cannot write the owner's decisions on %s: %w", p.Name, err)
	}
	e.note(ctx, Event{Event: EventOwner, Product: p.Name, Text: text})
	return settings(p, o), nil
}

// SetMode sets what happens with security updates and with feature releases; an empty mode leaves a setting as it is.
func (e *Engine) SetMode(ctx context.Context, product string, security, feature update.Mode) (update.Owner, error) {
	return e.change(ctx, product, true, func(o update.Owner) (update.Owner, string, error) {
		text := ""
		if security != "" {
			o.Security = security
			text = "security updates: " + string(security)
		}
		if feature != "" {
			o.Feature = feature
			if text != "" {
				text += ", "
			}
			text += "feature releases: " + string(feature)
		}
		return o, text, nil
	})
}

// Postpone puts off the release that is offered first until a time. The bounds are those of package update.
func (e *Engine) Postpone(ctx context.Context, product string, until time.Time) (update.Owner, OfferStatus, error) {
	s, offers, err := e.offers(product)
	if err != nil {
		return update.Owner{}, OfferStatus{}, err
	}
	offer := offers[0]
	o, err := e.change(ctx, product, false, func(o update.Owner) (update.Owner, string, error) {
		o, err := o.Postpone(offer.Version, until, e.signedNow(s))
		return o, fmt.Sprintf("release %s postponed until %s", offer.Version, until.Format(time.RFC3339)), err
	})
	return o, offer, err
}

// Approve agrees to a release that is offered; without a version to the first one that waits for the owner.
func (e *Engine) Approve(ctx context.Context, product string, v version.Version) (update.Owner, OfferStatus, error) {
	_, offers, err := e.offers(product)
	if err != nil {
		return update.Owner{}, OfferStatus{}, err
	}
	var offer *OfferStatus
	for i := range offers {
		if offers[i].Version.Compare(v) == 0 || v.IsZero() && offers[i].Decision != update.Install {
			offer = &offers[i]
			break
		}
	}
	switch {
	case offer == nil && v.IsZero():
		return update.Owner{}, OfferStatus{}, fmt.Errorf("%w that waits for %s", ErrNoOffer, "an approval")
	case offer == nil:
		return update.Owner{}, OfferStatus{}, fmt.Errorf("%w as %s; the last check saw %s", ErrNoOffer, v, versions(offers))
	}
	o, err := e.change(ctx, product, false, func(o update.Owner) (update.Owner, string, error) {
		return o.Approve(offer.Version, offer.Digest), fmt.Sprintf("release %s approved (%s)", offer.Version, offer.Digest), nil
	})
	return o, *offer, err
}

// offers returns what the last check has offered.
func (e *Engine) offers(product string) (*state, []OfferStatus, error) {
	p, err := e.opt.Config.Product(product)
	if err != nil {
		return nil, nil, err
	}
	s, err := e.load(p)
	if err != nil {
		return nil, nil, err
	}
	var offers []OfferStatus
	if s.Check != nil {
		for _, o := range s.Check.Offers {
			if s.Installed == nil || o.Version.Compare(s.Installed.Version) > 0 {
				offers = append(offers, o)
			}
		}
	}
	if len(offers) == 0 {
		return nil, nil, fmt.Errorf("%w for %s; \"pawl agent check\" asks the server", ErrNoOffer, product)
	}
	return s, offers, nil
}

// signedNow is the clock, or a later time that the publisher has signed.
func (e *Engine) signedNow(s *state) time.Time {
	now := e.now()
	if s.SignedTime.After(now) {
		return s.SignedTime.In(now.Location())
	}
	return now
}

func versions(offers []OfferStatus) string {
	text := ""
	for i, o := range offers {
		if i > 0 {
			text += ", "
		}
		text += o.Version.String()
	}
	return text
}
