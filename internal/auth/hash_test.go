package auth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func mustParse(t testing.TB, text string) Hash {
	t.Helper()
	h, err := ParseHash(text)
	if err != nil {
		t.Fatalf("ParseHash(%q): %v", text, err)
	}
	return h
}

const (
	argon2idText = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$KiO90Nk0WbxHrZzPJkfXUg$C2Ud/fXDtiDMfDU0GKXfbV2p5WB7lWDprSmyOsfbKAg"
	bcryptText   = "{BLF-CRYPT}$2y$05$r3ethRgWB6qnCgfFbnZDvuv2TCU3VHY8jzI6C7yE5P0WsK2ri6oh6"
	sha512Text   = "{SHA512-CRYPT}$6$tmzW65r/8Zf1A7My$JwSchQIUIRRmRFCM6Cu/ILco8IPBeFnflNAR0nznFDap9qQaBVcp7waq.lHDvU8F20mKiOzOF1tNYoaPcGwEo."
	sha256Text   = "{SHA256-CRYPT}$5$rtm96mbq7YneGTZi$qMPfim/ENYpZbDU8oSpBbj/NpPHPr9weAFyRudmsUl8"
	pbkdf2Text   = "{PBKDF2}$1$fmnQW1EypavHlgSx$5000$0f45c533c5345ead30142307bca54f7502c4b156"
	textPassword = "pä ss"
)

// TestParseHash reads forms that "doveadm pw" does not write but people do.
func TestParseHash(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Replace(argon2idText, "{ARGON2ID}", "{ARGON2}", 1),
		strings.Replace(bcryptText, "{BLF-CRYPT}$2y$", "{Crypt}$2b$", 1),
		strings.Replace(bcryptText, "$2y$", "$2a$", 1),
		strings.Replace(sha512Text, "{SHA512-CRYPT}", "{CRYPT}", 1),
		strings.Replace(sha256Text, "{SHA256-CRYPT}", "{Crypt}", 1),
		strings.Replace(sha256Text, "$5$", "$5$rounds=5000$", 1),
		"{PLAIN.base64}cMOkIHNz",
		"{plain.hex}70c3a4207373",
		"{SHA256}93c77c9e7fe0bf2271586735cf765c0fc39fa43bb667a66f00ad91dadb03276d", // hex, told by its length
		"{SHA}948d0e1f459da04fe87b41c07621f0b6ae63d51a",
	} {
		wantMatch(t, mustParse(t, text), textPassword, true)
		wantMatch(t, mustParse(t, text), textPassword+" ", false)
	}
}

// TestStrongestAccepted: the limits leave room for the strongest that
// libsodium's presets and "doveadm pw -r" make. They are not computed here.
func TestStrongestAccepted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Replace(argon2idText, "m=65536,t=3", "m=1048576,t=4", 1),
		strings.Replace(argon2idText, "{ARGON2ID}$argon2id$v=19$m=65536,t=3", "{ARGON2I}$argon2i$v=19$m=524288,t=8", 1),
		strings.Replace(argon2idText, "p=1", "p=4", 1),
		strings.Replace(bcryptText, "$05$", "$14$", 1),
		strings.Replace(sha512Text, "$6$", "$6$rounds=5000000$", 1),
		strings.Replace(pbkdf2Text, "$5000$", "$1300000$", 1),
	} {
		if h := mustParse(t, text); !h.Expensive() {
			t.Errorf("%v is taken for cheap", h)
		}
	}
}

// TestNewSalts: the same password gives another hash each time.
func TestNewSalts(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, s := range schemes() {
		if s.generate == nil || s.expensive {
			continue
		}
		for range 100 {
			text, err := Generate(s.name, "secret")
			if err != nil || seen[text] {
				t.Fatalf("Generate(%s, …) = %q, %v; seen before: %v", s.name, text, err, seen[text])
			}
			seen[text] = true
		}
	}
	if len(seen) == 0 {
		t.Error("no cheap scheme to make")
	}
}

