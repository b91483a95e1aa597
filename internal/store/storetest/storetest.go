// SPDX-License-Identifier: Apache-2.0

// Package storetest is the contract of a server's store as tests. Every adapter runs them.
package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/version"
)

// Now is the time in the tests.
var Now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// Run runs the contract. open returns two stores over the same empty data, as two processes have them.
func Run(t *testing.T, open func(t *testing.T) (first, second store.Store)) {
	for name, test := range map[string]func(t *testing.T, first, second store.Store){
		"tokens":          tokens,
		"token names":     tokenNames,
		"reports":         reports,
		"report repeated": reportRepeated,
		"report history":  reportHistory,
		"report pages":    reportPages,
		"events":          events,
		"refused callers": refusedCallers,
		"races":           races,
	} {
		t.Run(name, func(t *testing.T) {
			first, second := open(t)
			test(t, first, second)
		})
	}
}

func tokens(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	token, secret := token(t, "ci", "sensor", "greeter", "greeter")
	must(t, first.AddToken(ctx, token))
	id, ok := store.TokenID(secret)
	if !ok || id != token.ID {
		t.Fatalf("ID %q of the secret, want %q", id, token.ID)
	}
	got, err := second.Token(ctx, id)
	if err != nil || !reflect.DeepEqual(got, token) || !got.Admits(secret) {
		t.Fatalf("%+v, want %+v, %v", got, token, err)
	}
	if got.Admits(secret[:len(secret)-1]+"!") || got.Admits("") || !got.For("greeter") || !got.For("sensor") || got.ForAll() || got.For("other") {
		t.Fatal("the token admits too much")
	}
	must(t, second.UseToken(ctx, id, Now.Add(time.Hour)))
	must(t, first.UseToken(ctx, id, Now.Add(time.Minute)))
	must(t, first.RevokeToken(ctx, id, Now.Add(2*time.Hour)))
	must(t, first.RevokeToken(ctx, id, Now.Add(3*time.Hour)))
	if got, err = second.Token(ctx, id); err != nil || !got.LastUsed.Equal(Now.Add(time.Hour)) || !got.Revoked.Equal(Now.Add(2*time.Hour)) || got.Admits(secret) {
		t.Fatalf("after revocation: %+v, %v", got, err)
	}
	for what, err := range map[string]error{
		"token":  onlyError(second.Token(ctx, "0123456789abcdef")),
		"use":    second.UseToken(ctx, "0123456789abcdef", Now),
		"revoke": second.RevokeToken(ctx, "' OR 1=1 --", Now),
	} {
		if !errors.Is(err, store.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func tokenNames(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	a, _ := token(t, "ci")
	b, _ := token(t, "ci", "greeter")
	must(t, first.AddToken(ctx, a))
	if err := second.AddToken(ctx, b); !errors.Is(err, store.ErrExists) {
		t.Fatalf("second token of one name: %v", err)
	}
	must(t, first.RevokeToken(ctx, a.ID, Now))
	must(t, second.AddToken(ctx, b))
	all, err := first.Tokens(ctx)
	if err != nil || len(all) != 2 {
		t.Fatalf("%d tokens, %v", len(all), err)
	}
}

func reports(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	r := report("device-1", "1.0.0", store.Confirmed, 0)
	must(t, first.AddReport(ctx, r))
	refused := report("device-1", "1.0.1", store.FellBack, 1)
	refused.Refusal = &store.Refusal{Class: refusal.Unhealthy, Text: "no answer in 30 s"}
	// The clock of the device went back: what arrives last is the latest all the same.
	refused.At = Now.Add(-9000 * time.Hour)
	must(t, second.AddReport(ctx, refused))
	got, err := first.Latest(ctx, "greeter", "")
	if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], refused) {
		t.Fatalf("latest: %+v, want %+v, %v", got, refused, err)
	}
	got, err = first.History(ctx, "device-1", "greeter")
	if err != nil || len(got) != 2 || !reflect.DeepEqual(got[1], r) {
		t.Fatalf("history: %+v, %v", got, err)
	}
	for _, other := range [][2]string{{"device-1", "other"}, {"device-2", "greeter"}} {
		if got, err := first.History(ctx, other[0], other[1]); err != nil || len(got) != 0 {
			t.Fatalf("history of %v: %+v, %v", other, got, err)
		}
	}
}

func reportRepeated(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	old, latest := report("device-1", "1.0.0", store.Confirmed, 0), report("device-1", "1.0.1", store.Written, 1)
	for _, r := range []store.Report{old, latest, latest, old} {
		must(t, second.AddReport(ctx, r))
		r.Received = r.Received.Add(time.Minute)
		must(t, first.AddReport(ctx, r))
	}
	got, err := first.Latest(ctx, "greeter", "")
	if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], latest) {
		t.Fatalf("latest: %+v, %v", got, err)
	}
	if got, err = first.History(ctx, "device-1", "greeter"); err != nil || len(got) != 2 {
		t.Fatalf("history: %+v, %v", got, err)
	}
}

