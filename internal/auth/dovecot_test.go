package auth

import (
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// doveadmPW runs "doveadm pw" of a real Dovecot. Without it these tests would
// prove nothing, so they fail.
func doveadmPW(t *testing.T, version dovecot.Version, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"pw"}, args...)
	if version == dovecot.V24 {
		args = append([]string{"-O"}, args...) // without a configuration
	}
	cmd, err := dovecot.Command(t.Context(), version, "doveadm", args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.Output()
	return strings.TrimSuffix(string(out), "\n"), err
}

var passwords = []string{
	"secret",
	" ",
	"0",
	"pässwörd – 密码 🔑",
	"with space, $dollar$ and {PLAIN}brace",
	strings.Repeat("long ", 14), // just within bcrypt's 72 bytes
}

// TestDovecotHashes: whatever Dovecot makes, we verify; nothing else passes.
func TestDovecotHashes(t *testing.T) {
	t.Parallel()
	all := []string{
		"ARGON2ID", "ARGON2I", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "CRYPT", "PBKDF2",
		"SSHA512", "SSHA256", "SSHA", "SHA512", "SHA256", "SHA1", "SHA", "PLAIN", "CLEAR", "CLEARTEXT",
		"SSHA512.hex", "SSHA256.b64", "SSHA.HEX", "SHA512.hex", "SHA256.b64", "SHA.hex", "PLAIN.b64", "CLEAR.hex",
		"CRYPT.b64", "SHA512-CRYPT.hex", "PBKDF2.b64",
	}
	covered := make(map[string]bool)
	for _, name := range all {
		bare, _, _ := strings.Cut(name, ".")
		covered[bare] = true
		for _, version := range dovecot.Versions() {
			t.Run(name+" of "+string(version), func(t *testing.T) {
				t.Parallel()
				samples := passwords
				switch {
				case version != dovecot.V23:
					samples = passwords[3:4]
				case strings.HasPrefix(name, "ARGON2"):
					samples = passwords[2:4] // each takes 64 MiB and, under the race detector, a second
				}
				for _, password := range samples {
					text, err := doveadmPW(t, version, "-s", name, "-p", password)
					if err != nil {
						t.Fatalf("doveadm pw -s %s -p %q: %v", name, password, err)
					}
					h, err := ParseHash(text)
					if err != nil {
						t.Fatalf("ParseHash(%q): %v", text, err)
					}
					if h.Scheme() != bare {
						t.Errorf("Scheme of %q is %s", text, h.Scheme())
					}
					wantMatch(t, h, password, true)
					wantMatch(t, h, password+"x", false)
					if !strings.HasPrefix(name, "ARGON2") {
						wantMatch(t, h, password[1:], false)
					}
				}
			})
		}
	}
	for _, s := range schemes() {
		// Dovecot has no {ARGON2}; it reads like the two others.
		if !covered[s.name] && s.name != "ARGON2" {
			t.Errorf("scheme %s is not compared with Dovecot", s.name)
		}
	}
}

func wantMatch(t *testing.T, h Hash, password string, want bool) {
	t.Helper()
	if ok, err := h.Match(password); err != nil || ok != want {
		t.Errorf("%v.Match(%q) = %v, %v; want %v", h, password, ok, err, want)
	}
}

// TestEmptyPasswordOfDovecot: such a hash is read for what it is, and the
// verifier lets nobody in by it.
func TestEmptyPasswordOfDovecot(t *testing.T) {
	t.Parallel()
	text, err := doveadmPW(t, dovecot.V23, "-s", "SSHA256", "-p", "")
	if err != nil {
		t.Fatal(err)
	}
	h := mustParse(t, text)
	wantMatch(t, h, "", true)
	v := newFixed(map[string]Hash{"panel": h}, NewCache(CacheOptions{}))
	if ok, err := isRight(v, t.Context(), "panel", ""); ok || err != nil {
		t.Errorf("Verify with an empty password = %v, %v", ok, err)
	}
}

// TestDovecotRounds: parameters other than the default ones.
func TestDovecotRounds(t *testing.T) {
	t.Parallel()
	for scheme, rounds := range map[string]string{
		"SHA512-CRYPT": "1000", "SHA256-CRYPT": "12345", "BLF-CRYPT": "6", "PBKDF2": "123",
	} {
		text, err := doveadmPW(t, dovecot.V24, "-s", scheme, "-r", rounds, "-p", "secret")
		if err != nil {
			t.Fatalf("doveadm pw -s %s -r %s: %v", scheme, rounds, err)
		}
		h := mustParse(t, text)
		wantMatch(t, h, "secret", true)
		wantMatch(t, h, "Secret", false)
	}
}

// TestDovecotAcceptsGenerated: what "doveadm-proxy hash" prints is good for
// Dovecot too.
func TestDovecotAcceptsGenerated(t *testing.T) {
	t.Parallel()
	for _, scheme := range Schemes() {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			const password = "pässwörd – 密码 🔑"
			text, err := Generate(scheme, password)
			if err != nil {
				t.Fatal(err)
			}
			out, err := doveadmPW(t, dovecot.V24, "-t", text, "-p", password)
			if err != nil || !strings.HasSuffix(out, "(verified)") {
				t.Errorf("doveadm pw -t %q = %q, %v", text, out, err)
			}
			if out, err := doveadmPW(t, dovecot.V24, "-t", text, "-p", password+"x"); err == nil {
				t.Errorf("doveadm pw -t %q accepts a wrong password: %q", text, out)
			}
			// That we verify what Dovecot verifies is shown above, with fewer rounds.
			if h := mustParse(t, text); !h.Expensive() {
				wantMatch(t, h, password, true)
			}
		})
	}
}

// TestDovecotSchemesAreDecided: every scheme that a Dovecot lists is either
// accepted or refused with a reason and a better one, none by accident.
func TestDovecotSchemesAreDecided(t *testing.T) {
	t.Parallel()
	for _, version := range dovecot.Versions() {
		out, err := doveadmPW(t, version, "-l")
		if err != nil {
			t.Fatal(err)
		}
		names := strings.Fields(out)
		if len(names) < 20 {
			t.Fatalf("doveadm pw -l of %s = %q", version, out)
		}
		for _, name := range names {
			_, isRefused := refused(name)
			_, err := lookup(name)
			if (err == nil) == isRefused {
				t.Errorf("scheme %s of %s: refused %v, lookup: %v", name, version, isRefused, err)
			}
			if isRefused && !strings.Contains(err.Error(), "ARGON2ID") {
				t.Errorf("scheme %s of %s is refused without a better one: %v", name, version, err)
			}
		}
	}
}
