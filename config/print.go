package config

import (
	"io"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// Print writes a configuration as HCL with everything in it that it says or
// leaves to defaults, and *** for each secret. With the secrets filled in,
// [Load] reads the same configuration from it.
func Print(w io.Writer, c *Config) error {
	return printWith(w, c, func(cty.Value) cty.Value { return cty.StringVal(masked) })
}

// printWith writes what secret makes of each secret.
func printWith(w io.Writer, c *Config, secret func(cty.Value) cty.Value) error {
	p := printer{secret: secret}
	file := hclwrite.NewEmptyFile()
	top := file.Body()
	for _, n := range c.Listeners {
		p.block(top, n.block(), n.Name)
	}
	for _, cl := range c.Clients {
		body := p.block(top, cl.block(), cl.Name)
		for _, r := range cl.Allow {
			p.block(body, r.block("allow"))
		}
		for _, r := range cl.Deny {
			p.block(body, r.block("deny"))
		}
	}
	if c.Elsewhere != nil {
		p.block(top, c.Elsewhere.defaultsBlock())
	}
	for _, s := range c.Shards {
		body := p.block(top, s.block(), s.Name)
		for _, b := range s.Backends {
			p.block(body, b.block(), b.Name)
		}
	}
	if body := p.block(top, c.Router.block()); len(c.Router.DomainAliases) > 0 {
		for _, d := range c.Router.DomainAliases {
			p.block(body, d.block(), d.Domain)
		}
	}
	for _, r := range c.Routes {
		for _, kind := range r.block().kinds {
			if kind.kind == r.Kind {
				body := p.block(top, kind, r.Kind)
				for _, s := range r.Ring.Servers {
					p.block(body, s.block(), s.Address.String())
				}
			}
		}
	}
	p.block(top, c.Limits.block())
	p.block(top, c.LoginDefence.block())
	p.block(top, c.Referrals.block())
	p.block(top, c.Log.block())
	if c.Admin.Network != "" {
		body := p.block(top, c.Admin.block())
		c.Admin.repeated(func(b block, name string) { p.block(body, b, name) })
	}
	if c.Audit.To != "" {
		p.block(top, c.Audit.block())
	}
	if c.Moves.Driver != "" {
		p.block(top, c.Moves.block())
	}
	_, err := w.Write(hclwrite.Format(file.Bytes()))
	return err
}

type printer struct {
	secret func(cty.Value) cty.Value
}

// block writes what b is bound to, less the blocks in it that are repeated.
func (p printer) block(in *hclwrite.Body, b block, labels ...string) *hclwrite.Body {
	if len(in.Blocks()) > 0 || len(in.Attributes()) > 0 {
		in.AppendNewline()
	}
	body := in.AppendNewBlock(b.name, labels).Body()
	for _, a := range b.attrs {
		v := a.field.get()
		if v == cty.NilVal {
			continue
		}
		if a.secret {
			v = p.secret(v)
		}
		body.SetAttributeValue(a.name, v)
	}
	for _, nested := range b.blocks {
		if !nested.many && !nested.empty() {
			p.block(body, nested)
		}
	}
	return body
}
