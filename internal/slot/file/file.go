// SPDX-License-Identifier: Apache-2.0

// Package file installs a plain file into versioned folders behind an atomic switch:
//
//	<path>/releases/<version>-<digest>/<artifact>    one folder for each release; the digest's first twelve digits
//	<path>/releases/<version>-<digest>/.pawl.json    says that the artifact is whole and verified
//	<path>/current   -> releases/...                 what runs; replaced in one rename
//	<path>/previous  -> releases/...                 what ran before, until it is replaced
//
// Programs use <path>/current/<artifact>. What runs is a symbolic link, so at every instant it is the old release or the
// new one.
//
// Bytes arrive in <artifact>.unverified. Reading, hashing and writing overlap, so staging costs the slowest of the three.
// An interrupted download goes on where it stopped; the bytes on the disk are hashed again, because nobody vouches for
// what a crash has left. Only when all bytes are there, are those that were signed, and are on the disk does the file get
// its name, and after that the folder its mark.
//
// A release that is neither current nor previous nor being staged is removed. Not promised: protection from somebody who
// can write here. Who can, is root or as good.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	json "github.com/go-json-experiment/json"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/version"
)

const (
	releasesDir  = "releases"
	currentLink  = "current"
	previousLink = "previous"
	markName     = ".pawl.json" // no artifact can have this name: artifacts begin with a letter or digit
	unverified   = ".unverified"
	maxMark      = 4 << 10
	// spare is left free on the disk beside the artifact, in bytes.
	spare = 1 << 20
)

// Options configure a slot.
type Options struct {
	// Path is the folder, absolute. It is created by the first Stage.
	Path string
	// Mode is the mode of the artifact; zero means 0755.
	Mode fs.FileMode
	// Restart makes the new release run. It gets PAWL_PRODUCT, PAWL_VERSION and PAWL_PATH, the folder of the artifact.
	Restart slot.Restart
}

// Slot implements slot.Slot and slot.Checker.
type Slot struct{ opt Options }

// New returns the slot in a folder.
func New(opt Options) (*Slot, error) {
	if runtime.GOOS == "windows" {
		return nil, errors.New("files are installed on Linux and other Unix systems only: the switch is a symbolic link")
	}
	if !filepath.IsAbs(opt.Path) || filepath.Clean(opt.Path) == string(filepath.Separator) {
		return nil, fmt.Errorf("slot path %q is not an absolute folder of its own", opt.Path)
	}
	if opt.Mode == 0 {
		opt.Mode = 0o755
	}
	return &Slot{opt}, nil
}

// mark is written beside an artifact when it is whole and verified.
type mark struct {
	Product  string          `json:"product"`
	Version  version.Version `json:"version"`
	Artifact string          `json:"artifact"`
	Digest   digest.SHA256   `json:"digest"`
	Size     int64           `json:"size"`
}

func markOf(p slot.Payload) mark {
	return mark{p.Release.Product, p.Release.Version, p.Artifact.Name, p.Artifact.Digest.SHA256, p.Artifact.Size}
}

func (m mark) dir() string {
	return releasesDir + "/" + m.Version.String() + "-" + m.Digest.Short()
}

// Stage brings the artifact, verified, into the folder of its release.
func (s *Slot) Stage(ctx context.Context, p slot.Payload) error {
	m := markOf(p)
	if err := durable.Mkdir(s.opt.Path, 0o755); err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	root, err := os.OpenRoot(s.opt.Path)
	if err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	defer root.Close()
	if err := durable.MkdirIn(root, releasesDir, 0o755); err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	current, err := link(root, currentLink)
	if err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	if err := s.prune(ctx, root, m.dir()); err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	if have, err := readMark(root, m.dir()); err == nil && have == m {
		switch err := check(root, m); {
		case err == nil:
			progress(p, m.Size)
			return nil
		case current == m.dir():
			// It runs: nothing here may touch it.
			return err
		}
	}
	if current == m.dir() {
		return fmt.Errorf("cannot stage: %s runs and is not what its name says", filepath.Join(s.opt.Path, m.dir()))
	}
	if err := s.fetch(ctx, root, m, p); err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	return nil
}

