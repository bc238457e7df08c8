/* SPDX-License-Identifier: Apache-2.0 */

/* policy: what the administrator of this host allows, whoever asks. It is a file and changed there, so that it can only
 * be shown here. */

#include "odictl/cli.h"
#include "odictl/named.h"

static void print_json(const Control__Policy *p, struct json *j)
{
	json_init(j);
	json_open(j, NULL, '{');
	json_str(j, "file", p->file);
	json_bool(j, "found", p->found);
	json_str(j, "problem", p->problem);
	json_bool(j, "any_host", !p->hosts_bound);
	named_json_strings(j, "hosts", p->hosts, p->n_hosts);
	json_bool(j, "require_tls_verification", p->require_verify);
	named_json_strings(j, "folders", p->folders, p->n_folders);
	json_open(j, "forbidden", '[');
	for (size_t i = 0; i < p->n_forbidden; i++) {
		json_open(j, NULL, '{');
		json_str(j, "destination", p->forbidden[i]->key);
		json_str(j, "why", p->forbidden[i]->value);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_close(j, '}');
}

static void print_list(const char *head, char **list, size_t n, const char *none, const char *note)
{
	if (!n)
		out_line(head, 10, "%s", none);
	for (size_t i = 0; i < n; i++)
		out_line(i ? "" : head, 10, "%s%s", list[i], note);
}

static void print_policy(struct cli *cli, const Control__Policy *p)
{
	out_line("file", 10, "%s%s", p->file,
		p->found || *p->problem ? "" : " (there is none: all of this is the default)");
	if (*p->problem)
		out_line("problem", 10, "%sit is refused, so nothing is sent%s: %s", out_red(cli),
			out_plain(cli), p->problem);
	print_list("hosts", p->hosts, p->n_hosts, p->hosts_bound ? "none" : "any", "");
	out_line("TLS", 10, "%s",
		p->require_verify ? "has to be verified; without TLS only to this host itself"
				  : "need not be verified, nor used");
	print_list("folders", p->folders, p->n_folders, "none: no destination may write files",
		p->folders_default ? " (the default)" : "");
	for (size_t i = 0; i < p->n_forbidden; i++)
		out_line(i ? "" : "forbids", 10, "%s: %s", p->forbidden[i]->key,
			p->forbidden[i]->value);
}

int cmd_policy_show(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetPolicy get = CONTROL__GET_POLICY__INIT;
	Control__Reply *reply = NULL;
	struct json j;
	int r;

	request.verb_case = CONTROL__REQUEST__VERB_GET_POLICY;
	request.get_policy = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	if (cli->json) {
		print_json(reply->policy, &j);
		r = json_print(&j, stdout);
	} else {
		print_policy(cli, reply->policy);
	}
	api_reply_free(reply);
	return r;
}
