package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

func newRouteDiff() *cobra.Command {
	var old, path string
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff --old FILE|DIR --config FILE|DIR [--users FILE]",
		Short: "Print which users another configuration would move",
		Long: `Reads users, one a line, from a file or from standard input, asks the routes of
both configurations for each, and prints how many would move from which shard to
which. With --list it prints the users who would move, a line each: user, shard
before, shard after, and the routes that say so, separated by tabs.

The exit code is 0 if nobody moves, 1 if somebody does, and 75 if a route could not
find out its answer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return diffConfigs(cmd, old, path, o, func(c *config.Config) []config.Route { return c.Routes })
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&old, "old", "", "the configuration `FILE|DIR` before")
	cmd.MarkFlagRequired("old")
	cmd.MarkFlagFilename("old", "hcl")
	o.flags(cmd, "-")
	return cmd
}

func newRing() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ring",
		Short: "What the rings of a configuration do",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return &exitError{exitUsage, errors.New("ring: say diff")} },
	}
	cmd.AddCommand(newRingDiff())
	return cmd
}

func newRingDiff() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff OLD NEW [--users FILE]",
		Short: "Print whom a change of the ring moves",
		Long: `Asks the rings of two configurations (their other routes are left out) for the
same users and prints how many move from which shard to which. Without --users
it asks for a sample of made-up users, which gives the shares that any large
number of users has. With --list it prints the users who move, a line each.

The exit code is 0 if nobody moves, 1 if somebody does.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return &exitError{exitUsage, errors.New("ring diff: name two configurations: OLD and NEW")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return diffConfigs(cmd, args[0], args[1], o, func(c *config.Config) []config.Route {
				return slices.DeleteFunc(slices.Clone(c.Routes), func(r config.Route) bool { return r.Kind != "ring" })
			})
		},
	}
	o.flags(cmd, "")
	cmd.Flags().IntVar(&o.sample, "sample", 1_000_000, "`N` made-up users, without --users")
	return cmd
}

// diffOptions say for whom and how a diff is made.
type diffOptions struct {
	users        string // a file, or - for standard input; empty: made up
	sample       int
	list, asJSON bool
}

func (o *diffOptions) flags(cmd *cobra.Command, users string) {
	cmd.Flags().StringVar(&o.users, "users", users, "`FILE` of users, one a line; - for standard input")
	cmd.MarkFlagFilename("users")
	cmd.Flags().BoolVar(&o.list, "list", false, "print each user who moves")
	jsonFlag(cmd, &o.asJSON)
}

// diffConfigs compares two configurations as far as routes selects.
func diffConfigs(cmd *cobra.Command, oldPath, newPath string, o diffOptions, routes func(*config.Config) []config.Route) error {
	var d diff
	for _, side := range []struct {
		path string
		to   **decider
	}{{oldPath, &d.old}, {newPath, &d.new}} {
		cfg, err := load(cmd.ErrOrStderr(), side.path)
		if err != nil {
			return err
		}
		selected := *cfg
		if selected.Routes = routes(cfg); len(selected.Routes) == 0 {
			return &exitError{exitNo, fmt.Errorf("%s has no ring", side.path)}
		}
		if *side.to, err = newDecider(&selected); err != nil {
			return &exitError{exitNo, fmt.Errorf("%s: %w", side.path, err)}
		}
		defer (*side.to).table.Close()
	}
	users := cmd.InOrStdin()
	switch o.users {
	case "-":
	case "":
		users = &madeUp{left: o.sample}
	default:
		f, err := os.Open(o.users)
		if err != nil {
			return &exitError{exitNo, err}
		}
		defer f.Close()
		users = f
	}
	return d.run(cmd.Context(), users, cmd.OutOrStdout(), o)
}

// diff compares the decisions of two configurations.
type diff struct{ old, new *decider }

// tally is how many users went which way.
type tally struct {
	users  int
	failed int
	error  string // the first that failed
	pairs  map[pair]int
	before map[string]int
	after  map[string]int
}

type pair struct{ from, to string }

func newTally() *tally {
	return &tally{pairs: make(map[pair]int), before: make(map[string]int), after: make(map[string]int)}
}

// movedUser is a line of --list.
type movedUser struct {
	User     string `json:"user"`
	From     string `json:"from"` // empty: no shard
	To       string `json:"to"`
	OldRoute string `json:"old_route"`
	NewRoute string `json:"new_route"`
}

