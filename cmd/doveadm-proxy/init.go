package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/starter"
	"github.com/doveadm-proxy/doveadm-proxy/packaging"
)

// firstConfig is what init and import have in common: the files they write,
// and the questions about what they cannot know.
type firstConfig struct {
	site            starter.Site
	dir             string
	force, printing bool

	clientPasswordFile, backendPasswordFile string

	// Of standard input, which both passwords may come from, a line for each.
	lines *bufio.Reader
}

func (f *firstConfig) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "/etc/doveadm-proxy", "`DIR`ectory to write to")
	flags.BoolVar(&f.force, "force", false, "overwrite files that are there already")
	flags.BoolVar(&f.printing, "print", false, "print the configuration, write and ask nothing")
	flags.StringVar(&f.site.Listen, "listen", "", "where clients connect, `HOST:PORT` (default 127.0.0.1:"+starter.DefaultPort+")")
	flags.StringVar(&f.site.Cert, "tls-cert", "", "`FILE` of the certificate for clients; they have to use TLS then")
	flags.StringVar(&f.site.Key, "tls-key", "", "`FILE` of its key")
	flags.BoolVar(&f.site.Clear, "insecure-clear-text", false, "accept passwords from other hosts without TLS")
	flags.StringVar(&f.site.Client, "client", "doveadm", "`NAME` that clients log in with")
	flags.StringVar(&f.clientPasswordFile, "client-password-file", "", "`FILE` with the password for it, - for a line of standard input")
	flags.StringVar(&f.backendPasswordFile, "backend-password-file", "", "`FILE` with the doveadm_password of the backends, - for a line of standard input (before that of the client)")
	flags.StringVar(&f.site.Username, "backend-username", "", "`NAME` that the backends want, their doveadm_username (default doveadm)")
	flags.StringVar(&f.site.TLS, "backend-tls", "off", "TLS to the backends: off, implicit or starttls")
	flags.StringVar(&f.site.CA, "backend-ca", "", "`FILE` of the authorities of their certificates (default: those of the machine)")
	cmd.MarkFlagDirname("dir")
	for _, name := range []string{"tls-cert", "tls-key", "client-password-file", "backend-password-file", "backend-ca"} {
		cmd.MarkFlagFilename(name)
	}
	cmd.RegisterFlagCompletionFunc("backend-tls", cobra.FixedCompletions([]string{"off", "implicit", "starttls"}, cobra.ShellCompDirectiveNoFileComp))
}

