package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// storeTimeout is how long systemd may take to let go of a descriptor.
const storeTimeout = 5 * time.Second

// The names under which systemd keeps listeners (FDNAME= of sd_notify(3)) may
// not have a colon. The key of a listener has one, the names of socket units
// have none: so the two kinds are told apart.
var (
	toStored   = strings.NewReplacer("%", "%25", ":", "%3A")
	fromStored = strings.NewReplacer("%25", "%", "%3A", ":")
)

// storeListener gives systemd a copy of an open listener, which it hands to the
// next process of the unit: connections that arrive in between wait.
func storeListener(key string, listener *os.File) error {
	return notifyWith("FDSTORE=1\nFDPOLL=0\nFDNAME="+toStored.Replace(key), listener)
}

// unstoreListener has systemd close its copy, and returns when it has.
func unstoreListener(key string) error {
	if err := notifyWith("FDSTOREREMOVE=1\nFDNAME="+toStored.Replace(key), nil); err != nil {
		return err
	}
	// systemd closes what comes with a barrier when it has done everything
	// that was sent before.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = notifyWith("BARRIER=1", w)
	w.Close()
	if err != nil {
		return err
	}
	r.SetReadDeadline(time.Now().Add(storeTimeout))
	if _, err := r.Read(make([]byte, 1)); os.IsTimeout(err) {
		return fmt.Errorf("systemd still keeps the listener %s", key)
	}
	return nil
}

// notifyWith sends a message and, unless it is nil, a file to systemd. It does
// nothing where the process does not run under systemd.
func notifyWith(message string, file *os.File) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// Package net does not send descriptors on a connected datagram socket.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer unix.Close(fd)
	send := func(rights []byte) {
		err = unix.Sendmsg(fd, []byte(message), rights, &unix.SockaddrUnix{Name: path}, 0)
	}
	if file == nil {
		send(nil)
	} else if raw, rawErr := file.SyscallConn(); rawErr != nil {
		err = rawErr
	} else if rawErr := raw.Control(func(fd uintptr) { send(unix.UnixRights(int(fd))) }); rawErr != nil {
		err = rawErr
	}
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
