package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the man pages to a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return &exitError{exitNo, err}
			}
			err := doc.GenManTree(root, &doc.GenManHeader{
				Title:   "DOVEADM-PROXY",
				Section: "8",
				Source:  "doveadm-proxy " + version,
				Manual:  "System administration",
			}, args[0])
			if err != nil {
				return &exitError{exitNo, fmt.Errorf("man pages: %w", err)}
			}
			return nil
		},
	}
}
