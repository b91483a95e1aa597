// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/invopop/jsonschema"
)

var update = flag.Bool("update", false, "rewrite the JSON Schemas")

// TestSchemasAreCurrent makes the JSON Schemas from the structs and their comments and compares them with what is
// published.
func TestSchemasAreCurrent(t *testing.T) {
	for file, v := range map[string]any{"pawl.schema.json": &Config{}, "advisory.schema.json": &Advisory{}} {
		r := jsonschema.Reflector{
			FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, ExpandedStruct: true,
			Mapper: func(typ reflect.Type) *jsonschema.Schema {
				if typ == reflect.TypeFor[Duration]() {
					return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+d|([0-9.]+(ns|us|ms|s|m|h))+)$`}
				}
				return nil
			},
		}
		if err := r.AddGoComments("github.com/pawl-project/pawl/internal/config", "."); err != nil {
			t.Fatal(err)
		}
		schema := r.Reflect(v)
		schema.ID = jsonschema.ID("https://raw.githubusercontent.com/pawl-project/pawl/main/docs/spec/" + file)
		schema.Title = file
		var got bytes.Buffer
		enc := json.NewEncoder(&got)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(schema); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("..", "..", "docs", "spec", file)
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s is not what the structs say: run go test ./internal/config -update", path)
		}
	}
}
