// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/evidence"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sbom"
)

func maker() *Maker {
	return New(Options{Tool: evidence.Tool{Name: "pawl", Version: "1.0.0"}, Now: func() time.Time { return time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC) }})
}

// files is a tree: path to content. A path that ends in "/" is a folder, content "-> x" a symbolic link.
type files map[string]string

const dpkgStatus = `Package: libssl3
Status: install ok installed
Source: openssl
Version: 3.0.11-1~deb12u2
Architecture: amd64

Package: libc6
Status: install ok installed
Source: glibc (2.36-9)
Version: 2.36-9+b1
Architecture: amd64

Package: removed
Status: deinstall ok config-files
Version: 1.0
Architecture: amd64
`

const apkInstalled = `P:libssl3
V:3.1.4-r0
A:x86_64
L:Apache-2.0
o:openssl

P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
`

const npmLock = `{"lockfileVersion": 3, "packages": {
 "": {"name": "app", "version": "1.0.0", "dependencies": {"lodash": "^4.0.0"}},
 "node_modules/lodash": {"version": "4.17.20", "resolved": "https://registry.example/lodash.tgz"},
 "node_modules/@babel/core": {"version": "7.0.0"},
 "node_modules/forked": {"version": "1.0.0", "resolved": "git+ssh://git@example.com/a/forked.git#0123456789abcdef0123456789abcdef01234567"},
 "node_modules/eslint": {"version": "8.0.0", "dev": true}}}`

// native is the beginning of a program that no Go linker wrote.
const native = "\x7fELF\x02\x01\x01\x00 a program in C"

func debian(more files) files {
	f := files{"var/lib/dpkg/status": dpkgStatus, "usr/lib/os-release": "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n", "usr/bin/sh": native}
	for name, content := range more {
		f[name] = content
	}
	return f
}

func alpine() files {
	return files{"lib/apk/db/installed": apkInstalled, "etc/os-release": "ID=alpine\nVERSION_ID=3.18.4\n", "bin/busybox": native}
}

