/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl metrics`: agentd's own metrics as OpenMetrics text, for a scraper that can run a command, a node exporter's
 * text file, or a look. What is printed is agentd's text as it is: --json wraps it. */

#include "odictl/cli.h"

int cmd_metrics(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetMetrics get = CONTROL__GET_METRICS__INIT;
	Control__Reply *reply = NULL;
	struct json j;
	int r;

	request.verb_case = CONTROL__REQUEST__VERB_GET_METRICS;
	request.get_metrics = &get;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_open(&j, "openmetrics", '[');
		for (size_t i = 0; i < reply->metrics->n_lines; i++)
			json_str(&j, NULL, reply->metrics->lines[i]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		for (size_t i = 0; i < reply->metrics->n_lines; i++)
			puts(reply->metrics->lines[i]);
	}
	api_reply_free(reply);
	return r;
}