func reportHistory(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	for i := range store.MaxHistory + 5 {
		must(t, first.AddReport(ctx, report("device-1", fmt.Sprintf("1.0.%d", i), store.Confirmed, i)))
	}
	must(t, first.AddReport(ctx, report("device-2", "1.0.0", store.Confirmed, 0)))
	got, err := second.History(ctx, "device-1", "greeter")
	if err != nil || len(got) != store.MaxHistory || got[0].Version.String() != "1.0.24" {
		t.Fatalf("%d reports, the newest of %s, %v", len(got), got[0].Version, err)
	}
	if got, err = second.History(ctx, "device-2", "greeter"); err != nil || len(got) != 1 {
		t.Fatalf("other device: %d reports, %v", len(got), err)
	}
}

func reportPages(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	for _, name := range []string{"c", "a", "b"} {
		must(t, first.AddReport(ctx, report(name, "1.0.0", store.Confirmed, 0)))
	}
	var names []string
	for _, after := range []string{"", "a", "b", "c"} {
		page, err := second.Latest(ctx, "greeter", after)
		must(t, err)
		for _, r := range page {
			names = append(names, r.Device)
		}
	}
	if got := strings.Join(names, ""); got != "abc"+"bc"+"c" {
		t.Fatalf("devices: %s", got)
	}
}

func events(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	want := []store.Event{
		{At: Now, Action: store.ActionPublish, Actor: "0123", Product: "greeter", Outcome: "done"},
		{At: Now.Add(time.Second), Action: store.ActionAuth, Remote: "192.0.2.1", Outcome: "unauthorised"},
		{At: Now.Add(2 * time.Second), Action: store.ActionRefresh, Outcome: strings.Repeat("x", 2*store.MaxText)},
	}
	for _, e := range want {
		must(t, first.AddEvent(ctx, e))
	}
	want[2].Outcome = want[2].Outcome[:store.MaxText]
	got, err := second.Events(ctx, 0)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d events, %v", len(got), err)
	}
	for i, e := range got {
		id := e.ID
		e.ID = 0
		if e != want[len(want)-1-i] {
			t.Errorf("event %d: %+v", id, e)
		}
	}
	if got, err = second.Events(ctx, got[1].ID); err != nil || len(got) != 1 || got[0].Action != store.ActionPublish {
		t.Fatalf("second page: %+v, %v", got, err)
	}
}

func refusedCallers(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	must(t, first.AddEvent(ctx, store.Event{At: Now.Add(-time.Hour), Action: store.ActionPublish, Outcome: "done"}))
	for i := range 5 {
		must(t, first.AddEvent(ctx, store.Event{At: Now.Add(time.Duration(i) * time.Minute), Action: store.ActionAuth, Outcome: "unauthorised"}))
	}
	must(t, first.Forget(ctx, Now.Add(3*time.Minute)))
	got, err := second.Events(ctx, 0)
	if err != nil || len(got) != 3 || got[2].Action != store.ActionPublish {
		t.Fatalf("after forgetting: %+v, %v", got, err)
	}
}

// races writes from many sides at once: nothing is lost and nobody is told that the store is locked.
func races(t *testing.T, first, second store.Store) {
	ctx := t.Context()
	const sides, each = 6, 10
	var all sync.WaitGroup
	for side := range sides {
		all.Go(func() {
			s := first
			if side%2 == 1 {
				s = second
			}
			for i := range each {
				if err := s.AddReport(ctx, report(fmt.Sprintf("device-%d", side), fmt.Sprintf("1.0.%d", i), store.Confirmed, i)); err != nil {
					t.Errorf("side %d: %v", side, err)
				}
				if err := s.AddEvent(ctx, store.Event{At: Now, Action: store.ActionPublish, Outcome: "done"}); err != nil {
					t.Errorf("side %d: %v", side, err)
				}
			}
		})
	}
	all.Wait()
	got, err := first.Latest(ctx, "greeter", "")
	if err != nil || len(got) != sides {
		t.Fatalf("%d devices, %v", len(got), err)
	}
	for _, r := range got {
		if r.Version.String() != fmt.Sprintf("1.0.%d", each-1) {
			t.Errorf("%s ends at %s", r.Device, r.Version)
		}
	}
	if events, err := second.Events(ctx, 0); err != nil || len(events) != sides*each {
		t.Fatalf("%d events, %v", len(events), err)
	}
}

func token(t *testing.T, name string, products ...string) (store.Token, string) {
	t.Helper()
	token, secret, err := store.NewToken(name, products, Now)
	must(t, err)
	return token, secret
}

func report(device, v string, state store.State, at int) store.Report {
	return store.Report{
		Device: device, Product: "greeter", Version: version.MustParse(v), Digest: digest.Of([]byte(v)), SecurityVersion: 1, State: state,
		At: Now.Add(time.Duration(at) * time.Second), Received: Now.Add(time.Duration(at+1) * time.Second),
	}
}

func onlyError(_ store.Token, err error) error { return err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
