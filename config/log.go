package config

// Log is the log block.
type Log struct {
	Level  string // trace, debug, info, warn or error
	Format string // text or json
}

func (g *Log) block() block {
	return block{
		name: "log",
		doc:  "What is logged, and how. The log goes to standard error, which systemd hands to the journal.",
		example: `
log {
  level  = "info"
  format = "json"
}`,
		attrs: []attr{
			{
				name: "level", field: choice(&g.Level, "trace", "debug", "info", "warn", "error"), def: `"info"`,
				doc: "The least severity that is logged. `info` has a line for each command; `debug` and `trace` are for looking into a problem.",
			},
			{
				name: "format", field: choice(&g.Format, "text", "json"), def: `"text"`,
				doc: "`text` for people, `json` (one object a line) for programs that collect logs.",
			},
		},
	}
}
