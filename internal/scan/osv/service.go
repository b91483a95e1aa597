// SPDX-License-Identifier: Apache-2.0

package osv

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/pawl-project/pawl/internal/evidence"
)

// Limits on a service.
const (
	maxAnswer   = 64 << 20 // bytes of one answer
	maxBatch    = 1000     // questions in one request, the service's own limit
	maxPages    = 100      // of the answer to one question
	maxParallel = 8        // records asked for at the same time
	attempts    = 5        // of one request
	maxWait     = 30 * time.Second
)

// DefaultService is the public OSV service.
const DefaultService = "https://api.osv.dev"

// ServiceOptions configure a Service.
type ServiceOptions struct {
	Options
	// Base is the service's address without "/v1"; empty is DefaultService.
	Base string
	// Client makes the requests; nil is a client with a time limit of a minute for one request.
	Client *http.Client
	// Backoff is the pause before the second attempt, doubled for each further one; zero is half a second.
	Backoff time.Duration
}

// Service is a database behind an OSV API. Only names and versions of components are sent. The first answer's date is the
// moment of the snapshot for all scans with one Service: what it has answered is kept, and a record that was changed later
// ends the scan, because a candidate and its predecessor must be judged by the same knowledge. Safe for concurrent use. It
// implements scan.Scanner.
type Service struct {
	opt  ServiceOptions
	base *url.URL

	mu      sync.Mutex // guards what follows
	moment  time.Time
	answers map[evidence.Package][]string // identifiers of the records that affect a package
	records map[string]*record
}

// NewService returns a Service. Nothing is asked yet.
func NewService(opt ServiceOptions) (*Service, error) {
	base, err := url.Parse(cmp.Or(opt.Base, DefaultService))
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, fmt.Errorf("address of the vulnerability service %q: an http or https URL is needed", opt.Base)
	}
	if opt.Client == nil {
		opt.Client = &http.Client{Timeout: time.Minute}
	}
	opt.Backoff = cmp.Or(opt.Backoff, 500*time.Millisecond)
	return &Service{opt: opt, base: base, answers: make(map[evidence.Package][]string), records: make(map[string]*record)}, nil
}

