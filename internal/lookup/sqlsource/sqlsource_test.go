package sqlsource_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/fault"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup/sqlsource"
	"github.com/doveadm-proxy/doveadm-proxy/internal/mariadb"
	"github.com/doveadm-proxy/doveadm-proxy/internal/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the timeout of lookups that have to work.
const patience = 20 * time.Second

// database is one of the real ones.
type database struct {
	driver string
	dsn    string // over link, where there is one
	link   *fault.Link
	exec   func(t *testing.T, statements ...string)
	stop   func() error
	start  func(ctx context.Context) error
}

// databases starts all of them. Each has a table mailbox and the tables of both
// Lua directors, the latter with "2" at the end of the names of the tables.
func databases(t *testing.T) []*database {
	t.Helper()
	all := make([]*database, 3)
	var starting sync.WaitGroup
	starting.Go(func() {
		s, err := postgres.Start(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { s.Close() })
		link := linked(t, s.Addr)
		all[0] = &database{
			driver: config.Postgres, dsn: s.DSNAt(link.Addr), link: link, stop: s.Stop, start: s.Restart,
			exec: func(t *testing.T, statements ...string) {
				t.Helper()
				if err := s.Exec(t.Context(), strings.Join(statements, ";")); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
	starting.Go(func() {
		s, err := mariadb.Start(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { s.Close() })
		link := linked(t, s.Addr)
		all[1] = &database{
			driver: config.MySQL, dsn: s.DSNAt(link.Addr), link: link, stop: s.Stop, start: s.Restart,
			exec: func(t *testing.T, statements ...string) {
				t.Helper()
				if err := s.Exec(t.Context(), statements...); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
	starting.Go(func() { all[2] = sqlite(t) })
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, d := range all {
		d.exec(t,
			"CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, shard varchar(255))",
			"INSERT INTO mailbox VALUES ('alice@example.com', 's1'), ('nobody@example.com', NULL), ('empty@example.com', '')")
		// As in Dovecot's documentation, but for the quotes, which PostgreSQL needs.
		user := `"user"`
		if d.driver == config.MySQL {
			user = "user"
		}
		d.exec(t,
			"CREATE TABLE backends (id int not null primary key, hostname varchar(255) not null unique, hostip varchar(255), state smallint not null default 0)",
			"CREATE TABLE user_backend (backend_id int not null, "+user+" varchar(255), primary key(backend_id, "+user+"))",
			"INSERT INTO backends VALUES (1, 'mail1.example.com', '10.0.0.1', 0), (2, 'mail2.example.com', NULL, 0), (3, 'mail3.example.com', NULL, 1)",
			"INSERT INTO user_backend VALUES (1, 'alice@example.com'), (3, 'carol@example.com'), (1, 'twice@example.com'), (2, 'twice@example.com')")
	}
	return all
}

func linked(t *testing.T, addr string) *fault.Link {
	link, err := fault.Listen("127.0.0.1:0", addr, 1)
	if err != nil {
		t.Error(err)
		t.FailNow()
	}
	t.Cleanup(func() { link.Close() })
	return link
}

func sqlite(t *testing.T) *database {
	path := filepath.Join(t.TempDir(), "routes #1.db")
	away := path + ".away"
	return &database{
		driver: config.SQLite, dsn: path,
		stop:  func() error { return os.Rename(path, away) },
		start: func(context.Context) error { return os.Rename(away, path) },
		exec: func(t *testing.T, statements ...string) {
			t.Helper()
			db, err := sql.Open("sqlite", "file:"+strings.ReplaceAll(path, "#", "%23")+"?_pragma=busy_timeout(10000)")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, statement := range statements {
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
}

func (d *database) source(t *testing.T, c config.SQL) *sqlsource.Source {
	t.Helper()
	c.Driver, c.DSN = d.driver, config.NewSecret(d.dsn)
	s, err := sqlsource.New(c, config.Lookup{Timeout: patience, MaxLookups: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// query is a query of the database's kind.
func (d *database) query(text string) config.SQL {
	if d.driver == config.Postgres {
		text = strings.ReplaceAll(text, "?", "$1")
	}
	return config.SQL{Query: text}
}

const usual = "SELECT shard FROM mailbox WHERE username = ?"

// ask returns the shard, "none" or the error of a lookup.
func ask(t *testing.T, s *sqlsource.Source, user string, timeout time.Duration) string {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	place, found, err := s.Lookup(ctx, user)
	switch {
	case err != nil:
		if strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "\n") {
			t.Errorf("the error holds the password, or a line break: %q", err)
		}
		return "error: " + err.Error()
	case !found:
		return "none"
	}
	return place.Shard
}

func expect(t *testing.T, s *sqlsource.Source, user, want string) {
	t.Helper()
	if got := ask(t, s, user, patience); got != want && !(strings.HasPrefix(want, "error: ") && strings.Contains(got, strings.TrimPrefix(want, "error: "))) {
		t.Errorf("%q: %s; want %s", user, got, want)
	}
}

func TestDatabases(t *testing.T) {
	for _, d := range databases(t) {
		t.Run(d.driver, func(t *testing.T) {
			t.Run("answers", d.answers)
			t.Run("director", d.director)
			t.Run("shard director", d.shardDirector)
			if d.link != nil {
				t.Run("slow", d.slow)
			}
			if d.driver == config.Postgres {
				t.Run("notifications", d.notifications)
			}
			t.Run("down", d.down)
		})
	}
}

func (d *database) answers(t *testing.T) {
	s := d.source(t, d.query(usual))
	expect(t, s, "alice@example.com", "s1")
	expect(t, s, "eve@example.com", "none")
	expect(t, s, "nobody@example.com", "none")
	expect(t, s, "empty@example.com", "error: an empty name")
	for _, user := range []string{"' OR '1'='1", `\' OR 1=1 -- `, "ü@example.com", "a\tb", strings.Repeat("x", 1000)} {
		expect(t, s, user, "none")
	}
	// Numbers are names, and columns after the first are no matter.
	expect(t, d.source(t, d.query("SELECT 7, 'x' FROM mailbox WHERE username = ?")), "alice@example.com", "7")
	expect(t, d.source(t, d.query("SELECT shard FROM mailbox WHERE username = ? OR shard = 's1'")), "alice@example.com", "s1")
	// Wrong answers.
	expect(t, d.source(t, d.query("SELECT username FROM mailbox WHERE username <> ?")), "x", "error: several rows")
	expect(t, d.source(t, d.query("SELECT shard FROM missing WHERE username = ?")), "x", "error: missing")
	if d.driver != config.Postgres {
		expect(t, d.source(t, d.query("SELECT shard FROM mailbox WHERE username = ? AND username = ?")), "alice@example.com", "s1")
	}
}

// director: users of the tables have their backends; others get one, and the
// same one of all proxies.
func (d *database) director(t *testing.T) {
	c := config.SQL{Tables: config.LuaDirector}
	s := d.source(t, c)
	expect(t, s, "alice@example.com", "mail1.example.com")
	expect(t, s, "carol@example.com", "mail3.example.com")
	expect(t, s, "twice@example.com", "error: several rows")
	d.assign(t, c, "new%d@example.com")
}

// shardDirector uses the same tables with hashes in them.
func (d *database) shardDirector(t *testing.T) {
	d.exec(t, "DROP TABLE user_backend", "CREATE TABLE user_backend (backend_id INT NOT NULL, user_hash INT NOT NULL, PRIMARY KEY (backend_id, user_hash))",
		"INSERT INTO user_backend VALUES (3, 20926)")
	c := config.SQL{Tables: config.LuaDirectorShard}
	s := d.source(t, c)
	expect(t, s, "alice@example.com", "mail3.example.com") // which nobody gets by chance
	d.assign(t, c, "other%d@example.com")
}

// assign lets several proxies ask for new users at the same time.
func (d *database) assign(t *testing.T, c config.SQL, format string) {
	const proxies, users = 3, 20
	got := make([][users]string, proxies)
	var asking sync.WaitGroup
	for p := range proxies {
		s := d.source(t, c)
		for u := range users {
			asking.Go(func() { got[p][u] = ask(t, s, fmt.Sprintf(format, u), patience) })
		}
	}
	asking.Wait()
	count := make(map[string]int)
	for u := range users {
		name := got[0][u]
		count[name]++
		for p := range proxies {
			if got[p][u] != name {
				t.Errorf("user %d: one proxy says %s, another %s", u, name, got[p][u])
			}
		}
	}
	if len(count) != 2 || count["mail1.example.com"] == 0 || count["mail2.example.com"] == 0 {
		t.Errorf("assigned to %v; want the two backends with the state 0", count)
	}
	// Without a cache the answers are the same, and none has two.
	s := d.source(t, c)
	for u := range users {
		expect(t, s, fmt.Sprintf(format, u), got[0][u])
	}
}

// slow: the lookup ends when its time is over, and the connections are good
// for the next one.
func (d *database) slow(t *testing.T) {
	sleep := "SELECT shard FROM mailbox WHERE username = ? AND SLEEP(30) = 0"
	if d.driver == config.Postgres {
		sleep = "SELECT shard FROM mailbox, pg_sleep(30) WHERE username = ?"
	}
	for name, test := range map[string]struct {
		source *sqlsource.Source
		fault  fault.Fault
	}{
		"query":   {d.source(t, d.query(sleep)), fault.Fault{}},
		"network": {d.source(t, d.query(usual)), fault.Fault{End: fault.Silence}},
	} {
		d.link.Set(test.fault)
		start := time.Now()
		if got := ask(t, test.source, "alice@example.com", 300*time.Millisecond); !strings.HasPrefix(got, "error") {
			t.Errorf("slow %s: %s", name, got)
		}
		// The query is cancelled over a connection of its own, which waits as well.
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("slow %s: gave up after %s", name, took)
		}
		d.link.Set(fault.Fault{})
		if name == "network" {
			expect(t, test.source, "alice@example.com", "s1")
		}
	}
}

func (d *database) down(t *testing.T) {
	s := d.source(t, d.query(usual))
	expect(t, s, "alice@example.com", "s1")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := ask(t, s, "alice@example.com", patience); !strings.HasPrefix(got, "error: "+d.driver) {
			t.Errorf("down: %s", got)
		}
	}
	if err := d.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "UPDATE mailbox SET shard = 's2' WHERE username = 'alice@example.com'")
	expect(t, s, "alice@example.com", "s2")
}

// notifications arrive, also after the connection was lost.
func (d *database) notifications(t *testing.T) {
	c := d.query(usual)
	c.Channel = `moved "users"`
	s := d.source(t, c)
	told := make(chan string, 100)
	s.Notify(func(user string) { told <- "forget " + user }, func() { told <- "doubt" })
	next := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Errorf("told %q; want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("not told %q", want)
		}
	}
	next("doubt") // it listens
	notify := func(payload string) {
		d.exec(t, fmt.Sprintf(`NOTIFY "moved ""users""", '%s'`, payload))
	}
	start := time.Now()
	notify("alice@example.com")
	next("forget alice@example.com")
	t.Logf("told after %s", time.Since(start))
	d.exec(t, `NOTIFY "moved ""users"""`)
	next("forget ")
	d.link.Drop()
	next("doubt")
	next("doubt") // it listens again
	notify("bob@example.com")
	next("forget bob@example.com")

	// What the documentation says.
	documented := d.query(usual)
	documented.Channel = "mailbox_moved"
	s = d.source(t, documented)
	s.Notify(func(user string) { told <- "forget " + user }, func() { told <- "doubt" })
	next("doubt")
	text, err := os.ReadFile("../../../docs/routing.md")
	if err != nil {
		t.Fatal(err)
	}
	_, trigger, _ := strings.Cut(string(text), "    CREATE FUNCTION")
	trigger, _, ok := strings.Cut(trigger, "\n\n")
	if !ok {
		t.Fatal("docs/routing.md has no trigger")
	}
	d.exec(t, "CREATE FUNCTION"+trigger)
	d.exec(t, "UPDATE mailbox SET shard = 's1' WHERE username = 'alice@example.com'")
	next("forget alice@example.com")
	d.exec(t, "INSERT INTO mailbox VALUES ('New@example.com', 's1')")
	next("forget new@example.com")
	d.exec(t, "UPDATE mailbox SET username = 'newer@example.com' WHERE username = 'New@example.com'")
	next("forget new@example.com")
	next("forget newer@example.com")
	d.exec(t, "DELETE FROM mailbox WHERE username = 'newer@example.com'")
	next("forget newer@example.com")
}

func TestNewErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []config.SQL{
		{Driver: config.Postgres, DSN: config.NewSecret("postgres://u:sesame@h:notaport/d")},
		{Driver: config.Postgres, DSN: config.NewSecret("sesame")},
		{Driver: config.MySQL, DSN: config.NewSecret("u:sesame@h/d")},
		{Driver: config.MySQL, DSN: config.NewSecret("sesame")},
		{Driver: config.SQLite, DSN: config.NewSecret(":memory:")},
		{Driver: config.SQLite, DSN: config.NewSecret("file:?mode=ro")},
		{Driver: "oracle", DSN: config.NewSecret("sesame")},
	} {
		s, err := sqlsource.New(c, config.Lookup{Timeout: time.Second})
		if err == nil {
			s.Close()
			t.Errorf("%s takes the dsn %q", c.Driver, c.DSN.Reveal())
		} else if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s shows the dsn: %v", c.Driver, err)
		}
	}
}

// TestReplaced: a SQLite file that another one takes the place of is read anew.
func TestReplaced(t *testing.T) {
	t.Parallel()
	d, other := sqlite(t), sqlite(t)
	for i, d := range []*database{d, other} {
		d.exec(t, "CREATE TABLE mailbox (username text PRIMARY KEY, shard text)", fmt.Sprintf("INSERT INTO mailbox VALUES ('alice', 's%d')", i+1))
	}
	s := d.source(t, d.query(usual))
	expect(t, s, "alice", "s1")
	var asking sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if got := ask(t, s, "alice", patience); got != "s1" && got != "s2" {
					t.Errorf("while it is replaced: %s", got)
					return
				}
			}
		})
	}
	if err := os.Rename(other.dsn, d.dsn); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "alice", "s2")
	close(done)
	asking.Wait()
	if err := os.Remove(d.dsn); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "alice", "error: no such file")
	if _, err := os.Stat(d.dsn); !errors.Is(err, os.ErrNotExist) {
		t.Error("a lookup made an empty database")
	}
}
