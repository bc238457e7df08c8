/* SPDX-License-Identifier: Apache-2.0 */

/* Stacks of running programs, walked by us and by an unwinder that is not ours.
 *
 * Programs (our own, built without frame pointers, and the distribution's) run at full speed and are
 * stopped at random moments and in random threads. On the same stopped process bpf/unwind_walk.h,
 * by slots as the kernel gets them, and elfutils' libdwfl, by the files' call frame information,
 * have to find the same return addresses. A few single steps after each stop reach what time alone
 * seldom does: prologues, epilogues, the PLT. Each of our walks is done again from a slice of the
 * stack, as user space does it for samples that the kernel could not finish.
 *
 * What counts as different: another address in any frame, up to where one of the two ends or one of
 * ours is a guess (marked as such; libdwfl guesses by the frame pointer too, unchecked and
 * unmarked); and an end of ours before libdwfl's, unless it has only its guess to go on with. Where
 * libdwfl ends before us is counted, by its own words. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <elfutils/libdwfl.h>
#include <limits.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "agentd/base/macros.h"

#if defined(__x86_64__)

#include "tests/unit/unwind/live.h"

/* A program that runs, and what came of it. */
struct trial {
	struct live live;
	Dwfl *dwfl;
	uint64_t maps_hash;
	uint64_t theirs[MAX_FRAMES];
	bool exact[MAX_FRAMES]; /* theirs: no return address */
	size_t n_theirs;
	unsigned vague; /* stops with a walk that no file describes wholly */
	unsigned stops, walks, rooted, whole, frames, different, guessed, gave_up, without, beyond,
		started;
	char words[80]; /* libdwfl's, of the last time it gave up */
};

/* ---- libdwfl -------------------------------------------------------------------------------------------- */

/* Call frame information is in the files themselves: no others are looked for. */
static int no_debuginfo(Dwfl_Module *m, void **userdata, const char *name, Dwarf_Addr base,
	const char *file, const char *link, GElf_Word crc, char **path)
{
	return -1;
}

static const Dwfl_Callbacks callbacks = {
	.find_elf = dwfl_linux_proc_find_elf,
	.find_debuginfo = no_debuginfo,
};

static int take_frame(Dwfl_Frame *frame, void *userdata)
{
	struct trial *t = userdata;
	Dwarf_Addr pc;
	bool exact;

	if (t->n_theirs == MAX_FRAMES)
		return DWARF_CB_ABORT;
	if (!dwfl_frame_pc(frame, &pc, &exact))
		return DWARF_CB_ABORT;
	t->theirs[t->n_theirs] = pc;
	t->exact[t->n_theirs++] = exact;
	return DWARF_CB_OK;
}

/* 0: to the root; else it gave up, t->words says why. */
static int their_walk(struct trial *t, pid_t tid)
{
	uint64_t hash = 14695981039346656037ULL;
	int result;

	for (size_t i = 0; i < t->live.n_maps; i++)
		hash = (hash ^ t->live.maps[i].start ^ t->live.maps[i].bias) * 1099511628211ULL;
	if (!t->dwfl || hash != t->maps_hash) {
		bool first = !t->dwfl;

		t->maps_hash = hash;
		if (first)
			t->dwfl = dwfl_begin(&callbacks);
		else
			dwfl_report_begin(t->dwfl);
		assert_non_null(t->dwfl);
		assert_int_equal(dwfl_linux_proc_report(t->dwfl, t->live.pid), 0);
		assert_int_equal(dwfl_report_end(t->dwfl, NULL, NULL), 0);
		if (first)
			assert_int_equal(dwfl_linux_proc_attach(t->dwfl, t->live.pid, true), 0);
	}
	t->n_theirs = 0;
	(void)dwfl_errno();
	result = dwfl_getthread_frames(t->dwfl, tid, take_frame, t);
	if (result != 0)
		snprintf(t->words, sizeof(t->words), "%s",
			result < 0 ? dwfl_errmsg(-1) : "more frames than we look at");
	return result;
}

/* ---- both ----------------------------------------------------------------------------------------------- */

static void name_of(uint64_t pc, struct trial *t, char *to, size_t size)
{
	struct space_map m;

	if (live_map(&t->live, pc, &m) == 0 && m.file)
		snprintf(to, size, "%s+%#llx", files[m.file - 1].path,
			(unsigned long long)(pc + m.bias));
	else
		snprintf(to, size, "%#llx", (unsigned long long)pc);
}

