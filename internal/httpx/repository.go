// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/pawl-project/pawl/internal/blob"
)

// Repository reads the blobs of a repository over HTTP: of pawl serve, or of any static web server or bucket.
type Repository struct {
	Client *Client
	// Base is the URL of the folder that holds "metadata" and "targets", with or without a slash at its end.
	Base string
}

// Open returns the bytes of name from offset on. A name that the server does not have is blob.ErrNotExist; so is one that
// it forbids, which is how buckets without a listing say the same.
func (r Repository) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, blob.Info, error) {
	if err := blob.CheckName(name); err != nil {
		return nil, blob.Info{}, err
	}
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	body, info, err := r.Client.Open(ctx, strings.TrimSuffix(r.Base, "/")+"/"+strings.Join(parts, "/"), offset)
	switch status := Status(err); {
	case status == http.StatusNotFound || status == http.StatusForbidden || status == http.StatusGone:
		return nil, blob.Info{}, fmt.Errorf("%s: %w (%w)", name, blob.ErrNotExist, err)
	case err != nil:
		return nil, blob.Info{}, err
	}
	return body, blob.Info{Name: name, Size: info.Size, Modified: info.Modified}, nil
}
