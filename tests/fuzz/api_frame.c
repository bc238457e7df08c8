/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as what a client or agentd sends: frames are found within what is there, and a message that unpacks packs
 * again. */

#include "agentd/api/api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void pack(const ProtobufCMessage *m, size_t max)
{
	_cleanup_buf_ struct buf b;
	const uint8_t *payload;
	size_t len;

	buf_init(&b, 0);
	/* Packed again it may be longer: defaults that were sent twice, other encodings. */
	if (api_frame_pack(m, max, &b) == 0 &&
		api_frame_find(b.data, b.len, max, &payload, &len) != (ssize_t)b.len)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *payload;
	size_t len;
	ssize_t n;

	while ((n = api_frame_find(data, size, API_MAX_REQUEST, &payload, &len)) > 0) {
		Control__Request *request;
		Control__Reply *reply;
		Control__Hello *hello;

		if ((size_t)n > size || payload < data || payload + len > data + size)
			abort();
		request = control__request__unpack(NULL, len, payload);
		reply = control__reply__unpack(NULL, len, payload);
		hello = control__hello__unpack(NULL, len, payload);
		if (request)
			pack(&request->base, 2 * API_MAX_REQUEST);
		if (reply)
			pack(&reply->base, 2 * API_MAX_REQUEST);
		if (hello)
			pack(&hello->base, 2 * API_MAX_REQUEST);
		control__request__free_unpacked(request, NULL);
		control__reply__free_unpacked(reply, NULL);
		control__hello__free_unpacked(hello, NULL);
		data += n;
		size -= (size_t)n;
	}
	return 0;
}
