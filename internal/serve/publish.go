// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/trust"
)

// usedStep is how exactly the last use of a token is noted: every note is a write.
const usedStep = time.Minute

// authenticated asks for a token before a handler runs, and answers for it if it fails.
func (s *Server) authenticated(handle func(w http.ResponseWriter, r *http.Request, t store.Token) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t, err := s.token(r)
		if err != nil {
			if refusal.Of(err) == refusal.Unauthorised {
				s.noteRefused(r, store.Event{Outcome: err.Error()})
				w.Header().Set("WWW-Authenticate", `Bearer realm="pawl"`)
				s.problem(w, http.StatusUnauthorized, repository.ProblemOf(err))
				return
			}
			s.fail(w, r, err)
			return
		}
		if err := handle(w, r, t); err != nil {
			if refusal.Of(err) == refusal.Unauthorised {
				s.noteRefused(r, store.Event{Actor: t.ID, Product: r.PathValue("product"), Outcome: err.Error()})
			}
			s.fail(w, r, err)
		}
	}
}

// token returns the token that a request shows.
func (s *Server) token(r *http.Request) (store.Token, error) {
	unknown := func(format string, args ...any) error {
		return refusal.New(refusal.Unauthorised, "publish token", format, args...).
			Do("ask the operator of the server for one (\"pawl serve token add\")")
	}
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "bearer") || secret == "" {
		return store.Token{}, unknown("none was given")
	}
	id, ok := store.TokenID(secret)
	if !ok {
		return store.Token{}, unknown("it is not a token of this server")
	}
	t, err := s.opt.Store.Token(r.Context(), id)
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		return store.Token{}, err
	}
	// A token that is not there is compared too, so that it takes as long. That one was revoked is told only to whoever has it.
	if !t.Admits(secret) {
		return store.Token{}, unknown("it is not known here, or was revoked")
	}
	if now := s.opt.Now(); now.Sub(t.LastUsed) > usedStep {
		if err := s.opt.Store.UseToken(r.Context(), t.ID, now); err != nil {
			return store.Token{}, err
		}
	}
	return t, nil
}

// noteRefused counts and records a caller that was refused.
func (s *Server) noteRefused(r *http.Request, e store.Event) {
	s.metrics.refused.Inc()
	e.At, e.Action, e.Remote = s.opt.Now(), store.ActionAuth, s.remote(r)
	if s.refused.allow(e.At, s.limits.Refused) {
		s.audit(detached(r), e)
	}
}

