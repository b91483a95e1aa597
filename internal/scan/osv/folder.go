// SPDX-License-Identifier: Apache-2.0

package osv

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
)

// Folder is a database in a folder. Every record is read once, when it is opened, to be hashed and indexed; a record that
// a component asks for is read again, and must then still be the same. So memory holds the index and not the records, and
// all scans with one Folder are scans with one snapshot. Safe for concurrent use. It implements scan.Scanner.
type Folder struct {
	opt      Options
	dir      string
	root     *os.Root
	archives []*archive
	records  []entry
	packages map[name][]int32 // ecosystem and normal name to indices in records
	covered  map[string]bool  // ecosystems that have a record
	database evidence.Database
}

// archive is an open zip file.
type archive struct {
	file *os.File
	*zip.Reader
}

// entry is where a record lies.
type entry struct {
	path    string // of a file; empty for one in an archive
	archive int32
	index   int32 // in the archive
	digest  digest.SHA256
}

// indexed is what a worker found in a record.
type indexed struct {
	entry
	id       string
	modified time.Time
	packages []name
}

// OpenFolder indexes the records below dir. Hidden folders, and folders called "index" as in the Go vulnerability
// database, are skipped; every other file whose name ends in ".json" must be a record. A folder that is missing, empty,
// unreadable or too old is a refusal of class NotProven that wraps scan.ErrDatabase.
func OpenFolder(ctx context.Context, dir string, opt Options) (*Folder, error) {
	f := &Folder{opt: opt, dir: dir, packages: make(map[name][]int32), covered: make(map[string]bool)}
	if err := f.open(ctx); err != nil {
		f.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, cannotUse("vulnerability database "+dir, "%v", err)
	}
	return f, nil
}

// Close releases the files. No scan may be under way or follow.
func (f *Folder) Close() error {
	var first error
	for _, a := range f.archives {
		first = cmp.Or(first, a.file.Close())
	}
	if f.root != nil {
		first = cmp.Or(first, f.root.Close())
	}
	return first
}

// Database describes the folder's content.
func (f *Folder) Database() evidence.Database { return f.database }

func (f *Folder) open(ctx context.Context) error {
	var err error
	if f.root, err = os.OpenRoot(f.dir); err != nil {
		return err
	}
	entries, err := f.list(ctx)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("there is no record in it")
	}
	found, err := f.index(ctx, entries)
	if err != nil {
		return err
	}
	f.database.Name = "OSV folder"
	f.settle(found)
	age := f.opt.Now().Sub(f.database.Updated)
	if most := cmp.Or(f.opt.MaxAge, DefaultMaxAge); age > most && !f.opt.AnyAgeUnsafe {
		return fmt.Errorf("its newest record is %d days old (%s), at most %d are allowed", int(age.Hours()/24), f.database.Updated.Format(time.DateOnly), int(most.Hours()/24))
	}
	return nil
}

