/* SPDX-License-Identifier: Apache-2.0 */

/* The daemon: makes every object once, in the order in which they need each other, runs the loop, and
 * takes everything down in the opposite order.
 *
 * At a stop the last interval is named and handed over like any other. That takes the loop, since
 * names come from a child: so nobody here ends the loop (sd_event_exit() would, for good), and the stop
 * is a flag that is looked at between its rounds. Whoever asked something over the socket is let go
 * first, so that no handler sees a daemon that is half gone. */

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include "agentd/api/api.h"
#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/privilege.h"
#include "agentd/daemon.h"
#include "agentd/daemon_disknames.h"
#include "agentd/daemon_debugfiles.h"
#include "agentd/daemon_fetch.h"
#include "agentd/daemon_files.h"
#include "agentd/daemon_handover.h"
#include "agentd/daemon_metrics.h"
#include "agentd/daemon_host.h"
#include "agentd/daemon_spool.h"

#define STATE_DIR_DEFAULT    "/var/lib/odi"
#define CONFIG_DIR_DEFAULT   "/etc/odi"
#define PACKAGED_DIR_DEFAULT "/usr/lib/odi/conf.d"
#define STOP_NAMES_NS        (3 * NSEC_PER_SEC)
#define STOP_FLUSH_MS        3000

/* ---- signals ---- */

static int on_stop_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	struct daemon *d = userdata;

	log_info("asked to stop by signal %u", si->ssi_signo);
	sd_notify(0, "STOPPING=1");
	/* Not sd_event_exit(): naming and handing over the last interval still need the loop. */
	d->quit = true;
	return 0;
}

static int on_reload_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	struct daemon *d = userdata;

	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
		(unsigned long long)(clock_monotonic_ns() / 1000));
	daemon_handover_reload(d);
	daemon_files_reload(d, true);
	daemon_hand_over(d, d->in_force);
	sd_notify(0, "READY=1");
	return 0;
}

static int watch_signals(struct daemon *d)
{
	sigset_t set;
	int r;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	r = sd_event_add_signal(d->loop, NULL, SIGTERM, on_stop_signal, d);
	if (r >= 0)
		r = sd_event_add_signal(d->loop, NULL, SIGINT, on_stop_signal, d);
	if (r >= 0)
		r = sd_event_add_signal(d->loop, NULL, SIGHUP, on_reload_signal, d);
	return r;
}

/* ---- start and stop ---- */

static int open_state(struct daemon *d, struct err_text *err)
{
	_cleanup_free_ char *path = NULL;
	int r = io_mkdir_p(d->state_dir, 0700, err);

	if (r < 0)
		return r;
	if (asprintf(&path, "%s/odi.db", d->state_dir) < 0)
		return -ENOMEM;
	r = store_open(&d->store, path, err);
	if (r < 0)
		return r;
	r = daemon_handover_open(d, err);
	if (r < 0)
		return r;
	r = config_manager_new(&d->config, d->store, &d->places, &daemon_config_hooks, d, err);
	if (r < 0)
		return r;
	d->in_force = config_current(d->config);
	/* Serials are saved ahead in steps: after a crash some are skipped, none is used twice. */
	if (store_state_get(d->store, "batch/serial", &d->batch_serial) < 0)
		d->batch_serial = 0;
	d->batch_serial_saved = d->batch_serial;
	return 0;
}

/* Ids of stacks that the kernel can tell of, and those of samples that still wait. */
static size_t max_counted(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_CONF);

	return 2 * (size_t)MAX(cpus, 1L) * COUNT_SETS * COUNT_WAYS + 16384;
}

