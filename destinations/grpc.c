/* SPDX-License-Identifier: Apache-2.0 */

/* gRPC's framing and status, without a library of its own: a unary call is one HTTP/2 request whose body has five
 * bytes more, and whose outcome stands in the trailers. A server may send it in the headers, when there is no body.
 * All that comes is from a stranger: numbers are checked, text is cut and cleaned. Runs in the exporter. */

#include "agentd/base/compress.h"
#include "agentd/base/text.h"
#include "agentd/wire/otlp.pb-c.h"
#include "destinations/grpc.h"

#define MAX_DETAILS     4096 /* bytes of grpc-status-details-bin, decoded */
#define RETRY_INFO_TYPE "google.rpc.RetryInfo"
#define RETRY_MAX_S     900

static const struct {
	const char *name;
	enum send_outcome outcome;
	const char *remedy;
} codes[] = {
	[0] = {"OK", SEND_TAKEN, ""},
	[1] = {"CANCELLED", SEND_AGAIN, "it is tried again"},
	[2] = {"UNKNOWN", SEND_REFUSED, "the backend's own log may say why"},
	[3] = {"INVALID_ARGUMENT", SEND_REFUSED,
		"a backend that speaks OTLP profiles of another version (v1.10 or later is needed)"},
	[4] = {"DEADLINE_EXCEEDED", SEND_AGAIN, "it is tried again; is the backend overloaded?"},
	[5] = {"NOT_FOUND", SEND_BLOCKED, "the backend's own log may say why"},
	[6] = {"ALREADY_EXISTS", SEND_REFUSED, "the backend's own log may say why"},
	[7] = {"PERMISSION_DENIED", SEND_BLOCKED,
		"check the token or tenant and its rights to write"},
	[8] = {"RESOURCE_EXHAUSTED", SEND_REFUSED,
		"raise the backend's limits: for the size of messages (4 MiB is usual), or of what a "
		"client may send"},
	[9] = {"FAILED_PRECONDITION", SEND_REFUSED, "the backend's own log may say why"},
	[10] = {"ABORTED", SEND_AGAIN, "it is tried again"},
	[11] = {"OUT_OF_RANGE", SEND_AGAIN, "it is tried again"},
	[12] = {"UNIMPLEMENTED", SEND_BLOCKED,
		"switch profiles on in the backend (in a collector: the feature gate "
		"service.profilesSupport and a pipeline for profiles), or use a newer one"},
	[13] = {"INTERNAL", SEND_REFUSED, "the backend's own log may say why"},
	[14] = {"UNAVAILABLE", SEND_AGAIN, "it is tried again; is the backend up?"},
	[15] = {"DATA_LOSS", SEND_AGAIN, "it is tried again"},
	[16] = {"UNAUTHENTICATED", SEND_BLOCKED,
		"set the credentials that it wants: bearer-token, basic-user and basic-password, or a "
		"header"},
};

void grpc_prefix(uint8_t out[GRPC_PREFIX], bool compressed, size_t len)
{
	out[0] = compressed;
	for (size_t i = 0; i < 4; i++)
		out[1 + i] = (uint8_t)(len >> 8 * (3 - i));
}

int grpc_message(const void *data, size_t n, struct buf *out)
{
	const uint8_t *p = data;
	size_t size;

	if (!n)
		return 0;
	if (n < GRPC_PREFIX || p[0] > 1)
		return -EBADMSG;
	size = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
	if (size != n - GRPC_PREFIX)
		return -EBADMSG;
	if (p[0])
		return decompress_gzip(p + GRPC_PREFIX, size, out->cap, out) < 0 ? -EBADMSG : 0;
	buf_add(out, p + GRPC_PREFIX, size);
	return buf_error(out);
}

/* ---- status ---- */

static int hex(char c)
{
	return c >= '0' && c <= '9'    ? c - '0'
		: c >= 'a' && c <= 'f' ? c - 'a' + 10
		: c >= 'A' && c <= 'F' ? c - 'A' + 10
				       : -1;
}

/* grpc-message is percent-encoded UTF-8. */
static void decode_message(const char *from, size_t len, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 1 < size; i++) {
		if (from[i] == '%' && i + 2 < len && hex(from[i + 1]) >= 0 &&
			hex(from[i + 2]) >= 0) {
			char c = (char)(hex(from[i + 1]) << 4 | hex(from[i + 2]));

			out[n++] = c ? c : ' ';
			i += 2;
		} else {
			out[n++] = from[i];
		}
	}
	out[n] = '\0';
	text_clean(out);
}

/* With or without padding; stops at the first byte that is none. */
static size_t decode_base64(const char *from, size_t len, uint8_t *out, size_t size)
{
	uint32_t bits = 0;
	size_t n = 0;
	int have = 0;

	for (size_t i = 0; i < len; i++) {
		char c = from[i];
		int v = c >= 'A' && c <= 'Z'   ? c - 'A'
			: c >= 'a' && c <= 'z' ? c - 'a' + 26
			: c >= '0' && c <= '9' ? c - '0' + 52
			: c == '+' || c == '-' ? 62
			: c == '/' || c == '_' ? 63
					       : -1;

		if (v < 0 || n == size)
			break;
		bits = bits << 6 | (uint32_t)v;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[n++] = (uint8_t)(bits >> have);
		}
	}
	return n;
}

