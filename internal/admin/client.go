package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// maxAnswer bounds what a Client reads.
const maxAnswer = 64 << 20

// Client speaks to the endpoint of a running proxy.
type Client struct {
	address       string
	base          string // of URLs
	http          http.Client
	authorization func(*http.Request)
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

// WhoAmI returns who the caller is to the endpoint.
func (c *Client) WhoAmI(ctx context.Context) (*Self, error) {
	return call[Self](ctx, c, http.MethodGet, "/v1/whoami", nil)
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

// SetShardState does so for all backends of a shard, and returns them.
func (c *Client) SetShardState(ctx context.Context, shard string, to pool.Operator) (*Backends, error) {
	return call[Backends](ctx, c, http.MethodPost, "/v1/shards/"+url.PathEscape(shard)+"/state", stateRequest{&to})
}

// Pools returns the pools of all backends.
func (c *Client) Pools(ctx context.Context) (*Pools, error) {
	return call[Pools](ctx, c, http.MethodGet, "/v1/pools", nil)
}

// Clients returns the clients of the configuration.
func (c *Client) Clients(ctx context.Context) (*Clients, error) {
	return call[Clients](ctx, c, http.MethodGet, "/v1/clients", nil)
}

// Sessions returns the connections of clients.
func (c *Client) Sessions(ctx context.Context) (*Sessions, error) {
	return call[Sessions](ctx, c, http.MethodGet, "/v1/sessions", nil)
}

// Commands returns the commands that run or wait.
func (c *Client) Commands(ctx context.Context) (*Commands, error) {
	return call[Commands](ctx, c, http.MethodGet, "/v1/commands", nil)
}

// Pauses returns what holds new commands.
func (c *Client) Pauses(ctx context.Context) (*Pauses, error) {
	return call[Pauses](ctx, c, http.MethodGet, "/v1/pauses", nil)
}

// Pause holds new commands.
func (c *Client) Pause(ctx context.Context, req *PauseRequest) (*Done, error) {
	return call[Done](ctx, c, http.MethodPost, "/v1/pause", req)
}

// Unpause lets them go on.
func (c *Client) Unpause(ctx context.Context, scope Scope) (*Done, error) {
	return call[Done](ctx, c, http.MethodPost, "/v1/unpause", scope)
}

// Reconnect replaces the connections to a backend.
func (c *Client) Reconnect(ctx context.Context, backend string) (*Done, error) {
	return call[Done](ctx, c, http.MethodPost, "/v1/backends/"+url.PathEscape(backend)+"/reconnect", struct{}{})
}

// KillSession ends a session.
func (c *Client) KillSession(ctx context.Context, id uint64) (*Done, error) {
	return call[Done](ctx, c, http.MethodPost, fmt.Sprintf("/v1/sessions/%d/kill", id), struct{}{})
}

// KillCommand ends a command.
func (c *Client) KillCommand(ctx context.Context, session, number uint64) (*Done, error) {
	return call[Done](ctx, c, http.MethodPost, fmt.Sprintf("/v1/sessions/%d/commands/%d/kill", session, number), struct{}{})
}

// Reload has the configuration read again.
func (c *Client) Reload(ctx context.Context) (*ReloadResult, error) {
	return call[ReloadResult](ctx, c, http.MethodPost, "/v1/reload", struct{}{})
}

// Plan returns what a reload would change.
func (c *Client) Plan(ctx context.Context) (*Plan, error) {
	return call[Plan](ctx, c, http.MethodGet, "/v1/plan", nil)
}

// LogLevels returns the levels of the log.
func (c *Client) LogLevels(ctx context.Context) (*logs.Levels, error) {
	return call[logs.Levels](ctx, c, http.MethodGet, "/v1/log-level", nil)
}

// SetLogLevel changes the level of a component, or of all without one of their
// own where component is empty, and returns all of them. An empty level takes a
// component's own away.
func (c *Client) SetLogLevel(ctx context.Context, component, level string) (*logs.Levels, error) {
	return call[logs.Levels](ctx, c, http.MethodPost, "/v1/log-level", levelRequest{component, &level})
}

// Tail calls each with the commands as they end, until ctx ends or each returns
// an error. The query has the parameters of GET /v1/tail.
func (c *Client) Tail(ctx context.Context, query url.Values, each func(*Ended) error) error {
	return lines(ctx, c, "/v1/tail?"+query.Encode(), each)
}

// Trace calls each with the pieces of a trace, until its end, the end of ctx, or
// an error of each. The query has the parameters of GET /v1/trace.
func (c *Client) Trace(ctx context.Context, query url.Values, each func(*Wire) error) error {
	return lines(ctx, c, "/v1/trace?"+query.Encode(), each)
}

// lines reads an answer of lines, each within answerTimeout.
func lines[T any](ctx context.Context, c *Client, path string, each func(*T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(answerTimeout, func() { cancel(errors.New("the admin endpoint has fallen silent")) })
	defer silence.Stop()
	resp, err := c.send(ctx, http.MethodGet, path, nil, &http.Client{Transport: c.http.Transport})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		v := new(T)
		if err := d.Decode(v); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		silence.Reset(answerTimeout)
		if err := each(v); err != nil {
			return err
		}
	}
}

// call sends a request whose answer is one value.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	resp, err := c.send(ctx, method, path, body, &c.http)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	v := new(T)
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v); err != nil {
		return nil, fmt.Errorf("what answers at %s is no admin endpoint: %w", c.address, err)
	}
	return v, nil
}

// send returns the answer if it is a success. Its error is a *RefusedError if there
// is another one.
func (c *Client) send(ctx context.Context, method, path string, body any, by *http.Client) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	c.authorization(req)
	resp, err := by.Do(req)
	if err != nil {
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err // without the made up URL
		}
		return nil, c.unreachable(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusedBy(resp)
	}
	return resp, nil
}

// refusedBy returns the error of an answer that is no success.
func refusedBy(resp *http.Response) error {
	var p problem
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if json.Unmarshal(text, &p) != nil || p.Error == "" {
		p.Error = "the admin endpoint answers " + resp.Status
	}
	return &RefusedError{resp.StatusCode, p.Error}
}
