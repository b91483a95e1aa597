// SPDX-License-Identifier: Apache-2.0

// Package config reads pawl.yaml: what a manufacturer's products are, how they are built, and where they go.
//
// The file is written by people, once, and read for years. So it is small, strict and flat: an unknown key, a key that
// stands twice, a value of another type and a value that no release can have are errors with the line and a caret, before
// anything is done. There are no templates, includes or conditions; {version} and {product} are replaced where the
// comments below say so. It holds no secrets: keys are named by path, tokens by the name of an environment variable.
//
// Relative paths are relative to the folder of pawl.yaml. Paths of what is built may not contain "..": a release takes
// nothing from outside its project by accident.
//
// The JSON Schema in docs/spec/pawl.schema.json is generated from these structs and their comments, for editors.
package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/execx"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/version"
)

// FileName is the name of the file in the folder of a project.
const FileName = "pawl.yaml"

// Limits. The file is the user's own; these keep a slip from exhausting the machine.
const (
	MaxBytes    = 1 << 20
	MaxProducts = 64
	MaxFiles    = 4096 // files of one image
)

// Defaults.
const (
	DefaultTrust       = "trust"
	DefaultReleaseKey  = "keys/release-{product}.key"
	DefaultEvidenceKey = "keys/evidence-{product}.key"
	DefaultOnlineKey   = "keys/online.key"
	DefaultTokenEnv    = "PAWL_TOKEN"
	DefaultMaxAge      = 30 * 24 * time.Hour
	DefaultTimeout     = time.Hour
	DefaultPlatform    = "linux/amd64"
)

// Config is the whole of pawl.yaml.
type Config struct {
	// Version of the format of this file. Always 1.
	Version int `yaml:"version" jsonschema:"required,enum=1"`
	// Where releases are published.
	Repository Repository `yaml:"repository" jsonschema:"required"`
	// The private keys that a release is signed with, where `pawl keys` puts them unless something else is said here. Each
	// is a file that `pawl keys` or cosign made; its password comes from the environment (PAWL_PASSWORD_<NAME OF THE FILE>,
	// PAWL_PASSWORD), from --password-file, or is asked for.
	Keys Keys `yaml:"keys,omitempty"`
	// Where known vulnerabilities are looked up.
	Vulnerabilities Vulnerabilities `yaml:"vulnerabilities" jsonschema:"required"`
	// What is sold and updated.
	Products []Product `yaml:"products" jsonschema:"required,minItems=1,maxItems=64"`

	dir string // absolute folder of the file
}

// Repository is the place of the signed catalogue and its files: a folder on this machine or a pawl server.
type Repository struct {
	// Folder of the repository, made by `pawl repo init`. It can be served by any static web server.
	Folder string `yaml:"folder,omitempty"`
	// Address of a pawl server, for example https://updates.example.com.
	URL string `yaml:"url,omitempty" jsonschema:"format=uri"`
	// Name of the environment variable that holds the server's publish token. Default: PAWL_TOKEN.
	TokenEnv string `yaml:"tokenEnv,omitempty"`
	// PEM file with further certificate authorities for the server's TLS certificate.
	CA string `yaml:"ca,omitempty"`
	// Folder with the public root of trust that `pawl keys` keeps. What the repository says is believed only as far as
	// this root proves it. Default: trust.
	Trust string `yaml:"trust,omitempty"`
}

// Keys names the private keys of a release. {product} is replaced by the product's name.
type Keys struct {
	// The release key signs the catalogue of the product, the statements and the artifacts, and nothing else. Default:
	// keys/release-{product}.key.
	Release string `yaml:"release,omitempty"`
	// The evidence key signs what is known about an artifact: SBOM and verdict. Never the release key: a
	// signature by that one means "released", and nothing else. Default: keys/evidence-{product}.key.
	Evidence string `yaml:"evidence,omitempty"`
	// The online key signs snapshot and timestamp of a repository in a folder; a server has its own. Default:
	// keys/online.key.
	Online string `yaml:"online,omitempty"`
}

