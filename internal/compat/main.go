package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
"runtime/pprof"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

func main() {
	binary := flag.String("proxy", "bin/doveadm-proxy", "")
	only := flag.String("run", "", "")
	who := flag.String("client", "", "")
	where := flag.String("backend", "", "")
	show := flag.Bool("show", false, "")
	flag.Parse()
	ctx := context.Background()
	pf, _ := os.Create("/tmp/explore/prof"); pprof.StartCPUProfile(pf); defer pprof.StopCPUProfile()
	s, err := startSite(ctx, *binary)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer func() {
		if err := s.close(); err != nil {
			fmt.Println(err)
		}
	}()
	exps := explanations()
	used := map[explanationID]int{}
	for _, c := range clients() {
		if *who != "" && !regexp.MustCompile(*who).MatchString(c.String()) {
			continue
		}
		for _, v := range dovecot.Versions() {
			if *where != "" && string(v) != *where {
				continue
			}
			start := time.Now()
			var counts [verdicts]int
			var mu sync.Mutex
			next := make(chan *command)
			var wg sync.WaitGroup
			for w := range workers {
				b := newBench(s, s.twins[v], c, exps, w, start)
				wg.Go(func() {
					defer b.close()
					for cmd := range next {
						f, err := b.run(ctx, cmd)
						mu.Lock()
						if err != nil {
							fmt.Println("ERROR", cmd.title, err)
						} else {
							counts[f.verdict]++
							for _, e := range f.explanations {
								used[e.id]++
							}
							if f.verdict == unexplained || *show {
								fmt.Printf("=== %s on %s: %s\n%s", c, v, f.title, f.report)
								for _, e := range f.explanations {
									fmt.Println("   (", e.id, ")")
								}
							}
						}
						mu.Unlock()
					}
				})
			}
			for _, cmd := range allCases(v) {
				if c.can(&cmd) && regexp.MustCompile(*only).MatchString(cmd.title) {
					next <- &cmd
				}
			}
			close(next)
			wg.Wait()
			fmt.Println("##", c, "on", v, counts, time.Since(start).Round(time.Second))
		}
	}
	fmt.Println(used)
}
