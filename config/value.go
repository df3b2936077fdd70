package config

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// value is what an expression says.
type value struct {
	is  any // string, *big.Float, bool, []value, or nil for null
	rng hcl.Range
	dir string // where a relative path starts
	// computed: env or file had a part in it, so messages must not show it.
	computed bool
}

// eval returns the value of an expression. It knows strings, numbers, lists of
// them, and the functions env and file: a configuration is data.
func eval(e hclsyntax.Expression, dir string) (value, *problem) {
	v := value{rng: e.Range(), dir: dir}
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		v.is = fromCty(e.Val)
		return v, nil
	case *hclsyntax.ParenthesesExpr:
		return eval(e.Expression, dir)
	case *hclsyntax.UnaryOpExpr:
		if n, p := eval(e.Val, dir); p == nil && e.Op == hclsyntax.OpNegate {
			if f, ok := n.is.(*big.Float); ok {
				v.is = new(big.Float).Neg(f)
				return v, nil
			}
		}
	case *hclsyntax.TupleConsExpr:
		items := make([]value, 0, len(e.Exprs))
		for _, item := range e.Exprs {
			iv, p := eval(item, dir)
			if p != nil {
				return v, p
			}
			v.computed = v.computed || iv.computed
			items = append(items, iv)
		}
		v.is = items
		return v, nil
	case *hclsyntax.TemplateExpr:
		return template(v, e.Parts)
	case *hclsyntax.TemplateWrapExpr:
		return template(v, []hclsyntax.Expression{e.Wrapped})
	case *hclsyntax.FunctionCallExpr:
		return call(v, e)
	case *hclsyntax.ScopeTraversalExpr:
		return v, &problem{
			form:    true,
			summary: "Word without quotes",
			detail:  `Text stands in double quotes.`,
			at:      &v.rng,
		}
	}
	return v, &problem{
		form:    true,
		summary: "Expression not supported",
		detail:  `A value is a string, a number, a list of strings, env("NAME") or file("path").`,
		at:      &v.rng,
	}
}

// template joins the parts of a string. They are text themselves.
func template(v value, parts []hclsyntax.Expression) (value, *problem) {
	var sb strings.Builder
	for _, part := range parts {
		pv, p := eval(part, v.dir)
		if p != nil {
			return v, p
		}
		s, ok := pv.is.(string)
		if !ok {
			return v, &problem{
				summary: "Not text",
				detail:  `Only env("NAME") and file("path") may stand between ${ and }. Write $${ for the characters ${ themselves.`,
				at:      &pv.rng,
			}
		}
		v.computed = v.computed || pv.computed
		sb.WriteString(s)
	}
	v.is = sb.String()
	return v, nil
}

// call is env("NAME") or file("path").
func call(v value, e *hclsyntax.FunctionCallExpr) (value, *problem) {
	at := e.Range()
	fail := func(summary, detail string, args ...any) (value, *problem) {
		return v, &problem{summary: summary, detail: fmt.Sprintf(detail, args...), at: &at}
	}
	if e.Name != "env" && e.Name != "file" {
		at = e.NameRange
		return fail("Unknown function", `There are two functions: env("NAME") for a variable of the environment and file("path") for what is in a file.`)
	}
	if len(e.Args) != 1 || e.ExpandFinal {
		return fail("Wrong arguments of "+e.Name, `Write env("NAME") or file("path"), with one string in the parentheses.`)
	}
	arg, p := eval(e.Args[0], v.dir)
	if p != nil {
		return v, p
	}
	name, ok := arg.is.(string)
	if !ok || name == "" || arg.computed {
		return fail("Wrong arguments of "+e.Name, `Write env("NAME") or file("path"), with one string in the parentheses.`)
	}
	v.computed = true
	if e.Name == "env" {
		if !isEnvName(name) {
			// Not shown: it may be the secret itself.
			return fail("Not the name of a variable", "env takes the name of a variable of the environment, made of letters, digits and _: env(\"NAME\").")
		}
		s, ok := os.LookupEnv(name)
		if !ok {
			return fail("Environment variable not set", "There is no variable %s in the environment of this process. "+
				"Set it (for the service, with Environment= or EnvironmentFile= in its systemd unit), or write the value in a file and use file(\"path\").", name)
		}
		v.is = s
		return v, nil
	}
	path, p := resolve(name, v.dir)
	if p != nil {
		p.at = &at
		return v, p
	}
	b, err := readFile(path)
	if err != nil {
		return fail("Cannot read the file", "%s Check the path, and that the user who runs this may read it.", reason(err))
	}
	if !utf8.Valid(b) {
		return fail("Not a text file", "%s is not UTF-8 text.", path)
	}
	v.is = strings.TrimSpace(string(b))
	return v, nil
}

func isEnvName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	})
}

// credential begins a path of a file that systemd hands to the service.
const credential = "credential:"

// resolve returns the absolute form of a path that stands in a file of dir, or
// where the credential is that it names.
func resolve(path, dir string) (string, *problem) {
	name, ok := strings.CutPrefix(path, credential)
	switch {
	case ok:
		return credentialPath(name)
	case filepath.IsAbs(path):
		return filepath.Clean(path), nil
	}
	return filepath.Join(dir, path), nil
}

func credentialPath(name string) (string, *problem) {
	if name == "" || strings.Contains(name, "/") || !filepath.IsLocal(name) {
		return "", wrong("Behind " + credential + " stands the name of a credential, without slashes.")
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", &problem{
			summary: "No credentials",
			detail: "systemd hands credentials to the service only: CREDENTIALS_DIRECTORY is not in the environment of this process. " +
				"Write LoadCredential=NAME:/path/to/the/file into its unit; to check a configuration by hand, set the variable to a directory that has the files.",
		}
	}
	return filepath.Join(dir, name), nil
}

func fromCty(v cty.Value) any {
	switch {
	case v.IsNull() || !v.IsKnown(): // unknown: the parser reported it
		return nil
	case v.Type() == cty.String:
		return v.AsString()
	case v.Type() == cty.Number:
		return v.AsBigFloat()
	case v.Type() == cty.Bool:
		return v.True()
	}
	return nil
}

// constant is the value of an expression that stands in our own tables.
func constant(src string) value {
	e, diags := hclsyntax.ParseExpression([]byte(src), "default", hcl.InitialPos)
	if diags.HasErrors() {
		panic("constant " + src + ": " + diags.Error())
	}
	v, p := eval(e, "/")
	if p != nil {
		panic("constant " + src + ": " + p.detail)
	}
	return v
}

// nearest returns the one of names that given is probably meant to be, as a
// question to append to a message, or nothing.
func nearest(given string, names []string) string {
	best, least := "", 2+len(given)/4
	for _, n := range names {
		if d := levenshtein.Distance(given, n, nil); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("Did you mean %s?", best)
}
