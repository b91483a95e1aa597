// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
)

// Status is everything that the agent knows about its device.
type Status struct {
	Device  string   `json:"device"`
	Servers []string `json:"servers"`
	// Root is the SHA-256 of the root document of the first trust: what the owner compares with what the publisher says.
	Root     digest.SHA256   `json:"root,omitzero"`
	Reports  bool            `json:"reports"`
	Products []ProductStatus `json:"products"`
}

// ProductStatus is the part of one product.
type ProductStatus struct {
	Product string            `json:"product"`
	Channel statement.Channel `json:"channel"`
	Path    string            `json:"path"`
	// Running is what the slot runs; zero if nothing is installed.
	Running         version.Version `json:"running,omitzero"`
	Digest          digest.SHA256   `json:"digest,omitzero"`
	SecurityVersion uint32          `json:"securityVersion"`
	Confirmed       bool            `json:"confirmed"`
	InstalledAt     time.Time       `json:"installedAt,omitzero"`
	Previous        version.Version `json:"previous,omitzero"`
	Floor           update.Floor    `json:"floor"`
	Phase           Phase           `json:"phase"`
	Candidate       version.Version `json:"candidate,omitzero"`
	Failed          int             `json:"failed"`
	Support         update.Support  `json:"support,omitempty"`
	SupportEnd      string          `json:"supportEnd,omitempty"`
	Owner           OwnerStatus     `json:"owner"`
	Offers          []OfferStatus   `json:"offers,omitempty"`
	// Checked is when the servers were asked last, and CheckError what became of it if it failed.
	Checked        time.Time     `json:"checked,omitzero"`
	CheckError     string        `json:"checkError,omitempty"`
	CheckClass     refusal.Class `json:"checkClass,omitempty"`
	WaitingReports int           `json:"waitingReports"`
	WaitingNotices int           `json:"waitingNotices"`
	// Verified says, if it was asked for, whether the installed bytes are those that were signed.
	Verified *bool  `json:"verified,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

// OwnerStatus is what the owner has decided.
type OwnerStatus struct {
	Security       update.Mode     `json:"security"`
	Feature        update.Mode     `json:"feature"`
	Window         *update.Window  `json:"window,omitempty"`
	PostponedUntil time.Time       `json:"postponedUntil,omitzero"`
	Postponements  int             `json:"postponements,omitempty"`
	Approved       version.Version `json:"approved,omitzero"`
}

// OwnerStatusOf shows the settings of an owner.
func OwnerStatusOf(o update.Owner) OwnerStatus {
	return OwnerStatus{
		Security: o.SecurityMode(), Feature: o.FeatureMode(), Window: o.Window,
		PostponedUntil: o.Postponed.Until, Postponements: o.Postponed.Count, Approved: o.Approved.Version,
	}
}

// Status reads what is known; it asks no server and changes nothing. With verify, the installed bytes are read and
// compared with what was signed; a difference is an error of class Digest beside the status.
func (e *Engine) Status(ctx context.Context, product string, verify bool) (Status, error) {
	st := Status{Device: e.device, Servers: e.opt.Config.Servers, Reports: e.opt.Config.Reports}
	if _, fingerprint, err := e.Root(); err == nil {
		st.Root = fingerprint
	}
	products := e.opt.Config.Products
	if product != "" {
		p, err := e.opt.Config.Product(product)
		if err != nil {
			return st, err
		}
		products = []Product{p}
	}
	var failures []error
	for _, p := range products {
		ps, err := e.productStatus(ctx, p, verify)
		if err != nil {
			ps.Problem = err.Error()
			failures = append(failures, err)
		}
		st.Products = append(st.Products, ps)
	}
	return st, errors.Join(failures...)
}

func (e *Engine) productStatus(ctx context.Context, p Product, verify bool) (ProductStatus, error) {
	ps := ProductStatus{Product: p.Name, Channel: p.Channel, Path: p.Path}
	s, err := e.load(p)
	if err != nil {
		return ps, err
	}
	ps.Floor, ps.Phase, ps.Failed = s.Floor, s.Phase, len(s.Failed)
	ps.WaitingReports, ps.WaitingNotices = len(s.Reports), len(s.Notices)
	if s.Previous != nil {
		ps.Previous = s.Previous.Version
	}
	if s.Candidate != nil {
		if r, _, err := s.Candidate.payload(); err == nil {
			ps.Candidate = r.Version
		}
	}
	if s.Check != nil {
		ps.Checked, ps.CheckError, ps.CheckClass = s.Check.At, s.Check.Error, refusal.Class(s.Check.Class)
		ps.Offers = s.Check.Offers
	}
	o, err := e.owner(p)
	if err != nil {
		return ps, err
	}
	ps.Owner = OwnerStatusOf(o)
	sl := e.opt.Slots[p.Name]
	run, err := sl.Running(ctx)
	switch {
	case errors.Is(err, slot.ErrNothing):
		return ps, nil
	case err != nil:
		return ps, err
	}
	ps.Running, ps.Digest = run.Version, run.Digest
	if i := s.Installed; i != nil && i.Version == run.Version && i.Digest == run.Digest {
		ps.SecurityVersion, ps.Confirmed, ps.InstalledAt, ps.SupportEnd = i.SecurityVersion, i.Confirmed, i.At, i.SupportEnd
		ps.Support = update.SupportAt(i.SupportEnd, e.signedNow(s))
	}
	c, ok := sl.(slot.Checker)
	if !verify || !ok {
		return ps, nil
	}
	err = c.Check(ctx)
	good := err == nil
	ps.Verified = &good
	return ps, err
}