// remote returns the address of a caller.
func (s *Server) remote(r *http.Request) string {
	if s.opt.BehindProxy {
		list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if ip := net.ParseIP(strings.TrimSpace(list[len(list)-1])); ip != nil {
			return ip.String()
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// audit records an event. What was done stays done if that fails.
func (s *Server) audit(ctx context.Context, e store.Event) {
	if len(e.Outcome) > store.MaxText {
		e.Outcome = e.Outcome[:store.MaxText]
	}
	if err := s.opt.Store.AddEvent(ctx, e); err != nil {
		s.log.Error("event is not recorded", "action", e.Action, "outcome", e.Outcome, "error", err)
	}
}

// allow refuses a token that is not for a product.
func allow(t store.Token, product string) error {
	if t.For(product) {
		return nil
	}
	return refusal.New(refusal.Unauthorised, "publish token "+t.Name, "it is for %s, not for %q", tokenScope(t), clip(product)).
		Do("use a token for the product")
}

func tokenScope(t store.Token) string { return "product " + strings.Join(t.Products, ", ") }

func (s *Server) getMetadata(w http.ResponseWriter, r *http.Request, t store.Token) error {
	role := r.PathValue("role")
	switch role {
	case trust.RootRole, trust.TargetsRole, trust.SnapshotRole, trust.TimestampRole:
	default:
		if err := allow(t, role); err != nil {
			return err
		}
	}
	doc, err := s.opt.Repository.Metadata(r.Context(), role)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(doc)
	return nil
}

// staged reads the digest in the path.
func staged(r *http.Request) (digest.SHA256, error) {
	d, err := digest.ParseHex(r.PathValue("digest"))
	if err != nil {
		return d, refusal.New(refusal.Malformed, "upload", "%w", err)
	}
	return d, nil
}

func (s *Server) headStaging(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	d, err := staged(r)
	if err != nil {
		return err
	}
	size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	if err != nil {
		return refusal.New(refusal.Malformed, "upload "+d.String(), "size: %w", err)
	}
	received, done, err := s.opt.Repository.Staged(r.Context(), d, size)
	if err != nil {
		return err
	}
	s.offset(w, http.StatusNoContent, received, done)
	return nil
}

// offset answers how far an upload is.
func (s *Server) offset(w http.ResponseWriter, status int, received int64, done bool) {
	h := w.Header()
	h.Set(repository.HeaderOffset, strconv.FormatInt(received, 10))
	h.Set(repository.HeaderComplete, "?0")
	if done {
		h.Set(repository.HeaderComplete, "?1")
	}
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

func (s *Server) putStaging(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	d, err := staged(r)
	if err != nil {
		return err
	}
	first, size, err := contentRange(r)
	if err != nil {
		return refusal.New(refusal.Malformed, "upload "+d.String(), "%w", err)
	}
	if !s.uploads.enter() {
		s.tooMuch(w)
		return nil
	}
	defer s.uploads.leave()
	body := upload{http.NewResponseController(w), http.MaxBytesReader(w, r.Body, size-first), s.limits.Stall}
	received, done, err := s.opt.Repository.StagePart(r.Context(), d, size, first, body)
	s.metrics.uploaded.Add(float64(max(0, received-first)))
	switch {
	case errors.Is(err, blob.ErrChanged) || errors.Is(err, blob.ErrOffset):
		// The upload is elsewhere: the header says where it goes on.
		w.Header().Set(repository.HeaderOffset, strconv.FormatInt(received, 10))
		s.problem(w, http.StatusConflict, repository.Problem{Failed: fmt.Sprintf("the upload goes on at byte %d", received)})
		return nil
	case err != nil:
		return err
	case done:
		s.offset(w, http.StatusCreated, received, true)
	default:
		s.offset(w, http.StatusAccepted, received, false)
	}
	return nil
}

// contentRange reads the range of an upload (RFC 9110, section 14.4): it must go to the end of the body. Without one the
// body is the whole.
func contentRange(r *http.Request) (first, size int64, err error) {
	text := r.Header.Get("Content-Range")
	if text == "" {
		if r.ContentLength < 0 {
			return 0, 0, errors.New("neither Content-Range nor Content-Length")
		}
		return 0, r.ContentLength, nil
	}
	bad := fmt.Errorf("content range %q, want bytes FIRST-LAST/SIZE", clip(text))
	span, ok := strings.CutPrefix(text, "bytes ")
	span, total, ok2 := strings.Cut(span, "/")
	from, to, ok3 := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	switch {
	case !ok || !ok2 || !ok3 || errors.Join(err1, err2, err3) != nil || first < 0 || last < first || last >= size:
		return 0, 0, bad
	case r.ContentLength >= 0 && r.ContentLength != last-first+1:
		return 0, 0, fmt.Errorf("%w, with %d bytes", bad, r.ContentLength)
	}
	return first, size, nil
}

func (s *Server) postPublish(w http.ResponseWriter, r *http.Request, t store.Token) error {
	product := r.PathValue("product")
	if err := allow(t, product); err != nil {
		return err
	}
	doc, err := s.readBody(w, r, trust.MaxRole)
	if err != nil {
		return err
	}
	if !s.changes.enter() {
		s.tooMuch(w)
		return nil
	}
	defer s.changes.leave()
	ctx := detached(r)
	err = s.opt.Repository.Publish(ctx, product, doc)
	s.metrics.publish(store.ActionPublish, err)
	s.audit(ctx, store.Event{At: s.opt.Now(), Action: store.ActionPublish, Actor: t.ID, Product: clip(product), Outcome: outcome(err)})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) postTrust(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if !t.ForAll() {
		return refusal.New(refusal.Unauthorised, "publish token "+t.Name, "it is for %s, not for the trust of the repository", tokenScope(t)).
			Do("use a token without a product")
	}
	body, err := s.readBody(w, r, repository.MaxTrustUpdate)
	if err != nil {
		return err
	}
	var update repository.TrustUpdate
	if err := json.Unmarshal(body, &update, json.RejectUnknownMembers(true)); err != nil {
		return refusal.New(refusal.Malformed, "trust update", "%w", err)
	}
	if len(update.Roots) > trust.MaxRootSteps {
		return refusal.New(refusal.Malformed, "trust update", "%d roots, at most %d are allowed", len(update.Roots), trust.MaxRootSteps)
	}
	if !s.changes.enter() {
		s.tooMuch(w)
		return nil
	}
	defer s.changes.leave()
	ctx := detached(r)
	err = s.opt.Repository.Trust(ctx, update.Roots, update.Targets)
	s.metrics.publish(store.ActionTrust, err)
	s.audit(ctx, store.Event{At: s.opt.Now(), Action: store.ActionTrust, Actor: t.ID, Outcome: outcome(err)})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func outcome(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