// Vulnerabilities is an OSV database: a folder, or the OSV API.
type Vulnerabilities struct {
	// Folder with OSV records: JSON files, or the zip archives that the OSV project publishes for each ecosystem.
	Database string `yaml:"database,omitempty"`
	// Address of the OSV API, for example https://api.osv.dev. Names and versions of components are sent there.
	API string `yaml:"api,omitempty" jsonschema:"format=uri"`
	// A database in a folder whose newest record is older than this proves nothing and stops a release. Default: 30d.
	MaxAge Duration `yaml:"maxAge,omitempty"`
}

// Product is one thing that is sold and updated.
type Product struct {
	// Name in the catalogue and in file names: lower-case letters, digits, '.', '_' and '-'.
	Name string `yaml:"name" jsonschema:"required,pattern=^[a-z0-9][a-z0-9._-]{0\\,63}$"`
	// How the product travels to its users: file (a plain file for a host), firmware (an image for a device) or container.
	Channel statement.Channel `yaml:"channel" jsonschema:"required,enum=file,enum=firmware,enum=container"`
	// Which versions form a line of maintenance: MAJOR.MINOR (1.4.x, the default), MAJOR (1.x) or "*" (all).
	Line string `yaml:"line,omitempty" jsonschema:"enum=MAJOR.MINOR,enum=MAJOR,enum=*"`
	// The hardware that a release is for. Empty: any.
	Hardware []string `yaml:"hardware,omitempty"`
	// End of the support period as YYYY-MM. It is in every statement, so that a device can tell its user.
	SupportEnd string `yaml:"supportEnd,omitempty" jsonschema:"pattern=^[0-9]{4}-(0[1-9]|1[0-2])$"`
	// The lowest installed version that may update to a new release directly.
	MinimumSource string `yaml:"minimumSource,omitempty"`
	// The command that builds the artifacts. Without it, they have to be there already.
	Build *Build `yaml:"build,omitempty"`
	// The files of a release. For channels file and firmware.
	Artifacts []Artifact `yaml:"artifacts,omitempty"`
	// The image of a release. For channel container.
	Image *Image `yaml:"image,omitempty"`
	// Path of the advisory of a security release, for example advisories/{version}.yaml. {version} and {product} are
	// replaced.
	Advisory string `yaml:"advisory,omitempty"`
}

// Build is a program that makes the artifacts. It is run without a shell, with an environment of a few harmless
// variables, so no password or token reaches it. PAWL_PRODUCT and PAWL_VERSION are set.
type Build struct {
	// Program and arguments: [make, firmware]. {version} and {product} are replaced.
	Command []string `yaml:"command" jsonschema:"required,minItems=1"`
	// Folder to run in. Default: the folder of pawl.yaml.
	Dir string `yaml:"dir,omitempty"`
	// Variables to set. {version} and {product} are replaced.
	Env map[string]string `yaml:"env,omitempty"`
	// Names of further variables of the caller that the command gets. Those that begin with PAWL_ or COSIGN_, and the
	// variable of the token, are refused.
	Pass []string `yaml:"pass,omitempty"`
	// The longest that the command may take. Default: 1h.
	Timeout Duration `yaml:"timeout,omitempty"`
}

// Artifact is one file of a release.
type Artifact struct {
	// Path of the file after the build. {version} and {product} are replaced.
	Path string `yaml:"path" jsonschema:"required"`
	// Name under which it is published. Default: the last part of the path. {version} and {product} are replaced.
	Name string `yaml:"name,omitempty"`
	// Operating system and processor, for example linux/arm64. Empty: any.
	Platform string `yaml:"platform,omitempty"`
	// Narrows the product's hardware to what this file is for.
	Hardware []string `yaml:"hardware,omitempty"`
	// Media type, for example application/gzip.
	MediaType string `yaml:"mediaType,omitempty"`
	// Components that nobody can find by looking into the file: the operating system and libraries of a firmware.
	Components []Component `yaml:"components,omitempty"`
}

