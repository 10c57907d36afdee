/*
 * How a channel outlives its paths: an exhaustive small model.
 *
 * What is modelled and how to run it stands in README.md beside this file;
 * scripts/model runs every configuration. The names are the protocol's.
 *
 * Side 0 is the initiator (I), side 1 the responder (R). Path p is the attempt
 * with epoch p; path 0 is the one that the channel began on. A byte on the wire
 * carries its true offset, which the receiver does not use but to be checked.
 * A stream of length n is n-1 bytes and a CLOSE, which counts as one; length 0
 * is a direction in which nothing is ever said.
 */

/* ---- bounds ---- */
#ifndef LEN_I
#define LEN_I 3         /* what I sends: bytes + CLOSE */
#endif
#ifndef LEN_R
#define LEN_R 3
#endif
#ifndef W
#define W 1             /* window */
#endif
#ifndef DEATHS
#define DEATHS 1        /* paths that die */
#endif
#ifndef EXTRA
#define EXTRA 1         /* attempts that no death made necessary */
#endif
#ifndef QL
#define QL 2            /* records in flight on one direction of a path */
#endif
#if defined(RESTART_I) || defined(RESTART_R)
#define RESTARTS
#endif
/* Every attempt follows a death, or R's leaving, or is an extra one; the check of
 * the final state would show it if that were not so. */
#if defined(RESTART_R) || defined(FORGET)
#define NP   (1 + DEATHS + EXTRA + 1)
#else
#define NP   (1 + DEATHS + EXTRA)
#endif
#define NONE NP

#define I 0
#define R 1
#define NOACK 255       /* nothing has been acknowledged on this path yet */

mtype = { NEW, RESUME, ATTACHED, DATA, CLOSE, ACK, REFUSED };

/* One end of a path. UNUSED at R: message 3 has not arrived. */
#define UNUSED  0
#define WAITING 1       /* I only: message 3 sent, ATTACHED awaited */
#define CURRENT 2
#define OLD     3       /* mutations only: replaced and still read */
#define DROPPED 4

/* A side. */
#define LIVE  0
#define ENDED 1         /* the channel ended with an error */
#define GONE  2         /* the process restarted; the new one knows no channel */
#define DONE  3         /* nothing left to say: forgotten */
#define FRESH 4         /* R before message 3 of `new` */

#define STALE   1
#define UNKNOWN 2

typedef Side {
	byte state;
	byte cur;           /* the path in use */
	byte epoch;         /* of the last path installed */
	/* sending */
	byte whole;         /* the stream's length */
	byte base;          /* highest offset acknowledged */
	byte keep;          /* lowest byte still held */
	byte next;          /* next byte for this path */
	byte sentMax;       /* highest offset ever given to a path */
	/* receiving */
	byte received;
	byte consumed;
	byte read;          /* bytes that the program has */
	byte onPath;        /* offset of the next byte that this path brings */
	byte acked;         /* last ACK on this path */
	bit closed;         /* CLOSE has come */
	bit ended           /* the program has read the end */
};

Side side[2];

#define Q(p, s)   q[2*(p)+(s)]      /* what side s sends on path p */
#define ST(p, s)  st[2*(p)+(s)]     /* side s's end of path p */
#define CUT(p, s) cut[2*(p)+(s)]    /* what s sends on p is lost from now on */

chan q[2*NP] = [QL] of { mtype, byte, byte };
byte st[2*NP];
bit  cut[2*NP];
bit  dying[NP];

byte paths = 1;         /* paths made so far */
byte waiting;           /* attempts that wait for ATTACHED */
byte deaths, extra;

/* Scratch, used inside one atomic step only. */
hidden mtype m;
hidden byte a, b, start;

#define LEN(s) side[s].whole
#ifdef NO_CLOSE
#define CLOSE_AT(s) NOACK           /* nobody closes: all of it is bytes */
#else
#define CLOSE_AT(s) (LEN(s) - 1)
#endif

#define MIN(x, y) ((x) < (y) -> (x) : (y))
#define MAX(x, y) ((x) > (y) -> (x) : (y))

/* What must be reachable for a check to mean anything: with -DREACH=x the model
 * stops there, and scripts/model counts it as a fault when it does not. */
