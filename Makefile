# SPDX-License-Identifier: Apache-2.0
#
# make test         everything that is quick; installs what it needs
# make lint         formatting, vet, staticcheck, shell scripts, cross-builds
# make interop      the tests against foreign programs (cosign, buildah), built or installed first
# make show-spine   each promise of the first capability as one script, against the real parts
# make bench        the figures that the README quotes, each beside its peer
# make build        bin/pawl and bin/pawl-agent as they are shipped

GO ?= go
CACHE := $(CURDIR)/.cache
export PAWL_COSIGN := $(CACHE)/bin/cosign

.PHONY: all build test lint interop show-spine bench clean
all: build test

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/pawl ./cmd/pawl
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -tags agent -o bin/pawl-agent ./cmd/pawl

test:
	tools/need curl openssl git
	$(GO) test ./...

lint:
	tools/need shellcheck
	tools/lint/run

interop: $(PAWL_COSIGN)
	tools/need buildah runc
	$(GO) test -count=1 -tags interop ./internal/interop/...

show-spine: $(PAWL_COSIGN)
	tools/need curl openssl git
	$(GO) test -count=1 -timeout 30m -tags show -run 'TestShow/show_spine_' -v ./cmd/pawl

bench:
	tools/need openssl
	$(GO) test -run '^$$' -bench . -benchtime 3x ./...

$(PAWL_COSIGN): tools/cosign/go.mod tools/cosign/go.sum
	tools/cosign/install $@

clean:
	rm -rf bin .cache
