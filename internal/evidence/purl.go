// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	packageurl "github.com/package-url/packageurl-go"
)

// Package is a component as vulnerability databases call it: the ecosystem, name and version of the OSV schema.
type Package struct {
	Ecosystem string // empty if OSV has none for it
	Name      string
	Version   string // empty if it is not known
}

// Package returns what the component is called in databases. Everything comes from its package URL; only the spelling of
// a Go module, which a package URL writes in lower case, comes from its name.
func (c Component) Package() Package {
	p := Identify(c.PURL)
	if p.Ecosystem == "Go" && strings.EqualFold(p.Name, c.Name) {
		p.Name = c.Name
	}
	return p
}

// Identify maps a package URL to the package that databases speak of. It is the only place that knows this mapping:
//
//	golang   Go; module "stdlib" is the standard library, also if a tool calls it "go"
//	npm, nuget, pypi, cargo, gem, composer, hex, pub, maven   their ecosystems
//	deb      "Debian:12", "Ubuntu:24.04:LTS"; name and version of the source package
//	apk      "Alpine:v3.20", "Wolfi", "Chainguard"; name of the origin (source) package
//
// The release of a distribution comes from the qualifier "distro" ("debian-12", "debian-12.5", "bookworm",
// "alpine-3.20.1"), the source package from "upstream" ("openssl@3.0.11-1"), "source" and "sourceversion", or "origin":
// these are what the common tools write. A package URL that cannot be read, or belongs to no ecosystem, gives an empty
// Ecosystem; the caller must then treat the component as not checked.
func Identify(purl string) Package {
	if len(purl) > MaxText {
		return Package{}
	}
	u, err := packageurl.FromString(purl)
	if err != nil {
		return Package{}
	}
	p := Package{Name: u.Name, Version: u.Version}
	if u.Namespace != "" {
		p.Name = u.Namespace + "/" + u.Name
	}
	switch u.Type {
	case "golang":
		p.Ecosystem = "Go"
		if p.Version == "(devel)" {
			p.Version = ""
		}
		if u.Namespace == "" && (u.Name == "stdlib" || u.Name == "go") {
			p.Name, p.Version = "stdlib", GoVersion(p.Version)
		}
		p.Version = strings.TrimPrefix(p.Version, "v")
	case "npm":
		p.Ecosystem = "npm"
	case "nuget":
		p.Ecosystem = "NuGet"
	case "pypi":
		p.Ecosystem = "PyPI"
	case "cargo":
		p.Ecosystem = "crates.io"
	case "gem":
		p.Ecosystem = "RubyGems"
	case "composer":
		p.Ecosystem = "Packagist"
	case "hex":
		p.Ecosystem = "Hex"
	case "pub":
		p.Ecosystem = "Pub"
	case "maven":
		p.Ecosystem, p.Name = "Maven", u.Namespace+":"+u.Name
	case "deb", "apk":
		q := u.Qualifiers.Map()
		p.Ecosystem = distribution(u.Type, strings.ToLower(u.Namespace), q["distro"])
		p.Name = u.Name
		source, version, _ := strings.Cut(q["upstream"], "@")
		for _, name := range []string{source, q["source"], q["origin"]} {
			if name != "" {
				p.Name = name
				break
			}
		}
		for _, v := range []string{version, q["sourceversion"]} {
			if v != "" && u.Type == "deb" {
				p.Version = v
				break
			}
		}
	}
	return p
}

// distribution returns the OSV ecosystem of an operating system's release, or "" if the release is not known: packages
// of an unknown release cannot be compared, because every release has fixes of its own.
func distribution(kind, id, distro string) string {
	release := strings.ToLower(distro)
	if rest, ok := strings.CutPrefix(release, id+"-"); ok {
		release = rest
	}
	codenames := map[string]string{
		"buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14",
		"xenial": "16.04", "bionic": "18.04", "focal": "20.04", "jammy": "22.04", "noble": "24.04",
	}
	if number, ok := codenames[release]; ok {
		release = number
	}
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	switch {
	case kind == "apk" && id == "wolfi":
		return "Wolfi"
	case kind == "apk" && id == "chainguard":
		return "Chainguard"
	case !number(major):
		return ""
	case kind == "deb" && id == "debian":
		return "Debian:" + major
	case kind == "deb" && id == "ubuntu" && number(minor):
		year, err := strconv.Atoi(major)
		if err != nil {
			return ""
		}
		if minor == "04" && year%2 == 0 {
			return "Ubuntu:" + major + "." + minor + ":LTS"
		}
		return "Ubuntu:" + major + "." + minor
	case kind == "apk" && id == "alpine" && number(minor):
		return "Alpine:v" + major + "." + minor
	}
	return ""
}

func number(s string) bool {
	return s != "" && len(s) <= 4 && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < '0' || c > '9' })
}

var goRelease = regexp.MustCompile(`^(?:go)?(\d+)\.(\d+)(?:\.(\d+))?(?:(beta|rc)(\d+))?([-+ ].*)?$`)

// GoVersion turns the version of a Go toolchain ("go1.26.3", "1.27rc2", "go1.26.3 X:nocoverageredesign") into the semantic
// version that the Go vulnerability database uses ("1.26.3", "1.27.0-rc.2"); "" if it is not a release.
func GoVersion(s string) string {
	m := goRelease.FindStringSubmatch(strings.TrimPrefix(s, "v"))
	if m == nil {
		return ""
	}
	patch := m[3]
	if patch == "" {
		patch = "0"
	}
	v := m[1] + "." + m[2] + "." + patch
	if m[4] != "" {
		v += "-" + m[4] + "." + m[5]
	}
	return v
}
