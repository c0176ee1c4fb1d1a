# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
# Sourced by every script here: names of places, messages, and the few helpers
# that more than one script needs.

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$top/build logs=$top/build/logs
jobs=${JOBS:-$(nproc)}

# ^C ends everything. A tool in between may catch it, and a script that ends with a code
# of its own looks like a failed check. So the signal is what ends us: our caller notices.
interrupted() { trap - "$1"; kill "-$1" "$BASHPID"; }
trap 'interrupted INT' INT
# What ends us from here on ends what is in the background before; quietly() takes that back.
end_jobs_first() {
	local signal
	for signal in INT TERM HUP; do
		# shellcheck disable=SC2064
		trap "kill \$(jobs -p) 2>/dev/null || :; wait || :; interrupted $signal" $signal
	done
}

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

[[ $top != *[[:space:]:]* ]] ||
	die "$top: the kernel does not build below a directory with a blank or a colon in its name"
for v in JOBS MINUTES ROUNDS WRITEBACK_FENCE_ROUNDS; do
	[[ ${!v:-1} =~ ^[1-9][0-9]*$ ]] || die "$v=${!v}: give a number, 1 or more"
done
for v in KCSAN UPDATE GDB; do
	[[ ${!v:-0} =~ ^[01]$ ]] || die "$v=${!v}: use 0 or 1"
done
[[ ${SEED:-0} =~ ^(0|[1-9][0-9]*)$ ]] || die "SEED=$SEED: give a number"

mkdir -p "$logs" 2>/dev/null || die "cannot create $logs: no permission or no space"

# What BASE, KSRC, SERIES and TOPICS mean:
#   tree, base_tree	the work tree that this is about, and the untouched base of it
#   base_ref		the tag of that base, in both
#   series		all, none (tests only) or topics (only those in $topics)
#   variant		'' for build/linux, or what tells the tree from it
#   base, default_base, ksrc
# Where a script only takes some topics of the stack, as SCOPE=select says, these are in
# $selected, and the tree is that of the stack.
tree='' base_tree='' base_ref='' series='' topics='' selected='' variant=''
base='' default_base='' ksrc=''
if [ -z "${no_places:-}" ]; then
	places=$("$top/scripts/stack.py" env) || exit 1
	eval "$places"
fi

# One at a time in a checkout: they share work trees and objects.
lock_checkout() {
	local who=$build/at-work
	[ -z "${SERIES_LOCKED:-}" ] || return 0
	exec 9<"$top"
	if ! flock -n 9; then
		say "$(cat "$who" 2>/dev/null || echo another make) is at work in this checkout;" \
			"waiting for its end"
		flock 9
	fi
	export SERIES_LOCKED=1
	echo "${GOAL:+make }${GOAL:-${0##*/}} (process $$)" >"$who"
}
[ -n "${lock_later:-}" ] || lock_checkout

# with_us COMMAND...: a script that is ended when we are. What a shell waits for is not.
with_us() { setpriv --pdeathsig TERM "$@"; }

# What a table counts: 0 has passed.
passed=0 failed=0
tally() { if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi; }

have_tree() { [ -d "$tree" ] || die "there is no work tree yet: run 'make tree' first"; }
base_name() { git -C "$tree" log -1 --format=%s "$base_ref"; }

# The patches, in order; of some topics if they are named.
list_patches() { "$top/scripts/stack.py" patches "$@"; }

# Nobody's git configuration has a say in it.
plain_git() { GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git "$@"; }

# A work tree of build/linux.git at COMMIT, for a script of its own. Files that stay the
# same keep their time, so that little is built again.
own_tree() {	# DIR COMMIT
	local git=$build/linux.git of
	of=$(git -C "$1" rev-parse --git-common-dir 2>/dev/null) || true
	if [ "$(realpath -q "$of")" != "$(realpath "$git")" ]; then
		need_space 3000 "a work tree"
		rm -rf "$1"
		git -C "$git" worktree prune
		quietly "$logs/worktree.log" "checking out ${1#"$top"/}" \
			git -C "$git" worktree add -q --detach "$1" "$2"
	fi
	# Without the refresh it writes files anew that were only touched.
	git -C "$1" update-index -q --refresh || true
	git -C "$1" checkout -q -f --detach "$2"
}

# need_space MEGABYTES WHAT
need_space() {
	local have
	have=$(df -Pm "$build" | awk 'NR == 2 { print $4 }')
	[ "$have" -ge "$1" ] || die "$2 needs $1 MiB under build/, only ${have} MiB are free"
}

