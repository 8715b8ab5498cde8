# `make test` is everything that must hold before a change lands; `make soak` runs the long proofs whole.
.PHONY: test tools format lint deny rust web soak bench

CARGO ?= cargo
TESTS_WEB := tests/web

test: tools format lint deny rust web

# Installs what is lacking where it may, and says what to install where it may not.
tools:
	@scripts/tools

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings

deny:
	$(CARGO) deny --log-level error check bans licenses sources

rust:
	$(CARGO) build -p canvass
	$(CARGO) test --workspace --all-features

web:
	cd $(TESTS_WEB) && npm ci --no-audit --no-fund && npm run check && npm test

soak:
	$(CARGO) build --release -p canvass
	CANVASS_SOAK=1 CANVASS_BIN=$(CURDIR)/target/release/canvass $(CARGO) test --release -p canvass -- --nocapture --test-threads 1

# The tables of docs/BENCHMARKS.md.
bench:
	$(CARGO) build --release -p canvass
	for table in ingest proof peers read stream fold latency overload; do target/release/canvass bench suite $$table || exit 1; done
