/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _DMA_FENCE_INTERNAL_H
#define _DMA_FENCE_INTERNAL_H

struct dma_fence;
struct seq_buf;

#if IS_ENABLED(CONFIG_KUNIT)
void dma_fence_describe_pending(struct dma_fence *fence, struct seq_buf *s);
#endif

#endif /* _DMA_FENCE_INTERNAL_H */
