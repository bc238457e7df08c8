/* SPDX-License-Identifier: Apache-2.0 */

/* State files in the shapes that the runtimes write, and in shapes that nobody should write. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "agentd/base/buf.h"
#include "agentd/container/private.h"

#define ID "4f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8"

static int parse(const char *text, struct container_facts *f)
{
	memset(f, 0xaa, sizeof(*f));
	return container_parse("", ID, text, strlen(text), f);
}

static const char *k8s(const struct container_facts *f, const char *key)
{
	for (size_t i = 0; i < f->n_k8s; i++)
		if (streq(f->k8s[i].key, key))
			return f->k8s[i].value;
	return "";
}

static void docker(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("{\"StreamConfig\":{},\"State\":{\"Running\":true,\"Pid\":4242,\"ExitCode\":0,"
		      "\"Error\":\"\",\"StartedAt\":\"2026-01-02T03:04:05.678Z\",\"Health\":null},\"ID\":\"" ID
		      "\",\"Created\":\"2026-01-02T03:04:05Z\",\"Path\":\"/docker-entrypoint.sh\",\"Args\":"
		      "[\"nginx\",\"-g\",\"daemon off;\"],\"Config\":{\"Hostname\":\"4f1a2b3c4d5e\",\"Env\":["
		      "\"PATH=/usr/bin\"],\"Image\":\"nginx:1.25\",\"Labels\":{\"maintainer\":\"x\"}},"
		      "\"Image\":\"sha256:00\",\"Name\":\"/web\",\"Driver\":\"overlay2\"}",
			&f),
		0);
	assert_string_equal(f.name, "web");
	assert_string_equal(f.image, "nginx:1.25");
	assert_int_equal(f.n_k8s, 0);
}

static void docker_under_kubernetes(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("{\"ID\":\"" ID
		      "\",\"Name\":\"/k8s_cart_cart-7f9c_shop_8f14e45f-ceea-467a-9575-2a1f3bd9c1d2_0\","
		      "\"Config\":{\"Image\":\"shop/cart@sha256:12\",\"Labels\":{"
		      "\"io.kubernetes.container.name\":\"cart\",\"io.kubernetes.pod.name\":\"cart-7f9c\","
		      "\"io.kubernetes.pod.namespace\":\"shop\","
		      "\"io.kubernetes.pod.uid\":\"8f14e45f-ceea-467a-9575-2a1f3bd9c1d2\"}}}",
			&f),
		0);
	assert_string_equal(k8s(&f, "k8s.pod.name"), "cart-7f9c");
	assert_string_equal(k8s(&f, "k8s.namespace.name"), "shop");
	assert_string_equal(k8s(&f, "k8s.container.name"), "cart");
	assert_string_equal(k8s(&f, "k8s.pod.uid"), "8f14e45f-ceea-467a-9575-2a1f3bd9c1d2");
	assert_int_equal(f.n_k8s, 4);
}

static void docker_of_another_container(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("{\"ID\":\"5f1a2b3c4d5e\",\"Name\":\"/web\",\"Config\":{}}", &f), -ENOENT);
	assert_int_equal(parse("{\"ID\":\"\",\"Name\":\"/web\",\"Config\":{}}", &f), -ENOENT);
}

static void containerd(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("{\"ociVersion\":\"1.0.2-dev\",\"process\":{\"args\":[\"/cart\"],\"env\":[\"A=b\"]},"
		      "\"root\":{\"path\":\"rootfs\"},\"mounts\":[],\"annotations\":{"
		      "\"io.kubernetes.cri.container-name\":\"cart\","
		      "\"io.kubernetes.cri.container-type\":\"container\","
		      "\"io.kubernetes.cri.image-name\":\"registry.example/shop/cart:2.1\","
		      "\"io.kubernetes.cri.sandbox-id\":\"aa\",\"io.kubernetes.cri.sandbox-name\":\"cart-7f9c\","
		      "\"io.kubernetes.cri.sandbox-namespace\":\"shop\","
		      "\"io.kubernetes.cri.sandbox-uid\":\"8f14e45f\"},\"linux\":{\"cgroupsPath\":\"x\"}}",
			&f),
		0);
	assert_string_equal(f.name, "cart");
	assert_string_equal(f.image, "registry.example/shop/cart:2.1");
	assert_string_equal(k8s(&f, "k8s.pod.name"), "cart-7f9c");
	assert_string_equal(k8s(&f, "k8s.namespace.name"), "shop");
	assert_string_equal(k8s(&f, "k8s.container.name"), "cart");
	assert_string_equal(k8s(&f, "k8s.pod.uid"), "8f14e45f");
}

static void nerdctl(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("{\"ociVersion\":\"1.1.0\",\"annotations\":{\"nerdctl/name\":\"web\","
		      "\"nerdctl/namespace\":\"default\"}}",
			&f),
		0);
	assert_string_equal(f.name, "web");
}

static void crio(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("{\"ociVersion\":\"1.0.2-dev\",\"annotations\":{"
		      "\"io.kubernetes.cri-o.ContainerID\":\"" ID "\","
		      "\"io.kubernetes.cri-o.ContainerName\":\"k8s_cart_cart-7f9c_shop_8f14e45f_0\","
		      "\"io.kubernetes.cri-o.ImageName\":\"quay.example/shop/cart:2.1\","
		      "\"io.kubernetes.cri-o.Metadata\":\"{\\\"name\\\":\\\"cart\\\"}\","
		      "\"io.kubernetes.container.name\":\"cart\",\"io.kubernetes.pod.name\":\"cart-7f9c\","
		      "\"io.kubernetes.pod.namespace\":\"shop\",\"io.kubernetes.pod.uid\":\"8f14e45f\"}}",
			&f),
		0);
	assert_string_equal(f.name, "cart");
	assert_string_equal(f.image, "quay.example/shop/cart:2.1");
	assert_string_equal(k8s(&f, "k8s.container.name"), "cart");
	assert_int_equal(f.n_k8s, 4);
	/* Another container's annotations. */
	assert_int_equal(
		parse("{\"ociVersion\":\"1.0.2\",\"annotations\":{"
		      "\"io.kubernetes.cri-o.ContainerID\":\"5f1a2b3c4d5e\",\"nerdctl/name\":\"x\"}}",
			&f),
		-ENOENT);
}

