// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"errors"
	"net/http"
	"slices"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/store"
)

// postReport takes what a device says. Who may say it is not checked: a report decides nothing, and a device needs no
// secret to get an update. Its address is neither kept nor logged.
func (s *Server) postReport(w http.ResponseWriter, r *http.Request) {
	if err := s.report(w, r); err != nil {
		s.metrics.reports.WithLabelValues("refused").Inc()
		s.fail(w, r, err)
	}
}

func (s *Server) report(w http.ResponseWriter, r *http.Request) error {
	if !s.reports.allow(s.opt.Now(), s.limits.Reports) {
		s.tooMuch(w)
		return nil
	}
	body, err := s.readBody(w, r, maxReport)
	if err != nil {
		return err
	}
	var report store.Report
	bad := func(format string, args ...any) error {
		return refusal.New(refusal.Malformed, "report", format, args...)
	}
	if err := json.Unmarshal(body, &report, json.RejectUnknownMembers(true)); err != nil {
		return bad("%w", err)
	}
	if !report.Received.IsZero() {
		return bad("the time of arrival is not for the device to say")
	}
	if err := report.Check(); err != nil {
		return bad("%w", err)
	}
	summary, err := s.summary(r.Context())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(summary.Products, func(p repository.ProductSummary) bool { return p.Name == report.Product }) {
		return refusal.New(refusal.WrongTarget, "report", "product %q is not of this repository", report.Product)
	}
	report.Received = s.opt.Now().UTC()
	err = s.opt.Store.AddReport(r.Context(), report)
	if errors.Is(err, store.ErrFull) {
		s.log.Warn("report is not taken", "product", report.Product, "error", err)
		s.tooMuch(w)
		return nil
	}
	if err != nil {
		return err
	}
	s.metrics.reports.WithLabelValues(string(report.State)).Inc()
	w.WriteHeader(http.StatusNoContent)
	return nil
}
