// Package router decides which shard serves a mail user. A Table is an ordered
// chain of routes; the first that names a shard decides. It is immutable and
// pure: maps are read when it is built, and the same table gives the same
// answer for ever.
//
//	names, err := router.NewNames(cfg.Router)
//	...
//	table, err := router.New(names, cfg.Routes, []string{"s1", "s2"})
//	...
//	decision, err := table.Route(ctx, "alice@example.com")
//	// decision.Shard "s2", decision.Route "match #1",
//	// decision.Reason `"*@example.com" matches the user`
//
// Users are compared in the normal form that Names gives them.
//
// # Match
//
// A match route gives the users of its patterns, domains and regular
// expressions to one shard. In a pattern, * stands for any characters or none
// and ? for exactly one (of UTF-8), the @ included; all else stands for itself.
// A domain is what follows the first @. An expression has to match all of a user.
//
// # File
//
// A file route reads lines "user shard", separated by blanks or tabs. A user
// "@domain" stands for all of a domain, which is what follows the first @ as in
// Dovecot's %d; "*" stands for everybody else. The user's own line goes before
// the domain's, that before "*". Empty lines and what follows a # that begins a
// column are skipped.
//
// # Ring
//
// A ring route spreads all users over its shards, or those whom its selectors
// name. Its algorithm is one of two.
//
// # Rendezvous
//
// By rendezvous hashing (highest random weight) each pair of user and shard has
// a score, and the highest wins.
//
// The algorithm is a promise. Users must not move to another shard because of
// a new release, so it never changes; another one would get another name. It
// can be written again in any language from this description:
//
//	h(s)        = the first 8 bytes of SHA-256(s), as a big-endian integer
//	mix(x)      = x ^= x >> 30;  x *= 0xbf58476d1ce4e5b9
//	              x ^= x >> 27;  x *= 0x94d049bb133111eb
//	              x ^= x >> 31                    (64 bits, unsigned, overflow wraps)
//	score(u, s) = mix(h(u) xor h(s))
//	shard(u)    = the s with the highest score(u, s);
//	              of equal scores the s that comes first in byte order
//
// where u is the user in its normal form, and s the name of
// a shard as it is written, both in UTF-8. Example: h("alice@example.com") is
// 0xff8d9819fc0e12bf. testdata/ring.py is the same in Python; it made
// testdata/ring.golden, which the tests hold the Go code to.
//
// The order in which shards are written has no influence. A shard that is
// added takes its equal share from all others and moves nobody else; the users
// of one that is removed spread over all others and nobody else moves. Renaming
// a shard is removing one and adding one.
//
// Where weights differ, the shard wins whose
//
//	-weight(s) / ln((score(u, s)+0.5)/2^64)
//
// is the highest; shards of weight 0 take no part. For equal weights that grows
// with the score, so that weights move nobody who asked for none. It is computed
// with 64-bit floating-point numbers. More weight for a shard takes users from
// all others and moves nobody else.
//
// # Director
//
// The answers are those of a director of Dovecot 2.3 (src/director/mail-host.c and
// src/lib-mail/mail-user-hash.c). With h(s) as the first 4 bytes of MD5(s), as a
// big-endian integer:
//
//   - A mail server that is not down and has the ring's tag has vhosts 0, 1, ...
//     up to its vhost count, 100 by default, at h("ADDRESS-NUMBER"). The address
//     is written as inet_ntop does.
//   - A user is at h(USER), where USER is what director_username_hash makes of
//     it, but at 1 instead of 0.
//   - The user's server is that of the vhost with that hash, else with the next
//     higher one, else with the lowest of all. Vhosts of equal hashes stand in the
//     order of addresses, IPv4 first; of several with the user's own hash, a binary
//     search finds the one it meets first.
package router
