package config

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
)

// field is the variable behind an attribute, with the form of its value.
type field struct {
	takes string // what the attribute takes, for the reference and for errors
	// set checks a value and assigns it. A problem without a summary is a
	// remark on the form of the value. No problem holds the value.
	set func(value) *problem
	// get returns what would set the variable again, cty.NilVal where the
	// attribute is better left out.
	get func() cty.Value
}

// wrong is a remark on the form of a value; an empty one says that it is not
// what the attribute takes.
func wrong(remark string) *problem { return &problem{form: true, detail: remark} }

// where is f, left out of what is printed where it does not apply.
func (f field) where(applies func() bool) field {
	get := f.get
	f.get = func() cty.Value {
		if !applies() {
			return cty.NilVal
		}
		return get()
	}
	return f
}

// count is a whole number.
func count(p *int, least int) field {
	return field{
		takes: fmt.Sprintf("a whole number, %d or more", least),
		set: func(v value) *problem {
			n, ok := v.is.(*big.Float)
			if s, text := v.is.(string); text && v.computed {
				n, _, _ = big.ParseFloat(s, 10, 64, big.ToNearestEven)
				ok = n != nil
			}
			if !ok || !n.IsInt() {
				return wrong("")
			}
			i, acc := n.Int64()
			switch {
			case i < int64(least):
				return wrong("This is less.")
			case acc != big.Exact || i > math.MaxInt32:
				return wrong("This is too much.")
			}
			*p = int(i)
			return nil
		},
		get: func() cty.Value { return cty.NumberIntVal(int64(*p)) },
	}
}

// duration is a time with its unit. least is 0 or 1: whether it may be zero.
func duration(p *time.Duration, least time.Duration) field {
	takes := "a duration"
	if least > 0 {
		takes = "a duration above 0"
	}
	return field{
		takes: takes,
		set: func(v value) *problem {
			const form = `That is a number and its unit (ms, s, m or h) in double quotes: "500ms", "10s", "5m", "1h30m".`
			s, ok := v.is.(string)
			if !ok {
				return wrong(form)
			}
			d, err := time.ParseDuration(s)
			switch {
			case err != nil:
				return wrong(form)
			case d < 0:
				return wrong("It cannot be negative.")
			case d < least:
				return wrong("It cannot be 0.")
			}
			*p = d
			return nil
		},
		get: func() cty.Value { return cty.StringVal(formatDuration(*p)) },
	}
}

// formatDuration is d.String without the zero units at the end.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// units of sizes, largest first.
func units() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

// size is a number of bytes with its unit, above 0.
func size(bytes *int64) field {
	return field{
		takes: "a size above 0",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong(sizeForm)
			}
			n, p := parseSize(s)
			if p != nil {
				return p
			}
			*bytes = n
			return nil
		},
		get: func() cty.Value { return cty.StringVal(formatSize(*bytes)) },
	}
}

// optionalSize is a size that is 0 where it was not set.
func optionalSize(bytes *int64) field {
	f := size(bytes)
	get := f.get
	f.get = func() cty.Value {
		if *bytes == 0 {
			return cty.NilVal
		}
		return get()
	}
	return f
}

const sizeForm = `That is a whole number and its unit (B, KiB, MiB, GiB or TiB, each 1024 times the one before) in double quotes: "512MiB", "10GiB".`

func parseSize(s string) (int64, *problem) {
	for _, u := range units() {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		switch {
		case errors.Is(err, strconv.ErrRange) || n > uint64(math.MaxInt64/u.bytes):
			return 0, wrong("This is too much.")
		case err != nil:
			return 0, wrong(sizeForm)
		case n == 0:
			return 0, wrong("It cannot be 0.")
		}
		return int64(n) * u.bytes, nil
	}
	return 0, wrong(sizeForm)
}

func formatSize(n int64) string {
	for _, u := range units() {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	panic("a size is a whole number of bytes")
}

// text is a string that may stand on a line of a log or of the protocol. An
// empty variable is one that was not set.
func text(to *string) field {
	return field{
		takes: "text",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if p := checkText(s); p != nil {
				return p
			}
			*to = s
			return nil
		},
		get: func() cty.Value { return optional(*to) },
	}
}

