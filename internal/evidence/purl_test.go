// SPDX-License-Identifier: Apache-2.0

package evidence

import "testing"

func TestIdentify(t *testing.T) {
	for purl, want := range map[string]Package{
		"pkg:golang/golang.org/x/text@0.3.5":                       {"Go", "golang.org/x/text", "0.3.5"},
		"pkg:golang/golang.org/x/text@v0.3.5":                      {"Go", "golang.org/x/text", "0.3.5"},
		"pkg:golang/github.com/docker/docker@v26.0.0+incompatible": {"Go", "github.com/docker/docker", "26.0.0+incompatible"},
		"pkg:golang/stdlib@1.26.3":                                 {"Go", "stdlib", "1.26.3"},
		"pkg:golang/stdlib@v1.22":                                  {"Go", "stdlib", "1.22.0"},
		"pkg:golang/go@1.27rc2":                                    {"Go", "stdlib", "1.27.0-rc.2"},
		"pkg:golang/example.com/tool@(devel)":                      {"Go", "example.com/tool", ""},
		"pkg:npm/lodash@4.17.20":                                   {"npm", "lodash", "4.17.20"},
		"pkg:npm/%40babel/core@7.0.0":                              {"npm", "@babel/core", "7.0.0"},
		"pkg:nuget/Newtonsoft.Json@12.0.1":                         {"NuGet", "Newtonsoft.Json", "12.0.1"},
		"pkg:pypi/Django_Foo@4.2":                                  {"PyPI", "django-foo", "4.2"},
		"pkg:cargo/time@0.1.0":                                     {"crates.io", "time", "0.1.0"},
		"pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1":     {"Maven", "org.apache.logging.log4j:log4j-core", "2.14.1"},
		"pkg:deb/debian/libssl3@3.0.11-1~deb12u2?arch=amd64&distro=debian-12&upstream=openssl":  {"Debian:12", "openssl", "3.0.11-1~deb12u2"},
		"pkg:deb/debian/libc6@2.36-9?distro=debian-12.5&upstream=glibc%402.36-9+b1":             {"Debian:12", "glibc", "2.36-9+b1"},
		"pkg:deb/debian/libssl3@3.0.11-1?distro=bookworm&source=openssl&sourceversion=3.0.11-2": {"Debian:12", "openssl", "3.0.11-2"},
		"pkg:deb/debian/bash@5.2?distro=sid":                                                    {"", "bash", "5.2"},
		"pkg:deb/debian/bash@5.2":                                                               {"", "bash", "5.2"},
		"pkg:deb/ubuntu/bash@5.1?distro=ubuntu-22.04":                                           {"Ubuntu:22.04:LTS", "bash", "5.1"},
		"pkg:deb/ubuntu/bash@5.1?distro=noble":                                                  {"Ubuntu:24.04:LTS", "bash", "5.1"},
		"pkg:deb/ubuntu/bash@5.1?distro=ubuntu-25.04":                                           {"Ubuntu:25.04", "bash", "5.1"},
		"pkg:apk/alpine/libssl3@3.1.4-r0?distro=alpine-3.18.4&upstream=openssl":                 {"Alpine:v3.18", "openssl", "3.1.4-r0"},
		"pkg:apk/alpine/libssl3@3.1.4-r0?distro=3.18.4&origin=openssl":                          {"Alpine:v3.18", "openssl", "3.1.4-r0"},
		"pkg:apk/alpine/musl@1.2?distro=edge":                                                   {"", "musl", "1.2"},
		"pkg:apk/wolfi/openssl@3.1.4-r0?distro=20230201":                                        {"Wolfi", "openssl", "3.1.4-r0"},
		"pkg:generic/mbedtls@2.28":                                                              {"", "mbedtls", "2.28"},
		"not a package URL":                                                                     {},
		"":                                                                                      {},
	} {
		if got := Identify(purl); got != want {
			t.Errorf("%s: %+v, want %+v", purl, got, want)
		}
	}
}

func TestPackageKeepsTheSpelling(t *testing.T) {
	c := Component{Name: "github.com/BurntSushi/toml", PURL: "pkg:golang/github.com/burntsushi/toml@1.2.0"}
	if got := c.Package().Name; got != c.Name {
		t.Error(got)
	}
	c.Name = "something else"
	if got := c.Package().Name; got != "github.com/burntsushi/toml" {
		t.Error(got)
	}
}

func TestGoVersion(t *testing.T) {
	for in, want := range map[string]string{
		"go1.26.3": "1.26.3", "1.26": "1.26.0", "go1.27rc2": "1.27.0-rc.2", "go1.18beta1": "1.18.0-beta.1",
		"go1.26.3 X:boringcrypto": "1.26.3", "go1.20.6-vendor": "1.20.6", "devel go1.27-0123abc": "", "": "", "gogo": "",
	} {
		if got := GoVersion(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("pkg:deb/debian/libssl3@3.0.11-1~deb12u2?arch=amd64&distro=debian-12&upstream=openssl")
	f.Add("pkg:golang/stdlib@1.26.3")
	f.Fuzz(func(t *testing.T, purl string) { Identify(purl) })
}
