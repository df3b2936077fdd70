// Package moves knows the users who are not where the routes say, and takes a
// user from one shard to another while commands go on.
//
// What is known stands in a database: an exception for each user who was moved,
// and the moves that are under way. Several proxies may share it. Each is a
// member: a row with a lease, which it renews while it runs. A decision about
// a user needs no database: each member has the exceptions in memory.
//
// A move is made by one member, the mover:
//
//  1. prepare: it takes the user for itself and tells all members. They answer,
//     and look into the database often from then on.
//  2. hold: each member lets no new command of the user begin, and answers when
//     none runs any more.
//  3. switch: in one transaction the exception is written and the hold is over,
//     if every member has answered and the move is still the mover's own.
//  4. release: each member learns both at the same time, from the same row. What
//     has waited goes on, to the new shard.
//
// What must hold, whoever dies at whatever moment:
//
//   - A member that does not know the present state does not route. It knows it
//     as long as its lease, which it reckons from before it asked for it, so
//     that for the database it ends later. When it ends, commands are refused
//     and those that run are cut.
//   - The mover switches only if each member whose lease runs has answered that
//     the hold is in force and that no command of the user runs. It learns
//     about members after the hold is written; a member that comes later reads
//     the state, with the hold, after it became a member.
//   - A move has a lease, too. When its mover does not renew it, any member ends
//     it, and the user stays where it was. The switch is refused to a mover
//     whose move has ended.
//
// Nothing of that depends on notifications: they only make it fast. Leases are
// measured by the clock of the database. With the embedded database all members
// run on one machine, where the lock of a file tells whether a member lives;
// there, leases do not end while it does.
package moves
