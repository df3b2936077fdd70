package doveadm

// mailCommands run for the user in the user name field, print only this
// user's data, and are the only ones that the doveadm program sends to a
// server.
var mailCommands = []CommandInfo{
	{
		Name: "acl add", Right: RightWrite, Series: bothSeries, Plugin: "acl", Repeat: RepeatIdempotent, MinArgs: 3,
		Params: mailParams(textArg("mailbox"), textArg("id"), listArg("right")),
	},
	{
		Name: "acl debug", Right: RightRead, Series: bothSeries, Plugin: "acl", Repeat: RepeatReadOnly, MinArgs: 1,
		Params: mailParams(textArg("mailbox")),
		note:   "The result is info log lines only: a client of minor version 0 sees nothing.",
	},
	{
		Name: "acl delete", Right: RightWrite, Series: bothSeries, Plugin: "acl", Repeat: RepeatIdempotent, MinArgs: 2,
		Params: mailParams(textArg("mailbox"), textArg("id")),
	},
	{
		Name: "acl get", Right: RightRead, Series: bothSeries, Plugin: "acl", Repeat: RepeatReadOnly, MinArgs: 1, columns: 3,
		Params: mailParams(flagOpt('m', "match-me"), textArg("mailbox")),
	},
	{
		Name: "acl recalc", Right: RightWrite, Series: bothSeries, Plugin: "acl", Repeat: RepeatIdempotent,
		Params: mailParams(),
	},
	{
		Name: "acl remove", Right: RightWrite, Series: bothSeries, Plugin: "acl", Repeat: RepeatIdempotent, MinArgs: 3,
		Params: mailParams(textArg("mailbox"), textArg("id"), listArg("right")),
	},
	{
		Name: "acl rights", Right: RightRead, Series: bothSeries, Plugin: "acl", Repeat: RepeatReadOnly, MinArgs: 1, columns: 1,
		Params: mailParams(textArg("mailbox")),
	},
	{
		Name: "acl set", Right: RightWrite, Series: bothSeries, Plugin: "acl", Repeat: RepeatIdempotent, MinArgs: 3,
		Params: mailParams(textArg("mailbox"), textArg("id"), listArg("right")),
	},
	{
		Name: "altmove", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(flagOpt('r', "reverse"), listArg("query")),
	},
	{
		Name: "backup", Right: RightMailContent, rule: dsyncDestination, Series: bothSeries, Repeat: RepeatIdempotent, OptionsFirst: true, columns: 1,
		Params: mailParams(dsyncParams...),
		note:   "A row only with `-s`. Runs on the backend and connects from there to its target.",
	},
	{
		Name: "batch", Right: RightWrite, Series: Series23, OptionsFirst: true, MinArgs: 2, columns: columnsUnknown,
		Params: mailParams(textArg("separator"), listArg("args")),
		note:   "Several commands in one; the rows of the parts follow each other.",
	},
	{
		Name: "copy", Right: RightWrite, rule: secondUser, Series: bothSeries, MinArgs: 2,
		Params: mailParams(
			textArg("destination-mailbox"), textArg("source-type").only(Series23).danger(TouchesUsers),
			textArg("source-user").danger(TouchesUsers),
			listArg("query"),
		),
		note: "May name a second user (`user X`), who must be on the same backend.",
	},
	{
		Name: "deduplicate", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(flagOpt('m', "by-msgid"), listArg("query")),
	},
	{
		Name: "dsync-server", Right: RightMailContent, Series: bothSeries, Tunnel: true,
		Params: mailParams(
			flagOpt('E', "legacy-dsync").only(Series23), textOpt('r', "rawlog").danger(OpensFiles), numberOpt('T', "timeout"),
			flagOpt('U', "replicator-notify").only(Series23), textArg("ignore-arg"),
		),
		note: "The connection becomes a dsync stream after `+`.",
	},
	{
		Name: "expunge", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(flagOpt('d', "delete-empty-mailbox"), listArg("query")),
		note:   "A repetition also expunges what arrived in between.",
	},
	{
		Name: "fetch", Right: RightMailContent, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: columnsPerField,
		Params: mailParams(listOpt(0, "field"), textArg("fieldstr"), listArg("query")),
	},
	{
		Name: "flags add", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: mailParams(listOpt(0, "flag"), textArg("flagstr"), listArg("query")),
	},
	{
		Name: "flags remove", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: mailParams(listOpt(0, "flag"), textArg("flagstr"), listArg("query")),
	},
	{
		Name: "flags replace", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: mailParams(listOpt(0, "flag"), textArg("flagstr"), listArg("query")),
	},
	{
		Name: "force-resync", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(flagOpt('f', "fsck"), textArg("mailbox-mask")),
	},
	{
		Name: "fts expand", Right: RightRead, Series: bothSeries, Plugin: "fts", Repeat: RepeatReadOnly, MinArgs: 1, columns: columnsNotSent,
		Params: mailParams(listArg("query")),
	},
	{
		Name: "fts flatcurve check", Right: RightRead, Series: Series24, Plugin: "fts_flatcurve", Repeat: RepeatReadOnly, MinArgs: 1, columns: 4,
		Params: mailParams(listArg("mailbox-mask")),
	},
	{
		Name: "fts flatcurve remove", Right: RightWrite, Series: Series24, Plugin: "fts_flatcurve", Repeat: RepeatIdempotent, MinArgs: 1, columns: 2,
		Params: mailParams(listArg("mailbox-mask")),
	},
	{
		Name: "fts flatcurve rotate", Right: RightWrite, Series: Series24, Plugin: "fts_flatcurve", Repeat: RepeatIdempotent, MinArgs: 1, columns: 2,
		Params: mailParams(listArg("mailbox-mask")),
	},
	{
		Name: "fts flatcurve stats", Right: RightRead, Series: Series24, Plugin: "fts_flatcurve", Repeat: RepeatReadOnly, MinArgs: 1, columns: 6,
		Params: mailParams(listArg("mailbox-mask")),
	},
	{
		Name: "fts lookup", Right: RightRead, Series: bothSeries, Plugin: "fts", Repeat: RepeatReadOnly, MinArgs: 1, columns: columnsNotSent,
		Params: mailParams(listArg("query")),
	},
	{
		Name: "fts optimize", Right: RightWrite, Series: bothSeries, Plugin: "fts", Repeat: RepeatIdempotent,
		Params: mailParams(textArg("namespace")),
	},
	{
		Name: "fts rescan", Right: RightWrite, Series: bothSeries, Plugin: "fts", Repeat: RepeatIdempotent,
		Params: mailParams(textArg("namespace")),
	},
	{
		Name: "fts tokenize", Right: RightRead, Series: bothSeries, Plugin: "fts", Repeat: RepeatReadOnly, MinArgs: 1, columns: 1,
		Params: mailParams(textOpt('l', "language"), listArg("text")),
	},
	{
		Name: "import", Right: RightWrite, rule: mailLocation, Series: bothSeries, MinArgs: 3,
		Params: mailParams(
			textOpt('U', "source-user").danger(TouchesUsers), flagOpt('s', "subscribe"),
			listOpt('p', "source-option").only(Series24).danger(ChangesSettings),
			textArg("source-location").danger(OpensFiles|ReachesHosts), textArg("dest-parent-mailbox"), listArg("query"),
		),
		note: "Reads a path of the backend.",
	},
	{
		Name: "index", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(
			flagOpt('q', "queue"),
			textOpt('n', "max-recent").only(Series23), numberOpt('n', "max-recent").only(Series24),
			textArg("mailbox-mask").only(Series23), listArg("mailbox-mask").only(Series24),
		),
		note: "`-q` queues only.",
	},
	{
		Name: "mail dict get", Series: Series24, Repeat: RepeatReadOnly, MinArgs: 2, columns: columnsUnknown,
		Params: mailParams(textArg("filter-name"), textArg("key")),
		note:   "One column, more for a key with several values.",
	},
	{
		Name: "mail dict inc", Series: Series24, MinArgs: 3,
		Params: mailParams(numberOpt('t', "timestamp"), textArg("filter-name"), textArg("key"), numberArg("difference")),
	},
	{
		Name: "mail dict iter", Series: Series24, Repeat: RepeatReadOnly, MinArgs: 2, columns: columnsUnknown,
		Params: mailParams(
			flagOpt('1', "exact"), flagOpt('R', "recurse"), flagOpt('V', "no-value"), textArg("filter-name"),
			textArg("prefix"),
		),
		note: "Two columns, one with `-V`, more for keys with several values.",
	},
	{
		Name: "mail dict set", Series: Series24, Repeat: RepeatIdempotent, MinArgs: 3,
		Params: mailParams(
			numberOpt('t', "timestamp"), numberOpt('e', "expire-secs"), textArg("filter-name"), textArg("key"),
			textArg("value"),
		),
	},
	{
		Name: "mail dict unset", Series: Series24, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: mailParams(numberOpt('t', "timestamp"), textArg("filter-name"), textArg("key")),
	},
	{
		Name: "mail fs copy", Danger: OpensFiles, Series: Series24, Repeat: RepeatIdempotent, MinArgs: 3,
		Params: mailParams(textArg("filter-name"), textArg("source-path"), textArg("destination-path")),
	},
	{
		Name: "mail fs delete", Danger: OpensFiles, Series: Series24, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: mailParams(flagOpt('R', "recursive"), numberOpt('n', "max-parallel"), textArg("filter-name"), listArg("path")),
	},
	{
		Name: "mail fs get", Danger: OpensFiles, Series: Series24, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: mailParams(textArg("filter-name"), textArg("path")),
	},
	{
		Name: "mail fs iter", Danger: OpensFiles, Series: Series24, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: mailParams(flagOpt('C', "no-cache"), flagOpt('O', "object-ids"), textArg("filter-name"), textArg("path")),
	},
	{
		Name: "mail fs iter-dirs", Danger: OpensFiles, Series: Series24, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: mailParams(textArg("filter-name"), textArg("path")),
	},
	{
		Name: "mail fs metadata", Danger: OpensFiles, Series: Series24, Repeat: RepeatReadOnly, MinArgs: 2, columns: 2,
		Params: mailParams(textArg("filter-name"), textArg("path")),
	},
	{
		Name: "mail fs put", Danger: OpensFiles, Series: Series24, Repeat: RepeatIdempotent, MinArgs: 3,
		Params: mailParams(textOpt('h', "hash"), textArg("filter-name"), textArg("input-path"), textArg("path")),
		note:   "Reads a file of the backend.",
	},
	{
		Name: "mail fs stat", Danger: OpensFiles, Series: Series24, Repeat: RepeatReadOnly, MinArgs: 2, columns: 2,
		Params: mailParams(textArg("filter-name"), textArg("path")),
	},
	{
		Name: "mailbox cache decision", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1, columns: 4,
		Params: mailParams(
			flagOpt('a', "all"), textOpt('f', "fieldstr"), numberOpt('l', "last-used"), textOpt('d', "decision"),
			listArg("mailbox"),
		),
		note: "Changes something only with options.",
	},
	{
		Name: "mailbox cache purge", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(listArg("mailbox")),
	},
	{
		Name: "mailbox cache remove", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1, columns: 3,
		Params: mailParams(listArg("query")),
	},
	{
		Name: "mailbox create", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, RepeatCode: CodeDataErr, MinArgs: 1,
		Params: mailParams(flagOpt('s', "subscriptions"), textOpt('g', "guid"), listArg("mailbox")),
	},
	{
		Name: "mailbox cryptokey export", Right: RightMailContent, Series: bothSeries, Plugin: "mail_crypt", Repeat: RepeatReadOnly, columns: 4,
		Params: mailParams(flagOpt('U', "user-key"), textArg("mailbox")),
		note:   "Prints secret keys.",
	},
	{
		Name: "mailbox cryptokey generate", Right: RightWrite, Series: bothSeries, Plugin: "mail_crypt", columns: 3,
		Params: mailParams(
			flagOpt('U', "user-key-only"), flagOpt('R', "re-encrypt-box-keys"), flagOpt('f', "force"),
			textArg("mailbox"),
		),
	},
	{
		Name: "mailbox cryptokey list", Right: RightRead, Series: bothSeries, Plugin: "mail_crypt", Repeat: RepeatReadOnly, columns: 3,
		Params: mailParams(flagOpt('U', "user-key"), textArg("mailbox")),
	},
	{
		Name: "mailbox cryptokey password", Right: RightWrite, Series: bothSeries, Plugin: "mail_crypt", columns: 1,
		Params: mailParams(
			flagOpt('C', "clear-password"), flagOpt('N', "ask-new-password"), textOpt('n', "new-password"),
			flagOpt('O', "ask-old-password"), textOpt('o', "old-password"),
		),
		note: "The options that ask for a password do not work remotely.",
	},
	{
		Name: "mailbox delete", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, RepeatCode: CodeNotFound, MinArgs: 1,
		Params: mailParams(
			flagOpt('e', "require-empty"), flagOpt('s', "subscriptions"), flagOpt('r', "recursive"),
			flagOpt('Z', "unsafe"), listArg("mailbox"),
		),
	},
	{
		Name: "mailbox list", Right: RightRead, Series: bothSeries, Repeat: RepeatReadOnly, columns: 1,
		Params: mailParams(flagOpt('7', "mutf7"), flagOpt('8', "utf8"), flagOpt('s', "subscriptions"), listArg("mailbox-mask")),
	},
	{
		Name: "mailbox metadata get", Right: RightRead, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: mailParams(flagOpt('s', "allow-empty-mailbox-name"), textArg("mailbox"), textArg("key")),
	},
	{
		Name: "mailbox metadata list", Right: RightRead, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 1, columns: 1,
		Params: mailParams(
			flagOpt('s', "allow-empty-mailbox-name"), flagOpt('p', "prepend-prefix"), textArg("mailbox"),
			textArg("key-prefix"),
		),
	},
	{
		Name: "mailbox metadata set", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 3,
		Params: mailParams(flagOpt('s', "allow-empty-mailbox-name"), textArg("mailbox"), textArg("key"), textArg("value")),
	},
	{
		Name: "mailbox metadata unset", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: mailParams(flagOpt('s', "allow-empty-mailbox-name"), textArg("mailbox"), textArg("key")),
	},
	{
		Name: "mailbox path", Right: RightRead, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 1, columns: 1,
		Params: mailParams(listArg("mailbox"), textOpt('t', "type")),
		note:   "Prints a path of the backend.",
	},
	{
		Name: "mailbox rename", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, RepeatCode: CodeNotFound, MinArgs: 2,
		Params: mailParams(flagOpt('s', "subscriptions"), textArg("mailbox"), textArg("new-name")),
	},
	{
		Name: "mailbox status", Right: RightRead, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: columnsPerStatus,
		Params: mailParams(flagOpt('t', "total-sum"), listOpt('f', "field"), textArg("fieldstr"), listArg("mailbox-mask")),
		note:   "`all`: 10 columns, 11 from 2.4.2 on; the sum of `-t all` has 4.",
	},
	{
		Name: "mailbox subscribe", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(listArg("mailbox")),
	},
	{
		Name: "mailbox unsubscribe", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(listArg("mailbox")),
	},
	{
		Name: "mailbox update", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(
			textOpt('g', "mailbox-guid"),
			textOpt('V', "uid-validity").only(Series23), numberOpt('V', "uid-validity").only(Series24),
			textOpt('N', "min-next-uid").only(Series23), numberOpt('N', "min-next-uid").only(Series24),
			textOpt('R', "min-first-recent-uid").only(Series23), numberOpt('R', "min-first-recent-uid").only(Series24),
			textOpt('H', "min-highest-modseq").only(Series23), numberOpt('H', "min-highest-modseq").only(Series24),
			textOpt('P', "min-highest-pvt-modseq").only(Series23), numberOpt('P', "min-highest-pvt-modseq").only(Series24),
			textArg("mailbox"),
		),
	},
	{
		Name: "move", Right: RightWrite, rule: secondUser, Series: bothSeries, MinArgs: 2,
		Params: mailParams(
			textArg("destination-mailbox"), textArg("source-type").only(Series23).danger(TouchesUsers),
			textArg("source-user").danger(TouchesUsers),
			listArg("query"),
		),
		note: "May name a second user (`user X`), who must be on the same backend. A broken-off move may have copied without expunging.",
	},
	{
		Name: "purge", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent,
		Params: mailParams(),
	},
	{
		Name: "quota get", Right: RightRead, Series: bothSeries, Plugin: "quota", Repeat: RepeatReadOnly, columns: 5,
		Params: mailParams(),
	},
	{
		Name: "quota recalc", Right: RightWrite, Series: bothSeries, Plugin: "quota", Repeat: RepeatIdempotent,
		Params: mailParams(),
	},
	{
		Name: "rebuild attachments", Right: RightWrite, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1, columns: 2,
		Params: mailParams(listArg("query")),
	},
	{
		Name: "save", Right: RightWrite, Series: bothSeries, Input: true,
		Params: mailParams(
			textOpt('m', "mailbox"), numberOpt('U', "uid").only(Series24), textOpt('g', "guid").only(Series24),
			textOpt('r', "received-date").only(Series24), fileArg("file"),
		),
		note: "A file name as argument is a file of the backend, and the input is then read as commands.",
	},
	{
		Name: "search", Right: RightMailContent, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 1, columns: 2,
		Params: mailParams(listArg("query")),
	},
	{
		Name: "sieve activate", Right: RightWrite, Series: bothSeries, Plugin: "sieve", Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(textArg("scriptname")),
	},
	{
		Name: "sieve deactivate", Right: RightWrite, Series: bothSeries, Plugin: "sieve", Repeat: RepeatIdempotent,
		Params: mailParams(),
	},
	{
		Name: "sieve delete", Right: RightWrite, Series: bothSeries, Plugin: "sieve", Repeat: RepeatIdempotent, RepeatCode: CodeNotFound, MinArgs: 1,
		Params: mailParams(flagOpt('a', "ignore-active"), listArg("scriptname")),
	},
	{
		Name: "sieve get", Right: RightMailContent, Series: bothSeries, Plugin: "sieve", Repeat: RepeatReadOnly, MinArgs: 1, columns: 1,
		Params: mailParams(textArg("scriptname")),
	},
	{
		Name: "sieve list", Right: RightRead, Series: bothSeries, Plugin: "sieve", Repeat: RepeatReadOnly, columns: 2,
		Params: mailParams(),
	},
	{
		Name: "sieve put", Right: RightWrite, Series: bothSeries, Plugin: "sieve", Input: true, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: mailParams(flagOpt('a', "activate"), textArg("scriptname"), fileArg("file")),
		note:   "Replaces an existing script.",
	},
	{
		Name: "sieve rename", Right: RightWrite, Series: bothSeries, Plugin: "sieve", Repeat: RepeatIdempotent, RepeatCode: CodeNotFound, MinArgs: 2,
		Params: mailParams(textArg("oldname"), textArg("newname")),
	},
	{
		Name: "sync", Right: RightMailContent, rule: dsyncDestination, Series: bothSeries, Repeat: RepeatIdempotent, OptionsFirst: true, columns: 1,
		Params: mailParams(append(dsyncParams[:len(dsyncParams):len(dsyncParams)], flagOpt('1', "oneway-sync"))...),
		note:   "A row only with `-s`. Runs on the backend and connects from there to its target.",
	},
}

