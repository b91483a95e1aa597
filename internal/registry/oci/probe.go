// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	json "github.com/go-json-experiment/json"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/pawl-project/pawl/internal/registry"
)

// Probe begins an upload and gives it up (distribution specification, "Pushing blobs"): a registry answers that only to
// somebody who may write.
func (c *Client) Probe(ctx context.Context, repository string) error {
	err := c.probe(ctx, repository)
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", repository, explain(repository, err))
	}
	return nil
}

func (c *Client) probe(ctx context.Context, repository string) error {
	repo, err := c.repo(repository)
	if err != nil {
		return err
	}
	ctx = auth.AppendRepositoryScope(ctx, repo.Reference, auth.ActionPull, auth.ActionPush)
	base := url.URL{Scheme: "https", Host: repo.Reference.Host()}
	if repo.PlainHTTP {
		base.Scheme = "http"
	}
	start := base.JoinPath("v2", repo.Reference.Repository, "blobs", "uploads")
	start.Path += "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, start.String(), nil)
	if err != nil {
		return err
	}
	resp, err := c.auth.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return answerOf(resp)
	}
	// An upload that nobody gives up is given up by the registry after a while, so this need not work.
	where, err := start.Parse(resp.Header.Get("Location"))
	if err != nil || where.Host != base.Host || where.Scheme != base.Scheme {
		return nil
	}
	if req, err = http.NewRequestWithContext(ctx, http.MethodDelete, where.String(), nil); err != nil {
		return nil
	}
	if resp, err = c.auth.Do(req); err == nil {
		resp.Body.Close()
	}
	return ctx.Err()
}

// answerOf reads what a registry says about a request that it refuses (distribution specification, "Error Codes").
func answerOf(resp *http.Response) error {
	answer := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.UnmarshalRead(io.LimitReader(resp.Body, maxHeader), &body) == nil {
		for _, e := range body.Errors {
			answer.Errors = append(answer.Errors, errcode.Error{Code: e.Code, Message: e.Message})
		}
	}
	return answer
}

var _ registry.Prober = (*Client)(nil)
