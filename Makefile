# claudemesh: `make demo` shows the main job, `make test` is what CI runs.
# Every target works on a machine that has Go and nothing else of ours.

GO      ?= go
BIN     := bin/claudemesh

LDFLAGS := -s -w
TOOL    := $(GO) tool -modfile=tools.mod
# Where `make install` puts the binary: GOBIN if it is set, else ~/.local/bin.
PREFIX  ?= $(or $(shell $(GO) env GOBIN),$(HOME)/.local/bin)

.PHONY: build demo test test-long bench lint install clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) .

demo: build
	./docs/demo.sh $(BIN)

lint:
	@out=$$($(TOOL) gofumpt -l .); test -z "$$out" || { echo "not formatted (run: $(TOOL) gofumpt -w .):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

# What runs in the tests' own process runs with the race detector. What starts the program itself, a thousand times over, runs without: under it a start takes a
# second, and every process sleeps for another one before it ends (hence GORACE).
STARTS   := ^(TestScripts|TestEveryCommandOfTheSkillWorks)$$
CLIENTS  := $(shell $(GO) list ./testenv/claude/...)
test: lint
	GORACE=atexit_sleep_ms=0 $(GO) test -race -timeout 15m -skip '$(STARTS)' $(filter-out $(CLIENTS),$(shell $(GO) list ./...))
	$(GO) test -timeout 15m -run '$(STARTS)' ./cli
	$(GO) test -timeout 15m $(CLIENTS)

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