// fetch downloads into the folder of the release and marks it.
func (s *Slot) fetch(ctx context.Context, root *os.Root, m mark, p slot.Payload) error {
	dir := m.dir()
	name, partial := dir+"/"+m.Artifact, dir+"/"+m.Artifact+unverified
	if err := durable.MkdirIn(root, dir, 0o755); err != nil {
		return err
	}
	// A mark without its artifact, or an artifact without its mark, was left by a crash or by a hand.
	if err := errors.Join(durable.RemoveIn(root, dir+"/"+markName), durable.RemoveIn(root, name)); err != nil {
		return err
	}
	err := fault.Around(ctx, "slot.file.fetch", func() error {
		f, err := root.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		err = s.download(ctx, f, m, p)
		return errors.Join(err, f.Close())
	})
	if errors.Is(err, digest.ErrMismatch) || errors.Is(err, digest.ErrSize) || isFull(err) {
		// Wrong bytes are of no use, and a full disk is needed for what runs.
		err = errors.Join(err, durable.RemoveIn(root, partial))
	}
	if err != nil {
		return err
	}
	if err := fault.Around(ctx, "slot.file.name", func() error { return durable.RenameIn(root, partial, name) }); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return fault.Around(ctx, "slot.file.mark", func() error { return durable.WriteFileIn(root, dir+"/"+markName, text, 0o644) })
}

// download makes f the verified artifact, durable. Bytes that are there already are kept if they are its beginning.
func (s *Slot) download(ctx context.Context, f *os.File, m mark, p slot.Payload) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	have := info.Size()
	if have > m.Size {
		have = 0
	}
	if err := checkSpace(f, m.Size-have); err != nil {
		return err
	}
	for {
		err := s.receive(ctx, f, have, m, p)
		if have > 0 && errors.Is(err, digest.ErrMismatch) {
			have = 0 // the beginning on the disk may be what is wrong
			continue
		}
		if errors.Is(err, digest.ErrMismatch) || errors.Is(err, digest.ErrSize) {
			return refusal.New(refusal.Digest, fmt.Sprintf("artifact %s of %s %s", m.Artifact, m.Product, m.Version), "%w", err).
				Do("nothing was changed; if it stays so, the server or the way to it is damaged or hostile")
		}
		if err != nil {
			return err
		}
		return errors.Join(f.Chmod(s.opt.Mode), f.Sync())
	}
}

// receive appends to the first have bytes of f what is missing, and checks the whole.
func (s *Slot) receive(ctx context.Context, f *os.File, have int64, m mark, p slot.Payload) error {
	if err := f.Truncate(have); err != nil {
		return err
	}
	rest := &lazy{ctx: ctx, open: p.Open, offset: have, size: m.Size}
	defer rest.close()
	src := io.MultiReader(io.NewSectionReader(f, 0, have), rest)
	dst := &after{skip: have, at: have, size: m.Size, to: f, tell: func(n int64) { progress(p, n) }}
	return digest.Verify(dst, src, m.Digest, m.Size)
}

// lazy opens the source at the first read: a download that is complete needs no server.
type lazy struct {
	ctx          context.Context
	open         func(context.Context, int64) (io.ReadCloser, error)
	from         io.ReadCloser
	offset, size int64
}

func (l *lazy) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if l.from == nil {
		if l.offset == l.size {
			return 0, io.EOF
		}
		from, err := l.open(l.ctx, l.offset)
		if err != nil {
			return 0, err
		}
		l.from = from
	}
	return l.from.Read(p)
}

func (l *lazy) close() {
	if l.from != nil {
		_ = l.from.Close() // every byte that matters has been read and hashed
	}
}

// after writes what comes after the first skip bytes, and never more than was signed.
type after struct {
	skip, at, size int64
	begun          int64 // bytes whose way to the disk has begun
	to             *os.File
	tell           func(int64)
}

// writeback is how many bytes are handed to the disk at a time. Without it the kernel would begin to write when the
// download is over, and the disk would be idle meanwhile.
const writeback = 8 << 20

