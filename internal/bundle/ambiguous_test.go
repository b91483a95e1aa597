// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/signtest"
)

// TestAFileCanBeAStatement shows the attack: whoever chooses the bytes of a file gets a statement signed.
func TestAFileCanBeAStatement(t *testing.T) {
	s := signtest.New(t)
	file := []byte("DSSEv1 " + strconv.Itoa(len(PayloadType)) + " " + PayloadType + " " + strconv.Itoa(len(exampleStatement)) + " " + exampleStatement)
	sig, err := sign.Message(t.Context(), s, file)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := encode(s, document{Envelope: &envelope{[]byte(exampleStatement), PayloadType, []signature{{Sig: sig}}}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse(forged)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.VerifyStatement(keysOf(s)); err != nil {
		t.Fatalf("the attack that CheckBlob is for does not work any more: %v", err)
	}
	if err := CheckBlob(bytes.NewReader(file)); refusal.Of(err) != refusal.Malformed {
		t.Fatalf("got %v", err)
	}
}

func TestCheckBlob(t *testing.T) {
	payload, err := SimpleSigning("registry.example/a", digest.Of(artifact))
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"payload":              string(payload),
		"payload, capitals":    strings.Replace(string(payload), "critical", "CRITICAL", 1),
		"payload after others": strings.Replace(string(payload), "{", `{"a":{"b":[1,2,"}"]},`, 1),
		"payload after space":  " \n\t\r" + string(payload),
		"payload, escaped":     strings.Replace(string(payload), "critical", `\u0063ritical`, 1),
		"payload, twice":       `{"critical":{},"critical":1}`,
		"not UTF-8":            `{"x":"` + "\xff" + `","critical":{}}`,
		"role":                 `{"_type":"targets","version":1}`,
		"root":                 `{"A":1,"_type":"root"}`,
	} {
		if err := CheckBlob(strings.NewReader(file)); refusal.Of(err) != refusal.Malformed {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, file := range map[string]string{
		"empty":             "",
		"short":             "DSSE",
		"binary":            "\x7fELF{",
		"text":              "hello",
		"array":             `[{"critical":{}}]`,
		"object":            `{"name":"config","critical":true}`,
		"nested":            `{"a":{"critical":{}}}`,
		"broken":            `{"critical":{}`,
		"trailing":          `{"critical"}`,
		"statement":         exampleStatement,
		"only an open":      "{",
		"SBOM with _type":   `{"_type":"https://spdx.dev/Document"}`,
		"large":             `{"a":"` + strings.Repeat("a", 1<<20) + `"}`,
		"space":             strings.Repeat(" ", 1<<20),
		"binary after open": "{\x00\x01\x02",
	} {
		if err := CheckBlob(strings.NewReader(file)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("disk broken")
	if err := CheckBlob(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if err := CheckBlob(io.MultiReader(strings.NewReader(`{"a":`), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func FuzzCheckBlob(f *testing.F) {
	f.Add([]byte(`{"critical":{}}`))
	f.Add([]byte(`DSSEv1 `))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := CheckBlob(bytes.NewReader(data))
		if err != nil && refusal.Of(err) != refusal.Malformed {
			t.Fatalf("got %v", err)
		}
		if _, perr := ParseSimpleSigning(data); perr == nil && err == nil {
			t.Fatalf("signs a payload: %q", data)
		}
	})
}
