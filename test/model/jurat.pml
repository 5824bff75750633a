/*
 * The protocol, with its adversary. README.md says what is modelled and what is not; run.sh lists the variants.
 *
 * A term is an integer, packed from its parts: equal terms have equal parts, which is what a perfect hash, quote or MAC
 * gives. Nobody takes a secret out of a term, and only the hardware makes quotes.
 *
 * LEVEL is 1 (key), 2 (nonce) or 3 (session). BATCHED, RECONNECT and MUTUAL add to the last. What begins with NO_ removes
 * one protection. KEYS_KEPT keeps the leaf keys from the attacker; STEADY leaves out policy changes and the nonce endpoint.
 * CHECK_PEER, CHECK_FRESH and CHECK_POLICY say what to check. HONEST has no attacker, and asserts that nobody ever accepts:
 * a run that refutes it is what is looked for.
 */

#ifndef CONNS
#define CONNS 3		/* TLS connections, of anybody with anybody */
#endif
#ifndef REQS
#define REQS 2		/* requests for evidence on each of them: the first, and another while it is open */
#endif
#ifdef MUTUAL
#define DIRS 2
#else
#define DIRS 1
#endif

#define KEY	1
#define NONCE	2
#define SESSION	3

/* Who: the relying party, the genuine TEE, the attacker. In mutual mode the relying party is a genuine TEE too. */
#define C	1
#define T	2
#define A	3
#define HONEST_END(x)	((x) != A)

/* Leaf keys have the numbers of their owners. All of them have leaked, unless KEYS_KEPT: then A shows none but its own. */

/*
 * Evidence is a slot: the connection, the request on it, and the direction (0: the server proves, 1: the client does).
 * Three more slots hold evidence that answers no request: of the certificate, of a nonce endpoint, of a leaf handed in.
 */
#define SLOTS		(CONNS * REQS * DIRS)
#define CERT		(SLOTS)
#define ENDPOINT	(SLOTS + 1)
#define HANDED		(SLOTS + 2)
#define SLOT(c, r, d)	(((c) * REQS + (r)) * DIRS + (d))
#define CONN(s)		((s) / (REQS * DIRS))
#define REQ(s)		(((s) / DIRS) % REQS)
#define DIR(s)		((s) % DIRS)
#define PROVER(s)	end[2 * CONN(s) + DIR(s)]
#define VERIFIER(s)	end[2 * CONN(s) + 1 - DIR(s)]
#define PROVERKEY(s)	key[2 * CONN(s) + DIR(s)]
#define SERVER(c)	end[2 * (c)]
#define CLIENT(c)	end[2 * (c) + 1]
#define IS_TEE(x)	((x) == T || ((x) == C && DIRS == 2))

byte nconn;
byte end[2 * CONNS];	/* who is at the server's end of each, and at the client's */
byte key[2 * CONNS];	/* whose leaf key that end proved in the handshake */

byte chal[SLOTS + 3];	/* the challenge that slot is to answer, or answers; 0: none yet */
int  ev[SLOTS + 3];	/* the evidence, known to everybody; 0: none yet */
bit  ok[SLOTS];		/* its verifier accepted */
#define OWN	31	/* a challenge that the attacker made up */

#ifdef BATCHED
#ifdef HONEST
byte batch[SLOTS + 3];	/* which quote its leaf is under; 0: it still waits for one */
byte nbatch;
#define NBATCH	nbatch
#else
bit  batch[SLOTS + 3];	/* it is under a quote; which one makes no difference, as anybody gets any */
#define NBATCH	1
#endif
#define SIGNED(s)	(batch[s] != 0)
#else
#define SIGNED(s)	true
#endif

