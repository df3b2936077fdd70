# Entry points for people and for CI; "make help" lists them. Needed beforehand:
# Go, make and git. What else is missing, "make deps" installs.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 1m
KEEP     ?=
BENCH    ?=
COMPAT   ?=
CHAOS    ?=
CROWD    ?= 20000
AGAINST  ?= HEAD^
LDFLAGS  ?=
PREFIX   ?= /usr/local
DESTDIR  ?=

BINDIR  = $(PREFIX)/bin
DATADIR = $(PREFIX)/share
UNITDIR = $(PREFIX)/lib/systemd/system
DOCDIR  = $(DATADIR)/doc/doveadm-proxy

BINARY = bin/doveadm-proxy
# The tools have versions of their own, in tools/go.mod.
TOOL = go tool -modfile=tools/go.mod

# Everything is compiled in one way, but for what runs under the race detector,
# which needs C: that a dependency takes a minute to compile is felt twice only.
# Left alone, each program that ran under it sleeps for a second before it ends.
export CGO_ENABLED = 0
export GOFLAGS = -trimpath
RACE = CGO_ENABLED=1 GOFLAGS= GORACE=atexit_sleep_ms=0

.NOTPARALLEL:
.PHONY: help demo test deps deps-2.3 lint format fuzz bench bench-long bench-age bench-concurrency bench-profile bench-scale bench-diff chaos compat crowd build install packages clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: deps-2.3 build ## three real Dovecots behind the proxy, shown command by command; KEEP=1 leaves them running
	go build -buildvcs=false -o bin/demo ./internal/demo
	bin/demo -proxy $(BINARY) $(if $(KEEP),-keep)

# Two at a time: some of them watch what becomes of commands on real servers,
# and a machine that is too busy for those fails tests that are right. The longest
# begins. What is to be compiled is compiled before.
test: deps lint ## everything: checks, fuzz targets for a second each, all tests with the race detector
	scripts/fuzz 1s
	go build -buildvcs=false -o bin/gotest ./scripts/gotest
	$(RACE) go build -race ./...
	$(RACE) bin/gotest -race -shuffle=on -vet=off -p=2 -timeout=30m ./internal/acceptance ./...
	cd bench && $(RACE) ../bin/gotest -race -vet=off ./...

# Without the folder of Dovecot 2.4, which takes minutes to make.
deps-2.3:
	@scripts/deps 2.3

deps: ## install what tests and demo need and this machine lacks (as root; otherwise say the command and fail)
	@scripts/deps

lint: ## format, go vet and staticcheck, without changing anything
	@files=$$($(TOOL) gofumpt -l .) && if [ -n "$$files" ]; then \
		printf 'not formatted, run "make format":\n%s\n' "$$files" >&2; exit 1; fi
	go vet ./...
	$(TOOL) staticcheck ./...
	cd bench && go vet ./... && go tool -modfile=../tools/go.mod staticcheck ./...

format: ## format all Go files
	$(TOOL) gofumpt -w .

fuzz: ## each fuzz target for FUZZTIME (1m)
	scripts/fuzz $(FUZZTIME)

bench: deps build ## the proxy beside direct connections, HAProxy, nginx and Dovecot's own proxy, in two and a half minutes (BENCH are its options)
	cd bench && go build -buildvcs=false -o ../bin/bench .
	bin/bench -proxy $(BINARY) $(BENCH)

bench-long: deps build ## the same in full, into the documents; and the cost of rights and routes
	cd bench && go build -buildvcs=false -o ../bin/bench .
	bin/bench -proxy $(BINARY) -long -update docs/performance.md,README.md $(BENCH)
	go test -run '^$$' -bench Decide ./internal/access
	go test -run '^$$' -bench 'Ring|Millions|CachedDecision' ./router

bench-age: deps ## what a command costs by how many its connection has served, from which max_commands is chosen
	cd bench && go build -buildvcs=false -o ../bin/bench .
	bin/bench age -update docs/performance.md

# The proxy and the benchmark open a file for each session: see ulimit -n.
bench-scale: build ## memory, descriptors and CPU with 500 backends, 20000 sessions and a map of 5 million users, into the documents (BENCH are its options)
	cd bench && go build -buildvcs=false -o ../bin/bench .
	bin/bench scale -proxy $(BINARY) -update docs/performance.md,docs/sizing.md $(BENCH)

