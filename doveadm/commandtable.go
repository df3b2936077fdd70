package doveadm

import (
	"maps"
	"math/bits"
	"slices"
	"strings"
)

//go:generate go test -run ^TestCommandsDocument$ -update-commands .

// CommandInfo is what is known about one command of the doveadm server. The
// entries are shared: callers must not change them. Any number of goroutines
// may use them.
//
// The facts are those of Dovecot 2.3.19.1 and 2.4.1 with their plugins
// (src/doveadm, src/plugins/*/doveadm-*.c) and of Pigeonhole of the same age.
type CommandInfo struct {
	Name   string // the words with single spaces, e.g. "mailbox list"
	Kind   CommandKind
	Series Series // the releases that know the command; 0: an unknown command

	// Plugin that a server must have loaded to know the command, or empty.
	Plugin string

	// Input: dot-ended input follows the request line at once. A server that
	// refuses the arguments does not read it and takes its lines for commands,
	// so whoever passes such a command on must be sure of the arguments first:
	// no error of NormalizeArgs, no option that the server's series lacks, and
	// no file name among the arguments.
	Input bool

	// Tunnel: after a successful status the connection carries the dsync
	// protocol until it is closed.
	Tunnel bool

	// Repeat says whether the command may be sent again after its reply was
	// lost. RepeatCode, if not empty, is the failure that the second run may
	// report although the first succeeded.
	Repeat     Repeat
	RepeatCode string

	// OptionsFirst: options end at the first positional argument; everywhere
	// else they may follow it.
	OptionsFirst bool

	// Params in the order of the server's own table, which matters for
	// abbreviated names. Empty for unknown commands and for a ClientCommand.
	Params []Param

	// Right is what a client needs to run the command.
	Right Right

	// Danger is what the command makes a server do whatever its arguments are.
	// Effects tells what it is with certain arguments.
	Danger Danger

	// MinArgs is the number of positional arguments that the usage text
	// requires in every series. They may be given as --name=value too.
	MinArgs int

	rule    argumentRule
	columns columnRule
	note    string // for operators, one sentence or two
}

// CommandKind says for whom a command runs.
type CommandKind uint8

const (
	MailCommand   CommandKind = iota // for the mail user in the user name field
	GlobalCommand                    // for the server; the user name field is ignored
	ClientCommand                    // only in the doveadm program; servers do not know it
)

// Series is a set of Dovecot release series.
type Series uint8

const (
	Series23 Series = 1 << iota // 2.3.x
	Series24                    // 2.4.x

	bothSeries = Series23 | Series24
)

// Repeat says whether a command may be sent again.
type Repeat uint8

const (
	RepeatNever      Repeat = iota // a second run does the work twice
	RepeatReadOnly                 // changes nothing
	RepeatIdempotent               // a second run leaves the same state
	RepeatServerWide               // stops or reloads a whole server
)

// Param is one parameter of a command. Every parameter has a long name, those
// filled by positional arguments too.
type Param struct {
	Short      byte   // option letter, 0 if it has none
	Long       string // "name" of --name
	Kind       ParamKind
	Positional bool   // filled by positional arguments
	Series     Series // the releases that have it
	Danger     Danger // what a value of it may make the server do

	common commonOption
}

// ParamKind is the kind of a parameter's value.
type ParamKind uint8

const (
	ParamFlag   ParamKind = iota // no value
	ParamText                    // one value, the last one counts
	ParamNumber                  // a decimal number; 2.3 ignores anything else, 2.4 refuses it
	ParamList                    // each occurrence adds a value
	ParamFile                    // the name of a file of the server
)

// commonOption tells the options apart that every mail command has.
type commonOption uint8

const (
	notCommon commonOption = iota
	allUsers
	socketPath
	userName
	transFlags
	noUserdbLookup
	userFile
)

// commonParams stand first in the parameters of every mail command
// (DOVEADM_CMD_MAIL_COMMON in src/doveadm/doveadm-mail.h).
var commonParams = []Param{
	{Short: 'A', Long: "all-users", Kind: ParamFlag, Series: bothSeries, common: allUsers, Danger: TouchesUsers},
	{Short: 'S', Long: "socket-path", Kind: ParamText, Series: bothSeries, common: socketPath, Danger: ReachesHosts},
	{Short: 'u', Long: "user", Kind: ParamText, Series: bothSeries, common: userName, Danger: TouchesUsers},
	{Long: "trans-flags", Kind: ParamNumber, Series: bothSeries, common: transFlags},
	{Long: "no-userdb-lookup", Kind: ParamFlag, Series: Series24, common: noUserdbLookup},
	{Short: 'F', Long: "user-file", Kind: ParamFile, Series: bothSeries, common: userFile, Danger: OpensFiles | TouchesUsers},
}

