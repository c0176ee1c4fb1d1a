#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# backport.sh: the topics that patches/series marks stable on an older kernel, BASE= or KSRC=.
# Writes them to build/backport-BASE/ and to the work tree build/linux-BASE-stable, builds that
# kernel without and with them, and runs selftests on both in QEMU: what fails before has to pass
# after. Ends with a table, and writes it to results/backport.md.
#   TOPICS=a,b   only these
#   TESTS="..."  these selftests of the stack
#   NOBOOT=1     write and build, but boot nothing
# A topic is as patches/TOPIC/stable-BASE/ has it, or else as it is for mainline, without its test
# patches. A file NOT-NEEDED there says in one line why that kernel does without.
. "$(dirname "$0")/common.sh"

tests=${TESTS:-out_fence_lifetime}
noboot=${NOBOOT:-0}
[[ $noboot =~ ^[01]$ ]] || die "NOBOOT=$noboot: use 0 or 1"
[ -n "$ksrc" ] || [ "$base" != "$default_base" ] || die "give an older kernel: BASE=7.2, or KSRC="

env -u BASE -u KSRC SCOPE=all TOPICS= "$top/scripts/stack.py" tree --keep
"$top/scripts/stack.py" tree --base
stack=$build/linux
id=$(basename "$base_tree" .base)
id=${id#linux-}
tree=$build/linux-$id-stable
patches=$build/backport-$id
kernel=$(git -C "$base_tree" log -1 --format=%s "$base_ref")
v=$(awk '/^(VERSION|PATCHLEVEL) = / { printf "%s%s", dot, $3; dot = "." }' "$base_tree/Makefile")

export GIT_COMMITTER_NAME=series GIT_COMMITTER_EMAIL=series@localhost
export GIT_COMMITTER_DATE=2026-01-01T00:00:00Z
at() { plain_git -C "$tree" -c core.autocrlf=false "$@"; }
tip() { at rev-parse HEAD; }
write_patches() {	# DIR FROM TO
	rm -rf "$1"
	at format-patch -q --no-signature --zero-commit --no-numbered --full-index --abbrev=12 \
		-o "$1" "$2..$3"
	sed -i '0,/^Date: /s/^Date: .*/Date: Thu, 1 Jan 2026 00:00:00 +0000/' "$1"/*
}
# For stack.py, which knows from it whether somebody works in a tree.
keep_state() { printf '{"head": "%s"}\n' "$1" >"$tree.applied"; }
move() {
	own_tree "$tree" "$1"
	keep_state "$(tip)"
}

# What somebody made of a conflict becomes the form of that topic for this kernel.
if [ -f "$tree.conflict" ] && [ -d "$tree" ]; then
	read -r topic start <"$tree.conflict"
	for f in CHERRY_PICK_HEAD sequencer rebase-apply; do
		[ ! -e "$(at rev-parse --path-format=absolute --git-path $f)" ] ||
			die "the conflict in ${tree#"$top"/} waits, see 'git status' there"
	done
	if [ "$(tip)" != "$start" ]; then
		write_patches "$top/patches/$topic/stable-$v" "$start" HEAD
		say "your work is patches/$topic/stable-$v/ now"
	fi
	keep_state "$(tip)"
fi
rm -f "$tree.conflict"
if [ -f "$tree.applied" ] && [ -d "$tree" ]; then
	if [ -n "$(at status --porcelain -uno)" ] || ! grep -q "$(tip)" "$tree.applied"; then
		die "${tree#"$top"/} has changes of its own; to drop them:" \
			"git -C ${tree#"$top"/} checkout -f $base_ref && rm ${tree#"$top"/}.applied"
	fi
fi

# The commits of a topic that are not tests.
fixes() {
	PYTHONPATH=$top/scripts /usr/bin/python3 -B - "$1" <<-'END'
	import sys
	from stack_lib import commits, read_series, rev
	for c in commits(read_series(), rev("refs/series/base"))[sys.argv[1]]:
	    if not c.test:
	        print(c.id)
	END
}

move "$base_ref"
from=$(tip)
rows=()
row() { rows+=("$(printf '%-20s %s' "$1" "$2")"); }
while IFS=$'\t' read -r topic _ _ stable _; do
	[ "$stable" = stable ] || continue
	[ -z "$selected" ] || [[ " $selected " == *" $topic "* ]] || continue
	own=$top/patches/$topic/stable-$v
	if [ -f "$own/NOT-NEEDED" ]; then
		row "$topic" "not needed: $(<"$own/NOT-NEEDED")"
		continue
	fi
	start=$(tip)
	if [ -d "$own" ]; then
		command=(am -q -3 --keep-non-patch "$own"/*.patch)
		origin="of stable-$v/"
	else
		mapfile -t list < <(fixes "$topic")
		[ ${#list[@]} -gt 0 ] || { row "$topic" "has only tests"; continue; }
		command=(cherry-pick "${list[@]}")
		origin="as in mainline"
	fi
	rc=0
	at "${command[@]}" >"$logs/backport-apply.log" 2>&1 || rc=$?
	# what the kernel has already is an empty commit
	while [ $rc != 0 ] && [ "${command[0]}" != am ] && [ -z "$(at status --porcelain -uno)" ]
	do
		rc=0
		at cherry-pick --skip >>"$logs/backport-apply.log" 2>&1 || rc=$?
	done
	if [ $rc -ne 0 ]; then
		echo "$topic $start" >"$tree.conflict"
		echo "$topic does not apply to $kernel, in:"
		at diff --name-only --diff-filter=U | sed 's/^/    /'
		grep -E '^(error|CONFLICT)' "$logs/backport-apply.log" | head -n 5 | sed 's/^/    /'
		own=${own#"$top"/}
		echo "${tree#"$top"/} has the conflict: mend it there, git add, and"
		echo "git ${command[0]} --continue. Then the same command as now makes $own/"
		echo "of it, and goes on. If that kernel does without, $own/NOT-NEEDED says why."
		exit 1
	fi
	n=$(at rev-list --count "$start..HEAD")
	case $n in
	0) row "$topic" "is there already" ;;
	1) row "$topic" "1 patch $origin" ;;
	*) row "$topic" "$n patches $origin" ;;
	esac
done < <("$top/scripts/stack.py" list)
to=$(tip)
keep_state "$to"

echo
say "$kernel"
printf '%s\n' "${rows[@]}"
[ "$to" != "$from" ] || die "there is nothing to port"
write_patches "$patches" "$from" "$to"
say "$(at rev-list --count "$from..$to") patches, not signed off: git am ${patches#"$top"/}/*.patch"

guest_config=(boot.config arm64.config)
[ ! -f "$top/configs/boot-$v.config" ] || guest_config+=("boot-$v.config")
. "$top/scripts/guest.sh"

# Each touched object with W=1, before and after: what the topics add is wrong.
export CROSS_COMPILE=$cross
w1=$tree.w1
mapfile -t objects < <(at diff --name-only --diff-filter=d "$from" "$to" -- '*.c' | sed 's/c$/o/')
compile() {	# before|after
	local o wanted=()
	[ -f "$w1/.prepared" ] || "$top/scripts/objects.py" prepare arm64 "$tree" "$w1" || return 1
	for o in "${objects[@]}"; do
		[ ! -f "$tree/${o%o}c" ] || wanted+=("$o")
		rm -f "$w1/$o"
	done
	make -k -C "$tree" ARCH=arm64 O="$w1" -j"$jobs" W=1 "${wanted[@]}" >"$w1/$1" 2>&1 || true
	"$top/scripts/objects.py" messages "$tree" <"$w1/$1" | grep -v 'No rule to make target' >"$w1/$1.messages" || true
}
judge_objects() {
	local o new other=()
	for o in "${objects[@]}"; do
		! grep -q "No rule to make target '.*$o'" "$w1/after" || other+=("$o")
	done
	say "W=1: $((${#objects[@]} - ${#other[@]})) objects"
	[ ${#other[@]} = 0 ] || say "not for arm64: ${other[*]}"
	new=$(comm -13 "$w1"/{before,after}.messages)
	[ -z "$new" ] || { echo "new with the topics:"; echo "$new"; return 1; }
}

declare -A verdict detail
boot_test() {	# before|after NAME
	local log=$logs/backport-$id-$2-$1.log rc=0 code pass fail skip splats
	: >"$log"
	quietly "$log.qemu" "booting for $2, $1" guest_boot "$log" 700 \
		"kunit.enable=0 selftest=$2 selftest_timeout=500" || rc=$?
	tr -d '\r' <"$log" >"$log.text"
	code=$(sed -n 's/.*boot-init: selftest exit=\([0-9]*\).*/\1/p' "$log.text" | tail -n 1)
	pass=$(grep -cE '^ok [0-9]' "$log.text" || true)
	fail=$(grep -cE '^not ok [0-9]' "$log.text" || true)
	skip=$(grep -cE '^ok [0-9].*# SKIP' "$log.text" || true)
	splats=$("$top/scripts/splats.sh" "$log") || true
	verdict[$1-$2]=red
	[ $rc != 0 ] || [ "${code:-1}" != 0 ] || [ "$fail" != 0 ] || [ "$pass" = "$skip" ] ||
		[ -n "$splats" ] || verdict[$1-$2]=green
	detail[$1-$2]="$((pass - skip)) passed, $fail failed, $skip skipped"
	[ -n "$code" ] || detail[$1-$2]+=", and the guest never reported"
	[ -z "$splats" ] || detail[$1-$2]+="; $(sed '2,$d; s/[^:]*://' <<<"$splats" | cut -c1-90)"
}

programs=()
for name in $tests; do
	if [ -f "$stack/$selftest/$name.c" ]; then programs+=("$name"); else
		[ -z "${TESTS:-}" ] || die "TESTS: the stack has no selftest $name"
	fi
done
failed=0
for when in before after; do
	move "$([ $when = before ] && echo "$from" || echo "$to")"
	quietly "$logs/backport-w1.log" "W=1, $when" compile $when
	[ $when = before ] || judge_objects || failed=1
	[ "$noboot$when" != 1before ] || continue
	guest_name=$id-$when
	guest_kernel
	[ "$noboot" = 0 ] || continue
	# The programs are those of the stack, the modules those of this kernel.
	tree=$stack quietly "$logs/boot-userspace-$id.log" "building the selftests" guest_userspace
	for name in "${programs[@]}"; do boot_test $when "$name"; done
done
if [ "$noboot" = 1 ]; then exit $failed; fi

# One that passes before says nothing, but one of them has to fail.
red=0
report() {
	local name
	printf "## Linux %s\n\n%s, by make backport on %s, commit %s:\n\n" "$v" "$kernel" "$(date -u +%F)" "$(git -C "$top" describe --always --dirty)"
	printf '| topic | patches |\n|---|---|\n'
	printf '%s\n' "${rows[@]}" | sed -E 's/^([^ ]+) +(.*)/| \1 | \2 |/'
	printf '\n| selftest | before | after |\n|---|---|---|\n'
	for name in "${programs[@]}"; do
		printf '| %s | %s: %s | %s: %s |\n' "$name" "${verdict[before-$name]}" \
			"${detail[before-$name]}" "${verdict[after-$name]}" "${detail[after-$name]}"
	done
	echo
}
for name in "${programs[@]}"; do
	[ "${verdict[before-$name]}" = green ] || red=1
	[ "${verdict[after-$name]}" = green ] || failed=1
done
echo
report
if [ -z "$ksrc" ]; then
	file=$top/results/backport.md
	{
		printf '# The topics for stable kernels\n\n'
		report
		[ ! -f "$file" ] ||
			awk -v h="## Linux $v" '/^## / { keep = $0 != h } keep' "$file"
	} >"$build/backport.md"
	mv "$build/backport.md" "$file"
	say "this is in ${file#"$top"/}"
fi
[ $red = 1 ] || die "no selftest fails without the topics, so they say nothing"
[ $failed = 0 ] || die "see build/logs/backport-$id-*.log"
