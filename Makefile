# make demo    run the main job: one image in a micro-VM and in namespaces
# make test    every test
# make build   leave all that is installed in target/release; rkt runs from there
# make bench   the benchmark, into build/bench.json; with PARTS="network crowd" only these parts of it
# make install DESTDIR= PREFIX=/usr/local
#
# CARGO names cargo; nothing else is configured.

CARGO ?= cargo
DESTDIR ?=
PREFIX ?= /usr/local
PARTS ?=

# .cargo/config.toml sets the target.
out := target/x86_64-unknown-linux-gnu/release
helpers := stage1-nspawn stage1-kvm stage1-fly
# CNI plugins for what a host may lack.
plugins := portmap
# What a guest is made of.
guest := vmlinux vmlinux-norethunk guest.erofs

# The order of what a target needs counts.
.NOTPARALLEL:
.PHONY: build setup images demo test bench install clean

build:
	kernel-config/build build/vmlinux
	$(CARGO) build --locked --release --workspace --bins
	mkdir -p target/release/cni
	cd target/release && ln -f $(addprefix ../../$(out)/,rkt $(helpers)) .
	cd target/release/cni && ln -f $(addprefix ../../../$(out)/,$(plugins)) .
	for kernel in vmlinux vmlinux-norethunk; do \
		cmp -s build/$$kernel target/release/$$kernel || cp build/$$kernel target/release/ || exit; done
	$(out)/guest-root $(out)/guest-init target/release/guest.erofs
	rm -rf target/release/man && $(out)/rkt manual target/release/man
	mkdir -p target/release/completion
	for shell in bash zsh fish; do $(out)/rkt completion $$shell >target/release/completion/$$shell || exit; done

setup:
	tests/setup

images: setup
	tests/images build/images

demo: setup build images
	tests/demo

test: setup build images
	tests/run

bench: setup build images
	tests/bench $(PARTS)

# What `build` has left, so that root needs no Rust.
install:
	@test -x target/release/rkt -a -e target/release/guest.erofs || { echo "run make build first" >&2; exit 1; }
	install -D -m 755 target/release/rkt "$(DESTDIR)$(PREFIX)/bin/rkt"
	install -d "$(DESTDIR)$(PREFIX)/lib/rkt/cni" "$(DESTDIR)$(PREFIX)/share/doc/rkt"
	install -m 755 $(addprefix target/release/,$(helpers)) "$(DESTDIR)$(PREFIX)/lib/rkt"
	install -m 755 $(addprefix target/release/cni/,$(plugins)) "$(DESTDIR)$(PREFIX)/lib/rkt/cni"
	install -m 644 $(addprefix target/release/,$(guest)) "$(DESTDIR)$(PREFIX)/lib/rkt"
	install -d "$(DESTDIR)$(PREFIX)/share/man/man1"
	install -m 644 target/release/man/*.1 "$(DESTDIR)$(PREFIX)/share/man/man1"
	install -D -m 644 target/release/completion/bash "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/rkt"
	install -D -m 644 target/release/completion/zsh "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_rkt"
	install -D -m 644 target/release/completion/fish "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/rkt.fish"
	install -m 644 README.md LICENSE docs/*.md "$(DESTDIR)$(PREFIX)/share/doc/rkt"

clean:
	$(CARGO) clean
	rm -rf build