#ifdef RECONNECT
byte under[SLOTS + 3];		/* for a MAC: 1 + the connection whose secret it is under */
byte epoch;			/* of the policy. Stands for whatever voids a secret: its expiry, a restart */
byte kept[CONNS * DIRS];	/* 1 + the epoch that the verifier noted with the secret of that connection; 0: not kept */
byte began[SLOTS];		/* the epoch when the challenge was drawn: the policy that evidence is appraised by */
byte appraised[CONNS * DIRS];	/* 1 + the epoch of the policy that did affirm: what kept[] should say */
#define KEPT(c, d)	kept[(c) * DIRS + (d)]
#define APPRAISED(c, d)	appraised[(c) * DIRS + (d)]
#endif

/* Terms: leaf = role (2 bits), key (2), challenge (5), exporter (10); then a secret (3) and what kind of statement it is. */
#ifdef NO_ROLE_FIELD
#define F_ROLE(d)	0
#else
#define F_ROLE(d)	((d) + 1)
#endif
#ifdef NO_ROLE_LABEL
#define F_LABEL(d)	0
#else
#define F_LABEL(d)	((d) + 1)
#endif
#ifdef NO_KEY_FIELD
#define F_KEY(k)	0
#else
#define F_KEY(k)	(k)
#endif
#ifdef NO_CHALLENGE_FIELD
#define F_CHALLENGE(n)	0
#else
#define F_CHALLENGE(n)	(n)
#endif
#ifdef NO_CHALLENGE_CONTEXT
#define F_CONTEXT(n)	0
#else
#define F_CONTEXT(n)	(n)
#endif
#ifdef NO_EXPORTER
#define EXPORTER(c, d, n)	0
#else
#define EXPORTER(c, d, n)	((((c) + 1) << 7) | (F_LABEL(d) << 5) | F_CONTEXT(n))
#endif
#define LEAF(d, k, n, x)	((F_ROLE(d) << 17) | (F_KEY(k) << 15) | (F_CHALLENGE(n) << 10) | (x))

/* The MAC of a reconnection is over a leaf as well; it has mutations of its own. A direction of -1 is that of no role. */
#if defined(NO_EXPORTER_IN_MAC)
#define MACLEAF(d, k, n, c)	LEAF(d, k, n, 0)
#elif defined(NO_ROLE_IN_MAC)
#define MACLEAF(d, k, n, c)	LEAF(-1, k, n, EXPORTER(c, -1, n))
#else
#define MACLEAF(d, k, n, c)	LEAF(d, k, n, EXPORTER(c, d, n))
#endif
#ifdef NO_EXPORTER_IN_SECRET
#define SECRET(c)	7		/* derived from the server's leaf key */
#else
#define SECRET(c)	((c) + 1)
#endif

#ifdef NO_DOMAIN
#define TAG(t)		8		/* the hardware signs the same bytes for a nonce and for a leaf */
#define Q_NONCE(k, n)	((TAG(2) << 24) | (n))
#else
#define TAG(t)		(t)
#define Q_NONCE(k, n)	((TAG(2) << 24) | ((k) << 20) | (n))
#endif
#define Q_KEY(k)	((1 << 24) | (k))
#define Q_LEAF(l)	((TAG(3) << 24) | (l))
#define MAC(z, l)	((4 << 24) | ((z) << 20) | (l))

/* What the attacker knows besides all evidence and all challenges. */
#define AN_END(c)		(CLIENT(c) == A || SERVER(c) == A)
#define KNOWS_EXPORTER(c)	(AN_END(c))
#ifdef NO_EXPORTER_IN_SECRET
#define KNOWS_SECRET(c)		true
#else
#define KNOWS_SECRET(c)		(AN_END(c))
#endif

inline say_end(x)
{
	if
	:: x == C -> printf("the relying party")
	:: x == T -> printf("the TEE")
	:: x == A -> printf("the attacker")
	fi
}

inline say_key(x)
{
	if
	:: x == C -> printf("the relying party's leaf key")
	:: x == T -> printf("the TEE's leaf key")
	:: x == A -> printf("a key of the attacker")
	fi
}

inline say_challenge(n)
{
	if
	:: n == OWN -> printf("the attacker's challenge")
	:: else -> printf("challenge %d", n)
	fi
}