func (a *after) Write(p []byte) (int, error) {
	skip := min(a.skip, int64(len(p)))
	a.skip -= skip
	fresh := p[skip:]
	fresh = fresh[:min(int64(len(fresh)), a.size-a.at)] // the byte too many is refused by its number, not stored
	if len(fresh) == 0 {
		return len(p), nil
	}
	n, err := a.to.WriteAt(fresh, a.at)
	a.at += int64(n)
	if err != nil {
		return int(skip) + n, err
	}
	if a.at-a.begun >= writeback {
		beginWriteback(a.to, a.begun, a.at-a.begun)
		a.begun = a.at
	}
	a.tell(a.at)
	return len(p), nil
}

func progress(p slot.Payload, n int64) {
	if p.Progress != nil {
		p.Progress(n)
	}
}

// Activate switches current to the release and restarts.
func (s *Slot) Activate(ctx context.Context, p slot.Payload) error {
	m := markOf(p)
	root, err := os.OpenRoot(s.opt.Path)
	if err != nil {
		return fmt.Errorf("cannot activate: %w", err)
	}
	defer root.Close()
	if have, err := readMark(root, m.dir()); err != nil {
		return fmt.Errorf("cannot activate %s: it is not staged: %w", m.Version, err)
	} else if have != m {
		return fmt.Errorf("cannot activate %s: other bytes are staged under its name", m.Version)
	}
	current, err := link(root, currentLink)
	if err != nil {
		return fmt.Errorf("cannot activate: %w", err)
	}
	if current != m.dir() {
		if current != "" {
			err := fault.Around(ctx, "slot.file.previous", func() error { return setLink(root, previousLink, current) })
			if err != nil {
				return fmt.Errorf("cannot activate: %w", err)
			}
		}
		if err := fault.Around(ctx, "slot.file.current", func() error { return setLink(root, currentLink, m.dir()) }); err != nil {
			return fmt.Errorf("cannot activate: %w", err)
		}
	}
	return s.restart(ctx, m)
}

// Confirm removes all releases but the current and the previous one.
func (s *Slot) Confirm(ctx context.Context, p slot.Payload) error {
	root, err := os.OpenRoot(s.opt.Path)
	if err != nil {
		return fmt.Errorf("cannot confirm: %w", err)
	}
	defer root.Close()
	if current, err := link(root, currentLink); err != nil {
		return fmt.Errorf("cannot confirm: %w", err)
	} else if m := markOf(p); current != m.dir() {
		return fmt.Errorf("cannot confirm %s: it is not what runs", m.Version)
	}
	return s.prune(ctx, root, "")
}

// Revert switches back to the previous release and restarts.
func (s *Slot) Revert(ctx context.Context, p slot.Payload) error {
	m := markOf(p)
	root, err := os.OpenRoot(s.opt.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return slot.ErrNothing
	}
	if err != nil {
		return fmt.Errorf("cannot revert: %w", err)
	}
	defer root.Close()
	current, err := link(root, currentLink)
	if err != nil {
		return fmt.Errorf("cannot revert: %w", err)
	}
	previous, err := link(root, previousLink)
	if err != nil {
		return fmt.Errorf("cannot revert: %w", err)
	}
	back := current
	if current == m.dir() {
		back = previous
	}
	if back == "" || back == m.dir() {
		return slot.ErrNothing
	}
	old, err := readMark(root, back)
	if err != nil {
		return fmt.Errorf("cannot revert: %w", err)
	}
	if current == m.dir() {
		if err := fault.Around(ctx, "slot.file.back", func() error { return setLink(root, currentLink, back) }); err != nil {
			return fmt.Errorf("cannot revert: %w", err)
		}
	}
	// The way back has been used. What was before it is gone, so nothing stands there now.
	if previous == back {
		if err := fault.Around(ctx, "slot.file.forget", func() error { return durable.RemoveIn(root, previousLink) }); err != nil {
			return fmt.Errorf("cannot revert: %w", err)
		}
	}
	return s.restart(ctx, old)
}

