package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// The plain relay is what the proxy is held against to see how much of its cost
// is Go's own way to wait for sockets: a goroutine for each client, connections
// to the backend that they take in turns, and nothing but reads and writes. It
// understands none of what it passes on, and can do "quota get" at the null
// backend only, one at a time on each connection.

// runPlain is the program's mode "plain". It returns only with an error.
func runPlain(args []string) error {
	flags := flag.NewFlagSet("plain", flag.ContinueOnError)
	address := flags.String("listen", "127.0.0.1:0", "`address`")
	backend := flags.String("backend", "", "`address` of the null backend")
	loop := flags.Bool("loop", false, "wait for sockets in a thread for each processor instead of a goroutine for each client")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *loop {
		return runPlainLoops(*address, *backend)
	}
	conns := make(chan *plainConn, nullConns)
	for range nullConns {
		c, err := dialPlain(*backend)
		if err != nil {
			return err
		}
		conns <- c
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go servePlain(client, conns)
	}
}

// plainConn is a connection to the backend that is logged in.
type plainConn struct {
	nc    net.Conn
	reply [4096]byte
}

func dialPlain(address string) (*plainConn, error) {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &plainConn{nc: nc}
	for _, say := range []string{"VERSION\tdoveadm-server\t1\t2\n", "PLAIN\tAA==\n"} {
		if _, err := io.WriteString(nc, say); err != nil {
			return nil, err
		}
		if _, err := nc.Read(c.reply[:]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

var errPlain = errors.New("something else than the null backend's reply to quota get")

// run has the backend run a command, and returns its reply.
func (c *plainConn) run(request []byte) ([]byte, error) {
	if _, err := c.nc.Write(request); err != nil {
		return nil, err
	}
	n := 0
	for !bytes.HasSuffix(c.reply[:n], []byte("\n+\n")) {
		if n == len(c.reply) {
			return nil, errPlain
		}
		more, err := c.nc.Read(c.reply[n:])
		if err != nil {
			return nil, err
		}
		n += more
	}
	return c.reply[:n], nil
}

func servePlain(client net.Conn, conns chan *plainConn) {
	defer client.Close()
	var request [4096]byte
	greeting := fmt.Appendf(nil, "VERSION\tdoveadm-client\t1\t%d\n-\n", doveadm.MinorExtraFields)
	for _, answer := range [][]byte{greeting, []byte("+\n")} {
		if _, err := client.Read(request[:]); err != nil {
			return
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
	for {
		n, err := client.Read(request[:])
		if err != nil {
			return
		}
		c := <-conns
		reply, err := c.run(request[:n])
		if err != nil {
			fmt.Fprintf(os.Stderr, "plain relay: %v\n", err)
			os.Exit(1)
		}
		_, err = client.Write(reply)
		conns <- c
		if err != nil {
			return
		}
	}
}
