// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"bufio"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pawl-project/pawl/internal/ceremony"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/refusal"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/statement"
)

// maxExpiresDays bounds how far away an expiry can be asked for: ten years.
const maxExpiresDays = 3650

// keysApp is what all commands below "pawl keys" share.
type keysApp struct {
	*app
	dir  string
	days int
}

func (k *keysApp) options() (ceremony.Options, error) {
	if k.days < 0 || k.days > maxExpiresDays {
		return ceremony.Options{}, usagef("--expires-days %d: from 1 to %d days are possible", k.days, maxExpiresDays)
	}
	return ceremony.Options{
		Layout: ceremony.At(k.dir), Now: k.now(), Password: k.password, Life: time.Duration(k.days) * 24 * time.Hour,
	}, nil
}

func (k *keysApp) expiresFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&k.days, "expires-days", 0, "days until the documents written now expire (default: root 730, targets 365)")
}

func newKeysCommand(a *app) *cobra.Command {
	k := &keysApp{app: a}
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Create and change the keys that releases are trusted by",
		Long: `Create and change the keys that releases are trusted by.

There are four kinds of keys, and none does the work of another:

  root      kept offline by different people; a threshold of them decides about all keys
  online    on the server; says what is newest, and cannot invent a release
  release   one per product; signs its releases and nothing else
  evidence  one per product; signs SBOMs and verdicts

A project has two folders. trust/ is public and meant to be committed: the chain of root
documents from 1.root.json on, targets.json, and a copy of every public key. keys/ holds the
private keys, encrypted, in the form that cosign writes, and tells git to ignore it.

A change is a draft, trust/draft.json. It is signed with the root keys that can be opened
here and takes effect as soon as enough of them have signed. What is missing comes from other
people: "pawl keys sign" on their machine, file in and file out, then "pawl keys apply" here.

Passwords come from --password-file, PAWL_PASSWORD_<KEY> (PAWL_PASSWORD_ROOT_1 for root-1.key),
PAWL_PASSWORD or COSIGN_PASSWORD, or are asked for.`,
		Example: `  # the first keys of a project: any two of three root keys decide
  pawl keys init --product greeter

  # who may sign what, and until when
  pawl keys show

  # a third person joins; the second person's signature comes from another machine
  pawl keys root add carol.pub
  pawl keys sign draft.json --key bob.key --out signed.json
  pawl keys apply signed.json`,
	}
	cmd.PersistentFlags().StringVar(&k.dir, "dir", ".", "project folder, with trust/ and keys/ below it")
	root := &cobra.Command{Use: "root", Short: "Change the root keys: who decides about all other keys"}
	root.AddCommand(newKeysRootAdd(k), newKeysRootRemove(k), newKeysRootRotate(k), newKeysRootThreshold(k), newKeysRootRenew(k))
	online := &cobra.Command{Use: "online", Short: "Change the key that the server signs with"}
	online.AddCommand(newKeysOnlineRotate(k))
	product := &cobra.Command{Use: "product", Short: "Add and remove products, and change their keys"}
	product.AddCommand(newKeysProductAdd(k), newKeysProductRotate(k), newKeysProductRemove(k))
	floor := &cobra.Command{Use: "floor", Short: "Lower the floor of a product after a mistake"}
	floor.AddCommand(newKeysFloorLower(k))
	cmd.AddCommand(newKeysInit(k), newKeysNew(k), newKeysShow(k), root, online, product, floor,
		newKeysSign(k), newKeysApply(k), newKeysDiscard(k))
	return cmd
}