/* Opens a connection between x and y, which prove the keys kx and ky. Honest ends draw their challenges at once. */
inline connect(x, kx, y, ky)
{
	CLIENT(nconn) = x; key[2 * nconn + 1] = kx;
	SERVER(nconn) = y; key[2 * nconn] = ky;
	printf("connection %d: ", nconn); say_end(x); printf(" to "); say_end(y);
	printf(", who proves "); say_key(ky);
	if
	:: DIRS == 2 -> printf("; the client proves "); say_key(kx)
	:: else
	fi;
	printf("\n");
	nconn++;
	if
	:: HONEST_END(x) -> draw(SLOT(nconn - 1, 0, 0))
	:: else
	fi;
	if
	:: DIRS == 2 && HONEST_END(y) -> draw(SLOT(nconn - 1, 0, DIRS - 1))
	:: else
	fi
}

inline draw(sl)
{
	chal[sl] = (sl) + 1;
#ifdef RECONNECT
	began[sl] = epoch;
#endif
	printf("connection %d: ", CONN(sl)); say_end(VERIFIER(sl)); printf(" asks for evidence with challenge %d\n", chal[sl])
}

/* A TEE answers for slot sl, from what it sees of its own connection. That is all that it ever has quoted. */
inline quote(sl)
{
	printf("connection %d: ", CONN(sl)); say_end(PROVER(sl));
#if LEVEL == NONCE
	ev[sl] = Q_NONCE(PROVERKEY(sl), chal[sl]);
	printf(" has its key quoted with ");
#else
	ev[sl] = Q_LEAF(LEAF(DIR(sl), PROVERKEY(sl), chal[sl], EXPORTER(CONN(sl), DIR(sl), chal[sl])));
#ifdef BATCHED
	printf(" puts into the next batch the leaf of this connection with ");
#else
	printf(" has the leaf of this connection quoted with ");
#endif
#endif
	say_challenge(chal[sl]); printf("\n")
}

#ifdef RECONNECT
/* In place of a quote: a MAC, under the secret of any connection that it is an end of and gave evidence for. */
#define HAS_SECRET(sl, z)	((CLIENT(z) == PROVER(sl) || SERVER(z) == PROVER(sl)) && ev[SLOT(z, 0, DIR(sl))] != 0 && under[SLOT(z, 0, DIR(sl))] == 0)
inline prove(sl, z)
{
	ev[sl] = MAC(SECRET(z), MACLEAF(DIR(sl), PROVERKEY(sl), chal[sl], CONN(sl)));
	under[sl] = (z) + 1;
#ifdef BATCHED
	batch[sl] = 1;	/* it needs no quote */
#endif
	printf("connection %d: ", CONN(sl)); say_end(PROVER(sl));
	printf(" proves that it holds the secret of connection %d, with ", z); say_challenge(chal[sl]); printf("\n")
}
#endif

inline answer(sl, z)
{
#ifdef RECONNECT
	if
	:: quote(sl)
	:: REQ(sl) == 0 && CONN(sl) > 0 ->
		select(z : 0 .. CONN(sl) - 1);
		if
		:: HAS_SECRET(sl, z) -> prove(sl, z)
		:: else -> quote(sl)
		fi
	fi
#else
	quote(sl)
#endif
}

#if LEVEL == KEY
#define IS_QUOTE(sl, t)		((t) == Q_KEY(PROVERKEY(sl)))
#elif LEVEL == NONCE
#define IS_QUOTE(sl, t)		((t) == Q_NONCE(PROVERKEY(sl), chal[sl]))
#elif defined(NO_PROOF)
#define IS_QUOTE(sl, t)		((t) >> 24 == TAG(3))
#elif defined(NO_MINIMUM)
#define IS_QUOTE(sl, t)		((t) == Q_KEY(PROVERKEY(sl)) || (t) == Q_LEAF(LEAF(DIR(sl), PROVERKEY(sl), chal[sl], EXPORTER(CONN(sl), DIR(sl), chal[sl]))))
#else
#define IS_QUOTE(sl, t)		((t) == Q_LEAF(LEAF(DIR(sl), PROVERKEY(sl), chal[sl], EXPORTER(CONN(sl), DIR(sl), chal[sl]))))
#endif

