#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# check.sh: what a maintainer would look at before applying the series, from quick to
# slow, with a table at the end. Fails if a check does; it goes on to the next one.
#   CHECKS="docs bisect"   only these, by their names in the table
#   TOPICS=a,b             topics, bisect: only these
#   KSRC=DIR               on your own tree
# What makes a check fail is said at the top of the script that it calls.
export SCOPE=select
. "$(dirname "$0")/common.sh"

all="applies topics base-tests checkpatch kernel-doc docs litmus"
all+=" sparse-um sparse-x86_64 sparse-arm64 coccicheck bisect"
checks=${CHECKS:-$all}
checks=${checks//,/ }
for c in $checks; do
	[[ " $all " == *" $c "* ]] || die "CHECKS: there is no check '$c'; use some of: $all"
done
[ -n "${checks// /}" ] || die "CHECKS='${CHECKS:-}' names no check; use some of: $all"
wanted() { [[ " $checks " == *" $1 "* ]]; }

# What these checks need, and no more.
groups=(source)
for c in $checks; do
	case $c in
	base-tests|kernel-doc|sparse-um|sparse-x86_64) groups+=(build) ;;
	docs) groups+=(build docs) ;;
	sparse-arm64) groups+=(build arm64) ;;
	topics|bisect) groups+=(build arm64 again) ;;
	coccicheck) groups+=(coccinelle) ;;
	esac
done
"$top/scripts/deps.sh" "${groups[@]}"

# check NAME WHAT NEXT SCRIPT...: the last line of what it prints goes into the table.
rows=()
check() {
	local name=$1 what=$2 next=$3 log=$logs/check-$1.log start=$SECONDS rc=0 word=ok
	set -- "$top/scripts/$4" "${@:5}"
	wanted "$name" || return 0
	case $name in
	applies|topics|bisect)	# These have progress of their own, or a table.
		say "$what"
		"$@" 2>&1 </dev/null | tee "$log" || rc=$? ;;
	*)	quietly "$log" "$what" "$@" || rc=$? ;;
	esac
	tally $rc
	if [ $rc -ne 0 ]; then
		word=FAILED
		echo "    next: $next"
	fi
	rows+=("$(printf '%-8s %-14s %-66.66s %6s s' $word "$name" \
		"$(tail -n 1 "$log")" $((SECONDS - start)))")
	[ $rc -eq 0 ] || rows+=("         log: ${log#"$top"/}")
}
finish() {
	echo
	printf '%s\n' "${rows[@]}"
	echo "$passed passed, $failed failed"
	[ $failed -eq 0 ] || exit 1
	exit 0
}

# All others need the work tree. If there is none it is of no use to go on.
if ! "$top/scripts/stack.py" tree --keep; then
	tally 1
	rows+=("FAILED   work tree      there is none, see above; other checks did not run")
	finish
fi
if [ -z "$variant" ] &&
	! "$top/scripts/stack.py" export --check >"$logs/check-exported.log" 2>&1; then
	tally 1
	rows+=("FAILED   work tree      patches/ lacks what has changed there: 'make export' first")
fi
mend="mend it in ${tree#"$top"/} ('git rebase -i --update-refs $base_ref'), 'make export', and run"

next="nothing to do for a topic that is not meant for that kernel;"
check applies "the topics on Debian's 7.2 and 6.12${ksrc:+, and on KSRC}" \
	"$next 'make rebase' leaves a conflict to be mended" applies.py
check topics "each topic on its own, on what it needs: recipients, W=1 and sparse, its tests" \
	"$mend 'make check CHECKS=topics TOPICS=NAME'; what was ok is kept" topics_check.py
check base-tests "the tests alone, without fixes, build on the base" \
	"$mend 'make check CHECKS=base-tests'; the build is in build/logs/base-tests.raw" \
	base-tests.sh
check checkpatch "checkpatch --strict" "$mend 'make check CHECKS=checkpatch'" checkpatch.sh
check kernel-doc "kernel-doc -Wall on every file that the series touches" \
	"$mend 'make check CHECKS=kernel-doc'" docs.sh kernel-doc
check docs "htmldocs of the documents that the series touches (2 minutes)" \
	"$mend 'make check CHECKS=docs'; all messages are in build/logs/docs-html.series" \
	docs.sh html
check litmus "litmus tests with herd7" "'make litmus' shows each test" litmus.sh
[[ $checks != *sparse-* ]] || "$top/scripts/debian.sh" tool sparse
for arch in um x86_64 arm64; do
	if [ $arch = x86_64 ] && [ "$(uname -m)" != x86_64 ]; then continue; fi
	raw=build/logs/sparse-$arch.series.raw
	check sparse-$arch "sparse and W=1 for $arch" \
		"$mend 'make check CHECKS=sparse-$arch'; all messages are in $raw" sparse.sh $arch
done
check coccicheck "the semantic patch, on base and series (6 minutes on 2 cores)" \
	"'make coccicheck' shows the reports" coccicheck.sh
check bisect "every patch builds, without a new message, and passes its tests" \
	"$mend 'make check CHECKS=bisect TOPICS=NAME'; what was ok is kept" bisect_check.py
finish
