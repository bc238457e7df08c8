/* SPDX-License-Identifier: Apache-2.0 */

/* Headers of messages, and the bytes of a configuration.
 *
 * A configuration is a run of records, each a line of NUL-terminated strings behind two numbers:
 * u32 id, u32 number of options, name, type, then option name and value in turn. It is read with every bound checked,
 * although it comes from agentd: a reader that is right for strangers is one less thing to think about.
 * Runs in agentd (writes) and in the exporter (reads). */

#include "agentd/base/text.h"
#include "destinations/protocol.h"

#define MAX_OPTIONS 1024

struct message_header protocol_header(enum message_kind kind, size_t size)
{
	return (struct message_header){.magic = PROTOCOL_MAGIC,
		.version = PROTOCOL_VERSION,
		.kind = (uint16_t)kind,
		.size = (uint32_t)size};
}

int protocol_check(const void *message, size_t len, enum message_kind kind, size_t size)
{
	struct message_header h;

	if (len < sizeof(h))
		return -EBADMSG;
	memcpy(&h, message, sizeof(h));
	if (h.magic != PROTOCOL_MAGIC || h.version != PROTOCOL_VERSION || h.size != len ||
		h.kind != kind || (size && len != size))
		return -EBADMSG;
	return 0;
}

bool protocol_build_id_ok(const char *build_id)
{
	size_t n = strspn(build_id, "0123456789abcdef");

	return !build_id[n] && n % 2 == 0 && n >= 16 && n <= 40;
}

void protocol_put_spec(struct buf *out, const struct destination_spec *spec)
{
	uint32_t numbers[2] = {spec->id, (uint32_t)spec->n_options};

	buf_add(out, numbers, sizeof(numbers));
	buf_add(out, spec->name, strlen(spec->name) + 1);
	buf_add(out, spec->type, strlen(spec->type) + 1);
	for (size_t i = 0; i < spec->n_options; i++) {
		const char *value = spec->options[i].value;

		buf_add(out, spec->options[i].name, strlen(spec->options[i].name) + 1);
		buf_add(out, value ? value : "", value ? strlen(value) + 1 : 1);
	}
}

struct reader {
	const char *at, *end;
};

static const char *get_string(struct reader *r)
{
	size_t len = strnlen(r->at, (size_t)(r->end - r->at));
	const char *s = r->at;

	if (len == (size_t)(r->end - r->at))
		return NULL;
	r->at += len + 1;
	return s;
}

static int get_spec(struct reader *r, struct destination_spec *spec)
{
	uint32_t numbers[2];

	if ((size_t)(r->end - r->at) < sizeof(numbers))
		return -EBADMSG;
	memcpy(numbers, r->at, sizeof(numbers));
	r->at += sizeof(numbers);
	if (numbers[1] > MAX_OPTIONS)
		return -EBADMSG;
	spec->id = numbers[0];
	spec->name = get_string(r);
	spec->type = spec->name ? get_string(r) : NULL;
	if (!spec->type || strlen(spec->name) >= PROTOCOL_NAME)
		return -EBADMSG;
	spec->options = calloc((size_t)numbers[1] + 1, sizeof(*spec->options));
	if (!spec->options)
		return -ENOMEM;
	for (; spec->n_options < numbers[1]; spec->n_options++) {
		struct option_value *o = &spec->options[spec->n_options];

		o->name = get_string(r);
		o->value = o->name ? get_string(r) : NULL;
		if (!o->value)
			return -EBADMSG;
	}
	return 0;
}

int protocol_get_specs(const char *bytes, size_t len, struct destination_spec **ret, size_t *n)
{
	struct reader r = {bytes, len ? bytes + len : bytes}; /* none: bytes may be NULL */
	struct destination_spec *specs = calloc(PROTOCOL_DESTINATIONS, sizeof(*specs));
	size_t count = 0;
	int error = specs ? 0 : -ENOMEM;

	while (error == 0 && r.at < r.end) {
		if (count == PROTOCOL_DESTINATIONS)
			error = -EBADMSG;
		else
			error = get_spec(&r, &specs[count++]);
	}
	if (error < 0) {
		protocol_free_specs(specs, count);
		return error;
	}
	*ret = specs;
	*n = count;
	return 0;
}

void protocol_free_specs(struct destination_spec *specs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(specs[i].options);
	free(specs);
}
