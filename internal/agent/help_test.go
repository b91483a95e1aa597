// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	json "github.com/go-json-experiment/json"
)

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}
