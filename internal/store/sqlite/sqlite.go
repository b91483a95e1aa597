// SPDX-License-Identifier: Apache-2.0

// Package sqlite keeps a server's store in one SQLite file: the default for a server on one machine.
//
// The file is in WAL mode with synchronous=FULL, so what is confirmed survives a power cut, and several processes (the
// server and its command line) may use it at the same time. The schema is brought up to date when the file is opened; a
// file that a newer program has made is refused and left alone.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/version"
)

//go:embed migrations/*.sql
var migrations embed.FS

// connections is how many the pool holds: one writes, the others read. Each has a page cache of its own.
const connections = 3

// Store is a store.Store.
type Store struct{ db *sql.DB }

var _ store.Store = (*Store)(nil)

// Open opens the file, which is made if it is not there, and brings its schema up to date.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := durable.Mkdir(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// Two processes must not make the schema at the same time.
	held, err := durable.LockWait(ctx, path+".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if uerr := held.Unlock(); err == nil {
			err = uerr
		}
	}()
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open database %s: %w", path, err), db.Close())
	}
	return &Store{db}, nil
}

func dsn(path string) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
	u.RawQuery = url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "cache_size(-512)"},
		"_txlock": {"immediate"}, // a transaction that reads first and writes then would fail when it has to wait
	}.Encode()
	return u.String()
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	have, known, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > known {
		return fmt.Errorf("its schema has version %d, this program knows %d: it was made by a newer program", have, known)
	}
	_, err = p.Up(ctx)
	return err
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// AddToken implements store.Tokens.
func (s *Store) AddToken(ctx context.Context, t store.Token) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		n, err := count(ctx, tx, `SELECT count(*) FROM tokens WHERE revoked = 0`)
		if err != nil {
			return err
		}
		if n >= store.MaxTokens {
			return fmt.Errorf("token %s: %w: %d tokens", t.Name, store.ErrFull, n)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO tokens (id, name, products, hash, created) VALUES (?, ?, ?, ?, ?)`,
			t.ID, t.Name, strings.Join(t.Products, ","), t.Hash[:], millis(t.Created))
		if taken(err) {
			return fmt.Errorf("token %s: %w", t.Name, store.ErrExists)
		}
		return err
	})
}

const tokenColumns = `id, name, products, hash, created, last_used, revoked`

// Token implements store.Tokens.
func (s *Store) Token(ctx context.Context, id string) (store.Token, error) {
	t, err := scanToken(s.db.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return store.Token{}, fmt.Errorf("token %s: %w", id, store.ErrNotExist)
	}
	return t, err
}

// Tokens implements store.Tokens.
func (s *Store) Tokens(ctx context.Context) ([]store.Token, error) {
	return query(ctx, s.db, scanToken, `SELECT `+tokenColumns+` FROM tokens ORDER BY created, id`)
}

// UseToken implements store.Tokens.
func (s *Store) UseToken(ctx context.Context, id string, at time.Time) error {
	return s.one(ctx, id, `UPDATE tokens SET last_used = max(last_used, ?) WHERE id = ?`, millis(at), id)
}

// RevokeToken implements store.Tokens.
func (s *Store) RevokeToken(ctx context.Context, id string, at time.Time) error {
	return s.one(ctx, id, `UPDATE tokens SET revoked = CASE revoked WHEN 0 THEN ? ELSE revoked END WHERE id = ?`, millis(at), id)
}

// one runs a statement about one token.
func (s *Store) one(ctx context.Context, id, statement string, args ...any) error {
	result, err := s.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = fmt.Errorf("token %s: %w", id, store.ErrNotExist)
	}
	return err
}

func scanToken(row scanner) (store.Token, error) {
	var t store.Token
	var hash []byte
	var products string
	var created, used, revoked int64
	if err := row.Scan(&t.ID, &t.Name, &products, &hash, &created, &used, &revoked); err != nil {
		return store.Token{}, err
	}
	if products != "" {
		t.Products = strings.Split(products, ",")
	}
	t.Created, t.LastUsed, t.Revoked = moment(created), moment(used), moment(revoked)
	return t, setDigest(&t.Hash, hash)
}

// AddReport implements store.Reports.
func (s *Store) AddReport(ctx context.Context, r store.Report) error {
	var refused store.Refusal
	if r.Refusal != nil {
		refused = *r.Refusal
	}
	return s.tx(ctx, func(tx *sql.Tx) error {
		known, err := count(ctx, tx, `SELECT count(*) FROM devices WHERE product = ? AND device = ?`, r.Product, r.Device)
		if err != nil {
			return err
		}
		if known == 0 {
			n, err := count(ctx, tx, `SELECT count(*) FROM devices WHERE product = ?`, r.Product)
			if err != nil {
				return err
			}
			if n >= store.MaxDevices {
				return fmt.Errorf("product %s: %w: %d devices", r.Product, store.ErrFull, n)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO devices (product, device, latest) VALUES (?, ?, 0)`, r.Product, r.Device); err != nil {
				return err
			}
		}
		same, err := count(ctx, tx, `SELECT count(*) FROM reports WHERE product = ? AND device = ? AND version = ? AND digest = ?
			AND security_version = ? AND state = ? AND at = ? AND class = ? AND text = ?`,
			r.Product, r.Device, r.Version.String(), r.Digest[:], r.SecurityVersion, string(r.State), millis(r.At), string(refused.Class), refused.Text)
		if err != nil || same > 0 {
			return err
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO reports (product, device, version, digest, security_version, state, at, class, text, received)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.Product, r.Device, r.Version.String(), r.Digest[:], r.SecurityVersion, string(r.State), millis(r.At), string(refused.Class), refused.Text, millis(r.Received))
		if err != nil {
			return err
		}
		id, err := result.LastInsertId()
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE devices SET latest = ? WHERE product = ? AND device = ?`, id, r.Product, r.Device); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM reports WHERE product = ?1 AND device = ?2 AND id NOT IN
			(SELECT id FROM reports WHERE product = ?1 AND device = ?2 ORDER BY id DESC LIMIT ?3)`, r.Product, r.Device, store.MaxHistory)
		return err
	})
}

