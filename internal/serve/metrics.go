// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/repository"
)

// metrics are what /metrics shows, in a registry of their own. No label holds anything that a caller chooses.
type metrics struct {
	http.Handler
	requests *prometheus.CounterVec   // by area and status
	seconds  *prometheus.HistogramVec // by area
	sent     *prometheus.CounterVec   // bytes, by area
	uploaded prometheus.Counter       // bytes
	changes  *prometheus.CounterVec   // by action and outcome
	reports  *prometheus.CounterVec   // by state
	refused  prometheus.Counter
}

func newMetrics(s *Server) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("pawl_http_requests_total", "Requests that were answered.", "area", "status"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pawl_http_request_seconds", Help: "Time to answer a request.", Buckets: []float64{.001, .01, .1, 1, 10, 100},
		}, []string{"area"}),
		sent:     counter("pawl_http_sent_bytes_total", "Bytes of answers.", "area"),
		uploaded: prometheus.NewCounter(prometheus.CounterOpts{Name: "pawl_uploaded_bytes_total", Help: "Bytes that publishers have uploaded."}),
		changes:  counter("pawl_changes_total", "Changes of the repository that were tried.", "action", "outcome"),
		reports:  counter("pawl_reports_total", "Reports of devices.", "state"),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "pawl_refused_callers_total", Help: "Callers without a valid token."}),
	}
	expires := func(name, help string, of func(repository.Summary) time.Time) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			summary, err := s.summary(context.Background())
			if err != nil {
				return 0
			}
			return float64(of(summary).Unix())
		})
	}
	r := prometheus.NewRegistry()
	r.MustRegister(m.requests, m.seconds, m.sent, m.uploaded, m.changes, m.reports, m.refused,
		expires("pawl_timestamp_expires_seconds", "When the timestamp expires, as Unix time; 0: not known.", func(s repository.Summary) time.Time { return s.Timestamp.Expires }),
		expires("pawl_expires_seconds", "When the first document that every device needs expires, as Unix time; 0: not known.", func(s repository.Summary) time.Time { at, _ := s.Expires(); return at }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pawl_healthy", Help: "1 if /healthz is ok."}, func() float64 {
			if s.health(context.Background()).Status == "ok" {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pawl_http_requests_active", Help: "Requests that are being answered."}, func() float64 {
			return float64(len(s.requests))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pawl_build_info", Help: "1.", ConstLabels: prometheus.Labels{"version": s.opt.Version}}, func() float64 { return 1 }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.Handler = promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true})
	return m
}

// request notes a request when it is over.
func (m *metrics) request(r *http.Request, w *writer) (done func()) {
	began := time.Now()
	area := "other"
	if r.URL.Path == "/" {
		area = "page"
	}
	for _, known := range []string{"/metadata/", "/targets/", repository.PathStaging, repository.PathPublish, repository.PathTrust, repository.PathMetadata, "/api/v1/reports", "/healthz", "/metrics"} {
		if strings.HasPrefix(r.URL.Path, known) {
			area = strings.Trim(known, "/")
			break
		}
	}
	return func() {
		m.requests.WithLabelValues(area, strconv.Itoa(w.status)).Inc()
		m.seconds.WithLabelValues(area).Observe(time.Since(began).Seconds())
		m.sent.WithLabelValues(area).Add(float64(w.bytes))
	}
}

// publish notes a change.
func (m *metrics) publish(action string, err error) {
	outcome := "done"
	if err != nil {
		outcome = "error"
		if class := refusal.Of(err); class != "" {
			outcome = string(class)
		}
	}
	m.changes.WithLabelValues(action, outcome).Inc()
}
