// SPDX-License-Identifier: GPL-2.0-only
///
/// Find code that breaks when a struct dma_fence signals.
///
/// Signaling sets the ops of a fence to NULL, unless the issuer implements
/// ->release() or ->wait(), and its issuer may be gone one RCU grace period
/// later.  Reported are
///  1. ops read or written without an RCU accessor;
///  2. BUG_ON(), WARN_ON() and the like on ops: they can fire as it signals;
///  3. the lock of a fence found under rcu_read_lock(), taken after
///     rcu_read_unlock();
///  4. a fence traced by name outside of rcu_read_lock();
///  5. ->release() that frees the fence with no regard for RCU readers.
///
//# Patch mode only wraps comparisons of ops with the address of an ops table in
//# rcu_access_pointer(), and leaves assertions alone. That is right for RCU; but
//# if the ops detach, the result is "not equal" for a signaled fence.
//#
//# What is a fence is decided by type. A structure with a fence inside has to be
//# defined in the file or in a header that the file includes with quotes. Trace
//# event macros cannot be parsed; use sparse for what is inside of them. Functions
//# that use scoped_guard() are skipped.
//#
//# A fence is not followed into other functions, nor from one expression to
//# another.
///
// Confidence: Moderate
// Options: --local-includes --include-headers-for-types --include-headers --no-loops
// Keywords: dma_fence, ops, lock

virtual patch
virtual context
virtual org
virtual report

@initialize:python@
@@

import re

# The core has to use these members, and its KUnit tests look at the ops on
# purpose.
own = re.compile(r"(^|/)(dma-fence\.[ch]|st-dma-fence[^/]*\.c)$")
said = set()

def foreign(p):
    return own.search(p[0].file) is None

# An assertion can mention ops several times, and several paths can lead to one
# lock. Say it once for each place.
def say(p, msg):
    place = (p[0].file, p[0].line, p[0].column)
    if place not in said:
        said.add(place)
        show(p[0], msg)

@initialize:python depends on report@
@@

def show(p, msg):
    coccilib.report.print_report(p, msg)

@initialize:python depends on org@
@@

def show(p, msg):
    coccilib.org.print_safe_todo(p, msg)

// -----------------------------------------------------------------------------
// 1, 2: ops

@accessor@
expression E;
identifier fn =~ "^(rcu_|RCU_INIT_POINTER$|unrcu_pointer$)";
position ok;
@@

fn(\(E->ops@ok\|E.ops@ok\), ...)

// The ops of what is known to be a fence, or is compared with the ops of fences,
// or has callbacks that nothing else has.

@ops@
struct dma_fence *f;
struct dma_fence s;
struct dma_fence_ops x;
expression E;
identifier name =~ "^get_(driver|timeline)_name$";
position p : script:python() { foreign(p) };
@@

(
 f->ops@p
|
 s.ops@p
|
 \(E->ops@p\|E.ops@p\) == &x
|
 \(E->ops@p\|E.ops@p\) != &x
|
 \(E->ops@p\|E.ops@p\)->name
)

@assertion@
expression E;
identifier fn =~ "((BUG|WARN)(_ON)?(_ONCE)?|_assert)$";
position ops.p;
position pa, in;
@@

 fn@pa(..., <+... \(E->ops@p@in\|E.ops@p@in\) ...+>, ...)

@depends on context@
identifier assertion.fn;
position assertion.pa;
@@

* fn@pa(...)

// A function that compares ops, and assertions on what it returns.

@helper@
expression E;
identifier fn, x;
position ops.p;
@@

fn(...)
{
<+...
(
 \(E->ops@p\|E.ops@p\) == &x
|
 \(E->ops@p\|E.ops@p\) != &x
|
 rcu_access_pointer(\(E->ops@p\|E.ops@p\)) == &x
|
 rcu_access_pointer(\(E->ops@p\|E.ops@p\)) != &x
)
...+>
}

@indirect depends on !patch@
identifier helper.fn;
identifier check =~ "((BUG|WARN)(_ON)?(_ONCE)?|_assert)$";
position pa;
@@

* check@pa(..., <+... fn(...) ...+>, ...)

@direct depends on !patch@
expression E;
position ops.p;
position q != {accessor.ok,assertion.in};
@@

* \(E->ops@p@q\|E.ops@p@q\)

@compared@
expression E;
identifier x;
position direct.q;
position pc;
@@

(
 \(E->ops@q@pc\|E.ops@q@pc\) == &x
|
 \(E->ops@q@pc\|E.ops@q@pc\) != &x
)

@called@
expression E;
identifier fn;
position direct.q;
@@

 \(E->ops@q\|E.ops@q\)->fn

@depends on patch@
expression E;
identifier x;
position ops.p;
position q != {accessor.ok,assertion.in};
@@

(
- E->ops@p@q
+ rcu_access_pointer(E->ops)
  == &x
|
- E->ops@p@q
+ rcu_access_pointer(E->ops)
  != &x
|
- E.ops@p@q
+ rcu_access_pointer(E.ops)
  == &x
|
- E.ops@p@q
+ rcu_access_pointer(E.ops)
  != &x
)

// -----------------------------------------------------------------------------
// 3: a lock that outlives the RCU section in which it was found

@outlives depends on !patch exists@
struct dma_fence *f;
expression e;
identifier l;
type T;
identifier spin_lock =~ "^(raw_)?spin_(try)?lock";
position p1 : script:python() { foreign(p1) };
position p2;
@@

