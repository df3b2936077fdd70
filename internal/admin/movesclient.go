package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
)

// User returns where a user is.
func (c *Client) User(ctx context.Context, user string) (*User, error) {
	return call[User](ctx, c, http.MethodGet, "/v1/users/"+url.PathEscape(user), nil)
}

// RefreshUser has the lookups asked anew about a user, and returns where the user
// is then.
func (c *Client) RefreshUser(ctx context.Context, user string) (*User, error) {
	return call[User](ctx, c, http.MethodPost, "/v1/users/"+url.PathEscape(user)+"/refresh", nil)
}

// RefreshLookups has the lookups asked anew about all users.
func (c *Client) RefreshLookups(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/lookups/refresh", nil)
	return err
}

// MovedUsers calls each for every user who was moved.
func (c *Client) MovedUsers(ctx context.Context, each func(MovedUser) error) error {
	return eachLine(ctx, c, http.MethodGet, "/v1/users", nil, each)
}

// Move moves a user, or forgets the exception if the request has no shard, and
// calls each for the lines of the answer. If ctx ends before, the move is rolled
// back.
func (c *Client) Move(ctx context.Context, user string, req MoveRequest, each func(MoveStep) error) error {
	verb := "/move"
	if req.Shard == "" {
		verb = "/forget"
	}
	return eachLine(ctx, c, http.MethodPost, "/v1/users/"+url.PathEscape(user)+verb, req, each)
}

// eachLine sends a request whose answer is one JSON object a line, for as long as
// it takes.
func eachLine[T any](ctx context.Context, c *Client, method, path string, body any, each func(T) error) error {
	resp, err := c.send(ctx, method, path, body, &http.Client{Transport: c.http.Transport})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	for {
		var line T
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := each(line); err != nil {
			return err
		}
	}
}
