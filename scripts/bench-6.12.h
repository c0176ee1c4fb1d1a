/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What st-dma-fence-bench.c takes from Linux 7.3, in terms of Linux 6.12, where each
 * user of a fence had this open-coded: none of it costs anything there. Included
 * before the first line of the file by `make bench`.
 */
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <linux/slab.h>

/* Late point releases have these. */
#ifndef kzalloc_obj
#define kzalloc_obj(obj)		kzalloc(sizeof(obj), GFP_KERNEL)
#define kmalloc_objs(obj, n)		kmalloc_array(n, sizeof(obj), GFP_KERNEL)
#endif

#define dma_fence_test_signaled_flag(f)	test_bit(DMA_FENCE_FLAG_SIGNALED_BIT, &(f)->flags)
#define dma_fence_enable_signaling(f)	dma_fence_enable_sw_signaling(f)
#define dma_fence_driver_name(f)	((const char __rcu *)(f)->ops->get_driver_name(f))
#define dma_fence_timeline_name(f)	((const char __rcu *)(f)->ops->get_timeline_name(f))

#define dma_fence_array_create(n, fences, context, seqno)	\
	dma_fence_array_create(n, fences, context, seqno, false)