func TestExpensive(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		argon2idText: true, bcryptText: true, sha512Text: true, sha256Text: true, pbkdf2Text: true,
		"{PLAIN}x": false, "{SHA}948d0e1f459da04fe87b41c07621f0b6ae63d51a": false,
	} {
		if h := mustParse(t, text); h.Expensive() != want {
			t.Errorf("%v.Expensive() = %v", h, !want)
		}
	}
}

func TestParseHashErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{"", "no {SCHEME}"},
		{"hunter22", "no {SCHEME}"},
		{"{PLAIN", "no {SCHEME}"},
		{"$6$tmzW65r/8Zf1A7My$JwSchQ", "no {SCHEME}"},
		{"{hunter22}hunter22", "no known password scheme"},
		{"{SHA521-CRYPT}$6$x$y", "unknown password scheme SHA521-CRYPT: use one of ARGON2ID,"},
		{"{PLAIN}", "empty"},
		{"{PLAIN.b64}", "empty"},
		{"{PLAIN}hunter22\n", "control character (a line break?)"},
		{"{PLAIN.hex}hunter22", "not hexadecimal"},
		{"{PLAIN.b64}hunter22hunter22=", "not base64"},
		{"{PLAIN.b65}hunter22", "use .b64 or .hex"},
		{"{PLAIN.hex}6100", "NUL"},
		{"{PLAIN}" + strings.Repeat("hunter22", 65), "at most 512"},
		{"{PLAIN}" + strings.Repeat("hunter22", 600), "at most 4096"},
		{"{MD5}$1$abc$hunter22", "MD5 is refused"},
		{"{MD5-CRYPT}$1$abc$hunter22", "MD5-CRYPT is refused, because its digest is broken"},
		{"{PLAIN-MD5}5f4dcc3b5aa765d61d8327deb882cf99", "PLAIN-MD5 is refused"},
		{"{SMD5}hunter22", "SMD5 is refused"},
		{"{DES-CRYPT}hunter22", "DES-CRYPT is refused, because it looks at a part"},
		{"{CRAM-MD5}hunter22", "CRAM-MD5 is refused, because it is made for"},
		{"{DIGEST-MD5}hunter22", "DIGEST-MD5 is refused"},
		{"{SCRAM-SHA-256}4096,x,y", "SCRAM-SHA-256 is refused"},
		{"{MD5-CRYPT}x", `"doveadm-proxy hash"`},

		{"{ARGON2ID}", "not of the form"},
		{argon2idText[:60], "not of the form"},
		{strings.Replace(argon2idText, "v=19", "v=16", 1), "not of the form"},
		{strings.Replace(argon2idText, "{ARGON2ID}", "{ARGON2I}", 1), "write {ARGON2ID}"},
		{strings.Replace(argon2idText, "m=65536", "m=104857600", 1), "m=104857600 is outside 8 to 1048576"},
		{strings.Replace(argon2idText, "m=65536", "m=4294967297", 1), "m=4294967297 is outside"},
		{strings.Replace(argon2idText, "m=65536", "m=0", 1), "m=0 is outside"},
		{strings.Replace(argon2idText, "t=3", "t=1000", 1), "t=1000 is outside 1 to 128"},
		{strings.Replace(argon2idText, "t=3", "t=0", 1), "t=0 is outside"},
		{strings.Replace(argon2idText, "p=1", "p=256", 1), "p=256 is outside"},
		{strings.Replace(argon2idText, "p=1", "p=0", 1), "p=0 is outside"},
		{strings.Replace(argon2idText, "m=65536,t=3,p=1", "m=8,t=1,p=4", 1), "m=8 is outside 32 to"},
		{strings.Replace(argon2idText, "$KiO90Nk0WbxHrZzPJkfXUg$", "$KiO9$", 1), "salt of 3 bytes"},
		{argon2idText[:len(argon2idText)-31], "hash of 9 bytes"},
		{argon2idText + "AA", "not base64"},

		{"{BLF-CRYPT}", "not of the form"},
		{bcryptText[:40], "not of the form"},
		{strings.Replace(bcryptText, "$05$", "$17$", 1), "cost=17 is outside 4 to 16"},
		{strings.Replace(bcryptText, "$05$", "$03$", 1), "cost=03 is outside"},
		{strings.Replace(bcryptText, "$2y$", "$2x$", 1), "$2x$ is refused"},
		{strings.Replace(sha512Text, "$6$", "$6$rounds=999999999$", 1), "rounds=999999999 is outside 1000 to 10000000"},
		{strings.Replace(sha512Text, "$6$", "$6$rounds=999$", 1), "rounds=999 is outside"},
		{strings.Replace(sha512Text, "{SHA512-CRYPT}", "{SHA256-CRYPT}", 1), "write {SHA512-CRYPT}"},
		{strings.Replace(sha256Text, "{SHA256-CRYPT}", "{SHA512-CRYPT}", 1), "write {SHA256-CRYPT}"},
		{sha512Text[:80], "86 characters"},
		{sha256Text + "x", "43 characters"},
		{"{CRYPT}$1$abc$hunter22", "MD5-CRYPT"},
		{"{CRYPT}abJnggxhB/yWI", "DES-CRYPT"},
		{"{CRYPT}$y$j9T$x$y", "yescrypt"},
		{"{CRYPT}", "copy it whole"},
		{strings.Replace(pbkdf2Text, "$5000$", "$2000000000$", 1), "rounds=2000000000 is outside 1 to"},
		{strings.Replace(pbkdf2Text, "$5000$", "$0$", 1), "rounds=0 is outside"},
		{strings.Replace(pbkdf2Text, "$1$", "$2$", 1), "not of the form"},
		{pbkdf2Text[:60], "not of the form"},
		{"{PBKDF2}$pbkdf2-sha512$310000$c8p78gaIFM$KNyDPtbkuBhYZ", "not of the form"},

		{"{SSHA256}aHVudGVyMjI=", "8 bytes of data; there must be 32"},
		{"{SSHA256}k8d8nn/gvyJxWGc1z3ZcD8OfpDu2Z6ZvAK2R2tsDJ20=", "a salt behind them"},
		{"{SHA512}aHVudGVyMjI=", "8 bytes of data instead of 64"},
		{"{SHA256.hex}6875", "2 bytes of data instead of 32"},
		{"{SSHA512}hunter22!", "not base64"},
	}
	for _, test := range tests {
		h, err := ParseHash(test.text)
		if err == nil {
			t.Errorf("ParseHash(%q) = %v; want an error with %q", test.text, h, test.want)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("ParseHash(%q): %v; want %q in it", test.text, err, test.want)
		}
		if strings.Contains(strings.ToLower(err.Error()), "hunter22") {
			t.Errorf("ParseHash(%q): the error tells the password: %v", test.text, err)
		}
	}
}

