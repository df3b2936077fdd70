package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// backendName is how the proxy knows its backend.
const backendName = "mail1"

// makeTemplate fills the mail of the template user and keeps it as the
// template of all others.
func (t *twins) makeTemplate(ctx context.Context) error {
	if err := t.direct.SaveMail(templateUser, "INBOX", templateMails()...); err != nil {
		return err
	}
	if err := t.direct.SaveMail(templateUser, "Archive", dovecot.Message("user", "old message"), dovecot.Message("user", "older message")); err != nil {
		return err
	}
	if err := t.runAll(ctx, templateUser, templateCommands()); err != nil {
		return fmt.Errorf("make the mail of the template: %w", err)
	}
	if err := writeFiles(homeOf(t.direct, templateUser)); err != nil {
		return fmt.Errorf("make the mail of the template: %w", err)
	}
	t.template = filepath.Join(t.direct.Dir, "template")
	err := copyTree(homeOf(t.direct, templateUser), t.template)
	if err != nil {
		return err
	}
	if t.fresh, err = stateOf(t.template); err != nil {
		return err
	}
	return t.learn(t.template)
}

// writeDict writes the dict of all users, in the directory of their homes, for
// nothing of a user's is known to Dovecot's "mail dict".
func (t *twins) writeDict() error {
	var errs []error
	for _, s := range []*dovecot.Server{t.direct, t.behind} {
		path := filepath.Join(s.Dir, "mail", "dict")
		info, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		errs = append(errs, os.WriteFile(path, []byte(dictText(users())), 0o600), os.Chown(path, int(owner.Uid), int(owner.Gid)))
	}
	return errors.Join(errs...)
}

