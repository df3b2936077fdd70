package proxy

// outcome is how a command ended. The same word stands in the log, in metrics
// and decides what the client is told, so that they cannot disagree.
type outcome uint8

const (
	undecided       outcome = iota
	answered                // the backend's own answer, whatever its status
	denied                  // not allowed or not supported
	noUser                  // no shard has the user
	noRoute                 // the route could not be found out
	onHold                  // the user is being moved, and it took too long
	loops                   // proxy-ttl is used up
	unavailable             // no connection to a backend: nothing was sent
	unanswered              // closed by the backend before the first byte of a reply
	lost                    // lost in the middle of a reply
	timedOut                // the backend did not answer within the timeouts of its class
	referralRefused         // the backend sends the user elsewhere, where the proxy does not go
	unaudited               // not run, because the audit log cannot be written
	overRate                // more than the rates of the client
	paused                  // held by an operator's pause for as long as that allows
	ended                   // an operator ended it
	clientGone              // the client went away, or reads too slowly for the limits
	outcomes        = iota  // how many there are
)

var outcomeWords = [outcomes]string{
	undecided:       "",
	answered:        "answered",
	denied:          "denied",
	noUser:          "no-user",
	noRoute:         "route-error",
	onHold:          "hold",
	loops:           "loop",
	unavailable:     "unavailable",
	unanswered:      "unanswered",
	lost:            "lost",
	timedOut:        "timeout",
	referralRefused: "referral",
	unaudited:       "unaudited",
	overRate:        "over-rate",
	paused:          "paused",
	ended:           "killed",
	clientGone:      "client-gone",
}

func (o outcome) String() string { return outcomeWords[o] }

// failed reports whether the client got less than a backend's answer, for a
// reason that is neither its own nor its user's.
func (o outcome) failed() bool {
	switch o {
	case answered, denied, noUser, overRate, clientGone:
		return false
	}
	return true
}
