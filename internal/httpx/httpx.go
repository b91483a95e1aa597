// SPDX-License-Identifier: Apache-2.0

// Package httpx is an HTTP client for servers that may be far away, overloaded or hostile.
//
// Everything that the other side could choose has a limit (Limits): how long it takes to connect and to answer, how slowly
// it may send, how much it may send, how often it may redirect. Connection errors, 429 and 5xx are tried again with
// growing, jittered pauses; Retry-After is honoured up to a bound. A body that breaks off is continued where it stopped,
// with Range and If-Range (RFC 9110, sections 13.1.5 and 14.2), and a content that changed meanwhile is noticed.
//
// Transport is HTTPS. Plain HTTP is for the loopback interface only, redirects never leave HTTPS, and certificates are
// checked against the system's authorities and, if wished, one more file. None of this replaces signatures: the bytes are
// unverified until somebody compares their digest.
package httpx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrChanged reports that the content behind a URL changed while it was read.
var ErrChanged = errors.New("content changed while it was read")

// ErrSlow reports a server that sends more slowly than Limits.MinRate.
var ErrSlow = errors.New("server sends too slowly")

// ErrSilent reports a server that does not answer within Limits.Answer.
var ErrSilent = errors.New("server does not answer")

// ErrTooLarge reports a body over a limit.
var ErrTooLarge = errors.New("body is over the limit")

// ErrTransport reports a URL that may not be used: neither HTTPS nor loopback, or with a password in it.
var ErrTransport = errors.New("transport is not allowed")

// Limits bound what a server can do to the client. A field that is zero has its default.
type Limits struct {
	Connect    time.Duration // to open a connection; 10 s
	TLS        time.Duration // to agree on keys; 10 s
	Answer     time.Duration // from the last byte of a request to the header of its answer; 30 s
	MinRate    int64         // bytes per second that a body must bring on average while somebody waits for it; 1024
	Grace      time.Duration // how long it may fall behind MinRate, also by stalling; 30 s
	MaxSize    int64         // bytes of one body; 64 GiB
	Redirects  int           // 5
	Attempts   int           // requests until one is answered, the first one included; 5
	Resumes    int           // times that a body may break off without bringing resumeProgress; 5
	Pause      time.Duration // before the second attempt, doubled for each further one; 500 ms
	MaxPause   time.Duration // 30 s
	RetryAfter time.Duration // the longest Retry-After that is waited for; 2 min
}

// resumeProgress is how many bytes a connection must bring to be a good one. Without it a server could drop every
// connection after one byte, for ever.
const resumeProgress = 64 << 10

// maxHeader bounds the header of an answer, in bytes.
const maxHeader = 64 << 10

func (l Limits) withDefaults() Limits {
	set(&l.Connect, 10*time.Second)
	set(&l.TLS, 10*time.Second)
	set(&l.Answer, 30*time.Second)
	set(&l.MinRate, 1024)
	set(&l.Grace, 30*time.Second)
	set(&l.MaxSize, 64<<30)
	set(&l.Redirects, 5)
	set(&l.Attempts, 5)
	set(&l.Resumes, 5)
	set(&l.Pause, 500*time.Millisecond)
	set(&l.MaxPause, 30*time.Second)
	set(&l.RetryAfter, 2*time.Minute)
	return l
}

func set[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Options configure a Client. The zero value is a safe client.
type Options struct {
	Limits Limits
	// CAFile names a PEM file with certificates of authorities that are trusted beside the system's. Empty: none.
	CAFile string
	// UserAgent is sent with every request; empty: "pawl".
	UserAgent string
	// Token is sent as a bearer token (RFC 6750), and never to another host than the one that was asked.
	Token string
	// Logger is told of attempts that are repeated. Nil: nobody is.
	Logger *slog.Logger
}

// Client sends requests. Safe for concurrent use.
type Client struct {
	http   *http.Client
	limits Limits
	agent  string
	token  string
	log    *slog.Logger
}

// New returns a client.
func New(opt Options) (*Client, error) {
	c := &Client{limits: opt.Limits.withDefaults(), agent: opt.UserAgent, token: opt.Token, log: opt.Logger}
	if c.agent == "" {
		c.agent = "pawl"
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if opt.CAFile != "" {
		pool, err := authorities(opt.CAFile)
		if err != nil {
			return nil, err
		}
		tlsConfig.RootCAs = pool
	}
	c.http = &http.Client{
		CheckRedirect: c.checkRedirect,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: c.limits.Connect, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    c.limits.TLS,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // what is hashed and resumed is the bytes as they are stored
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        30 * time.Second,
			ExpectContinueTimeout:  2 * time.Second,
			// A connection that died without a word is found out, and not used for the next attempt too.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		},
	}
	return c, nil
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read certificate authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a device without a store of its own still has the file
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("cannot read certificate authorities: %s holds no PEM certificate", file)
	}
	return pool, nil
}

// Close drops idle connections. The client can still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CheckURL refuses what the client would not ask: anything but HTTPS, or HTTP to the loopback interface.
func CheckURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	return u, nil
}

