// SPDX-License-Identifier: Apache-2.0

//go:build unix

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/slot/file"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/testkit"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/trust/trusttest"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
)

// home is a device with one product, its owner's settings, and the repository of its publisher.
type home struct {
	t      *testing.T
	dir    string
	repo   *testkit.Repo
	src    *testkit.Source
	now    time.Time
	config Config
	mail   *mailbox
}

// yaml is the configuration of a test device. The health check is a file in the folder.
const yaml = `
servers: [repository]
root: root.json
state: state
device: test-device
notify: [/bin/sh, -c, 'cat >> notices']
products:
  - name: greeter
    channel: file
    hardware: rev-a
    path: slot
    restart: {command: [/bin/sh, -c, 'echo "$PAWL_VERSION" >> restarts']}
    health: {command: [/bin/sh, -c, 'test ! -e sick-$PAWL_VERSION'], deadline: 1m, interval: 5ms}
`

func newHome(t *testing.T, change ...string) *home {
	t.Helper()
	h := &home{t: t, dir: t.TempDir(), repo: testkit.NewRepo(t, "greeter"), mail: &mailbox{}}
	h.now = h.repo.Now
	text := yaml
	for i := 0; i < len(change); i += 2 {
		if !strings.Contains(text, change[i]) {
			t.Fatalf("the configuration has no %q", change[i])
		}
		text = strings.ReplaceAll(text, change[i], change[i+1])
	}
	for _, name := range []string{"notices", "restarts", "sick-"} {
		text = strings.ReplaceAll(text, " "+name, " "+h.dir+"/"+name)
	}
	h.write("root.json", h.repo.RootDoc)
	h.write("agent.yaml", []byte(text))
	h.reload()
	h.release("1.0.0", testkit.Kind(statement.Feature))
	return h
}

func (h *home) reload() {
	h.t.Helper()
	c, err := LoadConfig(filepath.Join(h.dir, "agent.yaml"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.config = c
}

func (h *home) write(name string, data []byte) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), data, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// sick makes a release one that never becomes healthy; its trial is short.
func (h *home) sick(v string) {
	h.t.Helper()
	h.write("sick-"+v, nil)
	h.config.Products[0].Health.Deadline = 100 * time.Millisecond
}

// well makes it healthy again.
func (h *home) well(v string) {
	h.t.Helper()
	if err := os.Remove(filepath.Join(h.dir, "sick-"+v)); err != nil {
		h.t.Fatal(err)
	}
	h.config.Products[0].Health.Deadline = time.Minute
}

// lines returns the lines of a file, none if there is no file.
func (h *home) lines(name string) []string {
	data, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		return nil
	}
	return strings.FieldsFunc(string(data), func(c rune) bool { return c == '\n' })
}

func content(v string) []byte { return []byte("greeter " + v + "\n") }

// blobOf is a part of the name of the artifact's blob, and of no other.
func blobOf(v string) string { return digest.Of(content(v)).Hex() }

// release publishes a release.
func (h *home) release(v string, change ...func(*statement.Release)) {
	h.t.Helper()
	h.repo.Now = h.now
	h.repo.Release("greeter", v, content(v), change...)
	h.repo.Publish()
	h.src = h.repo.Source()
}

