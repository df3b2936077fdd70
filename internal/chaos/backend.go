package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/fault"
)

// backend is a real Dovecot, one shard, and what is between it and the proxy.
type backend struct {
	*dovecot.Server
	link    *fault.Link // nil: the proxy connects to it directly
	tlsAddr string      // of the listener with TLS, if it has one
	block   string      // what the proxy's backend block has
	other   string      // likewise of another way to the same server; empty: there is none
	balance string      // what the shard block has
	clock   string      // file with the time that it has, see libfaketime; empty: the true one
	disk    string      // where its own small file system is mounted; empty: none
}

// diskSize is the size of a file system that can be filled up.
const diskSize = "192m"

// mountDisk puts the mail on a file system of its own. The mount is seen by
// this process and its children only, and is gone with them.
func (b *backend) mountDisk() error {
	b.disk = filepath.Join(b.Dir, "mail")
	if err := syscall.Mount("chaos", b.disk, "tmpfs", 0, "mode=0700,size="+diskSize); err != nil {
		b.disk = ""
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	return os.Chown(b.disk, mailID, mailID)
}

// mailID owns the mail, as package dovecot has it.
const mailID = 5000

func (b *backend) filler() string { return filepath.Join(b.disk, "filler") }

// fill leaves no room on the disk.
func (b *backend) fill() error {
	f, err := os.Create(b.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size >= 512; {
		if _, err := f.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) close() error {
	err := b.Kill()
	if b.link != nil {
		err = errors.Join(err, b.link.Close())
	}
	if b.disk != "" {
		err = errors.Join(err, syscall.Unmount(b.disk, 0))
	}
	return errors.Join(err, b.Server.Close())
}

// signal sends sig to the processes of that name.
func (b *backend) signal(name string, sig syscall.Signal) error {
	for _, pid := range b.Processes(name) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// resume ends what a fault has done to the processes: nothing is stopped, and
// the master runs.
func (b *backend) resume(ctx context.Context) error {
	if err := b.Signal(syscall.SIGCONT); err == nil && len(b.Processes("dovecot")) > 0 {
		return nil
	}
	// What an orphan holds of the port keeps a new master from starting.
	if err := b.Kill(); err != nil {
		return err
	}
	return b.Restart(ctx)
}

// seed gives the users their mail.
func (b *backend) seed() error {
	for _, user := range b.Users {
		if err := b.SaveMail(user, archive, dovecot.Message(user, "old message for "+user)); err != nil {
			return err
		}
		var mails [][]byte
		for n := range largeMail {
			mails = append(mails, append(fmt.Appendf(nil, "From: a@example.net\nSubject: large %d for %s\n\n", n, user), largeText(user, n)...))
		}
		if err := b.SaveMail(user, large, mails...); err != nil {
			return err
		}
	}
	return nil
}

// find reads the users' mail from the files, past all that could be wrong.
func (b *backend) find(mail ledger.Mail) error {
	for _, user := range b.Users {
		boxes := &ledger.Mailboxes{Messages: make(map[string]int), Saved: make(map[string]int)}
		mail[user] = boxes
		root := filepath.Join(b.Dir, "mail", user, "Maildir")
		dirs, err := os.ReadDir(root)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			// ".NAME" is a mailbox, "..NAME" one that is being deleted.
			name, ok := strings.CutPrefix(dir.Name(), ".")
			if !ok || !dir.IsDir() || strings.HasPrefix(name, ".") {
				continue
			}
			files, err := messages(filepath.Join(root, dir.Name()))
			if err != nil {
				return err
			}
			boxes.Messages[name] = len(files)
		}
		files, err := messages(root)
		if err != nil {
			return err
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, id, _ := strings.Cut(string(text), header+": ")
			id, _, _ = strings.Cut(id, "\n")
			boxes.Saved[strings.TrimSpace(id)]++
		}
	}
	return nil
}

// messages returns the files of a Maildir.
func messages(dir string) ([]string, error) {
	var files []string
	for _, sub := range []string{"cur", "new"} {
		found, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, f := range found {
			files = append(files, filepath.Join(dir, sub, f.Name()))
		}
	}
	return files, nil
}

// guid asks the backend itself for the GUID of a user's mailbox.
func guid(c *doveadm.ClientConn, user, mailbox string) (string, error) {
	reply, err := c.Do(context.Background(), &doveadm.Command{User: user, Name: "search", Args: []string{"mailbox", mailbox, "all"}})
	if err != nil {
		return "", err
	}
	text := ""
	if reply.Next() {
		text, _ = reply.Text() // its error is that of Close
	}
	return text, reply.Close()
}