// trees are contents and what has to be found in them.
var trees = map[string]struct {
	in     files
	want   []string // package URLs, in order
	gaps   []string // parts of the gaps, in order
	opaque bool
}{
	"debian": {in: debian(nil), want: []string{
		"pkg:deb/debian/libc6@2.36-9%2Bb1?distro=debian-12&upstream=glibc%402.36-9",
		"pkg:deb/debian/libssl3@3.0.11-1~deb12u2?distro=debian-12&upstream=openssl",
	}},
	"distroless": {in: files{"var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 12.4\n", "var/lib/dpkg/status.d/base.md5sums": "x", "usr/lib/os-release": "ID=debian\nVERSION_ID=12\n"},
		want: []string{"pkg:deb/debian/base-files@12.4?distro=debian-12"}},
	"debian of an unknown release": {in: files{"var/lib/dpkg/status": dpkgStatus}, want: []string{
		"pkg:deb/debian/libc6@2.36-9%2Bb1?upstream=glibc%402.36-9", "pkg:deb/debian/libssl3@3.0.11-1~deb12u2?upstream=openssl"}},
	"alpine": {in: alpine(), want: []string{
		"pkg:apk/alpine/libssl3@3.1.4-r0?distro=alpine-3.18.4&upstream=openssl", "pkg:apk/alpine/musl@1.2.4-r2?distro=alpine-3.18.4&upstream=musl"}},
	"own program on debian": {in: debian(files{"app/server": native, "usr/local/bin/tool": native}), want: []string{
		"pkg:deb/debian/libc6@2.36-9%2Bb1?distro=debian-12&upstream=glibc%402.36-9",
		"pkg:deb/debian/libssl3@3.0.11-1~deb12u2?distro=debian-12&upstream=openssl",
	}, gaps: []string{"app/server, usr/local/bin/tool: native programs without build information (2)"}},
	"npm lock": {in: files{"package-lock.json": npmLock, "package.json": `{"dependencies":{"lodash":"^4.0.0"}}`}, want: []string{
		"pkg:generic/forked@0123456789abcdef0123456789abcdef01234567", "pkg:npm/%40babel/core@7.0.0", "pkg:npm/lodash@4.17.20"}},
	"npm lock version 1": {in: files{"package-lock.json": `{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0","dependencies":{"b":{"version":"2.0.0"}}}}}`},
		want: []string{"pkg:npm/a@1.0.0", "pkg:npm/b@2.0.0"}},
	"npm installed wins": {in: files{
		"app/package-lock.json":                                      npmLock,
		"app/node_modules/lodash/package.json":                       `{"name":"lodash","version":"4.17.21","license":"MIT","author":{"name":7}}`,
		"app/node_modules/lodash/test/package.json":                  `{ broken on purpose`,
		"app/node_modules/@babel/core/package.json":                  "\xef\xbb\xbf" + `{"name":"@babel/core","version":"7.1.0"}`,
		"app/node_modules/lodash/node_modules/inner/package.json":    `{"name":"inner","version":"1.0.0"}`,
		"app/node_modules/lodash/node_modules/inner/native.node":     native,
		"app/node_modules/lodash/esm/package.json":                   `{"type":"module"}`,
		"app/node_modules/lodash/package-lock.json":                  npmLock,
		"app/node_modules/.package-lock.json":                        npmLock,
		"app/node_modules/@babel/core/lib/node_modules/package.json": `{"x":1}`,
	}, want: []string{"pkg:npm/%40babel/core@7.1.0", "pkg:npm/inner@1.0.0", "pkg:npm/lodash@4.17.21"}},
	"npm nothing pinned": {in: files{"package/package.json": `{"name":"lib","version":"1.0.0","dependencies":{"lodash":"^4"}}`},
		gaps: []string{"package/package.json: its dependencies have no exact versions"}},
	"npm no dependencies": {in: files{"package/package.json": `{"name":"lib","version":"1.0.0"}`}},
	"npm lock that breaks an extractor": {in: files{"package-lock.json": `{"lockfileVersion":1,"dependencies":{"a":{"version":"npm:a"}}}`},
		gaps: []string{"package-lock.json: cannot be read"}, opaque: true},
	"npm installed without a name": {in: files{"node_modules/a/package.json": `{}`}, gaps: []string{"without name or version"}},
	"dotnet": {in: files{
		"app.deps.json": `{"libraries":{"app/1.0.0":{"type":"project"},"Newtonsoft.Json/12.0.1":{"type":"package"},"runtimepack.Microsoft.NETCore.App.Runtime.linux-x64/8.0.0":{"type":"runtimepack"}}}`,
		"app.dll":       "MZ managed", "Newtonsoft.Json.dll": "MZ managed", "other/native.dll": "MZ native", "app": native,
	}, want: []string{"pkg:nuget/Microsoft.NETCore.App.Runtime.linux-x64@8.0.0", "pkg:nuget/Newtonsoft.Json@12.0.1"},
		gaps: []string{"app, other/native.dll: native programs"}},
	"dotnet lock": {in: files{"packages.lock.json": `{"version":1,"dependencies":{"net8.0":{"Serilog":{"type":"Direct","resolved":"2.0.0"},"own":{"type":"Project"}},"net9.0":{"Serilog":{"type":"Direct","resolved":"2.0.0"}}}}`},
		want: []string{"pkg:nuget/Serilog@2.0.0"}},
	"python": {in: files{
		"usr/lib/python3/site-packages/Django-4.2.dist-info/METADATA":     "Metadata-Version: 2.1\nName: Django\nVersion: 4.2\n\ntext",
		"usr/lib/python3/site-packages/old.egg-info/PKG-INFO":             "Name: old_name\nVersion: 1.0\n",
		"usr/lib/python3/site-packages/Django/tests/requirements/py3.txt": "untested==9\n",
		"app/requirements.txt":      "django==4.1\nflask==2.0.1 ; python_version > '3'\nrequests[socks]>=2.0\nlxml\n# a comment\n-r requirements/more.txt\n-r other.txt\n",
		"app/requirements/more.txt": "jinja2==3.0\n",
	}, want: []string{"pkg:pypi/django@4.2", "pkg:pypi/flask@2.0.1", "pkg:pypi/jinja2@3.0", "pkg:pypi/lxml", "pkg:pypi/old-name@1.0", "pkg:pypi/requests"},
		gaps: []string{"app/requirements.txt: refers to other.txt, which was not read"}},
	"broken python metadata": {in: files{"a.dist-info/METADATA": "Nothing: here\n"}, gaps: []string{"a.dist-info/METADATA: cannot be read"}, opaque: true},
	"foreign lists": {in: files{"app/Cargo.lock": "x", "lib/a.jar": "PK\x03\x04", "lib/b.jar": "PK\x03\x04", "node_modules/x/yarn.lock": "x"},
		gaps: []string{"app/Cargo.lock: lists of Rust crates are not looked into (1)", "lib/a.jar, lib/b.jar: Java archives are not looked into (2)"}, opaque: true},
	"only natives":  {in: files{"bin/a": native}, gaps: []string{"bin/a: native programs"}, opaque: true},
	"only text":     {in: files{"README": "hello"}, opaque: true},
	"nothing":       {in: files{}, opaque: true},
	"empty lock":    {in: files{"package-lock.json": `{"lockfileVersion":3,"packages":{}}`}},
	"archive in it": {in: files{"files/app.zip": "", "node_modules/a/package.json": `{"name":"a","version":"1"}`}, want: []string{"pkg:npm/a@1"}, gaps: nil},
}

