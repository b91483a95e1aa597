// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"io"
	"testing"

	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
)

// TestRepo reads a repository of this package as a device does, from memory and from a folder, and meets each lie.
func TestRepo(t *testing.T) {
	r := NewRepo(t, "greeter")
	r.Release("greeter", "1.0.0", []byte("one"), Kind(statement.Feature), SecurityVersion(3))
	r.Publish()
	dir := t.TempDir()
	r.Write(dir)
	store, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	refresh := func(src catalog.Opener) (*catalog.Catalog, error) {
		return catalog.Refresh(t.Context(), src, catalog.Memory{}, catalog.Options{Now: r.Now, Root: r.RootDoc})
	}
	for name, src := range map[string]catalog.Opener{"memory": r.Source(), "folder": store} {
		c, err := refresh(src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := c.Release(t.Context(), c.Releases("greeter")[0])
		if err != nil || got.SecurityVersion != 3 || got.Kind != statement.Feature {
			t.Fatalf("%s: %+v %v", name, got, err)
		}
		body, err := c.OpenTarget(t.Context(), trust.TargetPath("greeter", got.Version, "greeter"), 1)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(body); err != nil || string(data) != "ne" {
			t.Fatalf("%s: %q %v", name, data, err)
		}
	}
	for name, lie := range map[string]func(*Source){
		"tampered": func(s *Source) { s.Tamper("snapshot.json") },
		"torn":     func(s *Source) { s.Tear("timestamp.json", 10) },
		"endless":  func(s *Source) { s.Endless("snapshot.json") },
		"replaced": func(s *Source) { s.Replace("timestamp.json", r.RootDoc) },
		"failing":  func(s *Source) { s.Fail("targets.json", io.ErrClosedPipe) },
	} {
		s := r.Source()
		lie(s)
		_, err := refresh(s)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if class := refusal.Of(err); (name == "torn" || name == "failing") != (class == "") {
			t.Errorf("%s: %v", name, err)
		}
		s.Honest()
		if _, err := refresh(s); err != nil {
			t.Errorf("%s, honest again: %v", name, err)
		}
	}
}
