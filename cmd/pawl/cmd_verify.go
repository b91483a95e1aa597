// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/catalog"
	"github.com/pawl-project/pawl/internal/registry"
	"github.com/pawl-project/pawl/internal/registry/oci"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/verify"
	"github.com/pawl-project/pawl/internal/version"
)

// verifyOptions are the flags of "pawl verify".
type verifyOptions struct {
	repo    string
	root    string
	product string
	release string
	ca      string
	offline bool
	key     string
	bundle  string
}

func newVerifyCommand(a *app) *cobra.Command {
	var opt verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [FILE | IMAGE]",
		Short: "Check a file, an image or a release, and print what proved it",
		Long: `Check a file, an image or a whole release as a stranger would, starting from nothing but a root.

Every check is listed with its outcome and with what proved it: the root that was given, the
freshness of the catalogue, the signature of the release key over the statement, the bytes, the
signature in the form that cosign checks, the SBOM and the verdict of the gate. A check that could
not be made reads NOT PROVEN and does not count as passed.

The repository is a server or a folder; an exported folder works without a network. In a folder
with a pawl.yaml, --repo and --root need not be given. With --key and --bundle a single signature
is checked, as "cosign verify-blob" does, without any repository.`,
		Example: `  # a file that somebody downloaded, against the server of its maker
  pawl verify greeter --repo https://updates.example.com --root root.json

  # a whole release, from a stick, without a network
  pawl verify --release greeter@1.0.1 --repo /media/stick/repository --root root.json

  # an image
  pawl verify registry.example.com/acme/greeter:1.0.1 --repo https://updates.example.com --root root.json

  # one signature, without a repository
  pawl verify greeter --key release-greeter.pub --bundle greeter.sigstore.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := a.verify(cmd.Context(), opt, args)
			if err != nil {
				return err
			}
			a.report(result, result.Text)
			return result.Err()
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opt.repo, "repo", "", "repository: URL of a server, or a folder")
	flags.StringVar(&opt.root, "root", "", "root.json of the publisher, received out of band")
	flags.StringVar(&opt.product, "product", "", "the product that it should be of; default: whichever has it")
	flags.StringVar(&opt.release, "release", "", "check a whole release: PRODUCT@VERSION, or PRODUCT for the newest")
	flags.StringVar(&opt.ca, "ca", "", "PEM file with further certificate authorities for the server")
	flags.BoolVar(&opt.offline, "offline", false, "ask no registry; what only a registry can show is then not proven")
	flags.StringVar(&opt.key, "key", "", "public key, to check one signature without a repository")
	flags.StringVar(&opt.bundle, "bundle", "", "Sigstore bundle of FILE, together with --key")
	return cmd
}

func (a *app) verify(ctx context.Context, opt verifyOptions, args []string) (*verify.Result, error) {
	switch {
	case (opt.key == "") != (opt.bundle == ""):
		return nil, usagef("--key and --bundle belong together")
	case opt.release == "" && len(args) == 0:
		return nil, usagef("nothing to verify: give a FILE, an IMAGE or --release PRODUCT@VERSION")
	case opt.release != "" && len(args) > 0:
		return nil, usagef("either --release or a FILE or IMAGE can be verified at once")
	}
	if opt.key != "" {
		return verifyBundle(opt, args[0])
	}
	if opt.repo == "" && opt.root == "" {
		var err error
		if opt.repo, opt.root, err = a.projectRepository(); err != nil {
			return nil, err
		}
	}
	if opt.repo == "" || opt.root == "" {
		return nil, usagef("--repo and --root are needed: who publishes, and the root that the publisher gave out of band")
	}
	root, err := readSmall(opt.root)
	if err != nil {
		return nil, fmt.Errorf("cannot read the root: %w", err)
	}
	src, err := a.openSource(opt.repo, opt.ca)
	if err != nil {
		return nil, err
	}
	var images verify.Images
	if !opt.offline {
		images = oci.New(oci.Options{UserAgent: "pawl/" + readBuildInfo().Version})
	}
	refresh := catalog.Options{Now: a.now(), Root: root}
	if opt.product != "" {
		refresh.Products = []string{opt.product}
	}
	v, first := verify.Open(ctx, src, catalog.Memory{}, refresh, images)
	if v == nil {
		return first, nil
	}
	if opt.release != "" {
		product, text, _ := strings.Cut(opt.release, "@")
		var ver version.Version
		if text != "" {
			if ver, err = version.Parse(text); err != nil {
				return nil, usageError{err}
			}
		}
		return v.Release(ctx, product, ver), nil
	}
	return a.verifyArgument(ctx, v, opt.product, args[0])
}

// verifyArgument checks a file if there is one of that name, and an image otherwise.
func (a *app) verifyArgument(ctx context.Context, v *verify.Verifier, product, name string) (*verify.Result, error) {
	file, err := os.Open(name)
	switch {
	case err == nil:
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			return nil, usagef("%s is a folder: give a file, an image or --release", name)
		}
		update, done := a.bar("hashing", info.Size())
		defer done()
		return v.File(ctx, name, product, &countingReader{src: file, update: update}), nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	ref, refErr := registry.ParseReference(name)
	if refErr != nil || !strings.ContainsAny(name, ":@") {
		return nil, fmt.Errorf("%w, and the name is no image with a registry and a tag or digest", err)
	}
	return v.Image(ctx, ref, product), nil
}

func verifyBundle(opt verifyOptions, name string) (*verify.Result, error) {
	pub, err := readSmall(opt.key)
	if err != nil {
		return nil, fmt.Errorf("cannot read the public key: %w", err)
	}
	key, err := sign.ParsePublicKey(pub)
	if err != nil {
		return nil, usagef("%s: %w", opt.key, err)
	}
	text, err := readSmall(opt.bundle)
	if err != nil {
		return nil, fmt.Errorf("cannot read the bundle: %w", err)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return verify.Blob(name, file, text, []*ecdsa.PublicKey{key}), nil
}

// maxSmall bounds roots, keys and bundles on the command line, in bytes.
const maxSmall = 1 << 20

func readSmall(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		err = fmt.Errorf("%s: more than %d bytes", path, maxSmall)
	}
	return data, err
}

// countingReader tells a progress bar how far it is.
type countingReader struct {
	src    io.Reader
	n      int64
	update func(int64)
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.n += int64(n)
	r.update(r.n)
	return n, err
}
