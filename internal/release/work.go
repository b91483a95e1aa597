// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/journal"
	"github.com/pawl-project/pawl/internal/registry"
)

// The names in the work folder of a release.
const (
	journalFile  = "journal"
	artifactsDir = "artifacts"
	evidenceDir  = "evidence"
	targetsDir   = "targets"
	logFile      = "build.log"
	scanFile     = "scan.json"
	verdictFile  = "verdict.json"
	roleFile     = "role.json"
)

// kept is a file in the work folder that the journal remembers.
type kept struct {
	Name   string        `json:"name"`
	Digest digest.SHA256 `json:"digest"`
	Size   int64         `json:"size"`
}

// keep writes a file into a folder of the work folder.
func (r *run) keep(dir, name string, data []byte) (kept, error) {
	path := filepath.Join(r.dir, dir)
	if err := durable.Mkdir(path, 0o755); err != nil {
		return kept{}, err
	}
	if err := durable.WriteFile(filepath.Join(path, name), data, 0o644); err != nil {
		return kept{}, err
	}
	return kept{Name: name, Digest: digest.Of(data), Size: int64(len(data))}, nil
}

// recall reads a kept file and checks that it is what was kept.
func (r *run) recall(dir string, k kept) ([]byte, error) {
	path := filepath.Join(r.dir, dir, k.Name)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if digest.Of(data) != k.Digest {
		return nil, fmt.Errorf("%w: %s is not what was written", digest.ErrMismatch, path)
	}
	return data, nil
}

// damaged reports that a kept file, or an image in a registry, is gone or changed.
func damaged(err error) bool {
	return errors.Is(err, registry.ErrNotExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, digest.ErrMismatch) || errors.Is(err, digest.ErrSize)
}

// step does a step of the journal and tells the progress. check reads back what an earlier run has left; if that is gone
// or changed, the step is done again.
func step[T any](ctx context.Context, r *run, name string, input any, ensure func(context.Context) (T, error), check func(T) error) (T, error) {
	for attempt := 0; ; attempt++ {
		fresh := false
		result, err := journal.Do(ctx, r.journal, name, input, func(ctx context.Context) (T, error) {
			fresh = true
			r.tell(name, Begun, "")
			return ensure(ctx)
		})
		if err != nil {
			return result, err
		}
		if check != nil {
			err = check(result)
		}
		switch {
		case err != nil && attempt == 0 && !fresh && damaged(err):
			r.tell(name, Noted, "what an earlier run has left is gone or changed, so it is done again")
			if err := r.journal.Strike(ctx, name); err != nil {
				return result, err
			}
			continue
		case err != nil:
			return result, err
		case fresh:
			r.tell(name, Done, "")
		default:
			r.tell(name, Kept, "")
		}
		return result, nil
	}
}

func (r *run) tell(step string, state EventState, text string) {
	r.event(Event{Product: r.product.Name, Step: step, State: state, Text: text})
}

func (r *run) event(ev Event) {
	if r.engine.Progress != nil {
		r.engine.Progress(ev)
	}
}