func TestHashIsNotPrinted(t *testing.T) {
	t.Parallel()
	client := struct {
		Name   string
		Hash   Hash
		hidden Hash
	}{"panel", mustParse(t, "{PLAIN}hunter22"), mustParse(t, "{PLAIN}hunter22")}
	encoded, err := json.Marshal(client)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		string(encoded), fmt.Sprint(client.Hash), fmt.Sprintf("%v %+v %#v %q %x %d", client.Hash, client.Hash, client.Hash, client.Hash, client.Hash, client.Hash),
		client.Hash.String(),
	} {
		if strings.Contains(s, "hunter22") || strings.Contains(s, fmt.Sprintf("%x", "hunter22")) || !strings.Contains(s, "{PLAIN}***") {
			t.Errorf("printed as %s", s)
		}
	}
	// Formatters do not ask an unexported field: what it holds is a digest.
	if s := fmt.Sprintf("%v %+v %v", client, client, &client); strings.Contains(s, "hunter22") {
		t.Errorf("printed as %s", s)
	}
}

func TestMatchRefusesOddPasswords(t *testing.T) {
	t.Parallel()
	h := mustParse(t, bcryptText)
	wantMatch(t, h, textPassword+"\x00"+textPassword, false) // bcrypt alone would say yes
	wantMatch(t, h, strings.Repeat("x", MaxPassword+1), false)
	wantMatch(t, Hash{}, "", false)
}

func TestGenerateErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ scheme, password, want string }{
		{"ARGON2ID", "", "empty"},
		{"ARGON2ID", "a\x00b", "NUL"},
		{"ARGON2ID", strings.Repeat("x", 513), "at most 512"},
		{"BLF-CRYPT", strings.Repeat("x", 73), "first 72 bytes"},
		{"MD5-CRYPT", "x", "MD5-CRYPT is refused"},
		{"PLAIN", "x", "use one of ARGON2ID, BLF-CRYPT"},
		{"SCHA512", "x", "no known password scheme"},
		{"SHA1024", "x", "unknown password scheme SHA1024"},
	} {
		text, err := Generate(test.scheme, test.password)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Generate(%s, …) = %q, %v; want %q", test.scheme, text, err, test.want)
		}
	}
	if Schemes()[0] != DefaultScheme {
		t.Errorf("Schemes() = %v does not begin with the default", Schemes())
	}
}

func FuzzParseHash(f *testing.F) {
	for _, text := range []string{
		argon2idText, bcryptText, sha512Text, sha256Text, pbkdf2Text,
		"{PLAIN}secret", "{PLAIN.b64}c2VjcmV0", "{CLEAR.hex}736563726574", "{SHA}948d0e1f459da04fe87b41c07621f0b6ae63d51a",
		"{SSHA256}bR71+obhVWtPAGoQXQyjhE72+hamc+/viP+Y/vp7klldLRTe", "{CRYPT.B64}JDJ5JDA1JC9HM3ZRc1hvdTRqWGRZdVNwTVB0Y2VxenFLcTk3OHcwWnJwNDJiOFB4ZGVVN2NsdkNWYy51",
		"{MD5-CRYPT}$1$abc$def", "secret", "{", "}", "{.}", "{PLAIN.}x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHash(text)
		if err != nil {
			if h.matcher != nil || h.scheme != "" {
				t.Fatalf("ParseHash(%q) returns %v and an error", text, h)
			}
			return
		}
		if _, err := lookup(h.Scheme()); err != nil {
			t.Fatalf("ParseHash(%q) has the scheme %q", text, h.Scheme())
		}
		if strings.HasPrefix(text, "{PLAIN}") {
			wantMatch(t, h, strings.TrimPrefix(text, "{PLAIN}"), true)
		}
		if !affordable(h) {
			return
		}
		// A hash that was accepted can be computed.
		if _, err := h.Match("secret"); err != nil {
			t.Fatalf("ParseHash(%q).Match: %v", text, err)
		}
	})
}

// affordable says whether a check is quick enough to fuzz, and that what is
// not lies within the bounds.
func affordable(h Hash) bool {
	switch m := h.matcher.(type) {
	case argon2Hash:
		if m.memory > maxArgon2Memory || uint64(m.memory)*uint64(m.passes) > maxArgon2Work || m.lanes == 0 || m.passes == 0 {
			panic(fmt.Sprintf("accepted out of bounds: %+v", m))
		}
		return m.memory*m.passes < 1<<10
	case pbkdf2Hash:
		return m.rounds < 1000
	case bcryptHash:
		return m[4:6] == "04"
	case shaCrypt:
		return !strings.Contains(m.digest.Encode(), "rounds=")
	}
	return true
}
