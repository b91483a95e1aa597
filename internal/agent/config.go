// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pawl-project/pawl/internal/slot"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
	"github.com/pawl-project/pawl/internal/yamlx"
)

// Defaults and limits of a configuration.
const (
	DefaultState    = "/var/lib/pawl"
	DefaultInterval = 6 * time.Hour
	MinInterval     = time.Minute
	MaxInterval     = 31 * 24 * time.Hour
	MaxProducts     = 64
	MaxServers      = 16
	maxLines        = 64
	defaultDeadline = time.Minute
	maxDeadline     = time.Hour
	defaultProbe    = 2 * time.Second
)

// Config is agent.yaml. Relative paths in it are relative to its folder.
type Config struct {
	// Servers are where the repository is: URLs or folders, mirrors of each other, asked in this order.
	Servers []string `yaml:"servers"`
	// Root is the file with the publisher's root, which came by a way that the owner trusts.
	Root string `yaml:"root"`
	// State is the folder in which the agent remembers.
	State string `yaml:"state"`
	// Device is the name under which the device reports; empty: a random one that is made once.
	Device string `yaml:"device"`
	// CA is a PEM file with further certificate authorities for the servers.
	CA string `yaml:"ca"`
	// Reports says whether servers are told what is installed.
	Reports bool `yaml:"reports"`
	// Interval is the time between two checks of "pawl agent run".
	Interval time.Duration `yaml:"interval"`
	// Notify is a program that is told what the owner should know.
	Notify   []string  `yaml:"notify"`
	Owner    Owner     `yaml:"owner"`
	Products []Product `yaml:"products"`
}

// Owner are the owner's settings. Commands of the owner override them; nothing else does.
type Owner struct {
	Security update.Mode    `yaml:"security"`
	Feature  update.Mode    `yaml:"feature"`
	Window   *update.Window `yaml:"window"`
}

// Product is one product of the device.
type Product struct {
	Name        string            `yaml:"name"`
	Channel     statement.Channel `yaml:"channel"`
	Hardware    string            `yaml:"hardware"`
	Platform    string            `yaml:"platform"`
	Artifact    string            `yaml:"artifact"`
	Lines       []version.Line    `yaml:"lines"`
	Prereleases bool              `yaml:"prereleases"`
	// Floor is a floor that was set in the factory.
	Floor uint32 `yaml:"floor"`
	// Path is the folder of the slot.
	Path    string  `yaml:"path"`
	Restart Restart `yaml:"restart"`
	Health  Health  `yaml:"health"`
	Owner   Owner   `yaml:"owner"`
}

// Restart says how the new release is made to run: a service of systemd, or a command.
type Restart struct {
	Service string        `yaml:"service"`
	Command []string      `yaml:"command"`
	Limit   time.Duration `yaml:"limit"`
}

// Args returns the command, which is empty if nothing is to be restarted.
func (r Restart) Args() ([]string, error) {
	if r.Service != "" {
		return slot.RestartService(r.Service)
	}
	return r.Command, nil
}

// Health says how to find out that a new release works: a command that ends with status 0, or a URL that answers 2xx.
type Health struct {
	Command []string `yaml:"command"`
	URL     string   `yaml:"url"`
	// Deadline is how long the release may take to become healthy.
	Deadline time.Duration `yaml:"deadline"`
	// Interval is the pause between two probes.
	Interval time.Duration `yaml:"interval"`
	// Stable is how long it must stay healthy before it is confirmed.
	Stable time.Duration `yaml:"stable"`
}

// LoadConfig reads and checks agent.yaml. Mistakes are *yamlx.Error.
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the agent's configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, yamlx.MaxBytes+1))
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the agent's configuration: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return Config{}, err
	}
	return ParseConfig(path, data, filepath.Dir(abs))
}

// ParseConfig reads and checks the bytes of a configuration. dir is what relative paths are relative to.
func ParseConfig(path string, data []byte, dir string) (Config, error) {
	doc, err := yamlx.Parse(path, data)
	if err != nil {
		return Config{}, err
	}
	c := Config{State: DefaultState, Interval: DefaultInterval, Reports: true}
	if err := doc.Decode(&c); err != nil {
		return Config{}, err
	}
	if err := c.check(doc); err != nil {
		return Config{}, err
	}
	c.complete(dir)
	return c, nil
}

var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

func (c Config) check(doc *yamlx.Document) error {
	switch {
	case len(c.Servers) == 0:
		return doc.Errorf("servers", "no server: name the URL or folder of the publisher's repository under \"servers\"")
	case len(c.Servers) > MaxServers:
		return doc.Errorf("servers", "%d servers, at most %d are allowed", len(c.Servers), MaxServers)
	case c.Root == "":
		return doc.Errorf("root", "no root: name the file with the publisher's root.json under \"root\"")
	case c.State == "":
		return doc.Errorf("state", "no state folder")
	case c.Device != "" && !deviceName.MatchString(c.Device):
		return doc.Errorf("device", "device name %q: 1 to 128 letters, digits and . _ : - are allowed", clip(c.Device))
	case c.Interval < MinInterval || c.Interval > MaxInterval:
		return doc.Errorf("interval", "interval %s is not between %s and %s", c.Interval, MinInterval, MaxInterval)
	case len(c.Products) == 0:
		return doc.Errorf("products", "no product: name what this device runs under \"products\"")
	case len(c.Products) > MaxProducts:
		return doc.Errorf("products", "%d products, at most %d are allowed", len(c.Products), MaxProducts)
	}
	if err := checkOwner(doc, "owner", c.Owner); err != nil {
		return err
	}
	seen := map[string]bool{}
	paths := map[string]bool{}
	for i, p := range c.Products {
		where := fmt.Sprintf("products[%d]", i)
		if err := p.check(doc, where); err != nil {
			return err
		}
		if seen[p.Name] {
			return doc.Errorf(where+".name", "product %q stands twice", p.Name)
		}
		if paths[filepath.Clean(p.Path)] {
			return doc.Errorf(where+".path", "path %q belongs to another product already", p.Path)
		}
		seen[p.Name], paths[filepath.Clean(p.Path)] = true, true
	}
	return nil
}

