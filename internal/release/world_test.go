// SPDX-License-Identifier: Apache-2.0

package release_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/build/ready"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/registry/registrytest"
	"github.com/pawl-project/pawl/internal/release"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/sbom"
	"github.com/pawl-project/pawl/internal/scan"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// world is a manufacturer in a folder, so that another process can go on with it: keys, sources, a vulnerability
// database, a real repository, and a registry of plain files.
//
//	keys/<name>       private keys, in the clear
//	src/<file>        what the build makes: lines "component version"
//	image/            the image that the build makes, an OCI layout
//	database          lines "CVE-... component version"
//	repository/       the repository
//	registry/         see files
//	work/             the engine's folder
type world struct {
	t   testing.TB // nil in another process
	dir string
	// builds counts the builds of this process.
	builds int
}

const (
	releaseKey, evidenceKey, onlineKey, rootKey, otherKey = "release", "evidence", "online", "root", "other"
	imageRepository                                       = "registry.example/acme/gateway"
	secondRepository                                      = "localhost:5000/acme/gateway"
)

var signers = []string{releaseKey, evidenceKey, onlineKey, rootKey, otherKey}

// check fails the test, or ends the other process.
func (w *world) check(err error) {
	if err == nil {
		return
	}
	if w.t == nil {
		panic(err)
	}
	w.t.Helper()
	w.t.Fatal(err)
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func (w *world) write(name, text string) {
	w.check(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.check(os.WriteFile(w.path(name), []byte(text), 0o644))
}

// key is a private key in a file of the world.
type key struct{ *ecdsa.PrivateKey }

func (k key) PublicKey() *ecdsa.PublicKey { return &k.PrivateKey.PublicKey }

func (k key) SignDigest(_ context.Context, d digest.SHA256) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.PrivateKey, d[:])
}

func (w *world) key(name string) sign.Signer {
	der, err := os.ReadFile(w.path("keys", name))
	w.check(err)
	k, err := x509.ParseECPrivateKey(der)
	w.check(err)
	return key{k}
}

func now() time.Time { return time.Now() }

// newWorld makes a world with the products greeter (file) and gateway (container), nothing of which is released yet.
func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir()}
	w.check(os.Mkdir(w.path("keys"), 0o755))
	for _, name := range signers {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.check(err)
		der, err := x509.MarshalECPrivateKey(k)
		w.check(err)
		w.check(os.WriteFile(w.path("keys", name), der, 0o600))
	}
	w.write("src/greeter-linux", "text 0.3.5\nyaml 1.0.0\n")
	w.write("src/greeter-windows", "text 0.3.5\nyaml 1.0.0\n# for windows\n")
	w.image("text 0.3.5")
	w.write("database", "CVE-2026-9 evil 6.6.6\n")

	ctx := t.Context()
	root := w.key(rootKey)
	signed := func(doc []byte, err error) []byte {
		w.check(err)
		doc, err = trust.Sign(ctx, doc, root)
		w.check(err)
		return doc
	}
	year := now().Add(365 * 24 * time.Hour)
	public := func(name string) []*ecdsa.PublicKey { return []*ecdsa.PublicKey{w.key(name).PublicKey()} }
	rootDoc := signed(trust.NewRoot(trust.Root{Version: 1, Expires: year, Keys: public(rootKey), Threshold: 1, Online: public(onlineKey)[0]}))
	var products []trust.Product
	for _, name := range []string{"gateway", "greeter"} {
		products = append(products, trust.Product{Name: name, Release: public(releaseKey), Threshold: 1, Evidence: public(evidenceKey)})
	}
	targets := signed(trust.NewTargets(trust.Targets{Version: 1, Expires: year, Products: products}))
	w.check(os.WriteFile(w.path("root.json"), rootDoc, 0o644))
	store, err := folder.Open(w.path("repository"))
	w.check(err)
	defer store.Close()
	_, err = repository.Create(ctx, store, [][]byte{rootDoc}, targets, w.key(onlineKey), repository.Options{Now: now})
	w.check(err)
	return w
}

// copyWorld returns a world that begins where w is.
func (w *world) copyWorld(t testing.TB) *world {
	c := &world{t: t, dir: filepath.Join(t.TempDir(), "world")}
	c.check(os.CopyFS(c.dir, os.DirFS(w.dir)))
	return c
}

