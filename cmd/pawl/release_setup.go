// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/blob/folder"
	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/build/command"
	"github.com/pawl-project/pawl/internal/build/engine"
	"github.com/pawl-project/pawl/internal/build/image"
	"github.com/pawl-project/pawl/internal/build/ready"
	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/ceremony"
	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/execx"
	"github.com/pawl-project/pawl/internal/httpx"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry/oci"
	"github.com/pawl-project/pawl/internal/release"
	"github.com/pawl-project/pawl/internal/repository"
	"github.com/pawl-project/pawl/internal/repository/remote"
	"github.com/pawl-project/pawl/internal/sbom/embedded"
	"github.com/pawl-project/pawl/internal/scan"
	"github.com/pawl-project/pawl/internal/scan/osv"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// workFolder holds releases in progress, in the folder of pawl.yaml.
const workFolder = ".pawl"

// gitLimit is the longest that git may take to say whether something has changed.
const gitLimit = 2 * time.Minute

// releaseSetup puts a release together from pawl.yaml. What is missing is collected, so that one run names all of it.
type releaseSetup struct {
	*app
	config   *config.Config
	request  release.Request
	engine   *release.Engine
	signers  map[string]sign.Signer // by path of the key; nil if it cannot be opened
	closers  []func() error
	products []string
	// publisher is engine.Publisher with all that it can do.
	publisher repository.Publisher
}

func (s *releaseSetup) problem(err error) {
	if err != nil {
		s.request.Problems = append(s.request.Problems, err)
	}
}

func (s *releaseSetup) close() error {
	var err error
	for _, c := range s.closers {
		err = errors.Join(err, c())
	}
	return err
}

// setup fills in engine and request. An error means that not even what is missing can be found out.
func (s *releaseSetup) setup(ctx context.Context, selected []*config.Product) error {
	s.signers = map[string]sign.Signer{}
	s.engine = &release.Engine{
		Dir: s.config.Abs(workFolder), Now: s.now, Tool: evidence.Tool{Name: "pawl", Version: readBuildInfo().Version},
	}
	if s.verbose {
		s.engine.Verbose = s.err
	}
	// A fix that nobody is to know of yet is nobody else's business on this machine.
	if err := durable.Mkdir(s.engine.Dir, 0o700); err != nil {
		return err
	}
	for _, p := range selected {
		s.products = append(s.products, p.Name)
		product, err := s.product(p)
		if err != nil {
			return err
		}
		s.request.Products = append(s.request.Products, product)
		if p.Channel == statement.Container && s.engine.Images == nil {
			s.engine.Images = oci.New(oci.Options{UserAgent: "pawl/" + readBuildInfo().Version})
		}
	}
	s.engine.Maker = embedded.New(embedded.Options{Tool: s.engine.Tool, Now: s.now})
	s.expectBuilds(selected)
	var err error
	s.engine.Scanner, s.engine.Database, err = s.scanner(ctx)
	s.problem(err)
	return s.repository(ctx)
}

// expectBuilds lets a product consist of what the build of another one makes: if anything is built in this run, files that
// are not there yet may come.
func (s *releaseSetup) expectBuilds(selected []*config.Product) {
	if !slices.ContainsFunc(selected, func(p *config.Product) bool { return p.Build != nil }) {
		return
	}
	for i, p := range selected {
		if p.Build == nil && (p.Image == nil || p.Image.Dockerfile == "") {
			// Behind the plain interface nobody asks for a check before the build.
			s.request.Products[i].Builder = struct{ build.Builder }{s.request.Products[i].Builder}
		}
	}
}

// signer opens a private key once.
func (s *releaseSetup) signer(path string) sign.Signer {
	if signer, ok := s.signers[path]; ok {
		return signer
	}
	s.signers[path] = nil
	signer, err := s.openKey(path)
	if err != nil {
		s.problem(err)
		return nil
	}
	s.signers[path] = signer
	return signer
}

func (s *releaseSetup) openKey(path string) (sign.Signer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(refusal.Key, "private key "+path, "there is no such file").
			Do("make it with \"pawl keys init\", or say in %s where it is", config.FileName)
	}
	if err != nil {
		return nil, refusal.New(refusal.Key, "private key "+path, "%w", err)
	}
	password, err := s.password(path, false)
	if err != nil {
		return nil, err
	}
	signer, err := keyfile.Open(data, password)
	if err != nil {
		return nil, refusal.New(refusal.Key, "private key "+path, "%w", bare(err)).Do("give the right password or the right file")
	}
	return signer, nil
}

// bare returns what failed without what was checked, for a refusal that names it better.
func bare(err error) error {
	var r *refusal.Error
	if errors.As(err, &r) && r.Err != nil {
		return r.Err
	}
	return err
}

