package router

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/userformat"
)

// director gives every user to the shard on the mail server to which a director
// of Dovecot 2.3 sends it. How it is computed is in the package comment.
type director struct {
	label  string
	format *userformat.Format
	// The vhosts in the order of their hashes, apart from the rest so that a
	// search touches little memory.
	hashes []uint32
	vhosts []vhost
	// One a server.
	addresses []netip.Addr
	decisions []Decision
}

type vhost struct{ server, number uint32 }

func newDirector(name string, r config.Route, shards []string) (*director, []error) {
	d := &director{label: name}
	var errs []error
	var err error
	if d.format, err = userformat.Parse(cmp.Or(r.Ring.UsernameHash, config.DefaultUsernameFormat)); err != nil {
		errs = append(errs, fmt.Errorf("username_hash: %w", err))
	}
	if len(r.Ring.Servers) == 0 {
		errs = append(errs, errors.New("no mail servers: write server blocks"))
	}
	type place struct {
		hash uint32
		vhost
	}
	var ring []place
	for i, s := range r.Ring.Servers {
		if err := checkShard(s.Shard, shards); err != nil {
			errs = append(errs, fmt.Errorf("server %s: %w", s.Address, err))
		}
		reason := fmt.Sprintf("the director's ring gives the user to %s, which is %s", s.Address, s.Shard)
		d.addresses = append(d.addresses, s.Address)
		d.decisions = append(d.decisions, Decision{Shard: s.Shard, Route: name, Reason: reason})
		if s.Down || s.Tag != r.Ring.Tag {
			continue
		}
		text := addressText(s.Address)
		for number := range s.VHosts {
			sum := md5.Sum([]byte(text + "-" + strconv.Itoa(number)))
			ring = append(ring, place{binary.BigEndian.Uint32(sum[:]), vhost{uint32(i), uint32(number)}})
		}
	}
	if len(ring) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("no mail server can get users: of those with the tag %q, all are down or have no vhosts", r.Ring.Tag))
	}
	slices.SortStableFunc(ring, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), d.addresses[a.server].Compare(d.addresses[b.server]))
	})
	for _, p := range ring {
		d.hashes = append(d.hashes, p.hash)
		d.vhosts = append(d.vhosts, p.vhost)
	}
	return d, errs
}

// addressText writes an address as inet_ntop of the C library does, to which the
// last part of an IPv4-compatible one (::a.b.c.d) is one of IPv4.
func addressText(a netip.Addr) string {
	if a.Is6() {
		b := a.As16()
		if [12]byte(b[:12]) == [12]byte{} && (b[12] != 0 || b[13] != 0) {
			return "::" + netip.AddrFrom4([4]byte(b[12:])).String()
		}
	}
	return a.String()
}

func (d *director) name() string { return d.label }

func (d *director) decide(_ context.Context, user string) (Decision, bool, error) {
	_, at := d.find(user)
	return d.decisions[d.vhosts[at].server], true, nil
}

// find returns the hash of a user and the place of the vhost that has it.
func (d *director) find(user string) (hash uint32, at int) {
	var stack [256]byte
	sum := md5.Sum(d.format.Append(stack[:0], user))
	// To a director 0 is no user.
	hash = max(1, binary.BigEndian.Uint32(sum[:]))
	return hash, d.search(hash)
}

// search returns the place of a vhost with the hash, else of the next one, else
// of the first. Of several with the hash it is the one that a director finds,
// whose search stops where it first meets the hash.
func (d *director) search(hash uint32) int {
	left, right := 0, len(d.hashes)
	for left < right {
		middle := (left + right) / 2
		switch {
		case d.hashes[middle] < hash:
			left = middle + 1
		case d.hashes[middle] > hash:
			right = middle
		default:
			return middle
		}
	}
	if left == len(d.hashes) {
		return 0
	}
	return left
}

func (d *director) explain(_ context.Context, user string) (string, error) {
	hash, at := d.find(user)
	v := d.vhosts[at]
	return fmt.Sprintf("%s: the user's hash is %d, and the next vhost is %s-%d at %d",
		d.decisions[v.server].Reason, hash, addressText(d.addresses[v.server]), v.number, d.hashes[at]), nil
}

func (d *director) close() {}
