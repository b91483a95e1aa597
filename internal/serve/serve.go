// SPDX-License-Identifier: Apache-2.0

// Package serve is the update server: the repository over HTTP for everybody, an authenticated way to publish into it, and
// reports of devices.
//
// What everybody may read lies below /metadata/ and /targets/ and is served as it lies in the blob store, with ranges and
// strong entity tags; nothing else of the store is reachable. Readers need to trust nothing here: all of it is signed
// by keys that the server does not hold. Publishers show a token, and what they bring is checked as a device would check
// it before anything is public. Devices may report what they run; a report is no decision, and no address is kept.
//
// Snapshot and timestamp are renewed at a third of their life. If that fails, the health page fails long before a device
// would notice.
//
// A server that has too much to do answers 429 with Retry-After, never 503: devices take 503 for a broken server and stop
// asking. Everything that a caller chooses has a limit here. Not promised: protection from a flood that fills the line.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/store"
)

// Limits bound what callers can ask for and how long they may take. A field that is zero has its default.
type Limits struct {
	Header   time.Duration // to send the header of a request; 10 s
	Body     time.Duration // to send a small body; 1 min
	Idle     time.Duration // between two requests of a connection; 2 min
	Stall    time.Duration // for the next step of a transfer, either way; 2 min
	Shutdown time.Duration // for transfers to end when the server stops; 75 s, less than the 90 s after which service managers kill

	Requests int // at once; 4096
	Uploads  int // at once; 16
	Changes  int // of the repository, at once; 4
	Reports  int // in a minute; 6000
	Refused  int // audit events of refused callers in a minute; 60. The metric counts all of them.
}

// Limits of sizes.
const (
	writeStep = 256 << 10 // bytes of one step of a download
	maxHeader = 16 << 10  // bytes of a request's header
	maxRange  = 256       // bytes of a Range header; a longer one is ignored
	maxReport = 8 << 10   // bytes of a report
)

// retrySeconds is the least pause that a caller is asked for when there is too much to do.
const retrySeconds = 5

func (l Limits) withDefaults() Limits {
	set(&l.Header, 10*time.Second)
	set(&l.Body, time.Minute)
	set(&l.Idle, 2*time.Minute)
	set(&l.Stall, 2*time.Minute)
	set(&l.Shutdown, 75*time.Second)
	set(&l.Requests, 4096)
	set(&l.Uploads, 16)
	set(&l.Changes, 4)
	set(&l.Reports, 6000)
	set(&l.Refused, 60)
	return l
}

func set[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Options configure a Server. Repository, Blobs, Store and Now must be set.
type Options struct {
	// Repository takes what is published. It must be able to sign.
	Repository *repository.Repository
	// Blobs is what the repository lies in.
	Blobs blob.Reader
	Store store.Store
	Now   func() time.Time
	// Log is told of everything but the callers' addresses. Nil: nobody is.
	Log *slog.Logger
	// Version of this program, for the page and the metrics.
	Version string
	Limits  Limits
	// BehindProxy takes the last entry of X-Forwarded-For for the address of a refused caller.
	BehindProxy bool
}

// Server is the engine behind "pawl serve". It is an http.Handler, safe for concurrent use.
type Server struct {
	opt     Options
	log     *slog.Logger
	handler http.Handler
	metrics *metrics
	page    *page

	limits                     Limits
	requests, uploads, changes gate
	reports, refused           throttle

	viewMu sync.Mutex
	view   view // under viewMu

	healthMu sync.Mutex
	renewal  error // why the last renewal failed; nil: it did not; under healthMu

	// upkeep belongs to the goroutine that calls it.
	upkeepState upkeepState
}

// New returns a server.
func New(opt Options) (*Server, error) {
	if opt.Repository == nil || opt.Blobs == nil || opt.Store == nil || opt.Now == nil {
		return nil, errors.New("a server needs a repository, its blobs, a store and a clock")
	}
	limits := opt.Limits.withDefaults()
	s := &Server{
		opt: opt, log: opt.Log, limits: limits,
		requests: make(gate, limits.Requests), uploads: make(gate, limits.Uploads), changes: make(gate, limits.Changes),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.page, err = newPage(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(s)
	s.handler = s.routes()
	return s, nil
}

// Run serves on l until ctx ends, then lets transfers end and returns nil. It renews snapshot and timestamp meanwhile. With
// a TLS configuration it speaks HTTPS, and HTTP/2 to whoever can.
func (s *Server) Run(ctx context.Context, l net.Listener, config *tls.Config) error {
	server := &http.Server{
		Handler: s, TLSConfig: config, ReadHeaderTimeout: s.limits.Header, IdleTimeout: s.limits.Idle, MaxHeaderBytes: maxHeader,
		// What net/http itself complains of are connections of strangers that broke, with their addresses.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		// A request that has begun is brought to its end.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	upkeep, stop := context.WithCancel(ctx)
	defer stop()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop() // before the wait
	next := s.Upkeep(upkeep)
	tasks.Go(func() { s.keep(upkeep, next) })

	ended := make(chan error, 1)
	tasks.Go(func() {
		if config != nil {
			ended <- server.ServeTLS(l, "", "")
		} else {
			ended <- server.Serve(l)
		}
	})
	select {
	case err := <-ended:
		return fmt.Errorf("cannot serve: %w", err)
	case <-ctx.Done():
	}
	s.log.Info("server stops; transfers may end", "within", s.limits.Shutdown)
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.Shutdown)
	defer cancel()
	if err := server.Shutdown(limited); err != nil {
		s.log.Warn("transfers are cut off", "after", s.limits.Shutdown)
		return server.Close()
	}
	return nil
}

// gate lets a number of callers in at once.
type gate chan struct{}

// enter reports whether there was room; then leave must be called.
func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }

// throttle allows a number of events in each minute.
type throttle struct {
	mu     sync.Mutex
	minute time.Time
	n      int
}

func (t *throttle) allow(now time.Time, most int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if minute := now.Truncate(time.Minute); !minute.Equal(t.minute) {
		t.minute, t.n = minute, 0
	}
	t.n++
	return t.n <= most
}
