package auth

import (
	"fmt"
	"testing"
	"time"
)

// TestTimingOfUnknownNames: the time of a check does not tell a wrong password
// from an unknown name. The samples alternate, so that whatever else the machine
// does meets both alike.
func TestTimingOfUnknownNames(t *testing.T) {
	h := mustParse(t, quickBcrypt)
	v := newFixed(map[string]Hash{"known": h, "other": h}, NewCache(CacheOptions{}))
	const samples = 60
	var known, unknown [samples]time.Duration
	measure := func(name string) time.Duration {
		start := time.Now()
		if ok, err := isRight(v, t.Context(), name, "wrong"); ok || err != nil {
			t.Fatal(ok, err)
		}
		return time.Since(start)
	}
	for i := range samples {
		known[i] = measure("known")
		unknown[i] = measure(fmt.Sprint("unknown", i))
	}
	// How often the one takes longer than the other: 0.5 if nothing can be
	// told, with a standard deviation of 0.053.
	longer := 0
	for _, k := range known {
		for _, u := range unknown {
			if k > u {
				longer++
			}
		}
	}
	share := float64(longer) / (samples * samples)
	t.Logf("a known name takes longer in %.2f of all pairs", share)
	if share < 0.2 || share > 0.8 {
		t.Errorf("the time tells which names there are: %.2f", share)
	}
}