// Scan implements scan.Scanner.
func (s *Service) Scan(ctx context.Context, bom evidence.SBOM) (evidence.Report, error) {
	if err := s.prepare(ctx, bom); err != nil {
		if ctx.Err() != nil {
			return evidence.Report{}, context.Cause(ctx)
		}
		return evidence.Report{}, cannotUse("vulnerability service "+s.base.Redacted(), "%v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moment.IsZero() { // there was nothing to ask
		s.moment = s.opt.Now().UTC().Truncate(time.Second)
	}
	db := evidence.Database{Name: "OSV service", Snapshot: s.base.Redacted() + " at " + s.moment.Format(time.RFC3339), Updated: s.moment}
	return report(ctx, bom, s.opt.Options, db, func(_ context.Context, p evidence.Package) ([]*record, string, error) {
		var list []*record
		for _, id := range s.answers[p] {
			if r := s.records[id]; r.Withdrawn == "" {
				list = append(list, r)
			}
		}
		return list, "", nil
	})
}

// prepare asks for everything that a scan will need and is not known yet.
func (s *Service) prepare(ctx context.Context, bom evidence.SBOM) error {
	var ask []evidence.Package
	s.mu.Lock()
	for _, c := range bom.Components {
		p := c.Package()
		if _, known := s.answers[p]; !known && p.Ecosystem != "" && p.Version != "" && comparableVersions(p.Ecosystem) {
			ask = append(ask, p)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(ask, func(a, b evidence.Package) int {
		return cmp.Or(cmp.Compare(a.Ecosystem, b.Ecosystem), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	ask = slices.Compact(ask)
	for batch := range slices.Chunk(ask, maxBatch) {
		found, err := s.query(ctx, batch)
		if err != nil {
			return err
		}
		if err := s.fetch(ctx, found); err != nil {
			return err
		}
		s.mu.Lock()
		for i, p := range batch {
			s.answers[p] = found[i]
		}
		s.mu.Unlock()
	}
	return nil
}

// question and batchAnswer are the bodies of POST /v1/querybatch.
type question struct {
	Package name   `json:"package"`
	Version string `json:"version"`
	Page    string `json:"page_token,omitzero"`
}

type batchAnswer struct {
	Results []struct {
		Vulns []struct {
			ID string `json:"id"`
		} `json:"vulns"`
		Next string `json:"next_page_token"`
	} `json:"results"`
}

// query returns the identifiers of the records that affect each package.
func (s *Service) query(ctx context.Context, batch []evidence.Package) ([][]string, error) {
	found := make([][]string, len(batch))
	open := make([]int, len(batch)) // questions that have more pages
	pages := make([]string, len(batch))
	for i := range batch {
		open[i] = i
	}
	for range maxPages {
		if len(open) == 0 {
			return found, nil
		}
		var body struct {
			Queries []question `json:"queries"`
		}
		for _, i := range open {
			body.Queries = append(body.Queries, question{Package: name{batch[i].Ecosystem, batch[i].Name}, Version: batch[i].Version, Page: pages[i]})
		}
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		data, err := s.do(ctx, http.MethodPost, "v1/querybatch", text)
		if err != nil {
			return nil, err
		}
		var answer batchAnswer
		if err := json.Unmarshal(data, &answer); err != nil {
			return nil, fmt.Errorf("answer cannot be read: %w", err)
		}
		if len(answer.Results) != len(open) {
			return nil, fmt.Errorf("%d answers to %d questions", len(answer.Results), len(open))
		}
		var next []int
		for j, r := range answer.Results {
			i := open[j]
			for _, v := range r.Vulns {
				if !identifier.MatchString(v.ID) {
					return nil, fmt.Errorf("%q is not an identifier of a record", clip(v.ID, 80))
				}
				found[i] = append(found[i], v.ID)
			}
			if pages[i] = r.Next; r.Next != "" {
				next = append(next, i)
			}
		}
		open = next
	}
	return nil, fmt.Errorf("an answer of more than %d pages", maxPages)
}

// fetch gets the records that are not known yet.
func (s *Service) fetch(ctx context.Context, found [][]string) error {
	ids := slices.Concat(found...)
	slices.Sort(ids)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallel)
	for _, id := range slices.Compact(ids) {
		s.mu.Lock()
		_, known := s.records[id]
		s.mu.Unlock()
		if known {
			continue
		}
		group.Go(func() error {
			data, err := s.do(ctx, http.MethodGet, "v1/vulns/"+url.PathEscape(id), nil)
			if err != nil {
				return err
			}
			r, err := parse(data)
			switch {
			case err != nil:
				return fmt.Errorf("record %s cannot be read: %w", id, err)
			case r.ID != id:
				return fmt.Errorf("asked for record %s, got %s", id, r.ID)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if at, err := time.Parse(time.RFC3339, r.Modified); err != nil || at.After(s.moment) {
				return fmt.Errorf("record %s was changed at %s, while the scan was under way since %s: run it again", id, r.Modified, s.moment.Format(time.RFC3339))
			}
			s.records[id] = r
			return nil
		})
	}
	return group.Wait()
}

// errFinal marks an answer that another attempt would not change.
var errFinal = errors.New("refused")

// do makes one request, several times if it has to.
func (s *Service) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	wait := s.opt.Backoff
	for attempt := 1; ; attempt++ {
		data, after, err := s.once(ctx, method, path, body)
		if err == nil || ctx.Err() != nil || errors.Is(err, errFinal) {
			return data, err
		}
		if attempt == attempts {
			return nil, fmt.Errorf("%w (%d attempts)", err, attempts)
		}
		pause := time.NewTimer(min(max(wait, after), maxWait))
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, ctx.Err()
		case <-pause.C:
		}
		wait *= 2
	}
}

func (s *Service) once(ctx context.Context, method, path string, body []byte) (data []byte, after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errFinal, err)
	}
	req.Header.Set("User-Agent", strings.TrimSuffix(s.opt.Tool.Name+"/"+s.opt.Tool.Version, "/"))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.opt.Client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
			after = time.Duration(min(seconds, int(maxWait/time.Second))) * time.Second
		}
		return nil, after, fmt.Errorf("%s %s: %s", method, path, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, 0, fmt.Errorf("%w: %s %s: %s", errFinal, method, path, resp.Status)
	}
	if data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err != nil {
		return nil, 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if len(data) > maxAnswer {
		return nil, 0, fmt.Errorf("%w: %s %s: an answer of more than %d bytes", errFinal, method, path, maxAnswer)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moment.IsZero() {
		at, err := http.ParseTime(resp.Header.Get("Date"))
		if err != nil {
			at = s.opt.Now()
		}
		s.moment = at.UTC().Truncate(time.Second)
	}
	return data, 0, nil
}
