package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// How many commands at the same time a backend answers most of depends on the
// backend. "bench concurrency" holds the number that the proxy finds out by
// itself (pool.adaptive) against fixed ones, at real Dovecots.

const (
	concurrencyClients = 32
	concurrencyOpen    = 16 // max_open where the proxy finds it out
	concurrencySettle  = 25 * time.Second
)

// concurrencyFixed are the numbers that it is held against.
const concurrencyFixed = "1,2,3,4,6,8,12,16"

// poolWay is a proxy with one setting of its pool.
type poolWay struct {
	title string
	to    endpoint
	admin string
	rates numbers // commands a second, by round
	p99   numbers // milliseconds
}

func runConcurrency(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("bench concurrency", flag.ContinueOnError)
	binary := flags.String("proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	rounds := flags.Int("rounds", 5, "measurements of each way")
	duration := flags.Duration("time", 2*time.Second, "`length` of one measurement")
	settle := flags.Duration("settle", concurrencySettle, "for how `long` the proxy may look for the number before")
	fixed := flags.String("fixed", concurrencyFixed, "the `numbers` that it is held against")
	update := flags.String("update", "", "`file` that gets the table between its markers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var numbers []int
	for text := range strings.SplitSeq(*fixed, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-fixed: %q is no number of connections", text)
		}
		numbers = append(numbers, n)
	}
	var text strings.Builder
	for _, version := range dovecot.Versions() {
		table, err := measureConcurrency(ctx, *binary, version, numbers, *rounds, *duration, *settle)
		if err != nil {
			return err
		}
		text.WriteString(table)
	}
	fmt.Fprint(stdout, text.String())
	if *update == "" {
		return nil
	}
	return markdown.Fill(*update, map[string]string{"concurrency": text.String()})
}

func measureConcurrency(ctx context.Context, binary string, version dovecot.Version, fixed []int, rounds int, duration, settle time.Duration) (table string, err error) {
	kind := dovecot23
	if version == dovecot.V24 {
		kind = dovecot24
	}
	s := &site{dovecots: make(map[backendKind]*dovecot.Server)}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.dir, err = os.MkdirTemp("/tmp", "bench-"); err != nil {
		return "", err
	}
	if err := s.startDovecot(ctx, kind); err != nil {
		return "", err
	}
	found := &poolWay{title: fmt.Sprintf("found out, at most %d", concurrencyOpen)}
	if err := s.startPoolWay(ctx, binary, kind, found, fmt.Sprintf("adaptive = true\n max_open = %d\n max_idle = %[1]d", concurrencyOpen)); err != nil {
		return "", err
	}
	ways := []*poolWay{found}
	for _, n := range fixed {
		w := &poolWay{title: fmt.Sprintf("always %d", n)}
		if err := s.startPoolWay(ctx, binary, kind, w, fmt.Sprintf("adaptive = false\n max_open = %d\n max_idle = %[1]d", n)); err != nil {
			return "", err
		}
		ways = append(ways, w)
	}
	if _, err := found.drive(kind, settle); err != nil {
		return "", err
	}
	for round := range rounds {
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			d, err := w.drive(kind, duration)
			if err != nil {
				return "", fmt.Errorf("%s: %w", w.title, err)
			}
			w.rates = append(w.rates, float64(d.commands)/duration.Seconds())
			w.p99 = append(w.p99, float64(d.p99)/float64(time.Millisecond))
		}
	}
	limit, ok := metric(found.admin, `doveadm_proxy_pool_limit_commands{backend="`+kind.domain()+`"} `)
	if !ok {
		return "", errors.New("the proxy does not tell doveadm_proxy_pool_limit_commands")
	}
	return concurrencyTable(version, ways, int(limit)), nil
}

// startPoolWay starts a proxy whose pool has some settings.
func (s *site) startPoolWay(ctx context.Context, binary string, k backendKind, w *poolWay, pool string) error {
	s.poolSettings = pool
	defer func() { s.poolSettings = "" }()
	if err := s.startProxy(ctx, binary, proxied, "warn", []backendKind{k}); err != nil {
		return err
	}
	w.to, w.admin = s.endpoints[k][proxied], s.admin[proxied]
	return nil
}

// drive has clients on kept connections work for a while, after they have got
// their connections to the backend.
func (w *poolWay) drive(k backendKind, duration time.Duration) (done, error) {
	var ops [][]op
	for slot := range concurrencyClients {
		ops = append(ops, kept(k, slot))
	}
	l, err := newLoad(w.to, ops)
	if err != nil {
		return done{}, err
	}
	defer l.close()
	return l.run(time.Second, duration, func() error { return nil })
}

// concurrencyTable shows the ways of one release; the first is the one whose
// number is found out.
func concurrencyTable(version dovecot.Version, ways []*poolWay, limit int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Dovecot %s, %d clients on kept connections, `quota get`:\n\n| commands at the same time | commands/s | the found number's ratio to it | p99 ms |\n|---|---|---|---|\n",
		version, concurrencyClients)
	for _, w := range ways {
		ratio := "–"
		if w != ways[0] {
			ratio = ways[0].rates.by(w.rates).spread(2)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", w.title, w.rates.spread(0), ratio, w.p99.format(0))
	}
	fmt.Fprintf(&b, "\nAt the end the proxy had found %d (`doveadm_proxy_pool_limit_commands`).\n\n", limit)
	return b.String()
}