#ifdef RECONNECT
#ifdef NO_VOID
#define HOLDS(sl, z)		(KEPT(z, DIR(sl)) != 0)
#else
#define HOLDS(sl, z)		(KEPT(z, DIR(sl)) == epoch + 1)
#endif
#define IS_MAC(sl, t, z)	(REQ(sl) == 0 && VERIFIER(SLOT(z, 0, DIR(sl))) == VERIFIER(sl) && HOLDS(sl, z) && \
				(t) == MAC(SECRET(z), MACLEAF(DIR(sl), PROVERKEY(sl), chal[sl], CONN(sl))))
#endif

/* The verifier of slot sl accepts. Here is what has to be true then. */
inline accept(sl)
{
	ok[sl] = 1;
	printf("connection %d: ", CONN(sl)); say_end(VERIFIER(sl)); printf(" ACCEPTS. The other end is "); say_end(PROVER(sl)); printf("\n");
#ifdef CHECK_PEER
	assert(HONEST_END(PROVER(sl)))
#endif
}

inline accept_quote(sl, k)
{
	accept(sl);
#ifdef CHECK_FRESH
	if
	:: chal[k] != chal[sl] -> printf("This evidence was not made for its challenge\n")
	:: else
	fi;
	assert(chal[k] == chal[sl]);
#endif
#ifdef RECONNECT
	APPRAISED(CONN(sl), DIR(sl)) = began[sl] + 1;
#ifdef NO_EPOCH_OF_APPRAISAL
	KEPT(CONN(sl), DIR(sl)) = epoch + 1;
#else
	KEPT(CONN(sl), DIR(sl)) = began[sl] + 1;
#endif
#endif
#ifdef HONEST
#if defined(BATCHED)
	other = 0;
	do
	:: other < SLOTS ->
		assert(!(other != sl && ok[other] && batch[other] == batch[sl]));
		other++
	:: else -> break
	od;
	other = 0;
#elif defined(MUTUAL) && !defined(RECONNECT)
	assert(!(ok[SLOT(CONN(sl), REQ(sl), 0)] && ok[SLOT(CONN(sl), REQ(sl), 1)]));
#elif !defined(RECONNECT)
	assert(false);
#endif
#endif
}

#ifdef RECONNECT
inline accept_mac(sl, z)
{
	printf("connection %d: that proof is of the secret of connection %d\n", CONN(sl), z);
	accept(sl);
#ifdef CHECK_POLICY
	if
	:: APPRAISED(z, DIR(sl)) < began[sl] + 1 -> printf("The policy in force never affirmed that peer\n")
	:: else
	fi;
	assert(APPRAISED(z, DIR(sl)) >= began[sl] + 1);
#endif
#ifdef HONEST
#ifdef MUTUAL
	assert(!(ok[SLOT(CONN(sl), 0, 0)] && under[SLOT(CONN(sl), 0, 0)] && ok[SLOT(CONN(sl), 0, 1)] && under[SLOT(CONN(sl), 0, 1)]));
#else
	assert(false);
#endif
#endif
}
#endif

inline say_slot(k)
{
	if
	:: k == CERT -> printf("the evidence of the TEE's certificate")
	:: k == ENDPOINT -> printf("the quote that the TEE's nonce endpoint gave")
	:: k == HANDED -> printf("the quote over the leaf that was handed in")
	:: else -> printf("what "); say_end(PROVER(k)); printf(" made on connection %d for ", CONN(k)); say_challenge(chal[k])
	fi
}