// dsyncParams are the parameters that backup and sync share.
var dsyncParams = []Param{
	flagOpt('f', "full-sync"), flagOpt('P', "purge-remote"), flagOpt('R', "reverse-sync"),
	flagOpt('U', "replicator-notify").only(Series23), numberOpt('l', "lock-timeout"),
	textOpt('r', "rawlog").danger(OpensFiles), textOpt('m', "mailbox"), textOpt('g', "mailbox-guid"),
	listOpt('n', "namespace"), flagOpt('N', "all-namespaces"), listOpt('x', "exclude-mailbox"),
	textOpt('a', "all-mailbox"), textOpt('s', "state"), textOpt('t', "sync-since-time"),
	textOpt('e', "sync-until-time"), textOpt('O', "sync-flags"), textOpt('I', "sync-max-size"),
	numberOpt('T', "timeout"), flagOpt('d', "default-destination").only(Series23).danger(ReachesHosts),
	flagOpt('E', "legacy-dsync").only(Series23), listOpt('p', "destination-option").only(Series24).danger(ChangesSettings),
	listArg("destination").danger(OpensFiles | ReachesHosts | RunsPrograms),
}

func mailParams(own ...Param) []Param {
	return append(commonParams[:len(commonParams):len(commonParams)], own...)
}

