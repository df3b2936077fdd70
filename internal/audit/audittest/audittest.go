// Package audittest checks lines of the audit log against the schema of
// docs/audit.schema.json.
package audittest

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
)

var schema = sync.OnceValues(func() (schema map[string]any, err error) {
	src, err := read("docs/audit.schema.json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(src, &schema); err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	return schema, nil
})

// read reads a file of the project from within the directory of any package:
// tests run there, and what is compiled with -trimpath knows no other place.
func read(path string) ([]byte, error) {
	for up := "."; ; up = filepath.Join(up, "..") {
		src, err := os.ReadFile(filepath.Join(up, path))
		if err == nil || len(up) > 32 {
			return src, err
		}
	}
}

// Check decodes a line of an audit log and checks it against the schema.
func Check(line []byte) (map[string]any, error) {
	schema, err := schema()
	if err != nil {
		return nil, err
	}
	var value map[string]any
	if err := json.Unmarshal(line, &value); err != nil {
		return nil, fmt.Errorf("%q: %w", line, err)
	}
	if err := validate("line", schema, value); err != nil {
		return nil, fmt.Errorf("%w: %s", err, line)
	}
	return value, nil
}

// validate knows the keywords that the schema uses, and fails on others.
func validate(at string, schema map[string]any, value any) error {
	for keyword, rule := range schema {
		var err error
		switch keyword {
		case "$schema", "title", "description", "properties":
		case "type":
			err = isType(value, rule.(string))
		case "enum":
			if !slices.Contains(rule.([]any), value) {
				err = fmt.Errorf("is none of %v", rule)
			}
		case "pattern":
			if s, ok := value.(string); ok && !regexp.MustCompile(rule.(string)).MatchString(s) {
				err = fmt.Errorf("does not match %v", rule)
			}
		case "minimum":
			if n, ok := value.(float64); ok && n < rule.(float64) {
				err = fmt.Errorf("is less than %v", rule)
			}
		case "items":
			for i, item := range value.([]any) {
				if err := validate(fmt.Sprintf("%s[%d]", at, i), rule.(map[string]any), item); err != nil {
					return err
				}
			}
		case "required":
			for _, name := range rule.([]any) {
				if _, ok := value.(map[string]any)[name.(string)]; !ok {
					err = fmt.Errorf("has no %v", name)
				}
			}
		case "additionalProperties":
			if rule != false {
				return fmt.Errorf("schema: additionalProperties is %v", rule)
			}
			known := schema["properties"].(map[string]any)
			for name, v := range value.(map[string]any) {
				inner, ok := known[name].(map[string]any)
				if !ok {
					return fmt.Errorf("%s has a %s, which the schema does not know", at, name)
				}
				if err := validate(name, inner, v); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("schema: unknown keyword %s", keyword)
		}
		if err != nil {
			return fmt.Errorf("%s %w", at, err)
		}
	}
	return nil
}

func isType(value any, want string) error {
	ok := false
	switch v := value.(type) {
	case string:
		ok = want == "string"
	case float64:
		ok = want == "number" || want == "integer" && v == math.Trunc(v)
	case []any:
		ok = want == "array"
	case map[string]any:
		ok = want == "object"
	}
	if !ok {
		return fmt.Errorf("is %T and not %s", value, want)
	}
	return nil
}
