# SPDX-License-Identifier: GPL-2.0
# The front door. Everything is generated under build/; `make help` lists it all.

MAKEFLAGS += --no-print-directory
export BASE SERIES KSRC ARCH JOBS WRITEBACK_FENCE_ROUNDS KCSAN MINUTES SEED MUTANTS ROUNDS UPDATE
export CHECKS PATCHES
export SUBSET TO TRAILERS VERSION CHANGELOG COVER SEND CONFIRM

soak bench mutants check sparse coccicheck backport: export NEEDS_SERIES = 1

.DEFAULT_GOAL := help
.PHONY: help boot soak bench test kunit litmus sparse coccicheck mutants check tree export mail mail-test backport clean

help: ## this list
	@echo 'make TARGET [BASE=7.3] [KSRC=/path/to/kernel/git] [SERIES=none] [JOBS=n]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  BASE=    major.minor of the base kernel, from Debian (default 7.3, the newest 7.3.x)'
	@echo '  JOBS=    parallel jobs (default: one per CPU)'
	@echo '  KSRC=    your own kernel git instead; its HEAD is cloned, it is never written to'
	@echo '  SUBSET=fixes,usb  mail, backport: only these parts, by the labels in patches/subsets'
	@echo '  CHECKS="docs bisect"  check: only these, by the names in its table'
	@echo '  PATCHES=12-20,31  check: only these of the patches that bisect builds'
	@echo '  SERIES=none   boot, test, kunit: apply the tests without the fixes, to see the bugs'
	@echo '  WRITEBACK_FENCE_ROUNDS=n   boot: devices that come and go in the selftest (default 100)'
	@echo '  KCSAN=1  boot: look for data races instead of use after free'
	@echo '  ROUNDS=n UPDATE=1  bench: boots of each kernel (default 5); copy the report to results/'
	@echo '  SEED=n   soak: the seed of the first round (default: another one each time)'
	@echo '  ARCH=    kunit: arm64 or x86_64, under QEMU; soak: um or arm64 alone'
	@echo '  TO= TRAILERS= VERSION= CHANGELOG= COVER= SEND=   mail: see README, "Send it"'

boot: ## boot the fixed kernel on arm64 in QEMU and run every check inside
	@scripts/deps.sh source build arm64
	@scripts/tree.sh --keep
	@scripts/boot.sh

soak: ## boot's and kunit's checks in a loop for MINUTES=n (default 10), arm64 and UML side by side
	@case '$(ARCH)' in ''|um|arm64) ;; *) echo 'error: ARCH=$(ARCH): use um or arm64, or neither for both' >&2; exit 1 ;; esac
	@scripts/deps.sh source build $(if $(filter um,$(ARCH)),,arm64)
	@scripts/tree.sh --keep
	@scripts/soak.sh

bench: ## what fences cost with the series, without it and on 6.12: instructions, ns, bytes
	@case '$(BASE)' in 6.12) echo 'error: BASE=6.12: bench compares with 6.12 anyway, leave BASE out' >&2; exit 1 ;; esac
	@scripts/deps.sh source build arm64
	@scripts/tree.sh --keep
	@scripts/bench.sh

test: ## KUnit on UML (SMP, KASAN, lockdep) and the checks on the series
	@scripts/deps.sh source build
	@scripts/tree.sh --keep
	@scripts/test.sh

kunit: ## only the KUnit suites; ARCH=arm64 or x86_64 runs them under QEMU
	@case '$(ARCH)' in ''|um|arm64|x86_64) ;; *) echo 'error: ARCH=$(ARCH): use um, arm64 or x86_64' >&2; exit 1 ;; esac
	@scripts/deps.sh source build $(filter arm64 x86_64,$(ARCH))
	@scripts/tree.sh --keep
	@scripts/kunit.sh

litmus: ## the memory-ordering litmus tests, with herd7
	@scripts/deps.sh source
	@scripts/tree.sh --keep
	@scripts/litmus.sh

sparse: ## sparse and W=1 on every issuer of fences, for UML, x86-64 and arm64, base and series
	@scripts/deps.sh source build arm64
	@scripts/tree.sh --keep
	@scripts/debian.sh tool sparse
	@scripts/sparse.sh um x86_64 arm64

coccicheck: ## the semantic patch for uses of a fence, on every file that mentions one
	@scripts/deps.sh source coccinelle
	@scripts/tree.sh --keep
	@scripts/coccicheck.sh

mutants: ## break the series in one point at a time and see a test notice; MUTANTS="NN NAME" runs a few
	@scripts/mutants.sh --list $(MUTANTS) >/dev/null
	@scripts/deps.sh source build coccinelle
	@scripts/tree.sh --keep
	@scripts/mutants.sh $(MUTANTS)

check: ## what a maintainer looks at: where it applies, docs, recipients, and that every patch builds and passes
	@scripts/check.sh

tree: ## a git work tree in build/: the base, then one commit per patch
	@scripts/deps.sh source
	@scripts/tree.sh

export: ## write the commits of the work tree back to patches/ and the in-tree files
	@scripts/export.sh

mail: ## the series as mails from you in build/outgoing/, signed off; SEND=1 sends them, see README
	@scripts/deps.sh source mail
	@scripts/mail.sh

mail-test: ## send all to a mail server that keeps it, and apply what arrived; nothing leaves the machine
	@scripts/deps.sh source mail sink
	@scripts/tree.sh --keep
	@scripts/mail-test.sh

backport: ## the fixes on an older kernel: make backport BASE=7.2 says of each if it is needed, and applies
	@scripts/deps.sh source
	@scripts/backport.sh

clean: ## remove everything generated, but refuse while the work tree has unexported changes
	@scripts/clean.sh
