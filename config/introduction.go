package config

// introduction is the reference before the blocks.
const introduction = `
# Configuration

<!-- Generated from the tables in config/ by "go generate ./config". Change those. -->

The configuration is one file, or a directory: then all its files whose names end in ` + "`.hcl`" + ` (but do not begin
with a dot) are read in the order of their names, as if they were one. Everything has a default except who connects where, so
this is complete:

` + "```hcl" + minimal + "```" + `

Check a configuration before it is used, and look at all of it with the defaults filled in:

` + "```" + `
doveadm-proxy check --config /etc/doveadm-proxy/proxy.hcl
doveadm-proxy check --config /etc/doveadm-proxy/proxy.hcl --print
` + "```" + `

All problems are reported at once, each with its file and line and with what to write instead. Nothing in a file is ever ignored:
a name that is not on this page is an error. A running proxy reads its configuration again on SIGHUP
(` + "`systemctl reload doveadm-proxy`" + `); if there is an error in it, the proxy says so in its log and goes on with what it had.

## How to write it

A *block* has a kind, a name in double quotes where its kind has names, and braces. An *attribute* has a name and a value; each
stands on a line of its own, and a block on one line holds one attribute at most. ` + "`#`" + ` begins a comment.

| value | is written | examples |
|---|---|---|
| text | in double quotes; ` + "`\\\"`" + ` and ` + "`\\\\`" + ` for a quote and a backslash, ` + "`$${`" + ` for ` + "`${`" + ` | ` + "`\"10.0.0.1:24245\"`" + ` |
| number | without quotes | ` + "`8`" + ` |
| duration | in double quotes, a number with its unit: ` + "`ms`, `s`, `m` or `h`" + ` | ` + "`\"500ms\"`, `\"10s\"`, `\"1h30m\"`" + ` |
| size | in double quotes, a whole number with its unit: ` + "`B`, `KiB`, `MiB`, `GiB` or `TiB`" + ` | ` + "`\"512MiB\"`" + ` |
| list | in brackets, with commas | ` + "`[\"s1\", \"s2\"]`" + ` |
| path | text; a relative path starts at the directory of the file it is written in | ` + "`\"users.map\"`" + ` |

Instead of a value, or inside a text between ` + "`${` and `}`" + `, may stand

- ` + "`env(\"NAME\")`" + `: a variable of the environment of the process. It is an error if there is none of that name;
- ` + "`file(\"path\")`" + `: what is in a file, without spaces and line ends around it.

Names of blocks have no spaces and no control characters, and are at most 128 bytes long.

## Secrets

Passwords belong into files that only the proxy's user can read (` + "`password_file`" + `), or into its environment (` + "`password = env(\"NAME\")`" + `).
A path that begins with ` + "`credential:`" + ` names a file that systemd hands to the service: ` + "`password_file = \"credential:panel\"`" + ` with
` + "`LoadCredential=panel:/path/to/the/file`" + ` in its unit. Password files and those of TLS are read again when they change; the rest with a reload.
Each password may have an old one beside it while it is being replaced. Secrets never show in a log, in a message about
a wrong configuration (where they stand as ` + "`***`" + `) or in what ` + "`check --print`" + ` prints. [secrets.md](secrets.md) has more.

` + "```" + `
umask 027
mkdir -p /etc/doveadm-proxy/secrets
doveadm-proxy hash > /etc/doveadm-proxy/secrets/doveadm
chgrp -R doveadm-proxy /etc/doveadm-proxy/secrets
` + "```" + `
`

// minimal is a complete configuration.
const minimal = `
listener "main" {
  address = "127.0.0.1:24245"
}

client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

backend_defaults {
  password_file = "/etc/doveadm-proxy/secrets/backends"
}

shard "s1" {
  backend "mail1" {
    address = "10.0.1.1:24245"
  }
}
`