static void differ(struct trial *t, size_t frame, const char *what)
{
	char before[320] = "", theirs[320] = "nothing", ours[320] = "nothing";

	if (t->different++ >= 5)
		return;
	if (frame > 0)
		name_of(t->theirs[frame - 1], t, before, sizeof(before));
	if (frame < t->n_theirs)
		name_of(t->theirs[frame], t, theirs, sizeof(theirs));
	if (frame < t->live.n_ours && t->live.ours[frame].file)
		snprintf(ours, sizeof(ours), "%s+%#llx", files[t->live.ours[frame].file - 1].path,
			(unsigned long long)t->live.ours[frame].offset);
	else if (frame < t->live.n_ours)
		snprintf(ours, sizeof(ours), "%#llx",
			(unsigned long long)t->live.ours[frame].offset);
	print_error("%s: frame %zu behind %s: ours %s (of %zu, end %u), libdwfl's %s (of %zu)\n",
		what, frame, before, ours, t->live.n_ours, t->live.walk.end, theirs, t->n_theirs);
}

/* Whether libdwfl's frame i is the same as ours. */
static bool same(struct trial *t, size_t i)
{
	const struct sample_frame *f = &t->live.ours[i];
	struct space_map m = {0};
	/* libdwfl calls the first instruction of a signal trampoline no return address; by the call frame
	 * information's convention it is one. */
	bool trampoline = t->exact[i] && i + 1 < t->n_theirs && t->exact[i + 1];
	bool exact = t->exact[i] && !trampoline;

	if (live_map(&t->live, t->theirs[i] - !exact, &m) != 0)
		return false;
	return f->file == m.file && f->offset == t->theirs[i] + m.bias &&
		(trampoline || !(f->flags & FRAME_RETURN) == exact);
}

/* A walk of ours that did not get to the root, for who looks into it. */
static void tell(struct trial *t)
{
	printf("end %u, sp %#llx:", t->live.walk.end, (unsigned long long)t->live.walk.regs.sp);
	for (size_t i = 0; i < t->live.n_ours; i++) {
		const struct sample_frame *f = &t->live.ours[i];

		printf(" %s%s+%#llx", f->flags & FRAME_APPROXIMATE ? "~" : "",
			f->file ? strrchr(files[f->file - 1].path, '/') : "",
			(unsigned long long)f->offset);
	}
	putchar('\n');
}

static void compare(struct trial *t, pid_t tid, const struct user_regs_struct *regs)
{
	size_t n, i;
	int theirs;

	if (!read_maps(&t->live))
		return;
	our_walk(&t->live, regs);
	slice_walk(&t->live, regs);
	if (!slice_agrees(&t->live))
		differ(t, 0, "by the slice, another walk");
	t->beyond += t->live.slice.end == WALK_SLICE;
	theirs = their_walk(t, tid);
	n = MIN(t->live.n_ours, t->n_theirs);
	t->walks++;
	t->rooted += t->live.walk.end == WALK_ROOT;
	if (t->live.walk.end != WALK_ROOT && getenv("UNWIND_LIVE_VERBOSE"))
		tell(t);
	for (i = 0; i < n; i++) {
		if (t->live.ours[i].flags & FRAME_APPROXIMATE) {
			t->guessed++;
			return;
		}
		if (!same(t, i)) {
			differ(t, i, "another frame");
			return;
		}
		t->frames++;
	}
	if (t->n_theirs < t->live.n_ours) {
		if (t->live.ours[i].flags & FRAME_APPROXIMATE)
			t->guessed++;
		else
			t->gave_up++;
		return;
	}
	if (t->live.n_ours < t->n_theirs || (theirs == 0 && t->live.walk.end != WALK_ROOT)) {
		/* Its last frame is nowhere, which is where we end. */
		if (t->live.walk.end == WALK_UNMAPPED && t->n_theirs == i + 1 &&
			live_map(&t->live, t->theirs[i] - 1, &(struct space_map){0}) != 0) {
			t->gave_up++;
			return;
		}
		/* Nothing in any file says how to go on, and there is no frame pointer. */
		if (t->live.walk.end == WALK_NO_INFORMATION || t->live.walk.end == WALK_JIT)
			t->without++;
		else
			differ(t, i, "we end before");
		return;
	}
	if (theirs == 0)
		t->whole++;
	else
		t->gave_up++;
}

/* ---- stopping a thread ---------------------------------------------------------------------------------- */

/* Waits for the next stop of a thread; false: it is gone. *signal is what waits to be delivered. */
static bool stopped(pid_t tid, int *signal)
{
	int status;

	if (waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status))
		return false;
	*signal = status >> 16 == 0 && WSTOPSIG(status) != SIGTRAP ? WSTOPSIG(status) : 0;
	return true;
}

/* What may wait for long, so is not stepped into. */
static bool at_system_call(struct trial *t, const struct user_regs_struct *regs)
{
	uint8_t code[2] = {0};

	return live_read(&t->live, code, 2, regs->rip) < 0 || (code[0] == 0x0f && code[1] == 0x05);
}