// engine is a process that has just started.
func (h *home) engine() *Engine {
	h.t.Helper()
	sl, err := file.New(file.Options{Path: h.config.Products[0].Path, Restart: slot.Restart{Args: h.config.Products[0].Restart.Command, Env: os.LookupEnv}})
	if err != nil {
		h.t.Fatal(err)
	}
	src := h.src
	e, err := New(Options{
		Config: h.config, Now: func() time.Time { return h.now }, Slots: map[string]slot.Slot{"greeter": sl}, Env: os.LookupEnv,
		Sources:  []Source{{Name: "test", Open: func() (catalog.Opener, error) { return src, nil }}},
		Reporter: h.mail, Jitter: func(time.Duration) time.Duration { return 0 },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *home) do(req Request) (Outcome, error) {
	h.t.Helper()
	outs, err := h.engine().Do(h.t.Context(), req)
	if len(outs) != 1 {
		h.t.Fatalf("%d outcomes, %v", len(outs), err)
	}
	return outs[0], err
}

// install installs and expects a class of refusal, or none.
func (h *home) install(class refusal.Class, words ...string) Outcome {
	h.t.Helper()
	out, err := h.do(Request{Install: true})
	h.expect(err, class, words...)
	return out
}

func (h *home) expect(err error, class refusal.Class, words ...string) {
	h.t.Helper()
	if refusal.Of(err) != class || (err != nil) != (class != "") {
		h.t.Fatalf("got %v, want class %q", err, class)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			h.t.Fatalf("got %q, want the words %q", err, w)
		}
	}
}

// runs expects a version, its bytes, and its security version as the floor.
func (h *home) runs(v string, floor uint32) {
	h.t.Helper()
	st, err := h.engine().Status(h.t.Context(), "greeter", true)
	if err != nil {
		h.t.Fatal(err)
	}
	p := st.Products[0]
	if p.Running.String() != v || p.Floor.Security != floor || p.Phase != Idle {
		h.t.Fatalf("runs %s, floor %d, phase %s; want %s, %d", p.Running, p.Floor.Security, p.Phase, v, floor)
	}
	if v == "" {
		return
	}
	data, err := os.ReadFile(filepath.Join(h.dir, "slot", "current", "greeter"))
	if err != nil || string(data) != string(content(v)) {
		h.t.Fatalf("runs %q, %v", data, err)
	}
}

// notices returns the events that the owner's program was told, as "event version decision".
func (h *home) notices() []string {
	h.t.Helper()
	var out []string
	for _, line := range h.lines("notices") {
		var n Notice
		decode(h.t, line, &n)
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", n.Event, n.Version, n.Decision)))
	}
	return out
}

func (h *home) events() []string {
	h.t.Helper()
	events, err := h.engine().History(0)
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, ev := range events {
		out = append(out, strings.TrimSpace(ev.Event+" "+ev.Version))
	}
	return out
}

// mailbox is a publisher's server for reports.
type mailbox struct {
	mu   sync.Mutex
	got  []store.Report // guarded by mu
	fail error          // guarded by mu
}

func (m *mailbox) Report(_ context.Context, r store.Report) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.got = append(m.got, r)
	return nil
}