func optional(s string) cty.Value {
	if s == "" {
		return cty.NilVal
	}
	return cty.StringVal(s)
}

func checkText(s string) *problem {
	switch {
	case s == "":
		return wrong("It is empty.")
	case !utf8.ValidString(s):
		return wrong("It is not UTF-8.")
	case strings.ContainsFunc(s, unicode.IsControl):
		return wrong("It has a control character (a tab or a line break?) in it.")
	}
	return nil
}

// choice is one of a few words. An empty variable is one that was not set.
func choice(p *string, words ...string) field {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	return field{
		takes: "one of " + strings.Join(quoted, ", "),
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if !slices.Contains(words, s) {
				return wrong("")
			}
			*p = s
			return nil
		},
		get: func() cty.Value { return optional(*p) },
	}
}

// toggle is yes or no.
func toggle(p *bool) field {
	return field{
		takes: "`true` or `false`",
		set: func(v value) *problem {
			b, ok := v.is.(bool)
			if !ok {
				return wrong("It stands without quotes.")
			}
			*p = b
			return nil
		},
		get: func() cty.Value { return cty.BoolVal(*p) },
	}
}

// texts is a list of strings, none twice. An empty variable is one that was
// not set.
func texts(to *[]string) field {
	return field{
		takes: "a list of texts",
		set: func(v value) *problem {
			items, ok := v.is.([]value)
			if !ok {
				return wrong("A list stands in brackets, also of one.")
			}
			if len(items) == 0 {
				return wrong("It is empty.")
			}
			list := make([]string, 0, len(items))
			for _, item := range items {
				s, ok := item.is.(string)
				p := wrong("Each of the list stands in double quotes.")
				switch {
				case ok && slices.Contains(list, s):
					p = wrong("This one stands there twice.")
				case ok:
					p = checkText(s)
				}
				if p != nil {
					p.at = &item.rng
					return p
				}
				list = append(list, s)
			}
			*to = list
			return nil
		},
		get: func() cty.Value {
			if len(*to) == 0 {
				return cty.NilVal
			}
			items := make([]cty.Value, len(*to))
			for i, s := range *to {
				items[i] = cty.StringVal(s)
			}
			return cty.TupleVal(items)
		},
	}
}

// networks is a list of address prefixes. An empty variable is one that was
// not set.
func networks(to *[]netip.Prefix) field {
	var list []string
	f := texts(&list)
	f.takes = "a list of networks"
	read := f.set
	f.set = func(v value) *problem {
		list = nil
		if p := read(v); p != nil {
			return p
		}
		prefixes := make([]netip.Prefix, 0, len(list))
		for i, s := range list {
			prefix, err := netip.ParsePrefix(s)
			prefix = prefix.Masked()
			remark := ""
			switch {
			case err != nil:
				remark = "A network is an address, a slash and the number of bits."
			case slices.Contains(prefixes, prefix):
				remark = "This one stands there twice."
			}
			if remark != "" {
				p := wrong(remark)
				p.at = &v.is.([]value)[i].rng
				return p
			}
			prefixes = append(prefixes, prefix)
		}
		*to = prefixes
		return nil
	}
	f.get = func() cty.Value {
		if len(*to) == 0 {
			return cty.NilVal
		}
		items := make([]cty.Value, len(*to))
		for i, prefix := range *to {
			items[i] = cty.StringVal(prefix.String())
		}
		return cty.TupleVal(items)
	}
	return f
}

// existingFile is the path of a file that can be read.
func existingFile(to *string) field {
	return path(to, func(path string) error {
		if err := checkRegular(path); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// existingDir is the path of a directory.
func existingDir(to *string) field {
	return path(to, func(path string) error {
		info, err := os.Stat(path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", path)
		}
		return err
	})
}

func path(to *string, check func(string) error) field {
	f := text(to)
	f.takes = "a path"
	set := f.set
	f.set = func(v value) *problem {
		if p := set(v); p != nil {
			return p
		}
		resolved, p := resolve(*to, v.dir)
		if p != nil {
			return p
		}
		*to = resolved
		if err := check(*to); err != nil {
			return &problem{
				summary: "Path not usable",
				detail:  reason(err) + " Create it, or write the path of one that is there; a relative path starts at the directory of the file it stands in.",
			}
		}
		return nil
	}
	return f
}
