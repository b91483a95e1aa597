// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/trust"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// newest is how many releases of a product the page shows.
const newest = 5

// page is what people see who come with a browser. No scripts, nothing from elsewhere.
type page struct {
	template *template.Template
	policy   string
}

func newPage() (*page, error) {
	t, err := template.New("page").Funcs(template.FuncMap{
		"date": func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
		"css":  func() template.CSS { return template.CSS(pageCSS) }, //nolint:gosec // ours, embedded
	}).Parse(pageHTML)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(pageCSS))
	return &page{t, "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}, nil
}

// pageData is what the template shows.
type pageData struct {
	URL     string
	Version string
	Root    string // digest of the first root
	Health  health
	repository.Summary
}

// Newest returns the releases that the page shows.
func (pageData) Newest(p repository.ProductSummary) []repository.ReleaseSummary {
	return p.Releases[:min(newest, len(p.Releases))]
}

func (s *Server) getPage(w http.ResponseWriter, r *http.Request) {
	summary, err := s.summary(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	root, err := blob.ReadAll(r.Context(), s.opt.Blobs, trust.MetadataName(trust.RootRole, 1), trust.MaxRoot)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	scheme := "http://"
	if r.TLS != nil || s.opt.BehindProxy {
		scheme = "https://"
	}
	var out bytes.Buffer
	data := pageData{URL: scheme + r.Host, Version: s.opt.Version, Root: digest.Of(root).String(), Health: s.health(r.Context()), Summary: summary}
	if err := s.page.template.Execute(&out, data); err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(out.Len()))
	h.Set("Cache-Control", changing)
	_, _ = w.Write(out.Bytes())
}