static pid_t any_thread(pid_t pid, unsigned random)
{
	char name[64];
	pid_t found = pid;
	unsigned n = 0;
	DIR *d;

	snprintf(name, sizeof(name), "/proc/%d/task", (int)pid);
	d = opendir(name);
	for (struct dirent *e; d && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		random = random * 1664525u + 1013904223u;
		if ((random >> 8) % n == 0)
			found = (pid_t)atoi(e->d_name);
	}
	if (d)
		closedir(d);
	return found;
}

/* One stop, and a few steps from there. False: the program has ended. */
static bool stop_once(struct trial *t, unsigned random, unsigned steps)
{
	pid_t tid = any_thread(t->live.pid, random);
	unsigned described = t->guessed + t->without;
	struct user_regs_struct regs;
	int signal = 0;

	if (ptrace(PTRACE_SEIZE, tid, 0, 0) < 0)
		return false;
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 || !stopped(tid, &signal))
		return false;
	t->stops++;
	for (unsigned i = 0;; i++) {
		if (ptrace(PTRACE_GETREGS, tid, 0, &regs) < 0)
			return false;
		compare(t, tid, &regs);
		/* In a system call it cannot be stepped: that would wait for the call's end. */
		if (i == steps || (long)regs.orig_rax >= 0 || at_system_call(t, &regs))
			break;
		for (unsigned k = 0; k < 1 + random % 7 && !at_system_call(t, &regs); k++) {
			if (ptrace(PTRACE_SINGLESTEP, tid, 0, signal) < 0 ||
				!stopped(tid, &signal) || ptrace(PTRACE_GETREGS, tid, 0, &regs) < 0)
				return false;
		}
	}
	t->vague += t->guessed + t->without > described;
	ptrace(PTRACE_DETACH, tid, 0, signal);
	return true;
}

/* ---- programs ------------------------------------------------------------------------------------------- */

struct program {
	const char *name;
	const char *
		build; /* command that makes ./NAME in the folder from the sources beside this; NULL: none */
	const char *argv[8];
	unsigned
		undescribed; /* percent of its stops with a frame that no file describes, at most */
};

#define OMIT "-fomit-frame-pointer -pthread"
static const struct program programs[] = {
	{"gcc-O2", "gcc -O2 " OMIT " -o gcc-O2 $S/live.c", {"./gcc-O2"}, 15},
	{"gcc-O3-static-pie", "gcc -O3 -static-pie -s " OMIT " -o gcc-O3-static-pie $S/live.c",
		{"./gcc-O3-static-pie"}, 15},
	{"clang-O2-no-pie", "clang -O2 -no-pie " OMIT " -o clang-O2-no-pie $S/live.c",
		{"./clang-O2-no-pie"}, 15},
	{"g++-O2", "g++ -O2 -std=c++17 " OMIT " -o g++-O2 $S/live.cpp", {"./g++-O2"}, 15},
	{"g++-O1-lazy-s", "g++ -O1 -std=c++17 -s -Wl,-z,lazy " OMIT " -o g++-O1-lazy-s $S/live.cpp",
		{"./g++-O1-lazy-s"}, 15},
	{"clang", NULL, {"clang++", "-O2", "-std=c++17", "-c", "-o", "/dev/null", "$S/live.cpp"},
		15},
	{"sqlite3", NULL,
		{"sqlite3", ":memory:",
			"with recursive c(x) as (select 1 union all select x+1 from c where x<1e12) select "
			"max(abs(x)), group_concat(printf('%d', x)) from c group by x % 1000 order by 1"},
		15},
	{"python3", NULL,
		{"/usr/bin/python3", "-c",
			"import json,re\nwhile True:\n j=json.dumps(sorted([(str(i*7919%101),i/3) for i in "
			"range(99)],key=lambda x:x[0]))\n re.sub('[0-9]+',lambda m:m[0]+'x',repr(json.loads(j)))"},
		15},
	{"openssl", NULL, {"openssl", "speed", "-seconds", "60", "rsa2048", "sha256"}, 15},
	{"bash", NULL,
		{"bash", "-c",
			"while :; do x=$((x+1)); y=${BASH_VERSION//./$x}; [[ $y =~ a+b* ]]; done"},
		15},
	{"perl", NULL,
		{"perl", "-e",
			"while (1) { my %h = map { $_*7919%101 => 'x'.$_ } 1..200; "
			"join(',', sort { $h{$a} cmp $h{$b} } keys %h) =~ s/x(\\d+)/$1*2/ger }"},
		15},
	{"node", NULL,
		{"node", "-e",
			"for(let i=0;;i++){const a=[];for(let k=0;k<200;k++)a.push({k:k*7919%101,s:'x'+k});"
			"a.sort((x,y)=>x.k-y.k);JSON.parse(JSON.stringify(a)).map(x=>x.s.replace(/x(.)/,'$1'))}"},
		90},
};

