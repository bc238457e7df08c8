/* SPDX-License-Identifier: Apache-2.0 */

/* libcurl, loaded by the one role that uses it.
 *
 * It brings some thirty libraries along (TLS twice, Kerberos, LDAP), and each process that maps them writes
 * to a megabyte of them when they are relocated. All roles are one binary, so linked to it they would
 * cost every role that. Here each function of libcurl that we call has a body of the same name, which
 * calls the real one; curl_global_init() loads the library, before the exporter enters its sandbox.
 * Callers see libcurl's own header and nothing of this. What is called before that, or where the library is
 * missing, fails as libcurl itself does.
 *
 * Another function is one more row in the list and its body. Those with variable arguments take one, a long, a
 * pointer or a curl_off_t: all are of one size and passed in one way where long has 64 bits.
 *
 * Source: libcurl(3), dlopen(3). Runs in the exporter. */

#include <dlfcn.h>
#include <stdarg.h>

#include "agentd/base/log.h"

/* Ours are nobody's else: not what the library itself finds when it calls one of its own. */
#pragma GCC visibility push(hidden)
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#pragma GCC visibility pop

#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

_Static_assert(sizeof(long) == sizeof(void *) && sizeof(curl_off_t) == sizeof(void *),
	"one argument passes for another");

#define FUNCTIONS(X)                                                                               \
	X(easy_cleanup)                                                                            \
	X(easy_getinfo)                                                                            \
	X(easy_init)                                                                               \
	X(easy_setopt)                                                                             \
	X(easy_strerror)                                                                           \
	X(free)                                                                                    \
	X(global_cleanup)                                                                          \
	X(global_init)                                                                             \
	X(multi_add_handle)                                                                        \
	X(multi_cleanup)                                                                           \
	X(multi_info_read)                                                                         \
	X(multi_init)                                                                              \
	X(multi_perform)                                                                           \
	X(multi_poll)                                                                              \
	X(multi_remove_handle)                                                                     \
	X(multi_setopt)                                                                            \
	X(slist_append)                                                                            \
	X(slist_free_all)                                                                          \
	X(url)                                                                                     \
	X(url_cleanup)                                                                             \
	X(url_get)                                                                                 \
	X(url_set)

#define MEMBER(name) __typeof__(curl_##name) *name;
static struct {
	void *library; /* never unloaded: its threads may still run */
	FUNCTIONS(MEMBER)
} real;

/* ABI 4 since 2006. The second is Debian's name for it with GnuTLS. */
static const char *const sonames[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};

static bool load_one(const char *soname)
{
	void *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

	if (!library)
		return false;
#define LOAD(function)                                                                             \
	*(void **)&real.function = dlsym(library, "curl_" #function);                              \
	if (!real.function)                                                                        \
		return false;
	FUNCTIONS(LOAD)
	real.library = library;
	return true;
}

static bool load(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(sonames) && !real.library; i++) {
		const char *why;

		if (load_one(sonames[i]))
			break;
		why = dlerror();
		log_warning("%s", why ? why : "libcurl cannot be loaded");
	}
	return real.library;
}

CURLcode curl_global_init(long flags)
{
	return load() ? real.global_init(flags) : CURLE_FAILED_INIT;
}

void curl_global_cleanup(void)
{
	if (real.library)
		real.global_cleanup();
}

/* ---- one transfer -------------------------------------------------------------------------------- */

CURL *curl_easy_init(void)
{
	return real.library ? real.easy_init() : NULL;
}

void curl_easy_cleanup(CURL *easy)
{
	if (real.library)
		real.easy_cleanup(easy);
}

CURLcode curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
	va_list list;
	void *value;

	va_start(list, option);
	value = va_arg(list, void *);
	va_end(list);
	return real.library ? real.easy_setopt(easy, option, value) : CURLE_FAILED_INIT;
}

CURLcode curl_easy_getinfo(CURL *easy, CURLINFO info, ...)
{
	va_list list;
	void *value;

	va_start(list, info);
	value = va_arg(list, void *);
	va_end(list);
	return real.library ? real.easy_getinfo(easy, info, value) : CURLE_FAILED_INIT;
}

const char *curl_easy_strerror(CURLcode code)
{
	return real.library ? real.easy_strerror(code) : "libcurl is not loaded";
}

void curl_free(void *p)
{
	if (real.library)
		real.free(p);
}

struct curl_slist *curl_slist_append(struct curl_slist *list, const char *text)
{
	return real.library ? real.slist_append(list, text) : NULL;
}

void curl_slist_free_all(struct curl_slist *list)
{
	if (real.library)
		real.slist_free_all(list);
}

/* ---- URLs ---------------------------------------------------------------------------------------- */

CURLU *curl_url(void)
{
	return real.library ? real.url() : NULL;
}

void curl_url_cleanup(CURLU *url)
{
	if (real.library)
		real.url_cleanup(url);
}

/* The URL is const in newer headers alone, so that the body has a name of its own here. */
CURLUcode url_get(const CURLU *url, CURLUPart part, char **ret, unsigned flags) __asm__(
	"curl_url_get");

CURLUcode url_get(const CURLU *url, CURLUPart part, char **ret, unsigned flags)
{
	return real.library ? real.url_get((CURLU *)url, part, ret, flags) : CURLUE_OUT_OF_MEMORY;
}

CURLUcode curl_url_set(CURLU *url, CURLUPart part, const char *text, unsigned flags)
{
	return real.library ? real.url_set(url, part, text, flags) : CURLUE_OUT_OF_MEMORY;
}

/* ---- all transfers ------------------------------------------------------------------------------- */

CURLM *curl_multi_init(void)
{
	return real.library ? real.multi_init() : NULL;
}

CURLMcode curl_multi_cleanup(CURLM *multi)
{
	return real.library ? real.multi_cleanup(multi) : CURLM_INTERNAL_ERROR;
}

CURLMcode curl_multi_setopt(CURLM *multi, CURLMoption option, ...)
{
	va_list list;
	void *value;

	va_start(list, option);
	value = va_arg(list, void *);
	va_end(list);
	return real.library ? real.multi_setopt(multi, option, value) : CURLM_INTERNAL_ERROR;
}

CURLMcode curl_multi_add_handle(CURLM *multi, CURL *easy)
{
	return real.library ? real.multi_add_handle(multi, easy) : CURLM_INTERNAL_ERROR;
}

CURLMcode curl_multi_remove_handle(CURLM *multi, CURL *easy)
{
	return real.library ? real.multi_remove_handle(multi, easy) : CURLM_INTERNAL_ERROR;
}

CURLMcode curl_multi_perform(CURLM *multi, int *running)
{
	return real.library ? real.multi_perform(multi, running) : CURLM_INTERNAL_ERROR;
}

CURLMcode curl_multi_poll(
	CURLM *multi, struct curl_waitfd extra[], unsigned n, int timeout_ms, int *ready)
{
	return real.library ? real.multi_poll(multi, extra, n, timeout_ms, ready)
			    : CURLM_INTERNAL_ERROR;
}

CURLMsg *curl_multi_info_read(CURLM *multi, int *left)
{
	return real.library ? real.multi_info_read(multi, left) : NULL;
}