func (d *diff) run(ctx context.Context, users io.Reader, stdout io.Writer, o diffOptions) error {
	var tallies []*tally
	made := make(chan *tally)
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for t := range made {
			tallies = append(tallies, t)
		}
	}()
	err := eachLine(ctx, users, stdout, func() func(context.Context, []byte, string) []byte {
		t := newTally()
		made <- t
		return func(ctx context.Context, dst []byte, user string) []byte {
			moved, ok := d.compare(ctx, t, user)
			switch {
			case !ok || !o.list:
			case o.asJSON:
				line, err := json.Marshal(moved)
				if err != nil {
					panic(err) // it is only text
				}
				dst = append(append(dst, line...), '\n')
			default:
				for i, column := range []string{moved.User, moved.From, moved.To, moved.OldRoute, moved.NewRoute} {
					if i > 0 {
						dst = append(dst, '\t')
					}
					dst = appendColumn(dst, column)
				}
				dst = append(dst, '\n')
			}
			return dst
		}
	})
	close(made)
	<-collected
	if err != nil {
		return &exitError{exitNo, err}
	}
	sum := newTally()
	for _, t := range tallies {
		sum.add(t)
	}
	if !o.list {
		if err := sum.print(stdout, o.asJSON); err != nil {
			return err
		}
	}
	switch {
	case sum.failed > 0:
		return &exitError{exitTempFail, fmt.Errorf("for %d users a route could not find out its answer: %s", sum.failed, sum.error)}
	case sum.moved() > 0:
		return &exitError{code: exitNo}
	}
	return nil
}

// compare asks both configurations for a user and reports whether it moves.
func (d *diff) compare(ctx context.Context, t *tally, user string) (movedUser, bool) {
	var places [2]router.Decision
	for i, side := range []*decider{d.old, d.new} {
		decision, err := side.table.Route(ctx, user)
		if err != nil && !errors.Is(err, router.ErrNoRoute) {
			t.failed++
			t.error = cmp.Or(t.error, err.Error())
			return movedUser{}, false
		}
		places[i] = decision
	}
	t.users++
	from, to := places[0].Shard, places[1].Shard
	t.before[from]++
	t.after[to]++
	if from == to {
		return movedUser{}, false
	}
	t.pairs[pair{from, to}]++
	return movedUser{user, from, to, places[0].Route, places[1].Route}, true
}

func (t *tally) add(other *tally) {
	t.users += other.users
	t.failed += other.failed
	t.error = cmp.Or(t.error, other.error)
	for p, n := range other.pairs {
		t.pairs[p] += n
	}
	for shard, n := range other.before {
		t.before[shard] += n
	}
	for shard, n := range other.after {
		t.after[shard] += n
	}
}

func (t *tally) moved() int {
	n := 0
	for _, users := range t.pairs {
		n += users
	}
	return n
}

// diffed is what --json prints.
type diffed struct {
	Users  int         `json:"users"`
	Failed int         `json:"failed"`
	Moved  int         `json:"moved"`
	Share  float64     `json:"share"` // of the users who move
	Pairs  []diffPair  `json:"pairs"`
	Shards []diffShard `json:"shards"`
}

type diffPair struct {
	From  string  `json:"from"` // empty: no shard
	To    string  `json:"to"`
	Users int     `json:"users"`
	Share float64 `json:"share"` // of all users
}

type diffShard struct {
	Shard  string `json:"shard"`
	Before int    `json:"users_before"`
	After  int    `json:"users_after"`
}

func (t *tally) result() diffed {
	d := diffed{Users: t.users, Failed: t.failed, Moved: t.moved(), Pairs: []diffPair{}, Shards: []diffShard{}}
	share := func(n int) float64 { return float64(n) / float64(max(1, t.users)) }
	d.Share = share(d.Moved)
	for _, p := range slices.SortedFunc(maps.Keys(t.pairs), func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	}) {
		d.Pairs = append(d.Pairs, diffPair{p.from, p.to, t.pairs[p], share(t.pairs[p])})
	}
	all := maps.Clone(t.before)
	maps.Copy(all, t.after)
	for _, shard := range slices.Sorted(maps.Keys(all)) {
		d.Shards = append(d.Shards, diffShard{shard, t.before[shard], t.after[shard]})
	}
	return d
}

func (t *tally) print(w io.Writer, asJSON bool) error {
	d := t.result()
	if asJSON {
		return writeJSON(w, d)
	}
	fmt.Fprintf(w, "%d of %d users move (%.2f %%)\n", d.Moved, d.Users, 100*d.Share)
	shown := func(shard string) string { return cmp.Or(shard, "(none)") }
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(d.Pairs) > 0 {
		fmt.Fprintln(tab, "\nfrom\tto\tusers\tof all\t")
		for _, p := range d.Pairs {
			fmt.Fprintf(tab, "%s\t%s\t%d\t%.2f %%\t\n", shown(p.From), shown(p.To), p.Users, 100*p.Share)
		}
		tab.Flush()
	}
	fmt.Fprintln(tab, "\nshard\tusers before\tafter\t")
	for _, s := range d.Shards {
		fmt.Fprintf(tab, "%s\t%d\t%d\t\n", shown(s.Shard), s.Before, s.After)
	}
	return tab.Flush()
}

// madeUp reads as lines of users who do not exist.
type madeUp struct {
	left, next int
	line       []byte
}

func (m *madeUp) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(m.line) == 0 {
			if m.left <= 0 {
				break
			}
			m.left--
			m.next++
			m.line = fmt.Appendf(m.line, "user%s@example.com\n", strconv.Itoa(m.next))
		}
		copied := copy(p[n:], m.line)
		m.line = m.line[copied:]
		n += copied
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
