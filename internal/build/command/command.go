// SPDX-License-Identifier: Apache-2.0

// Package command runs the manufacturer's own build, and then takes in what it has made.
//
// The program runs without a shell, with the environment that it is given and no more, inside a time limit. Its output
// goes to the build's log.
package command

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/execx"
)

// Builder runs a program.
type Builder struct {
	// Args are the program and its arguments.
	Args []string
	// Dir is the folder to run in.
	Dir string
	// Env is the whole environment of the program.
	Env []string
	// Limit is the longest that it may take.
	Limit time.Duration
	// Then takes in the artifacts.
	Then build.Builder
}

// Build runs the program and takes in what it has made.
func (b Builder) Build(ctx context.Context, in build.Input) ([]build.Artifact, error) {
	err := execx.Run(ctx, execx.Command{Args: b.Args, Dir: b.Dir, Env: b.Env, Log: in.Log, Limit: b.Limit})
	if err != nil {
		return nil, fmt.Errorf("the build did not succeed: %w", err)
	}
	return b.Then.Build(ctx, in)
}

// Check reports a program or folder that is not there.
func (b Builder) Check() error {
	if info, err := os.Stat(b.Dir); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", b.Dir)
	}
	program := b.Args[0]
	if filepath.Base(program) != program && !filepath.IsAbs(program) {
		program = filepath.Join(b.Dir, program)
	}
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("program %s cannot be run: %w", b.Args[0], err)
	}
	return nil
}
