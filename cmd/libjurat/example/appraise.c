/*
 * Judges a record by a policy: appraise POLICY F.jurat. Writes the verdict, and exits as "jurat verify" does.
 *
 *     cc -I. -o appraise appraise.c -L. -ljurat -Wl,-rpath,'$ORIGIN'
 */
#include <stdio.h>
#include <stdlib.h>

#include "jurat.h"

static int slurp(const char *name, jurat_bytes *to)
{
	char *data = malloc(JURAT_MAX_BYTES + 1);
	FILE *f = fopen(name, "rb");

	if (data == NULL || f == NULL) {
		perror(name);
		return 0;
	}
	/* One byte more than may be: the library refuses what is too long, rather than judging the beginning of it. */
	to->size = fread(data, 1, JURAT_MAX_BYTES + 1, f);
	to->data = data;
	if (ferror(f)) {
		perror(name);
		return 0;
	}
	fclose(f);
	return 1;
}

int main(int argc, char **argv)
{
	jurat_request request = {0};
	char *answer = NULL;
	int code;

	request.struct_size = sizeof request;
	if (argc != 3 || !slurp(argv[1], &request.policy) || !slurp(argv[2], &request.record)) {
		fprintf(stderr, "usage: appraise POLICY F.jurat\n");
		return 2;
	}
	code = jurat_appraise(&request, &answer);
	if (answer != NULL)
		fputs(answer, stdout);
	jurat_free(answer);
	free((void *)request.policy.data);
	free((void *)request.record.data);
	return code;
}