// list finds all records, in files and archives.
func (f *Folder) list(ctx context.Context) ([]entry, error) {
	var all []entry
	err := fs.WalkDir(f.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir() && name != "." && (d.Name() == "index" || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir(), strings.HasPrefix(d.Name(), "."):
			return nil
		}
		switch path.Ext(name) {
		case ".json":
			all = append(all, entry{path: name})
		case ".zip":
			var err error
			if all, err = f.listArchive(all, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if len(all) > maxRecords {
			return fmt.Errorf("more than %d records", maxRecords)
		}
		return nil
	})
	return all, err
}

func (f *Folder) listArchive(all []entry, name string) ([]entry, error) {
	file, err := f.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	f.archives = append(f.archives, &archive{file: file})
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(file, info.Size())
	if err != nil {
		return nil, err
	}
	at := len(f.archives) - 1
	f.archives[at].Reader = z
	for i, member := range z.File {
		dir := path.Base(path.Dir(member.Name))
		if path.Ext(member.Name) == ".json" && dir != "index" && len(all) <= maxRecords {
			all = append(all, entry{archive: int32(at), index: int32(i)})
		}
	}
	return all, nil
}

// index reads and hashes all records.
func (f *Folder) index(ctx context.Context, entries []entry) ([]indexed, error) {
	found := make([]indexed, len(entries))
	group, ctx := errgroup.WithContext(ctx)
	const chunk = 256
	chunks := make(chan int)
	group.Go(func() error {
		defer close(chunks)
		for from := 0; from < len(entries); from += chunk {
			select {
			case chunks <- from:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			var buf bytes.Buffer
			for from := range chunks {
				for i := from; i < min(from+chunk, len(entries)); i++ {
					var err error
					if found[i], err = f.indexOne(entries[i], &buf); err != nil {
						return fmt.Errorf("%s: %w", f.where(entries[i]), err)
					}
				}
			}
			return nil
		})
	}
	return found, group.Wait()
}

func (f *Folder) indexOne(e entry, buf *bytes.Buffer) (indexed, error) {
	if err := f.read(e, buf); err != nil {
		return indexed{}, err
	}
	var h header
	if err := json.Unmarshal(buf.Bytes(), &h); err != nil {
		return indexed{}, err
	}
	if err := checkHeader(h.ID, h.Modified); err != nil {
		return indexed{}, err
	}
	e.digest = digest.Of(buf.Bytes())
	out := indexed{entry: e, id: h.ID}
	out.modified, _ = time.Parse(time.RFC3339, h.Modified) // checkHeader has parsed it
	if h.Withdrawn != "" {
		return out, nil // part of the snapshot, and about no package any more
	}
	for _, a := range h.Affected {
		p := name{Ecosystem: a.Package.Ecosystem, Name: normal(a.Package.Ecosystem, a.Package.Name)}
		if p.Ecosystem != "" && !slices.Contains(out.packages, p) {
			out.packages = append(out.packages, p)
		}
	}
	return out, nil
}

// settle builds the index. Of two records with one identifier the one that was modified later counts (OSV schema,
// "modified field").
func (f *Folder) settle(found []indexed) {
	slices.SortFunc(found, func(a, b indexed) int {
		return cmp.Or(cmp.Compare(a.id, b.id), b.modified.Compare(a.modified), bytes.Compare(a.digest[:], b.digest[:]))
	})
	found = slices.CompactFunc(found, func(a, b indexed) bool { return a.id == b.id })
	digests := make([]digest.SHA256, 0, len(found))
	interned := make(map[string]string) // the same few ecosystems and many equal package names
	intern := func(s string) string {
		if t, ok := interned[s]; ok {
			return t
		}
		s = strings.Clone(s)
		interned[s] = s
		return s
	}
	for i, r := range found {
		f.records = append(f.records, r.entry)
		digests = append(digests, r.digest)
		if r.modified.After(f.database.Updated) {
			f.database.Updated = r.modified.UTC().Truncate(time.Second)
		}
		for _, p := range r.packages {
			key := name{intern(p.Ecosystem), intern(p.Name)}
			f.packages[key] = append(f.packages[key], int32(i))
			f.covered[key.Ecosystem] = true
		}
	}
	slices.SortFunc(digests, func(a, b digest.SHA256) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, d := range digests {
		h.Write(d[:])
	}
	f.database.Records = len(digests)
	f.database.Snapshot = digest.SHA256(h.Sum(nil)).String()
}

// read fills buf with a record's bytes.
func (f *Folder) read(e entry, buf *bytes.Buffer) error {
	buf.Reset()
	var r io.ReadCloser
	var err error
	if e.path != "" {
		r, err = f.root.Open(filepath.FromSlash(e.path))
	} else {
		r, err = f.archives[e.archive].File[e.index].Open()
	}
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := buf.ReadFrom(io.LimitReader(r, maxRecordBytes+1))
	if err != nil {
		return err
	}
	if n > maxRecordBytes {
		return fmt.Errorf("more than %d bytes", maxRecordBytes)
	}
	return nil
}

// where names the place of a record.
func (f *Folder) where(e entry) string {
	if e.path != "" {
		return e.path
	}
	a := f.archives[e.archive]
	return filepath.Base(a.file.Name()) + ", " + clip(a.File[e.index].Name, 200)
}

// load reads a record again, and refuses it if it is not the one that was indexed.
func (f *Folder) load(i int32) (*record, error) {
	e := f.records[i]
	var buf bytes.Buffer
	if err := f.read(e, &buf); err != nil {
		return nil, cannotUse("vulnerability database "+f.dir, "%s: %v", f.where(e), err)
	}
	if digest.Of(buf.Bytes()) != e.digest {
		return nil, cannotUse("vulnerability database "+f.dir, "%s has changed since the database was opened", f.where(e))
	}
	r, err := parse(buf.Bytes())
	if err != nil {
		return nil, cannotUse("vulnerability database "+f.dir, "%s: %v", f.where(e), err)
	}
	return r, nil
}

// Scan implements scan.Scanner.
func (f *Folder) Scan(ctx context.Context, bom evidence.SBOM) (evidence.Report, error) {
	loaded := make(map[int32]*record)
	return report(ctx, bom, f.opt, f.database, func(ctx context.Context, p evidence.Package) ([]*record, string, error) {
		return f.lookup(p, loaded)
	})
}

// lookup returns the records that affect a package.
func (f *Folder) lookup(p evidence.Package, loaded map[int32]*record) ([]*record, string, error) {
	ecosystems := []string{p.Ecosystem}
	if b := base(p.Ecosystem); b != p.Ecosystem {
		ecosystems = append(ecosystems, b)
	}
	if !slices.ContainsFunc(ecosystems, func(e string) bool { return f.covered[e] }) {
		return nil, fmt.Sprintf("the database has no record of ecosystem %s", p.Ecosystem), nil
	}
	var found []*record
	seen := make(map[int32]bool)
	for _, e := range ecosystems {
		for _, i := range f.packages[name{e, normal(e, p.Name)}] {
			if seen[i] {
				continue
			}
			seen[i] = true
			r := loaded[i]
			if r == nil {
				var err error
				if r, err = f.load(i); err != nil {
					return nil, "", err
				}
				loaded[i] = r
			}
			hit, err := r.hits(p)
			if err != nil {
				return nil, fmt.Sprintf("record %s: %v", r.ID, err), nil
			}
			if hit {
				found = append(found, r)
			}
		}
	}
	return found, "", nil
}