// unknownCommand stands for all commands that are not in the table.
var unknownCommand = CommandInfo{columns: columnsUnknown}

var commandIndex = indexCommands(mailCommands, globalCommands, clientCommands)

func indexCommands(tables ...[]CommandInfo) map[string]*CommandInfo {
	index := make(map[string]*CommandInfo)
	for _, table := range tables {
		for i := range table {
			index[table[i].Name] = &table[i]
		}
	}
	return index
}

// Commands returns all entries, by name.
func Commands() []*CommandInfo {
	return slices.SortedFunc(maps.Values(commandIndex), func(a, b *CommandInfo) int { return strings.Compare(a.Name, b.Name) })
}

// LookupCommand returns the entry of a command by its exact name. For a name
// that is not in the table it returns false and an entry that is safe to work
// with: a mail command without input that must not be repeated and of whose
// options and columns nothing is known.
func LookupCommand(name string) (*CommandInfo, bool) {
	if c, ok := commandIndex[name]; ok {
		return c, true
	}
	return &unknownCommand, false
}

// LookupWords is LookupCommand for a request whose command may be spread over
// several fields, as servers from 2.2.22 on accept it: "mailbox" with the
// arguments "list", "-s" is "mailbox list" with "-s". It returns the arguments
// that remain.
func LookupWords(name string, args []string) (*CommandInfo, []string, bool) {
	const maxWords = 3 // of the longest name
	c, ok := LookupCommand(name)
	for i := 0; !ok && i < min(len(args), maxWords-1); i++ {
		name += " " + args[i]
		if c, ok = LookupCommand(name); ok {
			return c, args[i+1:], true
		}
	}
	return c, args, ok
}

// MaxArgs returns the highest number of positional arguments that any series
// takes, or -1 if there is no limit. A server answers one more with USAGE.
func (c *CommandInfo) MaxArgs() int {
	if !c.known() {
		return -1
	}
	limit := 0
	for _, s := range [...]Series{Series23, Series24} {
		n := 0
		for _, p := range c.Params {
			if !p.Positional || p.Series&s == 0 {
				continue
			}
			if p.Kind == ParamList {
				return -1
			}
			n++
		}
		limit = max(limit, n)
	}
	return limit
}

// known reports whether the parameters of the command are in the table.
func (c *CommandInfo) known() bool { return c.Series != 0 && c.Kind != ClientCommand }

// columnRule is the number of columns of a command's rows, or one of the rules
// below.
type columnRule int8

const (
	columnsUnknown       columnRule = -1 - iota // depends on data or release
	columnsNotSent                              // printed to the server's own standard output
	columnsPerField                             // fetch
	columnsPerStatus                            // mailbox status
	columnsPerConnection                        // who
)

// Columns returns the number of fields in a row of output, without the user
// name column of 2.3 servers, for a command with these arguments. It is 0 if
// no field ever arrives, and ok is false if the number cannot be known.
//
// For "mailbox status" with the field "all" it is the number of servers up to
// 2.4.1, see ColumnsVary.
func (c *CommandInfo) Columns(args []string) (n int, ok bool) {
	switch c.columns {
	case columnsUnknown:
		return 0, false
	case columnsNotSent:
		return 0, true
	case columnsPerField:
		return c.fetchColumns(args)
	case columnsPerStatus:
		return c.statusColumns(args)
	case columnsPerConnection:
		return c.whoColumns(args)
	default:
		return int(c.columns), true
	}
}

// fetchColumns: one column for each word of the first argument, repetitions
// included (parse_fetch_fields in doveadm-mail-fetch.c).
func (c *CommandInfo) fetchColumns(args []string) (n int, ok bool) {
	r := argumentReader{command: c, args: args}
	for r.next() {
		switch {
		case r.param == nil && r.positional == 1:
			n = countWords(r.value)
		case r.param != nil && namesFields(r.param):
			return 0, false
		}
	}
	return n, n > 0 && !r.failed
}

