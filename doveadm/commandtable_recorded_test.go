package doveadm

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var paramKindNames = [...]string{
	ParamFlag: "flag", ParamText: "text", ParamNumber: "number", ParamList: "list", ParamFile: "file",
}

// describeParams writes parameters as the recorded lists do.
func describeParams(params []Param, s Series) string {
	var list []string
	for _, p := range params {
		if p.Series&s == 0 {
			continue
		}
		text := p.Long + ":" + paramKindNames[p.Kind]
		switch {
		case p.Positional:
			text = "[" + text + "]"
		case p.Short != 0:
			text = "-" + string(rune(p.Short)) + "/" + text
		default:
			text = "--" + text
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

func describeCommand(c *CommandInfo, s Series) string {
	params := c.Params
	kind := "global"
	switch c.Kind {
	case MailCommand:
		kind, params = "mail", params[len(commonParams):]
	case ClientCommand:
		kind = "client"
	}
	text := describeParams(params, s)
	if c.OptionsFirst {
		text = "+ " + text
	}
	return strings.TrimRight(kind+"\t"+c.Name+"\t"+text, "\t")
}

// The table says what testdata/commands says; its README tells where that
// comes from.
func TestCommandTableAsRecorded(t *testing.T) {
	for release, series := range map[string]Series{"2.3.19.1": Series23, "2.4.1": Series24} {
		t.Run(release, func(t *testing.T) {
			data, err := os.ReadFile("testdata/commands/" + release + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			recorded := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
			table := []string{"common\t\t" + describeParams(commonParams, series)}
			for _, c := range Commands() {
				if c.Series&series != 0 {
					table = append(table, describeCommand(c, series))
				}
			}
			slices.Sort(recorded)
			slices.Sort(table)
			if diff := cmp.Diff(recorded, table); diff != "" {
				t.Errorf("- recorded, + table:\n%s", diff)
			}
		})
	}
}
