package doveadm_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// The two ends of a tunnel. What is said in it is another protocol, here one of
// lines that come back in capitals.
func ExampleClientConn_OpenTunnel() {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		conn := doveadm.NewServerConn(server, 0)
		var cmd doveadm.Command
		if conn.Handshake(nil) != nil || conn.ReadCommand(&cmd) != nil {
			return
		}
		server.Write(conn.AppendEnd(nil, doveadm.Status{OK: true}))
		lines := bufio.NewScanner(conn.Tunnel())
		for lines.Scan() {
			// This direction stays framed.
			answer := conn.AppendReply(nil, []byte(strings.ToUpper(lines.Text())+"\n"))
			if _, err := server.Write(answer); err != nil {
				return
			}
		}
	}()

	conn, err := doveadm.NewClientConn(client, doveadm.ClientOptions{Minor: doveadm.MaxMinor})
	if err != nil {
		log.Fatal(err)
	}
	tunnel, err := conn.OpenTunnel(context.Background(), &doveadm.Command{
		User: "alice", Name: "dsync-server", Args: []string{"-ualice"},
	})
	if err != nil {
		log.Fatal(err) // a *doveadm.StatusError is the server's no
	}
	defer tunnel.Close()
	answers := bufio.NewReader(tunnel)
	for _, line := range []string{"hello", "good-bye"} {
		if _, err := io.WriteString(tunnel, line+"\n"); err != nil {
			log.Fatal(err)
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(answer)
	}
	// Output:
	// HELLO
	// GOOD-BYE
}

// The same reply to clients of three versions: as it is, in packets, and in
// STREAM format, whose header was sent with the login.
func ExampleServerConn_AppendReply() {
	for _, minor := range []string{"0", "3", "4"} {
		client, server := net.Pipe()
		go io.WriteString(client, "VERSION\tdoveadm-server\t1\t"+minor+"\n")
		go io.Copy(io.Discard, client)
		conn := doveadm.NewServerConn(server, 0)
		if err := conn.Handshake(nil); err != nil {
			log.Fatal(err)
		}
		reply := conn.AppendReply(nil, []byte("INBOX\t\x03\xfe\t"))
		fmt.Printf("1.%s: %q\n", minor, conn.AppendEnd(reply, doveadm.Status{OK: true}))
		client.Close()
		server.Close()
	}
	// Output:
	// 1.0: "INBOX\t\x03\xfe\t\n+\n"
	// 1.3: "\x00\x00\x00\x00\tINBOX\t\x03\xfe\t\x00\x00\x00\x00\x03\n+\n"
	// 1.4: "INBOX\t\x03\xfe\x01\xfe\t\n+\n"
}
