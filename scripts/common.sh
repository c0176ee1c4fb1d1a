# SPDX-License-Identifier: GPL-2.0
# Sourced by every script here: names of places, messages, and the few helpers
# that more than one script needs.

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$top/build
logs=$build/logs
jobs=${JOBS:-$(nproc)}

# What the user may set on make's command line.
default_base=7.3
base=${BASE:-$default_base}
series=${SERIES:-all}
ksrc=${KSRC:-}

# ^C ends everything. A tool in between may catch it, and a script that ends with a code
# of its own looks like a failed check. So the signal is what ends us: our caller notices.
interrupted() { trap - "$1"; kill "-$1" "$BASHPID"; }
trap 'interrupted INT' INT

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

case $series in all|none) ;; *) die "SERIES=$series: use 'all' (default) or 'none' (base plus tests only)" ;; esac
[ -z "${NEEDS_SERIES:-}" ] || [ "$series" = all ] || die "SERIES=$series: this is about the series, leave SERIES out"
unset NEEDS_SERIES
[[ $base =~ ^[0-9]+\.[0-9]+$ ]] || die "BASE=$base: give major.minor, such as 7.3; the newest point release is taken"
for v in JOBS MINUTES ROUNDS WRITEBACK_FENCE_ROUNDS; do
	[[ ${!v:-1} =~ ^[1-9][0-9]*$ ]] || die "$v=${!v}: give a number, 1 or more"
done
for v in KCSAN UPDATE; do
	[[ ${!v:-0} =~ ^[01]$ ]] || die "$v=${!v}: use 0 or 1"
done
[[ ${SEED:-0} =~ ^(0|[1-9][0-9]*)$ ]] || die "SEED=$SEED: give a number"

mkdir -p "$logs" 2>/dev/null || die "cannot create $logs: no permission or no space"

# One id per source of the kernel, so that KSRC= and BASE= never share objects.
if [ -n "$ksrc" ]; then
	ksrc=$(realpath -m -- "$ksrc")
	src_id=ksrc-$(basename "$ksrc")-$(printf %s "$ksrc" | cksum | cut -d' ' -f1)
else
	src_id=linux-$base
fi
base_tree=$build/$src_id.base		# the untouched base, branch "base"
if [ "$series" = none ]; then
	tree=$build/$src_id-unpatched
else
	tree=$build/$src_id
fi

# The KUnit suites of the series, and of what it touches.
# shellcheck disable=SC2034
kunit_suites=('dma-buf*' 'drm_fence' 'drm_managed' 'drm_validate*' 'drm_test_atomic*' 'drm_sched_basic*' 'drm_sched_lifetime*')

# Before anything is unpacked for it.
valid_ksrc() {
	[ -e "$ksrc" ] || die "KSRC=$ksrc: no such directory"
	[ -f "$ksrc/Kbuild" ] && [ -f "$ksrc/drivers/dma-buf/dma-fence.c" ] ||
		die "KSRC=$ksrc: not a Linux source tree (no Kbuild or drivers/dma-buf/dma-fence.c)"
	git -C "$ksrc" rev-parse --verify -q HEAD >/dev/null &&
		[ "$(git -C "$ksrc" rev-parse --show-toplevel)" = "$ksrc" ] ||
		die "KSRC=$ksrc: not the top of a git work tree with a commit (git init && git add -A && git commit)"
}

# Nothing is written or reset in the middle of a rebase.
not_rebasing() {
	local dir
	for dir in rebase-merge rebase-apply; do
		[ ! -d "$(git -C "$tree" rev-parse --path-format=absolute --git-path $dir)" ] ||
			die "a rebase is in progress in ${tree#"$top"/}: there, 'git rebase --continue' goes on and 'git rebase --abort' drops it"
	done
}

# need_space MEGABYTES WHAT
need_space() {
	local have
	have=$(df -Pm "$build" | awk 'NR == 2 { print $4 }')
	[ "$have" -ge "$1" ] || die "$2 needs $1 MiB under build/, only ${have} MiB are free"
}

