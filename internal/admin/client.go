package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// maxAnswer bounds what a Client reads.
const maxAnswer = 64 << 20

// Client speaks to the endpoint of a running proxy.
type Client struct {
	address string
	http    http.Client
}

// NewClient returns a client of the endpoint at an address as the admin block
// has it: host:port, or unix: and a path.
func NewClient(address string) (*Client, error) {
	network, dial := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, dial = "unix", path
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%s: the path of a socket begins with a slash", address)
		}
	} else if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("%s: use host:port or unix:/path", address)
	}
	c := &Client{address: address}
	c.http.Timeout = answerTimeout
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, dial)
		},
	}
	return c, nil
}

// RefusedError is an answer of the endpoint that is no success.
type RefusedError struct {
	Code int    // of HTTP
	What string // in words
}

func (e *RefusedError) Error() string { return e.What }

// Status returns the state of the process.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Backends returns all backends.
func (c *Client) Backends(ctx context.Context) (*Backends, error) {
	return call[Backends](ctx, c, http.MethodGet, "/v1/backends", nil)
}

// SetState says what an operator wants of a backend, and returns the backend
// as it is then.
func (c *Client) SetState(ctx context.Context, backend string, to pool.Operator) (*Backend, error) {
	return call[Backend](ctx, c, http.MethodPost, "/v1/backends/"+url.PathEscape(backend)+"/state", stateRequest{&to})
}

// call sends a request. Its error is a *RefusedError if there is an answer.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err // without the made up URL
		}
		return nil, fmt.Errorf("no admin endpoint answers at %s (is the proxy running, and is there an admin block in its configuration?): %w", c.address, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var p problem
		if json.Unmarshal(text, &p) != nil || p.Error == "" {
			p.Error = "the admin endpoint answers " + resp.Status
		}
		return nil, &RefusedError{resp.StatusCode, p.Error}
	}
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("what answers at %s is no admin endpoint: %w", c.address, err)
	}
	return v, nil
}