static int make_rooms(struct daemon *d, struct err_text *err)
{
	_cleanup_free_ char *dir = NULL;
	struct local_config lc = daemon_local_config(d->in_force);
	int r = process_table_new(
		&d->processes, d->loop, &(struct process_config){}, &daemon_process_ops, d, err);

	daemon_disknames_open(d);
	if (r >= 0)
		r = symbol_new(&d->symbols, d->loop, &(struct symbol_config){}, &daemon_symbol_ops,
			d, err);
	if (r >= 0)
		r = daemon_unwinding_new(d, err);
	if (r >= 0)
		r = daemon_cost_new(d, err);
	if (r < 0)
		return r;
	if (counts_new(&d->counts, max_counted()) < 0 || figures_new(&d->figures) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	if (asprintf(&dir, "%s/profiles", d->state_dir) < 0)
		return -ENOMEM;
	r = local_new(&d->local, d->loop, dir, &lc, err);
	if (r >= 0)
		r = daemon_link_new(d, err);
	if (r >= 0)
		r = daemon_scrape_new(d, err);
	if (r >= 0)
		r = daemon_fetch_new(d, err);
	if (r < 0)
		return r;
	r = daemon_interval_open(d);
	if (r < 0)
		return err_set(err, r, "out of memory");
	return 0;
}

/* The control socket that a service manager listens on (odi.socket); -1: there is none, agentd makes it itself. */
static int inherited_socket(void)
{
	char **names = NULL;
	int fd = -1, n = sd_listen_fds_with_names(1, &names);

	for (int i = 0; i < n; i++) {
		if (fd < 0 && (streq(names[i], "control") || n == 1))
			fd = SD_LISTEN_FDS_START + i;
		else
			close(SD_LISTEN_FDS_START + i);
		free(names[i]);
	}
	free(names);
	return fd;
}

static int start(struct daemon *d, struct err_text *err)
{
	int r = sd_event_default(&d->loop);

	if (r < 0)
		return err_set(err, r, "cannot make an event loop: %s", strerror(-r));
	r = watch_signals(d);
	if (r < 0)
		return err_set(err, r, "cannot watch signals: %s", strerror(-r));
	r = open_state(d, err);
	if (r < 0)
		return r;
	r = daemon_host_facts(d, err);
	if (r >= 0)
		r = make_rooms(d, err);
	if (r < 0)
		return r;
	daemon_verbs_init(d);
	r = control_server_new(
		&d->control, d->loop, d->socket_path, inherited_socket(), &d->control_ops, d, err);
	if (r < 0)
		return r;

	daemon_begin(d);
	r = daemon_handover_begin(d);
	if (r >= 0)
		r = daemon_files_new(d, err);
	if (r < 0)
		return r;
	sd_event_set_watchdog(d->loop, true);
	log_info("agentd " ODI_VERSION " listens on %s; profiling is %s", d->socket_path,
		d->sampler ? "on" : "off");
	sd_notifyf(0, "READY=1\nSTATUS=%s",
		d->sampler ? "profiling" : "profiling is off: odictl profiling enable --all");
	return 0;
}

static void stop(struct daemon *d)
{
	d->control = control_server_free(d->control);
	if (d->sampler)
		daemon_disable(d);
	if (d->symbols && d->link) {
		daemon_finish_pending(d, clock_monotonic_ns() + STOP_NAMES_NS);
		link_flush(d->link, STOP_FLUSH_MS);
	}
	if (d->processes)
		daemon_forget_assignments(d);
	/* The open interval is empty, or start() failed; it holds files of the process table. */
	daemon_interval_free(TAKE_PTR(d->open));
	daemon_fetch_free(d);
	figures_free(d->figures);
	d->symbols = symbol_free(d->symbols);
	daemon_debugfiles_free(d);
	daemon_disknames_close(d);
	d->processes = process_table_free(d->processes);
	daemon_unwinding_free(d);
	daemon_cost_free(d);
	d->counts = counts_free(d->counts);
	d->link = link_free(d->link);
	daemon_scrape_free(d);
	d->local = local_free(d->local);
	daemon_files_free(d);
	d->in_force = NULL;
	d->config = config_manager_free(d->config);
	d->store = store_close(d->store);
	daemon_handover_close(d);
	d->interval_timer = sd_event_source_disable_unref(d->interval_timer);
	d->drain_soon = sd_event_source_disable_unref(d->drain_soon);
	d->close_soon = sd_event_source_disable_unref(d->close_soon);
	daemon_host_free(d);
	d->loop = sd_event_unref(d->loop);
}

static void usage(FILE *f)
{
	fputs("usage: agentd [--socket PATH] [--state-dir DIR] [--config-dir DIR] [--log-level L]\n"
	      "\n"
	      "The profiler's daemon. It does nothing until told to: odictl profiling enable --all\n"
	      "\n"
	      "  --socket PATH      control socket (default " API_DEFAULT_SOCKET ")\n"
	      "  --state-dir DIR    database and local profiles (default " STATE_DIR_DEFAULT ")\n"
	      "  --config-dir DIR   agentd.yaml, conf.d, sources.d, destinations.d, read again when they\n"
	      "                     change, and on SIGHUP (default " CONFIG_DIR_DEFAULT ")\n"
	      "  --config FILE      in place of agentd.yaml in that folder\n"
	      "  --packaged-dir DIR YAML files of packages, which the others are put over\n"
	      "                     (default " PACKAGED_DIR_DEFAULT ")\n"
	      "  --config-keys      what may be set: path, of which kind or type, type, default, allowed\n"
	      "                     values, whether it is required, and its meaning, between tabs\n"
	      "  --policy FILE      what may be sent where, whoever asks (default policy.yaml in --config-dir)\n"
	      "  --types-dir DIR    further types of destinations (default destinations.d/types there)\n"
	      "  --accept-unknown-kernel\n"
	      "                     sample on a vendor's kernel whose fixes cannot be told by its name\n"
	      "  --exporter-socket PATH\n"
	      "                     the exporter is a unit of its own and listens there; else agentd starts one\n"
	      "  --log-level L      error, warning, info or debug (default info)\n"
	      "  --version, --help\n",
		f);
}

/* For programs that make pages of them: a line a key, fields between tabs. */
static void print_key(void *userdata, const struct config_key *key)
{
	fprintf(userdata, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key->path, key->of, key->type,
		key->fallback, key->allowed, key->required ? "required" : "", key->help);
}

static int parse_args(struct daemon *d, int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"state-dir", required_argument, NULL, 'd'},
		{"config", required_argument, NULL, 'c'},
		{"config-dir", required_argument, NULL, 'C'},
		{"packaged-dir", required_argument, NULL, 'P'},
		{"config-keys", no_argument, NULL, 'k'},
		{"policy", required_argument, NULL, 'p'},
		{"types-dir", required_argument, NULL, 't'},
		{"log-level", required_argument, NULL, 'l'},
		{"accept-unknown-kernel", no_argument, NULL, 'u'},
		{"exporter-socket", required_argument, NULL, 'x'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{},
	};
	enum log_level level;
	int o;

	while ((o = getopt_long(argc, argv, "hV", options, NULL)) >= 0) {
		switch (o) {
		case 's':
			d->socket_path = optarg;
			break;
		case 'd':
			d->state_dir = optarg;
			break;
		case 'c':
			d->places.file = optarg;
			break;
		case 'C':
			d->places.dir = optarg;
			break;
		case 'k':
			config_each_key(print_key, stdout);
			return 0;
		case 'P':
			d->places.packaged = optarg;
			break;
		case 'p':
			d->policy_file = optarg;
			break;
		case 't':
			d->types_dir = optarg;
			break;
		case 'l':
			if (log_level_parse(optarg, &level) < 0) {
				fprintf(stderr,
					"agentd: --log-level: '%s' is none of error, warning, "
					"info, debug\n",
					optarg);
				return 2;
			}
			log_set_level(level);
			break;
		case 'x':
			d->exporter_socket = optarg;
			break;
		case 'u':
			d->accept_unknown_kernel = true;
			break;
		case 'V':
			puts("agentd " ODI_VERSION);
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "agentd: '%s' is one word too many\n", argv[optind]);
		usage(stderr);
		return 2;
	}
	return -1;
}