static char folder[] = "/tmp/odi-live-XXXXXX";
static char sources[PATH_MAX];

static char *with_sources(const char *text)
{
	const char *at = strstr(text, "$S");
	char *out = NULL;

	if (!at)
		return strdup(text);
	if (asprintf(&out, "%.*s%s%s", (int)(at - text), text, sources, at + 2) < 0)
		return NULL;
	return out;
}

static bool installed(const char *name)
{
	char *command = NULL;
	bool there;

	if (asprintf(&command, "command -v %s >/dev/null 2>&1", name) < 0)
		return false;
	there = system(command) == 0; /* NOLINT: our own words */
	free(command);
	return there;
}

static pid_t start(const struct program *p)
{
	char *argv[9] = {0};
	pid_t pid;

	for (size_t i = 0; i < 8 && p->argv[i]; i++)
		argv[i] = with_sources(p->argv[i]);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		alarm(100);
		if (chdir(folder) == 0)
			execvp(argv[0], argv);
		_exit(127);
	}
	for (size_t i = 0; argv[i]; i++)
		free(argv[i]);
	return pid;
}

static void pause_us(unsigned us)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

/* The program is there (not we, forked, any more), past its dynamic linker. */
static void begin(struct trial *t, const struct program *p)
{
	char name[64], exe[256], own[256];
	ssize_t n, m = readlink("/proc/self/exe", own, sizeof(own));

	t->live.pid = start(p);
	t->started++;
	snprintf(name, sizeof(name), "/proc/%d/exe", (int)t->live.pid);
	for (int i = 0; i < 1000; i++) {
		n = readlink(name, exe, sizeof(exe));
		if (n > 0 && (n != m || memcmp(exe, own, (size_t)n) != 0))
			break;
		pause_us(1000);
	}
	pause_us(20000);
}

static void finish(struct trial *t)
{
	if (t->dwfl)
		dwfl_end(t->dwfl);
	t->dwfl = NULL;
	kill(t->live.pid, SIGKILL);
	while (waitpid(t->live.pid, NULL, __WALL) == -1 && errno == EINTR)
		;
}

static unsigned number_of(const char *variable, unsigned otherwise)
{
	const char *text = getenv(variable);

	return text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

static void test_program(void **state)
{
	const struct program *p = *state;
	unsigned stops = number_of("UNWIND_LIVE_STOPS", 40),
		 random = number_of("ODI_SEED", (unsigned)getpid());
	struct trial *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	if (p->build) {
		char *command = with_sources(p->build), *all = NULL;

		assert_true(asprintf(&all, "cd %s && %s", folder, command) > 0);
		assert_int_equal(system(all), 0); /* NOLINT: our own words */
		free(all);
		free(command);
	} else if (!installed(p->argv[0])) {
		free(t);
		print_message("%s is not installed\n", p->argv[0]);
		skip();
	}
	begin(t, p);
	for (unsigned i = 0; i < stops && t->started < 20; i++) {
		random = random * 1664525u + 1013904223u;
		if (!stop_once(t, random >> 8, 7)) {
			finish(t);
			begin(t, p);
		}
		pause_us(500 + (random >> 16) % 6000);
	}
	finish(t);
	print_message(
		"%s: %u stops (%u vague), %u walks, %u to the root; %u frames the same, %u to the root by both; %u different; "
		"%u where libdwfl gave up first%s%s%s; %u of ours with a guess, %u ended without any "
		"information; %u longer than a slice\n",
		p->name, t->stops, t->vague, t->walks, t->rooted, t->frames, t->whole, t->different,
		t->gave_up, t->words[0] ? " (" : "", t->words, t->words[0] ? ")" : "", t->guessed,
		t->without, t->beyond);
	assert_int_equal(t->different, 0);
	assert_true(t->stops >= stops * 3 / 4);
	assert_true(t->whole > 0);
	/* Where it is stopped is chance, and the steps from there are in the same code: stops are judged. Were
	 * one in a hundred such a one (they are fewer), 7 of 40 would come about once in seven million times. */
	assert_true(t->vague * 100 <= t->stops * p->undescribed);
	free(t);
}

static int setup(void **state)
{
	static const char here[] = "tests/unit/unwind";

	if (!realpath(here, sources))
		return -1;
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	char *command = NULL;
	int result = -1;

	close_files();
	if (asprintf(&command, "rm -rf %s", folder) > 0)
		result = system(command); /* NOLINT: our own words */
	free(command);
	return result;
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(programs)] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		tests[i] = (struct CMUnitTest){.name = programs[i].name,
			.test_func = test_program,
			.initial_state = (void *)&programs[i]};
	return cmocka_run_group_tests_name("live stacks", tests, setup, teardown);
}

#else
int main(void)
{
	puts("cannot run - live stacks: only for x86-64 yet");
	return 0;
}
#endif
