/*
 * libjurat: appraises attestation evidence that is at hand. It gives the verdict of "jurat verify --json", byte for byte.
 *
 * It opens no connection and fetches nothing: endorsements are what the evidence carries, what the request gives, and what lies
 * in the files that it names ("jurat endorse export" makes such a file). It reads those files, and nothing else, writes nothing,
 * and keeps nothing from one call to the next.
 *
 * Memory. Whatever a request points to belongs to the caller, is copied before the call does anything else, and may go when the
 * call returns; nobody may change it during the call. An answer belongs to the caller, who gives it back to jurat_free once.
 *
 * Threads. Every function may be called by any number of threads at once. A call runs on the thread that makes it, and leaves no
 * goroutine behind. The first one to load the library starts the threads of Go's runtime. A child made by fork has none of them:
 * load the library there, or exec, but do not call it in a child when the parent had loaded it.
 *
 * Signals. Loading the library has Go's runtime handle SIGSEGV, SIGBUS and SIGFPE, which go on to the handler that was there before
 * unless Go's own code caused them; SIGURG, for its threads; and SIGPIPE, which goes on to a handler as well, but no longer kills a
 * program that had none: it gets EPIPE. SIGINT, SIGTERM, SIGHUP, SIGCHLD and the others are as they were.
 *
 * Failure. No call ends the program because of what it was given: a fault within becomes an answer with code J803. What no
 * language survives, such as memory that runs out, it does not either: inputs are bounded for that.
 */
#ifndef JURAT_H
#define JURAT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The most bytes that any one jurat_bytes may have, and all of a request together; and the most elements of an array. */
#define JURAT_MAX_BYTES ((size_t)16 << 20)
#define JURAT_MAX_COUNT ((size_t)64)

/* Bytes, or text in UTF-8 that needs no final zero. A size of 0 means that it is absent, whatever data is. */
typedef struct jurat_bytes {
	const void *data;
	size_t size;
} jurat_bytes;

/* One file of evidence that is in several: its name ("tpm-quote") and what it holds. */
typedef struct jurat_part {
	jurat_bytes name;
	jurat_bytes content;
} jurat_part;

/*
 * What to judge, and by what. Set all of it to zero first, then struct_size and what is meant: what is left at zero is absent,
 * and whatever is required and absent is an error. Fields belong to one of the three kinds of input as the comments say; a field
 * that does not go with the input is an error too.
 */
typedef struct jurat_request {
	size_t struct_size; /* sizeof(jurat_request) of the header that the caller was compiled with */

	/* The input: one of the three. */
	jurat_bytes record;   /* a .jurat file */
	jurat_bytes chain;    /* DER certificates one behind the other, the leaf with the evidence first */
	jurat_bytes evidence; /* evidence alone, as the TEE made it */

	/*
	 * Of a chain, required: "host:port" that was connected to; the leaf has to be valid for the host. Of a record of bare
	 * evidence, and of evidence: what the verdict calls it.
	 */
	jurat_bytes target;

	/* The policy, in YAML; required. It has to stand alone: one that names files is refused. */
	jurat_bytes policy;

	/* When to judge, in RFC 3339 ("2026-11-23T12:00:00Z"); required but for a record, which has a time of its own. */
	jurat_bytes time;

	/* A file or a directory of endorsements, as for "jurat verify --endorsements"; absent for none. */
	jurat_bytes endorsements;

	/* Of evidence: its format, required ("snp", "tdx", "sgx", "nitro", "cca", "azure-snp", "azure-tdx", "tpm"). */
	jurat_bytes format;
	const jurat_part *parts; /* the other files that the azure formats need */
	size_t parts_count;
	jurat_bytes event_log; /* CCEL or TCG2 log that has to lead to the signed registers */

	/*
	 * Of evidence: endorsements that count as stapled to it, each a file as "jurat verify --endorsement" takes it. Public keys
	 * among them are trust anchors; those may come beside a record of bare evidence as well.
	 */
	const jurat_bytes *stapled;
	size_t stapled_count;

	/*
	 * Of evidence, and of a record of bare evidence: the 64 bytes that the hardware must have signed, or in their place a
	 * unsafe_any_report_data other than 0, by which the evidence proves nothing about who sent it.
	 */
	jurat_bytes report_data;
	int unsafe_any_report_data;

	/*
	 * Takes evidence that is bound more weakly than the policy demands, down to this level: "key", "nonce" or "pinned". Whoever
	 * has an accepted TEE's TLS key can then relay its evidence.
	 */
	jurat_bytes unsafe_binding;
} jurat_request;

/*
 * Judges. Returns what "jurat verify" would exit with: 0 for affirmed, and for nothing else; 1 internal fault; 2 a request or a
 * policy that is wrong; 4 no evidence; 5 evidence that is not authentic or not bound; 6 refused by the policy; 7 undecidable,
 * for want of endorsements.
 *
 * *answer, unless answer is NULL, becomes JSON that ends in a line break and a zero byte. It is the verdict, the bytes of "jurat
 * verify --json --offline"; where there is none, as with the codes 1 and 2, it is {"error": {"code", "check", "message",
 * "remedy"}}, with a code of docs/codes.md. It becomes NULL only when there is no memory for it. Go by the number that is
 * returned: the answer is for what it tells beside that.
 */
#ifndef JURAT_NO_PROTOTYPES
int jurat_appraise(const jurat_request *request, char **answer);

/* Tells what the library is: {"version", "go", "platform"} in JSON. To be given back to jurat_free; NULL when there is no memory. */
char *jurat_version(void);

/* Takes back an answer. NULL is fine. */
void jurat_free(char *answer);
#endif

#ifdef __cplusplus
}
#endif

#endif
