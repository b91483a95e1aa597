// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/config"
	"github.com/pawl-project/pawl/internal/version"
	"github.com/pawl-project/pawl/internal/yamlx"
)

const head = `version: 1
repository: {folder: repository}
keys: {release: "keys/{product}.key", evidence: keys/evidence.key, online: keys/online.key}
vulnerabilities: {database: osv}
`

const whole = `version: 1
repository:
  url: https://updates.example.com
  tokenEnv: ACME_TOKEN
  trust: trust
keys:
  release: keys/{product}.key
  evidence: keys/evidence.key
vulnerabilities:
  api: https://api.osv.dev
products:
  - name: greeter
    channel: file
    line: MAJOR
    hardware: [rev-a, rev-b]
    supportEnd: 2031-12
    minimumSource: 1.2.0
    advisory: advisories/{product}-{version}.yaml
    build:
      command: [go, build, -o, "dist/greeter-{version}", ./cmd/greeter]
      dir: src
      env: {CGO_ENABLED: 0, VERSION: "{version}"}
      pass: [GOFLAGS, GOPROXY]
      timeout: 90m
    artifacts:
      - path: dist/greeter-{version}
        platform: linux/arm64
        hardware: [rev-a]
        mediaType: application/x-elf
        components:
          - {name: zephyr, version: 3.7.0, purl: "pkg:github/zephyrproject-rtos/zephyr@v3.7.0", licences: [Apache-2.0]}
  - name: gateway
    channel: container
    image:
      repositories: ["registry.example/acme/{product}", "localhost:5000/acme/gateway"]
      files:
        - {path: dist/gateway, to: /usr/bin/gateway, mode: "0755"}
      entrypoint: [/usr/bin/gateway]
      user: 65532:65532
`

