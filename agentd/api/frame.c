/* SPDX-License-Identifier: Apache-2.0 */

/* Frames: four bytes of length, big endian, then one message.
 *
 * The length comes from the other side, so it is judged before a byte is waited for or stored: a
 * frame past the bound is an error at its fourth byte. Pure functions, shared by both sides; agentd
 * and odictl. */

#include <endian.h>

#include "agentd/api/api.h"

enum { HEADER = 4 };

int api_frame_pack(const ProtobufCMessage *message, size_t max, struct buf *out)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	uint32_t header = htobe32((uint32_t)len);
	uint8_t *to;

	if (len > max || len > UINT32_MAX)
		return -E2BIG;
	to = buf_reserve(out, HEADER + len);
	if (!to)
		return buf_error(out);
	memcpy(to, &header, HEADER);
	protobuf_c_message_pack(message, to + HEADER);
	buf_commit(out, HEADER + len);
	return 0;
}

ssize_t api_frame_find(
	const uint8_t *data, size_t len, size_t max, const uint8_t **payload, size_t *payload_len)
{
	uint32_t header;

	if (len < HEADER)
		return 0;
	memcpy(&header, data, HEADER);
	header = be32toh(header);
	if (header > max)
		return -EMSGSIZE;
	if (len - HEADER < header)
		return 0;
	*payload = data + HEADER;
	*payload_len = header;
	return (ssize_t)(HEADER + (size_t)header);
}

static const struct {
	int error;
	Control__Code code;
} codes[] = {
	/* The first of a code is what a client gets back. */
	{-EINVAL, CONTROL__CODE__INVALID},
	{-E2BIG, CONTROL__CODE__INVALID},
	{-ERANGE, CONTROL__CODE__INVALID},
	{-ENAMETOOLONG, CONTROL__CODE__INVALID},
	{-ENOENT, CONTROL__CODE__NOT_FOUND},
	{-EEXIST, CONTROL__CODE__EXISTS},
	{-ESTALE, CONTROL__CODE__CONFLICT},
	{-EACCES, CONTROL__CODE__PERMISSION},
	{-EPERM, CONTROL__CODE__MANAGED},
	{-EOPNOTSUPP, CONTROL__CODE__UNAVAILABLE},
	{-ENOSPC, CONTROL__CODE__UNAVAILABLE},
	{-EDQUOT, CONTROL__CODE__UNAVAILABLE},
	{-EROFS, CONTROL__CODE__UNAVAILABLE},
	{-ENOSYS, CONTROL__CODE__UNAVAILABLE},
	{-ENODEV, CONTROL__CODE__UNAVAILABLE},
	{-EIO, CONTROL__CODE__INTERNAL},
	{-EBUSY, CONTROL__CODE__BUSY},
	{-EAGAIN, CONTROL__CODE__BUSY},
	{-ETIMEDOUT, CONTROL__CODE__BUSY},
	{-ECANCELED, CONTROL__CODE__CANCELLED},
};

int api_error_of(Control__Code code)
{
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (codes[i].code == code)
			return codes[i].error;
	return -EIO;
}

Control__Code api_code_of(int error)
{
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (codes[i].error == error)
			return codes[i].code;
	return CONTROL__CODE__INTERNAL;
}
