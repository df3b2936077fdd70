package proxy

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
)

// The log says once an hour who still uses an old password, and once that
// nobody has for a day; a new rotation begins anew.
func TestOldPasswordUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true})
		stored := func(old string) auth.Passwords {
			t.Helper()
			var o config.Secret
			if old != "" {
				o = config.NewSecret(old)
			}
			p, err := parsePasswords(config.NewSecret("{PLAIN}new"), o)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		now := stored("{PLAIN}old")
		usage := newClientPasswords(config.Client{}, now, nil, logger).usage
		logged := func(by auth.Verdict, want string) {
			t.Helper()
			log.Reset()
			usage.loggedIn("panel", by, now, func() hclog.Logger { return logger })
			if got := strings.TrimSpace(log.String()); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("logged %q, want %q", got, want)
			}
		}
		logged(auth.ByCurrent, "")
		logged(auth.ByOld, "[WARN]  login with the old password: the client is to be given the new one: client=panel others_meanwhile=0")
		for range 5 {
			logged(auth.ByOld, "")
			time.Sleep(10 * time.Minute)
		}
		logged(auth.ByCurrent, "")
		time.Sleep(10 * time.Minute)
		logged(auth.ByOld, "others_meanwhile=5")

		time.Sleep(oldUnused - time.Nanosecond)
		logged(auth.ByCurrent, "")
		time.Sleep(time.Nanosecond)
		logged(auth.ByCurrent, "[INFO]  nobody uses the old password any more: remove it: client=panel last_used=")
		logged(auth.ByCurrent, "")
		logged(auth.ByOld, "login with the old password")
		time.Sleep(oldUnused)
		logged(auth.ByCurrent, "nobody uses")

		now = stored("{PLAIN}another old")
		logged(auth.ByCurrent, "")
		time.Sleep(oldUnused)
		logged(auth.ByCurrent, "nobody uses the old password any more: remove it: client=panel")
		now = stored("")
		logged(auth.ByCurrent, "")
		time.Sleep(2 * oldUnused)
		logged(auth.ByCurrent, "")
	})
}