/* Origins are shown with their whole path, and must mean the same for whoever reads them. */
static int absolute_places(struct daemon *d)
{
	static char paths[3][PATH_MAX];
	const char **const all[] = {&d->places.packaged, &d->places.dir, &d->places.file};
	char cwd[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!*all[i] || **all[i] == '/')
			continue;
		if (!getcwd(cwd, sizeof(cwd)) ||
			snprintf(paths[i], sizeof(paths[i]), "%s/%s", cwd, *all[i]) >= PATH_MAX) {
			fprintf(stderr, "agentd: cannot tell where %s is\n", *all[i]);
			return 1;
		}
		*all[i] = paths[i];
	}
	return -1;
}

int daemon_main(int argc, char **argv)
{
	struct daemon d = {
		.socket_path = API_DEFAULT_SOCKET,
		.state_dir = STATE_DIR_DEFAULT,
		.places = {.packaged = PACKAGED_DIR_DEFAULT, .dir = CONFIG_DIR_DEFAULT},
		.started_unix_ns = clock_unix_ns(),
	};
	struct err_text err = {};
	int r;

	log_init("agentd", LOG_LEVEL_INFO);
	r = parse_args(&d, argc, argv);
	if (r < 0)
		r = absolute_places(&d);
	if (r >= 0)
		return r;
	umask(0077);
	daemon_raise_limits();
	r = privilege_hold_back_admin();
	if (r < 0)
		log_warning("CAP_SYS_ADMIN cannot be held back: %s", strerrordesc_np(-r));
	r = start(&d, &err);
	if (r < 0)
		log_error("%s", err.text[0] ? err.text : strerror(-r));
	while (r >= 0 && !d.quit) {
		r = sd_event_run(d.loop, UINT64_MAX);
		if (r < 0)
			log_error("the event loop failed: %s", strerror(-r));
	}
	stop(&d);
	return r < 0 ? 1 : 0;
}