// product translates a product of pawl.yaml.
func (s *releaseSetup) product(p *config.Product) (*release.Product, error) {
	expand := func(text string) string { return config.Expand(text, s.request.Version.String(), p.Name) }
	path := func(text string) string { return s.config.Abs(expand(text)) }
	product := &release.Product{
		Name: p.Name, Channel: p.Channel, Line: p.LineOf, Hardware: p.Hardware, SupportEnd: p.SupportEnd,
		Release: s.signer(path(s.config.Keys.Release)), Evidence: s.signer(path(s.config.Keys.Evidence)),
	}
	if p.MinimumSource != "" {
		var err error
		if product.MinimumSource, err = version.Parse(p.MinimumSource); err != nil {
			return nil, err
		}
	}
	recipe, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	product.Recipe = string(recipe)
	if s.request.Kind == statement.Security {
		product.Advisory, product.NoAdvisory = s.advisory(p, path(p.Advisory))
	}

	var taken []string // what is there before the build and makes the artifacts
	if p.Image != nil {
		taken, err = s.image(product, p.Image, expand, path)
		if err != nil {
			return nil, err
		}
	} else {
		var files ready.Files
		for _, a := range p.Artifacts {
			name := expand(a.Name)
			files = append(files, ready.File{Name: name, Path: path(a.Path), MediaType: a.MediaType})
			taken = append(taken, path(a.Path))
			product.Artifacts = append(product.Artifacts, release.Artifact{
				Name: name, Platform: a.Platform, Hardware: a.Hardware, MediaType: a.MediaType, Components: components(a.Components),
			})
		}
		product.Builder = files
	}
	switch {
	case p.Build != nil:
		set := map[string]string{}
		for name, value := range p.Build.Env {
			set[name] = expand(value)
		}
		set["PAWL_PRODUCT"], set["PAWL_VERSION"] = p.Name, s.request.Version.String()
		var args []string
		for _, arg := range p.Build.Command {
			args = append(args, expand(arg))
		}
		product.Builder = command.Builder{
			Args: args, Dir: path(p.Build.Dir), Env: execx.Environ(s.env, p.Build.Pass, set),
			Limit: time.Duration(p.Build.Timeout), Then: product.Builder,
		}
		product.Sources = s.gitSources
	case p.Image != nil && p.Image.Dockerfile != "":
		product.Sources = s.gitSources
	default:
		product.Sources = func(context.Context) (string, error) { return contents(taken) }
	}
	return product, nil
}

func components(list []config.Component) []evidence.Component {
	var out []evidence.Component
	for _, c := range list {
		out = append(out, evidence.Component{Name: c.Name, Version: c.Version, PURL: c.PURL, Licences: c.Licences})
	}
	return out
}

// advisory reads the advisory of a security release.
func (s *releaseSetup) advisory(p *config.Product, path string) (*statement.Advisory, error) {
	checked := fmt.Sprintf("release %s %s", p.Name, s.request.Version)
	if p.Advisory == "" {
		return nil, refusal.New(refusal.Incomplete, checked, "a security release needs an advisory, and product %s names none", p.Name).
			Do("set \"advisory\" of the product in %s, for example advisories/{version}.yaml", config.FileName)
	}
	a, err := config.LoadAdvisory(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(refusal.Incomplete, checked, "a security release needs an advisory, and %s is not there", path).
			Do("write it: what was wrong, how bad it is, what the user has to do")
	}
	return a, err
}

// image sets builder and artifact of a container image.
func (s *releaseSetup) image(product *release.Product, m *config.Image, expand, path func(string) string) (taken []string, err error) {
	name := expand(m.Name)
	artifact := release.Artifact{Name: name, Platform: m.Platform}
	for _, r := range m.Repositories {
		artifact.Images = append(artifact.Images, expand(r))
	}
	product.Artifacts = []release.Artifact{artifact}
	for _, tag := range m.Tags {
		// A version may have build metadata; a tag cannot have its plus sign.
		product.Tags = append(product.Tags, strings.ReplaceAll(expand(tag), "+", "_"))
	}
	expandAll := func(in map[string]string) map[string]string {
		out := map[string]string{}
		for k, v := range in {
			out[k] = expand(v)
		}
		return out
	}
	switch {
	case m.Dockerfile != "":
		b := engine.Builder{
			Name: name, Dockerfile: path(m.Dockerfile), Context: filepath.Dir(path(m.Dockerfile)), Args: expandAll(m.Args),
			Platform: m.Platform, Env: engine.Environ(s.env), Limit: config.DefaultTimeout,
		}
		if m.Context != "" {
			b.Context = path(m.Context)
		}
		if b.Engine, err = engine.Find(exec.LookPath); err != nil {
			s.problem(fmt.Errorf("cannot build %s: %w", product.Name, err))
		}
		product.Builder = b
	case m.Layout != "":
		product.Builder = ready.Layout{Name: name, Path: path(m.Layout)}
		taken = []string{filepath.Join(path(m.Layout), "index.json")}
	default:
		spec := image.Spec{
			Platform: m.Platform, Entrypoint: m.Entrypoint, Env: m.Env, User: m.User, WorkDir: m.WorkDir, Labels: expandAll(m.Labels),
		}
		if m.Base != "" {
			spec.Base = path(m.Base)
			taken = append(taken, filepath.Join(spec.Base, "index.json"))
		}
		for _, f := range m.Files {
			file := image.File{Path: path(f.Path), To: f.To}
			if f.Mode != "" {
				if _, err := fmt.Sscanf(f.Mode, "%o", &file.Mode); err != nil {
					return nil, err
				}
			}
			spec.Files = append(spec.Files, file)
			taken = append(taken, file.Path)
		}
		product.Builder = image.Builder{Name: name, Spec: spec}
	}
	return taken, nil
}

