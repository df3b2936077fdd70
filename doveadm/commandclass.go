package doveadm

// Class says how long a command may take without anything being wrong.
type Class int

const (
	// ClassNormal commands read or write mail: as long as there is much of it.
	ClassNormal Class = iota
	// ClassQuick commands read or write a setting, an index, or the state of a
	// process. They are done in moments, but for locks that others hold:
	// Dovecot waits two minutes for those.
	ClassQuick
	// ClassSlow commands go through whole mailboxes or accounts, and say
	// nothing until they are done. Nobody can say how long that is.
	ClassSlow
)

func (c Class) String() string {
	switch c {
	case ClassQuick:
		return "quick"
	case ClassSlow:
		return "slow"
	}
	return "normal"
}

// Class returns how long the command may take.
func (c *CommandInfo) Class() Class {
	switch c.Name {
	case "acl add", "acl debug", "acl delete", "acl get", "acl remove", "acl rights", "acl set",
		"auth cache flush", "director add", "director down", "director dump", "director flush", "director kick",
		"director map", "director move", "director remove", "director ring add", "director ring remove",
		"director ring status", "director status", "director up", "director update",
		"dict get", "dict inc", "dict set", "dict unset",
		"indexer add", "indexer list", "indexer remove", "instance list", "instance remove", "kick",
		"log errors", "log reopen", "log test",
		"mail dict get", "mail dict inc", "mail dict set", "mail dict unset",
		"mailbox create", "mailbox cryptokey export", "mailbox cryptokey list", "mailbox list",
		"mailbox metadata get", "mailbox metadata list", "mailbox metadata set", "mailbox metadata unset",
		"mailbox mutf7", "mailbox path", "mailbox rename", "mailbox subscribe", "mailbox unsubscribe", "mailbox update",
		"oldstats dump", "oldstats reset", "penalty", "process status", "proxy kick", "proxy list", "quota get",
		"replicator add", "replicator dsync-status", "replicator remove", "replicator status", "service status",
		"sieve activate", "sieve deactivate", "sieve delete", "sieve get", "sieve list", "sieve rename",
		"stats add", "stats dump", "stats remove", "stats reopen", "user", "who":
		return ClassQuick
	case "acl recalc", "altmove", "backup", "deduplicate", "dsync-server", "force-resync",
		"fts flatcurve check", "fts flatcurve rotate", "fts optimize", "fts rescan",
		"import", "index", "mailbox cache purge", "purge", "quota recalc", "rebuild attachments",
		"replicator replicate", "sis deduplicate", "sis find", "sync":
		return ClassSlow
	}
	return ClassNormal
}
