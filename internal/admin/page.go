package admin

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"path"
	"time"
)

// pageFiles are the status page: plain files, nothing is built.
//
//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load its own files and ask this endpoint, and
// nothing else; nobody may put it into a frame, where a click could be stolen.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageTypes are the files that may be asked for, by their names' ends.
var pageTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
	".js":   "text/javascript; charset=utf-8",
}

func pageVerbs() []verb {
	return []verb{
		{"GET /{$}", Viewer, "The status page, for a browser.", (*Server).page},
		{"GET /v1/whoami", Viewer, "Who the caller is to the endpoint, and with which role.", (*Server).whoami},
		{"GET /login", Nobody, "Asks a browser for name and password, and goes on to the status page.", (*Server).login},
		{"GET /page/{file}", Viewer, "What the status page loads.", (*Server).pageFile},
	}
}

// Self is who the caller is.
type Self struct {
	Name string `json:"name"` // empty: not known
	Role Role   `json:"role"`
}

func (s *Server) whoami(w http.ResponseWriter, r *http.Request) {
	c := callerOf(r.Context())
	answer(w, http.StatusOK, Self{c.Name, c.Role})
}

// login is for browsers, which send a password only after they were asked for
// one; a viewer of a loopback port is not.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if callerOf(r.Context()).Name == "" && s.users.challenge != "" {
		w.Header().Set("WWW-Authenticate", s.users.challenge)
		fail(w, http.StatusUnauthorized, errors.New("name and password of a user block, please"))
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) { servePageFile(w, r, "index.html") }

func (s *Server) pageFile(w http.ResponseWriter, r *http.Request) {
	servePageFile(w, r, r.PathValue("file"))
}

func servePageFile(w http.ResponseWriter, r *http.Request, name string) {
	content, err := pageFiles.ReadFile(path.Join("page", path.Base(name)))
	kind, known := pageTypes[path.Ext(name)]
	if err != nil || !known {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no %q", name))
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache") // another release has another page
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}