static void take_details(struct grpc_status *s, const char *text, size_t len)
{
	uint8_t data[MAX_DETAILS];
	size_t n = decode_base64(text, len, data, sizeof(data));
	Otlp__RpcStatus *status = otlp__rpc_status__unpack(NULL, n, data);

	for (size_t i = 0; status && i < status->n_details; i++) {
		const Otlp__RpcAny *any = status->details[i];
		const char *slash = strrchr(any->type_url, '/');
		Otlp__RpcRetryInfo *info;

		if (!streq(slash ? slash + 1 : any->type_url, RETRY_INFO_TYPE))
			continue;
		info = otlp__rpc_retry_info__unpack(NULL, any->value.len, any->value.data);
		if (!info)
			continue;
		s->has_retry_info = true;
		if (info->retry_delay && info->retry_delay->seconds >= 0 &&
			info->retry_delay->nanos >= 0)
			s->retry_after_ns =
				(uint64_t)MIN(info->retry_delay->seconds, (int64_t)RETRY_MAX_S) *
					NSEC_PER_SEC +
				(uint64_t)MIN(info->retry_delay->nanos, 999999999);
		otlp__rpc_retry_info__free_unpacked(info, NULL);
	}
	if (status)
		otlp__rpc_status__free_unpacked(status, NULL);
}

void grpc_take_header(struct grpc_status *s, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	size_t name = colon ? (size_t)(colon - line) : 0, rest;
	char number[8];
	uint64_t code;

	if (!colon)
		return;
	colon++;
	rest = len - name - 1;
	for (; rest && *colon == ' '; rest--)
		colon++;
	while (rest &&
		(colon[rest - 1] == '\r' || colon[rest - 1] == '\n' || colon[rest - 1] == ' '))
		rest--;
	if (name == 11 && strncasecmp(line, "grpc-status", name) == 0) {
		snprintf(number, sizeof(number), "%.*s", (int)MIN(rest, sizeof(number) - 1), colon);
		s->code = text_u64(number, 0, 9999, &code) == 0 ? (int)code : 2;
	} else if (name == 12 && strncasecmp(line, "grpc-message", name) == 0) {
		decode_message(colon, rest, s->message, sizeof(s->message));
	} else if (name == 23 && strncasecmp(line, "grpc-status-details-bin", name) == 0) {
		take_details(s, colon, rest);
	}
}

/* A message that is too big has no status of its own: servers say it in words, each in theirs. */
static bool is_too_big(const struct grpc_status *s)
{
	static const char *const words[] = {"larger than max", "exceeds maximum size",
		"exceeds the maximum", "length too large", "message too large",
		"too large message"};

	/* RESOURCE_EXHAUSTED in most, OUT_OF_RANGE in Rust's. */
	if ((s->code != 8 && s->code != 11) || s->has_retry_info)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasestr(s->message, words[i]))
			return true;
	return false;
}

enum send_outcome grpc_outcome(const struct grpc_status *s)
{
	/* No status: whatever answers there, it is not the backend's gRPC. */
	if (s->code < 0)
		return SEND_BLOCKED;
	if (is_too_big(s))
		return SEND_TOO_BIG;
	if (s->code == 8 && s->has_retry_info)
		return SEND_AGAIN;
	return (size_t)s->code < ARRAY_SIZE(codes) ? codes[s->code].outcome : SEND_REFUSED;
}

const char *grpc_name(int code, char *out, size_t size)
{
	if (code >= 0 && (size_t)code < ARRAY_SIZE(codes))
		return codes[code].name;
	snprintf(out, size, "status %d", code);
	return out;
}

void grpc_say(const struct grpc_status *s, const char *host, const char *port, const char *hint,
	char reason[PROTOCOL_TEXT], char remedy[PROTOCOL_TEXT])
{
	bool known = s->code >= 0 && (size_t)s->code < ARRAY_SIZE(codes);
	char name[32];

	if (s->code < 0) {
		snprintf(reason, PROTOCOL_TEXT, "%.200s port %.16s answered, but not as gRPC does",
			host, port);
		snprintf(remedy, PROTOCOL_TEXT, "is this the backend's gRPC port? %.300s", hint);
		return;
	}
	snprintf(reason, PROTOCOL_TEXT, "%.100s port %.16s answered %s%s%s%s", host, port,
		grpc_name(s->code, name, sizeof(name)), *s->message ? ": \"" : "", s->message,
		*s->message ? "\"" : "");
	snprintf(remedy, PROTOCOL_TEXT, "%s",
		s->code == 8 && s->has_retry_info ? "it is tried again, as it asked for"
			: known                   ? codes[s->code].remedy
						  : "the backend's own log may say why");
}
