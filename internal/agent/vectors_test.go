// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TestStateVectors reads the states of docs/spec/testdata/agent-state.json, which every later version must read as this
// one does, and writes those that are good as they were.
func TestStateVectors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/spec/testdata/agent-state.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name   string         `json:"name"`
		Expect string         `json:"expect"` // good, damaged, newer
		State  jsontext.Value `json:"state"`
	}
	if err := json.Unmarshal(text, &vectors, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			s, err := decodeState("greeter", v.State)
			switch {
			case v.Expect == "good" && err != nil, v.Expect == "damaged" && !errors.Is(err, errDamaged),
				v.Expect == "newer" && (err == nil || errors.Is(err, errDamaged)):
				t.Fatalf("expected %s, got %v", v.Expect, err)
			case err != nil:
				return
			}
			out, err := s.encode()
			if err != nil {
				t.Fatal(err)
			}
			before, after := v.State.Clone(), jsontext.Value(out)
			if err := errors.Join(before.Canonicalize(), after.Canonicalize()); err != nil {
				t.Fatal(err)
			}
			if string(before) != string(after) {
				t.Fatalf("read  %s\nwrote %s", before, after)
			}
		})
	}
}

func FuzzDecodeState(f *testing.F) {
	text, err := os.ReadFile("../../docs/spec/testdata/agent-state.json")
	if err != nil {
		f.Fatal(err)
	}
	var vectors []struct {
		State jsontext.Value `json:"state"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		f.Fatal(err)
	}
	for _, v := range vectors {
		f.Add([]byte(v.State))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState("greeter", data)
		if err != nil {
			return
		}
		out, err := s.encode()
		if err != nil {
			return // over the limits on what is written
		}
		if _, err := decodeState("greeter", out); err != nil {
			t.Fatalf("does not survive: %v\n%s", err, out)
		}
	})
}
