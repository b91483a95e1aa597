// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Deadlines are those of the operating system, so its clock counts. Only a writer of a test has none.
	out := &writer{ResponseWriter: w, rc: http.NewResponseController(w), stall: s.limits.Stall}
	// A connection may carry the deadline of the request before.
	out.deadline(time.Time{})
	if r.Body != http.NoBody {
		// Also for a body that nobody here reads: net/http does, when the answer is out.
		_ = out.rc.SetReadDeadline(time.Now().Add(s.limits.Body))
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", s.page.policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	done := s.metrics.request(r, out)
	defer done()
	if !s.requests.enter() {
		s.tooMuch(out)
		return
	}
	defer s.requests.leave()
	if unclean(r.URL.Path) {
		http.NotFound(out, r)
		return
	}
	s.handler.ServeHTTP(out, r)
}

// unclean finds paths that mean something else than they say: no redirect to what they mean.
func unclean(p string) bool {
	return p == "" || p[0] != '/' || p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/") || strings.ContainsRune(p, '\\')
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata/{name...}", s.getFile)
	mux.HandleFunc("GET /targets/{name...}", s.getFile)
	mux.HandleFunc("GET /healthz", s.getHealth)
	mux.HandleFunc("GET /metrics", s.metrics.ServeHTTP)
	mux.HandleFunc("GET /{$}", s.getPage)
	mux.HandleFunc("GET "+repository.PathMetadata+"{role}", s.authenticated(s.getMetadata))
	mux.HandleFunc("HEAD "+repository.PathStaging+"{digest}", s.authenticated(s.headStaging))
	mux.HandleFunc("PUT "+repository.PathStaging+"{digest}", s.authenticated(s.putStaging))
	mux.HandleFunc("POST "+repository.PathPublish+"{product}", s.authenticated(s.postPublish))
	mux.HandleFunc("POST "+repository.PathTrust, s.authenticated(s.postTrust))
	mux.HandleFunc("POST /api/v1/reports", s.postReport)
	return mux
}

// tooMuch asks the caller to come back, at a time that differs from caller to caller.
func (s *Server) tooMuch(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(retrySeconds+rand.IntN(retrySeconds+1)))
	s.problem(w, http.StatusTooManyRequests, repository.Problem{Failed: "too much is being done at once; try again"})
}

// statuses are those of the refusals that are not 422: "understood, and refused" (RFC 9110, section 15.5.21).
var statuses = map[refusal.Class]int{
	refusal.Unauthorised: http.StatusForbidden,
	refusal.Malformed:    http.StatusBadRequest,
	refusal.Conflict:     http.StatusConflict,
	refusal.Busy:         http.StatusTooManyRequests,
}

// fail answers with what the caller may know of an error; the log knows the rest.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var large *http.MaxBytesError
	switch class := refusal.Of(err); {
	case class == refusal.Busy:
		w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(retrySeconds)))
		fallthrough
	case class != "":
		status := statuses[class]
		if status == 0 {
			status = http.StatusUnprocessableEntity
		}
		s.problem(w, status, repository.ProblemOf(err))
	case errors.As(err, &large):
		w.Header().Set("Connection", "close")
		s.problem(w, http.StatusRequestEntityTooLarge, repository.ProblemOf(refusal.New(refusal.Malformed, "request", "more than %d bytes", large.Limit)))
	case errors.Is(err, blob.ErrNotExist):
		s.problem(w, http.StatusNotFound, repository.Problem{Failed: "there is no such document"})
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		s.problem(w, http.StatusRequestTimeout, repository.Problem{Failed: "the request did not arrive in time"})
	case errors.Is(err, io.ErrUnexpectedEOF) || r.Context().Err() != nil:
		s.problem(w, http.StatusBadRequest, repository.Problem{Failed: "the request broke off"})
	case errors.Is(err, syscall.ENOSPC):
		s.log.Error("disk is full", "request", r.Pattern, "error", err)
		s.problem(w, http.StatusInsufficientStorage, repository.Problem{Failed: "the disk of the server is full"})
	default:
		s.log.Error("request failed", "request", r.Pattern, "error", err)
		s.problem(w, http.StatusInternalServerError, repository.ProblemOf(err))
	}
}

func (s *Server) problem(w http.ResponseWriter, status int, p repository.Problem) {
	s.json(w, status, p)
}

func (s *Server) json(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // cannot happen with our own types
		status, data = http.StatusInternalServerError, []byte("{}")
	}
	data = append(data, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(data) // whoever is gone needs no answer
}

// readBody reads a body of at most most bytes, within Limits.Body from the beginning of the request.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	if r.ContentLength > most {
		return nil, &http.MaxBytesError{Limit: most}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return nil, fmt.Errorf("cannot read request: %w", err)
	}
	// Left there, the deadline would end the request while it is worked on.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return data, nil
}

// upload is a large body: as long as it goes on coming in, it may take its time.
type upload struct {
	rc    *http.ResponseController
	src   io.Reader
	stall time.Duration
}

func (u upload) Read(p []byte) (int, error) {
	_ = u.rc.SetReadDeadline(time.Now().Add(u.stall))
	n, err := u.src.Read(p)
	if errors.Is(err, io.EOF) {
		_ = u.rc.SetReadDeadline(time.Time{}) // what follows is our own work
	}
	return n, err
}

// writer is an answer on its way: it notes what it was, and gives the other side Limits.Stall for each step.
type writer struct {
	http.ResponseWriter
	rc     *http.ResponseController
	stall  time.Duration
	status int
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) deadline(t time.Time) { _ = w.rc.SetWriteDeadline(t) }

func (w *writer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
		w.deadline(time.Now().Add(w.stall))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (written int, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	for {
		step := p[:min(len(p), writeStep)]
		w.deadline(time.Now().Add(w.stall))
		n, err := w.ResponseWriter.Write(step)
		written += n
		w.bytes += int64(n)
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

// ReadFrom lets the operating system send files itself, a step at a time.
func (w *writer) ReadFrom(src io.Reader) (written int64, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	// A limited file is sent by the operating system; a limited limited file is not.
	limited, ok := src.(*io.LimitedReader)
	for {
		step := &io.LimitedReader{R: src, N: writeStep}
		if ok {
			step.R, step.N = limited.R, min(limited.N, writeStep)
		}
		want := step.N
		w.deadline(time.Now().Add(w.stall))
		n, err := io.Copy(w.ResponseWriter, step)
		written += n
		w.bytes += n
		if ok {
			limited.N -= n
		}
		if err != nil || n < want || n == 0 {
			return written, err
		}
	}
}

// detached is the context of a change that is brought to its end although the caller may be gone.
func detached(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }
