// SPDX-License-Identifier: Apache-2.0

package yamlx

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/version"
)

type config struct {
	Name     string            `yaml:"name"`
	Line     version.Line      `yaml:"line"`
	Count    uint32            `yaml:"count"`
	Small    int8              `yaml:"small"`
	Share    float64           `yaml:"share"`
	On       bool              `yaml:"on"`
	Wait     time.Duration     `yaml:"wait"`
	List     []string          `yaml:"list"`
	Words    words             `yaml:"words"`
	Labels   map[string]string `yaml:"labels"`
	Inner    *inner            `yaml:"inner"`
	Products []inner           `yaml:"products"`
	Hidden   string
}

type inner struct {
	Channel  string `yaml:"channel"`
	Hardware string `yaml:"hardware"`
}

// words takes one word or a list.
type words []string

func (w *words) UnmarshalYAML(decode func(any) error) error {
	var one string
	if decode(&one) == nil {
		*w = words{one}
		return nil
	}
	var many []string
	if err := decode(&many); err != nil {
		return err
	}
	if len(many) > 2 {
		return fmt.Errorf("%d words, at most 2 are allowed", len(many))
	}
	*w = many
	return nil
}

func TestDecode(t *testing.T) {
	const text = `# a comment
name: "no"
line: 1.10
count: 7
small: -3
share: 0.5
on: true
wait: 90s
list: [a, 1.20, yes]
words: alone
labels:
  a.b: c
inner:
  channel: |
    two
    lines
products:
  - channel: file
    hardware: rev-a
  - {channel: container}
`
	got := config{Hidden: "kept", Name: "default"}
	if err := Decode("c.yaml", []byte(text), &got); err != nil {
		t.Fatal(err)
	}
	line, err := version.ParseLine("1.10")
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Name: "no", Line: line, Count: 7, Small: -3, Share: 0.5, On: true, Wait: 90 * time.Second,
		List: []string{"a", "1.20", "yes"}, Words: words{"alone"}, Labels: map[string]string{"a.b": "c"},
		Inner:    &inner{Channel: "two\nlines\n"},
		Products: []inner{{"file", "rev-a"}, {Channel: "container"}}, Hidden: "kept",
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	for _, empty := range []string{"", "# nothing\n", "name:\n", "---\nname: default\n"} {
		kept := config{Name: "default"}
		if err := Decode("c.yaml", []byte(empty), &kept); err != nil || kept.Name != "default" {
			t.Errorf("%q: %+v %v", empty, kept, err)
		}
	}
}

func TestDecodeSaysWhere(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown": {"name: a\nhardwear: b\n", "c.yaml:2:1: unknown key \"hardwear\"; known here: count, inner"},
		"misspelt": {"inner:\n  chanel: file\n", `c.yaml:2:3: unknown key "chanel"; did you mean "channel"?
  2 |   chanel: file
    |   ^`},
		"misspelt in a list": {"products:\n  - channel: a\n  - hardwear: b\n", `c.yaml:3:5: unknown key "hardwear"; did you mean "hardware"?`},
		"twice":              {"name: a\nname: b\n", "c.yaml:2:1: "},
		"no bool":            {"on: yes\n", `c.yaml:1:5: true or false is expected here, not the text "yes"`},
		"no number":          {"count: many\n", "c.yaml:1:8: a whole number from 0 to 4294967295 is expected here"},
		"negative":           {"count: -1\n", "c.yaml:1:8: a whole number"},
		"too large":          {"small: 200\n", "c.yaml:1:8: a whole number"},
		"no duration":        {"wait: 90\n", `c.yaml:1:7: "90" is not a duration, for example 90s, 15m or 6h`},
		"no line":            {"line: a.b\n", "c.yaml:1:7: malformed version: line \"a.b\""},
		"no list":            {"list: a\n", "c.yaml:1:7: a list is expected here"},
		"list of lists":      {"list: [[a]]\n", "a text is expected here, not a list"},
		"empty entry":        {"list:\n  - a\n  -\n", "an entry without a value"},
		"list for keys":      {"inner: [a]\n", "keys with values is expected here, not a list"},
		"list at the top":    {"- a\n", "keys with values is expected here"},
		"own type":           {"words: [a, b, c]\n", "c.yaml:1:8: 3 words, at most 2 are allowed"},
		"bad syntax":         {"name: [a\n", "c.yaml:1:"},
		"tab":                {"inner:\n\tchannel: a\n", "c.yaml:2:"},
		"anchor":             {"name: &a b\n", "anchors, aliases, tags and directives are not used here"},
		"alias":              {"a: &a b\nname: *a\n", "anchors, aliases"},
		"tag":                {"name: !!binary a\n", "anchors, aliases"},
		"merge":              {"<<: {name: a}\n", "anchors, aliases"},
		"second document":    {"name: a\n---\nname: b\n", "c.yaml:3:1: a second document"},
		"escape sequence":    {"name: \x1b[2J\n", "c.yaml:1:7: a character that is not text"},
		"not UTF-8":          {"name: \xff\n", "a character that is not text"},
		"deep flow":          {"name: " + strings.Repeat("[", 1000), "nested too deeply"},
		"deep block":         {"list:\n" + strings.Repeat("- ", 1000) + "a\n", "nested too deeply"},
		"oversized":          {"name: " + strings.Repeat("a", MaxBytes), "at most 1048576 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			var c2 config
			err := Decode("c.yaml", []byte(c.text), &c2)
			var at *Error
			if !errors.As(err, &at) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), c.want) || len(err.Error()) > 600 {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestCausesAreKept(t *testing.T) {
	var c config
	if err := Decode("c.yaml", []byte("line: x\n"), &c); !errors.Is(err, version.ErrMalformed) {
		t.Fatal(err)
	}
}

func TestErrorf(t *testing.T) {
	doc, err := Parse("c.yaml", []byte("name: a\nproducts:\n  - channel: file\n  - channel: boat\n"))
	if err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]string{
		"products[1].channel":  "c.yaml:4:14: boat?",
		"products[1].hardware": "c.yaml:4:5: boat?",
		"name":                 "c.yaml:1:7: boat?",
		"absent":               "c.yaml:1:1: boat?",
	} {
		if err := doc.Errorf(where, "%s?", "boat"); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", where, err, want)
		}
	}
	if err := doc.Errorf("name", "bad: %w", version.ErrMalformed); !errors.Is(err, version.ErrMalformed) || !strings.Contains(err.Error(), "bad: malformed version") {
		t.Error(err)
	}
	empty, err := Parse("c.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Errorf("name", "no name"); err.Error() != "c.yaml: no name" {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"name: a\nlist: [a, b]\n", "inner:\n  channel: x\n", "- - - a", "? a\n: b", "a: |\n  b\n", "\"\\x41\": 'b'", "products:\n- channel: a\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c config
		err := Decode("c.yaml", data, &c)
		if err == nil {
			return
		}
		var at *Error
		if !errors.As(err, &at) {
			t.Fatalf("an error without a place: %v", err)
		}
		for _, r := range err.Error() {
			if r < ' ' && r != '\n' {
				t.Fatalf("a control character in %q", err.Error())
			}
		}
	})
}
