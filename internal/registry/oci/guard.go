// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// errStalled reports a registry that sends nothing although it should.
var errStalled = errors.New("the registry has stopped sending")

// guard cuts a connection on which nothing moves for the time stall: no byte of the request leaves, no answer begins, or no
// byte of the answer comes while somebody waits for it.
type guard struct {
	base  http.RoundTripper
	stall time.Duration
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(g.stall, func() { cancel(errStalled) })
	req = req.Clone(ctx)
	var answered atomic.Bool
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watched{ReadCloser: req.Body, ctx: ctx, end: func() {
			if !answered.Load() {
				timer.Reset(g.stall)
			}
		}}
	}
	resp, err := g.base.RoundTrip(req)
	answered.Store(true)
	timer.Stop()
	if err != nil {
		defer cancel(nil)
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			return nil, stalled{err}
		}
		return nil, err
	}
	resp.Body = &watched{
		ReadCloser: resp.Body, ctx: ctx,
		begin: func() { timer.Reset(g.stall) }, end: func() { timer.Stop() }, closed: func() { timer.Stop(); cancel(nil) },
	}
	return resp, nil
}

// watched calls back around every read.
type watched struct {
	io.ReadCloser
	ctx                context.Context
	begin, end, closed func() // nil: nothing to do
}

func (w *watched) Read(p []byte) (int, error) {
	call(w.begin)
	n, err := w.ReadCloser.Read(p)
	call(w.end)
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		err = stalled{err}
	}
	return n, err
}

func (w *watched) Close() error {
	defer call(w.closed)
	return w.ReadCloser.Close()
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// stalled is errStalled with what the transport made of it. It does not unwrap to the transport's error, which is that of
// a cancelled context: nobody has cancelled anything.
type stalled struct{ error }

func (s stalled) Error() string        { return errStalled.Error() }
func (s stalled) Is(target error) bool { return target == errStalled }