static void storage(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("[{\"id\":\"0000000000000000\",\"names\":[\"other\"]},"
		      "{\"id\":\"" ID
		      "\",\"names\":[\"web\"],\"image\":\"00ff\",\"layer\":\"11\",\"metadata\":"
		      "\"{\\\"image-name\\\":\\\"docker.io/library/nginx:latest\\\",\\\"name\\\":\\\"web\\\","
		      "\\\"created-at\\\":1700000000}\",\"created\":\"2026-01-02T03:04:05Z\"}]",
			&f),
		0);
	assert_string_equal(f.name, "web");
	assert_string_equal(f.image, "docker.io/library/nginx:latest");
	assert_int_equal(f.n_k8s, 0);
}

static void storage_of_crio(void **state)
{
	struct container_facts f;

	assert_int_equal(
		parse("[{\"id\":\"" ID
		      "\",\"names\":[\"k8s_cart_cart-7f9c_shop_8f14e45f_0\"],\"metadata\":"
		      "\"{\\\"pod-name\\\":\\\"k8s_cart-7f9c_shop_8f14e45f_0\\\",\\\"pod-id\\\":\\\"aa\\\","
		      "\\\"image-name\\\":\\\"quay.example/cart:2\\\",\\\"container-name\\\":\\\"k8s_cart\\\","
		      "\\\"metadata-name\\\":\\\"cart\\\",\\\"uid\\\":\\\"8f14e45f\\\",\\\"namespace\\\":\\\"shop\\\"}\"}]",
			&f),
		0);
	assert_string_equal(f.name, "cart");
	assert_string_equal(f.image, "quay.example/cart:2");
	assert_string_equal(k8s(&f, "k8s.container.name"), "cart");
	assert_string_equal(k8s(&f, "k8s.namespace.name"), "shop");
}

