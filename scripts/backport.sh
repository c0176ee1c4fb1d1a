#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# backport.sh: the fixes of the series on an older kernel, BASE= or KSRC=. Says of each
# patch what becomes of it and whether the bug is there, and writes those that are
# needed and apply, as they are then, to build/backport-BASE/. Fails if a bug stays.
# Nothing is built.
. "$(dirname "$0")/common.sh"

subset=${SUBSET:-fixes,usb}
subset=${subset// /}
out=$build/backport-${src_id#linux-}

# What the bug looks like: all lines for a patch have to match in that file, those
# with a ! must not. Lines with a + say what the fix relies on. Perl regular
# expressions that see the file as one string.
bugs=$(cat <<'END'
drm: Wait one RCU grace period before freeing what fences look at
	drivers/gpu/drm/drm_crtc.c	container_of\(fence->(extern_)?lock, struct drm_crtc
	include/linux/dma-fence.h	+__rcu \*dma_fence_driver_name
	drivers/gpu/drm/drm_drv.c	!synchronize_rcu
drm/crtc: Drop the racy BUG_ON() from fence_to_crtc()
	drivers/gpu/drm/drm_crtc.c	BUG_ON\([^\n]*fence->ops
	drivers/dma-buf/dma-fence.c	fence->ops, NULL\)
drm/writeback: Do not clean up queued jobs under a spinlock
	drivers/gpu/drm/drm_writeback.c	spin_lock_irqsave\(&wb_connector->job_lock, flags\);\s*list_for_each_entry_safe
drm/vkms: Do not nest the locks of several CRTCs
	drivers/gpu/drm/vkms/vkms_crtc.c	vkms_crtc_atomic_begin\([^}]*spin_lock_irq\(
	drivers/gpu/drm/vkms/vkms_configfs.c	.
drm/vkms: Fill in a writeback job before the composer can see it
	drivers/gpu/drm/vkms/vkms_writeback.c	wb_pending = true;[^}]*active_wb->pixel_write =
drm/vkms: Do not stop the composer under the next writeback
	drivers/gpu/drm/vkms/vkms_writeback.c	vkms_wb_cleanup_job\([^}]*}?[^}]*vkms_set_composer\([^,]*, false\)
drm/qxl: Zero releases when they are allocated
	drivers/gpu/drm/qxl/qxl_release.c	kmalloc\(size
	drivers/gpu/drm/qxl/qxl_release.c	dma_fence_was_initialized
drm/amdgpu: Keep RCU while locking a fence in amdgpu_vm_tlb_seq()
	drivers/gpu/drm/amd/amdgpu/amdgpu_vm.h	rcu_read_unlock\(\);\s*spin_lock_irqsave\(lock
drm/virtio, drm/qxl: Emit fence trace events under RCU
	include/linux/dma-fence.h	__rcu \*dma_fence_driver_name
	drivers/gpu/drm/virtio/virtgpu_fence.c	(?<!rcu_read_lock\(\);)\n\ttrace_dma_fence_emit
drm/vmwgfx: Take the lock of fences with interrupts disabled
	drivers/gpu/drm/vmwgfx/vmwgfx_fence.c	\n\tspin_lock\(&fman->lock\);
dma-buf/sw_sync: Do not revive fences that are being released
	drivers/dma-buf/sw_sync.c	\n\t\tdma_fence_get\(&pt->base\);
dma-buf: Do not lose the error of a fence array that is polled
	drivers/dma-buf/dma-fence-array.c	is_signaled\(array->fences\[i\]\) && !--num_pending\)\s*goto signal
drm/syncobj: Flatten the fence that becomes a point of a timeline
	drivers/gpu/drm/drm_syncobj.c	if \(!chain\)\s*return -ENOMEM;\s*drm_syncobj_add_point
drm/syncobj: Do not warn about arrays that userspace makes too large
	drivers/gpu/drm/drm_syncobj.c	kmalloc_array\(count_handles, sizeof\(\*handles\), GFP_KERNEL\)
usb: gadget: f_fs: Let DMABUF fences outlive their attachment
	drivers/usb/gadget/function/f_fs.c	&priv->lock, priv->context
	include/linux/dma-fence.h	+inline_lock
END
)

clues() { awk -v s="$1" '/^[^\t]/ { at = $0 == s; next } at { print substr($0, 2) }' <<<"$bugs"; }
matches() { chain_git show "$1:$2" 2>/dev/null | tr -d '\0' | grep -Pzq -- "$3"; }

# has_bug SUBJECT COMMIT: 0 yes, 1 no, 2 not known
has_bug() {
	local file regex known=2
	while IFS=$'\t' read -r file regex; do
		case $regex in
		+*)	continue ;;
		!*)	! matches "$2" "$file" "${regex#!}" || return 1 ;;
		*)	matches "$2" "$file" "$regex" || return 1 ;;
		esac
		known=0
	done < <(clues "$1")
	return $known
}

