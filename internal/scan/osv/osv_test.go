// SPDX-License-Identifier: Apache-2.0

package osv

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/scan"
	"github.com/pawl-project/pawl/internal/scan/scantest"
)

func options() Options {
	return Options{
		Tool: evidence.Tool{Name: "pawl", Version: "1.0.0"},
		Now:  func() time.Time { return time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC) },
	}
}

// write puts records into a folder, or into an archive in it.
func write(t testing.TB, dir string, archive bool, records ...string) string {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i, r := range records {
		name := fmt.Sprintf("%d.json", i)
		if !archive {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(r), 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if archive {
		if err := os.WriteFile(filepath.Join(dir, "all.zip"), out.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, dir string, opt Options) *Folder {
	t.Helper()
	f, err := OpenFolder(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestContract(t *testing.T) {
	for name, archive := range map[string]bool{"files": false, "archive": true} {
		t.Run(name, func(t *testing.T) {
			scantest.Run(t, func(t *testing.T, records []string) scan.Scanner {
				return open(t, write(t, t.TempDir(), archive, records...), options())
			})
		})
	}
	t.Run("service", func(t *testing.T) {
		scantest.Run(t, func(t *testing.T, records []string) scan.Scanner {
			return service(t, newPeer(t, records...))
		})
	})
}

func TestSnapshot(t *testing.T) {
	records := scantest.Records()
	files := open(t, write(t, t.TempDir(), false, records...), options()).Database()
	slices.Reverse(records)
	archive := open(t, write(t, t.TempDir(), true, records...), options()).Database()
	if files != archive || files.Records != len(records) || files.Updated.Format(time.DateOnly) != "2026-11-20" {
		t.Errorf("order or packing changes the snapshot: %+v %+v", files, archive)
	}
	fewer := open(t, write(t, t.TempDir(), false, records[1:]...), options()).Database()
	if fewer.Snapshot == files.Snapshot {
		t.Error("a record less gives the same snapshot")
	}
	both := write(t, t.TempDir(), true, records...)
	write(t, both, false, records...)
	if twice := open(t, both, options()).Database(); twice != files {
		t.Errorf("the same records twice give another snapshot: %+v", twice)
	}
}

func TestLaterRecordCounts(t *testing.T) {
	old := scantest.Record{ID: "GO-1", Ecosystem: "Go", Package: "a", Events: []string{"introduced 0"}, Modified: "2026-11-01T00:00:00Z"}
	later := scantest.Record{ID: "GO-1", Ecosystem: "Go", Package: "a", Events: []string{"introduced 0", "fixed 1.0.0"}, Modified: "2026-11-02T00:00:00.5Z"}
	for _, records := range [][]string{{old.JSON(), later.JSON()}, {later.JSON(), old.JSON()}} {
		r, err := open(t, write(t, t.TempDir(), false, records...), options()).Scan(t.Context(), scantest.SBOM("pkg:golang/a@1.0.0"))
		if err != nil || len(r.Findings) != 0 || r.Database.Records != 1 {
			t.Errorf("%v %+v", err, r)
		}
	}
}

func TestEcosystemWithoutRecords(t *testing.T) {
	f := open(t, write(t, t.TempDir(), false, scantest.Record{ID: "GO-1", Ecosystem: "Go", Package: "a", Events: []string{"introduced 0"}}.JSON()), options())
	r, err := f.Scan(t.Context(), scantest.SBOM("pkg:npm/a@1.0.0", "pkg:golang/b@1.0.0"))
	if err != nil || r.Checked != 1 || len(r.Unchecked) != 1 || !strings.Contains(r.Unchecked[0].Why, "no record of ecosystem npm") {
		t.Errorf("%v %+v", err, r)
	}
}

func TestRecordsThatCannotBeCompared(t *testing.T) {
	for name, r := range map[string]scantest.Record{
		"version in a record": {ID: "X-1", Ecosystem: "Debian:12", Package: "a", Type: "ECOSYSTEM", Events: []string{"introduced 0", "fixed not:a:version"}},
		"limit in a record":   {ID: "X-1", Ecosystem: "Debian:12", Package: "a", Type: "ECOSYSTEM", Events: []string{"introduced 0", "limit not:a:version"}},
		"version in a list":   {ID: "X-1", Ecosystem: "Debian:12", Package: "a", Versions: []string{"not:a:version"}},
		"only commits":        {ID: "X-1", Ecosystem: "Debian:12", Package: "a", Type: "GIT", Events: []string{"introduced 0"}},
		"long version":        {ID: "X-1", Ecosystem: "Debian:12", Package: "a", Versions: []string{strings.Repeat("1", 2000)}},
	} {
		f := open(t, write(t, t.TempDir(), false, r.JSON()), options())
		got, err := f.Scan(t.Context(), scantest.SBOM("pkg:deb/debian/a@1.0?distro=debian-12"))
		if err != nil || len(got.Unchecked) != 1 || len(got.Findings) != 0 || !strings.Contains(got.Unchecked[0].Why, "record X-1") {
			t.Errorf("%s: %v %+v", name, err, got)
		}
	}
}

func TestRanges(t *testing.T) {
	for _, test := range []struct {
		events  string
		version string
		want    bool
	}{
		{"introduced 0,fixed 1.0.0", "0.9.0", true},
		{"introduced 0,fixed 1.0.0", "1.0.0", false},
		{"fixed 1.0.0,introduced 0", "0.9.0", true},     // not in order
		{"introduced 1.0.0,fixed 1.0.0", "1.0.0", true}, // contradicts itself: counts
		{"introduced 1.0.0,fixed 1.1.0,introduced 2.0.0,fixed 2.1.0", "1.5.0", false},
		{"introduced 1.0.0,fixed 1.1.0,introduced 2.0.0,fixed 2.1.0", "2.0.5", true},
		{"introduced 0,last_affected 1.0.0", "1.0.0", true},
		{"introduced 0,last_affected 1.0.0", "1.0.1", false},
		{"introduced 0,limit 2.0.0", "1.9.9", true},
		{"introduced 0,limit 2.0.0", "2.0.0", false},
		{"introduced 0,limit *", "2.0.0", true},
		{"introduced 0,limit 1.0.0,limit 3.0.0", "2.0.0", true},
		{"", "1.0.0", false},
		{"fixed 2.0.0", "1.0.0", false},
		{"introduced 1.0.0", "1.0.0-rc.1", false},
	} {
		record, err := parse([]byte(scantest.Record{ID: "X-1", Ecosystem: "Go", Package: "a", Events: strings.FieldsFunc(test.events, func(r rune) bool { return r == ',' })}.JSON()))
		if err != nil {
			t.Fatal(err)
		}
		if hit, err := record.hits(evidence.Package{Ecosystem: "Go", Name: "a", Version: test.version}); hit != test.want || err != nil {
			t.Errorf("%s in [%s]: %t %v", test.version, test.events, hit, err)
		}
	}
}

func TestLowestFixIsUnaffected(t *testing.T) {
	var list []*record
	for _, r := range []scantest.Record{
		{ID: "A", Ecosystem: "Go", Package: "a", Events: []string{"introduced 0", "fixed 1.1.0"}},
		{ID: "B", Ecosystem: "Go", Package: "a", Events: []string{"introduced 0", "fixed 1.0.5", "introduced 1.1.0", "fixed 1.2.0"}},
	} {
		parsed, err := parse([]byte(r.JSON()))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, parsed)
	}
	if got := lowestFix(evidence.Package{Ecosystem: "Go", Name: "a", Version: "1.0.0"}, list); got != "1.2.0" {
		t.Errorf("got %q", got)
	}
}

func TestMergeJoinsThroughOthers(t *testing.T) {
	var list []*record
	for _, r := range []scantest.Record{
		{ID: "GHSA-1", Aliases: []string{"CVE-1"}}, {ID: "GO-1", Aliases: []string{"CVE-2"}}, {ID: "PYSEC-1", Aliases: []string{"CVE-1", "CVE-2"}}, {ID: "X-1"}, {ID: "CVE-1"},
	} {
		parsed, err := parse([]byte(r.JSON()))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, parsed)
	}
	got := merge(evidence.Package{}, list)
	if len(got) != 2 || got[0].ID != "GHSA-1" || strings.Join(got[0].Aliases, " ") != "CVE-1 CVE-2 GO-1 PYSEC-1" || got[1].ID != "X-1" {
		t.Errorf("%+v", got)
	}
}

func TestSeverity(t *testing.T) {
	for score, want := range map[string]evidence.Severity{
		"CVSS_V3 CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H":                    evidence.Critical, // 9.8
		"CVSS_V3 CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H":                    evidence.High,     // 7.5
		"CVSS_V3 CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N":                    evidence.Medium,   // 5.3
		"CVSS_V4 CVSS:4.0/AV:L/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N": evidence.Low,
		"CVSS_V4 CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N": evidence.Critical,
		"CVSS_V2 AV:N/AC:L/Au:N/C:P/I:P/A:P":                                      evidence.High, // 7.5
		"CVSS_V2 (AV:N/AC:L/Au:N/C:N/I:N/A:P)":                                    evidence.Medium,
		"CVSS_V3 CVSS:3.1/AV:N":                                                   evidence.Unknown,
		"CVSS_V3 7.5":                                                             evidence.Unknown,
		"CVSS_V3 " + strings.Repeat("CVSS:3.1/", 500):                             evidence.Unknown,
		"Ubuntu negligible":                                                       evidence.Low,
		"Ubuntu important":                                                        evidence.High,
		"Other 1":                                                                 evidence.Unknown,
	} {
		kind, vector, _ := strings.Cut(score, " ")
		r := record{Severity: []rating{{Type: kind, Score: vector}}}
		if got := r.severity(evidence.Package{}); got != want {
			t.Errorf("%s: %s, want %s", score, got, want)
		}
	}
	for text, want := range map[string]evidence.Severity{
		`{"severity":[{"type":"CVSS_V2","score":"AV:N/AC:L/Au:N/C:C/I:C/A:C"},{"type":"CVSS_V4","score":"CVSS:4.0/AV:L/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N"}]}`: evidence.Low, // the newest counts
		`{"database_specific":{"severity":"HIGH"},"severity":[{"type":"CVSS_V3","score":"broken"}]}`:                                                                          evidence.High,
		`{"database_specific":{"severity":{"odd":1}}}`: evidence.Unknown,
		`{"database_specific":null}`:                   evidence.Unknown,
		`{"database_specific":[1]}`:                    evidence.Unknown,
		`{"affected":[{"package":{"ecosystem":"Go","name":"a"},"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]},{"package":{"ecosystem":"Go","name":"b"}}]}`: evidence.Critical,
		`{"affected":[{"package":{"ecosystem":"Go","name":"a"},"ecosystem_specific":{"severity":"Low"}}]}`:                                                                                          evidence.Low,
		`{"affected":[{"package":{"ecosystem":"Go","name":"b"},"database_specific":{"severity":"Low"}}]}`:                                                                                           evidence.Unknown,
	} {
		r, err := parse([]byte(`{"id":"X-1","modified":"2026-11-20T00:00:00Z",` + text[1:]))
		if err != nil {
			t.Fatal(text, err)
		}
		if got := r.severity(evidence.Package{Ecosystem: "Go", Name: "a"}); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestOpenFolderRefuses(t *testing.T) {
	good := scantest.Record{ID: "GO-1", Ecosystem: "Go", Package: "a"}.JSON()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	torn := write(t, t.TempDir(), true, good)
	if err := os.Truncate(filepath.Join(torn, "all.zip"), 40); err != nil {
		t.Fatal(err)
	}
	late := options()
	late.Now = func() time.Time { return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) }
	strict := options()
	strict.MaxAge = 24 * time.Hour
	for name, test := range map[string]struct {
		dir  string
		opt  Options
		says string
	}{
		"missing":          {filepath.Join(t.TempDir(), "missing"), options(), "missing"},
		"a file":           {file, options(), "vulnerability database"},
		"empty":            {t.TempDir(), options(), "there is no record in it"},
		"empty archive":    {write(t, t.TempDir(), true), options(), "there is no record in it"},
		"torn archive":     {torn, options(), "all.zip"},
		"not JSON":         {write(t, t.TempDir(), false, good, "{"), options(), "1.json"},
		"not a record":     {write(t, t.TempDir(), false, good, `{"name":"package"}`), options(), "1.json: no OSV record"},
		"a list":           {write(t, t.TempDir(), true, good, `[]`), options(), "all.zip, 1.json"},
		"no time":          {write(t, t.TempDir(), false, `{"id":"GO-1","modified":"yesterday"}`), options(), "which is no time"},
		"terminal escapes": {write(t, t.TempDir(), false, `{"id":"GO-1\u001b[2J","modified":"2026-11-20T00:00:00Z"}`), options(), "not an identifier"},
		"too old":          {write(t, t.TempDir(), false, good), late, "42 days old (2026-11-20), at most 30"},
		"too old for this": {write(t, t.TempDir(), false, good), strict, "3 days old (2026-11-20), at most 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OpenFolder(t.Context(), test.dir, test.opt)
			if !errors.Is(err, scan.ErrDatabase) || refusal.Of(err) != refusal.NotProven || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
	late.AnyAgeUnsafe = true
	open(t, write(t, t.TempDir(), false, good), late)
}

func TestFolderSkips(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"index", ".git", "sub"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"index/db.json": `{"modified":"x"}`, ".git/x.json": "{", ".hidden.json": "{", "README.md": "text", "sub/1.json": scantest.Record{ID: "GO-1", Ecosystem: "Go", Package: "a"}.JSON(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if db := open(t, dir, options()).Database(); db.Records != 1 {
		t.Errorf("%+v", db)
	}
}

func TestChangedWhileOpen(t *testing.T) {
	dir := write(t, t.TempDir(), false, scantest.Record{ID: "GO-1", Ecosystem: "Go", Package: "a", Events: []string{"introduced 0"}}.JSON())
	f := open(t, dir, options())
	write(t, dir, false, scantest.Record{ID: "GO-1", Ecosystem: "Go", Package: "a"}.JSON())
	if _, err := f.Scan(t.Context(), scantest.SBOM("pkg:golang/a@1.0.0")); !errors.Is(err, scan.ErrDatabase) || !strings.Contains(err.Error(), "0.json has changed") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "0.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Scan(t.Context(), scantest.SBOM("pkg:golang/a@1.0.0")); !errors.Is(err, scan.ErrDatabase) {
		t.Errorf("got %v", err)
	}
}

// peer speaks the OSV API over a folder, one record on a page.
type peer struct {
	*httptest.Server
	folder   *Folder
	records  map[string]string
	requests atomic.Int32
	handle   func(w http.ResponseWriter, r *http.Request) bool // true: answered
}

func newPeer(t *testing.T, records ...string) *peer {
	t.Helper()
	p := &peer{folder: open(t, write(t, t.TempDir(), false, records...), options()), records: map[string]string{}}
	for _, r := range records {
		var h header
		if err := json.Unmarshal([]byte(r), &h); err != nil {
			t.Fatal(err)
		}
		p.records[h.ID] = r
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/querybatch", p.query)
	mux.HandleFunc("GET /v1/vulns/{id}", func(w http.ResponseWriter, r *http.Request) {
		text, ok := p.records[r.PathValue("id")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, text)
	})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		w.Header().Set("Date", "Mon, 23 Nov 2026 08:00:00 GMT")
		if p.handle == nil || !p.handle(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *peer) query(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Queries []struct {
			Package struct {
				Ecosystem string `json:"ecosystem"`
				Name      string `json:"name"`
			} `json:"package"`
			Version string `json:"version"`
			Page    string `json:"page_token"`
		} `json:"queries"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Queries) > 1000 || r.Header.Get("User-Agent") != "pawl/1.0.0" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	var results []map[string]any
	for _, q := range body.Queries {
		found, _, err := p.folder.lookup(evidence.Package{Ecosystem: q.Package.Ecosystem, Name: q.Package.Name, Version: q.Version}, map[int32]*record{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		result := map[string]any{}
		var page int
		fmt.Sscanf(q.Page, "page%d", &page)
		if page < len(found) {
			result["vulns"] = []map[string]string{{"id": found[page].ID, "modified": found[page].Modified}}
			if page+1 < len(found) {
				result["next_page_token"] = fmt.Sprintf("page%d", page+1)
			}
		}
		results = append(results, result)
	}
	if err := json.NewEncoder(w).Encode(map[string]any{"results": results}); err != nil {
		panic(err)
	}
}

func service(t *testing.T, p *peer) *Service {
	t.Helper()
	s, err := NewService(ServiceOptions{Options: options(), Base: p.URL, Backoff: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServiceKeepsItsSnapshot(t *testing.T) {
	p := newPeer(t, scantest.Records()...)
	s := service(t, p)
	bom := scantest.SBOM("pkg:golang/golang.org/x/text@0.3.5")
	first, err := s.Scan(t.Context(), bom)
	if err != nil {
		t.Fatal(err)
	}
	if want := p.URL + " at 2026-11-23T08:00:00Z"; first.Database.Snapshot != want {
		t.Errorf("snapshot %q, want %q", first.Database.Snapshot, want)
	}
	asked := p.requests.Load()
	if _, err := s.Scan(t.Context(), bom); err != nil || p.requests.Load() != asked {
		t.Errorf("asked again: %v", err)
	}
	// A record that appears or changes later must not make a difference between two scans.
	p.records["GO-2"] = strings.Replace(p.records["GO-2"], "2026-11-20", "2026-11-24", 1)
	if _, err := s.Scan(t.Context(), scantest.SBOM("pkg:golang/stdlib@1.26.3")); !errors.Is(err, scan.ErrDatabase) || !strings.Contains(err.Error(), "run it again") {
		t.Errorf("got %v", err)
	}
}

func TestServiceAsksInBatches(t *testing.T) {
	p := newPeer(t, scantest.Records()...)
	var purls []string
	for i := range 2500 {
		purls = append(purls, fmt.Sprintf("pkg:golang/example.com/m%d@1.0.0", i))
	}
	r, err := service(t, p).Scan(t.Context(), scantest.SBOM(purls...))
	if err != nil || r.Checked != 2500 || p.requests.Load() != 3 {
		t.Errorf("%v: %d checked with %d requests", err, r.Checked, p.requests.Load())
	}
}

func TestServiceTriesAgain(t *testing.T) {
	for name, status := range map[string]int{"busy": http.StatusTooManyRequests, "down": http.StatusServiceUnavailable} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, scantest.Records()...)
			var failures atomic.Int32
			p.handle = func(w http.ResponseWriter, r *http.Request) bool {
				if failures.Add(1) > 3 {
					return false
				}
				w.WriteHeader(status)
				return true
			}
			r, err := service(t, p).Scan(t.Context(), scantest.SBOM("pkg:golang/golang.org/x/text@0.3.5"))
			if err != nil || len(r.Findings) != 1 {
				t.Errorf("%v %+v", err, r)
			}
		})
	}
}

func TestServiceRefuses(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	record := func(body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet {
				fmt.Fprint(w, body)
			}
			return r.Method == http.MethodGet
		}
	}
	for name, test := range map[string]struct {
		handle   func(http.ResponseWriter, *http.Request) bool
		says     string
		requests int32 // 0: not counted
	}{
		"down for good":      {answer(http.StatusBadGateway, ""), "502 Bad Gateway (5 attempts)", 5},
		"bad request":        {answer(http.StatusBadRequest, ""), "400 Bad Request", 1},
		"not JSON":           {answer(http.StatusOK, "<html>"), "cannot be read", 1},
		"answers are lost":   {answer(http.StatusOK, `{"results":[]}`), "0 answers to 1 questions", 1},
		"climbing name":      {answer(http.StatusOK, `{"results":[{"vulns":[{"id":"../../admin"}]}]}`), "is not an identifier", 1},
		"endless pages":      {answer(http.StatusOK, `{"results":[{"next_page_token":"again"}]}`), "more than 100 pages", 100},
		"record is another":  {record(`{"id":"GO-9","modified":"2026-11-20T00:00:00Z"}`), "got GO-9", 0},
		"record is not one":  {record(`{}`), "no OSV record", 0},
		"record is not JSON": {record(`{`), "cannot be read", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, scantest.Records()...)
			p.handle = test.handle
			_, err := service(t, p).Scan(t.Context(), scantest.SBOM("pkg:golang/golang.org/x/text@0.3.5"))
			if !errors.Is(err, scan.ErrDatabase) || refusal.Of(err) != refusal.NotProven || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			if n := p.requests.Load(); test.requests > 0 && n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
	for _, base := range []string{"ftp://example.com", "example.com", "://"} {
		if _, err := NewService(ServiceOptions{Options: options(), Base: base}); err == nil {
			t.Errorf("%s: accepted", base)
		}
	}
}

func TestServiceCancelledWhileWaiting(t *testing.T) {
	p := newPeer(t, scantest.Records()...)
	ctx, cancel := context.WithCancel(t.Context())
	p.handle = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Retry-After", "20")
		w.WriteHeader(http.StatusTooManyRequests)
		cancel()
		return true
	}
	if _, err := service(t, p).Scan(ctx, scantest.SBOM("pkg:golang/golang.org/x/text@0.3.5")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	for _, r := range scantest.Records() {
		f.Add([]byte(r), "1.0.0")
	}
	packages := []evidence.Package{{Ecosystem: "Go", Name: "golang.org/x/text"}, {Ecosystem: "PyPI", Name: "zope-interface"}, {Ecosystem: "Debian:12", Name: "openssl"}, {Ecosystem: "Alpine:v3.18", Name: "openssl"}, {Ecosystem: "NuGet", Name: "newtonsoft.json"}, {Ecosystem: "npm", Name: "left"}}
	f.Fuzz(func(t *testing.T, data []byte, version string) {
		r, err := parse(data)
		if err != nil {
			return
		}
		for _, p := range packages {
			p.Version = version
			if hit, err := r.hits(p); hit && err == nil {
				merge(p, []*record{r})
			}
		}
	})
}

// BenchmarkFolder is a scan of 2,000 components against 200,000 records in one archive.
func BenchmarkFolder(b *testing.B) {
	const records, components = 200_000, 2_000
	dir := b.TempDir()
	out, err := os.Create(filepath.Join(dir, "all.zip"))
	if err != nil {
		b.Fatal(err)
	}
	z := zip.NewWriter(out)
	for i := range records {
		w, err := z.Create(fmt.Sprintf("X-%d.json", i))
		if err != nil {
			b.Fatal(err)
		}
		r := scantest.Record{
			ID: fmt.Sprintf("X-%d", i), Aliases: []string{fmt.Sprintf("CVE-2026-%d", i)}, Ecosystem: []string{"Go", "npm", "PyPI", "NuGet"}[i%4], Package: fmt.Sprintf("example-%d", i/8),
			Type: "ECOSYSTEM", Events: []string{"introduced 0", fmt.Sprintf("fixed 1.%d.0", i%40)}, Details: strings.Repeat("What can happen is described at some length. ", 30), CVSS: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H",
		}
		if _, err := w.Write([]byte(r.JSON())); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), out.Close()); err != nil {
		b.Fatal(err)
	}
	var purls []string
	for i := range components {
		purls = append(purls, fmt.Sprintf("pkg:%s/example-%d@1.20.0", []string{"golang", "npm", "pypi", "nuget"}[i%4], i*3))
	}
	bom := scantest.SBOM(purls...)
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, err := OpenFolder(b.Context(), dir, options())
			if err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
	b.Run("scan", func(b *testing.B) {
		f := open(b, dir, options())
		b.ReportAllocs()
		for b.Loop() {
			r, err := f.Scan(b.Context(), bom)
			if err != nil || r.Checked != components || len(r.Findings) == 0 {
				b.Fatal(err, r.Checked, len(r.Findings))
			}
		}
	})
}
