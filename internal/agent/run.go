// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
)

// The times of a running agent. All of them are moved by chance: the power comes back to many devices at once.
const (
	maxStartDelay = 5 * time.Minute
	firstRetry    = 2 * time.Minute // after a check that failed; doubled for each further one
	busyRetry     = 30 * time.Second
	untilJitter   = time.Minute // after a postponement ends or a window opens
)

// Run checks and installs until ctx ends. It begins with what was interrupted, at once, and otherwise with a check after a
// short random time. wake asks for a check now. Errors are logged and in the state; only a second agent that runs is
// an error.
func (e *Engine) Run(ctx context.Context, wake <-chan struct{}) error {
	held, err := durable.Lock(filepath.Join(e.opt.Config.State, "run.lock"))
	if err != nil {
		if refusal.Of(err) == refusal.Busy {
			return fmt.Errorf("\"pawl agent run\" is running already: %w", err)
		}
		return err
	}
	defer held.Unlock()
	interval := e.opt.Config.Interval
	delay := e.opt.Jitter(min(interval/10, maxStartDelay))
	if e.unfinished() {
		delay = 0
	}
	for failures := 0; ; {
		e.log.InfoContext(ctx, "next check", "in", delay.Round(time.Second))
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-wake:
			timer.Stop()
		case <-timer.C:
		}
		outcomes, err := e.Do(ctx, Request{Install: true})
		if ctx.Err() != nil {
			return nil
		}
		if bad := e.logFailures(ctx, err); bad {
			failures++
		} else {
			failures = 0
		}
		delay = e.next(outcomes, err, failures)
		debug.FreeOSMemory() // it is not needed for hours
	}
}

// unfinished reports whether an installation was interrupted.
func (e *Engine) unfinished() bool {
	for _, p := range e.opt.Config.Products {
		if s, err := e.load(p); err != nil || s.Phase != Idle {
			return true
		}
	}
	return false
}

// logFailures logs what went wrong, and reports whether it is worth an earlier check: not if the owner has said no.
func (e *Engine) logFailures(ctx context.Context, err error) bool {
	bad := false
	var each func(err error)
	each = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				each(err)
			}
			return
		}
		switch refusal.Of(err) {
		case refusal.OwnerPolicy:
			e.log.InfoContext(ctx, "waits for the owner", "reason", err)
			return
		case refusal.Unhealthy:
			e.log.ErrorContext(ctx, "put back", "error", err)
			return
		}
		e.log.ErrorContext(ctx, "check failed", "error", err)
		bad = true
	}
	if err != nil {
		each(err)
	}
	return bad
}

// next returns the time to the next check: the interval, less after a failure, and in time for the end of a postponement or
// the opening of a window.
func (e *Engine) next(outcomes []Outcome, err error, failures int) time.Duration {
	interval := e.opt.Config.Interval
	delay := interval - interval/10 + e.opt.Jitter(interval/5)
	switch {
	case errors.Is(err, &refusal.Error{Class: refusal.Busy}):
		return busyRetry + e.opt.Jitter(busyRetry)
	case failures > 0:
		retry := firstRetry << min(failures-1, 16)
		delay = min(delay, retry/2+e.opt.Jitter(retry))
	}
	for _, out := range outcomes {
		for _, offer := range out.Offers {
			if !offer.Until.IsZero() {
				delay = min(delay, max(0, offer.Until.Sub(e.now()))+time.Second+e.opt.Jitter(untilJitter))
			}
		}
	}
	return delay
}
