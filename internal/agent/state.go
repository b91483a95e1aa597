// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/fault"
	"github.com/pawl-project/pawl/internal/statement"
	"github.com/pawl-project/pawl/internal/store"
	"github.com/pawl-project/pawl/internal/update"
	"github.com/pawl-project/pawl/internal/version"
)

// stateFormat is the version of the format of docs/spec/agent-state.md.
const stateFormat = 1

// Limits of what is remembered about a product.
const (
	maxState   = 4 << 20 // bytes of the file
	maxReports = 64      // that wait for a server
	maxNotices = 32      // that wait for the owner's program
	maxTold    = 64      // releases that the owner has been told of
	// maxTrials is how often a release may be interrupted while it is tried: one that takes the device down with it is put
	// back in the end.
	maxTrials = 3
)

// Phase is where the installation of a release stands.
type Phase string

// The phases. Each is on the disk before the effect that it announces.
const (
	Idle       Phase = "idle"
	Staging    Phase = "staging"    // bytes are coming in; nothing else is touched
	Staged     Phase = "staged"     // verified beside what runs
	Activating Phase = "activating" // is being made what runs
	Trial      Phase = "trial"      // runs and has to show that it works
	Confirming Phase = "confirming" // works; what is older is let go
	Reverting  Phase = "reverting"  // does not work; the previous one is being put back
)

// state is everything that the agent remembers about a product. It is one file, replaced in one rename, so it never
// contradicts itself.
type state struct {
	Format  int    `json:"format"`
	Product string `json:"product"`
	Phase   Phase  `json:"phase"`
	// Reason says why a release is being put back, in words that may leave the device; Detail is for the owner.
	Reason    string     `json:"reason,omitzero"`
	Detail    string     `json:"detail,omitzero"`
	Installed *installed `json:"installed,omitzero"`
	Previous  *installed `json:"previous,omitzero"`
	// Candidate is what is being installed; nil when Phase is idle.
	Candidate *candidate      `json:"candidate,omitzero"`
	Floor     update.Floor    `json:"floor"`
	Failed    []digest.SHA256 `json:"failed,omitempty"`
	// SignedTime is the latest time that a publisher has signed while the clock was behind it.
	SignedTime time.Time `json:"signedTime,omitzero"`
	Told       []told    `json:"told,omitempty"`
	// SupportTold is the state of support that the owner was told last.
	SupportTold update.Support `json:"supportTold,omitzero"`
	// Notices and Reports wait to be delivered.
	Notices []Notice       `json:"notices,omitempty"`
	Reports []store.Report `json:"reports,omitempty"`
	// Check is the outcome of the last look at the servers.
	Check *lastCheck `json:"check,omitzero"`
}

// installed is a release that runs or ran.
type installed struct {
	Version         version.Version `json:"version"`
	Digest          digest.SHA256   `json:"digest"`
	SecurityVersion uint32          `json:"securityVersion"`
	SupportEnd      string          `json:"supportEnd,omitzero"`
	// Confirmed says that it has shown that it works.
	Confirmed bool `json:"confirmed"`
	// Found says that it was found running and that its statement has not been read yet.
	Found bool      `json:"found,omitzero"`
	At    time.Time `json:"at"`
}

// candidate is a release on its way. The statement is kept whole: what was begun is finished without a server.
type candidate struct {
	Statement jsontext.Value `json:"statement"`
	Artifact  string         `json:"artifact"`
	Security  bool           `json:"security"`
	Trials    int            `json:"trials,omitzero"`
}

// told is a release that the owner knows of. Reminder counts the postponements that were over by then.
type told struct {
	Digest   digest.SHA256 `json:"digest"`
	Reminder int           `json:"reminder,omitzero"`
}

type lastCheck struct {
	At     time.Time     `json:"at"`
	Class  string        `json:"class,omitzero"` // of the refusal
	Error  string        `json:"error,omitzero"`
	Offers []OfferStatus `json:"offers,omitempty"`
}

