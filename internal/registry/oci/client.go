// SPDX-License-Identifier: Apache-2.0

// Package oci speaks to OCI registries over HTTPS.
//
// It moves whole images between registries and OCI layouts, always by digest, and attaches and reads their signatures in
// both forms. What a registry says is not trusted: every manifest and blob is hashed and compared with the digest that was
// asked for, sizes are bounded, and a signature counts only if it verifies. A registry can therefore withhold an image; it
// cannot change one.
//
// Credentials come from Docker's configuration and its credential helpers, so `docker login` is all the setup there is.
// Plain HTTP is for loopback addresses only, and redirects never leave HTTPS. Transient errors are tried again a bounded
// number of times; a connection that stalls is cut.
package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/layout"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/registry"
)

// Limits on what a registry may answer and how long it may take.
const (
	connectTime    = 10 * time.Second
	attempts       = 5        // of one request, and of one blob without progress
	blobProgress   = 64 << 10 // bytes after which a blob that breaks off may be tried attempts times again
	maxPause       = 5 * time.Second
	maxHeader      = 64 << 10
	maxRedirects   = 5
	maxPages       = 8   // of a list of referrers
	maxReferrers   = 64  // that are looked at for signatures
	maxManifests   = 256 // of one image, through all its indexes
	maxIndexDepth  = 3
	maxBundleBytes = 64 << 10 // of a bundle that may be an image signature; one has about 700 bytes
	maxMessage     = 300      // bytes of a registry's words in an error
)

// Options adapt a client. The zero value is right for programs.
type Options struct {
	// UserAgent is what registries are told.
	UserAgent string
	// DockerConfig is the folder of Docker's configuration; empty means $DOCKER_CONFIG or ~/.docker.
	DockerConfig string
	// Transport replaces the network; nil means HTTPS with the system's authorities, through the proxy of the environment.
	Transport http.RoundTripper
	// Pause is the pause before the second attempt, doubled for each further one; 0 means 300 ms.
	Pause time.Duration
	// Stall is how long a connection may be silent; 0 means 60 s.
	Stall time.Duration
}

// Client implements registry.Registry. Safe for concurrent use.
type Client struct {
	opt  Options
	auth *auth.Client

	mu    sync.Mutex
	repos map[string]*remote.Repository // by repository; guarded by mu
}

var _ registry.Registry = (*Client)(nil)

// New returns a client. It reads nothing and connects to nobody.
func New(opt Options) *Client {
	if opt.Pause == 0 {
		opt.Pause = 300 * time.Millisecond
	}
	if opt.Stall == 0 {
		opt.Stall = time.Minute
	}
	if opt.Transport == nil {
		opt.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: connectTime}).DialContext,
			TLSHandshakeTimeout:    connectTime,
			MaxResponseHeaderBytes: maxHeader,
			ForceAttemptHTTP2:      true,
			IdleConnTimeout:        time.Minute,
		}
	}
	policy := &retry.GenericPolicy{
		Retryable: retryable,
		Backoff:   retry.ExponentialBackoff(opt.Pause, 2, 0.2),
		MinWait:   opt.Pause / 2,
		MaxWait:   maxPause,
		MaxRetry:  attempts - 1,
	}
	store := sync.OnceValues(func() (credentials.Store, error) { return openStore(opt.DockerConfig) })
	header := http.Header{}
	if opt.UserAgent != "" {
		header.Set("User-Agent", opt.UserAgent)
	}
	return &Client{
		opt:   opt,
		repos: map[string]*remote.Repository{},
		auth: &auth.Client{
			Client: &http.Client{
				Transport: &retry.Transport{
					Base:   &guard{base: opt.Transport, stall: opt.Stall},
					Policy: func() retry.Policy { return policy },
				},
				CheckRedirect: checkRedirect,
			},
			Header: header,
			Cache:  auth.NewCache(),
			Credential: func(ctx context.Context, host string) (auth.Credential, error) {
				s, err := store()
				if err != nil {
					return auth.EmptyCredential, fmt.Errorf("cannot read the credentials of %s: %w", host, err)
				}
				return credentials.Credential(s)(ctx, host)
			},
		},
	}
}

// openStore opens Docker's configuration. A file that is not there holds no credentials.
func openStore(dir string) (credentials.Store, error) {
	var opt credentials.StoreOptions // it is only read
	if dir != "" {
		return credentials.NewStore(dir+"/config.json", opt)
	}
	return credentials.NewStoreFromDocker(opt)
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirect from HTTPS to %s", req.URL.Scheme)
	}
	return nil
}

// retryable is asked after every request. A registry that does not answer at all is not asked again: whoever waits wants
// to know.
func retryable(resp *http.Response, err error) (bool, error) {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" || errors.Is(err, errStalled) {
		return false, nil
	}
	return retry.DefaultPredicate(resp, err)
}

// repo returns the client of one repository. It is kept: it knows whether the registry has the referrers API.
func (c *Client) repo(repository string) (*remote.Repository, error) {
	if err := registry.CheckRepository(repository); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.repos[repository]; ok {
		return r, nil
	}
	r, err := remote.NewRepository(repository)
	if err != nil {
		return nil, fmt.Errorf("repository %q: %w", repository, err)
	}
	r.Client = c.auth
	r.PlainHTTP = registry.IsLoopback(registry.Host(repository))
	r.ManifestMediaTypes = layout.ManifestTypes()
	r.MaxMetadataBytes = layout.MaxManifest
	r.ReferrerListMaxPages = maxPages
	// Nothing is ever deleted: most registries forbid it, and what is unused is the business of their garbage collection.
	r.SkipReferrersGC = true
	c.repos[repository] = r
	return r, nil
}