#ifndef REACH
#define REACH 0
#endif
#define DUPLICATE     1     /* a byte comes twice */
#define CLOSE_AGAIN   2     /* a CLOSE does */
#define ACK_AHEAD     3     /* an ACK is ahead of what its path has been given */
#define OLD_WORKS     4     /* R takes a new path while it believes in the old one */
#define START_IS_BASE 5     /* I has gone on reading and acknowledging since message 3 */
#define START_IS_RECV 6
#define READ_ON       7     /* I has gone on reading since message 3 */
#define STALE_REFUSED 8
#define NO_CHANNEL    9
#define LATE_ATTACHED 10    /* ATTACHED of an attempt older than the path in use */
#define WINDOW_FULL   11
#define GIVEN_UP      12    /* a new channel whose path died before ATTACHED */
#define READ_AFTER    13    /* the end is read after the channel is lost */
#define HERE(x) assert(REACH != x)

/* A protocol error ends the channel: between two honest ends there is none. */
#define LEGAL(x) assert(x)

/* ---- paths ---- */

#define ROOM(s, p) (ST(p, 1-(s)) == DROPPED || CUT(p, s) || nfull(Q(p, s)))

inline put(s, p, t, x, y) {
	if
	:: ST(p, 1-(s)) == DROPPED || CUT(p, s)     /* into the void */
	:: else -> Q(p, s)!t, x, y
	fi
}

inline flush(p, s) {
	do
	:: nempty(Q(p, s)) -> Q(p, s)?_, _, _
	:: empty(Q(p, s)) -> break
	od
}

/* Side s is through with path p: what still comes on it is not looked at. What
 * s sent may still arrive. */
inline drop(s, p) {
	if
	:: ST(p, s) == WAITING -> waiting--
	:: else
	fi;
	ST(p, s) = DROPPED;
	flush(p, 1-(s));
	CUT(p, 1-(s)) = 0;
	if
	:: ST(p, 1-(s)) == DROPPED -> dying[p] = 0
	:: else
	fi;
	if
	:: side[s].cur == p -> side[s].cur = NONE
	:: else
	fi
}

/* Side s leaves the channel for good. */
hidden byte leaving;

inline leave(s, why) {
	side[s].state = why;
	do
	:: leaving < NP ->
		if
		:: ST(leaving, s) != UNUSED && ST(leaving, s) != DROPPED -> drop(s, leaving)
		:: else
		fi;
		leaving++
	:: else -> break
	od;
	leaving = 0
}

/* ---- what comes on a path in use ---- */

inline takeData(s, v) {
	if
#ifndef MUT_NO_SKIP
	:: side[s].onPath < side[s].received ->     /* had it already */
		HERE(DUPLICATE)
#endif
	:: else ->
		assert(side[s].closed == 0);
		assert(v == side[s].received);          /* in order, once */
		side[s].received++;
		LEGAL(side[s].received - side[s].consumed <= W)
	fi;
	side[s].onPath++
}

inline takeClose(s, offset) {
	if
	:: side[s].onPath < side[s].received ->
		HERE(CLOSE_AGAIN)
	:: else ->
		LEGAL(offset == side[s].received);
		assert(offset == CLOSE_AT(1-(s)));
		side[s].closed = 1;
		side[s].received++;
#ifndef CLOSE_UNBOUND
		LEGAL(side[s].received - side[s].consumed <= W);
#endif
#ifndef MUT_CLOSE_UNACKED
		side[s].consumed = side[s].received
#endif
	fi;
	side[s].onPath++
}

/* The most bytes that a side holds: the program may have written a window beyond
 * base. */
#ifdef ACK_ON_PATH
#define HELD W
#else
#define HELD (2*W)
#endif

inline takeAck(s, n) {
	LEGAL(side[s].base <= n && n <= side[s].sentMax);
#ifdef MUT_CLAMP_FORGETS
	side[s].base = MIN(n, side[s].next);
#else
	side[s].base = n;
#endif
	if
	:: n > side[s].next -> HERE(ACK_AHEAD)
	:: else
	fi;
#ifdef MUT_SKIP_ACKED
	side[s].next = MAX(side[s].next, n);
#endif
	release(s);
	assert(MIN(LEN(s), side[s].base + W) - side[s].keep <= HELD)
}

/* An ACK may be ahead of what this path has been given: I has read on the old
 * path what R must send again on the new one, since it has said `start`. So
 * what is not yet sent again stays. */
inline release(s) {
#ifdef MUT_FREE_ACKED
	side[s].keep = side[s].base
#else
	side[s].keep = MAX(side[s].keep, MIN(side[s].base, side[s].next))
#endif
}

inline take(s, p) {
	Q(p, 1-(s))?m, a, b;
	if
	:: m == DATA  -> takeData(s, a)
	:: m == CLOSE -> takeClose(s, a)
	:: m == ACK   -> takeAck(s, a)
	:: else -> assert(false)                    /* nothing else may come here */
	fi;
	a = 0; b = 0
}