# with_dots LOG COMMAND...: a long step with its output in LOG and a dot every ten
# seconds. In a process group of its own, so that ^C ends all of it.
with_dots() {
	local log=$1 pid rc=0 start=$SECONDS
	shift
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	local end='kill -- -$pid 2>/dev/null || :; wait $pid 2>/dev/null || :; echo " interrupted; the same command goes on from here" >&2; interrupted'
	# shellcheck disable=SC2064
	{ trap "$end INT" INT; trap "$end TERM" TERM; }
	while kill -0 $pid 2>/dev/null; do
		sleep 1
		if (( (SECONDS - start) % 10 == 9 )); then printf '.'; fi
	done
	wait $pid || rc=$?
	trap 'interrupted INT' INT
	trap - TERM
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
		[ "$(df -Pm "$build" | awk 'NR == 2 { print $4 }')" -ge 10 ] || echo "error: no space is left under build/" >&2
		echo "error: $what failed (exit $rc); the whole log is ${log#"$top"/}" >&2
		return 1
	fi
	echo " done ($((SECONDS - start)) s)"
}

# The patches of the series, in order; with "tests" only those that carry no fix.
list_patches() {
	local p subject
	for p in "$top"/patches/[0-9][0-9][0-9][0-9]-*.patch; do
		case $p in */0000-*) continue ;; esac
		if [ "${1:-all}" = tests ]; then
			subject=$(patch_subject "$p")
			[ "$(patch_subset "$subject")" = tests ] || continue
		fi
		echo "$p"
	done
}

patch_subject() { git mailinfo /dev/null /dev/null <"$1" | sed -n 's/^Subject: //p'; }

# What a work tree was made from: the patches, and the base.
tree_sum() {
	local kind=all
	[ "$series" = all ] || kind=tests
	# shellcheck disable=SC2046
	cat $(list_patches $kind) "$base_tree/.git/imported" | cksum | tr ' ' -
}

# patches/subsets says for each subject which tree the patch is meant for.
patch_subset() {
	awk -F '\t' -v s="$1" '$2 == s { print $1; exit }' "$top/patches/subsets"
}

# A part of the series as commits, without a work tree: chain_start GIT COMMIT, then
# chain_add PATCH for each. $chain is the last commit. $how says what became of the
# patch: applied, 3-way, already (the tree has it), or failed, and then $where.
# Nobody's git configuration has a say in it. $by signs for what has no author yet.
by=(series series@localhost)
plain_git() { GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git "$@"; }
chain_git() { GIT_INDEX_FILE=$chain_tmp/index plain_git -C "$chain_at" -c core.autocrlf=false "$@"; }

chain_start() {
	chain_at=$1
	chain=$2
	chain_tmp=${chain_tmp:-$(mktemp -d "$build/chain.XXXXXX")}
	chain_git read-tree "$chain"
}

chain_add() {	# PATCH [TRAILER...]
	local t=$chain_tmp subject author email tree trailers=()
	plain_git mailinfo -b "$t/message" "$t/diff" <"$1" >"$t/info"
	shift
	how=applied
	if ! chain_git apply --cached "$t/diff" 2>"$logs/apply.log"; then
		where=$(sed -n 's/^error: patch failed: \(.*\):\([0-9]*\)$/\1, line \2/p; s/^error: \(.*\): No such file.*/\1 (no such file)/p; s/^error: \(.*\): does not exist.*/\1 (no such file)/p; s/^error: \(.*\): already exists.*/\1 (exists already)/p' "$logs/apply.log" | head -n 1)
		if chain_git apply --cached --check -R "$t/diff" 2>/dev/null; then
			how=already
			return 0
		elif chain_git apply --cached -3 "$t/diff" >>"$logs/apply.log" 2>&1; then
			how=3-way
		else
			how=failed
			chain_git read-tree "$chain"
			return 1
		fi
	fi
	subject=$(sed -n 's/^Subject: //p' "$t/info")
	author=$(sed -n 's/^Author: //p' "$t/info")
	email=$(sed -n 's/^Email: //p' "$t/info")
	[ "$email" != series@localhost ] || { author=${by[0]}; email=${by[1]}; }
	for trailer; do trailers+=(--trailer "$trailer"); done
	tree=$(chain_git write-tree)
	chain=$({ echo "$subject"; echo; cat "$t/message"; } | git stripspace |
		plain_git interpret-trailers --no-divider --if-exists addIfDifferent "${trailers[@]}" |
		GIT_AUTHOR_NAME=$author GIT_AUTHOR_EMAIL=$email \
		GIT_COMMITTER_NAME=${by[0]} GIT_COMMITTER_EMAIL=${by[1]} \
		chain_git commit-tree "$tree" -p "$chain") || die "git commit-tree failed, with no space left?"
}