/* A container may be asked for by the start of its id, never matched by none of it. */
static void ids(void **state)
{
	static const char *const text = "[{\"id\":\"" ID "\",\"names\":[\"web\"]}]";
	struct container_facts f;

	assert_int_equal(container_parse("podman", "4f1a2b3c4d5e", text, strlen(text), &f), 0);
	assert_int_equal(container_parse("podman", "", text, strlen(text), &f), -ENOENT);
	assert_int_equal(
		container_parse("podman", "../../../etc", text, strlen(text), &f), -ENOENT);
	assert_true(container_is_id(ID));
	assert_false(container_is_id("4F1A2B3C4D5E"));
	assert_false(container_is_id("4f1a2b3c4d5"));
	assert_false(container_is_id(ID "0"));
}

static void says_nothing(void **state)
{
	struct container_facts f;

	assert_int_equal(parse("{\"ociVersion\":\"1.0.2\"}", &f), -ENOENT);
	assert_int_equal(parse("{\"ociVersion\":\"1.0.2\",\"annotations\":{}}", &f), -ENOENT);
	assert_int_equal(parse("{\"ID\":\"" ID "\",\"Config\":{}}", &f), -ENOENT);
	assert_int_equal(parse("[]", &f), -ENOENT);
	assert_int_equal(parse("[{\"id\":\"" ID "\"}]", &f), -ENOENT);
}

static void not_what_it_should_be(void **state)
{
	static const char *const texts[] = {"", " ", "{", "[", "[{",
		"{\"ID\":\"" ID "\",\"Config\":{}", "nonsense", "null", "true", "12", "\"text\"",
		"{}", "{\"a\":1}", "{\"Config\":{}}", "{\"ociVersion\":1,}",
		"{\"ociVersion\":\"1\"} trailing", "[] []", "{'ociVersion':'1'}", "\xff\xfe",
		"{\"a\":\"\xc3\x28\"}"};
	struct container_facts f;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (parse(texts[i], &f) != -EBADMSG)
			fail_msg("\"%s\" gave another answer", texts[i]);
}

static void wrong_types(void **state)
{
	static const char *const texts[] = {
		"{\"ID\":7,\"Name\":[],\"Config\":7}",
		"{\"ID\":\"" ID
		"\",\"Name\":{\"a\":1},\"Config\":{\"Image\":[1],\"Labels\":[\"x\"]}}",
		"{\"ID\":\"" ID "\",\"Name\":null,\"Config\":[]}",
		"{\"ociVersion\":\"1\",\"annotations\":\"x\"}",
		"{\"ociVersion\":\"1\",\"annotations\":{\"nerdctl/name\":7,\"io.kubernetes.pod.name\":{}}}",
		"[null,1,\"x\",[],{},{\"id\":1},{\"id\":\"" ID "\",\"names\":7,\"metadata\":7}]",
		"[{\"id\":\"" ID "\",\"names\":[],\"metadata\":\"not json\"}]",
		"[{\"id\":\"" ID "\",\"names\":[{}],\"metadata\":\"[[[[\"}]",
		"[{\"id\":\"" ID "\",\"names\":[null],\"metadata\":\"{\\\"image-name\\\":1}\"}]",
	};
	struct container_facts f;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (parse(texts[i], &f) != -ENOENT)
			fail_msg("\"%s\" gave another answer", texts[i]);
}

/* A name that is not clean is none; what else is said stays. */
static void texts_are_clean(void **state)
{
	static const char *const names[] = {"a\\nb", "a\\u0000b", "\\u001b[31mred", "\\u0085"};
	char text[600], longer[300];
	struct container_facts f;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(text, sizeof(text),
			"{\"ID\":\"" ID "\",\"Name\":\"/%s\",\"Config\":{\"Image\":\"img\"}}",
			names[i]);
		assert_int_equal(parse(text, &f), 0);
		assert_string_equal(f.name, "");
		assert_string_equal(f.image, "img");
	}
	memset(longer, 'x', 256);
	longer[256] = 0;
	snprintf(text, sizeof(text),
		"{\"ID\":\"" ID "\",\"Name\":\"%s\",\"Config\":{\"Image\":\"img\"}}", longer);
	assert_int_equal(parse(text, &f), 0);
	assert_string_equal(f.name, "");
	longer[255] = 0;
	snprintf(text, sizeof(text), "{\"ID\":\"" ID "\",\"Name\":\"%s\",\"Config\":{}}", longer);
	assert_int_equal(parse(text, &f), 0);
	assert_string_equal(f.name, longer);
}