func newKeysInit(k *keysApp) *cobra.Command {
	var first ceremony.First
	cmd := &cobra.Command{
		Use:   "init --product NAME",
		Short: "Make the first keys and the root of trust of a project",
		Long: `Make the first keys and the root of trust of a project.

Makes the root keys, the online key, and for every product a release key and an evidence key,
all encrypted; then the first root and the first targets, signed by all root keys. Nothing that
exists is overwritten, and either all of it is made or nothing.

Two of three root keys is a good beginning: two people must agree, and one key may be lost.
Move every root key to a medium of its own that is kept offline.`,
		Example: `  pawl keys init --product greeter
  pawl keys init --product gateway --product sensor --root-keys 5 --threshold 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(first.Products) == 0 {
				return usagef("name at least one product with --product")
			}
			for _, name := range first.Products {
				if err := statement.CheckProduct(name); err != nil {
					return usageError{err}
				}
			}
			o, err := k.options()
			if err != nil {
				return err
			}
			f, err := ceremony.Init(cmd.Context(), o, first)
			if err != nil {
				return err
			}
			rows, err := o.KeyRows(f.State)
			if err != nil {
				return err
			}
			k.report(map[string]any{"trust": o.Trust, "keys": rows, "threshold": f.State.Root.Threshold}, func(w io.Writer) { printInit(w, o, f, rows) })
			return nil
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&first.RootKeys, "root-keys", 3, "number of root keys")
	flags.IntVar(&first.Threshold, "threshold", 2, "how many root keys must sign together")
	flags.StringArrayVar(&first.Products, "product", nil, "name of a product; may be repeated")
	k.expiresFlag(cmd)
	return cmd
}

func printInit(w io.Writer, o ceremony.Options, f ceremony.Folder, rows []ceremony.KeyRow) {
	root := f.State.Root
	fmt.Fprintf(w, "Made a root of trust: %d of %d root keys must sign a change. It is valid until %s.\n\n",
		root.Threshold, len(root.Keys), root.Expires.Format(time.DateOnly))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tpublic: commit it\n", o.Trust)
	fmt.Fprintf(t, "  1.root.json\tgive it to every device: what it trusts first\n")
	fmt.Fprintf(t, "  targets.json\twhich key signs for which product, valid until %s\n", f.State.Targets.Expires.Format(time.DateOnly))
	fmt.Fprintf(t, "  *.pub\tpublic keys, for people who verify with cosign\n")
	fmt.Fprintf(t, "%s\tprivate: encrypted, ignored by git\n", o.Keys)
	for _, r := range rows {
		where := "stays where releases are made"
		switch r.Role {
		case "root":
			where = "move it to a medium of its own, kept offline by its holder, and delete it here"
		case "online":
			where = "goes to the server, which signs with it what is newest"
		}
		fmt.Fprintf(t, "  %s\t%s\n", filepath.Base(r.Private), where)
	}
	t.Flush()
	fmt.Fprintln(w, "\nnext: commit the trust folder; `pawl keys show` shows who may sign what")
}

func newKeysNew(k *keysApp) *cobra.Command {
	return &cobra.Command{
		Use:   "new FILE",
		Short: "Make a key pair: FILE.key, encrypted, and FILE.pub",
		Long: `Make a key pair: FILE.key, encrypted with a password, and FILE.pub.

It is the form that "cosign generate-key-pair" writes, and either program takes the other's
keys. The key may sign nothing until a root or a product names it.`,
		Example: `  pawl keys new carol
  pawl keys root add carol.pub`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := k.options()
			if err != nil {
				return err
			}
			path := strings.TrimSuffix(args[0], ".key") + ".key"
			key, err := ceremony.NewKey(cmd.Context(), o, path)
			if err != nil {
				return err
			}
			f, err := sign.Fingerprint(key)
			if err != nil {
				return err
			}
			row := ceremony.KeyRow{Fingerprint: f, Private: path, Public: strings.TrimSuffix(path, ".key") + ".pub"}
			k.report(row, func(w io.Writer) {
				fmt.Fprintf(w, "Made key %s:\n  %s  private: encrypted with your password; keep it\n  %s  public: give it to others\n", f[:12], row.Private, row.Public)
			})
			return nil
		},
	}
}

func newKeysShow(k *keysApp) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show who may sign what, who has signed, and what expires when",
		Long: `Show who may sign what, who has signed, and what expires when.

Reads the trust folder and checks it from 1.root.json on. Shows the draft that waits for
signatures, and warns of what expires within 60 days or could not be repaired after a loss.`,
		Example: `  pawl keys show
  pawl --json keys show`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			o, err := k.options()
			if err != nil {
				return err
			}
			status, err := ceremony.Show(o)
			if err != nil {
				return err
			}
			k.report(status, func(w io.Writer) { printStatus(w, status) })
			return nil
		},
	}
}

func printStatus(w io.Writer, s ceremony.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, d := range s.Documents {
		left := fmt.Sprintf("%d days left", d.DaysLeft)
		if d.DaysLeft < 0 {
			left = "expired"
		}
		fmt.Fprintf(t, "%s\tversion %d\t%d of %d keys sign\texpires %s (%s)\tsigned by %s\n",
			d.Name, d.Version, d.Threshold, d.Keys, d.Expires.Format(time.DateOnly), left, strings.Join(d.SignedBy, " "))
	}
	t.Flush()
	fmt.Fprintln(w)
	printKeys(w, s.Keys)
	if s.Draft != nil {
		fmt.Fprintf(w, "\nA draft waits in %s:\n", s.Draft.Path)
		printDraft(w, *s.Draft)
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(w, "\nwarning: %s\n", warning)
	}
}

func printKeys(w io.Writer, rows []ceremony.KeyRow) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "ROLE\tKEY\tPUBLIC\tPRIVATE\n")
	for _, r := range rows {
		role := r.Role
		if r.Product != "" {
			role += " of " + r.Product
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", role, r.Fingerprint[:12], orDash(r.Public), orDash(r.Private))
	}
	t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printChanges(w io.Writer, changes []string) {
	for _, c := range changes {
		fmt.Fprintf(w, "  %s\n", c)
	}
}

func printDraft(w io.Writer, d ceremony.DraftStatus) {
	printChanges(w, d.Changes)
	if d.Stale != "" {
		fmt.Fprintf(w, "It can no longer be applied: %s\n", d.Stale)
		return
	}
	printNeeds(w, d)
}

// printNeeds prints what a draft lacks, and how that comes here.
func printNeeds(w io.Writer, d ceremony.DraftStatus) {
	fmt.Fprintln(w, "Signatures:")
	for _, n := range d.Needs {
		fmt.Fprintf(w, "  %s version %d, by keys of root version %d: %d of %d", n.Document, n.Version, n.ByRoot, len(n.SignedBy), n.Threshold)
		if len(n.SignedBy) > 0 {
			fmt.Fprintf(w, " (%s)", strings.Join(n.SignedBy, ", "))
		}
		if len(n.SignedBy) < n.Threshold {
			fmt.Fprintf(w, "; can still sign: %s", strings.Join(n.Missing, ", "))
		}
		fmt.Fprintln(w)
	}
	if d.Ready {
		fmt.Fprintln(w, "next: `pawl keys apply`")
		return
	}
	base := filepath.Base(orDash(d.Path))
	fmt.Fprintf(w, "next: send this file to a holder of one of these keys, who runs\n"+
		"        pawl keys sign %s --key KEY --out signed.json\n"+
		"      and when the files have come back, here\n"+
		"        pawl keys apply signed.json ...\n", base)
}

// newKeysChange makes a command that puts one change into the draft.
func newKeysChange(k *keysApp, cmd *cobra.Command, change func(cmd *cobra.Command, o ceremony.Options, args []string) (ceremony.Change, error)) *cobra.Command {
	var signing ceremony.Signing
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := k.options()
		if err != nil {
			return err
		}
		c, err := change(cmd, o, args)
		if err != nil {
			return err
		}
		out, err := ceremony.Amend(cmd.Context(), o, c, signing)
		if err != nil {
			return err
		}
		return k.reportOutcome(o, out)
	}
	cmd.Flags().StringArrayVar(&signing.Keys, "key", nil, "private root key to sign with, from another place than keys/; may be repeated")
	cmd.Flags().BoolVar(&signing.None, "no-sign", false, "open no key of keys/: only write the draft")
	k.expiresFlag(cmd)
	return cmd
}

// outcomeJSON is what --json prints about a change.
type outcomeJSON struct {
	Applied   bool                 `json:"applied"`
	Draft     ceremony.DraftStatus `json:"draft"`
	Root      int64                `json:"root"` // versions after the change
	Targets   int64                `json:"targets"`
	SignedBy  []string             `json:"signedBy,omitempty"`
	NotSigned []notSigned          `json:"notSigned,omitempty"`
}

type notSigned struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

func (k *keysApp) reportOutcome(o ceremony.Options, out ceremony.Outcome) error {
	status, err := out.Draft.Status()
	if err != nil {
		return err
	}
	if !out.Applied {
		status.Path = o.Draft()
	}
	after := out.Draft.After()
	result := outcomeJSON{Applied: out.Applied, Draft: status, Root: after.Root.Version, Targets: after.Targets.Version}
	for _, t := range out.Tried {
		if t.Err == nil {
			result.SignedBy = append(result.SignedBy, t.Path)
		} else {
			result.NotSigned = append(result.NotSigned, notSigned{t.Path, t.Err.Error()})
		}
	}
	if out.Foreign && !out.Applied {
		result.NotSigned = append(result.NotSigned, notSigned{o.Keys, "the draft holds changes that no key here has signed; read them, then `pawl keys sign`"})
	}
	k.report(result, func(w io.Writer) {
		if out.Applied {
			fmt.Fprintf(w, "In force are root version %d and targets version %d:\n", result.Root, result.Targets)
		} else {
			fmt.Fprintf(w, "The draft %s is not in force yet:\n", status.Path)
		}
		printChanges(w, status.Changes)
		if len(result.SignedBy) > 0 {
			fmt.Fprintf(w, "Signed with %s.\n", strings.Join(result.SignedBy, ", "))
		}
		for _, n := range result.NotSigned {
			fmt.Fprintf(w, "Not signed with %s: %s\n", n.Key, n.Why)
		}
		if out.Applied {
			fmt.Fprintf(w, "next: commit %s; devices learn the change when it is published, at the latest with the next release\n", o.Trust)
			return
		}
		printNeeds(w, status)
	})
	return nil
}

// publicKey reads a public key named on the command line.
func publicKey(path string) (*ecdsa.PublicKey, error) { return ceremony.ReadPublicKey(path) }

// keyRef turns FINGERPRINT-or-PUB into a fingerprint or its first digits.
func keyRef(arg string) (string, error) {
	key, err := publicKey(arg)
	if errors.Is(err, fs.ErrNotExist) {
		return strings.ToLower(arg), nil
	}
	if err != nil {
		return "", err
	}
	return sign.Fingerprint(key)
}

func newKeysRootAdd(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:   "add PUB",
		Short: "Add a root key",
		Long: `Add a root key: its holder can sign changes from then on.

How many must sign stays as it is; "pawl keys root threshold" changes that.`,
		Example: `  pawl keys root add carol.pub`,
		Args:    cobra.ExactArgs(1),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		key, err := publicKey(args[0])
		return ceremony.AddRootKey(key, args[0]), err
	})
}

func newKeysRootRemove(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:   "remove FINGERPRINT|PUB",
		Short: "Remove a root key",
		Long: `Remove a root key, named by the first eight or more digits of its fingerprint or by its file.

Enough keys to meet the threshold must be left. To replace a key, "pawl keys root rotate".`,
		Example: `  pawl keys root remove trust/root-2.pub`,
		Args:    cobra.ExactArgs(1),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		ref, err := keyRef(args[0])
		return ceremony.RemoveRootKey(ref), err
	})
}

func newKeysRootRotate(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:   "rotate OLD NEW",
		Short: "Replace a root key that is lost, stolen or old",
		Long: `Replace a root key: OLD is a fingerprint or a .pub file, NEW is a .pub file.

The new root must be signed by a threshold of the keys of the old root and by one of the keys of
the new root. The old key need not be among them, so a lost key can be replaced by the others.`,
		Example: `  pawl keys root rotate trust/root-2.pub bob-new.pub`,
		Args:    cobra.ExactArgs(2),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		ref, err := keyRef(args[0])
		if err != nil {
			return nil, err
		}
		key, err := publicKey(args[1])
		return ceremony.RotateRootKey(ref, key, args[1]), err
	})
}

func newKeysRootThreshold(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:     "threshold N",
		Short:   "Change how many root keys must sign",
		Long:    `Change how many root keys must sign a change. Fewer than all, so that a lost key can be replaced.`,
		Example: `  pawl keys root threshold 2`,
		Args:    cobra.ExactArgs(1),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, usagef("threshold %q is not a number", args[0])
		}
		return ceremony.SetThreshold(n), nil
	})
}

func newKeysRootRenew(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:   "renew",
		Short: "Give root and targets new dates of expiry",
		Long: `Give root and targets new dates of expiry and change nothing else.

Both are signed by the root keys, so one meeting renews both. "pawl keys show" warns 60 days ahead.`,
		Example: `  pawl keys root renew`,
		Args:    cobra.NoArgs,
	}, func(*cobra.Command, ceremony.Options, []string) (ceremony.Change, error) {
		return ceremony.Renew(), nil
	})
}

func newKeysOnlineRotate(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:   "rotate PUB",
		Short: "Replace the online key",
		Long: `Replace the key that the server signs snapshot and timestamp with.

Give the server the new private key at the moment when the new root is published to it.`,
		Example: `  pawl keys new keys/online-2
  pawl keys online rotate keys/online-2.pub`,
		Args: cobra.ExactArgs(1),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		key, err := publicKey(args[0])
		return ceremony.RotateOnline(key), err
	})
}

func newKeysProductAdd(k *keysApp) *cobra.Command {
	var release, evidence string
	cmd := newKeysChange(k, &cobra.Command{
		Use:   "add NAME",
		Short: "Add a product",
		Long: `Add a product with its release key and its evidence key.

Without --release and --evidence they are keys/release-NAME and keys/evidence-NAME, which are made
if they are not there.`,
		Example: `  pawl keys product add sensor
  pawl keys product add sensor --release sensor.pub --evidence sensor-evidence.pub`,
		Args: cobra.ExactArgs(1),
	}, func(cmd *cobra.Command, o ceremony.Options, args []string) (ceremony.Change, error) {
		name := args[0]
		if err := statement.CheckProduct(name); err != nil {
			return nil, err // before it becomes part of a path
		}
		if _, err := ceremony.Load(o.Trust); err != nil {
			return nil, err
		}
		r, err := k.productKey(cmd, o, release, o.ReleaseKey(name))
		if err != nil {
			return nil, err
		}
		e, err := k.productKey(cmd, o, evidence, o.EvidenceKey(name))
		return ceremony.AddProduct(name, r, e), err
	})
	cmd.Flags().StringVar(&release, "release", "", "public release key (default: that of keys/release-NAME.key)")
	cmd.Flags().StringVar(&evidence, "evidence", "", "public evidence key (default: that of keys/evidence-NAME.key)")
	return cmd
}

// productKey reads a public key, or that of the key pair with the usual name, which is made if it is not there.
func (k *keysApp) productKey(cmd *cobra.Command, o ceremony.Options, pub, usual string) (*ecdsa.PublicKey, error) {
	if pub != "" {
		return publicKey(pub)
	}
	key, err := publicKey(strings.TrimSuffix(usual, ".key") + ".pub")
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := durable.Mkdir(o.Keys, 0o700); err != nil {
		return nil, err
	}
	key, err = ceremony.NewKey(cmd.Context(), o, usual)
	if err == nil {
		k.say("made %s", usual)
	}
	return key, err
}

func newKeysProductRotate(k *keysApp) *cobra.Command {
	var release, evidence string
	var distrust bool
	cmd := newKeysChange(k, &cobra.Command{
		Use:   "rotate NAME",
		Short: "Replace the keys of a product",
		Long: `Replace the release key or the evidence key of a product.

What the old key has signed still counts, so old releases stay installable. After a theft that
must end: --distrust-old makes everything worthless that older keys of the kind have signed, and
releases that shall stay must be released again. Without a new key, --distrust-old ends the trust
in keys that were replaced earlier.

The catalogue of the product must be signed with the new key when this is published:
"pawl release" does so, with the new key named in pawl.yaml.`,
		Example: `  pawl keys new keys/release-greeter-2
  pawl keys product rotate greeter --release keys/release-greeter-2.pub`,
		Args: cobra.ExactArgs(1),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		if release == "" && evidence == "" && !distrust {
			return nil, usagef("give --release, --evidence or --distrust-old")
		}
		var keys [2]*ecdsa.PublicKey
		for i, path := range []string{release, evidence} {
			if path == "" {
				continue
			}
			var err error
			if keys[i], err = publicKey(path); err != nil {
				return nil, err
			}
		}
		return ceremony.RotateProduct(args[0], keys[0], keys[1], distrust), nil
	})
	cmd.Flags().StringVar(&release, "release", "", "new public release key")
	cmd.Flags().StringVar(&evidence, "evidence", "", "new public evidence key")
	cmd.Flags().BoolVar(&distrust, "distrust-old", false, "what older keys have signed no longer counts")
	return cmd
}

func newKeysProductRemove(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a product",
		Long:    `Remove a product: devices take nothing of it any more, neither new nor old.`,
		Example: `  pawl keys product remove sensor`,
		Args:    cobra.ExactArgs(1),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		return ceremony.RemoveProduct(args[0]), nil
	})
}

func newKeysFloorLower(k *keysApp) *cobra.Command {
	return newKeysChange(k, &cobra.Command{
		Use:   "lower PRODUCT N",
		Short: "Tell every device once to take security version N as its floor",
		Long: `Tell every device once to take security version N as the floor of a product.

A floor never falls by itself. When a release has raised it by mistake, and no fixed release can
follow, this is the way back; it needs the threshold of root keys.`,
		Example: `  pawl keys floor lower greeter 3`,
		Args:    cobra.ExactArgs(2),
	}, func(_ *cobra.Command, _ ceremony.Options, args []string) (ceremony.Change, error) {
		n, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return nil, usagef("floor %q is not a security version: a number from 0 on", args[1])
		}
		return ceremony.LowerFloor(args[0], uint32(n)), nil
	})
}

func newKeysSign(k *keysApp) *cobra.Command {
	var keys []string
	var to string
	var yes bool
	cmd := &cobra.Command{
		Use:   "sign [DRAFT] --key KEY",
		Short: "Sign a draft that somebody else has made: file in, file out",
		Long: `Sign a draft that somebody else has made: file in, file out, on a machine that needs no network.

Shows what the draft changes and everything that shall be in force after it, and asks. Compare the
fingerprints with what you know from elsewhere: a draft says itself what it begins at. If there is
a copy of the trust folder below --dir, the draft must begin at what lies there.

Without --out the signature is put into DRAFT itself. Without DRAFT it is trust/draft.json.`,
		Example: `  pawl keys sign draft.json --key root-2.key --out signed.json`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(keys) == 0 {
				return usagef("name the private key with --key")
			}
			o, err := k.options()
			if err != nil {
				return err
			}
			path := append(slices.Clone(args), o.Draft())[0]
			d, err := readOwnDraft(o, path)
			if err != nil {
				return err
			}
			if to == "" {
				to = path
			} else if _, err := os.Lstat(to); err == nil {
				return refusal.New(refusal.Conflict, "signed draft", "%s exists, and nothing is overwritten", to).Do("give another --out")
			}
			signers := map[string]sign.Signer{}
			for _, key := range keys {
				if signers[key], err = o.OpenKey(key); err != nil {
					return err
				}
			}
			if err := k.confirmDraft(o, d, signers, yes); err != nil {
				return err
			}
			for _, key := range keys {
				if d, err = d.Sign(cmd.Context(), signers[key]); err != nil {
					return err
				}
			}
			data, err := d.Encode()
			if err != nil {
				return err
			}
			if err := durable.WriteFile(to, data, 0o644); err != nil {
				return err
			}
			status, err := d.Status()
			if err != nil {
				return err
			}
			status.Path = to
			k.report(status, func(w io.Writer) {
				fmt.Fprintf(w, "Signed with %s, the result is %s.\n", strings.Join(keys, ", "), to)
				if status.Ready {
					fmt.Fprintln(w, "Every threshold is met.")
				}
				fmt.Fprintf(w, "next: send %s back to the person who keeps the trust folder, who runs\n        pawl keys apply %s\n", to, filepath.Base(to))
			})
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "private root key to sign with; may be repeated")
	cmd.Flags().StringVar(&to, "out", "", "file to write; must not exist (default: DRAFT itself)")
	cmd.Flags().BoolVar(&yes, "yes", false, "sign without asking")
	return cmd
}

// readOwnDraft reads a draft and, if there is a trust folder, asks that it begins there.
func readOwnDraft(o ceremony.Options, path string) (ceremony.Draft, error) {
	d, err := ceremony.ReadDraft(path)
	if err != nil {
		return ceremony.Draft{}, err
	}
	f, err := ceremony.Load(o.Trust)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return ceremony.Draft{}, err
	}
	return d, d.Check(f)
}

// confirmDraft shows a draft to the person who shall sign it with these keys, by their paths, and asks.
func (k *keysApp) confirmDraft(o ceremony.Options, d ceremony.Draft, signers map[string]sign.Signer, yes bool) error {
	rows, err := o.KeyRows(d.After())
	if err != nil {
		return err
	}
	for path, s := range signers {
		f, err := sign.Fingerprint(s.PublicKey())
		if err != nil {
			return err
		}
		for i := range rows {
			if rows[i].Fingerprint == f {
				rows[i].Private = path
			}
		}
	}
	if !k.json {
		root := d.After().Root
		fmt.Fprintln(k.err, "This draft changes:")
		printChanges(k.err, d.Changes())
		fmt.Fprintf(k.err, "\nAfter it, %d of %d root keys decide, and these are all keys:\n", root.Threshold, len(root.Keys))
		printKeys(k.err, rows)
		fmt.Fprintln(k.err)
	}
	if yes {
		return nil
	}
	file, ok := k.in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return usagef("nobody was asked: there is no terminal; read the draft, then give --yes")
	}
	fmt.Fprint(k.err, "Sign it? Type yes: ")
	line, err := bufio.NewReader(file).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("not signed: the answer was not yes")
	}
	return nil
}

func newKeysApply(k *keysApp) *cobra.Command {
	return &cobra.Command{
		Use:   "apply [DRAFT ...]",
		Short: "Bring signatures together and put the draft into force",
		Long: `Bring signatures together and put the draft into force.

Takes the signatures of all files that have come back, together with those in trust/draft.json. If
every threshold is met the new documents are written, as a whole; if not, nothing changes, and the
next call needs all files again. Finishes what an interrupted call has begun.`,
		Example: `  pawl keys apply bob-signed.json carol-signed.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := k.options()
			if err != nil {
				return err
			}
			var drafts []ceremony.Draft
			for _, path := range args {
				d, err := ceremony.ReadDraft(path)
				if err != nil {
					return err
				}
				drafts = append(drafts, d)
			}
			out, err := ceremony.Apply(cmd.Context(), o, drafts)
			if err != nil {
				return err
			}
			return k.reportOutcome(o, out)
		},
	}
}

func newKeysDiscard(k *keysApp) *cobra.Command {
	return &cobra.Command{
		Use:   "discard",
		Short: "Give up the draft",
		Long:  `Give up the draft in trust/draft.json. What is in force stays.`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := k.options()
			if err != nil {
				return err
			}
			if err := ceremony.Discard(cmd.Context(), o); err != nil {
				return err
			}
			k.report(map[string]any{"discarded": o.Draft()}, func(w io.Writer) { fmt.Fprintf(w, "There is no draft in %s any more.\n", o.Trust) })
			return nil
		},
	}
}