// payload returns the release and the artifact of a candidate.
func (c candidate) payload() (statement.Release, statement.Artifact, error) {
	r, err := statement.Decode(c.Statement)
	if err != nil {
		return statement.Release{}, statement.Artifact{}, err
	}
	for _, a := range r.Artifacts {
		if a.Name == c.Artifact {
			return r, a, nil
		}
	}
	return statement.Release{}, statement.Artifact{}, fmt.Errorf("release %s has no artifact %q", r.Version, c.Artifact)
}

// errDamaged reports a state file that no crash can have left behind.
var errDamaged = errors.New("state is damaged")

func (e *Engine) folder(product string) string {
	return filepath.Join(e.opt.Config.State, "products", product)
}

func (e *Engine) statePath(product string) string {
	return filepath.Join(e.folder(product), "state.json")
}

// load reads the state of a product. What was never written is the state of a device that has just been set up.
func (e *Engine) load(p Product) (*state, error) {
	fresh := &state{Format: stateFormat, Product: p.Name, Phase: Idle, Floor: update.Floor{Security: p.Floor}}
	data, err := readFile(e.statePath(p.Name), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the state of %s: %w", p.Name, err)
	}
	s, err := decodeState(p.Name, data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the state of %s: %w", p.Name, err)
	}
	// A floor that was set in the factory holds whatever the file says.
	if s.Floor.Epoch == 0 {
		s.Floor.Security = max(s.Floor.Security, p.Floor)
	}
	return s, nil
}

func decodeState(product string, data []byte) (*state, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if head.Format > stateFormat {
		return nil, fmt.Errorf("it is of format %d, this program knows %d: install the newer program again", head.Format, stateFormat)
	}
	var s state
	if err := json.Unmarshal(data, &s, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	switch {
	case s.Format != stateFormat:
		return nil, fmt.Errorf("%w: format %d", errDamaged, s.Format)
	case s.Product != product:
		return nil, fmt.Errorf("%w: it is of product %q", errDamaged, clip(s.Product))
	case s.Installed != nil && (s.Installed.Version.IsZero() || s.Installed.Digest.IsZero()):
		return nil, fmt.Errorf("%w: something without a name is installed", errDamaged)
	}
	switch s.Phase {
	case Idle:
		s.Candidate = nil
	case Staging, Staged, Activating, Trial, Confirming, Reverting:
		if s.Candidate == nil {
			return nil, fmt.Errorf("%w: phase %s without a candidate", errDamaged, s.Phase)
		}
		if _, _, err := s.Candidate.payload(); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	default:
		return nil, fmt.Errorf("%w: phase %q", errDamaged, clip(string(s.Phase)))
	}
	return &s, nil
}

func (s *state) encode() ([]byte, error) {
	s.Told = s.Told[max(0, len(s.Told)-maxTold):]
	s.Notices = s.Notices[max(0, len(s.Notices)-maxNotices):]
	s.Reports = s.Reports[max(0, len(s.Reports)-maxReports):]
	data, err := json.Marshal(s, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	if len(data) > maxState {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), maxState)
	}
	return append(data, '\n'), nil
}

// save makes the state durable.
func (e *Engine) save(ctx context.Context, s *state) error {
	data, err := s.encode()
	if err == nil {
		if old, rerr := readFile(e.statePath(s.Product), maxState); rerr == nil && bytes.Equal(old, data) {
			return nil // what does not change does not wear out the flash
		}
		err = fault.Around(ctx, "agent.state."+string(s.Phase), func() error {
			if err := durable.Mkdir(e.folder(s.Product), 0o755); err != nil {
				return err
			}
			return durable.WriteFile(e.statePath(s.Product), data, 0o644)
		})
	}
	if err != nil {
		return fmt.Errorf("cannot write the state of %s: %w", s.Product, err)
	}
	return nil
}

// deviceName returns the name under which the device reports.
func (e *Engine) deviceName() (string, error) {
	if e.opt.Config.Device != "" {
		return e.opt.Config.Device, nil
	}
	path := filepath.Join(e.opt.Config.State, "device-id")
	data, err := readFile(path, 1<<10)
	if err == nil {
		if name := string(bytes.TrimSpace(data)); deviceName.MatchString(name) {
			return name, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name := e.opt.NewID()
	return name, durable.WriteFile(path, []byte(name+"\n"), 0o644)
}

// readFile returns the bytes of a small file.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return data, nil
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
