package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/internal/starter"
)

// resolveTimeout bounds looking up one host name.
const resolveTimeout = 10 * time.Second

// maxImport bounds what is read of one file: a map of ten million users.
const maxImport = 1 << 30

func newImport() *cobra.Command {
	var f firstConfig
	var sources struct{ mailServers, doveconf, dump, userMap, passwdFile, port string }
	var onlyMap bool
	cmd := &cobra.Command{
		Use:   "import [--doveconf FILE] [--dump FILE] [--map FILE] ...",
		Short: "Write a first configuration from that of a Dovecot director or proxy",
		Long: `Makes a configuration, and a map of users where one is needed, of what a Dovecot
director or proxy says about its cluster, and writes them as init does. The
sources may be combined; each FILE may be - for standard input:

  --doveconf FILE      the output of "doveconf -n": director_mail_servers,
                       director_username_hash, doveadm_port, passdb
  --mail-servers TEXT  a value of director_mail_servers
  --dump FILE          the output of "doveadm director dump": the hosts as they
                       are now, with their vhosts and tags
  --map FILE           the output of "doveadm director map": users whom the
                       director has elsewhere than its hash says, because they
                       were moved, get a line in the map of users
  --passwd-file FILE   a passdb of a proxy: users with proxy and host=

With --only-map the map of users is written anew, over the one that is there, and
nothing else is touched: for users who were moved since.

No password is taken over: that of the backends is asked for, or comes from
--backend-password-file. docs/migrating-from-director.md goes through it step by
step.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source := starter.Source{Resolve: resolve}
			stdin := false
			read := func(path, what string, take func([]byte) error) error {
				if path == "" {
					return nil
				}
				text, err := readSource(cmd.InOrStdin(), path, &stdin)
				if err == nil {
					err = take(text)
				}
				if err != nil {
					return &exitError{exitNo, fmt.Errorf("%s: %w", path, err)}
				}
				source.Read(what)
				return nil
			}
			err := read(sources.doveconf, "the output of doveconf -n", func(text []byte) error { return source.Doveconf(cmd.Context(), text) })
			if err == nil && sources.mailServers != "" {
				if err = source.MailServers(cmd.Context(), sources.mailServers); err != nil {
					err = &exitError{exitNo, err}
				}
				source.Read("director_mail_servers = " + sources.mailServers)
			}
			if err == nil {
				err = read(sources.dump, "the output of doveadm director dump", source.Dump)
			}
			if err == nil {
				err = read(sources.userMap, "the output of doveadm director map", source.Map)
			}
			if err == nil {
				err = read(sources.passwdFile, "a passwd-file", source.PasswdFile)
			}
			if err != nil {
				return err
			}
			if sources.doveconf+sources.mailServers+sources.dump+sources.passwdFile == "" {
				return &exitError{exitUsage, fmt.Errorf("nothing to import from: --doveconf, --mail-servers, --dump or --passwd-file")}
			}
			if sources.port != "" {
				source.Port = sources.port
			}
			site, err := source.Site()
			if err != nil {
				return &exitError{exitNo, err}
			}
			if sources.userMap != "" {
				if err := keepExceptions(&site); err != nil {
					return &exitError{exitNo, err}
				}
			}
			f.take(cmd, site)
			if onlyMap {
				return f.writeMap(cmd)
			}
			return f.write(cmd, newAsker(cmd.InOrStdin(), cmd.ErrOrStderr()))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&sources.doveconf, "doveconf", "", "`FILE` with the output of doveconf -n")
	flags.StringVar(&sources.mailServers, "mail-servers", "", "a `VALUE` of director_mail_servers")
	flags.StringVar(&sources.dump, "dump", "", "`FILE` with the output of doveadm director dump")
	flags.StringVar(&sources.userMap, "map", "", "`FILE` with the output of doveadm director map")
	flags.StringVar(&sources.passwdFile, "passwd-file", "", "passwd-`FILE` with proxy and host= among the extra fields")
	flags.StringVar(&sources.port, "backend-port", "", "`PORT` of the backends' doveadm listeners (default: doveadm_port, else "+starter.DefaultPort+")")
	flags.BoolVar(&onlyMap, "only-map", false, "write the map of users anew, and nothing else")
	for _, name := range []string{"doveconf", "dump", "map", "passwd-file"} {
		cmd.MarkFlagFilename(name)
	}
	f.flags(cmd)
	cmd.MarkFlagsMutuallyExclusive("only-map", "print")
	return cmd
}

// take takes over what was imported; what a flag says wins.
func (f *firstConfig) take(cmd *cobra.Command, found starter.Site) {
	flags := cmd.Flags()
	said := f.site
	f.site = found
	f.site.Listen, f.site.Client = said.Listen, said.Client
	f.site.Cert, f.site.Key, f.site.Clear, f.site.CA = said.Cert, said.Key, said.Clear, said.CA
	if flags.Changed("backend-username") {
		f.site.Username = said.Username
	}
	if flags.Changed("backend-tls") || f.site.TLS == "" {
		f.site.TLS = said.TLS
	}
}

// readSource reads a file, or standard input, which is there once.
func readSource(stdin io.Reader, path string, taken *bool) ([]byte, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	} else if *taken {
		return nil, fmt.Errorf("standard input was read already: name a file")
	} else {
		*taken = true
	}
	text, err := io.ReadAll(io.LimitReader(in, maxImport+1))
	if err == nil && len(text) > maxImport {
		err = fmt.Errorf("more than %d bytes", maxImport)
	}
	return text, err
}

// resolve looks up all addresses of a name.
func resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}
