// SPDX-License-Identifier: Apache-2.0

package update_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
)

// TestFloorVectors runs the vectors of docs/spec/floor.md.
func TestFloorVectors(t *testing.T) {
	text, err := os.ReadFile("../../docs/spec/testdata/floor.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name  string `json:"name"`
		Steps []struct {
			Do              string          `json:"do"`
			Version         version.Version `json:"version"`
			SecurityVersion uint32          `json:"securityVersion"`
			Security        uint32          `json:"security"`
			Epoch           uint32          `json:"epoch"`
			Floor           uint32          `json:"floor"`
			Expect          refusal.Class   `json:"expect"`
		} `json:"steps"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			var d update.Device
			for i, s := range v.Steps {
				expect := func(err error) {
					t.Helper()
					if refusal.Of(err) != s.Expect || err != nil && s.Expect == "" {
						t.Errorf("step %d (%s): got %v, want class %q", i, s.Do, err, s.Expect)
					}
				}
				switch s.Do {
				case "accept":
					x := trust.Index{Version: s.Version, Line: s.Version.Line(), Kind: statement.Security, SecurityVersion: s.SecurityVersion}
					expect(update.AcceptIndex(d, x, time.Unix(0, 0)).Err())
				case "confirm":
					d.Installed.Version, d.Floor = s.Version, d.Floor.Confirm(s.SecurityVersion)
				case "fallback":
					expect(d.Floor.Fallback(s.SecurityVersion))
				case "recover":
					d.Floor = d.Floor.Recover(trust.Recovery{Epoch: s.Epoch, Floor: s.Floor})
				case "uninstall":
					d.Installed = update.Installed{}
				case "floor":
					if want := (update.Floor{Security: s.Security, Epoch: s.Epoch}); d.Floor != want {
						t.Errorf("step %d: floor %+v, want %+v", i, d.Floor, want)
					}
				default:
					t.Fatalf("step %d: unknown action %q", i, s.Do)
				}
			}
		})
	}
}