func checkURL(u *url.URL) error {
	switch {
	case u.Hostname() == "":
		return fmt.Errorf("%w: %q names no host", ErrTransport, clip(u.Redacted()))
	case u.User != nil:
		return fmt.Errorf("%w: a user or password in a URL ends up in logs", ErrTransport)
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("%w: plain http to %q: only https, or http to this machine itself", ErrTransport, clip(u.Host))
	}
	return fmt.Errorf("%w: scheme %q is not https", ErrTransport, clip(u.Scheme))
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") { // RFC 6761, section 6.3
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet && via[0].Method != http.MethodHead {
		// Followed, it would become a GET, and the page that answers it would look like a success.
		return http.ErrUseLastResponse
	}
	if len(via) > c.limits.Redirects {
		return fmt.Errorf("%w: more than %d redirects", ErrTransport, c.limits.Redirects)
	}
	if err := checkURL(req.URL); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	last := via[len(via)-1]
	if last.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: redirect from https to %s", ErrTransport, req.URL.Scheme)
	}
	if c.token != "" && req.URL.Host != via[0].URL.Host {
		return fmt.Errorf("%w: redirect from %q to %q of a request with a token", ErrTransport, clip(via[0].URL.Host), clip(req.URL.Host))
	}
	return nil
}

// Request is one request. Its effect must be the same whether it arrives once or several times.
type Request struct {
	Method string // empty: GET
	URL    string
	Header http.Header
	// Body opens the body, once for each attempt; nil: no body. Size is its length in bytes.
	Body func() (io.ReadCloser, error)
	Size int64
	// Answer overrides Limits.Answer for requests whose answer takes its time.
	Answer time.Duration
}

// StatusError is an answer that is not a success.
type StatusError struct {
	Method, URL string
	Status      int
	Header      http.Header
	Body        []byte // the beginning of the answer, at most errorBody bytes, unverified
}

// errorBody bounds what is read of an answer that is not a success.
const errorBody = 64 << 10

// Error returns "GET https://...: 404 Not Found".
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Status, http.StatusText(e.Status))
}

// Status returns the status of the StatusError in err's chain, or 0.
func Status(err error) int {
	var s *StatusError
	if errors.As(err, &s) {
		return s.Status
	}
	return 0
}