// Component is a declared component of an artifact. It stands in the SBOM beside those that are found, and is scanned.
type Component struct {
	Name    string `yaml:"name" jsonschema:"required"`
	Version string `yaml:"version" jsonschema:"required"`
	// Package URL, for example pkg:deb/debian/openssl@3.0.11-1?distro=debian-12. It says in which ecosystem
	// vulnerabilities are looked up; without one the component stands in the SBOM and cannot be checked.
	PURL string `yaml:"purl,omitempty"`
	// SPDX identifiers.
	Licences []string `yaml:"licences,omitempty"`
}

// Image is the container image of a release: made from a Dockerfile, from files, or ready as an OCI layout.
type Image struct {
	// Where the image is pushed, without tag: [ghcr.io/acme/gateway, docker.io/acme/gateway]. {product} is replaced.
	Repositories []string `yaml:"repositories" jsonschema:"required,minItems=1,maxItems=16"`
	// Tags that are moved to the image when it is published. {version} and {product} are replaced. Default: ["{version}"].
	Tags []string `yaml:"tags,omitempty"`
	// Name of the image among the artifacts. Default: the name of the product.
	Name string `yaml:"name,omitempty"`
	// Platform of the image, for example linux/arm64. Default: linux/amd64.
	Platform string `yaml:"platform,omitempty"`

	// A Dockerfile, built by docker, podman or buildah, whichever is there. {version} and {product} are replaced.
	Dockerfile string `yaml:"dockerfile,omitempty"`
	// Folder that the Dockerfile can copy from. Default: the folder of the Dockerfile.
	Context string `yaml:"context,omitempty"`
	// Build arguments of the Dockerfile. {version} and {product} are replaced.
	Args map[string]string `yaml:"args,omitempty"`

	// Folder with an OCI image layout that the build command has made. {version} and {product} are replaced.
	Layout string `yaml:"layout,omitempty"`

	// Files of an image that pawl makes itself, reproducibly and without an engine: one layer.
	Files []ImageFile `yaml:"files,omitempty"`
	// OCI image layout below the files. Default: nothing (scratch).
	Base string `yaml:"base,omitempty"`
	// Program and arguments that the image runs. For files.
	Entrypoint []string `yaml:"entrypoint,omitempty"`
	// Environment in the image, NAME=value. For files.
	Env []string `yaml:"env,omitempty"`
	// User in the image, for example 65532:65532. For files.
	User string `yaml:"user,omitempty"`
	// Working folder in the image. For files.
	WorkDir string `yaml:"workDir,omitempty"`
	// Labels of the image. {version} and {product} are replaced. For files.
	Labels map[string]string `yaml:"labels,omitempty"`
}

// ImageFile is one file in an image.
type ImageFile struct {
	// Path of the file or folder after the build. {version} and {product} are replaced.
	Path string `yaml:"path" jsonschema:"required"`
	// Where it is in the image, for example /usr/bin/gateway.
	To string `yaml:"to" jsonschema:"required,pattern=^/"`
	// Permissions in octal, for example "0755". Default: 0755 if the file is executable, else 0644.
	Mode string `yaml:"mode,omitempty" jsonschema:"pattern=^0[0-7]{3}$"`
}

// Duration is a length of time: "90m", "24h" or "7d".
type Duration time.Duration

var days = regexp.MustCompile(`^([0-9]{1,5})d$`)

// UnmarshalText reads Go's notation, or a number of days.
func (d *Duration) UnmarshalText(text []byte) error {
	if m := days.FindStringSubmatch(string(text)); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return err
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is not a length of time such as 90m, 24h or 7d", text)
	}
	*d = Duration(v)
	return nil
}