func newInit() *cobra.Command {
	var f firstConfig
	var backends []string
	var users string
	cmd := &cobra.Command{
		Use:   "init [--backend HOST:PORT]...",
		Short: "Write a first configuration, by questions or flags",
		Long: `Writes a commented configuration and the files with its secrets to a directory,
by default /etc/doveadm-proxy, and says what to do next. On a terminal it asks for
what no flag says; otherwise --backend and both passwords have to be said.

Each --backend is a shard of its own; backends with the same mail are named
together, with commas. Passwords never stand on the command line: they come from
files or from standard input, the backends' first:

  doveadm-proxy init --backend 10.0.1.1 --backend mail2=10.0.1.2:24245 \
    --backend-password-file - --client-password-file - < two-lines

With several shards --users says how the proxy finds the one of a user: "map" (a
file, users.map, to be filled) or "ring" (by a hash of the name, for a cluster
without users yet).

Nothing that is there already is overwritten without --force.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask := newAsker(cmd.InOrStdin(), cmd.ErrOrStderr())
			if len(backends) == 0 && ask != nil {
				var err error
				if backends, err = ask.backends(); err != nil {
					return &exitError{exitNo, err}
				}
				if !cmd.Flags().Changed("listen") {
					if f.site.Listen, err = ask.text("Where clients connect", "127.0.0.1:"+starter.DefaultPort); err != nil {
						return &exitError{exitNo, err}
					}
				}
				if len(backends) > 1 && !cmd.Flags().Changed("users") {
					if users, err = ask.text("How to find the shard of a user: map (a file) or ring (by a hash)", users); err != nil {
						return &exitError{exitNo, err}
					}
				}
			}
			if len(backends) == 0 {
				return &exitError{exitUsage, fmt.Errorf("no backend: --backend HOST:PORT, once for each")}
			}
			switch p := starter.Placement(users); p {
			case starter.ByMap, starter.ByHash:
				f.site.Users = p
			default:
				return &exitError{exitUsage, fmt.Errorf("--users %s: write map or ring", users)}
			}
			for i, text := range backends {
				shard, err := starter.ParseBackends(text, i+1)
				if err != nil {
					return &exitError{exitUsage, err}
				}
				f.site.Shards = append(f.site.Shards, shard)
			}
			return f.write(cmd, ask)
		},
	}
	cmd.Flags().StringArrayVar(&backends, "backend", nil, "a shard: `[NAME=]HOST[:PORT]`, several with commas if they have the same mail")
	cmd.Flags().StringVar(&users, "users", "map", "how the shard of a user is found: map or ring")
	cmd.RegisterFlagCompletionFunc("users", cobra.FixedCompletions([]string{"map", "ring"}, cobra.ShellCompDirectiveNoFileComp))
	f.flags(cmd)
	return cmd
}

// write writes the site, or prints it.
func (f *firstConfig) write(cmd *cobra.Command, ask *asker) error {
	switch f.site.TLS {
	case "off", "implicit", "starttls":
	default:
		return &exitError{exitUsage, fmt.Errorf("--backend-tls %s: write off, implicit or starttls", f.site.TLS)}
	}
	for _, path := range []*string{&f.site.Cert, &f.site.Key, &f.site.CA} {
		if *path != "" {
			absolute, err := filepath.Abs(*path) // the configuration is elsewhere
			if err != nil {
				return &exitError{exitNo, err}
			}
			*path = absolute
		}
	}
	if strings.ContainsAny(f.site.Client, "/\\\x00\n") || f.site.Client == "" || f.site.Client[0] == '.' || f.site.ClientSecret() == starter.BackendSecret {
		return &exitError{exitUsage, fmt.Errorf("--client %q: the name is that of a file, too: take letters, digits, dots and hyphens", f.site.Client)}
	}
	if err := f.site.Check(); err != nil {
		return &exitError{exitNo, err}
	}
	if f.printing {
		_, err := io.WriteString(cmd.OutOrStdout(), f.site.Config())
		return err
	}
	if !f.force {
		// Before anybody has typed a password.
		there, err := starter.Existing(f.site.Files(f.dir, "x", "x", packaging.DefaultConfig))
		if err == nil && len(there) > 0 {
			err = fmt.Errorf("already there: %s: nothing was written; --force overwrites, --dir writes elsewhere", strings.Join(there, ", "))
		}
		if err != nil {
			return &exitError{exitNo, err}
		}
	}
	f.lines = bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 2*(auth.MaxPassword+2)))
	backend, err := f.password(f.backendPasswordFile, "backend", "The doveadm_password of the backends", ask)
	if err != nil {
		return err
	}
	client, err := f.password(f.clientPasswordFile, "client", "The password for clients", ask)
	if err != nil {
		return err
	}
	hash, err := auth.Generate(auth.DefaultScheme, client)
	if err != nil {
		return &exitError{exitNo, fmt.Errorf("client's password: %w", err)}
	}
	files := f.site.Files(f.dir, hash, backend, packaging.DefaultConfig)
	if err := starter.Write(files, f.force); err != nil {
		return &exitError{exitNo, err}
	}
	f.report(cmd.OutOrStdout(), files)
	return nil
}

// writeMap writes the map of users over the one that is there.
func (f *firstConfig) writeMap(cmd *cobra.Command) error {
	var files []starter.File
	for _, file := range f.site.Files(f.dir, "", "", "") {
		if filepath.Base(file.Path) == starter.MapFile {
			files = append(files, file)
		}
	}
	if len(files) == 0 {
		return &exitError{exitNo, fmt.Errorf("these sources need no map of users, and none was written")}
	}
	if err := starter.Write(files, true); err != nil {
		return &exitError{exitNo, err}
	}
	f.report(cmd.OutOrStdout(), files)
	return nil
}

// report tells what was written, what to look at, and what comes next.
func (f *firstConfig) report(w io.Writer, files []starter.File) {
	for _, file := range files {
		fmt.Fprintf(w, "wrote %s\n", file.Path)
	}
	for _, note := range f.site.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	fmt.Fprintln(w, "next:")
	if f.site.Users == starter.ByMap && len(f.site.Shards) > 1 && len(f.site.Map) == 0 {
		fmt.Fprintf(w, "  fill %s: \"user shard\" a line\n", filepath.Join(f.dir, starter.MapFile))
	}
	fmt.Fprintf(w, "  doveadm-proxy check --connect --config %s\n", f.dir)
	fmt.Fprintf(w, "  doveadm-proxy route --config %s USER\n", f.dir)
}

// password reads one from a file or from standard input, or asks for it.
func (f *firstConfig) password(file, whose, question string, ask *asker) (string, error) {
	var password string
	var err error
	switch {
	case file == "-":
		password, err = f.lines.ReadString('\n')
		if err == io.EOF {
			err = nil
		}
	case file != "":
		var content []byte
		content, err = os.ReadFile(file)
		password, _, _ = strings.Cut(string(content), "\n")
	case ask != nil:
		fmt.Fprintf(ask.out, "%s\n", question)
		password, err = askPassword(ask.fd, ask.out)
	default:
		return "", &exitError{exitUsage, fmt.Errorf("no password: --%s-password-file FILE, or - for a line of standard input", whose)}
	}
	password = strings.TrimRight(password, "\r\n")
	switch {
	case err != nil:
		return "", &exitError{exitNo, err}
	case password == "":
		return "", &exitError{exitNo, fmt.Errorf("the %s's password is empty", whose)}
	case strings.ContainsRune(password, 0):
		return "", &exitError{exitNo, fmt.Errorf("the %s's password contains a NUL", whose)}
	}
	return password, nil
}

// asker asks who sits at the terminal.
type asker struct {
	in  *bufio.Reader
	out io.Writer
	fd  int
}

// newAsker returns nil where nobody can be asked.
func newAsker(in io.Reader, out io.Writer) *asker {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	// Passwords are read from the terminal itself, so nothing may be read ahead.
	return &asker{in: bufio.NewReaderSize(oneByte{f}, 16), out: out, fd: int(f.Fd())}
}

// oneByte reads a byte at a time.
type oneByte struct{ io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.Reader.Read(b[:min(1, len(b))]) }

func (a *asker) text(question, otherwise string) (string, error) {
	fmt.Fprint(a.out, question)
	if otherwise != "" {
		fmt.Fprintf(a.out, " [%s]", otherwise)
	}
	fmt.Fprint(a.out, ": ")
	line, err := a.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	if line = strings.TrimSpace(line); line == "" {
		line = otherwise
	}
	return line, nil
}

// backends asks for one after the other until an empty line.
func (a *asker) backends() ([]string, error) {
	fmt.Fprintln(a.out, "The backends: one shard a line, HOST:PORT; backends with the same mail on one line with commas. An empty line ends the list.")
	var all []string
	for {
		line, err := a.text(fmt.Sprintf("Backend of shard s%d", len(all)+1), "")
		if err != nil || line == "" {
			return all, err
		}
		if _, err := starter.ParseBackends(line, len(all)+1); err != nil {
			fmt.Fprintln(a.out, err)
			continue
		}
		all = append(all, line)
	}
}
