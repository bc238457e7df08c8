/* SPDX-License-Identifier: Apache-2.0 */

/* Signal handlers: one that interrupts a loop at any instruction, on the same stack and (ALTSTACK) on one of its own;
 * one for a fault at the very first instruction of a function; one within another. */

#include <sys/time.h>
#include <ucontext.h>
#include "step.h"

STEP void handler_leaf(uint64_t units)
{
	STEP_BODY(units, 0x1234567);
}

STEP void on_alarm(int signo)
{
	(void)signo;
	handler_leaf(STEP_UNITS * 10);
	STEP_AFTER();
}

STEP void inner_leaf(uint64_t units)
{
	STEP_BODY(units, 0x7654321);
}

STEP void on_inner(int signo)
{
	(void)signo;
	inner_leaf(STEP_UNITS * 4);
	STEP_AFTER();
}

STEP void on_outer(int signo)
{
	(void)signo;
	raise(SIGUSR2);
	STEP_AFTER();
}

/* The fault is at its first byte: one byte before lies another function. */
__asm__(".text\n"
	".p2align 4\n"
	".type faulty, @function\n"
	"faulty:\n"
	".cfi_startproc\n"
	"ud2\n"
	"ret\n"
	".cfi_endproc\n"
	".size faulty, . - faulty\n");
void faulty(void);

STEP void fault_leaf(uint64_t units)
{
	STEP_BODY(units, 0x3456712);
}

STEP void on_fault(int signo, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)signo;
	(void)info;
	fault_leaf(STEP_UNITS * 4);
	u->uc_mcontext.gregs[REG_RIP] += 2;
	STEP_AFTER();
}

STEP void interrupted_leaf(uint64_t units)
{
	STEP_BODY(units, 0x2345671);
}

STEP void interrupted_call(uint64_t units)
{
	interrupted_leaf(units);
	STEP_AFTER();
}

STEP void fault_call(void)
{
	faulty();
	STEP_AFTER();
}

STEP void nest_call(void)
{
	raise(SIGUSR1);
	STEP_AFTER();
}

STEP void run_round(void)
{
	fault_call();
	nest_call();
	for (int i = 0; i < 4; i++)
		interrupted_call(STEP_UNITS);
	STEP_AFTER();
}

int main(int argc, char **argv)
{
	struct itimerval every = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
	int flags = SA_RESTART;

	step_begin(argc, argv);
#ifdef ALTSTACK
	stack_t st = {.ss_sp = malloc(1 << 18), .ss_size = 1 << 18};

	sigaltstack(&st, NULL);
	flags |= SA_ONSTACK;
#endif
	sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = flags}, NULL);
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_outer, .sa_flags = flags}, NULL);
	sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_inner, .sa_flags = flags}, NULL);
	sigaction(SIGILL,
		&(struct sigaction){.sa_sigaction = on_fault, .sa_flags = flags | SA_SIGINFO},
		NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	while (step_on())
		run_round();
	setitimer(ITIMER_REAL, &off, NULL);
	step_report("");
	return 0;
}
