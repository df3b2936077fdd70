// Package doveadm speaks the protocol of Dovecot's doveadm server, as a client
// and as a server, in the versions 1.0 to 1.4 (Dovecot 2.0 to 2.4 and what
// comes after it). It is for programs that manage mailboxes without starting
// the doveadm command for each step, for servers that want to be managed by it,
// and for what stands between the two. It needs the standard library only.
//
// # The protocol
//
// A client connects, says its version, logs in, and sends one command after the
// other. Fields are separated by TABs (shown as →) and lines end with LF:
//
//	C: VERSION→doveadm-server→1→4        each side names the kind of peer it wants
//	S: VERSION→doveadm-client→1→3        not for a client of version 1.0; the lower minor counts
//	S: -                                 "log in"; or "+": no need to
//	C: PLAIN→AGRvdmVhZG0Ac2VjcmV0        base64 of NUL "doveadm" NUL "secret"
//	S: +                                 or "-" and the end
//	C: →alice→quota get                  flags (none), mail user, command, arguments
//	S: User quota→STORAGE→1→1024→0→      output: fields, each ended by a TAB
//	S: User quota→MESSAGE→6→-→0→         (there is no line end here)
//	S:                                   one LF ends the output
//	S: +                                 the status
//	C: →nouser→quota get
//	S:
//	S: -NOUSER                           a failure
//
// Nothing separates rows: whoever reads must know how many columns a command
// has, which [CommandInfo.Columns] does. Bytes that would not fit are escaped,
// [AppendEscaped]. From version 1.1 on, all that a server sends behind the
// login is on one of two channels, one of them for the lines that it logs
// meanwhile. They carry the only explanation of most failures: a status is a
// word, and nothing else. Up to version 1.3 it is cut into packets of a
// channel, [AppendPacket]; at version 1.4 it is one stream that switches the
// channel, [AppendStream].
//
// There is no way to cancel a command, no number that ties a reply to a
// command, no keepalive and, on Dovecot's side, hardly any timeout.
//
// # Clients
//
// [Dial] connects and logs in, [ClientConn.Do] runs a command, and its [Reply]
// is read field by field as it arrives, whatever its size. Announce [MaxMinor]
// in [ClientOptions] and set OnLog, or failures remain unexplained. A command
// with input, such as "save", is followed by an [InputWriter] on
// [ClientConn.NetConn] before its reply is read. Whether the server speaks in
// packets or in STREAM format makes no difference to who uses these.
//
// Programs that pass replies on without looking into each field use
// [ClientConn.Send], [ClientConn.ReadChunk] and a [ReplyScanner], and decide
// with [ClientConn.Clean] whether a connection can be used again.
//
// # Servers
//
// [NewServerConn] wraps an accepted connection. [ServerConn.Handshake] greets
// and logs the client in, [ServerConn.ReadCommand] reads a request, and the
// Append functions build the reply in a buffer of the caller, in the form that
// this client understands: log lines first ([ServerConn.AppendLog]), output
// ([ServerConn.AppendReply]) and, last, [ServerConn.AppendEnd]. A client
// displays a field as one piece only if it arrives in one write, so write
// whole rows at once. The input of a command that has one must be read with
// [ServerConn.ReadInput], whatever becomes of the command.
//
// # Concurrency and time
//
// A connection carries one command at a time and belongs to one goroutine; only
// Close and, on the server's side, the Append functions may be called by others.
// For work in parallel open several connections,
// but note that each occupies a process of the Dovecot server, of which there
// are 100 by default, and that the next one is accepted and left without a
// greeting.
//
// The contexts of [Dial] and [ClientConn.Do] bound the whole step: a context
// that ends interrupts reading and writing and leaves a connection that can
// only be closed. Everything else waits as long as the deadlines allow that are
// set on NetConn.
//
// # Errors
//
// A [*StatusError] is the answer of the server: the command failed, the
// connection is as good as before. A [*HandshakeError] tells how far a
// login came; [ErrLoginRefused] inside it is the server's no. A [*ProtocolError]
// is something that a peer may not send. [ErrNUL] and [ErrLineTooLong] refuse a
// command before anything of it is sent. All others come from the connection.
// No error holds the password of a login.
//
// Dovecot answers some mistakes of users, such as a wrong search query, by
// closing the connection without a word. So [io.ErrUnexpectedEOF] from a reply
// says nothing about the health of the server.
//
// # At most once
//
// A lost reply is not a lost command. If the connection breaks after Do has
// begun, the command may have run, fully, in part, or not at all, and a server
// that runs it goes on without its client. This package never sends a command
// twice. Whoever wants to repeat one finds in [CommandInfo.Repeat] what a second
// run would do.
//
// # Limits
//
//	request line                1 MiB with its LF, as in Dovecot; servers can set less
//	line before the login       8 KiB as a server
//	status and greeting line    32 KiB as a client
//	log line                    32 KiB; the rest of a longer one is dropped
//	field, reply                none; they are streams
//	packet                      any size; one of more than 256 KiB arrives in pieces,
//	                            and all of version 1.4 in pieces of about 16 KiB
//	memory of an idle conn.     about 4 KiB for each side behind Shrink
//
// # TLS
//
// A Dovecot listener with ssl = yes begins with TLS: hand [NewClientConn] or
// [NewServerConn] a connection of crypto/tls. On others a client may say
// STARTTLS where it would log in, and logs in inside TLS: the StartTLS fields of
// [ClientOptions] and [ServerConn]. Certificates are the business of the
// functions there.
//
// # Input
//
// Only "save" and "sieve put" read input, and nothing in a request says so:
// [CommandInfo.Input] does. It follows the request at once, as dot-ended lines
// without limit of their length. A server that refuses such a command for its
// arguments leaves the input unread and takes its lines for commands, with all
// rights; so whoever passes input of others on sends it only with arguments that
// [CommandInfo.InputArgs] has approved, and closes the connection if the status
// came before the end of the input.
//
// # Tunnels
//
// A successful "dsync-server" makes the connection a two-way stream of another
// protocol: [ClientConn.OpenTunnel] on the one side, [ServerConn.Tunnel] on the
// other. The server goes on framing what it says, the client never does. It ends
// with the connection.
package doveadm
