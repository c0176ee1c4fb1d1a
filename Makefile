# SPDX-License-Identifier: GPL-2.0
# The front door. Everything is generated under build/; `make help` lists it all.

MAKEFLAGS += --no-print-directory

# What may be set on the command line. The scripts get it through the environment.
known := BASE SERIES TOPICS KSRC ARCH JOBS SUITES TESTS WRITEBACK_FENCE_ROUNDS KCSAN KERNEL \
	MINUTES SEED MUTANTS ROUNDS ROWS UPDATE CHECKS DRIVERS NOBOOT GDB FILE \
	TOPIC TO TRAILERS VERSION CHANGELOG COVER SINCE LINK PUBLIC SEND CONFIRM
export $(known)

given := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
wrong := $(firstword $(filter-out \
	$(known) MAKEFLAGS MAKEOVERRIDES -*-command-variables-*-,$(given)))
ifneq ($(wrong),)
$(error there is no variable $(wrong)$(shell python3 -c 'import difflib, sys; \
	near = difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1); \
	print(*(f": did you mean {v}=?" for v in near))' '$(wrong)' $(known)); 'make help' \
	has them all)
endif

# Who takes them is checked by run.sh. The environment may have others of these names.
export GIVEN = $(given)
export GOAL = $@

# Whether TOPICS= makes another tree, selects from the stack, or makes no sense; nor does BASE=.
tree boot shell drivers test kunit: export SCOPE = tree
check backport: export SCOPE = select
soak bench mutants rules issuer matrix sparse coccicheck litmus: export SCOPE = all
results-topics bugs conversions refresh sending: export SCOPE = home

run := @exec scripts/run.sh

.DEFAULT_GOAL := help
.PHONY: help boot shell soak bench test kunit litmus sparse coccicheck mutants rules issuer check \
	matrix drivers results-topics bugs conversions refresh sending tree export rebase mail \
	mail-test backport clean

define variables
  TOPICS=a,b    tree, boot, shell, drivers, test, kunit: these, what they need, and all tests;
                check: only these (topics, bisect); patches/series has their names
  SERIES=none   boot, shell, drivers, test, kunit: the tests without the fixes, to see the bugs
  BASE=         major.minor of another base kernel, from Debian (default: patches/base)
  KSRC=         your own kernel git instead; its HEAD is used, it is never written to
  JOBS=         parallel jobs (default: one per CPU)
  SUITES="drm_fence dma-buf*"  kunit: only these; ARCH=arm64 or x86_64 runs them under QEMU
  TESTS="out_fence_lifetime drm_fence"  boot: only these selftests and KUnit suites;
                PROGRAM.CASE or PROGRAM.FIXTURE.VARIANT.CASE is one case of a selftest,
                SUITE.CASE one of a suite
  TESTS="unbind_closed"  drivers: only these ways to go
  WRITEBACK_FENCE_ROUNDS=n  boot: devices that come and go in the selftest (default 100)
  KCSAN=1       boot: look for data races instead of use after free
  ARCH=arm      boot: on 32-bit ARM
  KERNEL=rt     boot, soak: with PREEMPT_RT; strict, plain, lazy, and for kunit up, nodebug:
                configs/boot-rt.config or configs/kunit-up.config on top
  CHECKS="docs bisect"  check: only these, by the names in its table
  GDB=1         shell: the kernel waits for gdb
  FILE=mine.c   issuer: takes the place of drivers/dma-buf/st-dma-fence-issuer.c, the example
  NOBOOT=1      backport: apply and build only
  ROWS="rt i386"  matrix: only these rows of configs/matrix
  MUTANTS="NAME NAME"  mutants: only these of mutants/table, also if they are known
  DRIVERS="virtio qxl"  drivers: only these displays; UPDATE=1 writes results/drivers.md
                from the logs that build/logs has, of base and stack
  ROUNDS=n UPDATE=1  bench: boots of each kernel (default 5); copy the report to results/
  SEED=n ARCH=  soak: the seed of the first round; um or arm64 alone; UPDATE=1 writes
                results/soak.md
  TOPIC= TO= TRAILERS= VERSION= CHANGELOG= COVER= SINCE= LINK= PUBLIC= SEND= CONFIRM=
                mail: see README
