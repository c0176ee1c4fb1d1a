// SPDX-License-Identifier: GPL-2.0
// Where rules.py may break a function: what there is, and from where to where it goes.
virtual report

@initialize:python@
@@
def say(kind, first, last):
    print(kind, first[0].current_element, first[0].line, first[0].column, last[0].line_end,
          last[0].column_end)

@st@
expression E;
position p;
@@
 E@p;

@script:python@
p << st.p;
@@
say("delete", p, p)

@jump@
identifier L;
position p;
@@
(
 goto@p L;
|
 break@p;
|
 continue@p;
|
 return@p;
)

@script:python@
p << jump.p;
@@
say("jump", p, p)

@res@
expression E;
position p, q;
@@
 return@p E@q;

@script:python@
p << res.p;
q << res.q;
@@
say("jump", p, q)
say("return", q, q)

@cond@
expression E, A, B;
statement S1, S2;
position p;
@@
(
 if (E@p) S1 else S2
|
 while (E@p) S1
|
 for (A; E@p; B) S1
|
 for (; E@p; B) S1
|
 E@p ? A : B
)

@script:python@
p << cond.p;
@@
say("negate", p, p)

@init@
type T;
identifier X;
expression E;
position p;
@@
 T X = E@p;

@script:python@
p << init.p;
@@
say("init", p, p)

@part@
expression A, B;
position p, q;
@@
(
 A@p && B@q
|
 A@p || B@q
)

@script:python@
p << part.p;
q << part.q;
@@
say("negate", p, p)
say("negate", q, q)

@op@
expression A, B;
binary operator o = {<, <=, >, >=, +, -, &, |};
position p, q;
@@
 A@p o B@q

@script:python@
p << op.p;
q << op.q;
@@
say("operator", p, q)

@num@
constant C;
position p;
@@
 C@p

@script:python@
p << num.p;
@@
say("value", p, p)
