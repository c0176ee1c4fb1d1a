#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# bisect.sh: whether `git bisect` can stop at any patch of the stack. Fails if
#   - a patch does not build: the KUnit kernel for UML, the objects of objects.sh for
#     x86-64 and arm64, the selftests if it touches them;
#   - one of these gives a message with W=1 that the commit before it did not give;
#   - a KUnit suite that is there at that patch fails on UML, or leaves a splat.
# TOPICS=a,b checks the patches of these. A result is kept by content of the commit, of its
# parent, and of what decides how they are built, so that an interrupted run goes on, and
# a second one only says 'ok before'.
export SCOPE=select
. "$(dirname "$0")/common.sh"
. "$top/scripts/objects.sh"

work=$build/bisect
results=$build/bisect-results

[ "$series" = all ] || die "bisect.sh works on the series: not with SERIES=$series"
have_tree

# The patches of the tree: its commit, and topic/number, which on another base than that of
# the stack goes by the subject.
mapfile -t commits < <(git -C "$tree" rev-list --reverse "$base_ref"..HEAD)
commits=("$(git -C "$tree" rev-parse "$base_ref^{commit}")" "${commits[@]}")	# patch i is commits[i]
declare -A place=()
for topic in $topics; do
	n=0
	while read -r subject; do
		n=$((n + 1))
		place[$subject]=$topic/$n
	done < <(git -C "$tree" log --reverse --format=%s "$("$top/scripts/stack.py" commits "$topic")")
