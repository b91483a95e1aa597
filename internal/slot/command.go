// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/pawl-project/pawl/internal/execx"
)

// MaxRestart is how long a restart may take, unless the owner says otherwise.
const MaxRestart = 2 * time.Minute

// Restart makes what has become current run: a system service, or any command. The zero value does nothing. It is run
// again after an interruption, so it must be one that may be done twice.
type Restart struct {
	// Args are a program and its arguments; there is no shell. What the program leaves running is ended with it: a
	// service belongs to a service manager.
	Args []string
	// Limit is how long it may take; zero means MaxRestart.
	Limit time.Duration
	// Env looks up the variables that are handed on (execx.Environ); nil hands on none.
	Env func(string) (string, bool)
	// Log receives what the program prints; nil: nobody.
	Log io.Writer
}

var serviceName = regexp.MustCompile(`^[A-Za-z0-9_:][A-Za-z0-9_.:@\\-]{0,255}$`)

// RestartService returns the command that restarts a systemd service.
func RestartService(name string) ([]string, error) {
	if !serviceName.MatchString(name) {
		return nil, fmt.Errorf("service name %q: letters, digits and _ : . @ \\ - are allowed, not first . @ or -", name)
	}
	return []string{"systemctl", "restart", name}, nil
}

// Run restarts with the variables in set.
func (r Restart) Run(ctx context.Context, set map[string]string) error {
	if len(r.Args) == 0 {
		return nil
	}
	env := r.Env
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	limit := r.Limit
	if limit == 0 {
		limit = MaxRestart
	}
	if err := execx.Run(ctx, execx.Command{Args: r.Args, Env: execx.Environ(env, nil, set), Log: r.Log, Limit: limit}); err != nil {
		return fmt.Errorf("cannot restart: %w", err)
	}
	return nil
}