/* ---- the switch to a new path ---- */

inline install(s, p, from, brings) {
	if
	:: side[s].cur != NONE ->
#if defined(MUT_ACK_ON_OLD) || defined(MUT_READ_OLD)
		ST(side[s].cur, s) = OLD
#else
		drop(s, side[s].cur)
#endif
	:: else
	fi;
	side[s].cur = p;
	side[s].epoch = p;
	ST(p, s) = CURRENT;
#ifdef MUT_RESEND_FROM_SENT
	side[s].next = side[s].sentMax;
#else
	side[s].next = from;
#endif
	assert(side[s].next >= side[s].keep);       /* it is still there to be sent */
	release(s);
	side[s].onPath = brings;
#ifdef MUT_NO_ACK_ON_INSTALL
	side[s].acked = side[s].consumed
#else
	side[s].acked = NOACK
#endif
}

/* R on message 3. */
inline answer(p) {
	Q(p, I)?m, a, b;
	if
	:: m == NEW ->
		assert(side[R].state == FRESH);
		side[R].state = LIVE;
		install(R, p, 0, 0);
		put(R, p, ATTACHED, 0, 0)
	:: m == RESUME && side[R].state != LIVE ->
		HERE(NO_CHANNEL);
		put(R, p, REFUSED, UNKNOWN, 0);
		drop(R, p)
#ifndef MUT_STALE_OK
	:: m == RESUME && side[R].state == LIVE && b <= side[R].epoch ->
		HERE(STALE_REFUSED);
		put(R, p, REFUSED, STALE, 0);
		drop(R, p)
#endif
	:: else ->
		assert(m == RESUME);
		LEGAL(a <= side[R].sentMax);
#if defined(MUT_START_TOO_HIGH)
		start = side[R].sentMax;
#elif defined(MUT_START_IGNORES_BASE)
		start = a;
#else
		start = MAX(a, side[R].base);
#endif
		if
		:: a < side[R].base -> HERE(START_IS_BASE)
		:: a > side[R].base -> HERE(START_IS_RECV)
		:: else
		fi;
		if
		:: side[R].cur != NONE && !dying[side[R].cur] && ST(side[R].cur, I) == CURRENT -> HERE(OLD_WORKS)
		:: else
		fi;
		install(R, p, start, side[R].received);
		side[R].epoch = b;
#ifdef MUT_ATTACHED_CONSUMED
		put(R, p, ATTACHED, side[R].consumed, start);
#else
		put(R, p, ATTACHED, side[R].received, start);
#endif
		start = 0
	fi;
	a = 0; b = 0
}

/* I on the answer. */
inline attach(p) {
	Q(p, R)?m, a, b;
	if
	:: m == REFUSED && a == STALE -> drop(I, p)
	:: m == REFUSED && a == UNKNOWN ->
#ifdef MUT_UNKNOWN_IS_END
		side[I].ended = 1;
		assert(side[I].read == CLOSE_AT(R));
#endif
		leave(I, ENDED)
#ifndef MUT_OLD_ATTACHED_OK
	:: m == ATTACHED && p != 0 && p <= side[I].epoch ->
		HERE(LATE_ATTACHED);
		drop(I, p)
#endif
	:: else ->
		assert(m == ATTACHED);
		waiting--;
		LEGAL(side[I].base <= a && a <= side[I].sentMax);
		LEGAL(b <= side[I].received);
		if
		:: b < side[I].received -> HERE(READ_ON)
		:: else
		fi;
#ifdef MUT_NO_DISCARD
		install(I, p, a, side[I].received)
#else
		install(I, p, a, b)
#endif
	fi;
	a = 0; b = 0
}

/* ---- processes ---- */

#ifdef CLOSE_UNBOUND
#define WINDOW(s) (side[s].next < side[s].base + W || side[s].next == CLOSE_AT(s))
#else
#define WINDOW(s) (side[s].next < side[s].base + W)
#endif

#ifdef MUT_CLOSE_ONCE
#define AGAIN(s) (side[s].next != CLOSE_AT(s) || side[s].sentMax < LEN(s))
#else
#define AGAIN(s) true
#endif

#if defined(ACK_ON_PATH)
#define ACKED(s) MIN(side[s].consumed, side[s].onPath)
#elif defined(MUT_ACK_RECEIVED)
#define ACKED(s) side[s].received
#else
#define ACKED(s) side[s].consumed
#endif

#if defined(RESTART_I) && defined(RESTART_R)
#define MORTAL(s) true
#elif defined(RESTART_I)
#define MORTAL(s) ((s) == I)
#else
#define MORTAL(s) ((s) == R)
#endif