var _ = []build.Checker{command.Builder{}, engine.Builder{}, image.Builder{}, ready.Files{}, ready.Layout{}}

// contents names the content of files and folders.
func contents(paths []string) (string, error) {
	sum := sha256.New()
	for _, path := range paths {
		err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			fmt.Fprintf(sum, "%q %s\n", path, d.Type())
			if !d.Type().IsRegular() {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(sum, f)
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil // the build says so in better words
		}
		if err != nil {
			return "", err
		}
	}
	return "files " + hex.EncodeToString(sum.Sum(nil)), nil
}

// gitSources names the state of a git work tree: the commit, and everything that differs from it and is not ignored. It
// is empty if that is not known: outside of git, and when a submodule has changes of its own.
func (s *releaseSetup) gitSources(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return "", nil
	}
	git := func(args ...string) (string, error) {
		var out strings.Builder
		err := execx.Run(ctx, execx.Command{
			Args: append([]string{"git", "--no-optional-locks"}, args...), Dir: s.config.Dir(), Out: &out, Limit: gitLimit,
			Env: execx.Environ(s.env, nil, map[string]string{"LC_ALL": "C"}),
		})
		return out.String(), err
	}
	head, err := git("rev-parse", "--show-toplevel", "HEAD")
	if err != nil {
		return "", ctx.Err()
	}
	top, commit, _ := strings.Cut(strings.TrimSpace(head), "\n")
	// A project that the repository around it ignores never looks changed.
	if _, err := git("check-ignore", "--quiet", "--", config.FileName); err == nil {
		return "", nil
	}
	args := []string{"status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=none", "--", ":/"}
	for _, own := range []string{workFolder, s.config.Repository.Folder} {
		if own != "" && filepath.IsLocal(own) {
			args = append(args, ":(exclude)"+filepath.ToSlash(own))
		}
	}
	status, err := git(args...)
	if err != nil {
		return "", ctx.Err()
	}
	sum := sha256.New()
	fmt.Fprintln(sum, commit)
	for entry := range strings.SplitSeq(strings.TrimSuffix(status, "\x00"), "\x00") {
		if len(entry) < 4 {
			continue
		}
		path := filepath.Join(top, filepath.FromSlash(entry[3:]))
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(sum, "%q is gone\n", entry)
		case err != nil:
			return "", err
		case info.Mode().IsRegular():
			name, err := contents([]string{path})
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%q %s %s\n", entry, info.Mode(), name)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%q to %q\n", entry, to)
		default:
			return "", nil // a submodule, or another repository inside this one
		}
	}
	return "git " + hex.EncodeToString(sum.Sum(nil)), nil
}

// scanner opens the vulnerability database, and names the snapshot that it holds.
func (s *releaseSetup) scanner(ctx context.Context) (scan.Scanner, string, error) {
	v := s.config.Vulnerabilities
	opt := osv.Options{Tool: s.engine.Tool, Now: s.now, MaxAge: time.Duration(v.MaxAge)}
	if v.API != "" {
		service, err := osv.NewService(osv.ServiceOptions{Options: opt, Base: v.API})
		if err != nil {
			return nil, "", err
		}
		// What the service knows changes from day to day; a scan of today is not repeated today.
		return service, v.API + " " + s.now().UTC().Format(time.DateOnly), nil
	}
	f, err := osv.OpenFolder(ctx, s.config.Abs(v.Database), opt)
	if err != nil {
		return nil, "", err
	}
	s.closers = append(s.closers, f.Close)
	return f, f.Database().Snapshot, nil
}