func (m *mailbox) states() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, r := range m.got {
		text := string(r.State) + " " + r.Version.String()
		if r.Refusal != nil {
			text += " " + string(r.Refusal.Class)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestSecurityUpdateInstallsByItself(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	if out := h.install(""); !out.Changed || out.Running.String() != "1.0.0" {
		t.Fatalf("%+v", out)
	}
	h.runs("1.0.0", 1)
	h.release("1.0.1", testkit.SecurityVersion(2))
	if out := h.install(""); !out.Changed || out.Before.String() != "1.0.0" || out.Running.String() != "1.0.1" || out.Floor.Security != 2 {
		t.Fatalf("%+v", out)
	}
	h.runs("1.0.1", 2)
	if out := h.install(""); out.Changed || len(out.Offers) != 0 {
		t.Fatalf("%+v", out)
	}
	if got := h.lines("restarts"); !slices.Equal(got, []string{"1.0.0", "1.0.1"}) {
		t.Errorf("restarts %v", got)
	}
	if got := strings.Join(h.notices(), ", "); got != "offer 1.0.0 install, installed 1.0.0, offer 1.0.1 install, installed 1.0.1" {
		t.Errorf("notices %s", got)
	}
	if got := h.mail.states(); got != "offered 1.0.0, written 1.0.0, booted 1.0.0, confirmed 1.0.0, offered 1.0.1, written 1.0.1, booted 1.0.1, confirmed 1.0.1" {
		t.Errorf("reports %s", got)
	}
	r := h.mail.got[7]
	if r.Device != "test-device" || r.Product != "greeter" || r.SecurityVersion != 2 || r.Digest != digest.Of(content("1.0.1")) || r.Check() != nil {
		t.Errorf("report %+v", r)
	}
	var n Notice
	decode(t, h.lines("notices")[2], &n)
	if n.Summary != "What 1.0.1 repairs." || n.Risk == "" || n.Action == "" || n.Disruption == "" || n.Installed != "1.0.0" || n.Severity != "high" {
		t.Errorf("notice %+v", n)
	}
}

// TestTheOwnerDecides is the promise of the same name: told, not installed, whatever is sent; installed after a yes.
func TestTheOwnerDecides(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	if _, err := h.engine().SetMode(t.Context(), "greeter", update.Off, ""); err != nil {
		t.Fatal(err)
	}
	h.release("1.0.1", testkit.SecurityVersion(2), func(r *statement.Release) { r.Advisory.Severity = "critical" })
	for range 3 {
		h.install(refusal.OwnerPolicy, "the owner has turned automatic installation off")
		h.runs("1.0.0", 1)
	}
	if got := h.notices(); got[len(got)-1] != "offer 1.0.1 opted-out" || len(got) != 3 {
		t.Fatalf("the owner is told %v", got)
	}
	h.release("1.0.2", testkit.SecurityVersion(3))
	h.install(refusal.OwnerPolicy)
	if got := h.notices(); got[len(got)-1] != "offer 1.0.2 opted-out" {
		t.Fatalf("the owner is told %v", got)
	}
	if _, err := h.engine().SetMode(t.Context(), "greeter", update.Auto, ""); err != nil {
		t.Fatal(err)
	}
	h.install("")
	h.runs("1.0.2", 3)
}

func TestFeaturesWaitForApproval(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.1.0", testkit.Kind(statement.Feature))
	out, err := h.do(Request{})
	h.expect(err, "")
	if len(out.Offers) != 1 || out.Offers[0].Decision != update.Wait || out.Offers[0].Security {
		t.Fatalf("%+v", out.Offers)
	}
	if out := h.install(""); out.Changed || !strings.Contains(out.Offers[0].Reason, "the owner wants to approve it first") {
		t.Fatalf("%+v", out)
	}
	if _, _, err := h.engine().Approve(t.Context(), "greeter", version.MustParse("1.2.0")); !errors.Is(err, ErrNoOffer) {
		t.Fatalf("a release that is not offered: %v", err)
	}
	if _, offer, err := h.engine().Approve(t.Context(), "greeter", version.Version{}); err != nil || offer.Version.String() != "1.1.0" {
		t.Fatalf("%+v %v", offer, err)
	}
	h.install("")
	h.runs("1.1.0", 1)
}

// TestApprovalOutlivesANewerRelease approves a release, and something newer comes before it is installed.
func TestApprovalOutlivesANewerRelease(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.1.0", testkit.Kind(statement.Feature))
	if _, err := h.do(Request{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.engine().Approve(t.Context(), "greeter", version.MustParse("1.1.0")); err != nil {
		t.Fatal(err)
	}
	h.release("1.2.0", testkit.Kind(statement.Feature))
	out := h.install("")
	h.runs("1.1.0", 1)
	if len(out.Offers) != 2 || out.Offers[1].Version.String() != "1.2.0" || out.Offers[1].Decision != update.Wait {
		t.Fatalf("%+v", out.Offers)
	}
}

// TestSecurityComesAlone has a fix on the installed line beside a feature release that has it too.
func TestSecurityComesAlone(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.repo.Release("greeter", "1.0.1", content("1.0.1"), testkit.SecurityVersion(2))
	h.release("1.1.0", testkit.Kind(statement.Feature), testkit.SecurityVersion(2))
	h.install("")
	h.runs("1.0.1", 2)
	if got := strings.Join(h.notices(), ", "); !strings.Contains(got, "offer 1.0.1 install, offer 1.1.0 wait") {
		t.Fatalf("notices %s", got)
	}
}

func TestPostpone(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	if _, _, err := h.engine().Postpone(t.Context(), "greeter", h.now.Add(time.Hour)); !errors.Is(err, ErrNoOffer) {
		t.Fatalf("nothing to postpone: %v", err)
	}
	h.release("1.0.1")
	if _, err := h.do(Request{}); err != nil {
		t.Fatal(err)
	}
	for i := range update.MaxPostponements {
		if _, _, err := h.engine().Postpone(t.Context(), "greeter", h.now.Add(8*24*time.Hour)); refusal.Of(err) != refusal.OwnerPolicy {
			t.Fatalf("eight days: %v", err)
		}
		if _, _, err := h.engine().Postpone(t.Context(), "greeter", h.now.Add(24*time.Hour)); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		h.install(refusal.OwnerPolicy, "the owner has postponed it until")
		h.now = h.now.Add(24 * time.Hour)
	}
	if _, _, err := h.engine().Postpone(t.Context(), "greeter", h.now.Add(time.Hour)); refusal.Of(err) != refusal.OwnerPolicy {
		t.Fatalf("a fourth time: %v", err)
	}
	h.install("")
	h.runs("1.0.1", 1)
	if got := h.notices(); got[len(got)-2] != "offer 1.0.1 install" {
		t.Fatalf("not told again when the time was over: %v", got)
	}
}

// TestTheProgramOfTheOwnerMayPostpone says "not now" while it is being told.
func TestTheProgramOfTheOwnerMayPostpone(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	e := h.engine()
	said := false
	e.opt.Reporter = nil
	e.opt.Env = func(name string) (string, bool) {
		if !said && name == "PATH" { // looked up when the program is called
			said = true
			if _, err := h.engine().SetMode(t.Context(), "greeter", update.Off, ""); err != nil {
				t.Error(err)
			}
		}
		return os.LookupEnv(name)
	}
	_, err := e.Do(t.Context(), Request{Install: true})
	h.expect(err, refusal.OwnerPolicy)
	h.runs("1.0.0", 1)
}

func TestWindow(t *testing.T) {
	t.Parallel()
	h := newHome(t, "products:", "owner: {window: {from: \"02:00\", to: \"04:00\"}}\nproducts:")
	out := h.install(refusal.OwnerPolicy, "it waits for the maintenance window, which opens 2026-11-24 02:00")
	if out.Offers[0].Until.IsZero() {
		t.Fatal("no time")
	}
	h.now = h.now.Add(19 * time.Hour)
	h.install("")
	h.runs("1.0.0", 1)
}

func TestUnhealthyIsPutBack(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1", testkit.SecurityVersion(2))
	h.sick("1.0.1")
	h.install(refusal.Unhealthy, "it was not healthy in time; 1.0.0 was put back (", "exit status 1")
	h.runs("1.0.0", 1)
	if got := h.lines("restarts"); !slices.Equal(got, []string{"1.0.0", "1.0.1", "1.0.0"}) {
		t.Errorf("restarts %v", got)
	}
	if got := h.mail.states(); !strings.HasSuffix(got, "booted 1.0.1, fell-back 1.0.1 unhealthy") {
		t.Errorf("reports %s", got)
	}
	if r := h.mail.got[len(h.mail.got)-1]; r.Refusal.Text != "release 1.0.1 of greeter: it was not healthy in time; 1.0.0 was put back" {
		t.Errorf("the report says %q", r.Refusal.Text) // and nothing of what the owner's programs print
	}
	// It is not tried again, until the owner says so.
	out := h.install("")
	if len(out.Offers) != 0 || len(out.Refused) != 1 || out.Refused[0].Class != refusal.Unhealthy {
		t.Fatalf("%+v", out)
	}
	h.well("1.0.1")
	h.install("")
	h.runs("1.0.0", 1)
	_, err := h.do(Request{Install: true, Retry: true})
	h.expect(err, "")
	h.runs("1.0.1", 2)
}

func TestUnhealthyIsFollowedByANewerOne(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	h.sick("1.0.1")
	h.install(refusal.Unhealthy)
	h.well("1.0.1")
	h.release("1.0.2")
	h.install("")
	h.runs("1.0.2", 1)
}

func TestFirstReleaseHasNoWayBack(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.sick("1.0.0")
	h.install(refusal.Unhealthy, "it stays, because there is nothing to go back to")
	h.runs("1.0.0", 0) // the floor has not risen
	h.well("1.0.0")
	h.release("1.0.1")
	h.install("")
	h.runs("1.0.1", 1)
}

// TestNoWayBackBelowTheFloor has a previous release that is below a floor which was set meanwhile.
func TestNoWayBackBelowTheFloor(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.config.Products[0].Floor = 5
	h.release("1.0.1", testkit.SecurityVersion(5))
	h.sick("1.0.1")
	h.install(refusal.Unhealthy, "security version 1 is below the floor 5")
	h.runs("1.0.1", 5)
}

// TestThiefWithTheOnlineKey has every online key and signs what he likes.
func TestThiefWithTheOnlineKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(h *home)
		class refusal.Class
		words string
	}{
		"invents a release": {func(h *home) {
			thief := trusttest.NewKey(t)
			h.repo.Release("greeter", "1.0.1", []byte("evil"))
			h.repo.PushProduct("greeter", thief)
			h.repo.PushSnapshot(h.repo.Online)
			h.repo.PushTimestamp(h.repo.Online)
			h.src = h.repo.Source()
		}, refusal.Signature, "threshold"},
		"brings the old list back": {func(h *home) {
			h.release("1.0.1")
			h.install("")
			old := h.repo.Doc("greeter", 2)
			h.repo.Snapshot.Roles["greeter"] = trust.FileOf(2, old)
			h.repo.PushSnapshot(h.repo.Online)
			h.repo.PushTimestamp(h.repo.Online)
			h.src = h.repo.Source()
		}, refusal.Rollback, ""},
		"holds news back": {func(h *home) { h.now = h.now.AddDate(0, 0, 8) }, refusal.Expired, ""},
		"changes the artifact": {func(h *home) {
			h.release("1.0.1")
			h.src.Tamper(blobOf("1.0.1"))
		}, refusal.Digest, "artifact greeter of greeter 1.0.1"},
		"sends less than was signed": {func(h *home) {
			h.release("1.0.1")
			h.src.Replace(blobOf("1.0.1"), content("1.0.1")[:5])
		}, refusal.Digest, "5 of the 14 bytes that were signed"},
		"mixes documents": {func(h *home) {
			h.release("1.0.1")
			old := h.repo.Doc("greeter", 1)
			h.src.Replace("3.greeter.json", old)
		}, refusal.Mixed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			h.install("")
			c.do(h)
			before, err := h.engine().Status(t.Context(), "", true)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err := h.do(Request{Install: true})
				h.expect(err, c.class, c.words)
			}
			h.runs(before.Products[0].Running.String(), 1)
			notices := h.notices()
			if i := slices.IndexFunc(notices, func(n string) bool { return strings.HasPrefix(n, "alarm") }); i < 0 {
				t.Errorf("no alarm in %v", notices)
			}
			if got := h.mail.states(); !strings.Contains(got, " "+string(c.class)) {
				t.Errorf("reports %s", got)
			}
		})
	}
}

