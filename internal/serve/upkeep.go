// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/trust"
)

const (
	// renewAt is the share of the timestamp's life after which it is renewed, alarmAt that after which something is wrong.
	renewAt, alarmAt = 1.0 / 3, 2.0 / 3
	// renewJitter is the share by which it is renewed earlier, so that several nodes do not do it at once.
	renewJitter = 1.0 / 20
	// lookEvery is how often the clock is looked at: a machine may have slept, and its clock may have been set.
	lookEvery = 30 * time.Minute
	// retryFirst and retryMost are the pauses after a renewal that failed.
	retryFirst, retryMost = 10 * time.Second, 10 * time.Minute

	// warnBefore is how long before their end documents that only people can renew are mentioned.
	warnBefore = 60 * 24 * time.Hour

	cleanEvery   = 24 * time.Hour
	keepStaged   = 7 * 24 * time.Hour  // uploads that nobody published
	keepTemp     = 24 * time.Hour      // what crashed processes left
	keepAddress  = 30 * 24 * time.Hour // addresses of refused callers
	leastTimeout = time.Second
)

// view is what is public, read from the store when the timestamp has changed.
type view struct {
	stamp   digest.SHA256
	summary repository.Summary
}

// summary returns what is public.
func (s *Server) summary(ctx context.Context) (repository.Summary, error) {
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	stamp, err := blob.ReadAll(ctx, s.opt.Blobs, trust.MetadataName(trust.TimestampRole, 0), trust.MaxTimestamp)
	if err != nil {
		return repository.Summary{}, err
	}
	sum := digest.Of(stamp)
	if sum == s.view.stamp {
		return s.view.summary, nil
	}
	// The request may end; whoever waits next wants the answer too.
	summary, err := s.opt.Repository.Summary(context.WithoutCancel(ctx))
	if err != nil {
		return repository.Summary{}, err
	}
	s.view = view{sum, summary}
	return summary, nil
}

// upkeepState is what the next upkeep must know of the last ones.
type upkeepState struct {
	jitter  float64
	retry   time.Duration
	cleaned time.Time
}

// keep does the upkeep until ctx ends.
func (s *Server) keep(ctx context.Context, next time.Duration) {
	for {
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		next = s.Upkeep(ctx)
	}
}

// Upkeep renews snapshot and timestamp if it is time to, and once a day deletes what nobody needs. It returns when to call
// it again. Run does; one goroutine at a time may.
func (s *Server) Upkeep(ctx context.Context) time.Duration {
	u := &s.upkeepState
	if u.jitter == 0 {
		u.jitter = 1 - rand.Float64()
	}
	wait, err := s.renew(ctx)
	if ctx.Err() != nil {
		return leastTimeout
	}
	s.healthMu.Lock()
	s.renewal = err
	s.healthMu.Unlock()
	if err != nil {
		s.log.Error("snapshot and timestamp are not renewed", "error", err)
		u.retry = min(retryMost, max(retryFirst, 2*u.retry))
		return u.retry
	}
	u.retry = 0
	if now := s.opt.Now(); now.Sub(u.cleaned) >= cleanEvery {
		u.cleaned = now
		s.clean(ctx, now)
	}
	return max(leastTimeout, min(wait, lookEvery))
}

// renew renews if it is time to, and returns how long it is to the next time.
func (s *Server) renew(ctx context.Context) (time.Duration, error) {
	summary, err := s.summary(ctx)
	if err != nil {
		return 0, err
	}
	now := s.opt.Now()
	if due := s.due(summary); now.Before(due) {
		return due.Sub(now), nil
	}
	_, err = s.opt.Repository.Refresh(ctx)
	s.metrics.publish(store.ActionRefresh, err)
	s.audit(ctx, store.Event{At: now, Action: store.ActionRefresh, Outcome: outcome(err)})
	if err != nil {
		return 0, err
	}
	if summary, err = s.summary(ctx); err != nil {
		return 0, err
	}
	s.log.Info("snapshot and timestamp are renewed", "version", summary.Timestamp.Version, "expires", summary.Timestamp.Expires)
	return s.due(summary).Sub(s.opt.Now()), nil
}

