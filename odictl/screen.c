/* SPDX-License-Identifier: Apache-2.0 */

/* A picture that is drawn again and again on a terminal: `top --watch`.
 *
 * It is drawn on the terminal's second screen, so that what was there before comes back at the end; each picture
 * goes out in one write that overwrites the last line by line, so that nothing flickers. However it ends, by q, by
 * Ctrl-C, by a signal, the terminal is put back as it was: from a signal handler where need be, with nothing but
 * calls that are allowed there. */

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include "odictl/screen.h"

/* The second screen, without a cursor, lines cut and not wrapped; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[H\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static struct termios before, during;
static bool has_input;
static volatile sig_atomic_t entered, ended;

static void put(const char *s, size_t n)
{
	while (n) {
		ssize_t done = write(STDOUT_FILENO, s, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return;
		s += done;
		n -= (size_t)done;
	}
}

static void enter(void)
{
	if (has_input)
		tcsetattr(STDIN_FILENO, TCSANOW, &during);
	put(ENTER, strlen(ENTER));
	entered = 1;
}

static void leave(void)
{
	if (!entered)
		return;
	entered = 0;
	put(LEAVE, strlen(LEAVE));
	if (has_input)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

/* The second time it does not wait: agentd may hang. */
static void on_end(int signal)
{
	int saved = errno;

	if (ended++ || signal != SIGINT) {
		leave();
		_exit(signal == SIGINT ? EXIT_DONE : EXIT_FAILED);
	}
	errno = saved;
}

static void on_stop(int signal)
{
	int saved = errno;

	leave();
	raise(SIGSTOP);
	enter();
	errno = saved;
}

static void on_resize(int signal)
{
}

void screen_enter(void)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction sa = {.sa_handler = on_end};

	has_input = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
	during = before;
	during.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		sigaction(ends[i], &sa, NULL);
	sa.sa_handler = on_stop;
	sigaction(SIGTSTP, &sa, NULL);
	sa.sa_handler = on_resize;
	sigaction(SIGWINCH, &sa, NULL);
	enter();
}

void screen_leave(void)
{
	leave();
}

size_t screen_rows(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row ? size.ws_row : 24;
}

void screen_draw(const char *text, size_t len)
{
	_cleanup_buf_ struct buf out;
	size_t rows = screen_rows(), row = 0;

	buf_init(&out, 0);
	buf_str(&out, "\033[H");
	while (len && row < rows) {
		const char *end = memchr(text, '\n', len);
		size_t n = end ? (size_t)(end - text) : len;

		/* No line end on the last row: it would scroll. */
		buf_str(&out, row++ ? "\r\n" : "");
		/* Before the text: after a full line the cursor stands on its last character. */
		buf_str(&out, "\033[K");
		buf_add(&out, text, n);
		n += end != NULL;
		text += n;
		len -= n;
	}
	buf_str(&out, "\033[J");
	if (!buf_error(&out) && !ended)
		put((const char *)out.data, out.len);
}

bool screen_wait(int ms)
{
	struct pollfd p = {.fd = has_input ? STDIN_FILENO : -1, .events = POLLIN};
	char key;

	/* A changed window ends the wait as well: it is drawn again at once. */
	if (!ended && poll(&p, 1, ms) > 0) {
		if (!(p.revents & POLLIN) || read(STDIN_FILENO, &key, 1) != 1)
			return false;
		if (key == 'q' || key == 'Q')
			return false;
	}
	return !ended;
}