// TestLowerReleasesAreRefused asks for a release that is validly signed and too old.
func TestLowerReleasesAreRefused(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1", testkit.SecurityVersion(2))
	h.install("")
	_, err := h.do(Request{Install: true, Version: version.MustParse("1.0.0")})
	h.expect(err, refusal.Rollback, "1.0.0, and 1.0.1 is installed")
	h.release("2.0.0", testkit.Kind(statement.Feature))
	_, err = h.do(Request{Install: true, Version: version.MustParse("2.0.0")})
	h.expect(err, refusal.Rollback, "security version 1, and the floor is 2")
	_, err = h.do(Request{Install: true, Version: version.MustParse("3.0.0")})
	if err == nil || !strings.Contains(err.Error(), "the publisher has no release 3.0.0 of greeter") {
		t.Fatal(err)
	}
	h.runs("1.0.1", 2)
}

// TestTheFloorSurvivesAReset loses the agent's memory, as a factory reset does. What runs teaches the floor again.
func TestTheFloorSurvivesAReset(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.repo.Release("greeter", "1.0.1", content("1.0.1"), testkit.SecurityVersion(7))
	h.release("1.0.2", testkit.SecurityVersion(3))
	_, err := h.do(Request{Install: true, Version: version.MustParse("1.0.1")})
	h.expect(err, "")
	h.runs("1.0.1", 7)
	if err := os.RemoveAll(filepath.Join(h.dir, "state")); err != nil {
		t.Fatal(err)
	}
	out := h.install("")
	if out.Changed || len(out.Refused) != 0 && refusal.Class(out.Refused[0].Class) != refusal.Rollback {
		t.Fatalf("%+v", out)
	}
	h.runs("1.0.1", 7)
	out = h.install("")
	if len(out.Refused) != 1 || out.Refused[0].Class != refusal.Rollback {
		t.Fatalf("%+v", out)
	}
}

