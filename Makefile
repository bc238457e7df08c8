# SPDX-License-Identifier: Apache-2.0
#
# The one build file. Everything made goes under $(B); nothing is written beside the sources.
# A room (HOUSE: agentd/x, sources, destinations) becomes one archive, so that a unit test links
# the rooms it may see and no more.

B       ?= build
ifeq ($(origin CC),default)
CC      := gcc
endif
CLANG   ?= clang
BPFTOOL ?= $(firstword $(shell command -v bpftool 2>/dev/null) $(wildcard /usr/sbin/bpftool) \
             $(lastword $(sort $(wildcard /usr/lib/linux-tools*/bpftool /usr/lib/linux-tools/*/bpftool))) bpftool)
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := $(shell cat VERSION)
# What is built for: another one takes MACHINE=aarch64 CC=aarch64-linux-gnu-gcc and that machine's libraries.
MACHINE ?= $(shell uname -m)
ARCH    := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(MACHINE)))

WARN    := -Wall -Wextra -Wno-unused-parameter -Wstrict-prototypes -Wmissing-prototypes -Wvla
ifdef CI
WARN    += -Werror
endif
OPT     ?= -O2
CFLAGS  += -std=gnu17 $(OPT) -g -fno-omit-frame-pointer -fstack-protector-strong $(WARN)
CPPFLAGS += -D_GNU_SOURCE -I. -I$(B)/gen -DODI_VERSION='"$(VERSION)"'
ifdef SAN
CFLAGS  += -fsanitize=address,undefined -fno-sanitize-recover=undefined
LDFLAGS += -fsanitize=address,undefined
else
CPPFLAGS += -D_FORTIFY_SOURCE=2
LDFLAGS += -Wl,-z,relro,-z,now
endif
LDFLAGS += -Wl,--as-needed

# ---- rooms -------------------------------------------------------------------------------------
AGENT_ROOMS := base wire elf api control config store sampler container process unwind symbol profile
TOP_ROOMS   := sources destinations odictl
ROOMS_ALL   := $(AGENT_ROOMS) $(TOP_ROOMS)
room_dir     = $(if $(filter $(1),$(TOP_ROOMS)),$(1),agentd/$(1))

PROTOS   := $(wildcard agentd/wire/*.proto)
PB_C     := $(PROTOS:%.proto=$(B)/gen/%.pb-c.c)
PB_H     := $(PB_C:.c=.h)
BPF_SRC  := $(wildcard bpf/*.bpf.c)
SKELS    := $(BPF_SRC:bpf/%.bpf.c=$(B)/gen/bpf/%.skel.h)
EMBEDS   := $(patsubst %,$(B)/gen/%.embed.h,$(wildcard destinations/catalogue/*.yaml) \
              $(wildcard odictl/assets/*)) $(B)/gen/destinations/catalogue.inc

src_of    = $(wildcard $(call room_dir,$(1))/*.c)
obj_of    = $(patsubst %.c,$(B)/obj/%.o,$(call src_of,$(1))) \
            $(if $(filter wire,$(1)),$(PB_C:$(B)/gen/%.c=$(B)/obj/gen/%.o))

# What each room's unit tests link (its own archive and those of the rooms it may include).
deps_base := base
deps_wire := wire base
deps_elf  := elf base
deps_api  := api wire base
deps_store := store base
deps_config := config sources destinations process container unwind profile wire store base
deps_control := control api config sources destinations process container unwind profile store wire base
deps_sampler := sampler unwind base
deps_container := container base
deps_process := process container unwind base
deps_unwind := unwind elf base
deps_symbol := symbol unwind elf base
deps_bpf := unwind elf base
deps_profile := profile wire base
deps_sources := sources process container unwind base
deps_destinations := destinations profile config sources process container unwind store wire base
deps_odictl := odictl api wire base
# Of the composition root only what is pure is tested so: the objects named here.
deps_agentd := profile wire base
AGENTD_PURE := daemon_budget daemon_counts daemon_stacks daemon_symbols

libs_base := -lsystemd -lseccomp -lcap -lz -lzstd
libs_wire := -lprotobuf-c
libs_elf := -lelf -ldw -lzstd -llzma
libs_store := -lsqlite3
libs_config := -lyaml
libs_sampler := -lbpf -lelf
libs_bpf := -lbpf
libs_container := -ljson-c
libs_symbol := -liberty
libs_destinations := -lyaml -ldl
libs_odictl :=
LIBS_AGENTD := -lbpf -ldw -lelf -lyaml -lsqlite3 -lprotobuf-c -lsystemd -lseccomp -lcap \
               -ljson-c -liberty -lzstd -llzma -lz -ldl
LIBS_ODICTL := -lprotobuf-c -lsystemd -lseccomp -lcap -lzstd -lz

AGENTD_ROOMS := $(filter-out odictl,$(ROOMS_ALL))
lib       = $(B)/lib/$(1).a
libs_in   = $(foreach r,$(1),$(call lib,$(r)))

.PHONY: all
all: $(B)/bin/agentd $(B)/bin/odictl $(B)/compile_commands.json

$(B)/bin/agentd: $(B)/obj/agentd/main.o $(B)/obj/agentd/daemon.o $(patsubst %.c,$(B)/obj/%.o,$(wildcard agentd/daemon_*.c)) $(call libs_in,$(AGENTD_ROOMS))
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS_AGENTD)

$(B)/bin/odictl: $(call libs_in,odictl api wire base)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ -Wl,--whole-archive $(call lib,odictl) -Wl,--no-whole-archive \
	  -Wl,--start-group $(filter-out $(call lib,odictl),$(filter %.a,$^)) -Wl,--end-group $(LIBS_ODICTL)

define room_rules
$(call lib,$(1)): $(call obj_of,$(1))
	@mkdir -p $$(@D); rm -f $$@
	ar rcs $$@ $$^
.PHONY: room-$(1)
room-$(1): $(call lib,$(1))
endef
$(foreach r,$(ROOMS_ALL),$(eval $(call room_rules,$(r))))

# ---- objects -----------------------------------------------------------------------------------
$(B)/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(filter-out -Wmissing-prototypes -Wextra,$(CFLAGS)) -c -o $@ $<

$(B)/obj/%.o: %.c | $(PB_H) $(SKELS) $(EMBEDS)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h &: %.proto
	@mkdir -p $(@D) $(B)/gen
	protoc-c --c_out=$(B)/gen $<

# ---- BPF ---------------------------------------------------------------------------------------
$(B)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h)
	@mkdir -p $(@D)
	$(CLANG) -target bpf -mcpu=v2 -D__TARGET_ARCH_$(ARCH) -O2 -g -Wall -Werror -Wno-unused-function \
	  -I. -I/usr/include/$(MACHINE)-linux-gnu -c -o $@ $<
	llvm-strip -g $@ 2>/dev/null || true

# The same programs for the other machine: that they compile.
.PHONY: bpf-arm64
bpf-arm64: $(BPF_SRC:bpf/%.bpf.c=$(B)/bpf-arm64/%.bpf.o)
$(B)/bpf-arm64/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h)
	@mkdir -p $(@D)
	$(CLANG) -target bpf -mcpu=v2 -D__TARGET_ARCH_arm64 -O2 -g -Wall -Werror -Wno-unused-function \
	  -I. -I/usr/include/$(shell uname -m)-linux-gnu -c -o $@ $<

$(B)/gen/bpf/%.skel.h: $(B)/bpf/%.bpf.o
	@mkdir -p $(@D)
	$(BPFTOOL) gen skeleton $< > $@.tmp && mv $@.tmp $@

# ---- files built into the binaries ---------------------------------------------------------------
# `#include "odictl/assets/x.html.embed.h"` defines `static const char embed_x_html[]` (NUL at the end).
$(B)/gen/%.embed.h: %
	@mkdir -p $(@D)
	@{ printf 'static const char embed_%s[] = {' "$$(basename $* | tr -c 'A-Za-z0-9\n' '_')"; \
	   od -An -v -tu1 $< | sed 's/[0-9][0-9]*/&,/g'; echo '0};'; } > $@

# The catalogue as X(name, text) rows: the name is the file's, without .yaml.
$(B)/gen/destinations/catalogue.inc: $(wildcard destinations/catalogue/*.yaml)
	@mkdir -p $(@D)
	@{ for f in $^; do n=$$(basename $$f .yaml); printf '#include "%s.embed.h"\n' "$$f"; done; \
	   echo '#define CATALOGUE_BUILT_IN(X) \'; \
	   for f in $^; do n=$$(basename $$f .yaml); \
	     printf 'X("%s", embed_%s_yaml) \\\n' "$$n" "$$(echo $$n | tr -c 'A-Za-z0-9\n' '_')"; done; echo; } > $@

# ---- unit tests ----------------------------------------------------------------------------------
ROOMS ?= $(ROOMS_ALL) bpf agentd
UNIT_SRC := $(foreach r,$(ROOMS),$(wildcard tests/unit/$(r)/*_test.c))
UNIT_BIN := $(UNIT_SRC:%.c=$(B)/%)

define unit_rules
$(B)/tests/unit/$(1)/%_test: $(B)/obj/tests/unit/$(1)/%_test.o $(call libs_in,$(deps_$(1)))
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group \
	  -lcmocka $(foreach r,$(1) $(filter-out $(1),$(deps_$(1))),$(libs_$(r)))
endef
$(foreach r,$(ROOMS_ALL) bpf agentd,$(eval $(call unit_rules,$(r))))
$(patsubst %.c,$(B)/%,$(wildcard tests/unit/agentd/*_test.c)): $(AGENTD_PURE:%=$(B)/obj/agentd/%.o)
.PRECIOUS: $(B)/obj/%.o $(B)/gen/bpf/%.skel.h $(B)/gen/%.embed.h $(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h $(B)/bpf/%.bpf.o

# The exporter alone, driven by lines (tests of delivery).
$(B)/feeder: $(B)/obj/tests/receivers/feeder.o $(call libs_in,$(deps_destinations))
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
	  $(foreach r,$(deps_destinations),$(libs_$(r)))

# The program whose stack the tests of the walk sample: always without frame pointers and sanitizers.
$(B)/tests/unit/bpf/walk_test $(B)/tests/unit/bpf/miss_test $(B)/tests/unit/bpf/count_test $(B)/tests/unit/bpf/agree_test: | $(B)/tests/unit/bpf/chain
$(B)/tests/unit/bpf/chain: tests/unit/bpf/chain.c tests/unit/bpf/chain.h
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE -I. $(WARN) -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -o $@ $<

# The exporter and its spool without BPF, for the benchmark.
$(B)/bench/spooler: $(B)/obj/tests/bench/programs/spooler.o $(call libs_in,$(deps_destinations))
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS_AGENTD)

.PHONY: unit
unit: $(UNIT_BIN)
	@status=0; for t in $(UNIT_BIN); do echo "== $$t"; $$t || status=1; done; exit $$status

# ---- everything else -------------------------------------------------------------------------------
$(B)/compile_commands.json: Makefile
	@mkdir -p $(@D)
	@{ echo '['; sep=; for f in $(wildcard agentd/*.c agentd/*/*.c sources/*.c destinations/*.c odictl/*.c); do \
	  printf '%s{"directory":"%s","file":"%s","command":"cc -std=gnu17 -D_GNU_SOURCE -I. -I%s/gen -DODI_VERSION=\\"0\\" -c %s"}' \
	    "$$sep" "$(CURDIR)" "$$f" "$(B)" "$$f"; sep=','; done; echo ']'; } > $@

# Everything that belongs to an installation, packaged or not. The units name the programs where they are put. ODICTL and
# AGENTD write the manual pages: others than those that are built, where these cannot run here.
SYSCONFDIR ?= /etc
AGENTD ?= $(B)/bin/agentd
ODICTL ?= $(B)/bin/odictl
INSTALLED_UNITS := $(wildcard packaging/systemd/*.service packaging/systemd/*.socket)
.PHONY: install install-programs install-pages install-system
install: install-programs install-pages install-system

install-programs: all
	install -D -m 0755 $(B)/bin/agentd $(DESTDIR)$(PREFIX)/lib/odi/agentd
	install -D -m 0755 $(B)/bin/odictl $(DESTDIR)$(PREFIX)/bin/odictl

install-pages: all
	@rm -rf $(B)/man; mkdir -p $(B)/man $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 \
	  $(DESTDIR)$(PREFIX)/share/man/man8
	$(ODICTL) help --man > $(B)/man/odictl.1
	set -e; for p in $$($(ODICTL) help --man-pages); do \
	  $(ODICTL) help --man $$p > $(B)/man/odictl-$$p.1; done
	set -e; for p in odi.conf odi-destinations; do $(AGENTD) --page $$p > $(B)/man/$$p.5; done
	install -m 0644 $(B)/man/*.5 $(DESTDIR)$(PREFIX)/share/man/man5/
	install -m 0644 $(B)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 0644 packaging/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -D -m 0644 odictl/assets/complete.bash \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/odictl
	install -D -m 0644 odictl/assets/complete.zsh $(DESTDIR)$(PREFIX)/share/zsh/$(ZSH_COMPLETIONS)/_odictl
	install -D -m 0644 odictl/assets/complete.fish \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/odictl.fish

# Where zsh of the system looks: Debian's in vendor-completions, all others in site-functions.
ZSH_COMPLETIONS ?= site-functions

install-system:
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/odi/conf.d
	set -e; for u in $(INSTALLED_UNITS); do \
	  sed 's,/usr/lib/odi/,$(PREFIX)/lib/odi/,' $$u > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$u); \
	  chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$u); done
	install -D -m 0644 packaging/conf/odi.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/odi.conf
	install -D -m 0644 packaging/conf/odi.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/odi.conf
	install -D -m 0644 packaging/conf/80-odi.preset $(DESTDIR)$(PREFIX)/lib/systemd/system-preset/80-odi.preset
	install -d $(DESTDIR)$(SYSCONFDIR)/odi/conf.d $(DESTDIR)$(SYSCONFDIR)/odi/sources.d \
	  $(DESTDIR)$(SYSCONFDIR)/odi/destinations.d
	test -e $(DESTDIR)$(SYSCONFDIR)/odi/agentd.yaml || \
	  install -m 0644 packaging/conf/agentd.yaml $(DESTDIR)$(SYSCONFDIR)/odi/agentd.yaml

# ---- packages ----------------------------------------------------------------------------------
# Built in a root of Debian 11 (packaging/root.sh); they land in $(B)/dist.
.PHONY: deb deb-arm64 rpm dist check-packages
deb:
	packaging/build.sh deb amd64 $(VERSION) $(B)/dist
deb-arm64:
	packaging/build.sh deb arm64 $(VERSION) $(B)/dist
rpm:
	packaging/build.sh rpm amd64 $(VERSION) $(B)/dist
dist:
	rm -rf $(B)/dist
	$(MAKE) deb rpm deb-arm64
	packaging/sums.sh $(B)/dist
# The packages themselves: linted, installed, run in four releases of Debian. By hand; WHAT="deb rpm run arm64 sums twice".
check-packages:
	tests/check/deps.sh packages
	tests/packages/check.sh $(B) $(WHAT)

.PHONY: lint format
format:
	clang-format -i $(shell git ls-files '*.c' '*.h')
lint:
	tests/check/lint.sh

.PHONY: deps demo check check-long check-kernels check-vm bench
deps:
	tests/check/deps.sh build
demo: 
	tests/check/deps.sh build
	$(MAKE) all
	tests/demo.sh $(B)
check:
	tests/check/deps.sh test
	tests/run.sh $(B)
# What takes longer than a check may: every instruction and every file at hand unwound, thousands of kills and of
# schedules of faults.
LONG_TESTS := $(addprefix $(B)/tests/unit/,unwind/step_test unwind/prologue_test unwind/differential_test \
                destinations/outage_test destinations/spool_test)
check-long:
	tests/check/deps.sh test
	$(MAKE) all $(LONG_TESTS)
	UNWIND_ALL_FILES=1 $(B)/tests/unit/unwind/step_test
	UNWIND_ALL_FILES=1 $(B)/tests/unit/unwind/prologue_test
	UNWIND_ALL_FILES=1 $(B)/tests/unit/unwind/differential_test
	ODI_TEST_KILLS=10000 $(B)/tests/unit/destinations/outage_test
	ODI_TEST_ROUNDS=5000 $(B)/tests/unit/destinations/spool_test
	tests/workloads/build.sh $(B)/workloads
	ODI_BUILD=$(B) ODI_KILLS=500 $(B)/venv/bin/python tests/e2e/spool_test.py
check-kernels:
	tests/check/deps.sh kernels
	tests/run.sh $(B) kernels
check-vm: deb
	tests/check/deps.sh vm $(B)
	tests/run.sh $(B) vm
bench:
	tests/check/deps.sh test
	$(MAKE) all $(B)/bench/spooler
	tests/bench/run.sh $(B)

.PHONY: clean
clean:
	rm -rf $(B)

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
