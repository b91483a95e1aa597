// SPDX-License-Identifier: Apache-2.0

package version

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "v1.2.3", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "1.2.3-", "1.2.3 ", "../1.2.3", "1.2.3-" + strings.Repeat("a", 80)} {
		if v, err := Parse(s); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%q) = %v, %v", s, v, err)
		}
	}
}

func TestCompare(t *testing.T) {
	// Semantic Versioning 2.0.0, section 11.
	ordered := []string{"0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.9", "1.0.10", "1.10.0", "2.0.0"}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := MustParse(a).Compare(MustParse(b)); got != want {
				t.Errorf("Compare(%s, %s) = %d, want %d", a, b, got, want)
			}
		}
		if (Version{}).Compare(MustParse(a)) != -1 {
			t.Errorf("no version is not lower than %s", a)
		}
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct {
		line, version string
		want          bool
	}{
		{"1.4", "1.4.3", true}, {"1.4", "1.40.0", false}, {"1.4", "1.5.0", false}, {"1", "1.99.0", true},
		{"1", "11.0.0", false}, {"*", "3.0.0", true}, {"1.4", "1.4.0-rc.1", true},
	} {
		l, err := ParseLine(c.line)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Holds(MustParse(c.version)); got != c.want {
			t.Errorf("line %s holds %s: %v", c.line, c.version, got)
		}
	}
	for _, s := range []string{"", "v1", "1.2.3", "1.x", "1-a", "1.*"} {
		if _, err := ParseLine(s); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseLine(%q) accepted", s)
		}
	}
	if (Line{}).Holds(MustParse("1.0.0")) {
		t.Error("the zero line holds a version")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1.2.3-rc.1+b")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(v.String()); err != nil || again != v || v.Compare(again) != 0 {
			t.Fatalf("%q does not survive: %v %v", s, again, err)
		}
		if !v.Line().Holds(v) {
			t.Fatalf("%q is not on its own line %q", s, v.Line())
		}
	})
}