func TestRecoveryLowersTheFloorOnce(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1", testkit.SecurityVersion(900))
	h.install("")
	h.runs("1.0.1", 900)
	h.repo.Targets.Products[0].Recovery = trust.Recovery{Epoch: 1, Floor: 4}
	h.release("1.0.2", testkit.SecurityVersion(4))
	h.install("")
	h.runs("1.0.2", 4)
	h.release("1.0.3", testkit.SecurityVersion(6))
	h.install("")
	h.runs("1.0.3", 6) // the same recovery again lowers nothing
}

func TestDamagedStateIsSetAside(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	for _, bad := range []string{"", "{", `{"format":1,"product":"other","phase":"idle","floor":{"security":0,"epoch":0}}`, `{"format":1,"product":"greeter","phase":"trial","floor":{"security":0,"epoch":0}}`} {
		h.write("state/products/greeter/state.json", []byte(bad))
		h.install("")
		h.runs("1.0.0", 1)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "state/products/greeter/state.json.damaged")); err != nil {
		t.Fatal(err)
	}
	h.write("state/products/greeter/state.json", []byte(`{"format":2}`))
	if _, err := h.do(Request{Install: true}); err == nil || !strings.Contains(err.Error(), "it is of format 2, this program knows 1") {
		t.Fatal(err)
	}
}