#define WAITS(sl)	(chal[sl] != 0 && HONEST_END(VERIFIER(sl)) && !ok[sl])

/* Hands evidence k to the verifier of slot sl. One that does not fit changes nothing: the verifier waits on. */
inline deliver(sl, k, z)
{
	if
	:: WAITS(sl) && ev[k] != 0 && SIGNED(k) ->
		if
		:: IS_QUOTE(sl, ev[k]) ->
			printf("connection %d: ", CONN(sl)); say_end(VERIFIER(sl)); printf(" is given "); say_slot(k); printf("\n");
			accept_quote(sl, k)
#ifdef RECONNECT
		:: under[k] != 0 && IS_MAC(sl, ev[k], under[k] - 1) ->
			printf("connection %d: ", CONN(sl)); say_end(VERIFIER(sl)); printf(" is given "); say_slot(k); printf("\n");
			z = under[k] - 1;
			accept_mac(sl, z)
#endif
		:: else
		fi
	:: else
	fi
}

/* Those who follow the protocol. In their steps every choice is free, so that every order of events is met. */
proctype Honest()
{
	byte s, i, other;

	do
	:: atomic { nconn < CONNS -> connect(C, C, T, T) }
	:: atomic {	/* asks again, on a connection that is open */
		nconn > 0 && REQS > 1 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
		if
		:: REQ(s) > 0 && chal[s] == 0 && HONEST_END(VERIFIER(s)) && ok[s - DIRS] -> draw(s)
		:: else
		fi;
		s = 0
	   }
#if LEVEL > KEY
	:: atomic {	/* answers */
		nconn > 0 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
		if
		:: chal[s] != 0 && ev[s] == 0 && IS_TEE(PROVER(s)) -> answer(s, i)
		:: else
		fi;
		s = 0; i = 0
	   }
#endif
#ifdef BATCHED
	:: atomic {	/* one quote for all leaves that wait */
		s = 0;
		do
		:: s < SLOTS + 3 ->
			if
			:: ev[s] != 0 && batch[s] == 0 -> batch[s] = NBATCH; i++
			:: else
			fi;
			s++
		:: else -> break
		od;
		if
		:: i > 0 ->
#ifdef HONEST
			nbatch++;
#endif
			printf("the hardware quotes a tree, of so many leaves: %d\n", i)
		:: else
		fi;
		s = 0; i = 0
	   }
#endif
#if defined(RECONNECT) && !defined(STEADY)
	:: atomic { epoch == 0 -> epoch = 1; printf("the policy changes\n") }
#endif
#ifdef HONEST
	:: atomic {	/* a network that delivers */
		nconn > 0 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
#if LEVEL == KEY
		deliver(s, CERT, i);
#else
		deliver(s, s, i);
#endif
		s = 0; i = 0
	   }
#endif
	od
}

