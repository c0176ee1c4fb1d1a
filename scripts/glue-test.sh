#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# glue-test.sh: tree, export, rebase and the choice of topics, on a kernel of a few files
# that comes as a Debian package like the real one. Less than a minute.
. "$(dirname "$0")/common.sh"

tmp=$(mktemp -d "$build/glue.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
unset BASE KSRC SERIES TOPICS SCOPE SERIES_LOCKED MAKEFLAGS MAKEOVERRIDES MAKELEVEL "${!GIT_@}"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
me=(-c user.name=series -c user.email=series@localhost)
repo=$tmp/repo
t=$repo/build/linux
mkdir -p "$repo/build/download" "$tmp/linux/drivers/dma-buf" "$tmp/linux/drivers/gpu/drm"
cp -r "$top/scripts" "$top/Makefile" "$repo/"
printf 'build/\n' >"$repo/.gitignore"

# A kernel: 9.8 has another line where a patch of beta wants to go, and 9.9 a symbolic link.
cd "$tmp/linux"
touch Kbuild
printf '*.o\n# Debian packaging\n*\n' >.gitignore
printf 'FENCE\nM:\tSomebody <some@body>\nF:\tdrivers/dma-buf/\n\nTHE REST\nF:\t*\n' >MAINTAINERS
seq -f 'int line%g;' 60 >drivers/dma-buf/dma-fence.c
seq -f 'int drm%g;' 60 >drivers/gpu/drm/drm_drv.c
echo 'obj-y += dma-fence.o' >drivers/dma-buf/Makefile
package() {	# VERSION NUMBER
	local name=linux-source-$1
	mkdir -p "$tmp/deb/usr/src" "$tmp/deb/DEBIAN"
	rm -f "$tmp/deb/usr/src/"*
	tar -C "$tmp" --exclude .git --transform "s|^linux|$name|" -cJf "$tmp/deb/usr/src/$name.tar.xz" linux
	printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: nobody <no@body>\nDescription: none\n' \
		"$name" "$2" >"$tmp/deb/DEBIAN/control"
	dpkg-deb --root-owner-group -b "$tmp/deb" "$repo/build/download/${name}_$2_all.deb" >/dev/null
}
sed -i 's/int line40;/long line40;/' drivers/dma-buf/dma-fence.c
package 9.8 9.8.1-1
sed -i 's/long line40;/int line40;/' drivers/dma-buf/dma-fence.c
ln -s dma-fence.c drivers/dma-buf/link.c
package 9.9 9.9.2-1
sum=$(sha256sum <"$repo/build/download/linux-source-9.9_9.9.2-1_all.deb")
printf '*.o\n' >.gitignore

# Patches: alpha is a fix, beta another one with a test, gamma needs alpha, lab is a test.
git init -q
commit() { git add -A && git "${me[@]}" commit -q --date=2026-01-01T00:00:00Z -m "$1"; }
commit base
topic() {	# NAME: what was committed since
	mkdir -p "$repo/patches/$1"
	git format-patch -q --zero-commit --no-signature --no-numbered --full-index -o "$repo/patches/$1" --root mark..HEAD
	git tag -f mark >/dev/null
}
git tag mark
edit() { sed -i "s/^int $2;/int $2 = $3;/" "$1"; }
edit drivers/dma-buf/dma-fence.c line10 1; commit "fence: Set line 10"; topic alpha
edit drivers/dma-buf/dma-fence.c line40 1; commit "fence: Set line 40"
echo 'int test;' >drivers/dma-buf/st-beta.c; echo 'obj-y += st-beta.o' >>drivers/dma-buf/Makefile
printf '#!/bin/sh\n' >drivers/dma-buf/st-run; chmod +x drivers/dma-buf/st-run
sed -i 's|^F:\tdrivers/dma-buf/|&\nF:\tDocumentation/fence/|' MAINTAINERS
commit "fence: Add a test"; topic beta
edit drivers/dma-buf/dma-fence.c line11 1; commit "fence: Set line 11"; topic gamma
echo 'int lab;' >drivers/dma-buf/st-lab.c; commit "fence: Add a lab"; topic lab
cat >"$repo/patches/series" <<-'END'
	# name  tree            kind  stable  needs
	alpha   drm-misc-fixes  post  stable  -
	beta    drm-misc-next   post  -       -   # alone
	gamma   drm-misc-next   post  -       alpha
	lab     -               lab   -       *
END
echo "9.9 linux-source-9.9 9.9.2-1 sha256:${sum%% *}" >"$repo/patches/base"
cd "$repo"
git init -q
save() { git add -A && git "${me[@]}" commit -q -m "$1"; }
save start

passed=0 failed=0 words=
it() { words=$*; }
ok() {	# COMMAND...
	local rc=0
	"$@" >"$tmp/log" 2>&1 </dev/null || rc=$?
	if [ $rc -eq 0 ]; then passed=$((passed + 1)); return; fi
	failed=$((failed + 1))
	echo "FAILED   $words: $* (exit $rc)"
	tail -n 8 "$tmp/log" | sed 's/^/    /'
}
via="make"
call() {	# TARGET [VARIABLE=VALUE...]: with make, or without what is around it
	if [ $via = make ] || [[ $1 == -* ]]; then timeout 60 make "$@"; else timeout 60 env "${@:2}" scripts/stack.py "$1"; fi
}
makes() {	# "TEXT" ARGUMENT...: it succeeds and says so
	local text=$1
	shift
	call "$@" >"$tmp/out" 2>&1 || { cat "$tmp/out"; return 1; }
	grep -qE -e "$text" "$tmp/out" || { cat "$tmp/out"; echo "does not say '$text'"; return 1; }
}
fails() {	# "TEXT" ARGUMENT...: it fails and says so
	local text=$1
	shift
	! call "$@" >"$tmp/out" 2>&1 || { cat "$tmp/out"; echo "does not fail"; return 1; }
	grep -qE -e "$text" "$tmp/out" || { cat "$tmp/out"; echo "does not say '$text'"; return 1; }
}
not() { ! "$@"; }
has() { grep -qxF "$1" "$2"; }
changes() { [ "$(git status --porcelain -uall | sed 's/^.. //' | sort | paste -sd' ')" = "$*" ] || { git status -s; return 1; }; }
fence=drivers/dma-buf/dma-fence.c

it "names of variables, topics and targets are checked"
ok fails 'no variable SERIE: did you mean SERIES' tree SERIE=none
ok fails "no topic 'foo'; use some of: alpha beta gamma lab" kunit TOPICS=foo
ok fails 'leave TOPICS out, or SERIES' test TOPICS=alpha SERIES=none
ok fails 'leave SERIES out' sparse SERIES=none
ok fails 'there is no variable zzz; .make help' tree zzz=1
ok fails 'MINUTES is for make soak' tree MINUTES=3
ok fails 'TOPIC is for make mail' export TOPIC=alpha
ok fails 'use um, arm64 or x86_64' kunit ARCH="'"
ok fails 'not a Linux source tree' tree KSRC="$repo"

it "a checkout below a directory with a blank"
mkdir "$tmp/a b"
cp -r scripts Makefile patches "$tmp/a b/"
ok fails 'a blank or a colon' -C "$tmp/a b" tree

it "tree from cold waits for another make, and is not made again"
exec 8<"$repo"
flock 8
make tree >"$tmp/first" 2>&1 8<&- &
ok timeout 60 sh -c 'until grep -q "waiting for its end" "$1"; do sleep 0.1; done' sh "$tmp/first"
ok [ ! -e "$t" ]
exec 8<&-
ok wait $!
ok [ -d "$t" ]
ok makes 'up to date' tree
via="direct"
[ -d "$t" ] || { cat "$tmp/first"; die "there is no tree to test with"; }
ok [ "$(git -C "$t" for-each-ref --format='%(refname:short)' refs/heads | paste -sd' ')" = "alpha beta gamma lab" ]
ok [ "$(git -C "$t" symbolic-ref --short HEAD)" = lab ]
ok [ "$(git -C "$t" log --format=%s base-9.9..HEAD | wc -l)" = 5 ]
ok [ "$(cat "$t/.gitignore")" = '*.o' ]
ok [ -L "$t/drivers/dma-buf/link.c" ]
ok has 'int line10;' build/linux.base/$fence
ok [ "$(scripts/stack.py needs lab | paste -sd' ')" = 'alpha beta gamma' ]
ok [ "$(scripts/stack.py commits beta)" = alpha..beta ]
ok [ "$(scripts/stack.py commits alpha)" = base-9.9..alpha ]

it "the first export writes what is generated, the second nothing"
ok makes 'topics that changed: beta' export
ok has beta patches/beta/cover-letter.txt
ok [ -x drivers/dma-buf/st-run ]
ok [ "$(cat MAINTAINERS)" = "$(printf 'FENCE\nM:\tSomebody <some@body>\nF:\tdrivers/dma-buf/\nF:\tDocumentation/fence/')" ]
save exported
ok makes '0 files written, 0 removed; topics that changed: none' export
ok changes
ok scripts/stack.py export --check
ok scripts/stack.py verify

it "git am takes what is in the directory of a topic"
git -C build/linux.git worktree add -q --detach "$tmp/am" base-9.9
ok git -C "$tmp/am" "${me[@]}" am -q "$repo"/patches/{alpha,beta}/*.patch
ok git -C "$tmp/am" diff --quiet beta HEAD
git -C build/linux.git worktree remove -f "$tmp/am"

it "a change of the user stays"
touch -d '2020-01-01' "$t/drivers/gpu/drm/drm_drv.c"
edit "$t/$fence" line60 7
ok grep -q 'using build/linux with your changes' <(scripts/stack.py tree --keep)
ok fails 'has changes of its own: commit them' tree
ok fails 'has uncommitted changes' export
ok grep -qx 'build/linux has changes of its own: .*' <(scripts/stack.py changed)
ok has 'int line60 = 7;' "$t/$fence"

it "folded into alpha it changes alpha alone"
git -C "$t" "${me[@]}" commit -q -a --fixup="$(git -C "$t" rev-parse alpha)"
ok env GIT_SEQUENCE_EDITOR=true git -C "$t" "${me[@]}" rebase -q -i --autosquash base-9.9
ok makes 'topics that changed: alpha$' export
ok changes patches/alpha/0001-fence-Set-line-10.patch
ok makes 'up to date' tree
save folded

it "a change on an earlier branch, or on one of the user's, is seen and can be dropped"
git -C "$t" checkout -q alpha
git -C "$t" "${me[@]}" commit -q --amend -m 'fence: Another name'
ok fails 'has changes of its own' tree
(cd build/linux && eval "$(grep -oE 'git checkout -qf .*' "$tmp/out")")
ok [ "$(git -C "$t" symbolic-ref --short HEAD)" = lab ]
ok makes 'up to date' tree
git -C "$t" checkout -q -b mine
git -C "$t" "${me[@]}" commit -q --allow-empty -m 'fence: Mine'
git -C "$t" checkout -q lab
ok grep -q 'branch mine of build/linux has commits that are nowhere else' <(scripts/stack.py changed)
git -C "$t" branch -q -D mine

it "somebody else's patch keeps its author, date and trailers"
git -C "$t" checkout -q alpha
edit "$t/$fence" line20 2
git -C "$t" -c user.name=x -c user.email=x@y commit -q -a --author='Änne Other <a@other.org>' --date='2026-03-04T05:06:07 +0100' \
	-m $'fence: Set line 20\n\nReviewed-by: R <r@r.org>\nSigned-off-by: Änne Other <a@other.org>'
ok git -C "$t" -c user.name=x -c user.email=x@y rebase -q --onto alpha "$(git -C "$t" rev-parse alpha~)" lab
ok makes 'topics that changed: alpha$' export
ok changes patches/alpha/0002-fence-Set-line-20.patch patches/alpha/cover-letter.txt
ok grep -q '^From: .*<a@other.org>' patches/alpha/0002-*
ok has 'Date: Wed, 4 Mar 2026 05:06:07 +0100' patches/alpha/0002-fence-Set-line-20.patch
ok has 'Signed-off-by: Änne Other <a@other.org>' patches/alpha/0002-fence-Set-line-20.patch
ok [ "$(git -C "$t" log -1 --format=%an alpha)" = 'Änne Other' ]
save foreign

it "our own patch may not be signed off"
git -C "$t" "${me[@]}" commit -q --amend -s -m 'fence: Add a lab'
ok fails "lab, fence-Add-a-lab has a Signed-off-by, which is the sender's" export
ok changes
git -C "$t" reset -q --hard "$(sed -n 's/.*"head": "\(.*\)".*/\1/p' build/linux.applied)"
ok makes 'up to date' tree

it "patches/ that changed meanwhile is not overwritten"
git -C "$t" "${me[@]}" commit -q --amend -m 'fence: Add a better lab'
sed -i 's/Add a lab/Add the lab/' patches/lab/0001-*
ok fails 'patches/ has changed since' export
git checkout -q patches
git -C "$t" reset -q --hard '@{1}'

it "trees of topics, and without any"
ok makes 'tree: build/linux-topics-gamma$' tree TOPICS=gamma
ok has 'int line10 = 1;' build/linux-topics-gamma/$fence
ok has 'int line11 = 1;' build/linux-topics-gamma/$fence
ok has 'int line40;' build/linux-topics-gamma/$fence
ok [ -f build/linux-topics-gamma/drivers/dma-buf/st-lab.c ]
ok makes 'up to date' tree TOPICS=gamma,gamma
ok makes 'linux-unpatched' tree SERIES=none
ok [ -z "$(git -C build/linux-unpatched diff base-9.9 HEAD -- $fence)" ]
ok [ -f build/linux-unpatched/drivers/dma-buf/st-beta.c ]

it "only what differs is written anew"
touch -d '2020-01-01' build/linux-unpatched/$fence
sed -i 's/int lab;/int labs;/' patches/lab/0001-*
ok makes 'linux-unpatched' tree SERIES=none
ok has 'int labs;' build/linux-unpatched/drivers/dma-buf/st-lab.c
ok [ "$(stat -c %y build/linux-unpatched/$fence | cut -c1-4)" = 2020 ]
ok [ "$(stat -c %y "$t/drivers/gpu/drm/drm_drv.c" | cut -c1-4)" = 2020 ]
git checkout -q patches
ok makes '7 patches|6 patches' tree

it "your own git, which has a patch already"
git -C "$tmp/linux" checkout -q -b mine "$(git -C "$tmp/linux" rev-list --reverse HEAD | head -n 1)"
cd "$tmp/linux" && edit $fence line10 1 && edit $fence line20 2 && edit $fence line60 7 && commit "fence: Mine" && cd "$repo"
git clone -q --depth 1 "file://$tmp/linux" "$tmp/shallow"
ok makes 'skipped, the tree has it already: fence: Set line 10' tree KSRC="$tmp/shallow"
ok [ -z "$(git -C "$tmp/shallow" status --porcelain)" ]
ok makes 'nothing is left of topic alpha' tree KSRC="$tmp/linux" TOPICS=alpha
rm -rf "$tmp/shallow"
ok makes 'up to date' tree

it "a conflict names topic, patch and file, and leaves nothing"
ok fails "topic beta: 'fence: Set line 40' conflicts in $fence" tree BASE=9.8
ok [ ! -e build/linux-9.8 ]
ok [ -z "$(find build -maxdepth 1 -name 'stack.*')" ]

it "rebase leaves a conflict in place, and abort drops it"
before=$(git -C "$t" rev-parse HEAD)
ok fails "topic beta: 'fence: Set line 40' conflicts in $fence.*git rebase --continue" rebase BASE=9.8
ok fails 'a rebase is in progress' export
git -C "$t" rebase --abort
ok [ "$(git -C "$t" rev-parse HEAD)" = "$before" ]
ok makes 'up to date' tree
ok makes '0 files written, 0 removed' export
ok changes

it "rebase that is mended goes into patches/ with its base"
ok fails 'conflicts in' rebase BASE=9.8
git -C "$t" show base-9.8:$fence >"$t/$fence"
edit "$t/$fence" line10 1; edit "$t/$fence" line60 7; edit "$t/$fence" line20 2; sed -i 's/^long line40;/long line40 = 1;/' "$t/$fence"
git -C "$t" add $fence
ok env GIT_EDITOR=true git -C "$t" "${me[@]}" rebase --continue
ok makes 'topics that changed: beta$' export
ok grep -q '^9.8 linux-source-9.8 9.8.1-1 sha256:' patches/base
ok changes patches/base patches/beta/0001-fence-Set-line-40.patch
ok makes 'up to date' tree
ok has 'long line40;' build/linux.base/$fence
ok fails 'conflicts in' rebase BASE=9.9
git -C "$t" rebase --abort
save rebased

it "a topic next to another one is written for the base, and merged with it"
git -C "$t" checkout -q lab
edit "$t/$fence" line13 5
git -C "$t" "${me[@]}" commit -q -a --fixup="$(git -C "$t" log -1 --format=%h --grep='Set line 40')"
ok env GIT_SEQUENCE_EDITOR=true git -C "$t" "${me[@]}" rebase -q -i --autosquash base-9.8
ok makes 'topics that changed: beta$' export
git -C build/linux.git worktree add -q --detach "$tmp/am" base-9.8
ok git -C "$tmp/am" "${me[@]}" am -q "$repo"/patches/beta/*.patch
ok has 'int line13 = 5;' "$tmp/am/$fence"
git -C build/linux.git worktree remove -f "$tmp/am"
ok scripts/stack.py verify
ok makes '0 files written, 0 removed' export

it "the topic that makes a test pass is found, wherever it is"
cat >"$tmp/search.py" <<'EOF'
import sys
sys.path.insert(0, sys.argv[1])
import results
for n in (1, 2, 3, 8, 13):
    names = [None, *map(str, range(1, n + 1)), "all topics"]
    want = {f"case{i}": names[i % (n + 1) + 1] for i in range(40)}
    asked, makers = [], {}
    def run(name, cases):
        asked.append(name)
        at = names.index(name)
        return {c: "passes" if at >= names.index(want[c]) else "fails" for c in cases}
    results.search(names, run, 0, n + 1, set(want), makers)
    assert makers == want, (n, makers)
    assert len(asked) == len(set(asked)) == n, asked
EOF
ok python3 "$tmp/search.py" "$repo/scripts"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