func TestDamagedDecisionsOfTheOwnerStopEverything(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	h.write("state/products/greeter/owner.json", []byte("{"))
	if _, err := h.do(Request{Install: true}); err == nil || !strings.Contains(err.Error(), "which may be a no") {
		t.Fatal(err)
	}
	h.runsVersion("1.0.0")
	if _, err := h.engine().SetMode(t.Context(), "greeter", update.Auto, ""); err != nil {
		t.Fatal(err)
	}
	h.install("")
	h.runs("1.0.1", 1)
}

func (h *home) runsVersion(v string) {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, "slot", "current", "greeter"))
	if err != nil || string(data) != string(content(v)) {
		h.t.Fatalf("runs %q, %v", data, err)
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	held, err := h.engine().lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.engine().Do(t.Context(), Request{}); refusal.Of(err) != refusal.Busy {
		t.Fatalf("got %v", err)
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	h.install("")
}

func TestMirrors(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	frozen := h.repo.Source()
	frozen.Tamper("timestamp.json")
	h.release("1.0.1")
	e := h.engine()
	good := h.src
	e.opt.Sources = []Source{
		{"gone", func() (catalog.Opener, error) { return nil, errors.New("no such folder") }},
		{"hostile", func() (catalog.Opener, error) { return frozen, nil }},
		{"good", func() (catalog.Opener, error) { return good, nil }},
	}
	if _, err := e.Do(t.Context(), Request{Install: true}); err != nil {
		t.Fatal(err)
	}
	h.runs("1.0.1", 1)
	e.opt.Sources = e.opt.Sources[:2]
	if _, err := e.Do(t.Context(), Request{}); refusal.Of(err) == "" {
		t.Fatalf("a refusal is hidden by a failure: %v", err)
	}
	e.opt.Sources = e.opt.Sources[:1]
	if _, err := e.Do(t.Context(), Request{}); err == nil || refusal.Of(err) != "" {
		t.Fatalf("got %v", err)
	}
}

func TestDownloadGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	h.src.Tear(blobOf("1.0.1"), 5)
	if _, err := h.do(Request{Install: true}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v", err)
	}
	h.runs("1.0.0", 1)
	h.src.Honest()
	h.install("")
	if at, _ := h.src.Opened(blobOf("1.0.1")); at != 5 {
		t.Errorf("asked for the bytes from %d on", at)
	}
	h.runs("1.0.1", 1)
}

