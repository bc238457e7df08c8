/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Framing (both sides) and the client library: all of agentd that odictl may see. */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"
#include "agentd/wire/control.pb-c.h"

#define API_PROTOCOL       1
#define API_DEFAULT_SOCKET "/run/odi/agentd.sock"
#define API_MAX_REQUEST    (1U << 20)  /* bytes of one frame to agentd */
#define API_MAX_REPLY      (16U << 20) /* bytes of one frame to a client */

/* ---- framing: pure -------------------------------------------------------------------------------------- */
/* Appends a frame to out. -E2BIG past max. */
int api_frame_pack(const ProtobufCMessage *message, size_t max, struct buf *out);
/* Looks for a whole frame at data: > 0 bytes it takes (payload in *payload, *payload_len), 0 not whole yet,
 * -EMSGSIZE length past max. */
ssize_t api_frame_find(
	const uint8_t *data, size_t len, size_t max, const uint8_t **payload, size_t *payload_len);

/* An errno as the code that travels, and back. Only some survive the way: see frame.c. */
Control__Code api_code_of(int error);
int api_error_of(Control__Code code);

/* ---- client: blocking, with a time limit ------------------------------------------------------------------ */
struct api_client;

/* Error text: agentd not running (with what to type), no permission (which group), protocol mismatch. Returns -ECONNREFUSED
 * (not reachable: exit 3), -EACCES (exit 4), -EPROTO, -EBUSY (too many connections of this user). */
int api_connect(struct api_client **ret, const char *socket, struct err_text *err);
struct api_client *api_close(struct api_client *c);
DEFINE_FREEP(api_closep, struct api_client *, api_close)
const Control__Hello *api_hello(const struct api_client *c);
int api_fd(const struct api_client *c);

/* Sends and waits for the final reply (or the first part of a stream): *ret is freed by api_reply_free(). A Reply with
 * error becomes a negative errno by its code (INVALID -EINVAL, NOT_FOUND -ENOENT, EXISTS -EEXIST, CONFLICT -ESTALE,
 * PERMISSION -EACCES, MANAGED -EPERM, UNAVAILABLE -EOPNOTSUPP, BUSY -EBUSY, INTERNAL -EIO, CANCELLED -ECANCELED) and err. */
/* 30 s, 120 s for queries and tests of destinations (-ETIMEDOUT); -ECONNREFUSED when agentd ended meanwhile. A reply
 * without error has a body. */
int api_call(struct api_client *c, Control__Request *request, Control__Reply **ret,
	struct err_text *err);
/* The same with descriptors (borrowed; at most 16) beside the frame. */
int api_call_with(struct api_client *c, Control__Request *request, const int *fds, size_t n_fds,
	Control__Reply **ret, struct err_text *err);
/* The next part of the last call's stream; 0 with *ret NULL after the final one. timeout_ms < 0: for ever. -EINTR on a signal. */
int api_next(struct api_client *c, int timeout_ms, Control__Reply **ret, struct err_text *err);
void api_reply_free(Control__Reply *reply);