// namesFields: how --field and --fieldstr count beside the first argument
// differs between 2.3 and 2.4, and no doveadm program sends them.
func namesFields(p *Param) bool { return p.Long == "field" || p.Long == "fieldstr" }

// countWords counts what spaces, and only spaces, separate.
func countWords(s string) (n int) {
	for s != "" {
		var word string
		word, s, _ = strings.Cut(s, " ")
		if word != "" {
			n++
		}
	}
	return n
}

// Fields of "mailbox status" in the order of their columns.
var statusFields = [...]string{
	"messages", "recent", "deleted", "uidnext", "uidvalidity", "unseen",
	"highestmodseq", "vsize", "guid", "firstsaved",
}

const (
	// What "all" stands for: everything but "deleted", which 2.4.2 added.
	allStatusFields = 1<<len(statusFields) - 1 - 1<<2
	// What -t can sum, and what "all" stands for with it.
	totalStatusFields = 1<<0 | 1<<1 | 1<<5 | 1<<7
)

// statusRequest is what the arguments of "mailbox status" ask for.
type statusRequest struct {
	at    int  // index of the fields among the arguments
	all   bool // "all" is one of them
	total bool // -t: one row with the sum
	set   int  // the fields, each once, as bits
}

// statusRequest reads the arguments as status_parse_fields does (in
// doveadm-mail-mailbox-status.c). A request that kills the server process is
// not ok.
func (c *CommandInfo) statusRequest(args []string) (req statusRequest, ok bool) {
	fields := ""
	r := argumentReader{command: c, args: args}
	for r.next() {
		switch {
		case r.param == nil:
			if r.positional == 1 {
				fields, req.at = r.value, len(args)-len(r.args)-1
			}
		case r.param.Long == "total-sum":
			req.total = true
		case namesFields(r.param):
			return req, false
		}
	}
	if r.failed {
		return req, false
	}
	for fields != "" {
		var word string
		word, fields, _ = strings.Cut(fields, " ")
		switch i := statusField(word); {
		case word == "":
		case word == "all":
			req.all = true
		case i < 0 || req.total && totalStatusFields&(1<<i) == 0:
			return req, false
		default:
			req.set |= 1 << i
		}
	}
	switch {
	case req.all && req.total:
		req.set |= totalStatusFields
	case req.all:
		req.set |= allStatusFields
	}
	return req, req.set != 0
}

// statusColumns: the mailbox name, unless -t asks for a sum, and each field
// once.
func (c *CommandInfo) statusColumns(args []string) (n int, ok bool) {
	req, ok := c.statusRequest(args)
	if !ok {
		return 0, false
	}
	if !req.total {
		n = 1
	}
	return n + bits.OnesCount(uint(req.set)), true
}

// ColumnsVary reports whether servers of the same protocol version, 1.3 or
// higher, send different numbers of columns for these arguments: "mailbox
// status" with the field "all", which means "deleted" as well from 2.4.2 on.
func (c *CommandInfo) ColumnsVary(args []string) bool {
	if c.columns != columnsPerStatus {
		return false
	}
	req, ok := c.statusRequest(args)
	return ok && req.all && !req.total && req.set == allStatusFields
}

// SpellOut returns arguments whose ColumnsVary with each field by its name, so
// that every server sends the columns that Columns counts. Others it returns
// as they are. It does not change args.
func (c *CommandInfo) SpellOut(args []string) []string {
	if !c.ColumnsVary(args) {
		return args
	}
	req, _ := c.statusRequest(args)
	var names []string
	for i, name := range statusFields {
		if req.set&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	args = slices.Clone(args)
	args[req.at] = strings.Join(names, " ")
	return args
}

func statusField(name string) int {
	for i, f := range statusFields {
		if f == name {
			return i
		}
	}
	return -1
}

// whoColumns: with -1 there is a row for each connection, whose columns depend
// on the release and on the user name fields of the server.
func (c *CommandInfo) whoColumns(args []string) (n int, ok bool) {
	r := argumentReader{command: c, args: args}
	for r.next() {
		if r.param != nil && r.param.Long == "separate-connections" {
			return 0, false
		}
	}
	return 5, !r.failed
}
