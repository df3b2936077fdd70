package doveadm_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/textproto"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// serveSave is a server that says what it would save.
func serveSave(nc net.Conn) {
	defer nc.Close()
	conn := doveadm.NewServerConn(nc, 0)
	if conn.Handshake(nil) != nil { // nil: whoever comes is trusted, as on a UNIX socket
		return
	}
	var cmd doveadm.Command
	for conn.ReadCommand(&cmd) == nil {
		info, args, _ := doveadm.LookupWords(cmd.Name, cmd.Args)
		if !info.Input {
			nc.Write(conn.AppendEnd(nil, doveadm.Status{}))
			continue
		}
		// It is read to its end before anything is looked at: what is left
		// would be taken for commands.
		input, err := io.ReadAll(conn.ReadInput())
		if err != nil {
			return
		}
		if _, err := info.InputArgs(doveadm.Series24, args); err != nil {
			reply := conn.AppendLog(nil, doveadm.LogError, err.Error())
			nc.Write(conn.AppendEnd(reply, doveadm.Failure(doveadm.CodeUsage)))
			continue
		}
		lines, err := textproto.NewReader(bufio.NewReader(strings.NewReader(string(input)))).ReadDotBytes()
		if err != nil {
			return
		}
		mail := strings.TrimSuffix(string(lines), "\n") // one line end is not the mail's
		reply := conn.AppendLog(nil, doveadm.LogInfo, fmt.Sprintf("%s of %s gets %q", args, cmd.User, mail))
		nc.Write(conn.AppendEnd(reply, doveadm.Status{OK: true}))
	}
}

// A mail is saved: the command, its input, its reply.
func ExampleInputWriter() {
	client, server := net.Pipe()
	go serveSave(server)
	conn, err := doveadm.NewClientConn(client, doveadm.ClientOptions{
		Minor: doveadm.MaxMinor,
		OnLog: func(level doveadm.LogLevel, text string) { fmt.Printf("%s: %s\n", level, text) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	reply, err := conn.Do(context.Background(), &doveadm.Command{User: "alice", Name: "save", Args: []string{"-m", "Sent"}})
	if err != nil {
		log.Fatal(err)
	}
	input := doveadm.NewInputWriter(conn.NetConn())
	if _, err := io.Copy(input, strings.NewReader("Subject: hello\n\n.\n..\nnot the end\n")); err != nil {
		log.Fatal(err)
	}
	if err := input.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.Close())
	// Output:
	// info: [-m Sent] of alice gets "Subject: hello\n\n.\n..\nnot the end\n"
	// <nil>
}