func TestReportsWait(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.mail.fail = errors.New("connection refused")
	h.install("")
	if got := h.mail.states(); got != "" {
		t.Fatal(got)
	}
	h.mail.fail = nil
	h.install("")
	if got := h.mail.states(); got != "offered 1.0.0, written 1.0.0, booted 1.0.0, confirmed 1.0.0" {
		t.Fatal(got)
	}
	h.mail.fail = fmt.Errorf("404: %w", ErrUnwanted)
	h.release("1.0.1")
	h.install("")
	st, err := h.engine().Status(t.Context(), "", false)
	if err != nil || st.Products[0].WaitingReports != 0 {
		t.Fatalf("%d reports wait for a server that wants none, %v", st.Products[0].WaitingReports, err)
	}
}

func TestReportsCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	h := newHome(t, "device: test-device", "reports: false")
	h.install("")
	if got := h.mail.states(); got != "" {
		t.Fatal(got)
	}
	if !slices.Contains(h.events(), "confirmed 1.0.0") {
		t.Fatal("nothing in the history")
	}
}

// TestTheDeviceHasARandomName checks the data that leave the device: a name that says nothing.
func TestTheDeviceHasARandomName(t *testing.T) {
	t.Parallel()
	h := newHome(t, "device: test-device\n", "")
	h.install("")
	name := h.mail.got[0].Device
	if len(name) < 20 {
		t.Fatalf("name %q", name)
	}
	h.mail.got = nil
	h.release("1.0.1")
	h.install("")
	if h.mail.got[0].Device != name {
		t.Fatal("it has another name now")
	}
}

func TestFailingProgramOfTheOwnerIsCalledAgain(t *testing.T) {
	t.Parallel()
	h := newHome(t, "'cat >> notices'", "'test -e "+"awake"+" && cat >> notices'")
	h.config.Notify[2] = strings.ReplaceAll(h.config.Notify[2], "awake", filepath.Join(h.dir, "awake"))
	h.install("") // being told fails, the installation does not
	h.runs("1.0.0", 1)
	if got := h.notices(); len(got) != 0 {
		t.Fatal(got)
	}
	h.write("awake", nil)
	h.install("")
	if got := strings.Join(h.notices(), ", "); got != "offer 1.0.0 install, installed 1.0.0" {
		t.Fatal(got)
	}
}

func TestSupportEnds(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.release("1.0.1", func(r *statement.Release) { r.SupportEnd = "2027-01" })
	h.install("")
	told := func() int {
		n := 0
		for _, text := range h.notices() {
			if strings.HasPrefix(text, "support") {
				n++
			}
		}
		return n
	}
	for i, c := range []struct {
		at   string
		want int
	}{{"2026-11-24", 1}, {"2026-12-24", 1}, {"2027-02-01", 2}, {"2027-03-01", 2}} {
		at, err := time.Parse("2006-01-02", c.at)
		if err != nil {
			t.Fatal(err)
		}
		h.now, h.repo.Now = at, at
		h.repo.Publish()
		h.src = h.repo.Source()
		h.install("")
		if got := told(); got != c.want {
			t.Errorf("%d: told %d times, want %d", i, got, c.want)
		}
	}
}

func TestClockThatIsBehind(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1", func(r *statement.Release) { r.Expires = h.now.Add(time.Hour) })
	h.now = h.now.Add(2 * time.Hour)
	h.repo.Now = h.now
	h.repo.Publish()
	h.src = h.repo.Source()
	h.now = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	out := h.install("")
	if len(out.Refused) != 1 || out.Refused[0].Class != refusal.Expired {
		t.Fatalf("%+v", out)
	}
}

