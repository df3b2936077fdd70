package proxy

// outcome is how a command ended. The same word stands in the log, in metrics
// and decides what the client is told, so that they cannot disagree.
type outcome string

const (
	answered        outcome = "answered"    // the backend's own answer, whatever its status
	denied          outcome = "denied"      // not allowed or not supported
	noUser          outcome = "no-user"     // no shard has the user
	noRoute         outcome = "route-error" // the route could not be found out
	onHold          outcome = "hold"        // the user is being moved, and it took too long
	loops           outcome = "loop"        // proxy-ttl is used up
	unavailable     outcome = "unavailable" // no connection to a backend: nothing was sent
	unanswered      outcome = "unanswered"  // closed by the backend before the first byte of a reply
	lost            outcome = "lost"        // lost in the middle of a reply
	timedOut        outcome = "timeout"     // the backend did not answer within the timeouts of its class
	referralRefused outcome = "referral"    // the backend sends the user elsewhere, where the proxy does not go
	unaudited       outcome = "unaudited"   // not run, because the audit log cannot be written
	overRate        outcome = "over-rate"   // more than the rates of the client
	paused          outcome = "paused"      // held by an operator's pause for as long as that allows
	ended           outcome = "killed"      // an operator ended it
	clientGone      outcome = "client-gone" // the client went away, or reads too slowly for the limits
)

// failed reports whether the client got less than a backend's answer, for a
// reason that is neither its own nor its user's.
func (o outcome) failed() bool {
	switch o {
	case answered, denied, noUser, overRate, clientGone:
		return false
	}
	return true
}
