// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (first, second store.Store) {
		// A name that a URL would read otherwise.
		path := filepath.Join(t.TempDir(), "a b%20c?#&", "pawl.db")
		return open(t, path), open(t, path)
	})
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pawl.db")
	s := open(t, path)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000"} {
		var got string
		if err := s.db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, want %s, %v", pragma, got, want, err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestNewerSchemaIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pawl.db")
	s := open(t, path)
	if _, err := s.db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "made by a newer program") {
		t.Fatalf("got %v", err)
	}
}

func TestNotADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pawl.db")
	text := strings.Repeat("no database ", 1000)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); err == nil {
		t.Fatal("opened")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Fatalf("the file was changed: %v", err)
	}
}

func BenchmarkAddReport(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "pawl.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r := store.Report{Device: "d", Product: "p", State: store.Confirmed, At: storetest.Now}
	for i := 0; b.Loop(); i++ {
		r.SecurityVersion = uint32(i)
		if err := r.Version.UnmarshalText([]byte("1.0.0")); err != nil {
			b.Fatal(err)
		}
		if err := s.AddReport(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
