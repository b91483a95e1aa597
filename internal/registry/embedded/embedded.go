// SPDX-License-Identifier: Apache-2.0

// Package embedded runs a real OCI registry inside the process, for the demonstration and for tests.
//
// It is the CNCF distribution registry behind a plain HTTP listener on a loopback address. It asks nobody for a password,
// so it refuses to listen anywhere else. Content lives in memory, or in a folder that a later start serves again. The
// referrers API is not there, as in the releases of that registry: signatures are found through the fallback tag.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // storage in a folder
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"   // storage in memory
	"github.com/sirupsen/logrus"
)

// headerTimeout bounds how long a client may take to send the header of a request.
const headerTimeout = 10 * time.Second

// Options choose where a registry listens and where it keeps its content. The zero value is a port that the system
// chooses on 127.0.0.1, and memory.
type Options struct {
	// Dir is the folder that holds the content. It is created. Empty means memory.
	Dir string
	// Addr is the "host:port" to listen on; the host must be a loopback address.
	Addr string
}

// Registry is a running registry.
type Registry struct {
	host   string
	server *http.Server
	stop   func()
	done   chan error
}

// Start runs a registry until Close.
func Start(ctx context.Context, opt Options) (*Registry, error) {
	if opt.Addr == "" {
		opt.Addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(opt.Addr)
	if err != nil {
		return nil, fmt.Errorf("cannot start registry: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("cannot start registry: %s is not a loopback address, and this registry asks nobody for a password", host)
	}
	handler, stop, err := Handler(opt.Dir)
	if err != nil {
		return nil, err
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", opt.Addr)
	if err != nil {
		stop()
		return nil, fmt.Errorf("cannot start registry: %w", err)
	}
	r := &Registry{
		host:   listener.Addr().String(),
		server: &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout, ErrorLog: log.New(io.Discard, "", 0)},
		stop:   stop,
		done:   make(chan error, 1),
	}
	go func() { r.done <- r.server.Serve(listener) }()
	return r, nil
}

// Host returns "host:port", the first part of the names of its repositories.
func (r *Registry) Host() string { return r.host }

// Close ends the registry: no new requests, those under way until ctx ends.
func (r *Registry) Close(ctx context.Context) error {
	defer r.stop()
	err := r.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, r.server.Close())
	}
	if serr := <-r.done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// Handler returns the registry as a handler, for tests that put something in front of it. Content is kept in dir, or in
// memory if dir is empty. Call stop at the end.
func Handler(dir string) (handler http.Handler, stop func(), err error) {
	// The registry logs through the standard logger of logrus, which nothing else here uses: there is no other way to
	// keep it quiet.
	logrus.SetOutput(io.Discard)
	driver := configuration.Storage{"inmemory": configuration.Parameters{}}
	if dir != "" {
		driver = configuration.Storage{"filesystem": configuration.Parameters{"rootdirectory": dir}}
	}
	driver["maintenance"] = configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}}
	driver["redirect"] = configuration.Parameters{"disable": true}
	config := &configuration.Configuration{Storage: driver}
	config.Log.AccessLog.Disabled = true
	// The constructor panics on what is wrong with its configuration.
	defer func() {
		if p := recover(); p != nil {
			handler, stop, err = nil, nil, fmt.Errorf("cannot start registry: %v", p)
		}
	}()
	app := handlers.NewApp(context.Background(), config)
	return app, func() { _ = app.Shutdown() }, nil // without a proxy behind it, Shutdown has nothing that can fail
}
