package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func newExplain() *cobra.Command {
	var path, client, from string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain --config FILE|DIR --client NAME [--from ADDR] USER COMMAND ARGS...",
		Short: "Print what would become of a command, and by which rule",
		Long: `Asks the rights and the routes of a configuration, without a running daemon and
without running anything: which allow or deny block decides and why, which shard
and backend the user has, and which timeouts apply. The exit code is 1 if the
command would not be sent to a backend.

NAME is that of a client block. Without --from the client comes by a UNIX socket.
COMMAND is one word or several ("mailbox list"); an empty USER is "".`,
		Example: `  doveadm-proxy explain -c /etc/doveadm-proxy --client panel --from 10.0.0.5 alice@example.com mailbox list`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return &exitError{exitUsage, fmt.Errorf("explain: USER and COMMAND are needed")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q := question{client: client, from: from, user: args[0], words: args[1:]}
			if _, err := q.address(); err != nil {
				return &exitError{exitUsage, fmt.Errorf("explain: --from: %w", err)}
			}
			cfg, err := load(cmd.ErrOrStderr(), path)
			if err != nil {
				return err
			}
			explainer, err := proxy.NewExplainer(cfg)
			if err != nil {
				return &exitError{exitNo, err}
			}
			defer explainer.Close()
			if !explainer.HasClient(client) {
				return &exitError{exitNo, fmt.Errorf("explain: the configuration has no client %q", client)}
			}
			return explain(cmd.OutOrStdout(), explainer.Explain(context.Background(), q.question()), q, asJSON)
		},
	}
	configFlag(cmd, &path)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&client, "client", "", "`NAME` of the client block")
	cmd.MarkFlagRequired("client")
	cmd.Flags().StringVar(&from, "from", "", "`ADDR` of the client")
	// What stands behind USER are the options of COMMAND.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// question is a command as it is written on a command line or in a file.
type question struct {
	client, from, user string
	words              []string // of the command, and its arguments
}

// address is that of the client, invalid for a UNIX socket.
func (q question) address() (netip.Addr, error) {
	if q.from == "" || q.from == unixPeer {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(q.from)
}

func (q question) question() proxy.Question {
	from, _ := q.address()
	return proxy.Question{
		Client:  q.client,
		From:    from,
		Command: doveadm.Command{User: q.user, Name: q.words[0], Args: q.words[1:]},
	}
}

// explained is an explanation in JSON.
type explained struct {
	Allowed   bool               `json:"allowed"`
	Client    string             `json:"client"`
	User      string             `json:"user"`
	Command   string             `json:"command"`
	Rule      string             `json:"rule"`             // empty: none decided
	Status    string             `json:"status,omitempty"` // instead of a reply
	Reason    string             `json:"reason,omitempty"`
	Rules     []explainedRule    `json:"rules"`
	Right     string             `json:"right"`
	Dangers   []string           `json:"dangers"`
	OtherUser string             `json:"other_user,omitempty"`
	Everyone  bool               `json:"everyone"`
	Shard     string             `json:"shard"` // empty: none
	Route     string             `json:"route,omitempty"`
	RouteWhy  string             `json:"route_reason,omitempty"`
	Backends  []explainedBackend `json:"backends"`
	Timeouts  map[string]string  `json:"timeouts"` // of the client's side
}

type explainedRule struct {
	Rule    string `json:"rule"`
	Decides bool   `json:"decides"`
	Why     string `json:"why"`
}

type explainedBackend struct {
	Name     string            `json:"name"`
	Address  string            `json:"address"`
	Timeouts map[string]string `json:"timeouts"`
}

func explain(w io.Writer, x proxy.Explanation, q question, asJSON bool) error {
	e := newExplained(x, q)
	var err error
	if asJSON {
		err = writeJSON(w, e)
	} else {
		e.print(w)
	}
	if err == nil && !x.Allowed {
		err = &exitError{code: exitNo}
	}
	return err
}

func newExplained(x proxy.Explanation, q question) explained {
	e := explained{
		Allowed: x.Allowed, Client: q.client, User: q.user, Command: x.Command, Rule: x.Rule, Status: x.Status, Reason: x.Reason,
		Rules: []explainedRule{}, Right: x.Info.Right.String(), Dangers: append([]string{}, x.Effects.Danger.Names()...),
		OtherUser: x.Effects.OtherUser, Everyone: x.Effects.Everyone,
		Shard: x.Shard, Route: x.Route, RouteWhy: x.RouteReason, Backends: []explainedBackend{},
		Timeouts: map[string]string{"limits.write_timeout": limit(x.Limits.WriteTimeout)},
	}
	if x.Info.Input {
		e.Timeouts["limits.input_timeout"] = limit(x.Limits.InputTimeout)
	}
	for _, f := range x.Findings {
		e.Rules = append(e.Rules, explainedRule(f))
	}
	class := x.Info.Class()
	for _, b := range x.Backends {
		own := b.Timeouts.Normal
		switch class {
		case doveadm.ClassQuick:
			own = b.Timeouts.Quick
		case doveadm.ClassSlow:
			own = b.Timeouts.Slow
		}
		prefix := "timeouts." + class.String()
		timeouts := map[string]string{
			"pool.acquire_timeout":  limit(b.Pool.AcquireTimeout),
			"timeouts.connect":      limit(b.Timeouts.Connect),
			"timeouts.handshake":    limit(b.Timeouts.Handshake),
			"timeouts.write":        limit(b.Timeouts.Write),
			prefix + ".first_reply": limit(own.FirstReply),
			prefix + ".reply":       limit(own.Reply),
			prefix + ".command":     limit(own.Command),
		}
		if x.Info.Tunnel {
			timeouts["timeouts.tunnel"] = limit(b.Timeouts.Tunnel)
		}
		e.Backends = append(e.Backends, explainedBackend{b.Name, b.Address, timeouts})
	}
	return e
}

func limit(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

// print writes one thing a line.
func (e explained) print(w io.Writer) {
	what := fmt.Sprintf("%s for user %q by client %s", e.Command, e.User, e.Client)
	if e.Allowed {
		fmt.Fprintf(w, "allowed: %s, by %s\n", what, e.Rule)
	} else {
		fmt.Fprintf(w, "not sent: %s\n  status %s: %s\n", what, e.Status, e.Reason)
	}
	for _, r := range e.Rules {
		fmt.Fprintf(w, "  rule %s %s\n", r.Rule, r.Why)
	}
	fmt.Fprintf(w, "  needs %s", e.Right)
	if len(e.Dangers) > 0 {
		fmt.Fprintf(w, ", dangers: %s", strings.Join(e.Dangers, ", "))
	}
	if e.OtherUser != "" {
		fmt.Fprintf(w, ", also works on user %q", e.OtherUser)
	}
	if e.Everyone {
		fmt.Fprint(w, ", may concern any user")
	}
	fmt.Fprintln(w)
	switch {
	case e.Shard == "":
		fmt.Fprintln(w, "  no shard")
	case e.Route == "":
		fmt.Fprintf(w, "  shard %s, the only one\n", e.Shard)
	default:
		fmt.Fprintf(w, "  shard %s by route %s: %s\n", e.Shard, e.Route, e.RouteWhy)
	}
	for _, b := range e.Backends {
		fmt.Fprintf(w, "  backend %s (%s)\n", b.Name, b.Address)
		printTimeouts(w, b.Timeouts)
	}
	fmt.Fprintln(w, "  client")
	printTimeouts(w, e.Timeouts)
}

func printTimeouts(w io.Writer, timeouts map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(timeouts)) {
		fmt.Fprintf(w, "    %s %s\n", name, timeouts[name])
	}
}