func TestWholeFile(t *testing.T) {
	c, err := config.Parse(filepath.Join("some", "pawl.yaml"), []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	greeter, gateway := c.Products[0], c.Products[1]
	for what, ok := range map[string]bool{
		"name from path":   greeter.Artifacts[0].Name == "greeter-{version}",
		"timeout":          time.Duration(greeter.Build.Timeout) == 90*time.Minute,
		"scalar as text":   greeter.Build.Env["CGO_ENABLED"] == "0",
		"month":            greeter.SupportEnd == "2031-12",
		"default age":      time.Duration(c.Vulnerabilities.MaxAge) == config.DefaultMaxAge,
		"default line":     gateway.Line == "MAJOR.MINOR",
		"default tags":     len(gateway.Image.Tags) == 1 && gateway.Image.Tags[0] == "{version}",
		"default name":     gateway.Image.Name == "gateway",
		"default platform": gateway.Image.Platform == "linux/amd64",
		"folder":           filepath.IsAbs(c.Dir()) && filepath.Base(c.Dir()) == "some",
		"relative path":    c.Abs("a/b") == filepath.Join(c.Dir(), "a", "b"),
		"absolute path":    c.Abs(c.Dir()) == c.Dir(),
		"token":            c.Repository.TokenEnv == "ACME_TOKEN",
	} {
		if !ok {
			t.Errorf("%s: %+v", what, c)
		}
	}
	v := version.MustParse("1.4.3")
	for line, want := range map[string]string{"MAJOR": "1", "MAJOR.MINOR": "1.4", "*": "*"} {
		if got := (&config.Product{Line: line}).LineOf(v).String(); got != want {
			t.Errorf("line %s of %s is %s, want %s", line, v, got, want)
		}
	}
	if got := config.Expand("a-{product}-{version}-{other}", "1.4.3", "greeter"); got != "a-greeter-1.4.3-{other}" {
		t.Error(got)
	}
}

func TestKeysHaveTheirUsualPlaces(t *testing.T) {
	rest := "vulnerabilities: {database: osv}\nproducts:\n  - {name: greeter, channel: file, artifacts: [{path: greeter}]}\n"
	c, err := config.Parse("pawl.yaml", []byte("version: 1\nrepository: {folder: repository}\n"+rest))
	if err != nil {
		t.Fatal(err)
	}
	if want := (config.Keys{Release: "keys/release-{product}.key", Evidence: "keys/evidence-{product}.key", Online: "keys/online.key"}); c.Keys != want {
		t.Errorf("%+v", c.Keys)
	}
	if c.Repository.Trust != "trust" || c.Repository.TokenEnv != "PAWL_TOKEN" {
		t.Errorf("%+v", c.Repository)
	}
	if c, err = config.Parse("pawl.yaml", []byte("version: 1\nrepository: {url: https://updates.example.com}\n"+rest)); err != nil || c.Keys.Online != "" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestSelect(t *testing.T) {
	c, err := config.Parse("pawl.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := c.Select(nil); err != nil || len(list) != 2 {
		t.Errorf("all: %v, %v", list, err)
	}
	if list, err := c.Select([]string{"gateway"}); err != nil || len(list) != 1 || list[0].Name != "gateway" {
		t.Errorf("one: %v, %v", list, err)
	}
	if _, err := c.Select([]string{"gateway", "boat"}); err == nil || err.Error() != `product "boat" is not in pawl.yaml` {
		t.Errorf("unknown: %v", err)
	}
}

// Every mistake is named at its place.
func TestMistakes(t *testing.T) {
	file := "products:\n  - name: greeter\n    channel: file\n    artifacts:\n      - path: greeter\n"
	image := "products:\n  - name: gateway\n    channel: container\n    image:\n      repositories: [registry.example/a]\n"
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {head + "products:\n  - name: greeter\n    chanel: file\n", `pawl.yaml:7:5: unknown key "chanel"; did you mean "channel"?
  7 |     chanel: file
    |     ^`},
		"version":           {"version: 2\nrepository: {}\n", "pawl.yaml:1:10: version 2 of this file is not known, this program reads version 1"},
		"no version":        {file, "version 0 of this file is not known"},
		"no products":       {head, "0 products, 1 to 64 are allowed"},
		"twice":             {head + file + "  - name: greeter\n    channel: file\n    artifacts: [{path: a}]\n", `pawl.yaml:10:11: product "greeter" stands twice`},
		"reserved name":     {head + strings.Replace(file, "greeter", "root", 1), `6:11: product name "root" is reserved`},
		"channel":           {head + strings.Replace(file, "file", "npm", 1), `7:14: channel "npm" is not file, firmware or container`},
		"no channel":        {head + strings.Replace(file, "    channel: file\n", "", 1), "a channel is needed"},
		"no artifacts":      {head + "products:\n  - {name: greeter, channel: firmware}\n", "channel firmware needs artifacts"},
		"no image":          {head + "products:\n  - {name: greeter, channel: container}\n", "channel container needs an image"},
		"artifacts, image":  {head + file + "    image: {repositories: [a.example/b]}\n", "10:13: an image is for channel container, this is channel file"},
		"climbing path":     {head + strings.Replace(file, "path: greeter", "path: ../greeter", 1), `9:15: path "../greeter" climbs out with ".."`},
		"name with slash":   {head + file + "        name: a/b\n", `10:15: artifact name "a/b"`},
		"climbing name":     {head + file + "        name: ..\n", `10:15: artifact name ".."`},
		"reserved ending":   {head + file + "        name: a.cdx.json\n", "the ending .cdx.json is for signatures and evidence"},
		"artifact twice":    {head + file + "      - path: sub/greeter\n", `10:15: artifact "greeter" stands twice`},
		"placeholder":       {head + strings.Replace(file, "path: greeter", "path: a-{verison}", 1), "placeholder {verison} is not known"},
		"platform":          {head + file + "        platform: amd64\n", `platform "amd64" is not os/arch`},
		"hardware":          {head + file + "        hardware: [\"a b\"]\n", `hardware "a b" is not a name`},
		"support end":       {head + file + "    supportEnd: 2031-13\n", `support end "2031-13" is not YYYY-MM`},
		"minimum source":    {head + file + "    minimumSource: 1.2\n", `"1.2" is not MAJOR.MINOR.PATCH`},
		"line":              {head + file + "    line: 1.4\n", `line "1.4" is not MAJOR.MINOR, MAJOR or "*"`},
		"secret variable":   {head + file + "    build: {command: [make], pass: [PAWL_PASSWORD]}\n", "PAWL_PASSWORD may hold a password or token: a build does not get it"},
		"token variable":    {"version: 1\nrepository: {url: https://a.example, tokenEnv: MINE}\nvulnerabilities: {database: osv}\n" + file + "    build: {command: [make], pass: [MINE]}\n", "MINE may hold a password or token"},
		"no command":        {head + file + "    build: {dir: a}\n", "a command is needed, as a list: [make, firmware]"},
		"command as text":   {head + file + "    build: {command: make firmware}\n", "a list is expected here"},
		"timeout":           {head + file + "    build: {command: [make], timeout: soon}\n", `"soon" is not a length of time such as 90m, 24h or 7d`},
		"two repositories":  {strings.Replace(head, "repository}", "repository, url: https://a.example}", 1) + file, "folder and url exclude each other"},
		"no repository":     {strings.Replace(head, "folder: repository", "trust: keys", 1) + file, "either folder or url is needed"},
		"token of a folder": {strings.Replace(head, "repository}", "repository, ca: a.pem}", 1) + file, "tokenEnv and ca are for a server"},
		"http":              {strings.Replace(head, "folder: repository", "url: http://a.example", 1) + file, "sends tokens in the clear"},
		"user in url":       {strings.Replace(head, "folder: repository", "url: https://u:p@a.example", 1) + file, "is not an address"},
		"same key":          {strings.Replace(head, "evidence: keys/evidence.key", "evidence: \"keys/{product}.key\"", 1) + file, "the evidence key must not be the release key"},
		"needless key":      {strings.Replace(head, "folder: repository", "url: https://a.example", 1) + file, "a server signs with its own online key"},
		"no database":       {strings.Replace(head, "database: osv", "maxAge: 1d", 1) + file, "either database or api is needed"},
		"image repository":  {head + strings.Replace(image, "registry.example/a", "a", 1) + "      layout: out\n", `image "a" is not a repository with its registry`},
		"image from both":   {head + image + "      layout: out\n      dockerfile: Dockerfile\n", "exactly one of dockerfile, layout and files is needed, 2 are there"},
		"image from none":   {head + image, "exactly one of dockerfile, layout and files is needed, 0 are there"},
		"image tag":         {head + image + "      layout: out\n      tags: [a b]\n", `"a b" is not a tag`},
		"image target":      {head + image + "      files: [{path: a, to: usr/bin/a}]\n", `in "to" an absolute path without ".."`},
		"image target dots": {head + image + "      files: [{path: a, to: /../a}]\n", `in "to" an absolute path without ".."`},
		"image mode":        {head + image + "      files: [{path: a, to: /a, mode: 755}]\n", `mode "755" is not four octal digits`},
		"misplaced user":    {head + image + "      layout: out\n      user: 1\n", "are for files"},
		"oversized":         {strings.Repeat("#", config.MaxBytes+1), "at most 1048576 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.Parse("pawl.yaml", []byte(c.text))
			var at *yamlx.Error
			if !errors.As(err, &at) || !strings.Contains(err.Error(), c.want) || got != nil {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func TestAllMistakesAreNamedAtOnce(t *testing.T) {
	_, err := config.Parse("pawl.yaml", []byte(head+"products:\n  - name: UPPER\n    channel: boat\n    supportEnd: never\n"))
	for _, want := range []string{"6:11: product name", "7:14: channel", "8:17: support end"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pawl.yaml")
	if _, err := config.Load(path); !errors.Is(err, config.ErrNotFound) || !strings.Contains(err.Error(), `"pawl init" writes one`) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err != nil {
		t.Error(err)
	}
}

func TestAdvisory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "1.4.3.yaml")
	write := func(text string) error {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := config.LoadAdvisory(path)
		return err
	}
	good := "id: ACME-2026-01\nseverity: high\nsummary: |\n  A name of 2 kB stops the greeter.\naction: \"Nothing: it installs itself.\"\n"
	if err := write(good); err != nil {
		t.Fatal(err)
	}
	a, err := config.LoadAdvisory(path)
	if err != nil || a.Summary != "A name of 2 kB stops the greeter." || a.Severity != "high" {
		t.Errorf("%+v, %v", a, err)
	}
	for text, want := range map[string]string{
		strings.Replace(good, "high", "bad", 1):                        `severity "bad" is not critical, high, medium or low`,
		strings.Replace(good, "id: ACME-2026-01\n", "", 1):             "id, summary and action are needed",
		good + "sumary: x\n":                                           `unknown key "sumary"`,
		strings.Replace(good, "ACME", strings.Repeat("A", 5000), 1):    "at most 4096 are allowed",
		strings.Replace(good, "ACME-2026-01", "\"ACME\\e[2J2026\"", 1): "control character",
	} {
		if err := write(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(head))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("pawl.yaml", data)
		if (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