// Do sends req until it is answered, and returns the first answer of class 2xx; the caller closes its body. Every other
// answer is a *StatusError. The body is read under Limits.MinRate and MaxSize and is not resumed: see Open.
func (c *Client) Do(ctx context.Context, req Request) (*http.Response, error) {
	if req.Method == "" {
		req.Method = http.MethodGet
	}
	for attempt := 1; ; attempt++ {
		resp, err := c.once(ctx, req)
		if err == nil {
			return resp, nil
		}
		pause, again := c.again(err, attempt)
		if ctx.Err() != nil || !again {
			return nil, err
		}
		if attempt >= c.limits.Attempts {
			return nil, fmt.Errorf("%w (attempt %d of %d)", err, attempt, c.limits.Attempts)
		}
		c.log.InfoContext(ctx, "request is repeated", "url", req.URL, "attempt", attempt+1, "pause", pause, "error", err)
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// Get returns the body behind a URL, at most most bytes.
func (c *Client) Get(ctx context.Context, url string, most int64) ([]byte, error) {
	body, info, err := c.Open(ctx, url, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if info.Size > most {
		return nil, fmt.Errorf("GET %s: %w: %d bytes, at most %d are allowed", url, ErrTooLarge, info.Size, most)
	}
	return readAll(body, "GET "+url, most)
}

// ReadBody reads and closes the body of an answer of Do, at most most bytes.
func ReadBody(resp *http.Response, most int64) ([]byte, error) {
	defer resp.Body.Close()
	return readAll(resp.Body, resp.Request.Method+" "+resp.Request.URL.Redacted(), most)
}

func readAll(body io.Reader, what string, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", what, ErrTooLarge, most)
	}
	return data, nil
}

// once sends req once.
func (c *Client) once(ctx context.Context, req Request) (*http.Response, error) {
	if _, err := CheckURL(req.URL); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	answer := req.Answer
	set(&answer, c.limits.Answer)
	deadline := startDeadline(answer, func() { cancel(fmt.Errorf("%w within %s", ErrSilent, answer)) })
	resp, err := c.send(ctx, req, deadline.extend)
	if !deadline.stop() && err == nil {
		resp.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		// The client reports a bare "context canceled" where a limit of ours has struck.
		if cause := context.Cause(ctx); errors.Is(cause, ErrSilent) && errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%s %s: %w", req.Method, req.URL, cause)
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &watched{body: resp.Body, ctx: ctx, cancel: cancel, rate: c.limits.MinRate, grace: c.limits.Grace, credit: c.limits.Grace, most: c.limits.MaxSize}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
			resp.Body.Close()
			return nil, fmt.Errorf("%s %s: content encoding %q was not asked for", req.Method, req.URL, clip(enc))
		}
		return resp, nil
	}
	defer resp.Body.Close()
	status := &StatusError{Method: req.Method, URL: req.URL, Status: resp.StatusCode, Header: resp.Header}
	// The explanation is welcome, not needed: an answer that breaks off is still an answer.
	status.Body, _ = io.ReadAll(io.LimitReader(resp.Body, errorBody))
	return nil, status
}

// send builds and sends the request. alive is called whenever a part of the body has gone out.
func (c *Client) send(ctx context.Context, req Request, alive func()) (*http.Response, error) {
	var body io.ReadCloser
	if req.Body != nil {
		opened, err := req.Body()
		if err != nil {
			return nil, fatal{err}
		}
		body = &outgoing{opened, alive}
	}
	out, err := http.NewRequestWithContext(ctx, req.Method, req.URL, body)
	if err != nil {
		if body != nil {
			body.Close()
		}
		return nil, fatal{err}
	}
	if body != nil {
		out.ContentLength = req.Size
		if req.Size == 0 {
			body.Close()
			out.Body = http.NoBody // otherwise a length of 0 means "unknown"
		}
	}
	for name, values := range req.Header {
		out.Header[name] = values
	}
	out.Header.Set("User-Agent", c.agent)
	out.Header.Set("Accept-Encoding", "identity")
	if c.token != "" {
		out.Header.Set("Authorization", "Bearer "+c.token)
	}
	return c.http.Do(out)
}

// fatal marks an error of this side, which another attempt would only repeat.
type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

// again says whether a failed attempt is worth another one, and after which pause.
func (c *Client) again(err error, attempt int) (time.Duration, bool) {
	pause := min(c.limits.MaxPause, c.limits.Pause<<min(attempt-1, 20))
	pause = pause/2 + rand.N(pause/2+1) // many clients that failed together do not come back together
	var (
		status    *StatusError
		ours      fatal
		untrusted *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		name      *net.DNSError
	)
	switch {
	case errors.As(err, &status):
		if status.Status != http.StatusTooManyRequests && (status.Status < 500 || status.Status == http.StatusNotImplemented) {
			return 0, false
		}
		wait, asked := retryAfter(status.Header)
		if !asked {
			return pause, true
		}
		return max(pause, wait), wait <= c.limits.RetryAfter
	case errors.As(err, &ours), errors.As(err, &untrusted), errors.As(err, &record), errors.Is(err, ErrTransport):
		return 0, false
	case errors.As(err, &name) && name.IsNotFound:
		return 0, false
	}
	return pause, true
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3). A date is compared with the Date of the same answer, so the
// clock of this machine does not matter.
func retryAfter(h http.Header) (time.Duration, bool) {
	text := h.Get("Retry-After")
	if text == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	from, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0, false
	}
	return max(0, at.Sub(from)), true
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// deadline runs a function unless it is extended or stopped in time. A body may still be going out when the answer has
// come in, so extending after the stop does nothing.
type deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	span    time.Duration
	stopped bool
}

func startDeadline(span time.Duration, fn func()) *deadline {
	return &deadline{timer: time.AfterFunc(span, fn), span: span}
}

func (d *deadline) extend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.timer.Reset(d.span)
	}
}

// stop reports whether the function has not run.
func (d *deadline) stop() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	return d.timer.Stop()
}

// outgoing tells that the body is still moving.
type outgoing struct {
	io.ReadCloser
	alive func()
}

func (o *outgoing) Read(p []byte) (int, error) {
	o.alive()
	return o.ReadCloser.Read(p)
}

// watched is a body under the limits. Time counts only while a reader waits for the server: a slow disk on this side is
// not the server's fault. Waiting spends credit, bytes earn it, and grace is the most that can be saved, so that a
// server cannot send fast first and stall for hours then.
type watched struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	rate   int64
	grace  time.Duration
	credit time.Duration
	most   int64
}

func (w *watched) Read(p []byte) (int, error) {
	if w.most <= 0 {
		return 0, fmt.Errorf("%w of one transfer", ErrTooLarge)
	}
	p = p[:min(int64(len(p)), w.most)]
	start := time.Now()
	timer := time.AfterFunc(w.credit, func() {
		w.cancel(fmt.Errorf("%w: less than %d bytes per second for %s", ErrSlow, w.rate, w.grace))
	})
	n, err := w.body.Read(p)
	timer.Stop()
	w.most -= int64(n)
	w.credit = min(w.grace, max(1, w.credit-time.Since(start)+time.Duration(n)*time.Second/time.Duration(w.rate)))
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(w.ctx); errors.Is(cause, ErrSlow) {
			err = cause
		}
	}
	return n, err
}

func (w *watched) Close() error {
	err := w.body.Close()
	w.cancel(nil)
	return err
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