done
chosen=() label=([0]=base)
for ((i = 1; i < ${#commits[@]}; i++)); do
	label[i]=${place[$(git -C "$tree" log -1 --format=%s "${commits[i]}")]:-?/$i}
	[ -n "$selected" ] && [[ " $selected " != *" ${label[i]%/*} "* ]] || chosen[i]=1
done
n=$((${#commits[@]} - 1))
[ ${#chosen[@]} -gt 0 ] || die "none of the patches of $selected is in ${tree#"$top"/}"

same_objects
arches=(um x86_64 arm64)
[ "$(uname -m)" = x86_64 ] || arches=(um arm64)
mkdir -p "$results"
config=$build/bisect.config
uml_config >"$config"
for arch in "${arches[@]}"; do object_files "$arch" >"$results/objects-$arch"; done

# What a result depends on besides the commits.
how=$(how_built "$results"/objects-* "$top/scripts/bisect.sh")
key() { git -C "$tree" rev-parse "${commits[$1 - 1]}^{tree}" "${commits[$1]}^{tree}" | cat - <(echo "$how") | git hash-object --stdin; }

changed() { git -C "$tree" diff --name-only "${commits[$1 - 1]}" "${commits[$1]}" -- "${@:2}"; }

# A C file that is on the list of one architecture is of no concern to the others.
concerns() {	# NUMBER ARCH
	local arch others=()
	for arch in "${arches[@]}"; do [ "$arch" = "$2" ] || others+=(-f "$results/objects-$arch"); done
	changed "$1" . ':!Documentation' ':!tools' ':!scripts/coccinelle' ':!MAINTAINERS' | grep -qvxF "${others[@]}"
}

build_objects() (	# ARCH
	list=()
	CROSS_COMPILE=$(cross_compile "$1")
	export CROSS_COMPILE
	[ -f "$work.$1/.prepared" ] || object_prepare "$1" "$work" "$work.$1" || return 1
	while read -r file; do
		[ ! -f "$work/$file" ] || list+=("${file%.c}.o")
	done <"$results/objects-$1"
	make -k -C "$work" ARCH="$1" O="$work.$1" -j"$jobs" W=1 "${list[@]}"
)
build_selftests() {
	make -C "$work" ARCH=x86 O="$work.headers" -j"$jobs" headers &&
	make -C "$work/tools/testing/selftests/drivers/dma-buf" OUTPUT="$work.headers" -j"$jobs" \
		KHDR_INCLUDES="-isystem $work.headers/usr/include"
}

# What is wrong with a patch, why and where to look.
problem() {	# WHAT LOG FIRST-LINES
	problems+=("     $1, log: ${2#"$top"/}" "$(head -n 5 <<<"$3" | sed "s|$work/||g; s|^|         |" | cut -c1-180)")
}

# Build what is checked out. Messages that are not known yet are a problem.
compile() {	# NUMBER ARCH
	local log=$logs/bisect-${label[$1]/\//-}-$2.log start=$SECONDS rc=0 new
	printf ' %s ' "$2"
	case $2 in
	um)	with_dots "$log" uml_build "$work" "$work.um" "$config" || rc=$? ;;
	selftests) with_dots "$log" build_selftests || rc=$? ;;
	*)	with_dots "$log" build_objects "$2" || rc=$? ;;
	esac
	messages "$work" <"$log" >"$results/messages"
	new=$(comm -13 "$results/known-$2" "$results/messages")
	sort -u -o "$results/known-$2" "$results/known-$2" "$results/messages"
	printf '%s s,' $((SECONDS - start))
	if [ $rc -ne 0 ]; then
		problem "does not build for $2" "$log" "$(grep -aE 'error: |undefined reference' "$log" || grep -aF '*** ' "$log" || tail -n 5 "$log")"
	elif [ -n "$new" ]; then
		problem "new messages for $2" "$log" "$new"
	fi
	return $rc
}

test_kernel() {	# NUMBER
	local log=$logs/bisect-${label[$1]/\//-}-kunit start=$SECONDS passed total bad bad_log
	passed=$results/kernel-$how-$(git hash-object "$work.um/linux")
	if [ -f "$passed" ]; then printf ' same kernel,'; return; fi
	if uml_test "$work" "$work.um" "$log"; then touch "$passed"; else problem "KUnit fails" "$bad_log" "$bad"; fi
	printf ' %s tests %s s,' "$total" $((SECONDS - start))
}

checkout() {	# NUMBER
	# Without the refresh it writes files anew that were only touched.
	git -C "$work" update-index -q --refresh || true
	git -C "$work" checkout -q -f --detach "${commits[$1]}"
	# A symbol may come or go with the patch, or with a jump to another one.
	if [ $((at + 1)) -eq "$1" ] && [ -z "$(changed "$1" '*Kconfig*')" ]; then at=$1; return; fi
	at=$1
	rm -f "$work".*/.prepared
}

# The commit before the first of several patches: what these may touch is compiled anew,
# as only what is compiled gives messages.
start_at() {	# NUMBER
	local i arch
	checkout $(($1 - 1))
	git -C "$tree" diff --name-only "$base_ref" HEAD | (cd "$work" && xargs -d '\n' touch -c)
	printf '%-22.22s %-50s' "${label[$1 - 1]}" "(where this starts)"
	for arch in "${arches[@]}"; do
		: >"$results/known-$arch"
		for ((i = $1; i <= n; i++)); do
			[ -n "${todo[i]:-}" ] || break
			concerns "$i" "$arch" || continue
			compile "$(($1 - 1))" "$arch" || printf ' which does not build, see build/logs,'
			break
		done
	done
	echo ' done'
}

verify() {	# NUMBER
	local arch
	checkout "$1"
	for arch in "${arches[@]}"; do
		concerns "$1" "$arch" || continue
		if compile "$1" "$arch" && [ "$arch" = um ]; then test_kernel "$1"; fi
	done
	if [ -n "$(changed "$1" tools/testing/selftests)" ]; then
		: >"$results/known-selftests"
		compile "$1" selftests || true
	fi
}

todo=()
for i in "${!chosen[@]}"; do [ -f "$results/$(key "$i")" ] || todo[i]=1; done
[ ${#todo[@]} -eq 0 ] || own_tree "$work" "${commits[0]}"

at=-1 before=0 failed=()
for i in "${!chosen[@]}"; do
	subject=$(git -C "$tree" log -1 --format=%s "${commits[i]}")
	if [ -z "${todo[i]:-}" ]; then
		printf '%-22.22s %-50.50s ok before\n' "${label[i]}" "$subject"
		before=$((before + 1))
		continue
	fi
	[ $((at + 1)) -eq "$i" ] || start_at "$i"
	printf '%-22.22s %-50.50s' "${label[i]}" "$subject"
	problems=()
	verify "$i"
	if [ ${#problems[@]} -eq 0 ]; then
		echo ' ok'
		touch "$results/$(key "$i")"
	else
		echo ' FAILED'
		printf '%s\n' "${problems[@]}"
		failed+=("${label[i]}")
	fi
done
echo "$((${#chosen[@]} - ${#failed[@]})) of ${#chosen[@]} patches ok, $before of them before${failed:+; not ok: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ]