// problem is one thing that is wrong, and where: a path in the file such as "products[0].name".
type problem struct {
	at   string
	text string
}

// checker collects problems.
type checker []problem

func (c *checker) add(at, format string, args ...any) {
	*c = append(*c, problem{at, fmt.Sprintf(format, args...)})
}

// wrong adds err, if there is one.
func (c *checker) wrong(at string, err error) {
	if err != nil {
		c.add(at, "%s", err)
	}
}

// complete fills in the defaults and returns everything that is wrong.
func (c *Config) complete() []problem {
	var p checker
	if c.Version != 1 {
		p.add("version", "version %d of this file is not known, this program reads version 1", c.Version)
		return p
	}
	c.Repository.complete(&p)
	c.Keys.complete(&p, c.Repository.Folder != "")
	c.Vulnerabilities.complete(&p)
	if n := len(c.Products); n == 0 || n > MaxProducts {
		p.add("products", "%d products, 1 to %d are allowed", n, MaxProducts)
	}
	names := map[string]bool{}
	for i := range c.Products {
		at := fmt.Sprintf("products[%d]", i)
		product := &c.Products[i]
		if names[product.Name] {
			p.add(at+".name", "product %q stands twice", product.Name)
		}
		names[product.Name] = true
		product.complete(&p, at, c.Repository.TokenEnv)
	}
	return p
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (r *Repository) complete(p *checker) {
	const at = "repository"
	switch {
	case r.Folder == "" && r.URL == "":
		p.add(at, "either folder or url is needed")
	case r.Folder != "" && r.URL != "":
		p.add(at+".url", "folder and url exclude each other")
	case r.URL != "":
		p.wrong(at+".url", checkURL(r.URL))
	}
	if r.URL == "" && (r.TokenEnv != "" || r.CA != "") {
		p.add(at, "tokenEnv and ca are for a server")
	}
	if r.TokenEnv == "" {
		r.TokenEnv = DefaultTokenEnv
	} else if !variable.MatchString(r.TokenEnv) {
		p.add(at+".tokenEnv", "%q is not the name of an environment variable", r.TokenEnv)
	}
	if r.Trust == "" {
		r.Trust = DefaultTrust
	}
}

func (k *Keys) complete(p *checker, folder bool) {
	const at = "keys"
	if k.Release == "" {
		k.Release = DefaultReleaseKey
	}
	if k.Evidence == "" {
		k.Evidence = DefaultEvidenceKey
	}
	if k.Release == k.Evidence {
		p.add(at+".evidence", "the evidence key must not be the release key: a signature by that one means released, and nothing else")
	}
	if !folder && k.Online != "" {
		p.add(at+".online", "a server signs with its own online key: remove this one")
	}
	if folder && k.Online == "" {
		k.Online = DefaultOnlineKey
	}
}

func (v *Vulnerabilities) complete(p *checker) {
	const at = "vulnerabilities"
	switch {
	case v.Database == "" && v.API == "":
		p.add(at, "either database or api is needed: without known vulnerabilities nothing is proven")
	case v.Database != "" && v.API != "":
		p.add(at+".api", "database and api exclude each other")
	case v.API != "":
		p.wrong(at+".api", checkURL(v.API))
		if v.MaxAge != 0 {
			p.add(at+".maxAge", "an API has no age")
		}
	}
	if v.MaxAge == 0 {
		v.MaxAge = Duration(DefaultMaxAge)
	}
}

func (r *Product) complete(p *checker, at, tokenEnv string) {
	p.wrong(at+".name", statement.CheckProduct(r.Name))
	switch r.Line {
	case "":
		r.Line = "MAJOR.MINOR"
	case "MAJOR.MINOR", "MAJOR", "*":
	default:
		p.add(at+".line", "line %q is not MAJOR.MINOR, MAJOR or \"*\"", r.Line)
	}
	p.wrong(at+".hardware", statement.CheckHardware(r.Hardware))
	if r.SupportEnd != "" {
		if _, err := time.Parse("2006-01", r.SupportEnd); err != nil {
			p.add(at+".supportEnd", "support end %q is not YYYY-MM", r.SupportEnd)
		}
	}
	if r.MinimumSource != "" {
		_, err := version.Parse(r.MinimumSource)
		p.wrong(at+".minimumSource", err)
	}
	if r.Build != nil {
		r.Build.complete(p, at+".build", tokenEnv)
	}
	checkPath(p, at+".advisory", r.Advisory)
	switch r.Channel {
	case statement.File, statement.Firmware:
		if r.Image != nil {
			p.add(at+".image", "an image is for channel container, this is channel %s", r.Channel)
		}
		r.completeArtifacts(p, at)
	case statement.Container:
		if len(r.Artifacts) > 0 {
			p.add(at+".artifacts", "artifacts are for channels file and firmware, this is channel container")
		}
		if r.Image == nil {
			p.add(at, "channel container needs an image")
			return
		}
		if r.Image.Name == "" {
			r.Image.Name = r.Name
		}
		r.Image.complete(p, at+".image")
	case "":
		p.add(at, "a channel is needed: file, firmware or container")
	default:
		p.add(at+".channel", "channel %q is not file, firmware or container", r.Channel)
	}
}

func (r *Product) completeArtifacts(p *checker, at string) {
	if n := len(r.Artifacts); n == 0 {
		p.add(at, "channel %s needs artifacts", r.Channel)
	} else if n > statement.MaxArtifacts {
		p.add(at+".artifacts", "%d artifacts, at most %d are allowed", n, statement.MaxArtifacts)
	}
	names := map[string]bool{}
	for i := range r.Artifacts {
		a, at := &r.Artifacts[i], fmt.Sprintf("%s.artifacts[%d]", at, i)
		if a.Path == "" {
			p.add(at, "a path is needed")
			continue
		}
		checkPath(p, at+".path", a.Path)
		where := at + ".name"
		if a.Name == "" {
			a.Name, where = filepath.Base(filepath.FromSlash(a.Path)), at+".path"
		}
		checkName(p, where, a.Name)
		if names[a.Name] {
			p.add(where, "artifact %q stands twice", a.Name)
		}
		names[a.Name] = true
		checkPlatform(p, at+".platform", a.Platform)
		p.wrong(at+".hardware", statement.CheckHardware(a.Hardware))
		for _, h := range a.Hardware {
			if len(r.Hardware) > 0 && !slices.Contains(r.Hardware, h) {
				p.add(at+".hardware", "hardware %q is not among the product's", h)
			}
		}
		for j, c := range a.Components {
			if c.Name == "" || c.Version == "" {
				p.add(fmt.Sprintf("%s.components[%d]", at, j), "a component needs a name and a version")
			}
		}
	}
}

func (b *Build) complete(p *checker, at, tokenEnv string) {
	if len(b.Command) == 0 || b.Command[0] == "" {
		p.add(at, "a command is needed, as a list: [make, firmware]")
	}
	checkPath(p, at+".dir", b.Dir)
	for name := range b.Env {
		if !variable.MatchString(name) {
			p.add(at+".env", "%q is not the name of an environment variable", name)
		}
	}
	for i, name := range b.Pass {
		where := fmt.Sprintf("%s.pass[%d]", at, i)
		switch {
		case !variable.MatchString(name):
			p.add(where, "%q is not the name of an environment variable", name)
		case execx.Secret(name) || name == tokenEnv:
			p.add(where, "%s may hold a password or token: a build does not get it", name)
		}
	}
	if b.Timeout == 0 {
		b.Timeout = Duration(DefaultTimeout)
	}
}

func (m *Image) complete(p *checker, at string) {
	if n := len(m.Repositories); n == 0 || n > statement.MaxImages {
		p.add(at, "%d repositories, 1 to %d are allowed", n, statement.MaxImages)
	}
	for i, r := range m.Repositories {
		p.wrong(fmt.Sprintf("%s.repositories[%d]", at, i), statement.CheckImage(Expand(r, "1.0.0", "product")))
	}
	if len(m.Tags) == 0 {
		m.Tags = []string{"{version}"}
	}
	for i, tag := range m.Tags {
		if !tagName.MatchString(Expand(tag, "1.0.0", "product")) {
			p.add(fmt.Sprintf("%s.tags[%d]", at, i), "%q is not a tag", tag)
		}
	}
	checkName(p, at+".name", m.Name)
	if m.Platform == "" {
		m.Platform = DefaultPlatform
	}
	checkPlatform(p, at+".platform", m.Platform)
	sources := 0
	for _, there := range []bool{m.Dockerfile != "", m.Layout != "", len(m.Files) > 0} {
		if there {
			sources++
		}
	}
	if sources != 1 {
		p.add(at, "exactly one of dockerfile, layout and files is needed, %d are there", sources)
	}
	if m.Dockerfile == "" && (m.Context != "" || len(m.Args) > 0) {
		p.add(at, "context and args are for a dockerfile")
	}
	if len(m.Files) == 0 && (m.Base != "" || len(m.Entrypoint) > 0 || len(m.Env) > 0 || m.User != "" || m.WorkDir != "" || len(m.Labels) > 0) {
		p.add(at, "base, entrypoint, env, user, workDir and labels are for files")
	}
	for _, path := range []struct{ at, path string }{
		{".dockerfile", m.Dockerfile}, {".context", m.Context}, {".layout", m.Layout}, {".base", m.Base},
	} {
		checkPath(p, at+path.at, path.path)
	}
	if len(m.Files) > MaxFiles {
		p.add(at+".files", "%d files, at most %d are allowed", len(m.Files), MaxFiles)
		return
	}
	for i, f := range m.Files {
		where := fmt.Sprintf("%s.files[%d]", at, i)
		if f.Path == "" || !strings.HasPrefix(f.To, "/") || hasDots(f.To) || strings.HasSuffix(f.To, "/") {
			p.add(where, "a file needs a path, and in \"to\" an absolute path without \"..\"")
		}
		checkPath(p, where+".path", f.Path)
		if f.Mode != "" && !fileMode.MatchString(f.Mode) {
			p.add(where+".mode", "mode %q is not four octal digits such as \"0755\"", f.Mode)
		}
	}
}

var (
	// tagName is the grammar of the OCI distribution specification, section "Pulling manifests".
	tagName      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	platformName = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$`)
	fileMode     = regexp.MustCompile(`^0[0-7]{3}$`)
	placeholder  = regexp.MustCompile(`\{[a-zA-Z]*\}`)
)

func checkName(p *checker, at, name string) {
	p.wrong(at, statement.CheckArtifact(Expand(name, "1.0.0", "product")))
}

func checkPlatform(p *checker, at, platform string) {
	if platform != "" && !platformName.MatchString(platform) {
		p.add(at, "platform %q is not os/arch such as linux/arm64", platform)
	}
}

func checkPath(p *checker, at, path string) {
	if hasDots(path) {
		p.add(at, "path %q climbs out with \"..\"", path)
	}
	for _, found := range placeholder.FindAllString(path, -1) {
		if found != "{version}" && found != "{product}" {
			p.add(at, "placeholder %s is not known: {version} and {product} are", found)
		}
	}
}

func hasDots(path string) bool {
	return slices.Contains(strings.FieldsFunc(path, func(c rune) bool { return c == '/' || c == '\\' }), "..")
}

// Expand replaces {version} and {product} in text. What they stand for has been checked: neither can hold a slash.
func Expand(text, version, product string) string {
	return strings.NewReplacer("{version}", version, "{product}", product).Replace(text)
}
