package doveadm_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// serve is a small doveadm server that knows one command and one user.
func serve(nc net.Conn) {
	defer nc.Close()
	conn := doveadm.NewServerConn(nc, 0)
	nc.SetDeadline(time.Now().Add(5 * time.Second))
	err := conn.Handshake(func(username, password string) (bool, error) {
		return username == doveadm.DefaultUsername && password == "secret", nil
	})
	if err != nil {
		conn.RefuseLogin()
		return
	}
	nc.SetDeadline(time.Time{})

	var cmd doveadm.Command
	for conn.ReadCommand(&cmd) == nil {
		var reply []byte
		status := doveadm.Status{OK: true}
		switch {
		case cmd.Name != "quota get":
			reply = conn.AppendLog(reply, doveadm.LogError, "Unknown command: "+cmd.Name)
			status = doveadm.Status{}
		case cmd.User != "alice":
			reply = conn.AppendLog(reply, doveadm.LogError, "User doesn't exist")
			status = doveadm.Failure(doveadm.CodeNoUser)
		default:
			var row []byte
			for _, field := range []string{"User quota", "STORAGE", "1", "1024", "0"} {
				row = doveadm.AppendEscaped(row, field)
				row = append(row, '\t')
			}
			reply = conn.AppendReply(reply, row)
		}
		// One write: clients drop log lines that arrive behind the status.
		if _, err := nc.Write(conn.AppendEnd(reply, status)); err != nil {
			return
		}
	}
}

// listen starts the server on a free port.
func listen() (address string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(nc)
		}
	}()
	return listener.Addr().String(), func() { listener.Close() }
}

// A client that prints a table.
func ExampleDial() {
	address, stop := listen() // or the doveadm listener of a Dovecot, such as mail1:24245
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	conn, err := doveadm.Dial(ctx, address, doveadm.ClientOptions{Password: "secret", Minor: doveadm.MaxMinor})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	cmd := &doveadm.Command{User: "alice", Name: "quota get"}
	reply, err := conn.Do(ctx, cmd)
	if err != nil {
		log.Fatal(err)
	}
	info, _ := doveadm.LookupCommand(cmd.Name)
	columns, _ := info.Columns(cmd.Args)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "root\ttype\tvalue\tlimit\tpercent")
	var row []string
	for reply.Next() {
		field, err := reply.Text()
		if err != nil {
			log.Fatal(err)
		}
		if row = append(row, field); len(row) == columns {
			fmt.Fprintln(table, strings.Join(row, "\t"))
			row = row[:0]
		}
	}
	if err := reply.Err(); err != nil {
		log.Fatal(err)
	}
	table.Flush()
	// Output:
	// root        type     value  limit  percent
	// User quota  STORAGE  1      1024   0
}

// A failure is a status; why it failed is in the log lines.
func ExampleClientConn_Do() {
	address, stop := listen()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	conn, err := doveadm.Dial(ctx, address, doveadm.ClientOptions{
		Password: "secret",
		Minor:    doveadm.MaxMinor,
		OnLog: func(level doveadm.LogLevel, text string) {
			fmt.Printf("%s: %s\n", level, text)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	for _, user := range []string{"alice", "nouser"} {
		reply, err := conn.Do(ctx, &doveadm.Command{User: user, Name: "quota get"})
		if err != nil {
			log.Fatal(err)
		}
		for reply.Next() {
			fmt.Print(user, ": ")
			if _, err := reply.WriteTo(os.Stdout); err != nil {
				log.Fatal(err)
			}
			fmt.Println()
		}
		var failure *doveadm.StatusError
		switch err := reply.Err(); {
		case err == nil:
			fmt.Println(user, "done")
		case errors.As(err, &failure) && failure.Status.Code == doveadm.CodeNoUser:
			fmt.Println(user, "does not exist") // the connection is as good as before
		default:
			log.Fatal(err) // the command may have run or not
		}
	}
	// Output:
	// alice: User quota
	// alice: STORAGE
	// alice: 1
	// alice: 1024
	// alice: 0
	// alice done
	// error: User doesn't exist
	// nouser does not exist
}

// The server of the other examples (serve, above) and a client of version 1.0
// that is made of lines.
func ExampleServerConn() {
	client, server := net.Pipe()
	defer client.Close()
	go serve(server)

	in := bufio.NewReader(client)
	for _, step := range []struct {
		send  string
		lines int // of the answer
	}{
		{"VERSION\tdoveadm-server\t1\t0\n", 1},
		{"PLAIN\tAGRvdmVhZG0Ac2VjcmV0\n", 1},
		{"\talice\tquota get\n", 2},
		{"\tnouser\tquota get\n", 2},
	} {
		fmt.Printf("C: %q\n", step.send)
		if _, err := client.Write([]byte(step.send)); err != nil {
			log.Fatal(err)
		}
		for range step.lines {
			line, err := in.ReadString('\n')
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("S: %q\n", line)
		}
	}
	// Output:
	// C: "VERSION\tdoveadm-server\t1\t0\n"
	// S: "-\n"
	// C: "PLAIN\tAGRvdmVhZG0Ac2VjcmV0\n"
	// S: "+\n"
	// C: "\talice\tquota get\n"
	// S: "User quota\tSTORAGE\t1\t1024\t0\t\n"
	// S: "+\n"
	// C: "\tnouser\tquota get\n"
	// S: "\n"
	// S: "-NOUSER\n"
}