// due is when the timestamp is renewed. The snapshot is as old as it, or younger.
func (s *Server) due(summary repository.Summary) time.Time {
	return at(summary.Timestamp, renewAt-renewJitter*s.upkeepState.jitter)
}

// at is the moment at a share of a document's life.
func at(d repository.Document, share float64) time.Time {
	return d.Issued.Add(time.Duration(share * float64(d.Expires.Sub(d.Issued))))
}

// clean deletes what nobody needs any more. What fails is tried again tomorrow.
func (s *Server) clean(ctx context.Context, now time.Time) {
	swept, err := s.opt.Repository.Sweep(ctx, now.Add(-keepStaged))
	if sweeper, ok := s.opt.Blobs.(interface {
		Sweep(ctx context.Context, before time.Time) (int, error)
	}); ok {
		n, serr := sweeper.Sweep(ctx, now.Add(-keepTemp))
		swept, err = swept+n, errors.Join(err, serr)
	}
	err = errors.Join(err, s.opt.Store.Forget(ctx, now.Add(-keepAddress)))
	if err != nil && ctx.Err() == nil {
		s.log.Warn("not everything was cleaned up", "error", err)
	}
	if swept > 0 {
		s.log.Info("cleaned up", "deleted", swept)
	}
}

// health is the answer of /healthz.
type health struct {
	Status string `json:"status"` // "ok" or "failing"
	// Problems need the operator now, warnings the holders of keys soon.
	Problems  []string            `json:"problems,omitempty"`
	Warnings  []string            `json:"warnings,omitempty"`
	Timestamp repository.Document `json:"timestamp,omitzero"`
	Root      repository.Document `json:"root,omitzero"`
	Targets   repository.Document `json:"targets,omitzero"`
}

// getHealth answers 200 or 500: 503 is what a proxy in front would say.
func (s *Server) getHealth(w http.ResponseWriter, r *http.Request) {
	h := s.health(r.Context())
	status := http.StatusOK
	if h.Status != "ok" {
		status = http.StatusInternalServerError
	}
	s.json(w, status, h)
}

func (s *Server) health(ctx context.Context) health {
	var h health
	problem := func(format string, args ...any) { h.Problems = append(h.Problems, fmt.Sprintf(format, args...)) }
	s.healthMu.Lock()
	if s.renewal != nil {
		problem("snapshot and timestamp are not renewed; the log says why")
	}
	s.healthMu.Unlock()
	if _, err := s.opt.Store.Token(ctx, "0"); err != nil && !errors.Is(err, store.ErrNotExist) {
		s.log.Error("database does not answer", "error", err)
		problem("the database does not answer; the log says why")
	}
	summary, err := s.summary(ctx)
	if err != nil {
		s.log.Error("repository cannot be read", "error", err)
		problem("the repository cannot be read; the log says why")
	} else {
		h.Timestamp, h.Root, h.Targets = summary.Timestamp, summary.Root, summary.Targets
		now := s.opt.Now()
		if now.After(at(summary.Timestamp, alarmAt)) {
			problem("the timestamp ends in %s and should have been renewed long ago", left(summary.Timestamp, now))
		}
		watch := func(what string, d repository.Document) {
			switch {
			case !now.Before(d.Expires):
				problem("%s ended on %s: devices take no update", what, d.Expires.UTC().Format(time.DateOnly))
			case now.Add(warnBefore).After(d.Expires):
				h.Warnings = append(h.Warnings, fmt.Sprintf("%s ends on %s: the holders of its keys must renew it", what, d.Expires.UTC().Format(time.DateOnly)))
			}
		}
		watch("root", summary.Root)
		watch("targets", summary.Targets)
		for _, p := range summary.Products {
			if p.Version > 0 {
				watch("the catalogue of "+p.Name, p.Document)
			}
		}
	}
	h.Status = "ok"
	if len(h.Problems) > 0 {
		h.Status = "failing"
	}
	return h
}

func left(d repository.Document, now time.Time) time.Duration {
	return d.Expires.Sub(now).Round(time.Minute)
}
