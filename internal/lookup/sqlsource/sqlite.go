package sqlsource

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	_ "modernc.org/sqlite" // the driver

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func (s *Source) sqlite(c config.SQL, l config.Lookup) error {
	name := c.DSN.Reveal()
	path, query, _ := strings.Cut(strings.TrimPrefix(name, "file:"), "?")
	options, err := url.ParseQuery(query)
	if err != nil || path == "" || strings.Contains(path, ":memory:") {
		return errors.New("dsn: write the path of the SQLite file")
	}
	if unescaped, err := url.PathUnescape(path); err == nil && strings.HasPrefix(name, "file:") {
		path = unescaped
	}
	if !options.Has("mode") {
		// Not created where it is missing, and not written to unless it must be.
		options.Set("mode", "ro")
		if c.Tables != "" {
			options.Set("mode", "rw")
		}
	}
	options.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", l.Timeout.Milliseconds()))
	options.Set("_txlock", "immediate")
	uri := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + options.Encode()
	var opened os.FileInfo
	s.open = func() (*sql.DB, error) {
		var err error
		if opened, err = os.Stat(path); err != nil {
			return nil, err
		}
		db, err := sql.Open("sqlite", uri)
		if err != nil {
			return nil, err
		}
		limit(db, l)
		return db, nil
	}
	// A connection would go on reading the file that was moved away.
	s.replaced = func() bool {
		now, err := os.Stat(path)
		return err != nil || !os.SameFile(now, opened)
	}
	return nil
}
