package dovecot

// Internals that the tests look at.
var Poll = poll
