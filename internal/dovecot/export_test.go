package dovecot

// Internals that the tests look at.
var (
	Program = program
	Poll    = poll
)