const reportColumns = `r.device, r.product, r.version, r.digest, r.security_version, r.state, r.at, r.class, r.text, r.received`

// Latest implements store.Reports.
func (s *Store) Latest(ctx context.Context, product, after string) ([]store.Report, error) {
	return query(ctx, s.db, scanReport, `SELECT `+reportColumns+` FROM devices d JOIN reports r ON r.id = d.latest
		WHERE d.product = ? AND d.device > ? ORDER BY d.device LIMIT ?`, product, after, store.MaxPage)
}

// History implements store.Reports.
func (s *Store) History(ctx context.Context, device, product string) ([]store.Report, error) {
	return query(ctx, s.db, scanReport, `SELECT `+reportColumns+` FROM reports r WHERE product = ? AND device = ? ORDER BY id DESC`, product, device)
}

func scanReport(row scanner) (store.Report, error) {
	var r store.Report
	var number, state, class, text string
	var sum []byte
	var at, received int64
	if err := row.Scan(&r.Device, &r.Product, &number, &sum, &r.SecurityVersion, &state, &at, &class, &text, &received); err != nil {
		return store.Report{}, err
	}
	var err error
	if r.Version, err = version.Parse(number); err != nil {
		return store.Report{}, err
	}
	r.State, r.At, r.Received = store.State(state), moment(at), moment(received)
	if class != "" || text != "" {
		r.Refusal = &store.Refusal{Class: refusal.Class(class), Text: text}
	}
	return r, setDigest(&r.Digest, sum)
}

// AddEvent implements store.Audit.
func (s *Store) AddEvent(ctx context.Context, e store.Event) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO events (at, action, actor, product, remote, outcome) VALUES (?, ?, ?, ?, ?, ?)`,
			millis(e.At), e.Action, clip(e.Actor), clip(e.Product), clip(e.Remote), clip(e.Outcome)); err != nil {
			return err
		}
		if e.Action != store.ActionAuth {
			return nil
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM events WHERE action = 'auth' AND id <=
			(SELECT id FROM events WHERE action = 'auth' ORDER BY id DESC LIMIT 1 OFFSET ?)`, store.MaxRefused)
		return err
	})
}

// Events implements store.Audit.
func (s *Store) Events(ctx context.Context, before int64) ([]store.Event, error) {
	return query(ctx, s.db, func(row scanner) (e store.Event, err error) {
		var at int64
		err = row.Scan(&e.ID, &at, &e.Action, &e.Actor, &e.Product, &e.Remote, &e.Outcome)
		e.At = moment(at)
		return e, err
	}, `SELECT id, at, action, actor, product, remote, outcome FROM events WHERE ?1 = 0 OR id < ?1 ORDER BY id DESC LIMIT ?2`, before, store.MaxPage)
}

// Forget implements store.Audit.
func (s *Store) Forget(ctx context.Context, before time.Time) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM events WHERE action = 'auth' AND at < ?`, millis(before))
	return err
}

func (s *Store) tx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

func query[T any](ctx context.Context, db *sql.DB, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func count(ctx context.Context, tx *sql.Tx, text string, args ...any) (n int, err error) {
	err = tx.QueryRowContext(ctx, text, args...).Scan(&n)
	return n, err
}

// taken reports whether a row was refused because another one has its key.
func taken(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

func setDigest(d *digest.SHA256, sum []byte) error {
	if len(sum) != len(d) {
		return fmt.Errorf("a digest of %d bytes in the database", len(sum))
	}
	copy(d[:], sum)
	return nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func moment(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis).UTC()
}

func clip(s string) string { return s[:min(len(s), store.MaxText)] }
