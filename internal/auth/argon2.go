package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"

	"golang.org/x/crypto/argon2"
)

const (
	// The most that libsodium's strongest preset ("sensitive") asks for, and
	// with it "doveadm pw -r": 1 GiB. Twice its passes are tolerated.
	maxArgon2Memory = 1 << 20 // KiB
	maxArgon2Work   = 8 << 20 // memory in KiB times passes

	// From here on (KiB) the memory of a check goes back to the system at once.
	// Left to the collector, 128 MiB stay resident for up to two minutes after
	// two logins with the default parameters. The price is fresh pages for the
	// next check: 0.28 s instead of 0.19 s where it was measured.
	returnedMemory = 16 << 10

	// What Dovecot makes: libsodium's interactive preset, with a third pass.
	newArgon2Memory = 64 << 10 // KiB
	newArgon2Passes = 3
)

type argon2Hash struct {
	variant   string // i or id
	memory    uint32 // KiB
	passes    uint32
	lanes     uint8
	salt, key []byte
}

func parseArgon2id(data string) (matcher, error) { return parseArgon2Variant(data, "id") }
func parseArgon2i(data string) (matcher, error)  { return parseArgon2Variant(data, "i") }

// parseArgon2 reads the scheme that Dovecot 2.4 has for either variant.
func parseArgon2(data string) (matcher, error) { return parseArgon2Variant(data, "") }

func parseArgon2Variant(data, variant string) (matcher, error) {
	form := regexp.MustCompile(`^\$argon2(id?)\$v=19\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,10})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$`)
	f := form.FindStringSubmatch(data)
	if f == nil {
		return nil, errors.New("the data is not of the form $argon2id$v=19$m=KiB,t=passes,p=lanes$salt$hash: copy it whole")
	}
	if variant != "" && variant != f[1] {
		return nil, fmt.Errorf("the data is of argon2%s: write {ARGON2%s}", f[1], strings.ToUpper(f[1]))
	}
	lanes, err1 := parameter("p", f[4], 1, 255)
	memory, err2 := parameter("m", f[2], 8*max(lanes, 1), maxArgon2Memory)
	passes, err3 := parameter("t", f[3], 1, maxArgon2Work/max(memory, 1))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(f[5])
	key, err2 := base64.RawStdEncoding.DecodeString(f[6])
	switch {
	case err1 != nil || err2 != nil:
		return nil, errors.New("salt or hash is not base64: copy it whole")
	case len(salt) < 8 || len(salt) > 64: // RFC 9106, section 3.1, has no sensible upper limit
		return nil, fmt.Errorf("a salt of %d bytes is outside 8 to 64: %s", len(salt), remedy)
	case len(key) < 16 || len(key) > 64: // libsodium's crypto_pwhash_BYTES_MIN is 16
		return nil, fmt.Errorf("a hash of %d bytes is outside 16 to 64: %s", len(key), remedy)
	}
	return argon2Hash{f[1], uint32(memory), uint32(passes), uint8(lanes), salt, key}, nil
}

func (h argon2Hash) match(password string) (bool, error) {
	key := h.compute(password, uint32(len(h.key)))
	if h.memory >= returnedMemory {
		debug.FreeOSMemory()
	}
	return subtle.ConstantTimeCompare(key, h.key) == 1, nil
}

func (h argon2Hash) compute(password string, size uint32) []byte {
	derive := argon2.IDKey
	if h.variant == "i" {
		derive = argon2.Key
	}
	return derive([]byte(password), h.salt, h.passes, h.memory, h.lanes, size)
}

func generateArgon2id(password string) (string, error) {
	h := argon2Hash{variant: "id", memory: newArgon2Memory, passes: newArgon2Passes, lanes: 1, salt: randomSalt()}
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, h.memory, h.passes, h.lanes, encode(h.salt), encode(h.compute(password, 32))), nil
}
