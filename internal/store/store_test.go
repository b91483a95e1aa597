// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/version"
)

var now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func TestToken(t *testing.T) {
	token, secret, err := NewToken("release bot", []string{"greeter"}, now)
	if err != nil {
		t.Fatal(err)
	}
	other, otherSecret, err := NewToken("release bot", nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if !token.Admits(secret) || token.Admits(otherSecret) || other.Admits(secret) || !other.For("anything") {
		t.Fatal("the wrong secret opens")
	}
	if strings.Contains(secret, token.Hash.Hex()) || len(secret) != 5+16+1+43 {
		t.Fatalf("secret of %d characters", len(secret))
	}
	for _, bad := range []string{"", "pawl_", "pawl_0123456789abcdef", "pawl_0123456789abcdef_", secret + "x", strings.TrimPrefix(secret, "pawl_"), strings.Repeat("_", 1<<16)} {
		if id, ok := TokenID(bad); ok {
			t.Errorf("%.40q has ID %q", bad, id)
		}
	}
	for _, name := range []string{"", "a\nb", "../x", strings.Repeat("a", 65), "\x1b[2J"} {
		if _, _, err := NewToken(name, nil, now); err == nil {
			t.Errorf("took the name %q", name)
		}
	}
	if _, _, err := NewToken("ci", []string{"../root"}, now); err == nil {
		t.Error("took a path as product")
	}
	if _, _, err := NewToken("ci", make([]string, MaxScope+1), now); err == nil {
		t.Error("took too many products")
	}
}

func TestReportCheck(t *testing.T) {
	good := Report{Device: "gw-1:a", Product: "greeter", Version: version.MustParse("1.0.0"), Digest: digest.Of(nil), State: Confirmed, At: now}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Report){
		"no device":      func(r *Report) { r.Device = "" },
		"path":           func(r *Report) { r.Device = "../x" },
		"long device":    func(r *Report) { r.Device = strings.Repeat("a", 200) },
		"no product":     func(r *Report) { r.Product = "" },
		"no version":     func(r *Report) { r.Version = version.Version{} },
		"no digest":      func(r *Report) { r.Digest = digest.SHA256{} },
		"other state":    func(r *Report) { r.State = "happy" },
		"no time":        func(r *Report) { r.At = time.Time{} },
		"long text":      func(r *Report) { r.Refusal = &Refusal{Text: strings.Repeat("a", MaxText+1)} },
		"escape in text": func(r *Report) { r.Refusal = &Refusal{Text: "\x1b[2J"} },
	} {
		r := good
		change(&r)
		if err := r.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