# The proxy's own number of commands at the same time beside fixed ones.
bench-concurrency: deps build ## how good the number of commands at the same time is that the proxy finds out by itself
	cd bench && go build -buildvcs=false -o ../bin/bench .
	bin/bench concurrency -proxy $(BINARY) -update docs/performance.md

bench-profile: deps build ## where the processor time of the proxy goes, with flame graphs (needs perf: the package linux-perf)
	cd bench && go build -buildvcs=false -o ../bin/bench .
	bin/bench profile -proxy $(BINARY) -graphs docs -update docs/performance.md

# The parent is measured from a copy of its files, in turns with this one.
bench-diff: ## micro-benchmarks of the hot path, compared with those of the commit before (AGAINST names another)
	@scripts/benchdiff $(AGAINST)

# The test and the proxy open CROWD files each: see ulimit -n.
crowd: ## memory of CROWD (20000) idle sessions, what 200,000 silent connections leave, a bulk client beside an interactive one
	go test -count=1 -v -timeout=30m ./internal/acceptance -run 'TestIdleSessions|TestSilentConnections|TestBulkBesideInteractive' \
		-args -crowd-sessions $(CROWD) -crowd-silent 200000 -fair-commands 500

compat: deps build ## every command directly and through the proxy, compared; fills the tables of the documents; COMPAT are its options
	go run ./internal/compat -proxy $(BINARY) $(COMPAT)
	$(RACE) go test -count=1 -timeout=30m ./internal/acceptance -run 'TestSameBytes|TestSaveGigabyte|TestConnectPerCommand' -args -whole

chaos: deps build ## ten minutes of faults of every kind under load, and a ledger of every command; CHAOS are its options
	go build -buildvcs=false -o bin/chaos ./internal/chaos
	bin/chaos -proxy $(BINARY) $(CHAOS)

# The version is stamped from git here, so Go's own stamp (which fails where git
# mistrusts the owner of the checkout) is off.
build: ## build bin/doveadm-proxy
	go build -buildvcs=false -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o $(BINARY) ./cmd/doveadm-proxy

install: build ## install below PREFIX (/usr/local), into the tree DESTDIR
	install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(DOCDIR)/examples'
	install -m 0755 $(BINARY) '$(DESTDIR)$(BINDIR)/doveadm-proxy'
	for unit in systemd/*.service systemd/*.socket; do \
		sed 's|/usr/\(local/\)*s*bin/doveadm-proxy|$(BINDIR)/doveadm-proxy|g' "$$unit" > '$(DESTDIR)$(UNITDIR)'/"$${unit##*/}" || exit 1; done
	install -D -m 0644 systemd/doveadm-proxy.sysusers '$(DESTDIR)$(PREFIX)/lib/sysusers.d/doveadm-proxy.conf'
	rm -rf bin/man && mkdir bin/man && $(BINARY) man bin/man
	for page in bin/man/*; do \
		install -D -m 0644 "$$page" '$(DESTDIR)$(DATADIR)/man/man'"$${page##*.}/$${page##*/}" || exit 1; done
	install -d '$(DESTDIR)$(DATADIR)/bash-completion/completions' '$(DESTDIR)$(DATADIR)/zsh/site-functions' '$(DESTDIR)$(DATADIR)/fish/vendor_completions.d'
	$(BINARY) completion bash > '$(DESTDIR)$(DATADIR)/bash-completion/completions/doveadm-proxy'
	$(BINARY) completion zsh > '$(DESTDIR)$(DATADIR)/zsh/site-functions/_doveadm-proxy'
	$(BINARY) completion fish > '$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/doveadm-proxy.fish'
	cp -R examples/. '$(DESTDIR)$(DOCDIR)/examples'
	cp -R README.md docs/. '$(DESTDIR)$(DOCDIR)'

# Stripped, and with the time of the commit: the same commit gives the same bytes.
packages: ## the Debian package and the RPM, in bin/packages
	rm -rf bin/root
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(MAKE) --no-print-directory install PREFIX=/usr DESTDIR=bin/root LDFLAGS='-s -w' BINARY=bin/stripped/doveadm-proxy
	VERSION='$(VERSION)' scripts/package

clean: ## remove what was built
	rm -rf bin
