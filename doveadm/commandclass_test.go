package doveadm

import "testing"

func TestClass(t *testing.T) {
	for name, want := range map[string]Class{
		"quota get": ClassQuick, "who": ClassQuick, "fetch": ClassNormal, "save": ClassNormal,
		"index": ClassSlow, "dsync-server": ClassSlow, "no such command": ClassNormal,
	} {
		info, _ := LookupCommand(name)
		if got := info.Class(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}
