// SPDX-License-Identifier: Apache-2.0

//go:build unix

package agent

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/testkit"
	"github.com/pawl-project/pawl/internal/update"
)

// TestRun lets an agent run, wakes it, and stops it.
func TestRun(t *testing.T) {
	t.Parallel()
	h := newHome(t, "interval: 5ms}", "interval: 5ms}\ninterval: 24h")
	e := h.engine()
	checked := make(chan struct{}, 1)
	src := h.src
	e.opt.Sources = []Source{{"test", func() (catalog.Opener, error) {
		select {
		case checked <- struct{}{}:
		default:
		}
		return src, nil
	}}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wake := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, wake) }()
	<-checked // after a start delay without jitter: none
	wake <- struct{}{}
	<-checked
	if err := h.engine().Run(ctx, nil); refusal.Of(err) != refusal.Busy || !strings.Contains(err.Error(), "is running already") {
		t.Errorf("a second one: %v", err)
	}
	wake <- struct{}{} // the check before has ended
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	h.runs("1.0.0", 1)
}

// TestNext asks when the agent checks again.
func TestNext(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	e := h.engine()
	most := func(d time.Duration) time.Duration { return d }
	none := func(time.Duration) time.Duration { return 0 }
	offer := func(d time.Duration) []Outcome {
		return []Outcome{{Offers: []OfferStatus{{Decision: update.Postponed, Until: h.now.Add(d)}}}}
	}
	failure := errors.New("no route to host")
	for name, c := range map[string]struct {
		outcomes  []Outcome
		err       error
		failures  int
		low, high time.Duration
	}{
		"nothing":             {nil, nil, 0, 6*time.Hour - 36*time.Minute, 6*time.Hour + 36*time.Minute},
		"one failure":         {nil, failure, 1, time.Minute, 3 * time.Minute},
		"five failures":       {nil, failure, 5, 16 * time.Minute, 48 * time.Minute},
		"many failures":       {nil, failure, 100, 6*time.Hour - 36*time.Minute, 6*time.Hour + 36*time.Minute},
		"busy":                {nil, refusal.New(refusal.Busy, "x", "y"), 1, 30 * time.Second, time.Minute},
		"postponed":           {offer(time.Hour), nil, 0, time.Hour + time.Second, time.Hour + time.Minute + time.Second},
		"postponed for days":  {offer(72 * time.Hour), nil, 0, 6*time.Hour - 36*time.Minute, 6*time.Hour + 36*time.Minute},
		"over for some years": {offer(-72000 * time.Hour), nil, 0, time.Second, time.Minute + time.Second},
	} {
		e.opt.Jitter = none
		if got := e.next(c.outcomes, c.err, c.failures); got != c.low {
			t.Errorf("%s: at the earliest after %s, want %s", name, got, c.low)
		}
		e.opt.Jitter = most
		if got := e.next(c.outcomes, c.err, c.failures); got != c.high {
			t.Errorf("%s: at the latest after %s, want %s", name, got, c.high)
		}
	}
}

