package doveadm

// globalCommands belong to no mail user. The doveadm program never sends them
// over TCP, but a server executes them, with administrator rights.
var globalCommands = []CommandInfo{
	{
		Name: "auth cache flush", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, columns: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), listArg("user")},
		note:   "Without a user the server process dies.",
	},
	{
		Name: "dict get", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: columnsUnknown,
		Params: []Param{
			textOpt('u', "user").danger(TouchesUsers), textArg("dict-uri").only(Series23), textArg("filter-name").only(Series24),
			textArg("key"),
		},
		note: "One column, more for a key with several values.",
	},
	{
		Name: "dict inc", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, MinArgs: 3,
		Params: []Param{
			textOpt('u', "user").danger(TouchesUsers), textArg("dict-uri").only(Series23), numberOpt('t', "timestamp").only(Series24),
			textArg("filter-name").only(Series24), textArg("key"), numberArg("difference"),
		},
	},
	{
		Name: "dict iter", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: columnsUnknown,
		Params: []Param{
			textOpt('u', "user").danger(TouchesUsers), flagOpt('1', "exact"), flagOpt('R', "recurse"), flagOpt('V', "no-value"),
			textArg("dict-uri").only(Series23), textArg("filter-name").only(Series24), textArg("prefix"),
		},
		note: "Two columns, one with `-V`, more for keys with several values.",
	},
	{
		Name: "dict set", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 3,
		Params: []Param{
			textOpt('u', "user").danger(TouchesUsers), textArg("dict-uri").only(Series23), numberOpt('t', "timestamp").only(Series24),
			numberOpt('e', "expire-secs").only(Series24), textArg("filter-name").only(Series24), textArg("key"),
			textArg("value"),
		},
	},
	{
		Name: "dict unset", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: []Param{
			textOpt('u', "user").danger(TouchesUsers), textArg("dict-uri").only(Series23), numberOpt('t', "timestamp").only(Series24),
			textArg("filter-name").only(Series24), textArg("key"),
		},
	},
	{
		Name: "director add", Danger: ReachesHosts, Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textOpt('t', "tag"), textArg("host"), textArg("vhost-count")},
	},
	{
		Name: "director down", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("host")},
	},
	{
		Name: "director dump", Kind: GlobalCommand, Series: Series23, Repeat: RepeatReadOnly, columns: 4,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles)},
	},
	{
		Name: "director flush", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), flagOpt('F', "force-flush"), numberOpt(0, "max-parallel"), textArg("host")},
	},
	{
		Name: "director kick", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textOpt('f', "passdb-field"), textArg("user")},
	},
	{
		Name: "director map", Kind: GlobalCommand, Series: Series23, Repeat: RepeatReadOnly, columns: columnsUnknown,
		Params: []Param{
			textOpt('a', "socket-path").danger(OpensFiles), fileOpt('f', "users-file"), flagOpt('h', "hash-map"),
			flagOpt('u', "user-map"), textArg("host"),
		},
		note: "Four columns, one with `-h` or `-u`.",
	},
	{
		Name: "director move", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("user"), textArg("host")},
	},
	{
		Name: "director remove", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("host")},
	},
	{
		Name: "director ring add", Danger: ReachesHosts, Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("ip"), textArg("port")},
	},
	{
		Name: "director ring remove", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("ip"), textArg("port")},
	},
	{
		Name: "director ring status", Kind: GlobalCommand, Series: Series23, Repeat: RepeatReadOnly, columns: 12,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles)},
	},
	{
		Name: "director status", Kind: GlobalCommand, Series: Series23, Repeat: RepeatReadOnly, columns: columnsUnknown,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("user"), textArg("tag")},
		note:   "Six columns, four with a user.",
	},
	{
		Name: "director up", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("host")},
	},
	{
		Name: "director update", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("host"), textArg("vhost-count")},
	},
	{
		Name: "fs copy", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 3,
		Params: []Param{
			textArg("fs-driver").only(Series23), textArg("fs-args").only(Series23),
			textArg("filter-name").only(Series24), textArg("source-path"), textArg("destination-path"),
		},
	},
	{
		Name: "fs delete", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: []Param{
			flagOpt('R', "recursive"), numberOpt('n', "max-parallel"), textArg("fs-driver").only(Series23),
			textArg("fs-args").only(Series23), textArg("filter-name").only(Series24), listArg("path"),
		},
	},
	{
		Name: "fs get", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: []Param{
			textArg("fs-driver").only(Series23), textArg("fs-args").only(Series23),
			textArg("filter-name").only(Series24), textArg("path"),
		},
	},
	{
		Name: "fs iter", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: []Param{
			flagOpt('C', "no-cache"), flagOpt('O', "object-ids"), textArg("fs-driver").only(Series23),
			textArg("fs-args").only(Series23), textArg("filter-name").only(Series24), textArg("path"),
		},
	},
	{
		Name: "fs iter-dirs", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: []Param{
			textArg("fs-driver").only(Series23), textArg("fs-args").only(Series23),
			textArg("filter-name").only(Series24), textArg("path"),
		},
	},
	{
		Name: "fs metadata", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: 2,
		Params: []Param{
			textArg("fs-driver").only(Series23), textArg("fs-args").only(Series23),
			textArg("filter-name").only(Series24), textArg("path"),
		},
	},
	{
		Name: "fs put", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 3,
		Params: []Param{
			textOpt('h', "hash"), textArg("fs-driver").only(Series23), textArg("fs-args").only(Series23),
			listOpt('m', "metadata").only(Series24), textArg("filter-name").only(Series24),
			textArg("input-path"), textArg("path"),
		},
		note: "Reads a file of the backend.",
	},
	{
		Name: "fs stat", Danger: OpensFiles | ReachesHosts, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: 2,
		Params: []Param{
			textArg("fs-driver").only(Series23), textArg("fs-args").only(Series23),
			textArg("filter-name").only(Series24), textArg("path"),
		},
	},
	{
		Name: "indexer add", Kind: GlobalCommand, Series: Series24, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: []Param{flagOpt('h', "head"), textOpt('n', "max-recent"), textArg("user"), textArg("mailbox")},
	},
	{
		Name: "indexer list", Kind: GlobalCommand, Series: Series24, Repeat: RepeatReadOnly, columns: 6,
		Params: []Param{textArg("user-mask")},
	},
	{
		Name: "indexer remove", Kind: GlobalCommand, Series: Series24, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textArg("user-mask"), textArg("mailbox-mask")},
	},
	{
		Name: "instance list", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: 4,
		Params: []Param{flagOpt('c', "show-config"), textArg("name")},
	},
	{
		Name: "instance remove", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textArg("name")},
	},
	{
		Name: "kick", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, RepeatCode: CodeNotFound, columns: 1,
		Params: []Param{
			textOpt('a', "socket-path").danger(OpensFiles), flagOpt('f', "force").only(Series23),
			textOpt('f', "passdb-field").only(Series24), textOpt('h', "dest-host").only(Series24),
			listArg("mask"),
		},
		note: "2.3: a row for each kicked user name; 2.4: one row with their number.",
	},
	{
		Name: "log errors", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: 4,
		Params: []Param{numberOpt('s', "since")},
	},
	{
		Name: "log find", Danger: OpensFiles, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: columnsNotSent,
		Params: []Param{textArg("log-dir")},
	},
	{
		Name: "log reopen", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent,
	},
	{
		Name: "log test", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent,
	},
	{
		Name: "mailbox mutf7", Right: RightRead, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 1, columns: columnsNotSent,
		Params: []Param{flagOpt('7', "to-utf8"), flagOpt('8', "from-utf8"), listArg("name")},
	},
	{
		Name: "oldstats dump", Kind: GlobalCommand, Series: Series23, Repeat: RepeatReadOnly, MinArgs: 1, columns: columnsUnknown,
		Params: []Param{textOpt('s', "socket-path").danger(OpensFiles), textArg("type"), textArg("filter")},
		note:   "Columns as the statistics process names them.",
	},
	{
		Name: "oldstats reset", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent,
		Params: []Param{textOpt('s', "socket-path").danger(OpensFiles)},
	},
	{
		Name: "penalty", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: 4,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("netmask")},
	},
	{
		Name: "process status", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: 7,
		Params: []Param{listArg("service")},
	},
	{
		Name: "proxy kick", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, columns: 1,
		Params: []Param{
			textOpt('a', "socket-path").danger(OpensFiles), textOpt('f', "passdb-field"), textOpt('h', "host").only(Series23),
			listArg("user").only(Series23), textOpt('h', "dest-host").only(Series24),
			listArg("mask").only(Series24),
		},
	},
	{
		Name: "proxy list", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: columnsUnknown,
		Params: []Param{
			textOpt('a', "socket-path").danger(OpensFiles), flagOpt('1', "separate-connections").only(Series24),
			textOpt('f', "passdb-field").only(Series24), listArg("mask").only(Series24),
		},
		note: "2.3: columns as the login processes name them; 2.4: as `who`.",
	},
	{
		Name: "reload", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatServerWide,
	},
	{
		Name: "replicator add", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("user-mask")},
	},
	{
		Name: "replicator dsync-status", Kind: GlobalCommand, Series: Series23, Repeat: RepeatReadOnly, columns: 3,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles)},
	},
	{
		Name: "replicator remove", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("user")},
	},
	{
		Name: "replicator replicate", Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 1, columns: 1,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), flagOpt('f', "full-sync"), textOpt('p', "priority"), textArg("user-mask")},
	},
	{
		Name: "replicator status", Kind: GlobalCommand, Series: Series23, Repeat: RepeatReadOnly, columns: columnsUnknown,
		Params: []Param{textOpt('a', "socket-path").danger(OpensFiles), textArg("user-mask")},
		note:   "Two columns, six with a user mask.",
	},
	{
		Name: "service status", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: 13,
		Params: []Param{listArg("service")},
	},
	{
		Name: "service stop", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatServerWide, MinArgs: 1,
		Params: []Param{listArg("service")},
	},
	{
		Name: "sis deduplicate", Danger: OpensFiles, Kind: GlobalCommand, Series: Series23, Repeat: RepeatIdempotent, MinArgs: 2,
		Params: []Param{textArg("root-dir"), textArg("queue-dir")},
	},
	{
		Name: "sis find", Danger: OpensFiles, Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 2, columns: 1,
		Params: []Param{textArg("root-dir"), textArg("hash")},
	},
	{
		Name: "stats add", Kind: GlobalCommand, Series: bothSeries, MinArgs: 2,
		Params: []Param{
			textArg("name"), textArg("filter"), textOpt(0, "exporter"), textOpt(0, "exporter-include"),
			textOpt(0, "description"), textOpt(0, "fields"), textOpt(0, "group-by"),
		},
	},
	{
		Name: "stats dump", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatIdempotent, columns: columnsUnknown,
		Params: []Param{textOpt('s', "socket-path").danger(OpensFiles), flagOpt('r', "reset"), textOpt('f', "fields")},
		note:   "Two columns and one for each field. `-r` resets the statistics, so that a repetition does not show them again.",
	},
	{
		Name: "stats remove", Kind: GlobalCommand, Series: bothSeries, MinArgs: 1,
		Params: []Param{textArg("name")},
	},
	{
		Name: "stats reopen", Kind: GlobalCommand, Series: Series24, Repeat: RepeatIdempotent,
	},
	{
		Name: "stop", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatServerWide,
	},
	{
		Name: "user", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, MinArgs: 1, columns: columnsUnknown,
		Params: []Param{
			textOpt('a', "socket-path").danger(OpensFiles), listOpt('x', "auth-info"), textOpt('f', "field"),
			textOpt('e', "expand-field"), flagOpt('u', "userdb-only"), listArg("user-mask"),
		},
		note: "The output is JSON text, not fields.",
	},
	{
		Name: "who", Kind: GlobalCommand, Series: bothSeries, Repeat: RepeatReadOnly, columns: columnsPerConnection,
		Params: []Param{
			textOpt('a', "socket-path").danger(OpensFiles), flagOpt('1', "separate-connections"),
			textOpt('f', "passdb-field").only(Series24), listArg("mask"),
		},
	},
}

// clientCommands exist in the doveadm program only: a server answers them like
// any unknown command.
var clientCommands = []CommandInfo{
	{Name: "auth login", Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "auth lookup", Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "auth test", Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "compress-connect", Danger: ReachesHosts, Kind: ClientCommand, Series: Series24, columns: columnsUnknown},
	{Name: "config", Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "dump", Danger: OpensFiles, Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "exec", Danger: RunsPrograms, Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "help", Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "oldstats top", Kind: ClientCommand, Series: Series23, columns: columnsUnknown},
	{Name: "pw", Kind: ClientCommand, Series: bothSeries, columns: columnsUnknown},
	{Name: "zlibconnect", Danger: ReachesHosts, Kind: ClientCommand, Series: Series23, columns: columnsUnknown},
}