// Resolve returns what a tag names now.
func (c *Client) Resolve(ctx context.Context, repository, tag string) (registry.Image, error) {
	if err := registry.CheckTag(tag); err != nil {
		return registry.Image{}, err
	}
	// The manifest is hashed here: the digest is not what the registry says in a header.
	_, data, err := c.manifest(ctx, repository, tag)
	if err != nil {
		return registry.Image{}, fmt.Errorf("cannot resolve %s:%s: %w", repository, tag, err)
	}
	return registry.Image{Repository: repository, Digest: digest.Of(data)}, nil
}

// Exists reports whether the registry has the manifest or index.
func (c *Client) Exists(ctx context.Context, img registry.Image) (bool, error) {
	repo, err := c.repo(img.Repository)
	if err != nil {
		return false, err
	}
	_, err = repo.Manifests().Resolve(ctx, img.Digest.String())
	err = explain(img.Repository, err)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, registry.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("cannot look up %s: %w", img, err)
}

// manifest fetches a manifest by tag or digest, and checks it against the digest. The media type is unverified.
func (c *Client) manifest(ctx context.Context, repository, reference string) (mediaType string, data []byte, err error) {
	repo, err := c.repo(repository)
	if err != nil {
		return "", nil, err
	}
	desc, body, err := repo.Manifests().FetchReference(ctx, reference)
	if err != nil {
		return "", nil, explain(repository, err)
	}
	defer body.Close()
	data, err = io.ReadAll(io.LimitReader(body, layout.MaxManifest+1))
	if err != nil {
		return "", nil, explain(repository, err)
	}
	if len(data) > layout.MaxManifest {
		return "", nil, refusal.New(refusal.Malformed, "manifest "+reference, "more than %d bytes", layout.MaxManifest)
	}
	if want, err := digest.Parse(reference); err == nil && digest.Of(data) != want {
		return "", nil, refusal.New(refusal.Digest, "manifest "+reference, "%w: %s sent the bytes of %s", digest.ErrMismatch, registry.Host(repository), digest.Of(data))
	}
	return desc.MediaType, data, nil
}

// image fetches and parses a manifest by digest.
func (c *Client) image(ctx context.Context, img registry.Image) (layout.Manifest, []byte, error) {
	mediaType, data, err := c.manifest(ctx, img.Repository, img.Digest.String())
	if err != nil {
		return layout.Manifest{}, nil, err
	}
	m, err := layout.ParseManifest(mediaType, data)
	return m, data, err
}

// explain turns an error of the transport into one that names the registry and what can be done.
func explain(repository string, err error) error {
	host := registry.Host(repository)
	var (
		answer  *errcode.ErrorResponse
		network net.Error
		refused *refusal.Error
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused), errors.Is(err, context.Canceled), errors.Is(err, errLocal):
		return err
	case errors.Is(err, errStalled):
		return fmt.Errorf("%w: %s: %w", registry.ErrUnreachable, host, errStalled)
	case errors.As(err, &answer):
		text := clean(answer.Errors.Error())
		if len(answer.Errors) == 0 {
			text = http.StatusText(answer.StatusCode)
		}
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return refusal.New(refusal.Unauthorised, "registry "+host, "it does not allow this in %s (status %d: %s)", repository, answer.StatusCode, text).
				Do("log in with `docker login %s` as a user who may read and write %s", host, repository)
		case http.StatusNotFound:
			return fmt.Errorf("%s %w", repository, registry.ErrNotExist)
		case http.StatusTooManyRequests:
			return fmt.Errorf("registry %s asks to come back later (status 429: %s)", host, text)
		}
		return fmt.Errorf("registry %s answers with status %d: %s", host, answer.StatusCode, text)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return refusal.New(refusal.Unauthorised, "registry "+host, "it asks for a user and a password, and there are none").
			Do("log in with `docker login %s` as a user who may read and write %s", host, repository)
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%s %w", repository, registry.ErrNotExist)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("registry %s speaks plain HTTP, which is for loopback addresses only: give it a certificate", host)
	case errors.As(err, &network):
		return fmt.Errorf("%w: %s: %s; check its name, the network and the proxy", registry.ErrUnreachable, host, clean(cause(err).Error()))
	}
	return fmt.Errorf("registry %s: %w", host, err)
}

// cause returns what lies below the layer of net/http, which only repeats the URL.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

// permanent reports whether trying a blob again is in vain.
func permanent(err error) bool {
	var refused *refusal.Error
	return errors.As(err, &refused) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, registry.ErrNotExist) || errors.Is(err, registry.ErrUnreachable) || errors.Is(err, errLocal)
}

// again calls try until it works, fails for good, or has failed attempts times without progress. done returns how many
// bytes are in place.
func (c *Client) again(ctx context.Context, done func() int64, try func() error) error {
	pause, mark := c.opt.Pause, done()
	for left := attempts; ; {
		err := try()
		if err == nil || permanent(err) {
			return err
		}
		if now := done(); now-mark >= blobProgress {
			mark, left, pause = now, attempts, c.opt.Pause
		}
		if left--; left == 0 {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, maxPause)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// clean makes the words of a registry fit for a terminal.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxMessage {
		return text[:maxMessage] + "..."
	}
	return text
}