func (p Product) check(doc *yamlx.Document, where string) error {
	if err := statement.CheckProduct(p.Name); err != nil {
		return doc.Errorf(where+".name", "%w", err)
	}
	h := p.Health
	switch {
	case p.Channel != statement.File && p.Channel != statement.Firmware && p.Channel != statement.Container:
		return doc.Errorf(where+".channel", "channel %q is not file, firmware or container", clip(string(p.Channel)))
	case p.Path == "":
		return doc.Errorf(where, "product %s has no path: name the folder in which it is installed", p.Name)
	case len(p.Lines) > maxLines:
		return doc.Errorf(where+".lines", "%d lines, at most %d are allowed", len(p.Lines), maxLines)
	case slices.ContainsFunc(p.Lines, version.Line.IsZero):
		return doc.Errorf(where+".lines", "an empty line")
	case p.Restart.Service != "" && len(p.Restart.Command) > 0:
		return doc.Errorf(where+".restart", "either a service or a command is restarted, not both")
	case p.Restart.Limit < 0 || p.Restart.Limit > maxDeadline:
		return doc.Errorf(where+".restart.limit", "limit %s is not between 0s and %s", p.Restart.Limit, maxDeadline)
	case h.URL != "" && len(h.Command) > 0:
		return doc.Errorf(where+".health", "either a command or a url says that it is healthy, not both")
	case h.URL != "" && !strings.HasPrefix(h.URL, "http://") && !strings.HasPrefix(h.URL, "https://"):
		return doc.Errorf(where+".health.url", "url %q does not begin with http:// or https://", clip(h.URL))
	case h.URL == "" && len(h.Command) == 0 && (h.Deadline != 0 || h.Interval != 0 || h.Stable != 0):
		return doc.Errorf(where+".health", "neither a command nor a url says when it is healthy")
	case h.Deadline < 0 || h.Deadline > maxDeadline:
		return doc.Errorf(where+".health.deadline", "deadline %s is not between 0s and %s", h.Deadline, maxDeadline)
	case h.Interval < 0 || h.Interval > maxDeadline:
		return doc.Errorf(where+".health.interval", "interval %s is not between 0s and %s", h.Interval, maxDeadline)
	case h.Stable < 0 || h.Stable >= h.deadline():
		return doc.Errorf(where+".health.stable", "stable %s is not shorter than the deadline of %s", h.Stable, h.deadline())
	}
	for name, args := range map[string][]string{"restart": p.Restart.Command, "health": h.Command} {
		if len(args) > 0 && args[0] == "" {
			return doc.Errorf(where+"."+name+".command", "the command is empty")
		}
	}
	if _, err := p.Restart.Args(); err != nil {
		return doc.Errorf(where+".restart.service", "%w", err)
	}
	return checkOwner(doc, where+".owner", p.Owner)
}

func checkOwner(doc *yamlx.Document, where string, o Owner) error {
	if o.Window != nil && o.Window.From == o.Window.To {
		return doc.Errorf(where+".window", "the window is empty: \"from\" and \"to\" are the same")
	}
	return nil
}

func (h Health) deadline() time.Duration {
	if h.Deadline == 0 {
		return defaultDeadline
	}
	return h.Deadline
}

// complete fills in what follows from the rest.
func (c *Config) complete(dir string) {
	c.Root, c.State, c.CA = below(dir, c.Root), below(dir, c.State), below(dir, c.CA)
	for i, s := range c.Servers {
		if !IsURL(s) {
			c.Servers[i] = below(dir, s)
		}
	}
	for i := range c.Products {
		p := &c.Products[i]
		p.Path = below(dir, p.Path)
		if p.Platform == "" {
			p.Platform = runtime.GOOS + "/" + runtime.GOARCH
		}
		p.Health.Deadline = p.Health.deadline()
		if p.Health.Interval == 0 {
			p.Health.Interval = defaultProbe
		}
		for _, args := range [][]string{p.Restart.Command, p.Health.Command} {
			program(dir, args)
		}
		p.Owner = p.Owner.or(c.Owner)
	}
	program(dir, c.Notify)
}

// program makes the relative path of a program, but not the name of one that is looked up, relative to the folder.
func program(dir string, args []string) {
	if len(args) > 0 && strings.ContainsRune(args[0], '/') {
		args[0] = below(dir, args[0])
	}
}

func below(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func (o Owner) or(other Owner) Owner {
	if o.Security == "" {
		o.Security = other.Security
	}
	if o.Feature == "" {
		o.Feature = other.Feature
	}
	if o.Window == nil {
		o.Window = other.Window
	}
	return o
}

// IsURL tells the address of a server from the path of a folder.
func IsURL(server string) bool {
	return strings.HasPrefix(server, "https://") || strings.HasPrefix(server, "http://")
}

// Product returns the configuration of a product.
func (c Config) Product(name string) (Product, error) {
	for _, p := range c.Products {
		if p.Name == name {
			return p, nil
		}
	}
	var names []string
	for _, p := range c.Products {
		names = append(names, p.Name)
	}
	return Product{}, fmt.Errorf("%w: %q; this device has %s", ErrNoProduct, clip(name), strings.Join(names, ", "))
}

// ErrNoProduct reports a product that the configuration does not have.
var ErrNoProduct = errors.New("no such product")
