package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			protocol := fmt.Sprintf("1.%d", doveadm.MaxMinor)
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), map[string]string{"version": version, "protocol": protocol, "go": runtime.Version()})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "doveadm-proxy %s (doveadm protocol %s, %s)\n", version, protocol, runtime.Version())
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
