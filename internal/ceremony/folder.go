// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/trust"
)

// maxRoots bounds the chain of roots in a folder.
const maxRoots = 4096

// maxKeyText bounds a public key file.
const maxKeyText = 16 << 10

// Folder is the content of a trust folder, checked.
type Folder struct {
	Dir string
	// Roots are all roots since the first, in order: Roots[0] is version 1.
	Roots [][]byte
	// Targets is the newest top-level targets document.
	Targets []byte
	// State is what the newest documents say.
	State State
}

// Root returns the newest root.
func (f Folder) Root() []byte { return f.Roots[len(f.Roots)-1] }

// Load reads a trust folder. It checks that every root follows from the first one and that the targets are signed by the
// newest, and not whether something has expired. A folder without a root is an error that wraps fs.ErrNotExist. A draft
// that was being applied when its process was killed counts as applied.
func Load(trustDir string) (Folder, error) {
	f, err := readFolder(trustDir)
	if err != nil {
		return Folder{}, err
	}
	pending, err := readPending(trustDir)
	if err != nil {
		return Folder{}, err
	}
	if pending != nil {
		if err := f.overlay(*pending); err != nil {
			return Folder{}, err
		}
	}
	if len(f.Roots) == 0 {
		return Folder{}, fmt.Errorf("no root of trust in %s, `pawl keys init` makes one: %w", trustDir, fs.ErrNotExist)
	}
	return f, f.check()
}

// readFolder reads the documents as they lie there.
func readFolder(dir string) (Folder, error) {
	f := Folder{Dir: dir}
	for version := int64(1); ; version++ {
		doc, err := readFile(filepath.Join(dir, rootFile(version)), trust.MaxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return Folder{}, err
		}
		if version > maxRoots {
			return Folder{}, fmt.Errorf("more than %d roots in %s", maxRoots, dir)
		}
		f.Roots = append(f.Roots, doc)
	}
	doc, err := readFile(filepath.Join(dir, targetsFile), trust.MaxTargets)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Folder{}, err
	}
	f.Targets = doc
	return f, nil
}

// readPending returns the draft that is being applied, or nil.
func readPending(dir string) (*Draft, error) {
	path := filepath.Join(dir, applyingFile)
	data, err := readFile(path, MaxDraft)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := ParseDraft(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &d, d.Incomplete()
}

// overlay puts a draft that is being applied over the files, of which some may be written already. What lies there must
// be what the draft begins at or what it leads to.
func (f *Folder) overlay(d Draft) error {
	var root jsontext.Value
	if len(f.Roots) > 0 {
		root = f.Root()
	}
	for _, doc := range []struct{ have, base, next jsontext.Value }{
		{root, d.base.Root, d.next.Root},
		{jsontext.Value(f.Targets), d.base.Targets, d.next.Targets},
	} {
		if !sameOrNone(doc.have, doc.base) && (doc.next == nil || !sameOrNone(doc.have, doc.next)) {
			return f.refuse("%s is a change of another state than the one that lies there", applyingFile)
		}
	}
	if d.next.Root != nil {
		keep := int(d.after.Root.Version) - 1
		if keep > len(f.Roots) {
			return f.refuse("%s follows root version %d, there are %d roots", applyingFile, keep, len(f.Roots))
		}
		f.Roots = append(f.Roots[:keep:keep], d.next.Root)
	}
	if d.next.Targets != nil {
		f.Targets = d.next.Targets
	}
	return nil
}

func sameOrNone(a, b jsontext.Value) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return sameContent(a, b)
}

// check verifies the chain of roots and the targets.
func (f *Folder) check() error {
	for i, doc := range f.Roots {
		root, err := trust.ParseRoot(doc)
		if err != nil {
			return fmt.Errorf("%s: %w", f.path(rootFile(int64(i)+1)), err)
		}
		if root.Version != int64(i)+1 {
			return f.refuse("%s holds version %d", rootFile(int64(i)+1), root.Version)
		}
		signers := []trust.Root{root}
		if i > 0 {
			signers = append(signers, f.State.Root)
		}
		for _, by := range signers {
			if err := checkSigned(doc, nil, by.Authority()); err != nil {
				return fmt.Errorf("%s, keys of root version %d: %w", f.path(rootFile(root.Version)), by.Version, err)
			}
		}
		f.State.Root = root
	}
	if f.Targets == nil {
		return f.refuse("no %s", targetsFile)
	}
	var err error
	if f.State.Targets, err = trust.ParseTargets(f.Targets); err != nil {
		return fmt.Errorf("%s: %w", f.path(targetsFile), err)
	}
	if err := checkSigned(nil, f.Targets, f.State.Root.Authority()); err != nil {
		return fmt.Errorf("%s: %w", f.path(targetsFile), err)
	}
	return nil
}

func (f *Folder) path(name string) string { return filepath.Join(f.Dir, name) }

func (f *Folder) docs() docs {
	return docs{Root: jsontext.Value(f.Root()), Targets: jsontext.Value(f.Targets)}
}

func (f *Folder) refuse(format string, args ...any) error {
	return refusal.New(refusal.Mixed, "trust folder "+f.Dir, format, args...).
		Do("bring back the folder as it was committed last")
}

// readFile reads a file of at most most bytes.
func readFile(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, refusal.New(refusal.Malformed, path, "more than %d bytes", most)
	}
	return data, nil
}