# lacks PATCH SUBJECT: what the kernel lacks that the patch relies on, and functions and
# macros that it calls.
lacks() {
	local file regex name
	while IFS=$'\t' read -r file regex; do
		[[ $regex != +* ]] || matches "$chain_base" "$file" "${regex#+}" || echo "'${regex#+}' in $file"
	done < <(clues "$2")
	{ grep '^+[^+]' "$1" | grep -oE '\<[A-Za-z_][A-Za-z0-9_]*\(' || true; } | tr -d '(' | sort -u | while read -r name; do
		! grep -qE "^\\+[a-z].*\<$name\(" "$1" || continue
		git -C "$base_tree" grep -qw "$name" -- include drivers/gpu/drm drivers/dma-buf drivers/usb/gadget || echo "$name()"
	done
}

for s in ${subset//,/ }; do
	cut -f 1 "$top/patches/subsets" | grep -qx -- "$s" || die "SUBSET=$s: no patch in patches/subsets has that label"
done
mapfile -t patches < <(list_patches)
chosen=()
for p in "${patches[@]}"; do
	[[ ,$subset, != *,$(patch_subset "$(patch_subject "$p")"),* ]] || chosen+=("$p")
done
[ ${#chosen[@]} -gt 0 ] || die "SUBSET=${SUBSET:-}: names no patch"

"$top/scripts/tree.sh" --base
env -u BASE -u KSRC "$top/scripts/tree.sh" --base
tmp=$(mktemp -d "$build/backport.XXXXXX")
chain_tmp=$tmp
trap 'rm -rf "$tmp"' EXIT
export GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'

# A 3-way merge needs the files that the patches were made for.
home_tree=$build/linux-$default_base.base
chain_start "$home_tree" "$(git -C "$home_tree" rev-parse base)"
for p in "${chosen[@]}"; do chain_add "$p" || true; done
export GIT_ALTERNATE_OBJECT_DIRECTORIES=$home_tree/.git/objects

chain_base=$(git -C "$base_tree" rev-parse base)
chain_start "$base_tree" "$chain_base"
say "the parts ${subset//,/, } on $(cat "$base_tree/.git/imported")"
printf '%-16s %-7s %s\n' patch bug subject
written=0
left=0
for p in "${chosen[@]}"; do
	subject=$(patch_subject "$p")
	rc=0
	has_bug "$subject" "$chain_base" || rc=$?
	case $rc in 0) bug=there ;; 1) bug=no ;; *) bug='?' ;; esac
	before=$chain
	chain_add "$p" || true
	note=''
	case $how in
	applied) what=applies ;;
	3-way) what="applies 3-way" ;;
	already) what="already there"; bug=no ;;
	failed) what="does not apply"; note=${where:-see build/logs/apply.log} ;;
	esac
	if [ "$how" = applied ] || [ "$how" = 3-way ]; then
		note=$(lacks "$p" "$subject" | paste -sd , | sed 's/,/, /g; s/^./needs &/')
		[ "$bug" != there ] || ! has_bug "$subject" "$chain" || die "backport.sh still sees the bug with '$subject' applied: correct its list"
	fi
	printf '%-16s %-7s %s\n' "$what" "$bug" "$subject"
	[ -z "$note" ] || printf '%24s -> %s\n' '' "$note"
	if [ "$bug" = no ]; then
		:
	elif [ -n "$note" ]; then
		left=$((left + 1))
	else
		written=$((written + 1))
		continue
	fi
	# What is not needed, or not right as it is, is left out.
	chain=$before
	chain_git read-tree "$chain"
done

mkdir "$tmp/patches"
plain_git -C "$base_tree" format-patch -q --no-signature --zero-commit --no-numbered \
	--full-index --abbrev=12 -o "$tmp/patches" "$chain_base..$chain"
rm -rf "$out"
mv "$tmp/patches" "$out"
say "$written of ${#chosen[@]} patches are in ${out#"$top"/}, without a sign-off; $left to be reworked, $((${#chosen[@]} - written - left)) are not needed"
[ $left -eq 0 ] || die "a bug stays: those with '->' above need work, the rest of the line says where or what"
