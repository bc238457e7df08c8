/* SPDX-License-Identifier: Apache-2.0 */

/* Options that many types share, so that a type's YAML names only what is its own.
 *
 * destination_common_options are every type's: how what goes there is shaped (shape_rules.c). The groups are taken by a
 * YAML with `with: [network, tls, ...]`: how a backend is reached, how it is trusted, and as whom. A field of the same
 * name in the YAML wins, so that a type can require one or say more about it. Their names are what the transports read.
 * Runs in agentd and in the exporter. */

#include "agentd/base/clock.h"
#include "destinations/catalogue_private.h"
#include "destinations/destination.h"

#define OPTION(n, t, h)                                                                            \
	{                                                                                          \
		.name = n, .type = t, .help = h                                                    \
	}
#define OPTION_DEFAULT(n, t, f, h)                                                                 \
	{                                                                                          \
		.name = n, .type = t, .fallback = f, .help = h                                     \
	}

/* ---- groups ---------------------------------------------------------------------------------------- */

static const char *const drain_orders[] = {"newest", "oldest", NULL};

static const struct option_desc network[] = {
	{.name = "timeout",
		.type = OPTION_DURATION,
		.fallback = "10s",
		.min = 100 * NSEC_PER_MSEC,
		.max = 300 * NSEC_PER_SEC,
		.help = "a request without a whole answer for so long has failed"},
	{.name = "drain",
		.type = OPTION_ENUM,
		.values = drain_orders,
		.fallback = "newest",
		.help = "which of what waited through an outage is sent first"},
	OPTION_DEFAULT("drain-rate", OPTION_SIZE, "1MiB",
		"bytes a second at most while what waited through an outage is sent; 0: all at once"),
	OPTION("proxy", OPTION_URL, "HTTP proxy to go through, such as http://proxy:3128"),
	OPTION("proxy-user", OPTION_STRING, "user name for the proxy"),
	OPTION("proxy-password", OPTION_SECRET, "its password"),
	OPTION("no-proxy", OPTION_STRING,
		"hosts that are reached without the proxy, with commas between; .example.com means all of it"),
	{},
};

static const struct option_desc tls[] = {
	OPTION("ca", OPTION_FILE,
		"authorities to trust instead of this host's (PEM); read again when it changes"),
	OPTION("cert", OPTION_FILE, "our certificate (PEM), where the backend asks for one"),
	OPTION("key", OPTION_FILE, "the private key of cert (PEM, without a passphrase)"),
	OPTION("server-name", OPTION_STRING,
		"the name that the backend's certificate has, where it is not the host's"),
	OPTION_DEFAULT("insecure-skip-verify", OPTION_BOOL, "no",
		"take any certificate: whoever is in between can read and change all that is sent"),
	{},
};

static const struct option_desc insecure[] = {
	OPTION_DEFAULT("insecure", OPTION_BOOL, "no",
		"speak without TLS to HOST:PORT; in a URL http:// says the same"),
	{},
};

static const struct option_desc basic[] = {
	OPTION("basic-user", OPTION_STRING, "user name (HTTP basic authentication)"),
	OPTION("basic-password", OPTION_SECRET, "its password or token"),
	{},
};

static const struct option_desc bearer[] = {
	OPTION("bearer-token", OPTION_SECRET, "token that goes with each request"),
	{},
};

static const struct option_desc headers[] = {
	OPTION("headers", OPTION_MAP, "further headers that are no secrets, such as X-Team=shop"),
	OPTION("secret-headers", OPTION_SECRET_MAP,
		"further headers whose values are secrets, such as X-API-Key"),
	{},
};

const struct destination_group destination_groups[] = {
	{"network", network},
	{"insecure", insecure},
	{"tls", tls},
	{"basic", basic},
	{"bearer", bearer},
	{"headers", headers},
	{},
};
