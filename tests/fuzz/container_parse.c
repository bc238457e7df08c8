/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a state file: parsing ends, within its bounds, and what it says can pass agentd's own check of
 * an answer. libFuzzer; the first corpus is in tests/fuzz/corpus/container_parse. */

#include "agentd/container/private.h"

#define ID "4f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct container_answer *a, const struct container_request *request)
{
	if (container_answer_check(a, sizeof(*a), request) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct container_request request = {
		.magic = CONTAINER_MAGIC, .kind = CONTAINER_REQUEST_FACTS};
	struct container_answer a = {.magic = CONTAINER_MAGIC};

	a.result = container_parse("", ID, data, size, &a.facts);
	check(&a, &request);
	request.kind = CONTAINER_REQUEST_DOCKER_ROOT;
	a.result = container_parse_docker_root(data, size, a.path, sizeof(a.path));
	check(&a, &request);
	return 0;
}