#ifdef MUT_ERROR_HIDES_END
#define HOLDS(s) (side[s].state == LIVE)
#else
#define HOLDS(s) (side[s].state == LIVE || (side[s].closed && side[s].state == ENDED))
#endif
#ifdef DEAF
#define READABLE(s) (HOLDS(s) && s != R)        /* R's program never reads */
#else
#define READABLE(s) HOLDS(s)
#endif

/* What both sides do: take, send, acknowledge, read. */
proctype endpoint(byte s) {
end:
	do
	:: d_step { side[s].cur != NONE && nempty(Q(side[s].cur, 1-s)) ->
		take(s, side[s].cur) }

	/* the program's write and the path's are one step */
	:: d_step { side[s].cur != NONE && side[s].next < LEN(s) && WINDOW(s) && AGAIN(s) &&
			ROOM(s, side[s].cur) ->
		assert(side[s].next >= side[s].keep);
		if
		:: side[s].next == CLOSE_AT(s) -> put(s, side[s].cur, CLOSE, side[s].next, 0)
		:: else -> put(s, side[s].cur, DATA, side[s].next, 0)
		fi;
		side[s].next++;
		side[s].sentMax = MAX(side[s].sentMax, side[s].next);
		release(s);
		if
		:: side[s].next < LEN(s) && !WINDOW(s) -> HERE(WINDOW_FULL)
		:: else
		fi }

	:: d_step { side[s].cur != NONE && side[s].acked != ACKED(s) && ROOM(s, side[s].cur) ->
		side[s].acked = ACKED(s);
		put(s, side[s].cur, ACK, side[s].acked, 0) }

	/* Bytes held can be read with or without a path; when CLOSE has come, the
	 * end too, whatever becomes of the channel: all of it has been acknowledged. */
	:: d_step { READABLE(s) && side[s].read < side[s].received - side[s].closed ->
		side[s].read++;
		if
		:: side[s].closed
		:: else -> side[s].consumed = side[s].read
		fi }
	:: d_step { READABLE(s) && side[s].closed && !side[s].ended &&
			side[s].read == side[s].received - 1 ->
		assert(side[s].read == CLOSE_AT(1-s));           /* never before all bytes */
		assert(side[1-s].sentMax == LEN(1-s));          /* never but when it was said */
		if
		:: side[s].state != LIVE -> HERE(READ_AFTER)
		:: else
		fi;
		side[s].ended = 1 }

#ifdef RESTARTS
	/* the process dies at any moment */
	:: d_step { side[s].state == LIVE && MORTAL(s) ->
		leave(s, GONE) }
#endif
#ifdef FORGET
	:: d_step { side[s].state == LIVE && side[s].ended && side[s].base == LEN(s) ->
		leave(s, DONE) }
#endif
	od
}

/* I makes paths: when it has none and waits for none, and EXTRA times at any
 * moment. */
proctype dialler() {
end:
	do
	:: d_step { side[I].state == LIVE && side[I].epoch != NONE && paths < NP &&
			((side[I].cur == NONE && waiting == 0) || extra < EXTRA) ->
		if
		:: side[I].cur == NONE && waiting == 0
		:: else -> extra++
		fi;
		ST(paths, I) = WAITING;
		waiting++;
#ifdef MUT_SAME_EPOCH
		put(I, paths, RESUME, side[I].received, side[I].epoch + 1);
#else
		put(I, paths, RESUME, side[I].received, paths);
#endif
		paths++ }
	od
}

/* What R says last on a path it closes may be lost, but only a death loses a
 * refusal: else I would try again for ever. */
#define CLOSED_BY_R(p) (ST(p, R) == DROPPED && !(Q(p, R)?[REFUSED, _, _]))

/* A path: message 3 and its answer take any time; it may die, each direction
 * for itself, and each end notices at its own time. */