// writeFiles puts files that are no mail into a home, with the home's owner.
func writeFiles(home string) error {
	info, err := os.Stat(home)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	for name, text := range otherFiles {
		path := filepath.Join(home, name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
		for ; err == nil && path != home; path = filepath.Dir(path) {
			err = os.Chown(path, int(owner.Uid), int(owner.Gid))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runAll runs commands directly; each must succeed.
func (t *twins) runAll(ctx context.Context, user string, commands []command) error {
	r := rawClient{addr: t.direct.Addr, minor: doveadm.MaxMinor}
	defer r.close()
	for _, c := range commands {
		o, err := r.run(ctx, &c, user)
		if err == nil && o.Status != "+" {
			err = errors.New(o.String())
		}
		if err != nil {
			return fmt.Errorf("%s %q: %w", c.name, c.args, err)
		}
	}
	return nil
}

// fillBigUser gives the big user more than the others have, on both twins.
func (t *twins) fillBigUser(ctx context.Context) error {
	if err := t.direct.SaveMail(bigUser, "Large", largeMail()); err != nil {
		return err
	}
	var many [][]byte
	for n := range 500 {
		many = append(many, dovecot.Message("user", fmt.Sprintf("message %d of many", n+1)))
	}
	if err := t.direct.SaveMail(bigUser, "Many", many...); err != nil {
		return err
	}
	if err := t.runAll(ctx, bigUser, bigCommands()); err != nil {
		return fmt.Errorf("make the mail of user %s: %w", bigUser, err)
	}
	from, to := homeOf(t.direct, bigUser), homeOf(t.behind, bigUser)
	return errors.Join(copyTree(from, to), t.learn(from))
}

// fillOddUser gives a user mailboxes that Dovecot lists, but would not make.
func (t *twins) fillOddUser() error {
	for _, s := range []*dovecot.Server{t.direct, t.behind} {
		for _, name := range oddMailboxes {
			maildir := filepath.Join(homeOf(s, oddUser), "Maildir")
			if err := copyTree(filepath.Join(maildir, ".Empty"), filepath.Join(maildir, "."+name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func homeOf(s *dovecot.Server, user string) string { return filepath.Join(s.Dir, "mail", user) }

// reset gives a user the mail of the template again, on both twins.
func (t *twins) reset(user string) error {
	return errors.Join(copyTree(t.template, homeOf(t.direct, user)), copyTree(t.template, homeOf(t.behind, user)))
}

// states returns the state of a user's mail on both twins.
func (t *twins) states(user string) (direct, behind string, err error) {
	direct, errDirect := stateOf(homeOf(t.direct, user))
	behind, errBehind := stateOf(homeOf(t.behind, user))
	return direct, behind, errors.Join(errDirect, errBehind)
}

// copyTree makes a directory the same as another, with owners and modification
// times, which are the dates that mails were received. What has the right size
// and time is left as it is.
func copyTree(from, to string) error {
	if err := removeOthers(from, to); err != nil {
		return err
	}
	var dirs []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, path)
		}
		return copyEntry(path, to+strings.TrimPrefix(path, from), info)
	})
	// What was made in a directory has changed its time.
	for _, dir := range slices.Backward(dirs) {
		info, statErr := os.Stat(dir)
		if statErr == nil {
			target := to + strings.TrimPrefix(dir, from)
			statErr = os.Chtimes(target, info.ModTime(), info.ModTime())
		}
		err = errors.Join(err, statErr)
	}
	return err
}

// removeOthers removes from a directory what another one does not have.
func removeOthers(from, to string) error {
	return filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		other, err := os.Lstat(from + strings.TrimPrefix(path, to))
		if err == nil && other.Mode().Type() == d.Type() {
			return nil
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if d.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
}

func copyEntry(from, to string, info fs.FileInfo) error {
	old, err := os.Lstat(to)
	exists := err == nil
	switch {
	case info.IsDir() && exists:
		return nil
	case info.IsDir():
		err = os.Mkdir(to, info.Mode().Perm())
	case info.Mode().Type() == fs.ModeSymlink:
		os.Remove(to)
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	case !info.Mode().IsRegular():
		return nil // a socket
	case exists && old.Size() == info.Size() && old.ModTime().Equal(info.ModTime()):
		return nil
	default:
		var data []byte
		if data, err = os.ReadFile(from); err == nil {
			// Not into the old file, which a process may have mapped.
			os.Remove(to)
			err = os.WriteFile(to, data, info.Mode().Perm())
		}
		if err == nil {
			err = os.Chtimes(to, info.ModTime(), info.ModTime())
		}
	}
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return os.Lchown(to, int(owner.Uid), int(owner.Gid))
}

// learn remembers what looks like a random number and is the same on both
// twins, because it was there before the commands.
func (t *twins) learn(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, number := range randomHex.FindAll(data, -1) {
			t.known[string(number)] = true
		}
		return err
	})
}

// stateOf describes the mail in a user's home in lines of text: all that a
// command can change of it, without Dovecot's indexes and caches.
func stateOf(root string) (string, error) {
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		base := filepath.Base(path)
		if leftOut.MatchString(base) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
			lines = append(lines, name+"/")
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			lines = append(lines, name+" -> "+target)
		default:
			data, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			lines = append(lines, describeFile(name, data))
		}
		return nil
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", err
}

// leftOut of a state: what depends on when Dovecot looked and not on what it
// was told.
var leftOut = regexp.MustCompile(`^(dovecot\.index.*|dovecot\.list\.index.*|dovecot\.mailbox\.log.*|dovecot-uidvalidity.*|maildirfolder|tmp|.*\.lock|fts-flatcurve|dovecot-acl-list|\.cache)$`)

// describeFile describes small text as it is and mails by their hash.
func describeFile(name string, data []byte) string {
	dir, base := filepath.Split(name)
	if flags := mailName.FindStringSubmatch(base); flags != nil {
		// New mails have names made of time, process and host.
		return fmt.Sprintf("%sMAIL%s %.6x", dir, flags[1], sha256.Sum256(data))
	}
	switch base {
	case "dovecot-uidlist":
		return describeUIDList(name, string(data))
	case "dovecot-attributes":
		return describeDict(name, data)
	}
	return fmt.Sprintf("%s %q", name, data)
}

// describeUIDList leaves out what Dovecot adds to a list at times of its own:
// the sizes of mails, and the next UID of the header, which may be behind that
// of the last mail.
func describeUIDList(name, text string) string {
	header, records, _ := strings.Cut(text, "\n")
	next, lines := 0, []string{}
	if n := nextUID.FindStringSubmatch(header); n != nil {
		next, _ = strconv.Atoi(n[1])
	}
	for record := range strings.Lines(records) {
		record = sizeInUIDList.ReplaceAllString(mailInUIDList.ReplaceAllString(record, ":MAIL"), "")
		uid, _, _ := strings.Cut(record, " ")
		if n, err := strconv.Atoi(uid); err == nil {
			next = max(next, n+1)
		}
		lines = append(lines, record)
	}
	return fmt.Sprintf("%s %q", name, nextUID.ReplaceAllString(header, fmt.Sprintf(" N%d", next))+"\n"+strings.Join(lines, ""))
}

// describeDict sorts the keys of a dict, each of which has a line before that
// of its value. Dovecot writes them in an order that differs each time.
func describeDict(name string, data []byte) string {
	text := strings.TrimSuffix(string(data), "\n")
	var pairs []string
	for lines := strings.Split(text, "\n"); len(lines) > 1; lines = lines[2:] {
		pairs = append(pairs, fmt.Sprintf("%s %q = %q", name, lines[0], lines[1]))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "\n")
}

var (
	mailName      = regexp.MustCompile(`^\d+\.M[^,:]*((?:,[SW]=\d+)*(?::2,.*)?)$`)
	mailInUIDList = regexp.MustCompile(`:\d+\.M\S*`)
	sizeInUIDList = regexp.MustCompile(` [SW]\d+`)
	nextUID       = regexp.MustCompile(` N(\d+)`)
)
