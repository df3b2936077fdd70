package config

import (
	"net/netip"
	"time"
)

// LoginDefence is the login_defence block: what keeps guessers of passwords
// out.
type LoginDefence struct {
	AddressFailures int // 0: no limit
	NameFailures    int // 0: no limit
	Recovery        time.Duration
	Exempt          []netip.Prefix
}

func (d *LoginDefence) block() block {
	return block{
		name: "login_defence",
		doc: "What keeps guessers of passwords out. An address (for IPv6, its /64) and a name that fail too often are refused without a look at the password, with the same answer as a wrong one. " +
			"Who shows the password with which that name has logged in from that address within the last day is let in whatever a neighbour does. [security.md](security.md) has more.",
		example: `
login_defence {
  address_failures = 10
  exempt           = ["10.0.0.5/32"]
}`,
		attrs: []attr{
			{
				name: "address_failures", field: count(&d.AddressFailures, 0), def: `20`,
				doc: "Failed logins of one address after which the next ones are refused. `0`: never.",
			},
			{
				name: "name_failures", field: count(&d.NameFailures, 0), def: `200`,
				doc: "Failed logins with one name, from all addresses together, after which the next ones are refused, but for those from where that name has logged in. `0`: never.",
			},
			{
				name: "recovery", field: duration(&d.Recovery, 1), def: `"10m"`,
				doc: "The time in which the counts go from the limit to zero, evenly: with 20 failures and 10 minutes, one more login is looked at every 30 seconds.",
			},
			{
				name: "exempt", field: networks(&d.Exempt), example: `["10.0.0.5/32", "2001:db8::/64"]`,
				doc: "Addresses whose failures do not count.",
			},
		},
	}
}
