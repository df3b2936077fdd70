package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

func newTop() *cobra.Command {
	c := new(control)
	var every time.Duration
	var once bool
	cmd := c.command(&cobra.Command{
		Use:   "top",
		Short: "Show the running daemon on the terminal, anew every second",
		Long: `Shows the state of the running daemon, its backends with the commands a second of each, and
the longest running commands, until it is interrupted (Ctrl-C) or q is pressed. --once prints it one
time and needs no terminal.

The exit code is 75 if the daemon cannot be reached, or goes away.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		s := &screen{to: to, last: map[string]uint64{}}
		if once || c.json {
			view, err := s.look(ctx)
			switch {
			case err != nil:
				return err
			case c.json:
				return writeJSON(w, view)
			}
			_, err = w.Write(s.draw(view))
			return err
		}
		return s.run(ctx, w, max(every, 100*time.Millisecond))
	})
	cmd.Flags().DurationVar(&every, "every", time.Second, "look anew after this time")
	cmd.Flags().BoolVar(&once, "once", false, "print it one time")
	return cmd
}

// screen is what top shows.
type screen struct {
	to   *admin.Client
	at   time.Time         // of the last look
	last map[string]uint64 // commands of each backend then
	rate map[string]float64
}

// view is one look.
type view struct {
	Status   *admin.Status   `json:"status"`
	Backends []admin.Backend `json:"backends"`
	Commands []admin.Command `json:"commands"`
	Pauses   []admin.Pause   `json:"pauses"`
}

func (s *screen) look(ctx context.Context) (*view, error) {
	status, err := s.to.Status(ctx)
	if err != nil {
		return nil, err
	}
	backends, err := s.to.Backends(ctx)
	if err != nil {
		return nil, err
	}
	commands, err := s.to.Commands(ctx)
	if err != nil {
		return nil, err
	}
	pauses, err := s.to.Pauses(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	s.rate = map[string]float64{}
	for _, b := range backends.Backends {
		if was, ok := s.last[b.Name]; ok && b.Commands >= was {
			s.rate[b.Name] = float64(b.Commands-was) / now.Sub(s.at).Seconds()
		}
		s.last[b.Name] = b.Commands
	}
	s.at = now
	return &view{status, backends.Backends, commands.Commands, pauses.Pauses}, nil
}

func (s *screen) draw(v *view) []byte {
	var b bytes.Buffer
	ready := "accepts sessions"
	if !v.Status.Ready {
		ready = "ACCEPTS NO NEW SESSIONS"
	}
	fmt.Fprintf(&b, "doveadm-proxy %s, process %d, up %s, %s - %s\n", clean(v.Status.Version), v.Status.PID,
		strings.TrimSuffix(age(v.Status.Started), " ago"), ready, time.Now().Format(time.TimeOnly))
	fmt.Fprintf(&b, "%d sessions, %d commands run, %d of %d backends available\n", v.Status.Sessions, len(v.Commands), v.Status.Available, v.Status.Backends)
	for _, p := range v.Pauses {
		what := "everything"
		if p.Shard != "" {
			what = "shard " + clean(p.Shard)
		} else if p.Backend != "" {
			what = "backend " + clean(p.Backend)
		}
		fmt.Fprintf(&b, "PAUSED: %s by %s, for %s more: %d held now, %d refused\n", what, clean(p.By), time.Until(p.Until).Round(time.Second), p.Waiting, p.Refused)
	}
	b.WriteByte('\n')
	t := newTable("SHARD", "BACKEND", "OPERATOR", "HEALTH", "BREAKER", "USED", "OPEN", "WAIT", "CMD/S", "FAILED", "LAST ERROR")
	for _, k := range v.Backends {
		rate, last := "", k.LastError
		if r, ok := s.rate[k.Name]; ok {
			rate = fmt.Sprintf("%.1f", r)
		}
		if k.LastErrorAt != nil {
			last = age(*k.LastErrorAt) + ": " + last
		}
		t.row(k.Shard, k.Name, k.Operator, k.Health, k.Breaker, k.InUse, fmt.Sprintf("%d/%d", k.Open, k.MaxOpen), k.Waiting, rate, k.Failures(), last)
	}
	t.text(&b)
	b.WriteByte('\n')
	commandTable(&admin.Commands{Commands: v.Commands}).text(&b)
	return b.Bytes()
}

// The codes of a terminal.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	restOfLine  = "\x1b[K"
	restOfAll   = "\x1b[J"
)

// run draws until ctx ends or q is pressed.
func (s *screen) run(ctx context.Context, w io.Writer, every time.Duration) error {
	out, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) {
		return &exitError{exitUsage, fmt.Errorf("top: standard output is no terminal: use --once, or the command status")}
	}
	v, err := s.look(ctx) // before the screen changes
	if err != nil {
		return err
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		if before, err := term.MakeRaw(in); err == nil {
			defer term.Restore(in, before)
			go readKeys(quit) // ends with the process: a read of a terminal cannot be ended
		}
	}
	io.WriteString(out, enterScreen)
	defer io.WriteString(out, leaveScreen)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil {
			width, height = 80, 24
		}
		if _, err := out.Write(fit(s.draw(v), width, height)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if v, err = s.look(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// readKeys calls quit when somebody wants to leave.
func readKeys(quit func()) {
	const controlC, controlD = 3, 4
	var b [1]byte
	for {
		if _, err := os.Stdin.Read(b[:]); err != nil || b[0] == 'q' || b[0] == 'Q' || b[0] == controlC || b[0] == controlD {
			quit()
			return
		}
	}
}

// fit cuts text to a screen, and ends each of its lines as a terminal in raw
// mode wants it.
func fit(text []byte, width, height int) []byte {
	var b bytes.Buffer
	b.WriteString(toTop)
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		for n := 0; n < width && len(line) > 0; n++ {
			_, size := utf8.DecodeRune(line)
			b.Write(line[:size])
			line = line[size:]
		}
		b.WriteString(restOfLine)
	}
	b.WriteString(restOfAll)
	return b.Bytes()
}