// repository opens the repository for reading and publishing. If it cannot be opened, reading it says why.
func (s *releaseSetup) repository(ctx context.Context) error {
	src, roots, err := s.openRepository(ctx)
	if err != nil {
		s.engine.Refresh = func(context.Context) (release.Catalogue, error) { return nil, err }
		return nil
	}
	cache := filepath.Join(s.engine.Dir, "catalog")
	if err := durable.Mkdir(cache, 0o755); err != nil {
		return err
	}
	s.engine.Publisher = s.publisher
	s.engine.Refresh = func(ctx context.Context) (release.Catalogue, error) {
		// Two releases of different products may run at the same time and share what they know.
		lock, err := durable.LockWait(ctx, filepath.Join(s.engine.Dir, "catalog.lock"))
		if err != nil {
			return nil, err
		}
		look := func(at time.Time) (*release.View, error) {
			return release.Look(ctx, src, s.publisher, catalog.Folder(cache), roots, at, s.products)
		}
		view, err := look(s.now())
		if refusal.Of(err) == refusal.Expired && s.config.Repository.URL == "" {
			// Nobody has renewed the folder for a while. It is our own, and the release renews it.
			var at time.Time
			if at, err = s.issued(ctx); err == nil {
				view, err = look(at)
			}
		}
		if err = errors.Join(err, lock.Unlock()); err != nil {
			return nil, err
		}
		for _, note := range view.Dropped() {
			s.say("note: %s", note)
		}
		return view, nil
	}
	return nil
}

// issued returns when the timestamp of the repository was signed. What a release cannot renew must not have expired: the
// documents of the root keys.
func (s *releaseSetup) issued(ctx context.Context) (time.Time, error) {
	for _, role := range []string{trust.RootRole, trust.TargetsRole} {
		doc, err := s.publisher.Metadata(ctx, role)
		if err != nil {
			return time.Time{}, err
		}
		head, err := trust.Describe(doc)
		if err != nil {
			return time.Time{}, err
		}
		if !s.now().Before(head.Expires) {
			return time.Time{}, refusal.New(refusal.Expired, role+" metadata", "it was valid until %s", head.Expires.UTC().Format(time.DateOnly)).
				Do("renew it with \"pawl keys root renew\" and publish it with \"pawl repo trust\"")
		}
	}
	doc, err := s.publisher.Metadata(ctx, trust.TimestampRole)
	if err != nil {
		return time.Time{}, err
	}
	timestamp, err := trust.ParseTimestamp(doc)
	return timestamp.Issued, err
}

// openRepository returns the way to read the repository, and all roots.
func (s *releaseSetup) openRepository(ctx context.Context) (src catalog.Opener, roots [][]byte, err error) {
	dir := s.config.Abs(s.config.Repository.Trust)
	trusted, err := ceremony.Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, refusal.New(refusal.Signature, "root of trust", "there is none in %s", dir).
			Do("make the first keys with \"pawl keys init --product %s\"", strings.Join(s.products, " --product "))
	}
	if err != nil {
		return nil, nil, err
	}
	if s.config.Repository.URL != "" {
		src, s.publisher, err = s.server()
	} else {
		src, s.publisher, err = s.folder(ctx)
	}
	return src, trusted.Roots, err
}

// folder opens a repository in a folder. Its snapshot and timestamp are signed here.
func (s *releaseSetup) folder(ctx context.Context) (catalog.Opener, repository.Publisher, error) {
	dir := s.config.Abs(s.config.Repository.Folder)
	s.engine.Repository = dir
	missing := refusal.New(refusal.Incomplete, "repository "+dir, "there is none").Do("make it with \"pawl repo init\"")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, missing
	}
	store, err := folder.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	s.closers = append(s.closers, store.Close)
	online := s.signer(s.config.Abs(s.config.Keys.Online))
	repo, err := repository.Open(ctx, store, online, repository.Options{Now: s.now, Log: s.log})
	if errors.Is(err, blob.ErrNotExist) || errors.Is(err, repository.ErrNone) {
		return nil, nil, missing
	}
	return store, repo, err
}

// server opens a repository on a server.
func (s *releaseSetup) server() (catalog.Opener, repository.Publisher, error) {
	address := s.config.Repository.URL
	s.engine.Repository = address
	token, _ := s.env(s.config.Repository.TokenEnv)
	if token == "" {
		s.problem(refusal.New(refusal.Unauthorised, "server "+address, "there is no publish token in the variable %s", s.config.Repository.TokenEnv).
			Do("ask for one (\"pawl serve token\") and set the variable"))
	}
	authorities := ""
	if s.config.Repository.CA != "" {
		authorities = s.config.Abs(s.config.Repository.CA)
	}
	src, err := s.openSource(address, authorities)
	if err != nil {
		return nil, nil, err
	}
	client, err := httpx.New(httpx.Options{CAFile: authorities, UserAgent: s.engine.Tool.Name + "/" + s.engine.Tool.Version, Token: token, Logger: s.log})
	if err != nil {
		return nil, nil, err
	}
	publisher, err := remote.New(client, address)
	return src, publisher, err
}
