package config

import "net/netip"

// Referrals is the referrals block: where a backend may send a command on to.
// The backends of the configuration are always allowed.
type Referrals struct {
	Networks []netip.Prefix
	MaxHops  int
}

func (r *Referrals) block() block {
	return block{
		name: "referrals",
		doc: "Dovecot 2.4 may answer that a user is on another server (`-REFERRAL`, from `nologin` and `host` of its passdb). The proxy follows it, because clients lose output or fail without a " +
			"message when they are told. It goes to backends that the configuration names, and with the name and password of the referring backend to other servers in `networks`.",
		example: `
referrals {
  networks = ["10.0.1.0/24"]
}`,
		attrs: []attr{
			{
				name: "networks", field: networks(&r.Networks), example: `["10.0.1.0/24"]`,
				doc: "Servers in these networks may be sent commands although no shard names them. They get the password of the backend that refers to them.",
			},
			{
				name: "max_hops", field: count(&r.MaxHops, 0), def: `4`,
				doc: "Referrals that one command follows. `0`: none.",
			},
		},
	}
}