proctype path(byte p) {
end:
	do
	:: d_step { ST(p, R) == UNUSED && nempty(Q(p, I)) -> answer(p) }
	:: d_step { ST(p, I) == WAITING && nempty(Q(p, R)) -> attach(p) }

	:: d_step { deaths < DEATHS && !dying[p] && ST(p, I) != UNUSED &&
			!(ST(p, I) == DROPPED && ST(p, R) == DROPPED) ->
		dying[p] = 1;
		deaths++ }

	/* what I sends is lost from here on; what R sends is */
	:: d_step { (dying[p] || ST(p, I) == DROPPED) && ST(p, R) != DROPPED && !CUT(p, I) &&
			(nempty(Q(p, I)) || ST(p, I) == WAITING || ST(p, I) == CURRENT) ->
		flush(p, I);
		CUT(p, I) = 1;
		if
		:: ST(p, R) == UNUSED -> drop(R, p)             /* R never hears of it */
		:: else
		fi }
	:: d_step { (dying[p] || CLOSED_BY_R(p)) && ST(p, I) != DROPPED && !CUT(p, R) &&
			(nempty(Q(p, R)) || ST(p, R) == CURRENT) ->
		flush(p, R);
		CUT(p, R) = 1 }

	/* I notices; R does. An attempt older than the path in use may be given up. */
	:: d_step { (ST(p, I) == WAITING || ST(p, I) == CURRENT || ST(p, I) == OLD) &&
			(dying[p] || CLOSED_BY_R(p) || ST(p, I) == OLD || (ST(p, I) == WAITING && p != 0 && p < side[I].epoch)) ->
		drop(I, p);
		if
		:: side[I].epoch == NONE ->        /* a new channel that nobody has used */
			HERE(GIVEN_UP);
			leave(I, ENDED)
		:: else
		fi }
	:: d_step { (ST(p, R) == CURRENT || ST(p, R) == OLD) && (dying[p] || ST(p, I) == DROPPED || ST(p, R) == OLD) ->
		drop(R, p) }

#ifdef MUT_ACK_ON_OLD
	:: d_step { ST(p, I) == OLD && nempty(Q(p, R)) ->
		Q(p, R)?m, a, b;
		if
		:: m == ACK -> takeAck(I, a)
		:: else
		fi }
	:: d_step { ST(p, R) == OLD && nempty(Q(p, I)) ->
		Q(p, I)?m, a, b;
		if
		:: m == ACK -> takeAck(R, a)
		:: else
		fi }
#endif
#ifdef MUT_READ_OLD
	:: d_step { ST(p, R) == OLD && nempty(Q(p, I)) -> take(R, p) }
#endif
	od
}

#if defined(RESTARTS) || defined(FORGET) || defined(WITH_NEW)
#ifdef RESTARTS
#define ALONE true
#else
#define ALONE (side[I].state != LIVE)
#endif

/* The end of the time that R keeps a channel without a path. */
proctype grace() {
end:
	do
	:: d_step { side[R].state == LIVE && side[R].cur == NONE && ALONE ->
		leave(R, ENDED) }
	od
}
#endif

/* When nothing can happen any more, everything has happened. */
#ifdef NO_CLOSE
#define READ_ALL(s) (side[s].read == LEN(1-(s)) && !side[s].ended)
#else
#define READ_ALL(s) (side[s].ended == (LEN(1-(s)) > 0))
#endif
#define ACKED_ALL(s) (side[s].base == LEN(s))
#define COMPLETE (side[I].state == LIVE && READ_ALL(I) && ACKED_ALL(I) && \
	side[R].state == LIVE && READ_ALL(R) && ACKED_ALL(R))
#define OVER (side[I].state != LIVE && side[R].state != LIVE)

proctype final() {
	timeout ->
#if defined(RESTARTS)
	assert(COMPLETE || OVER)            /* nobody hangs */
#elif defined(FORGET)
	assert(COMPLETE || (OVER && READ_ALL(I) && READ_ALL(R)))
#elif defined(DEAF)
	assert(READ_ALL(I) && ACKED_ALL(R) && side[R].received == MIN(W, LEN(I)))
#elif defined(WITH_NEW)
	assert(COMPLETE || (OVER || side[R].state == FRESH) && side[I].received + side[I].sentMax == 0)
#else
	assert(COMPLETE)
#endif
}

init {
	atomic {
#ifdef ANY_LEN
		select(a : 0 .. LEN_I);
		side[I].whole = a;
		select(a : 0 .. LEN_R);
		side[R].whole = a;
#else
		side[I].whole = LEN_I;
		side[R].whole = LEN_R;
#endif
#ifdef WITH_NEW
		side[I].epoch = NONE;
		side[I].cur = NONE;
		side[R].state = FRESH;
		side[R].cur = NONE;
		ST(0, I) = WAITING;
		waiting = 1;
		put(I, 0, NEW, 0, 0);
#else
		ST(0, I) = CURRENT;
		ST(0, R) = CURRENT;
#endif
		run endpoint(I);
		run endpoint(R);
		run dialler();
		a = 0;
		do
		:: a < NP -> run path(a); a++
		:: else -> break
		od;
		a = 0;
#if defined(RESTARTS) || defined(FORGET) || defined(WITH_NEW)
		run grace();
#endif
		run final()
	}
}