func tarOf(t testing.TB, in files) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range sorted(in) {
		content := in[name]
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, target, 0, ""
		} else if target, ok := strings.CutPrefix(content, "=> "); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeLink, target, 0, ""
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func zipOf(t testing.TB, in files) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, name := range sorted(in) {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(in[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sorted(in files) []string { return slices.Sorted(maps.Keys(in)) }

func file(t testing.TB, name string, data []byte) sbom.Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return sbom.Source{Shape: sbom.File, Path: path, Subject: evidence.Subject{Name: name, Digest: digest.SetOf(data), Size: int64(len(data))}}
}

func folder(t testing.TB, in files) sbom.Source {
	t.Helper()
	root := t.TempDir()
	for name, content := range in {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return sbom.Source{Shape: sbom.Folder, Path: root, Subject: evidence.Subject{Name: "folder", Digest: digest.SetOf(nil)}}
}

// layout writes an OCI layout with one image per list of layers; with more than one image the subject is an index.
func layout(t testing.TB, images ...[][]byte) sbom.Source {
	t.Helper()
	root := t.TempDir()
	put := func(data []byte) map[string]any {
		d := digest.Of(data)
		dir := filepath.Join(root, "blobs", "sha256")
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d.Hex()), data, 0o666); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"digest": d.String(), "size": len(data)}
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var manifests []map[string]any
	var last []byte
	for i, layers := range images {
		var list []map[string]any
		for _, l := range layers {
			d := put(l)
			d["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
			list = append(list, d)
		}
		last = encode(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": put([]byte("{}")), "layers": list})
		d := put(last)
		d["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
		d["platform"] = map[string]any{"os": "linux", "architecture": []string{"amd64", "arm64"}[i]}
		manifests = append(manifests, d)
	}
	if len(images) > 1 {
		attestation := put([]byte("not an image"))
		attestation["platform"] = map[string]any{"os": "unknown", "architecture": "unknown"}
		last = encode(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": append(manifests, attestation)})
		put(last)
	}
	return sbom.Source{Shape: sbom.Layout, Path: root, Subject: evidence.Subject{Name: "image", Digest: digest.SetOf(last), Size: int64(len(last))}}
}

func purls(s evidence.SBOM) []string {
	var list []string
	for _, c := range s.Components {
		list = append(list, c.PURL)
	}
	return list
}

// TestTrees looks at every tree through every shape and packing: the answer does not depend on it.
func TestTrees(t *testing.T) {
	for name, test := range trees {
		in := files{}
		for name, content := range test.in {
			in[name] = content
		}
		if name == "archive in it" {
			inner := zipOf(t, files{"deep.tar.gz": string(gz(t, tarOf(t, files{"node_modules/b/package.json": `{"name":"b","version":"2"}`})))})
			in["files/app.zip"] = string(inner)
			test.want = append(test.want, "pkg:npm/b@2")
		}
		for shape, src := range map[string]func() sbom.Source{
			"folder":   func() sbom.Source { return folder(t, in) },
			"tar":      func() sbom.Source { return file(t, "x.tar", tarOf(t, in)) },
			"tar.gz":   func() sbom.Source { return file(t, "x.tar.gz", gz(t, tarOf(t, in))) },
			"tar.zst":  func() sbom.Source { return file(t, "x.tar.zst", zst(t, tarOf(t, in))) },
			"zip":      func() sbom.Source { return file(t, "x.zip", zipOf(t, in)) },
			"layout":   func() sbom.Source { return layout(t, [][]byte{gz(t, tarOf(t, in))}) },
			"platform": func() sbom.Source { return layout(t, [][]byte{tarOf(t, in)}, [][]byte{zst(t, tarOf(t, in))}) },
		} {
			if name == "nothing" && shape == "tar" {
				continue // a tar archive of nothing is 1024 zero bytes, which nothing tells from other zeros
			}
			t.Run(name+"/"+shape, func(t *testing.T) {
				source := src()
				got, err := maker().Make(t.Context(), source)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(purls(got), test.want) {
					t.Errorf("components %q\nwant %q", purls(got), test.want)
				}
				if got.Opaque != test.opaque {
					t.Errorf("opaque %t", got.Opaque)
				}
				want := test.gaps
				if shape == "platform" {
					want = append(append([]string{}, want...), want...)
				}
				if len(got.Gaps) != len(want) {
					t.Fatalf("gaps %q, want %q", got.Gaps, want)
				}
				for i, gap := range want {
					if shape != "platform" && !strings.Contains(got.Gaps[i], gap) {
						t.Errorf("gap %q does not say %q", got.Gaps[i], gap)
					}
				}
				if got.Subject != source.Subject || got.Tool.Name != "pawl" || got.Created.IsZero() {
					t.Errorf("%+v", got)
				}
				again, err := maker().Make(t.Context(), source)
				if err != nil || !reflect.DeepEqual(again, got) {
					t.Errorf("not the same twice: %v", err)
				}
			})
		}
	}
}

// TestGoProgram looks into the one Go program that is surely here: this test.
func TestGoProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]sbom.Source{
		"program":           {Shape: sbom.File, Path: self, Subject: evidence.Subject{Name: "self"}},
		"in an archive":     file(t, "x.tar.gz", gz(t, tarOf(t, files{"bin/self": string(data)}))),
		"compressed alone":  file(t, "self.gz", gz(t, data)),
		"in a layer":        layout(t, [][]byte{tarOf(t, files{"bin/self": string(data)})}),
		"not executable in": folder(t, files{"self.bin": string(data)}),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := maker().Make(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]evidence.Component{}
			for _, c := range got.Components {
				found[c.Name] = c
			}
			if want := evidence.GoVersion(runtime.Version()); found["stdlib"].Version != want || found["stdlib"].Ecosystem != "Go" {
				t.Errorf("standard library %+v, want version %q", found["stdlib"], want)
			}
			if _, main := found["github.com/pawl-project/pawl"]; main != (name != "program") {
				t.Errorf("main module among the components: %t", main)
			}
			if got.Opaque || len(got.Gaps) > 0 {
				t.Errorf("opaque %t, gaps %q", got.Opaque, got.Gaps)
			}
		})
	}
}

func TestGoModules(t *testing.T) {
	info, err := debug.ParseBuildInfo("go\tgo1.26.3\npath\texample.com/a\nmod\texample.com/a\t(devel)\t\n" +
		"dep\tgithub.com/BurntSushi/toml\tv1.2.0\th1:x\n" +
		"dep\texample.com/forked\tv1.0.0\n=>\texample.com/fork\tv1.0.1\th1:y\n" +
		"dep\texample.com/local\tv1.0.0\n=>\t./local\t(devel)\t\n" +
		"dep\tgithub.com/docker/docker\tv26.0.0+incompatible\th1:z\n")
	if err != nil {
		t.Fatal(err)
	}
	info.GoVersion = "go1.26.3"
	var got []string
	modules, main := goModules(info, "a")
	for _, c := range append(modules, main...) {
		got = append(got, c.Name+" "+c.Version+" "+c.PURL)
	}
	want := []string{
		"stdlib 1.26.3 pkg:golang/stdlib@1.26.3",
		"github.com/BurntSushi/toml 1.2.0 pkg:golang/github.com/burntsushi/toml@1.2.0",
		"example.com/fork 1.0.1 pkg:golang/example.com/fork@1.0.1",
		"example.com/local  pkg:golang/example.com/local",
		"github.com/docker/docker 26.0.0+incompatible pkg:golang/github.com/docker/docker@26.0.0%2Bincompatible",
		"example.com/a  pkg:golang/example.com/a",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestFilesThatSayNothing(t *testing.T) {
	declared := []evidence.Component{{Name: "mbedtls", Version: "2.28.0"}, {Name: "lwip", Version: "2.1.2", PURL: "pkg:github/lwip-tcpip/lwip@2.1.2"}}
	src := file(t, "a.out", []byte(native))
	got, err := maker().Make(t.Context(), src)
	if err != nil || !got.Opaque || len(got.Components) != 0 {
		t.Fatalf("native program: %v %+v", err, got)
	}
	firmware := file(t, "firmware.bin", []byte{0xe9, 1, 2, 3, 4})
	if _, err = maker().Make(t.Context(), firmware); !errors.Is(err, sbom.ErrUnsupported) || !strings.Contains(err.Error(), "can be declared") {
		t.Fatalf("firmware: %v", err)
	}
	firmware.Declared = declared
	got, err = maker().Make(t.Context(), firmware)
	if err != nil || !got.Opaque || len(got.Components) != 2 || !got.Components[0].Declared {
		t.Fatalf("declared: %v %+v", err, got)
	}
	if got.Components[0].PURL != "pkg:generic/mbedtls@2.28.0" {
		t.Errorf("%+v", got.Components)
	}
	for name, bad := range map[string]evidence.Component{
		"nameless": {Version: "1"}, "no package URL": {Name: "a", PURL: "a@1"}, "long": {Name: strings.Repeat("x", evidence.MaxText+1)},
	} {
		firmware.Declared = []evidence.Component{bad}
		if _, err := maker().Make(t.Context(), firmware); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, shape := range map[string]sbom.Source{
		"no such file": {Shape: sbom.File, Path: "missing"}, "no such folder": {Shape: sbom.Folder, Path: "missing"},
		"no such layout": {Shape: sbom.Layout, Path: "missing"}, "no such shape": {Shape: "cube", Path: "."}, "folder as file": {Shape: sbom.File, Path: "."},
	} {
		if _, err := maker().Make(t.Context(), shape); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLayers checks what upper layers hide.
func TestLayers(t *testing.T) {
	pkg := func(name, version string) string { return fmt.Sprintf(`{"name":%q,"version":%q}`, name, version) }
	base := tarOf(t, files{
		"a/node_modules/x/package.json": pkg("x", "1"), "a/node_modules/y/package.json": pkg("y", "1"),
		"b/node_modules/z/package.json": pkg("z", "1"), "c/node_modules/w/package.json": pkg("w", "1"),
		"d/node_modules/v/package.json": pkg("v", "1"), "e/node_modules/u/package.json": pkg("u", "1"),
	})
	for name, test := range map[string]struct {
		upper []files
		want  string
	}{
		"nothing":             {[]files{{}}, "u@1 v@1 w@1 x@1 y@1 z@1"},
		"replaced":            {[]files{{"a/node_modules/x/package.json": pkg("x", "2")}}, "u@1 v@1 w@1 x@2 y@1 z@1"},
		"removed file":        {[]files{{"a/node_modules/x/.wh.package.json": ""}}, "u@1 v@1 w@1 y@1 z@1"},
		"removed folder":      {[]files{{"a/.wh.node_modules": "", ".wh.b": ""}}, "u@1 v@1 w@1"},
		"emptied folder":      {[]files{{"c/.wh..wh..opq": "", "c/node_modules/n/package.json": pkg("n", "1")}}, "n@1 u@1 v@1 x@1 y@1 z@1"},
		"folder by a file":    {[]files{{"d": "now a file"}}, "u@1 w@1 x@1 y@1 z@1"},
		"folder by a link":    {[]files{{"e": "-> elsewhere"}}, "v@1 w@1 x@1 y@1 z@1"},
		"removed and back":    {[]files{{".wh.a": ""}, {"a/node_modules/x/package.json": pkg("x", "3")}}, "u@1 v@1 w@1 x@3 z@1"},
		"own layer stays":     {[]files{{".wh.a": "", "a/node_modules/x/package.json": pkg("x", "4")}}, "u@1 v@1 w@1 x@4 z@1"},
		"folder again":        {[]files{{"a/": ""}}, "u@1 v@1 w@1 x@1 y@1 z@1"},
		"absolute and dotted": {[]files{{"/a/node_modules/x/package.json": pkg("x", "5"), "./.wh.b": ""}}, "u@1 v@1 w@1 x@5 y@1"},
	} {
		t.Run(name, func(t *testing.T) {
			layers := [][]byte{base}
			for _, u := range test.upper {
				layers = append(layers, gz(t, tarOf(t, u)))
			}
			got, err := maker().Make(t.Context(), layout(t, layers))
			if err != nil {
				t.Fatal(err)
			}
			if found := strings.ReplaceAll(strings.Join(purls(got), " "), "pkg:npm/", ""); found != test.want {
				t.Errorf("found %s, want %s", found, test.want)
			}
		})
	}
}

func TestHardLinkIsSaid(t *testing.T) {
	got, err := maker().Make(t.Context(), layout(t, [][]byte{tarOf(t, files{"other": dpkgStatus, "var/lib/dpkg/status": "=> other"})}))
	if err != nil || len(got.Gaps) != 1 || !strings.Contains(got.Gaps[0], "hard link") {
		t.Fatalf("%v %q", err, got.Gaps)
	}
}

func TestSymbolicLinksAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "package-lock.json"), []byte(npmLock), 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := maker().Make(t.Context(), folder(t, files{"out": "-> " + outside, "package-lock.json": "-> " + filepath.Join(outside, "package-lock.json")}))
	if err != nil || len(got.Components) != 0 {
		t.Fatalf("%v %q", err, purls(got))
	}
}

func TestUnsupportedSystems(t *testing.T) {
	for _, name := range []string{"var/lib/rpm/rpmdb.sqlite", "var/lib/pacman/local/ALPM_DB_VERSION"} {
		for _, src := range []sbom.Source{folder(t, files{name: "x"}), layout(t, [][]byte{tarOf(t, files{name: "x"})})} {
			if _, err := maker().Make(t.Context(), src); !errors.Is(err, sbom.ErrUnsupported) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s as %s: %v", name, src.Shape, err)
			}
		}
	}
}

func TestRefusesHostileArchives(t *testing.T) {
	small := maker()
	small.limits = limits{entries: 20, unpacked: 1 << 20, metadata: 1 << 10, kept: 2 << 10, program: 1 << 16, depth: 3, gaps: 3}
	many, wide := files{}, files{}
	for i := range 30 {
		many[fmt.Sprintf("f%d", i)] = ""
	}
	for i := range 5 {
		wide[fmt.Sprintf("%d/package-lock.json", i)] = `{"packages":{}}` + strings.Repeat(" ", 900)
	}
	bomb := gz(t, tarOf(t, files{"a": strings.Repeat("\x00", 2<<20)}))
	for name, test := range map[string]struct {
		src  sbom.Source
		says string
	}{
		"climbs out by tar":        {file(t, "x.tar", tarOf(t, files{"../../etc/passwd": "x"})), "climbs out"},
		"climbs out within":        {file(t, "x.tar", tarOf(t, files{"a/../../b": "x"})), "climbs out"},
		"climbs out by zip":        {file(t, "x.zip", zipOf(t, files{"../b": "x"})), "climbs out"},
		"climbs out by backslash":  {file(t, "x.zip", zipOf(t, files{`..\b`: "x"})), "climbs out"},
		"climbs out by layer":      {layout(t, [][]byte{tarOf(t, files{"../b": "x"})}), "climbs out"},
		"long path":                {file(t, "x.tar", tarOf(t, files{strings.Repeat("a/", 3000) + "f": "x"})), "a path of"},
		"too many entries":         {file(t, "x.tar", tarOf(t, many)), "more than 20 entries"},
		"too many entries, zip":    {file(t, "x.zip", zipOf(t, many)), "more than 20 entries"},
		"too many files":           {folder(t, many), "more than 20 entries"},
		"too many in layer":        {layout(t, [][]byte{tarOf(t, many)}), "more than 20 entries"},
		"bomb":                     {file(t, "x.tar.gz", bomb), "bytes unpacked"},
		"bomb in layer":            {layout(t, [][]byte{bomb}), "bytes unpacked"},
		"bomb in archive":          {file(t, "x.tar", tarOf(t, files{"in.tar.gz": string(bomb)})), "bytes unpacked"},
		"large list":               {file(t, "x.tar", tarOf(t, files{"package-lock.json": strings.Repeat(" ", 2<<10)})), "package list package-lock.json"},
		"large lists":              {file(t, "x.tar", tarOf(t, wide)), "bytes of package lists"},
		"torn gzip":                {file(t, "x.tar.gz", bomb[:len(bomb)/2]), "not a whole archive"},
		"torn tar":                 {file(t, "x.tar", tarOf(t, files{"a": strings.Repeat("x", 2000)})[:1000]), "not a whole archive"},
		"torn zip":                 {file(t, "x.zip", zipOf(t, files{"a": "x"})[:20]), "not a whole archive"},
		"monstrous name":           {folder(t, files{"node_modules/a/package.json": `{"name":"` + strings.Repeat("x", 5000) + `","version":"1"}`}), "package list"},
		"broken system database":   {file(t, "x.tar", tarOf(t, files{"lib/apk/db/installed": "no colon\n"})), "package database lib/apk/db/installed"},
		"changed layer":            {changed(t), "its bytes are"},
		"missing image":            {sbom.Source{Shape: sbom.Layout, Path: t.TempDir(), Subject: evidence.Subject{Digest: digest.SetOf([]byte("x"))}}, "is not in the layout"},
		"layer that is not a tar":  {layout(t, [][]byte{[]byte("hello, this is no tar archive at all" + strings.Repeat(".", 600))}), "not a whole archive"},
		"manifest that is no JSON": {notJSON(t), "manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := small.Make(t.Context(), test.src)
			if refusal.Of(err) != refusal.Malformed || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
		})
	}
}

// changed is a layout whose layer is not what the manifest says.
func changed(t *testing.T) sbom.Source {
	t.Helper()
	layer := tarOf(t, files{"a": "x"})
	src := layout(t, [][]byte{layer})
	layer = append(layer, 'x') // after the end of the archive, where no reader of tar looks
	if err := os.WriteFile(filepath.Join(src.Path, "blobs", "sha256", digest.Of(layer[:len(layer)-1]).Hex()), layer, 0o666); err != nil {
		t.Fatal(err)
	}
	return src
}

func notJSON(t *testing.T) sbom.Source {
	t.Helper()
	src := layout(t, [][]byte{tarOf(t, nil)})
	data := []byte("{")
	src.Subject.Digest = digest.SetOf(data)
	if err := os.WriteFile(filepath.Join(src.Path, "blobs", "sha256", digest.Of(data).Hex()), data, 0o666); err != nil {
		t.Fatal(err)
	}
	return src
}

// TestHostileWithin checks that what is wrong with one archive in a tree is said and does not hide the rest.
func TestHostileWithin(t *testing.T) {
	small := maker()
	small.limits.depth, small.limits.gaps, small.limits.program = 3, 3, 1<<16
	nest := gz(t, tarOf(t, files{"node_modules/deep/package.json": `{"name":"deep","version":"1"}`}))
	for range 3 {
		nest = gz(t, tarOf(t, files{"in.tgz": string(nest)}))
	}
	in := files{
		"node_modules/a/package.json": `{"name":"a","version":"1"}`,
		"torn.zip":                    "PK\x03\x04 and nothing more",
		"climbing.tar":                string(tarOf(t, files{"../x": ""})),
		"huge":                        native + strings.Repeat("\x00", 1<<17),
		"nested.tgz":                  string(nest),
	}
	got, err := small.Make(t.Context(), file(t, "x.zip", zipOf(t, in)))
	if err != nil || len(purls(got)) != 1 {
		t.Fatalf("%v %q", err, purls(got))
	}
	if len(got.Gaps) != 4 || !strings.Contains(got.Gaps[3], "and 1 more") {
		t.Errorf("gaps %q", got.Gaps)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, src := range []sbom.Source{folder(t, debian(nil)), file(t, "x.tar.gz", gz(t, tarOf(t, debian(nil)))), layout(t, [][]byte{tarOf(t, debian(nil))})} {
		if _, err := maker().Make(ctx, src); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", src.Shape, err)
		}
	}
}

func TestNothingIsLeftOnDisk(t *testing.T) {
	m := maker()
	m.opt.Temp = t.TempDir()
	if _, err := m.Make(t.Context(), file(t, "x.tar", tarOf(t, files{"a": native, "in.tgz": string(gz(t, tarOf(t, files{"b": native})))}))); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(m.opt.Temp)
	if err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}

func FuzzFile(f *testing.F) {
	f.Add(tarOf(f, debian(files{"package-lock.json": npmLock, "app/requirements.txt": "a==1\n-r b\n"})))
	f.Add(gz(f, tarOf(f, alpine())))
	f.Add(zst(f, tarOf(f, files{"app.deps.json": `{"libraries":{"a/1":{"type":"package"}}}`})))
	f.Add(zipOf(f, files{"node_modules/a/package.json": `{"name":"a","version":"1"}`, "x.dist-info/METADATA": "Name: x\nVersion: 1\n"}))
	f.Add([]byte(native))
	m := maker()
	m.limits = limits{entries: 100, unpacked: 1 << 20, metadata: 1 << 16, kept: 1 << 18, program: 1 << 18, depth: 3, gaps: 5}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := m.Make(t.Context(), file(t, "x.tar.gz", data))
		if err != nil {
			return
		}
		s.Subject.Digest = digest.SetOf(data)
		text, err := s.EncodeCycloneDX()
		if err != nil {
			t.Fatalf("cannot be encoded: %v", err)
		}
		if _, err := evidence.DecodeCycloneDX(text); err != nil {
			t.Fatalf("cannot be read again: %v", err)
		}
	})
}

func TestMonstrousName(t *testing.T) {
	src := folder(t, files{"node_modules/a/package.json": `{"name":"` + strings.Repeat("x", 5000) + `","version":"1"}`})
	if _, err := maker().Make(t.Context(), src); refusal.Of(err) != refusal.Malformed {
		t.Errorf("got %v", err)
	}
}

// BenchmarkLayout looks into an image of 20,000 files and 120 MB in one compressed layer.
func BenchmarkLayout(b *testing.B) {
	in := debian(nil)
	for i := range 20_000 {
		in[fmt.Sprintf("usr/share/doc/%d/copyright", i)] = strings.Repeat("some text ", 600)
	}
	for i := range 2_000 {
		in[fmt.Sprintf("app/node_modules/p%d/package.json", i)] = fmt.Sprintf(`{"name":"p%d","version":"1.0.%d"}`, i, i)
	}
	layer := tarOf(b, in)
	src := layout(b, [][]byte{gz(b, layer)})
	b.SetBytes(int64(len(layer)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := maker().Make(b.Context(), src)
		if err != nil || len(s.Components) != 2_002 {
			b.Fatal(err, len(s.Components))
		}
	}
}