static void hostile(void **state)
{
	_cleanup_buf_ struct buf b;
	struct container_facts f;

	buf_init(&b, 0);
	/* Deep: stopped long before the stack is. */
	for (int i = 0; i < 100000; i++)
		buf_str(&b, i % 2 ? "{\"a\":" : "[");
	assert_int_equal(container_parse("", ID, b.data, b.len, &f), -EBADMSG);
	/* A string as large as a file may be. */
	buf_reset(&b);
	buf_str(&b, "{\"ID\":\"" ID "\",\"Config\":{\"Image\":\"img\"},\"Name\":\"");
	while (b.len < CONTAINER_FILE_MAX - 2)
		buf_str(&b, "x");
	buf_str(&b, "\"}");
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(b.len, CONTAINER_FILE_MAX);
	assert_int_equal(container_parse("", ID, b.data, b.len, &f), 0);
	assert_string_equal(f.name, "");
	/* One byte more. */
	buf_str(&b, " ");
	assert_int_equal(container_parse("", ID, b.data, b.len, &f), -EBADMSG);
	/* The same key over and over, and more facts than there is room for. */
	buf_reset(&b);
	buf_str(&b, "{\"ociVersion\":\"1\",\"annotations\":{");
	for (int i = 0; i < 20000; i++)
		buf_printf(&b, "\"io.kubernetes.pod.name\":\"p%d\",\"x%d\":\"y\",", i, i);
	buf_str(&b, "\"z\":\"\"}}");
	assert_int_equal(container_parse("", ID, b.data, b.len, &f), 0);
	assert_int_equal(f.n_k8s, 1);
}

/* Every cut of a real file is refused and none is read past its end (the sanitizer looks). */
static void every_cut(void **state)
{
	static const char text[] =
		"{\"ID\":\"" ID
		"\",\"Name\":\"/web\",\"Config\":{\"Image\":\"n\\u00e9\",\"Labels\":{}}}";
	struct container_facts f;

	for (size_t len = 0; len < sizeof(text) - 1; len++) {
		char *copy = malloc(len + 1);

		assert_non_null(copy);
		memcpy(copy, text, len);
		copy = realloc(copy, len ? len : 1);
		assert_int_equal(container_parse("docker", ID, copy, len, &f), -EBADMSG);
		free(copy);
	}
	assert_int_equal(container_parse("docker", ID, text, sizeof(text) - 1, &f), 0);
}

static int docker_root_of(const char *text, char *ret)
{
	return container_parse_docker_root(text, strlen(text), ret, CONTAINER_PATH_MAX);
}

static void docker_root(void **state)
{
	char path[CONTAINER_PATH_MAX] = "";

	assert_int_equal(
		docker_root_of("{\"debug\":true,\"data-root\":\"/data/docker\"}", path), 0);
	assert_string_equal(path, "/data/docker");
	assert_int_equal(docker_root_of("{\"graph\":\"/old\"}", path), 0);
	assert_string_equal(path, "/old");
	assert_int_equal(docker_root_of("{}", path), -ENOENT);
	assert_int_equal(docker_root_of("[]", path), -EBADMSG);
	assert_int_equal(docker_root_of("{\"data-root\":\"relative\"}", path), -EBADMSG);
	assert_int_equal(docker_root_of("{\"data-root\":\"/a/../../etc\"}", path), -EBADMSG);
	assert_int_equal(docker_root_of("{\"data-root\":\"/a/..\"}", path), -EBADMSG);
	assert_int_equal(docker_root_of("{\"data-root\":\"/a\\nb\"}", path), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(docker),
		cmocka_unit_test(docker_under_kubernetes),
		cmocka_unit_test(docker_of_another_container),
		cmocka_unit_test(containerd),
		cmocka_unit_test(nerdctl),
		cmocka_unit_test(crio),
		cmocka_unit_test(storage),
		cmocka_unit_test(storage_of_crio),
		cmocka_unit_test(ids),
		cmocka_unit_test(says_nothing),
		cmocka_unit_test(not_what_it_should_be),
		cmocka_unit_test(wrong_types),
		cmocka_unit_test(texts_are_clean),
		cmocka_unit_test(hostile),
		cmocka_unit_test(every_cut),
		cmocka_unit_test(docker_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