// image makes the image whose one layer is text.
func (w *world) image(text string) {
	w.check(os.RemoveAll(w.path("image")))
	registrytest.WriteImage(w.t, w.path("image"), text)
}

// counted counts builds.
type counted struct {
	build.Builder
	n *int
}

func (c counted) Build(ctx context.Context, in build.Input) ([]build.Artifact, error) {
	*c.n++
	fmt.Fprintln(in.Log, "compiling", in.Product)
	return c.Builder.Build(ctx, in)
}

// sources names the state of src/ and image/.
func (w *world) sources(context.Context) (string, error) {
	var out bytes.Buffer
	for _, dir := range []string{"src", "image"} {
		err := fs.WalkDir(os.DirFS(w.path(dir)), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(w.path(dir, name))
			fmt.Fprintln(&out, name, digest.Of(data))
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return digest.Of(out.Bytes()).Hex(), nil
}

func (w *world) greeter() *release.Product {
	return &release.Product{
		Name: "greeter", Channel: statement.File, Line: version.Version.Line, SupportEnd: "2031-12",
		Artifacts: []release.Artifact{
			{Name: "greeter-linux", Platform: "linux/amd64"},
			{Name: "greeter-windows", Platform: "windows/amd64", MediaType: "application/vnd.microsoft.portable-executable"},
		},
		Builder: counted{ready.Files{
			{Name: "greeter-linux", Path: w.path("src/greeter-linux")}, {Name: "greeter-windows", Path: w.path("src/greeter-windows")},
		}, &w.builds},
		Recipe: "copy", Sources: w.sources, Release: w.key(releaseKey), Evidence: w.key(evidenceKey),
	}
}

func (w *world) gateway() *release.Product {
	return &release.Product{
		Name: "gateway", Channel: statement.Container, Line: version.Version.Line,
		Artifacts: []release.Artifact{{Name: "gateway", Platform: "linux/amd64", Images: []string{imageRepository, secondRepository}}},
		Builder:   counted{ready.Layout{Name: "gateway", Path: w.path("image")}, &w.builds},
		Recipe:    "copy", Sources: w.sources, Release: w.key(releaseKey), Evidence: w.key(evidenceKey),
		Tags: nil,
	}
}

func advisory() *statement.Advisory {
	return &statement.Advisory{ID: "ACME-2026-01", Severity: "high", Summary: "Long names stopped the greeter; they are cut now.", Action: "Nothing."}
}

// request asks for a feature release of all products.
func (w *world) request(v string, products ...*release.Product) release.Request {
	if len(products) == 0 {
		gateway := w.gateway()
		gateway.Tags = []string{v, "latest"}
		products = []*release.Product{w.greeter(), gateway}
	}
	return release.Request{Products: products, Version: version.MustParse(v), Kind: statement.Feature}
}

// security makes the request one for a security release.
func security(req release.Request, fixes ...string) release.Request {
	req.Kind, req.Fixes = statement.Security, fixes
	for _, p := range req.Products {
		p.Advisory = advisory()
	}
	return req
}

// engine returns an engine of this world and what has to be closed after it.
func (w *world) engine() (*release.Engine, func() error) {
	store, err := folder.Open(w.path("repository"))
	w.check(err)
	repo, err := repository.Open(context.Background(), store, w.key(onlineKey), repository.Options{Now: now})
	w.check(err)
	root, err := os.ReadFile(w.path("root.json"))
	w.check(err)
	database, err := os.ReadFile(w.path("database"))
	w.check(err)
	cache := w.path("work", "catalog")
	w.check(os.MkdirAll(cache, 0o755))
	e := &release.Engine{
		Dir: w.path("work"), Publisher: repo, Repository: w.path("repository"), Images: files(w.path("registry")),
		Maker: maker{}, Scanner: scanner{string(database)}, Database: digest.Of(database).Hex(),
		Tool: evidence.Tool{Name: "pawl", Version: "test"}, Now: now,
	}
	e.Refresh = func(ctx context.Context) (release.Catalogue, error) {
		return release.Look(ctx, store, repo, catalog.Folder(cache), [][]byte{root}, now(), []string{"greeter", "gateway"})
	}
	return e, store.Close
}

func (w *world) run(ctx context.Context, req release.Request) ([]release.Result, error) {
	e, done := w.engine()
	list, err := e.Run(ctx, req)
	return list, errors.Join(err, done())
}

// must runs a release that has to come to its end.
func (w *world) must(req release.Request) []release.Result {
	w.t.Helper()
	list, err := w.run(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// maker lists the lines "component version" of a file, or of the layers of an image.
type maker struct{}

func (maker) Make(_ context.Context, src sbom.Source) (evidence.SBOM, error) {
	var text []byte
	if src.Shape == sbom.Layout {
		err := filepath.WalkDir(filepath.Join(src.Path, "blobs"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if !bytes.HasPrefix(data, []byte("{")) {
				text = append(append(text, data...), '\n')
			}
			return err
		})
		if err != nil {
			return evidence.SBOM{}, err
		}
	} else {
		var err error
		if text, err = os.ReadFile(src.Path); err != nil {
			return evidence.SBOM{}, err
		}
	}
	if bytes.HasPrefix(text, []byte("opaque")) {
		return evidence.SBOM{}, sbom.ErrUnsupported
	}
	bom := evidence.SBOM{Tool: evidence.Tool{Name: "lines", Version: "1"}}
	for line := range strings.Lines(string(text)) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			bom.Components = append(bom.Components, evidence.Component{Name: name, Version: v, PURL: "pkg:npm/" + name + "@" + v, Ecosystem: "npm"})
		}
	}
	return bom, nil
}

// scanner finds the lines "CVE component version" of a database.
type scanner struct{ database string }

func (s scanner) Scan(_ context.Context, bom evidence.SBOM) (evidence.Report, error) {
	if s.database == "" {
		return evidence.Report{}, fmt.Errorf("%w: it is empty", scan.ErrDatabase)
	}
	r := evidence.Report{
		Subject: bom.Subject, Tool: evidence.Tool{Name: "lines", Version: "1"}, At: now(), Checked: len(bom.Components),
		Database: evidence.Database{Name: "lines", Snapshot: digest.Of([]byte(s.database)).Hex(), Records: strings.Count(s.database, "\n")},
	}
	for _, c := range bom.Components {
		for line := range strings.Lines(s.database) {
			if word := strings.Fields(line); len(word) == 3 && word[1] == c.Name && word[2] == c.Version {
				r.Findings = append(r.Findings, evidence.Finding{ID: word[0], Severity: evidence.High, PURL: c.PURL, Name: c.Name, Version: c.Version})
			}
		}
	}
	return r, nil
}

// files is a registry of plain files: "<repository>/<digest>" is an image, with ".sig" behind it its signature, and
// "<repository>/tags/<tag>" names one. A folder "down" in it means that the registry is not there.
type files string

func (f files) path(repository string, more ...string) string {
	return filepath.Join(append([]string{string(f), strings.NewReplacer("/", "_", ":", "_").Replace(repository)}, more...)...)
}

func (f files) up() error {
	if _, err := os.Stat(filepath.Join(string(f), "down")); err == nil {
		return fmt.Errorf("%w: connection refused", registry.ErrUnreachable)
	}
	return nil
}

func (f files) put(data string, repository string, more ...string) error {
	if err := f.up(); err != nil {
		return err
	}
	path := f.path(repository, more...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(data), 0o644)
}

func (f files) Probe(_ context.Context, repository string) error {
	if err := f.up(); err != nil {
		return fmt.Errorf("cannot write to %s: %w", repository, err)
	}
	return nil
}

func (f files) Resolve(_ context.Context, repository, tag string) (registry.Image, error) {
	data, err := os.ReadFile(f.path(repository, "tags", tag))
	if errors.Is(err, fs.ErrNotExist) {
		return registry.Image{}, registry.ErrNotExist
	}
	if err != nil {
		return registry.Image{}, err
	}
	d, err := digest.Parse(string(data))
	return registry.Image{Repository: repository, Digest: d}, err
}

func (f files) Exists(_ context.Context, img registry.Image) (bool, error) {
	_, err := os.Stat(f.path(img.Repository, img.Digest.Hex()))
	return err == nil, f.up()
}

func (f files) Push(_ context.Context, img registry.Image, dir string, _ registry.Progress) error {
	if got, err := build.Describe("x", dir); err != nil || got.Digest.SHA256 != img.Digest {
		return fmt.Errorf("another image in the layout: %v, %w", got, err)
	}
	return f.put("image", img.Repository, img.Digest.Hex())
}

func (f files) Tag(_ context.Context, img registry.Image, tag string) error {
	return f.put(img.Digest.String(), img.Repository, "tags", tag)
}

func (f files) Sign(ctx context.Context, s sign.Signer, img registry.Image, at time.Time) error {
	if ok, err := f.Exists(ctx, img); err != nil || !ok {
		return fmt.Errorf("no image %s to sign: %w", img, err)
	}
	name, err := sign.Fingerprint(s.PublicKey())
	if err != nil || at.IsZero() {
		return fmt.Errorf("bad signature: %w", err)
	}
	return f.put(name, img.Repository, img.Digest.Hex()+".sig")
}

// outside returns what people outside can see or find: what a device reads, the names of all files of the repository,
// and the registry. What is random or a time is left out.
func (w *world) outside() string {
	w.t.Helper()
	ctx := w.t.Context()
	var out bytes.Buffer
	store, err := folder.Open(w.path("repository"))
	w.check(err)
	defer store.Close()
	root, err := os.ReadFile(w.path("root.json"))
	w.check(err)
	c, err := catalog.Refresh(ctx, store, catalog.Memory{}, catalog.Options{Now: now(), Root: root, Products: []string{"greeter", "gateway"}})
	w.check(err)
	random := map[string]bool{}
	for _, product := range c.Products() {
		role, _ := c.Role(product)
		fmt.Fprintf(&out, "product %s: role version %d, %d targets\n", product, role.Version, len(role.Targets))
		for _, name := range slices.Sorted(maps.Keys(role.Targets)) {
			// Everything is read, as a mirror would.
			_, err := c.ReadTarget(ctx, name, 1<<20)
			w.check(err)
			if strings.HasSuffix(name, ".json") {
				random[trust.BlobName(name, role.Targets[name].Digest)] = true
				fmt.Fprintf(&out, "  %s\n", name)
			} else {
				fmt.Fprintf(&out, "  %s %s\n", name, role.Targets[name].Digest)
			}
		}
		for _, l := range c.Releases(product) {
			claim, err := c.Release(ctx, l)
			w.check(err)
			claim.Issued = time.Unix(1, 0)
			text, err := claim.Encode()
			w.check(err)
			fmt.Fprintf(&out, "  release %s\n", text)
		}
	}
	var blobs []string
	w.check(store.List(ctx, "", func(info blob.Info) error {
		name := info.Name
		if random[name] {
			// "<digest>.<name>" of a file that has a signature or a time in it.
			dir, base := filepath.Split(name)
			name = dir + "*" + base[64:]
		}
		blobs = append(blobs, name)
		return nil
	}))
	slices.Sort(blobs)
	fmt.Fprintf(&out, "blobs\n  %s\n", strings.Join(blobs, "\n  "))
	err = filepath.WalkDir(w.path("registry"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(w.dir, path)
		if d.Name() != "tags" && filepath.Ext(path) == ".sig" {
			data = []byte("signed")
		}
		fmt.Fprintf(&out, "%s: %s\n", rel, data)
		return err
	})
	w.check(err)
	return out.String()
}

// refused asks for an error of a class with words in it, and for nothing outside having changed.
func (w *world) refused(req release.Request, class refusal.Class, words ...string) []release.Result {
	w.t.Helper()
	before := w.outside()
	list, err := w.run(w.t.Context(), req)
	if refusal.Of(err) != class {
		w.t.Errorf("error %v, want class %q", err, class)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			w.t.Errorf("error %v, want %q", err, word)
		}
	}
	if after := w.outside(); after != before {
		w.t.Errorf("something has changed outside:\n%s\nbefore:\n%s", after, before)
	}
	return list
}

func keys(list ...*ecdsa.PublicKey) []*ecdsa.PublicKey { return list }

// look returns the way to see the repository at another time.
func (w *world) look(store *folder.Store, repo *repository.Repository, at time.Time) func(context.Context) (release.Catalogue, error) {
	root, err := os.ReadFile(w.path("root.json"))
	w.check(err)
	return func(ctx context.Context) (release.Catalogue, error) {
		return release.Look(ctx, store, repo, catalog.Memory{}, [][]byte{root}, at, []string{"greeter", "gateway"})
	}
}
