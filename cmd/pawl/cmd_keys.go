// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/internal/ceremony"
)

// keysApp is what all commands below "pawl keys" share.
type keysApp struct {
	*app
	dir  string
	days int
}

func (k *keysApp) options() ceremony.Options {
	return ceremony.Options{
		Layout: ceremony.At(k.dir), Now: k.now(), Password: k.password, Life: time.Duration(k.days) * 24 * time.Hour,
	}
}

func newKeysCommand(a *app) *cobra.Command {
	k := &keysApp{app: a}
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Create and change the keys that releases are trusted by",
	}
	cmd.PersistentFlags().StringVar(&k.dir, "dir", ".", "project folder: public trust/ and private keys/ lie below it")
	cmd.AddCommand(newKeysInitCommand(k))
	return cmd
}

func newKeysInitCommand(k *keysApp) *cobra.Command {
	var first ceremony.First
	cmd := &cobra.Command{
		Use:   "init --product NAME",
		Short: "Make the first keys and the root of trust of a project",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(first.Products) == 0 {
				return usagef("name at least one product with --product")
			}
			o := k.options()
			f, err := ceremony.Init(cmd.Context(), o, first)
			if err != nil {
				return err
			}
			k.report(map[string]any{"trust": o.Trust, "keys": o.Keys, "root": f.State.Root.Version}, func(w io.Writer) {
				fmt.Fprintf(w, "made %s and %s\n", o.Trust, o.Keys)
			})
			return nil
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&first.RootKeys, "root-keys", 2, "number of root keys")
	flags.IntVar(&first.Threshold, "threshold", 2, "how many root keys must sign together")
	flags.StringArrayVar(&first.Products, "product", nil, "name of a product; may be repeated")
	flags.IntVar(&k.days, "expires-days", 0, "days until what is signed now expires (default: root 730, targets 365)")
	return cmd
}