# with_dots LOG COMMAND...: a long step with its output in LOG and a dot every ten
# seconds; what takes less than that says nothing if $unless_quick is set, and what takes
# more begins with that. In a process group of its own, so that ^C ends all of it.
with_dots() {
	local log=$1 pid rc=0 start=$SECONDS next=9 never signal begin=${unless_quick:-}
	local silent=$begin
	unset unless_quick
	shift
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	local end='kill -- -$pid 2>/dev/null || :; wait $pid 2>/dev/null || :'
	end+='; echo " interrupted; the same command goes on from here" >&2 || :; interrupted'
	# shellcheck disable=SC2064
	for signal in INT TERM HUP; do trap "$end $signal" $signal; done
	# nobody writes there: a sleep that does not take a process
	exec {never}<> <(:)
	while kill -0 $pid 2>/dev/null; do
		read -rt 0.2 -u "$never" || :
		[ $((SECONDS - start)) -ge $next ] || continue
		next=$((next + 10))
		printf '%s.' "${begin:+== $begin }"
		begin=
	done
	exec {never}<&-
	wait $pid || rc=$?
	[ "$begin" = "$silent" ] || echo
	trap 'interrupted INT' INT
	trap - TERM HUP
	return $rc
}

# quietly LOG WHAT COMMAND...: the same, and says what is done. On failure it says where
# the log is and shows its end.
quietly() {
	local log=$1 what=$2 rc=0 start=$SECONDS
	shift 2
	printf '== %s ' "$what"
	with_dots "$log" "$@" || rc=$?
	if [ $rc -ne 0 ]; then
		echo ' FAILED'
		tail -n 15 "$log" | sed 's/^/    /'
		[ "$(df -Pm "$build" | awk 'NR == 2 { print $4 }')" -ge 10 ] ||
			echo "error: no space is left under build/" >&2
		echo "error: $what failed (exit $rc); the whole log is ${log#"$top"/}" >&2
		return 1
	fi
	echo " done ($((SECONDS - start)) s)"
}

# The KUnit suites of the stack, and of what it touches.
kunit_suites=('dma-buf*' 'drm_fence' 'drm_syncobj*' 'drm_vblank_timer' 'drm_managed'
	'drm_validate*' 'drm_test_atomic*' 'drm_sched_basic*' 'drm_sched_lifetime*'
	'drm_sched_seqno*')
kunit=./tools/testing/kunit/kunit.py
kunit_boot=(--kernel_args seccomp=on --kernel_args ncpus=2)

# given_words VARIABLE: its words in $words, with blanks or commas between
given_words() {
	local IFS=$' \t\n'
	read -ra words <<<"${!1//,/ }"
	[ ${#words[@]} -gt 0 ] || die "$1=${!1} names nothing"
}

# drivers_cases FILE: the cases of drm_device_gone, or those of $TESTS, in the order in which they
# run, in $gone_cases
drivers_cases() {
	local name any
	mapfile -t gone_cases < <(sed -nE 's/^TEST\((\w+)\)$/\1/p
		s/^FIXTURE_VARIANT_ADD\(gone, (\w+)\)$/gone.\1.then_used/p
		s/^TEST_F_TIMEOUT\((waits), (\w+),.*/\1.\2/p' "$1")
	[ -n "${TESTS:-}" ] || return 0
	given_words TESTS
	words=("${words[@]#drm_device_gone.}")
	for name in "${words[@]}"; do
		[[ " ${gone_cases[*]} " == *[\ .]"$name"[.\ ]* ]] ||
			die "drm_device_gone has no case '$name'; it has: ${gone_cases[*]}"
	done
	any=$(IFS='|'; echo "${words[*]}")
	mapfile -t gone_cases < <(printf '%s\n' "${gone_cases[@]}" | grep -E "(^|\.)($any)(\.|$)")
}

# kunit_exec SRC OUT LOG GLOB [OPTION...]: boot the kernel in OUT and run the suites of one
# glob. kunit.py's output is in LOG.log, the kernel's in LOG.kernel.log. Then $cases is what
# it says of them all, $ran their number, and $splats what the kernel says besides.
# Returns what kunit.py does: a splat is the caller's to judge.
kunit_exec() {
	local src=$1 out=$2 log=$3 glob=$4 rc=0
	shift 4
	rm -f "$out/test.log"
	unless_quick=$glob with_dots "$log.log" env -C "$src" $kunit exec --build_dir="$out" \
		"${kunit_boot[@]}" "$@" "$glob" || rc=$?
	cp -f "$out/test.log" "$log.kernel.log" 2>/dev/null || : >"$log.kernel.log"
	splats=$("$top/scripts/splats.sh" "$log.kernel.log") || true
	kunit_count "$log.log"
	return $rc
}

kunit_count() {	# LOG: what kunit.py says of all cases into $cases, their number into $ran
	cases=$(sed -n 's/.*Testing complete\. //p' "$1" | tail -n 1)
	ran=$(sed -n 's/.*Ran \([0-9]*\) tests.*/\1/p' <<<"$cases")
	ran=${ran:-0}
}

# The lines of kunit.py about some cases, and those of them that are skipped by themselves.
kunit_lines() { grep -E "\[($2)\]" "$1" | sed 's/^\[[0-9:]*\] */    /'; }	# LOG STATES
provoked='provoke|fence-violations'

console() { tr -d '\r' <"$1"; }	# LOG: what a guest said
last_line() { console "$1" | grep . | tail -n 1 | cut -c1-"$2"; }	# LOG COLUMNS
