package doveadm

import (
	"bytes"
	"strconv"
)

// Minor is a minor version of the protocol; the major version is always 1.
// Nothing is negotiated: each side announces its own highest version and both
// use a feature if the lower of the two has it.
type Minor uint32

// The minor versions, named by what they added.
const (
	MinorBase        Minor = 0 // Dovecot 2.0: raw output, no log lines
	MinorMultiplex   Minor = 1 // 2.2.33: VERSION reply, framed output with a log channel
	MinorSTARTTLS    Minor = 2 // 2.3.9
	MinorExtraFields Minor = 3 // 2.4.0: flag x, OPTION, logs only after log-passthrough
	MinorStream      Minor = 4 // after 2.4.4, not released yet: output in STREAM format instead of PACKET
)

// MaxMinor is the highest minor version that this package speaks.
const MaxMinor = MinorStream

const major = "1"

// The service names of the VERSION line. They are reversed compared with
// Dovecot's other protocols: each side names the kind of peer it wants.
const (
	serviceWantedByClient = "doveadm-server"
	serviceWantedByServer = "doveadm-client"
)

var versionPrefix = []byte("VERSION\t")

func appendVersion(dst []byte, service string, m Minor) []byte {
	dst = append(dst, versionPrefix...)
	dst = append(dst, service...)
	dst = append(dst, '\t')
	dst = append(dst, major...)
	dst = append(dst, '\t')
	dst = strconv.AppendUint(dst, uint64(m), 10)
	return append(dst, '\n')
}

// parseVersion returns the minor version of a VERSION line, which must have
// exactly four fields, name the service and have our major version.
func parseVersion(line []byte, service string) (Minor, bool) {
	rest, ok := bytes.CutPrefix(line, versionPrefix)
	if !ok {
		return 0, false
	}
	name, rest, ok := bytes.Cut(rest, []byte{'\t'})
	if !ok || string(name) != service {
		return 0, false
	}
	maj, min, ok := bytes.Cut(rest, []byte{'\t'})
	if !ok || string(maj) != major || len(min) == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(min), 10, 32)
	if err != nil {
		return 0, false
	}
	return Minor(n), true
}
