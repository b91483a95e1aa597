// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/pawl-project/pawl/internal/refusal"
)

// TestVectors reads the statements that the specification ships, good and bad, as any other implementation would.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "spec", "testdata", "statement.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name   string `json:"name"`
		Expect string `json:"expect"`
		Text   string `json:"text"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			if seen[v.Name] {
				t.Fatal("the name stands twice")
			}
			seen[v.Name] = true
			r, err := Decode([]byte(v.Text))
			switch v.Expect {
			case "accept":
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.Encode(); err != nil {
					t.Fatalf("accepted, and cannot be written: %v", err)
				}
			case "canonical": // accepted, and the bytes that an encoder writes
				if err != nil {
					t.Fatal(err)
				}
				if out, err := r.Encode(); err != nil || string(out) != v.Text {
					t.Fatalf("%v\n got %s\nwant %s", err, out, v.Text)
				}
			case "malformed":
				if refusal.Of(err) != refusal.Malformed {
					t.Fatalf("got %v", err)
				}
			default:
				t.Fatalf("unknown expectation %q", v.Expect)
			}
		})
	}
	if len(vectors) < 10 {
		t.Fatalf("only %d vectors", len(vectors))
	}
}
