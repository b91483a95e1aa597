// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/store"
)

// ErrUnwanted reports a server that takes no reports, or not this one. It is not sent again.
var ErrUnwanted = errors.New("report is not wanted")

// reportLimit is how long a check may spend on reports.
const reportLimit = 20 * time.Second

// Reporter brings a report to the publisher. Sending one twice does no harm.
type Reporter interface {
	Report(ctx context.Context, r store.Report) error
}

const (
	stateOffered   = store.Offered
	stateWritten   = store.Written
	stateBooted    = store.Booted
	stateConfirmed = store.Confirmed
	stateFellBack  = store.FellBack
)

// queue puts a report into the state, from where send brings it to the server. It holds what store.Report holds and
// nothing else: no address, no serial number, no time of use.
func (e *Engine) queue(s *state, r statement.Release, a statement.Artifact, st store.State, err error) {
	e.queueReport(s, store.Report{Version: r.Version, Digest: a.Digest.SHA256, SecurityVersion: r.SecurityVersion, State: st}, err)
}

// queueRefusal reports what was refused, with what runs meanwhile. The same refusal is reported once in a row.
func (e *Engine) queueRefusal(s *state, err error) {
	if s.Installed == nil {
		return
	}
	i, st := s.Installed, stateConfirmed
	if !i.Confirmed {
		st = stateBooted
	}
	e.queueReport(s, store.Report{Version: i.Version, Digest: i.Digest, SecurityVersion: i.SecurityVersion, State: st}, err)
}

func (e *Engine) queueReport(s *state, r store.Report, err error) {
	if !e.opt.Config.Reports || e.opt.Reporter == nil {
		return
	}
	r.Device, r.Product, r.At = e.device, s.Product, e.now().UTC().Truncate(time.Second)
	var refused *refusal.Error
	if errors.As(err, &refused) {
		r.Refusal = &store.Refusal{Class: refused.Class, Text: cut(printable(refused.Checked+": "+refused.Failed), store.MaxText)}
	}
	if r.Check() != nil {
		return // nothing that a server would take
	}
	s.Reports = append(s.Reports, r)
}

// printable takes out what a terminal or a page must not be given.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c != '\n' && c < ' ' || c >= 0x7f && c < 0xa0 {
			return -1
		}
		return c
	}, s)
}

// send brings the reports that wait to the server, as far as it takes them. Reports are best effort: an error is logged.
func (e *Engine) send(ctx context.Context, s *state) error {
	if e.opt.Reporter == nil || len(s.Reports) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	sent := 0
	for _, r := range s.Reports {
		err := fault.Around(limited, "agent.report."+string(r.State), func() error { return e.opt.Reporter.Report(limited, r) })
		if err != nil && !errors.Is(err, ErrUnwanted) {
			e.log.InfoContext(ctx, "report waits", "product", s.Product, "error", err)
			break
		}
		sent++
	}
	if sent == 0 {
		return nil
	}
	s.Reports = slices.Clone(s.Reports[sent:])
	return e.save(ctx, s)
}
