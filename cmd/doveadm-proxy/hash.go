package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
)

func newHash() *cobra.Command {
	var scheme string
	cmd := &cobra.Command{
		Use:   "hash [--scheme SCHEME]",
		Short: "Read a password and print what goes into a client block",
		Long: `Reads a password, from the terminal without showing it (twice) or one line of
standard input, and prints its hash in Dovecot's form {SCHEME}data.

Schemes: ` + strings.Join(auth.Schemes(), ", "),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return &exitError{exitNo, err}
			}
			hash, err := auth.Generate(scheme, password)
			if err != nil {
				return &exitError{exitNo, err}
			}
			fmt.Fprintln(cmd.OutOrStdout(), hash)
			return nil
		},
	}
	cmd.Flags().StringVar(&scheme, "scheme", auth.DefaultScheme, "password `SCHEME`")
	cmd.RegisterFlagCompletionFunc("scheme", cobra.FixedCompletions(auth.Schemes(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func readPassword(stdin io.Reader, prompt io.Writer) (string, error) {
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return askPassword(int(f.Fd()), prompt)
	}
	line, err := bufio.NewReader(io.LimitReader(stdin, auth.MaxPassword+2)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func askPassword(fd int, prompt io.Writer) (string, error) {
	// From before the question on: who answers fast is not shown either.
	shown, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	hidden := *shown
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return "", err
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, shown)
	var answers [2]string
	for i, text := range []string{"Password: ", "Again: "} {
		fmt.Fprint(prompt, text)
		p, err := term.ReadPassword(fd)
		fmt.Fprintln(prompt)
		if err != nil {
			return "", err
		}
		answers[i] = string(p)
	}
	if answers[0] != answers[1] {
		return "", errors.New("the two passwords differ")
	}
	return answers[0], nil
}
