# claudemesh: `make demo` shows the main job, `make test` is what CI runs.
# Every target works on a machine that has Go and nothing else of ours.

GO      ?= go
BIN     := bin/claudemesh

LDFLAGS := -s -w
TOOL    := $(GO) tool -modfile=tools.mod
# Where `make install` puts the binary: GOBIN if it is set, else ~/.local/bin.
PREFIX  ?= $(or $(shell $(GO) env GOBIN),$(HOME)/.local/bin)

.PHONY: build cross demo test test-race test-long bench lint install clean screenshots

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) .

# One binary for each system, without cgo; nothing of it runs here.
TARGETS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
cross:
	@set -e; for t in $(TARGETS); do \
		os=$${t%/*}; arch=$${t#*/}; ext=; test $$os != windows || ext=.exe; \
		out=bin/claudemesh-$$os-$$arch$$ext; echo $$out; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $$out .; \
	done

demo: build
	./docs/demo.sh $(BIN)

lint:
	@out=$$($(TOOL) gofumpt -l .); test -z "$$out" || { echo "not formatted (run: $(TOOL) gofumpt -w .):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

# Under the race detector SQLite, which is Go here, is ten times slower. So what is long because of its counts runs without it: what starts the program itself, a
# thousand times over (and every process under it sleeps for a second before it ends, hence GORACE), and the loads of testenv. So does what shows a form: the
# library's reader of the terminal outlives it and meets the test that closes the terminal. The rest, and property tests with
# a fifth of their checks (-short), runs with it; `make test-race` runs everything with it.
STARTS   := TestScripts|TestEveryCommandOfThe(Skill|Readme)Works|TestTheWizardAsksOnATerminalOnly|TestPickingAMeshByTheArrowKeys.*|TestTopOnATerminal
LOADS    := TestAHundredClientsReachEachOtherOnce|TestNothingAcceptedIsLostOrDoubled.*|TestAStuckTapStopsNobody|TestHostileClientsHurtOnlyThemselves|TestConformance
CLIENTS  := $(shell $(GO) list ./testenv/claude/...)
test: lint
	GORACE=atexit_sleep_ms=0 $(GO) test -race -short -timeout 15m -skip '^($(STARTS)|$(LOADS))$$' $(filter-out $(CLIENTS),$(shell $(GO) list ./...))
	$(GO) test -timeout 15m -run '^($(STARTS)|$(LOADS))$$' ./cli ./testenv
	$(GO) test -timeout 15m $(CLIENTS)

test-race:
	GORACE=atexit_sleep_ms=0 $(GO) test -race -timeout 60m ./...

# Crash injection (20 rounds), soak and long fuzz. FUZZTIME is per fuzz target.
FUZZTIME ?= 20s
test-long:
	CLAUDEMESH_TEST_LONG=1 $(GO) test -count=1 -timeout 60m ./...
	GO='$(GO)' FUZZTIME=$(FUZZTIME) ./docs/fuzz.sh

# BENCH=-quick for a tenth of it, BENCH='-only idle' for one part; without -full nothing is measured with 10,000 connections and a million messages.
BENCH ?= -full
bench: build
	$(GO) run ./testenv/bench -bin $(BIN) $(BENCH)

install: build
	mkdir -p '$(PREFIX)'
	install -m 0755 $(BIN) '$(PREFIX)/claudemesh'
	@echo "installed $(PREFIX)/claudemesh"

clean:
	rm -rf bin

# Pictures of the broker's approval page, made by a headless chromium; skipped, with the reason, where there is none.
screenshots:
	mkdir -p $(CURDIR)/screenshots
	CLAUDEMESH_SCREENSHOTS=$(CURDIR)/screenshots go test -count=1 -v -run 'TestThePageIsLookedAt' ./broker | grep -E 'screenshot|SKIP|chromium|^(ok|FAIL|---)'
