/* SPDX-License-Identifier: Apache-2.0 */

/* A program that makes its own code, and says so: jit SECONDS dump|map|none FOLDER
 *
 * Three functions, each called one after the other from `turn`, loop for 60, 30 and 10 of 100 parts of a turn. Turns
 * are of random length, so that no sampling rate can fall into step with them. hot_one moves after half a second, and
 * hot_three comes to lie where it was. dump: writes FOLDER/jit-PID.dump with lines; map: writes FOLDER/perf-PID.map,
 * where a move is a new line. PID is its own view of its pid. Prints "ready" when the last function is in its place. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../unit/symbol/jitdump_writer.h"

#define SIZE 64

typedef void (*loop_fn)(unsigned long n);

/* push frame; 1: n--; jnz 1b; pop frame; ret. At LOOP_AT the loop. */
#if defined(__x86_64__)
#define LOOP_AT 4
static const unsigned char code[] = {
	0x55, 0x48, 0x89, 0xe5, 0x48, 0xff, 0xcf, 0x75, 0xfb, 0x5d, 0xc3};
#elif defined(__aarch64__)
#define LOOP_AT 8
static const unsigned int code[] = {
	0xa9bf7bfd, 0x910003fd, 0xf1000400, 0x54ffffe1, 0xa8c17bfd, 0xd65f03c0};
#else
#error "not for this machine"
#endif

static char *memory;
static int out = -1, dump;
static unsigned long n_made;
static struct jitdump_writer w;

static unsigned long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned long)t.tv_sec * 1000000000UL + (unsigned long)t.tv_nsec;
}

static void flush(void)
{
	if (out >= 0 && write(out, w.bytes, w.len) != (ssize_t)w.len)
		exit(1);
	w.len = 0;
}

static void say(const char *name, char *at)
{
	if (dump) {
		const struct jitdump_line lines[] = {
			{(unsigned long)at, "demo.src", 7}, {(unsigned long)at + LOOP_AT, NULL, 9}};

		jitdump_lines(&w, now_ns(), (unsigned long)at, lines, 2);
		jitdump_load(&w, now_ns(), (unsigned long)at, SIZE, ++n_made, name, at);
	} else {
		w.len = (size_t)sprintf(
			(char *)w.bytes, "%lx %x %s\n", (unsigned long)at, SIZE, name);
	}
	flush();
}

static loop_fn emit(const char *name, char *at)
{
	memcpy(at, code, sizeof(code));
	__builtin___clear_cache(at, at + SIZE);
	say(name, at);
	return (loop_fn)at;
}

static loop_fn move(const char *name, unsigned long index, char *from, char *to)
{
	memcpy(to, from, SIZE);
	__builtin___clear_cache(to, to + SIZE);
	if (dump)
		jitdump_move(&w, now_ns(), (unsigned long)from, (unsigned long)to, SIZE, index);
	else
		w.len = (size_t)sprintf(
			(char *)w.bytes, "%lx %x %s\n", (unsigned long)to, SIZE, name);
	flush();
	return (loop_fn)to;
}

static void open_out(const char *mode, const char *folder)
{
	char path[4096];

	dump = strcmp(mode, "dump") == 0;
	if (!dump && strcmp(mode, "map") != 0)
		return;
	snprintf(path, sizeof(path), dump ? "%s/jit-%d.dump" : "%s/perf-%d.map", folder, getpid());
	out = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0) {
		perror(path);
		exit(1);
	}
	if (!dump)
		return;
	jitdump_header(&w, (unsigned)getpid());
	flush();
	/* Says to whoever profiles it where the file is. */
	if (mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_EXEC, MAP_PRIVATE, out, 0) ==
		MAP_FAILED)
		exit(1);
}

/* Rounds of the loops in a hundredth of the next turn: 5,000 to 15,000. */
static unsigned long next_length(void)
{
	static unsigned long random = 88172645463325252UL;

	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	return 5000 + random % 10000;
}

__attribute__((noinline)) static void turn(
	loop_fn one, loop_fn two, loop_fn three, unsigned long length)
{
	one(60 * length);
	two(30 * length);
	if (three)
		three(10 * length);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 1;
	loop_fn one, two, three = NULL;
	unsigned long start;

	memory = mmap(
		NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	open_out(argc > 2 ? argv[2] : "none", argc > 3 ? argv[3] : "/tmp");
	one = emit("hot_one", memory);
	two = emit("hot_two", memory + SIZE);
	for (start = now_ns(); now_ns() - start < 500000000UL;)
		turn(one, two, NULL, next_length());
	one = move("hot_one", 1, memory, memory + 2 * SIZE);
	three = emit("hot_three", memory);
	puts("ready");
	fflush(stdout);
	while ((double)(now_ns() - start) < seconds * 1e9)
		turn(one, two, three, next_length());
	return 0;
}
