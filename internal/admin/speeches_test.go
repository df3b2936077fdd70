package admin_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

// TestSpeeches: what a proxy answers has the fields of the type that
// docs/admin-api.md names, no others and no fewer.
func TestSpeeches(t *testing.T) {
	s := start(t, socket)
	asked := 0
	for path, typ := range admin.Speeches() {
		resp := s.send(t, http.MethodGet, path, "")
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusNotImplemented {
			continue
		}
		asked++
		v := reflect.New(typ)
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(v.Interface()); err != nil {
			t.Errorf("GET %s: %v in %s", path, err, text)
			continue
		}
		// Encoded again it has to be the same: nothing that the type has is missing.
		again, err := json.Marshal(v.Interface())
		if err != nil {
			t.Fatal(err)
		}
		var before, after any
		json.Unmarshal(text, &before)
		json.Unmarshal(again, &after)
		if !reflect.DeepEqual(before, after) {
			t.Errorf("GET %s answers\n%s\nand as %s that is\n%s", path, text, typ, again)
		}
	}
	if asked < 10 {
		t.Errorf("only %d verbs asked", asked)
	}
}