func flagOpt(short byte, long string) Param {
	return Param{Short: short, Long: long, Kind: ParamFlag, Series: bothSeries}
}

func textOpt(short byte, long string) Param {
	return Param{Short: short, Long: long, Kind: ParamText, Series: bothSeries}
}

func numberOpt(short byte, long string) Param {
	return Param{Short: short, Long: long, Kind: ParamNumber, Series: bothSeries}
}

func listOpt(short byte, long string) Param {
	return Param{Short: short, Long: long, Kind: ParamList, Series: bothSeries}
}

func fileOpt(short byte, long string) Param {
	return Param{Short: short, Long: long, Kind: ParamFile, Series: bothSeries, Danger: OpensFiles}
}

func textArg(long string) Param {
	return Param{Long: long, Kind: ParamText, Positional: true, Series: bothSeries}
}

func numberArg(long string) Param {
	return Param{Long: long, Kind: ParamNumber, Positional: true, Series: bothSeries}
}

func listArg(long string) Param {
	return Param{Long: long, Kind: ParamList, Positional: true, Series: bothSeries}
}

func fileArg(long string) Param {
	return Param{Long: long, Kind: ParamFile, Positional: true, Series: bothSeries, Danger: OpensFiles}
}

// only limits a parameter to the releases of s.
func (p Param) only(s Series) Param {
	p.Series = s
	return p
}

// danger says what else a value of the parameter makes the server do.
func (p Param) danger(d Danger) Param {
	p.Danger = d
	return p
}
