// SPDX-License-Identifier: GPL-2.0-only
///
/// A dma_fence has its lock inside, and dma_fence_init() takes none.
///
/// Drops the lock argument where it is NULL, and dma_fence_spinlock(). A lock
/// of the driver's own is reported: it has to become one that nests inside of
/// the lock of the fence, as in the rules for fence operations in
/// drivers/dma-buf/dma-fence.c.
///
// Confidence: High
// Keywords: dma_fence_init, dma_fence_init64, dma_fence_spinlock
// Options: --no-includes --include-headers

virtual patch
virtual context
virtual org
virtual report

@depends on patch@
expression F, O, C, S;
@@

(
- dma_fence_init(F, O, NULL, C, S)
+ dma_fence_init(F, O, C, S)
|
- dma_fence_init64(F, O, NULL, C, S)
+ dma_fence_init64(F, O, C, S)
)

@depends on patch@
expression E;
@@

- dma_fence_spinlock(&E)
+ &E.lock

@depends on patch@
expression F;
@@

- dma_fence_spinlock(F)
+ &F->lock

@null depends on context || org || report@
expression F, O, C, S;
position p;
@@

(
* dma_fence_init@p(F, O, NULL, C, S)
|
* dma_fence_init64@p(F, O, NULL, C, S)
)

@chosen depends on context || org || report@
expression F;
position p;
@@

* dma_fence_spinlock@p(F)

@external depends on context || org || report@
expression F, O, L, C, S;
position p != null.p;
@@

(
* dma_fence_init@p(F, O, L, C, S)
|
* dma_fence_init64@p(F, O, L, C, S)
)

@script:python depends on report@
p << null.p;
@@

coccilib.report.print_report(p[0], "WARNING: dma_fence_init() takes no lock any more, drop the NULL")

@script:python depends on org@
p << null.p;
@@

coccilib.org.print_todo(p[0], "WARNING: dma_fence_init() takes no lock any more, drop the NULL")

@script:python depends on report@
p << chosen.p;
@@

coccilib.report.print_report(p[0], "WARNING: dma_fence_spinlock() is &fence->lock now")

@script:python depends on org@
p << chosen.p;
@@

coccilib.org.print_todo(p[0], "WARNING: dma_fence_spinlock() is &fence->lock now")

@script:python depends on report@
p << external.p;
@@

coccilib.report.print_report(p[0], "ERROR: dma_fence_init() takes no lock any more, convert the driver")

@script:python depends on org@
p << external.p;
@@

coccilib.org.print_todo(p[0], "ERROR: dma_fence_init() takes no lock any more, convert the driver")
