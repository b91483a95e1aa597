// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/yamlx"
)

var setting = regexp.MustCompile(`(?m)^( *)# ([a-z]+: )`)

// TestStarterIsAConfiguration reads what "pawl agent init" prints, and then once more with every setting that is commented
// out: what is shown works.
func TestStarterIsAConfiguration(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../cmd/pawl/starter/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig("agent.yaml", text, "/etc/pawl")
	if err != nil {
		t.Fatal(err)
	}
	p := c.Products[0]
	if c.Root != "/etc/pawl/root.json" || c.State != DefaultState || c.Interval != DefaultInterval || !c.Reports ||
		p.Platform != runtime.GOOS+"/"+runtime.GOARCH || p.Owner.Security != update.Auto || p.Owner.Feature != update.Approve || len(c.Notify) != 0 {
		t.Fatalf("%+v", c)
	}
	c, err = ParseConfig("agent.yaml", setting.ReplaceAll(text, []byte("$1$2")), "/etc/pawl")
	if err != nil {
		t.Fatal(err)
	}
	p = c.Products[0]
	if len(c.Notify) != 1 || c.Owner.Window == nil || p.Hardware == "" || len(p.Lines) != 1 || p.Health.URL == "" || p.Restart.Service == "" {
		t.Fatalf("%+v", c)
	}
}

const small = "servers: [https://updates.example.com]\nroot: root.json\nproducts:\n  - name: greeter\n    channel: file\n    path: /opt/greeter\n"

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ change, to, want string }{
		"no server":       {"servers: [https://updates.example.com]\n", "", "no server: name the URL"},
		"no root":         {"root: root.json\n", "", "no root: name the file"},
		"no product":      {small[strings.Index(small, "products"):], "", "no product: name what"},
		"misspelt":        {"path:", "paht:", `agent.yaml:6:5: unknown key "paht"; did you mean "path"?`},
		"path climbs":     {"name: greeter", "name: ../greeter", "agent.yaml:4:11: product name"},
		"npm":             {"channel: file", "channel: npm", `agent.yaml:5:14: channel "npm" is not file, firmware or container`},
		"no path":         {"    path: /opt/greeter\n", "", "agent.yaml:4:5: product greeter has no path"},
		"twice":           {small[strings.Index(small, "  - name"):], small[strings.Index(small, "  - name"):] + "  - {name: greeter, channel: file, path: /x}\n", `product "greeter" stands twice`},
		"same path":       {small[strings.Index(small, "  - name"):], small[strings.Index(small, "  - name"):] + "  - {name: other, channel: file, path: /opt/greeter/}\n", "belongs to another product"},
		"interval":        {"root:", "interval: 1s\nroot:", "agent.yaml:2:11: interval 1s is not between 1m0s and"},
		"device":          {"root:", "device: a b\nroot:", "device name"},
		"mode":            {"root:", "owner: {security: never}\nroot:", `agent.yaml:2:19: "never" is not auto, approve or off`},
		"window":          {"root:", "owner: {window: {from: \"02:00\", to: \"02:00\"}}\nroot:", "the window is empty"},
		"clock":           {"root:", "owner: {window: {from: \"25:00\", to: \"02:00\"}}\nroot:", `"25:00" is not a time of day`},
		"day":             {"root:", "owner: {window: {from: \"01:00\", to: \"02:00\", days: [funday]}}\nroot:", `"funday" is not a day`},
		"both restarts":   {"    path", "    restart: {service: a, command: [b]}\n    path", "not both"},
		"service":         {"    path", "    restart: {service: -x}\n    path", "agent.yaml:6:24: service name"},
		"both healths":    {"    path", "    health: {url: http://127.0.0.1, command: [b]}\n    path", "not both"},
		"health url":      {"    path", "    health: {url: ftp://127.0.0.1}\n    path", "does not begin with http"},
		"health of what":  {"    path", "    health: {deadline: 5s}\n    path", "neither a command nor a url"},
		"long deadline":   {"    path", "    health: {url: http://127.0.0.1, deadline: 2h}\n    path", "deadline 2h0m0s is not between"},
		"never stable":    {"    path", "    health: {url: http://127.0.0.1, stable: 2m}\n    path", "not shorter than the deadline of 1m0s"},
		"empty command":   {"    path", "    health: {command: [\"\"]}\n    path", "the command is empty"},
		"line":            {"    path", "    lines: [x]\n    path", "line \"x\" is not MAJOR"},
		"floor":           {"    path", "    floor: -1\n    path", "a whole number from 0"},
		"second document": {"servers", "---\na: b\n---\nservers", "a second document"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(small, c.change) {
				t.Fatalf("nothing to change: %q", c.change)
			}
			_, err := ParseConfig("agent.yaml", []byte(strings.Replace(small, c.change, c.to, 1)), "/etc/pawl")
			if !errors.As(err, new(*yamlx.Error)) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestConfigCompletes(t *testing.T) {
	t.Parallel()
	text := strings.Replace(small, "root:", "notify: [./tell, x]\nowner: {security: approve, feature: off}\nstate: state\nroot:", 1)
	text = strings.Replace(text, "https://updates.example.com", "https://updates.example.com, mirror", 1)
	text = strings.Replace(text, "path: /opt/greeter", "path: opt/greeter\n    owner: {security: auto}\n    health: {command: [true]}\n    lines: [1.10]", 1)
	c, err := ParseConfig("agent.yaml", []byte(text), "/etc/pawl")
	if err != nil {
		t.Fatal(err)
	}
	p := c.Products[0]
	if c.Servers[0] != "https://updates.example.com" || c.Servers[1] != "/etc/pawl/mirror" || c.State != "/etc/pawl/state" || c.Notify[0] != "/etc/pawl/tell" {
		t.Errorf("%+v", c)
	}
	if p.Path != "/etc/pawl/opt/greeter" || p.Owner.Security != update.Auto || p.Owner.Feature != update.Off || p.Lines[0].String() != "1.10" ||
		p.Health.Command[0] != "true" || p.Health.Deadline != time.Minute || p.Health.Interval != 2*time.Second {
		t.Errorf("%+v", p)
	}
	if _, err := c.Product("other"); !errors.Is(err, ErrNoProduct) || !strings.Contains(err.Error(), "this device has greeter") {
		t.Error(err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(small))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("agent.yaml", data, "/etc/pawl")
		if err != nil {
			return
		}
		for _, p := range c.Products {
			if statement.CheckProduct(p.Name) != nil || p.Path == "" || p.Health.Deadline <= 0 || p.Health.Interval <= 0 {
				t.Fatalf("%+v", p)
			}
		}
	})
}