rcu_read_lock();
... when != rcu_read_unlock();
(
* l = \(&f->lock@p1\|&f->inline_lock@p1\|f->extern_lock@p1\|dma_fence_spinlock@p1(f)\);
|
* T l = \(&f->lock@p1\|&f->inline_lock@p1\|f->extern_lock@p1\|dma_fence_spinlock@p1(f)\);
)
... when != l = e
rcu_read_unlock();
... when != l = e
* spin_lock@p2(l, ...)

// The same with the fence, unless somebody gets a reference to it.

@held exists@
local idexpression struct dma_fence *f;
identifier d;
position ok;
expression E;
@@

(
 f = rcu_dereference@ok(E);
 ...
 \(dma_fence_get(f)\|dma_fence_get_rcu(f)\)
|
 struct dma_fence *d = rcu_dereference@ok(E);
 ...
 \(dma_fence_get(d)\|dma_fence_get_rcu(d)\)
)

@unheld depends on !patch exists@
local idexpression struct dma_fence *f;
identifier d;
expression E, e;
identifier spin_lock =~ "^(raw_)?spin_(try)?lock";
position p : script:python() { foreign(p) };
position p1 != held.ok;
position p2;
@@

rcu_read_lock();
... when != rcu_read_unlock();
(
* f = rcu_dereference@p@p1(E);
... when != f = e
rcu_read_unlock();
... when != f = e
(
* dma_fence_lock_irqsave@p2(f, ...)
|
* spin_lock@p2(\(&f->lock\|&f->inline_lock\|f->extern_lock\|dma_fence_spinlock(f)\), ...)
)
|
* struct dma_fence *d = rcu_dereference@p@p1(E);
... when != d = e
rcu_read_unlock();
... when != d = e
(
* dma_fence_lock_irqsave@p2(d, ...)
|
* spin_lock@p2(\(&d->lock\|&d->inline_lock\|d->extern_lock\|dma_fence_spinlock(d)\), ...)
)
)

// -----------------------------------------------------------------------------
// 4: names outside of RCU

@protected exists@
symbol rcu;
position ok;
@@

(
 rcu_read_lock();
|
 guard(rcu)();
)
... when != rcu_read_unlock();
    when any
(
 trace_dma_fence_emit@ok(...);
|
 trace_dma_fence_destroy@ok(...);
|
 trace_dma_fence_wait_start@ok(...);
|
 trace_dma_fence_wait_end@ok(...);
)

@names depends on !patch@
position p : script:python() { foreign(p) };
position q != protected.ok;
@@

(
* trace_dma_fence_emit@p@q(...);
|
* trace_dma_fence_destroy@p@q(...);
|
* trace_dma_fence_wait_start@p@q(...);
|
* trace_dma_fence_wait_end@p@q(...);
)

// -----------------------------------------------------------------------------
// 5: release without a grace period

@table@
identifier x, fn;
@@

struct dma_fence_ops x = { .release = fn, };

@release depends on !patch@
identifier table.fn;
identifier f, o;
identifier to =~ "^container_of$|fence";
type T;
position p : script:python() { foreign(p) };
@@

fn(struct dma_fence *f)
{
<+...
(
* kfree@p(f);
|
* kfree@p(to(f, ...));
|
  T o = to(f, ...);
  ...
* kfree@p(o);
|
  o = to(f, ...);
  ...
* kfree@p(o);
)
...+>
}

// -----------------------------------------------------------------------------
// What to say. The more specific of two messages about one place comes first.

@script:python depends on report || org@
p << direct.q;
fn << called.fn;
@@

say(p, "ERROR: ->%s() called through the ops of a fence: signaling sets them to NULL unless they have ->release() or ->wait()" % (fn))

@script:python depends on report || org@
p << compared.pc;
@@

say(p, "WARNING: ops of a fence compared without rcu_access_pointer()")

@script:python depends on report || org@
p << direct.q;
@@

say(p, "WARNING: ops of a fence used without an RCU accessor; dma_fence_was_initialized() tells if it was initialized")

@script:python depends on report || org@
p << assertion.pa;
fn << assertion.fn;
@@

say(p, "ERROR: %s() on the ops of a fence: signaling sets them to NULL unless they have ->release() or ->wait()" % (fn))

@script:python depends on report || org@
p << indirect.pa;
fn << helper.fn;
check << indirect.check;
@@

say(p, "ERROR: %s() on what %s() reads from the ops of a fence: signaling sets them to NULL unless they have ->release() or ->wait()" % (check, fn))

@script:python depends on report || org@
p << outlives.p1;
s << outlives.p2;
@@

say(p, "ERROR: lock of a fence looked up under rcu_read_lock(), but taken after rcu_read_unlock() on line %s" % (s[0].line))

@script:python depends on report || org@
p << unheld.p1;
s << unheld.p2;
@@

say(p, "ERROR: fence looked up under rcu_read_lock(), but locked without a reference after rcu_read_unlock() on line %s" % (s[0].line))

@script:python depends on report || org@
p << names.p;
@@

say(p, "WARNING: names of a fence traced without rcu_read_lock()")

@script:python depends on report || org@
p << release.p;
@@

say(p, "ERROR: kfree() of a fence that RCU readers may still look at; use dma_fence_free() or call_rcu()")
