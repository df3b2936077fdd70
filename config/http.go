package config

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"golang.org/x/net/http/httpguts"
)

// HTTP is what a route of the kind http asks.
type HTTP struct {
	URL         string
	Method      string
	Headers     []string // "Name: value"
	HeadersFile string
	Secret      []SecretHeader // what is in the file
	Field       string
	CAFile      string // empty: the authorities of the system
}

// SecretHeader is a header whose value nobody is to see.
type SecretHeader struct {
	Name  string
	Value Secret
}

func (h *HTTP) attrs() []attr {
	return []attr{
		{
			name: "url", field: urlOf(&h.URL, "https", "http"), required: true, example: `"https://users.example.com/v1/users/%u"`,
			doc: "What is asked for. `%u` stands for the user, `%n` and `%d` for what is before and after its first `@`, escaped so that they are a part of the path or a value of the query and nothing else.",
		},
		{
			name: "method", field: choice(&h.Method, http.MethodGet, http.MethodPost), def: `"GET"`,
			doc: "A `POST` has the body `{\"user\":\"…\"}`.",
		},
		{
			name: "headers", field: headers(&h.Headers), example: `["X-Tenant: mail"]`,
			doc: "More headers of the request.",
		},
		{
			name: "headers_file", field: secretHeaders(h), example: `"/etc/doveadm-proxy/secrets/users-api"`,
			doc: "A file with headers that are secret, one a line: `Authorization: Bearer …`. It is read when the configuration is loaded.",
		},
		{
			name: "field", field: text(&h.Field), def: `"shard"`,
			doc: "Where in the JSON object of the answer the name of the shard stands; `user.shard` is the field `shard` of the object in `user`. A value of `null` leaves the user to the next route, as does the status 404; an answer without the field is an error.",
		},
		{
			name: "ca_file", field: caFile(&h.CAFile), example: `"/etc/doveadm-proxy/tls/ca.crt"`,
			doc: "Authorities that sign the server's certificate, in PEM form. Without it: those of the system.",
		},
	}
}

func (h *HTTP) block(l *Lookup) block {
	return block{
		name: "route", kind: "http", label: "kind", many: true,
		doc: "Users by a service that speaks HTTP and answers with JSON. Connections are used again, redirects are not followed, and an answer has 64 KiB at most.",
		example: `
route "http" {
  url          = "https://users.example.com/v1/users/%u"
  headers_file = "/etc/doveadm-proxy/secrets/users-api"
  field        = "shard"
}`,
		attrs:  append(h.attrs(), l.attrs()...),
		blocks: l.blocks(),
	}
}

// checkHTTP finds what is wrong with the attributes taken together.
func (l *loader) checkHTTP(h *HTTP, at *place) {
	if h.URL != "" && h.Method == http.MethodGet && !hasUser(h.URL) {
		l.errorf(at.of("url"), "URL without the user", "Each user would get the same answer. Write %%u where the user belongs, or %%n or %%d for a part of it, or method = \"POST\".")
	}
	if len(h.Secret) > 0 && strings.HasPrefix(h.URL, "http:") {
		l.warnf(at.of("headers_file"), "Secrets in clear text", "The headers travel without encryption. Write https:// in url, where the service has it.")
	}
}

// headers is a list of header lines.
func headers(to *[]string) field {
	f := texts(to)
	f.takes = "a list of headers"
	read := f.set
	f.set = func(v value) *problem {
		if p := read(v); p != nil {
			return p
		}
		for i, line := range *to {
			if _, _, err := splitHeader(line); err != nil {
				p := wrong("Each is a name, a colon and a value: \"X-Tenant: mail\".")
				p.at = &v.is.([]value)[i].rng
				return p
			}
		}
		return nil
	}
	return f
}

func splitHeader(line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
		return "", "", fmt.Errorf("it is not of the form \"Name: value\"")
	}
	return name, value, nil
}

// SplitHeader returns the parts of one of HTTP.Headers.
func SplitHeader(line string) (name, value string) {
	name, value, _ = splitHeader(line)
	return name, value
}

// secretHeaders is the path of a file with header lines.
func secretHeaders(h *HTTP) field {
	return field{
		takes: "a path",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if p := checkText(s); p != nil {
				return p
			}
			path, p := resolve(s, v.dir)
			if p != nil {
				return p
			}
			b, err := readFile(path)
			if err != nil {
				return &problem{summary: "Cannot read the headers file", detail: reason(err) + " Create the file, with one header a line, and let the proxy's user read it."}
			}
			var found []SecretHeader
			for number, line := range slices.Collect(strings.Lines(string(b))) {
				line = strings.TrimSpace(line)
				if line == "" || line[0] == '#' {
					continue
				}
				name, text, err := splitHeader(line)
				if err != nil {
					return &problem{summary: "Wrong content of the headers file", detail: fmt.Sprintf("%s: line %d is not of the form \"Name: value\".", path, number+1)}
				}
				found = append(found, SecretHeader{name, NewSecret(text)})
			}
			h.Secret, h.HeadersFile = found, path
			return readableByAll("Headers", path)
		},
		get: func() cty.Value { return optional(h.HeadersFile) },
	}
}