func TestForeignReleaseIsFound(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	h.install("")
	// Somebody switches by hand.
	link := filepath.Join(h.dir, "slot", "current")
	target, err := os.Readlink(filepath.Join(h.dir, "slot", "previous"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(link), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	if out := h.install(""); !out.Changed || out.Running.String() != "1.0.1" {
		t.Fatalf("%+v", out)
	}
	if !slices.Contains(h.events(), "found 1.0.0") {
		t.Fatalf("history %v", h.events())
	}
}

func TestDamageOfWhatRunsIsSeen(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	path := filepath.Join(h.dir, "slot", "current", "greeter")
	if err := os.WriteFile(path, []byte("tampered"), 0o755); err != nil {
		t.Fatal(err)
	}
	st, err := h.engine().Status(t.Context(), "greeter", true)
	if refusal.Of(err) != refusal.Digest || *st.Products[0].Verified {
		t.Fatalf("%+v %v", st, err)
	}
}

func TestHistoryIsAChain(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	h.install("")
	want := []string{
		"offered 1.0.0", "notified 1.0.0", "staged 1.0.0", "activated 1.0.0", "confirmed 1.0.0", "notified 1.0.0",
		"offered 1.0.1", "notified 1.0.1", "staged 1.0.1", "activated 1.0.1", "confirmed 1.0.1", "notified 1.0.1",
	}
	if got := h.events(); !slices.Equal(got, want) {
		t.Fatalf("history %v", got)
	}
	if events, err := h.engine().History(2); err != nil || len(events) != 2 || events[1].Number != 12 {
		t.Fatalf("%+v %v", events, err)
	}
	path := filepath.Join(h.dir, "state", "history.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, changed := range map[string]string{
		"a line is changed":  strings.Replace(string(whole), "1.0.0", "1.0.9", 1),
		"a line is taken":    strings.Join(slices.Delete(slices.Clone(lines), 3, 4), ""),
		"a line is no JSON":  strings.Replace(string(whole), "{", "<", 1),
		"two lines swapped":  strings.Join([]string{lines[1], lines[0], lines[2]}, ""),
		"a line is repeated": strings.Join([]string{lines[0], lines[0]}, ""),
	} {
		h.write("state/history.jsonl", []byte(changed))
		if _, err := h.engine().History(0); refusal.Of(err) != refusal.Mixed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	e := h.engine()
	var lines []byte
	var last digest.SHA256
	for n := int64(1); len(lines) < maxHistory-200; n++ {
		line, err := json.Marshal(Event{Number: n, Previous: last, At: h.now, Event: EventRefused, Text: strings.Repeat("x", maxEventText)})
		if err != nil {
			t.Fatal(err)
		}
		last = digest.Of(line)
		lines = append(append(lines, line...), '\n')
	}
	h.write("state/history.jsonl", lines)
	for range 3 {
		if err := e.record(t.Context(), Event{Event: EventRefused, Product: "greeter", Text: strings.Repeat("x", 2*maxEventText)}); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(e.historyPath())
	if err != nil || info.Size() > maxHistory {
		t.Fatalf("%d bytes, %v", info.Size(), err)
	}
	if events, err := e.History(0); err != nil || len(events) < 400 || len(events[len(events)-1].Text) != maxEventText {
		t.Fatalf("%d events, %v", len(events), err)
	}
}

func TestCancelledTrialGoesOn(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.install("")
	h.release("1.0.1")
	h.sick("1.0.1")
	h.config.Products[0].Health.Deadline = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	e := h.engine()
	e.opt.Env = func(name string) (string, bool) {
		if run, err := e.opt.Slots["greeter"].Running(ctx); err == nil && run.Version.String() == "1.0.1" {
			cancel() // asked for by the health check of the new release
		}
		return os.LookupEnv(name)
	}
	if _, err := e.Do(ctx, Request{Install: true}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := h.do(Request{}); err == nil || !strings.Contains(err.Error(), "was interrupted (trial)") {
		t.Fatalf("a check beside an unfinished installation: %v", err)
	}
	h.well("1.0.1")
	h.src.Fail("", errors.New("the network is gone"))
	_, err := h.do(Request{Install: true})
	if err == nil || refusal.Of(err) != "" {
		t.Fatalf("got %v", err)
	}
	h.runs("1.0.1", 1) // finished without a server
}

func TestUnknownProduct(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	if _, err := h.engine().Do(t.Context(), Request{Product: "other"}); !errors.Is(err, ErrNoProduct) {
		t.Fatal(err)
	}
}