// Running returns what current points to.
func (s *Slot) Running(context.Context) (slot.Running, error) {
	root, err := os.OpenRoot(s.opt.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return slot.Running{}, slot.ErrNothing
	}
	if err != nil {
		return slot.Running{}, err
	}
	defer root.Close()
	m, err := running(root)
	return slot.Running{Version: m.Version, Digest: m.Digest}, err
}

// Check reads the artifact that runs and compares it with what was signed. A difference is a refusal of class Digest.
func (s *Slot) Check(context.Context) error {
	root, err := os.OpenRoot(s.opt.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return slot.ErrNothing
	}
	if err != nil {
		return err
	}
	defer root.Close()
	m, err := running(root)
	if err != nil {
		return err
	}
	return check(root, m)
}

func running(root *os.Root) (mark, error) {
	current, err := link(root, currentLink)
	switch {
	case err != nil:
		return mark{}, err
	case current == "":
		return mark{}, slot.ErrNothing
	}
	return readMark(root, current)
}

func check(root *os.Root, m mark) error {
	f, err := root.Open(m.dir() + "/" + m.Artifact)
	if err == nil {
		err = digest.Verify(nil, f, m.Digest, m.Size)
		f.Close()
	}
	if err != nil {
		return refusal.New(refusal.Digest, fmt.Sprintf("installed artifact %s of %s %s", m.Artifact, m.Product, m.Version), "%w", err).
			Do("it was changed on the device, or its disk is damaged")
	}
	return nil
}

func (s *Slot) restart(ctx context.Context, m mark) error {
	return fault.Around(ctx, "slot.file.restart", func() error {
		return s.opt.Restart.Run(ctx, map[string]string{
			"PAWL_PRODUCT": m.Product, "PAWL_VERSION": m.Version.String(), "PAWL_PATH": filepath.Join(s.opt.Path, filepath.FromSlash(m.dir())),
		})
	})
}

// prune removes every release but the current, the previous and the named one.
func (s *Slot) prune(ctx context.Context, root *os.Root, keep string) error {
	current, err := link(root, currentLink)
	if err != nil {
		return err
	}
	previous, err := link(root, previousLink)
	if err != nil {
		return err
	}
	for _, name := range []string{currentLink, previousLink} {
		if err := durable.RemoveIn(root, tempLink(name)); err != nil {
			return err
		}
	}
	entries, err := fs.ReadDir(root.FS(), releasesDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := releasesDir + "/" + e.Name()
		if dir == current || dir == previous || dir == keep {
			continue
		}
		if err := fault.Around(ctx, "slot.file.prune", func() error { return root.RemoveAll(dir) }); err != nil {
			return err
		}
	}
	return durable.SyncIn(root, releasesDir)
}

// link returns the folder that a link points to, or "" if there is no link. A link that this package has not made is an
// error: nothing is guessed about what runs.
func link(root *os.Root, name string) (string, error) {
	target, err := root.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	dir, base := path.Split(filepath.ToSlash(target))
	if dir != releasesDir+"/" || base == "" || strings.HasPrefix(base, ".") {
		return "", fmt.Errorf("%s points to %q, which is not a release", name, target)
	}
	return releasesDir + "/" + base, nil
}

func tempLink(name string) string { return "." + name + ".pawl-tmp-link" }

// setLink makes a link point to a folder, in one durable rename.
func setLink(root *os.Root, name, target string) error {
	temp := tempLink(name)
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(filepath.FromSlash(target), temp); err != nil {
		return err
	}
	return durable.RenameIn(root, temp, name)
}

func readMark(root *os.Root, dir string) (mark, error) {
	f, err := root.Open(dir + "/" + markName)
	if err != nil {
		return mark{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMark+1))
	if err != nil {
		return mark{}, err
	}
	var m mark
	if err := json.Unmarshal(text, &m, json.RejectUnknownMembers(true)); err != nil {
		return mark{}, fmt.Errorf("%s/%s: %w", dir, markName, err)
	}
	if m.dir() != dir {
		return mark{}, fmt.Errorf("%s/%s speaks of %s", dir, markName, m.dir())
	}
	return m, nil
}