#ifndef HONEST
/* Owns the network and leaf keys; opens connections as it likes, and is the server of others. */
proctype Attacker()
{
	byte s, k, i;

	do
	/* It takes the place of the server. Its own key gets it no further than another's, which a TEE may quote. */
#if !defined(MUTUAL) || defined(KEYS_KEPT)
	:: atomic { nconn < CONNS -> connect(C, C, A, A) }
#endif
#ifndef KEYS_KEPT
	:: atomic { nconn < CONNS -> connect(C, C, A, T) }
#ifdef MUTUAL
	:: atomic { nconn < CONNS -> connect(C, C, A, C) }
#endif
#endif
	/* It is a client of the TEE. Its key plays no part unless the TEE asks for evidence. */
#if !defined(MUTUAL) || defined(KEYS_KEPT)
	:: atomic { nconn < CONNS -> connect(A, A, T, T) }
#endif
#if defined(MUTUAL) && !defined(KEYS_KEPT)
	:: atomic { nconn < CONNS -> connect(A, T, T, T) }
	:: atomic { nconn < CONNS -> connect(A, C, T, T) }
#endif
#if LEVEL > KEY
	/* At the other end of a TEE it asks for evidence, with a challenge that it heard or made up. */
	:: atomic {
		nconn > 0 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
		if
		:: VERIFIER(s) == A && IS_TEE(PROVER(s)) && chal[s] == 0 && (REQ(s) == 0 || ev[s - DIRS] != 0) ->
			select(k : 0 .. nconn * REQS * DIRS);
			if
			:: k == 0 -> chal[s] = OWN
			:: k > 0 && chal[k - 1] == k -> chal[s] = k
			:: else
			fi;
			if
			:: chal[s] != 0 ->
				printf("connection %d: the attacker asks for evidence with ", CONN(s)); say_challenge(chal[s]); printf("\n");
				answer(s, i)
			:: else
			fi
		:: else
		fi;
		s = 0; k = 0; i = 0
	   }
#endif
	/* It hands evidence of any origin to anybody who waits for some, inside a connection or beside it. */
	:: atomic {
		nconn > 0 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
		if
		:: WAITS(s) ->
			select(k : 0 .. SLOTS + 2);
			deliver(s, k, i)
		:: else
		fi;
		s = 0; k = 0; i = 0
	   }
#if LEVEL == SESSION && !defined(STEADY)
	/* It names a nonce of its choice, the digest of any leaf it can compute, to the TEE's endpoint for nonce evidence. */
	:: atomic {
		nconn > 0 && ev[ENDPOINT] == 0 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
		if
		:: chal[s] != 0 && KNOWS_EXPORTER(CONN(s)) ->
			chal[ENDPOINT] = chal[s];
			ev[ENDPOINT] = Q_NONCE(T, LEAF(DIR(s), PROVERKEY(s), chal[s], EXPORTER(CONN(s), DIR(s), chal[s])));
			printf("the attacker has a nonce quoted that is the leaf of connection %d with ", CONN(s)); say_challenge(chal[s]); printf("\n")
#ifdef BATCHED
			;
			batch[ENDPOINT] = 1	/* alone under a quote */
#endif
		:: else
		fi;
		s = 0
	   }
#endif
#ifdef NO_OWN_LEAVES_ONLY
	/* It hands a leaf to a TEE that puts into its batches what others computed. */
	:: atomic {
		nconn > 0 && ev[HANDED] == 0 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
		if
		:: chal[s] != 0 && KNOWS_EXPORTER(CONN(s)) ->
			chal[HANDED] = chal[s];
			ev[HANDED] = Q_LEAF(LEAF(DIR(s), PROVERKEY(s), chal[s], EXPORTER(CONN(s), DIR(s), chal[s])));
			printf("the attacker hands in the leaf of connection %d with ", CONN(s)); say_challenge(chal[s]); printf("\n")
		:: else
		fi;
		s = 0
	   }
#endif
#ifdef RECONNECT
	/* It makes a MAC itself, where it knows the secret and the exporter. */
	:: atomic {
		nconn > 0 ->
		select(s : 0 .. nconn * REQS * DIRS - 1);
		if
		:: WAITS(s) && KNOWS_EXPORTER(CONN(s)) ->
			select(i : 0 .. nconn - 1);
			if
			:: KNOWS_SECRET(i) && IS_MAC(s, MAC(SECRET(i), MACLEAF(DIR(s), PROVERKEY(s), chal[s], CONN(s))), i) ->
				printf("connection %d: the attacker makes a MAC of its own\n", CONN(s));
				accept_mac(s, i)
			:: else
			fi
		:: else
		fi;
		s = 0; i = 0
	   }
#endif
	od
}
#endif

init
{
	atomic {
		ev[CERT] = Q_KEY(T);
#ifdef BATCHED
		batch[CERT] = 1;
#ifdef HONEST
		nbatch = 2;
#endif
#endif
		printf("before: the hardware of the TEE quotes the leaf key of its certificate\n");
#ifndef HONEST
		run Attacker();
#endif
		run Honest()
	}
}