endef

help: export VARIABLES = $(variables)
help: ## this list
	@echo 'make TARGET [TOPICS=a,b] [SERIES=none] [BASE=7.2] [KSRC=/path/to/kernel/git]' \
		'[JOBS=n]'
	@echo
	@awk -F ':.*## ' '{ while (sub(/\\$$/, "")) { getline more; sub(/^\t/, "", more); \
		$$0 = $$0 more } } /^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "$$VARIABLES"

boot: ## boot the fixed kernel on arm64 in QEMU and run every check inside
	$(run) -t "source build" boot.sh

shell: ## a shell in the guest of boot, with all selftests
	$(run) -t "source build arm64" shell.sh

drivers: ## boot each display that QEMU has and take it away from its users in every way
	$(run) -t "source build x86_64" drivers.sh

soak: ## boot's and kunit's checks in a loop for MINUTES=n (default 10), arm64 and UML side by side
	$(run) -t "source build" soak.sh

bench: ## what fences cost with the stack, without it and on 6.12: instructions, ns, bytes
	$(run) -t "source build arm64" bench.sh

test: ## KUnit on UML (SMP, KASAN, lockdep) and the checks on the stack
	$(run) -t "source build lint" test.sh

kunit: ## only the KUnit suites; SUITES= picks some
	$(run) -t "source build" kunit.sh

litmus: ## the memory-ordering litmus tests, with herd7
	$(run) -t "source" litmus.sh

sparse: ## sparse and W=1 on every issuer of fences, for UML, x86-64 and arm64, base and stack
	$(run) -t "source build arm64" sparse.sh um x86_64 arm64

coccicheck: ## the semantic patch for uses of a fence, on every file that mentions one
	$(run) -t "source coccinelle" coccicheck.sh

mutants: ## break the stack in one point at a time and see a test notice: results/mutants.md
	$(run) -t "source build coccinelle" mutants.py

rules: ## break what the stack adds, statement by statement, and see a test notice: hours; \
	results/rules.md
	$(run) -t "source build coccinelle" rules.py

issuer: ## try an issuer of your own, FILE=mine.c, with the clients of the KUnit suites
	$(run) -t "source build" issuer.py

matrix: ## configurations that others try, booted or built: ROWS= picks some of configs/matrix
	$(run) -t "source build" matrix.py

check: ## what a maintainer looks at: topics alone, docs, recipients, and that every patch \
	builds and passes
	$(run) "" check.sh

results-topics: ## which test fails on the base and which topic makes it pass: results/topics.md
	$(run) -t "source build again" results.py

bugs: ## each bug of patches/bugs shown on the base, and gone with the stack: results/bugs.md
	$(run) -t "source build again arm64" bugs.py

conversions: ## which issuers shared a lock with their fences, and where it is now: \
	results/conversions.md
	$(run) -t "source" conversions.py

refresh: ## results/ without a measurement: what is gone is dropped, what is new is not measured
	$(run) -t "source" reports.py

tree: ## a git work tree, build/linux: the base, then one commit per patch and a branch per topic
	$(run) "source" stack.py tree

export: ## write the branches of build/linux back to patches/ and the in-tree files
	$(run) "" stack.py export

rebase: ## take build/linux to BASE=major.minor or KSRC= with git rebase; a conflict stays \
	there to be mended
	$(run) "source" stack.py rebase

sending: ## what to send in which order, to whom, and what to look at before: results/sending.md
	$(run) -t "source" sending.py

mail: ## a topic as mails from you in build/outgoing/, signed off; SEND=1 sends them, see README
	$(run) "source mail" mail.py

mail-test: ## send all to a mail server that keeps it, and apply what arrived; nothing leaves \
	the machine
	$(run) -t "source mail sink" mail_test.py

backport: ## the fixes on an older kernel: make backport BASE=7.2 applies, builds and boots \
	them, red before and green after
	$(run) "source build arm64" backport.py

clean: ## remove everything generated, but refuse while a work tree has unexported changes
	$(run) "" clean.sh
