// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pawl-project/pawl/internal/execx"
)

// maxProbe bounds what is read of an answer; probeLimit is how long one probe may take.
const (
	maxProbe   = 64 << 10
	probeLimit = 30 * time.Second
)

// errNoHealth reports a release that was not healthy in time.
var errNoHealth = errors.New("not healthy in time")

// healthy probes a release until it is healthy for as long as is asked, or its deadline is over. An error that wraps the
// context's means that nobody knows.
func (e *Engine) healthy(ctx context.Context, p Product, env map[string]string) error {
	h := p.Health
	if h.URL == "" && len(h.Command) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, h.Deadline)
	defer cancel()
	var (
		steady = -h.Interval // for how long every probe was good
		last   error
	)
	for {
		err := e.probe(limited, h, env)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			steady = -h.Interval
			if last == nil || limited.Err() == nil { // that the time was over says less than what was wrong before
				last = err
			}
		default:
			if steady += h.Interval; steady >= h.Stable {
				return nil
			}
		}
		pause := time.NewTimer(h.Interval)
		select {
		case <-pause.C:
			continue
		case <-limited.Done():
			pause.Stop()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case last == nil:
			return fmt.Errorf("%w: healthy, but not for %s within %s", errNoHealth, h.Stable, h.Deadline)
		}
		return fmt.Errorf("%w: %w after %s", errNoHealth, last, h.Deadline)
	}
}

func (e *Engine) probe(ctx context.Context, h Health, env map[string]string) error {
	if h.URL != "" {
		return e.probeURL(ctx, h.URL)
	}
	return execx.Run(ctx, execx.Command{
		Args: h.Command, Env: execx.Environ(e.opt.Env, nil, env), Limit: probeLimit,
	})
}

func (e *Engine) probeURL(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A connection of its own for every probe: what is asked is whether the new process takes one.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, maxProbe); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}