func TestFailuresThatAreWorthAnEarlierCheck(t *testing.T) {
	t.Parallel()
	e := newHome(t).engine()
	owner, sick := refusal.New(refusal.OwnerPolicy, "x", "y"), refusal.New(refusal.Unhealthy, "x", "y")
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"none": {nil, false}, "owner": {owner, false}, "sick": {sick, false}, "both": {errors.Join(owner, sick), false},
		"network": {errors.Join(owner, errors.New("no route")), true}, "frozen": {refusal.New(refusal.Expired, "x", "y"), true},
	} {
		if got := e.logFailures(t.Context(), c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestInterruptedTrialsEnd has a release that takes the device down with it, again and again.
func TestInterruptedTrialsEnd(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	e := h.engine()
	s, err := e.load(h.config.Products[0])
	if err != nil {
		t.Fatal(err)
	}
	r := h.repo.Release("greeter", "1.0.1", content("1.0.1"))
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	h.install("")
	s.Phase, s.Candidate = Trial, &candidate{Statement: text, Artifact: "greeter", Trials: maxTrials}
	if err := e.save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	h.install(refusal.Unhealthy, "its trial was interrupted 3 times; 1.0.0 was put back")
	h.runs("1.0.0", 1)
}

// TestPlatformFellBack has a platform that has put the old release back by itself: what runs counts, not what should.
func TestPlatformFellBack(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	e := h.engine()
	s, err := e.load(h.config.Products[0])
	if err != nil {
		t.Fatal(err)
	}
	r := h.repo.Release("greeter", "1.0.1", content("1.0.1"))
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.Phase, s.Candidate = Trial, &candidate{Statement: text, Artifact: "greeter"}
	if err := e.save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	h.install(refusal.Unhealthy, "it does not run: 1.0.0 does; 1.0.0 was put back")
	h.runs("1.0.0", 1)
	if got := h.mail.states(); !strings.HasSuffix(got, "fell-back 1.0.1 unhealthy") {
		t.Errorf("reports %s", got)
	}
}

func TestRestartThatFails(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.config.Products[0].Restart.Command = []string{"/bin/sh", "-c", `test "$PAWL_VERSION" = 1.0.0 || { echo wrong glibc >&2; exit 1; }`}
	h.release("1.0.1")
	h.install(refusal.Unhealthy, "it could not be made to run; 1.0.0 was put back", "wrong glibc")
	h.runs("1.0.0", 1)
}

func TestHealthByURL(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case r.URL.Path == "/redirect":
			http.Redirect(w, r, "/", http.StatusFound)
		case r.URL.Path == "/bad" || n < 3 || n == 4:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	e := newHome(t).engine()
	ask := func(path string, h Health) error {
		asked.Store(0)
		h.URL = server.URL + path
		return e.healthy(t.Context(), Product{Health: h}, nil)
	}
	slow := Health{Deadline: time.Minute, Interval: time.Millisecond}
	if err := ask("/", slow); err != nil || asked.Load() != 3 {
		t.Errorf("%v after %d probes", err, asked.Load())
	}
	// Healthy once at the third probe, and from the fifth on for two intervals.
	slow.Stable = 2 * time.Millisecond
	if err := ask("/", slow); err != nil || asked.Load() != 7 {
		t.Errorf("stable: %v after %d probes", err, asked.Load())
	}
	fast := Health{Deadline: 200 * time.Millisecond, Interval: time.Millisecond}
	for _, path := range []string{"/bad", "/redirect"} {
		if err := ask(path, fast); !errors.Is(err, errNoHealth) {
			t.Errorf("%s: %v", path, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.healthy(ctx, Product{Health: Health{URL: server.URL, Deadline: time.Minute, Interval: time.Second}}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.1.0", testkit.Kind(statement.Feature))
	if _, err := h.do(Request{}); err != nil {
		t.Fatal(err)
	}
	st, err := h.engine().Status(t.Context(), "", true)
	if err != nil {
		t.Fatal(err)
	}
	p := st.Products[0]
	if st.Device != "test-device" || st.Root.IsZero() || !*p.Verified || !p.Confirmed || p.Offers[0].Version.String() != "1.1.0" ||
		p.Owner.Security != update.Auto || p.Owner.Feature != update.Approve || p.Checked.IsZero() {
		t.Fatalf("%+v", st)
	}
}

func TestTwoProducts(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	two := h.config.Products[0]
	two.Name, two.Path = "clock", filepath.Join(h.dir, "clock")
	two.Restart, two.Health.Command = Restart{}, nil
	h.config.Products = append(h.config.Products, two)
	e, err := New(Options{Config: h.config, Now: func() time.Time { return h.now }})
	if err == nil || !strings.Contains(err.Error(), "has no slot") {
		t.Fatalf("%v %v", e, err)
	}
	h.config.Products = h.config.Products[:1]
	h.install("")
	// The publisher does not have the second product: the first one is updated all the same.
	e = h.engine()
	e.opt.Config.Products = append(e.opt.Config.Products, two)
	e.opt.Slots["clock"] = e.opt.Slots["greeter"]
	h.release("1.0.1")
	src := h.src
	e.opt.Sources = []Source{{"test", func() (catalog.Opener, error) { return src, nil }}}
	outs, err := e.Do(t.Context(), Request{Install: true})
	if refusal.Of(err) != refusal.WrongTarget || len(outs) != 2 || outs[0].Err != nil || outs[0].Running.String() != "1.0.1" {
		t.Fatalf("%+v %v", outs, err)
	}
	if !slices.Contains(h.events(), "refused") {
		t.Fatal("the refusal is not in the history")
	}
	if _, err := os.Stat(filepath.Join(h.dir, "state/products/clock/state.json")); err != nil {
		t.Fatal(err)
	}
}
