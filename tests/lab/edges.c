/* What a shell can't do to GPIO lines, on the board.
 *   edges clock                      the wall clock less the monotonic one, in nanoseconds
 *   edges hold CHIP OFFSET CONSUMER  has the line until it is killed
 *   edges pulse PULL EDGES MICROS    pulls the simulated line up and down in turn, so far apart. Below the kernel's threads
 *                                    that take the edges (50), and above all that shares time: where the host is busy, the
 *                                    scheduler lets what shares time go before those threads, and an edge that comes before
 *                                    the one before it was taken is no edge to the kernel.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void hold(const char *chip, int offset, const char *consumer)
{
	struct gpio_v2_line_request line = { .offsets = { offset }, .num_lines = 1, .config.flags = GPIO_V2_LINE_FLAG_INPUT };
	strncpy(line.consumer, consumer, sizeof line.consumer - 1);
	if (ioctl(open(chip, O_RDWR), GPIO_V2_GET_LINE_IOCTL, &line))
		err(1, "%s, line %d", chip, offset);
	for (;;)
		pause();
}

static void pulse(const char *pull, int edges, int micros)
{
	int file = open(pull, O_WRONLY);
	long long due = nanoseconds(CLOCK_MONOTONIC);
	struct sched_param below = { .sched_priority = 1 };
	if (file < 0)
		err(1, "%s", pull);
	if (sched_setscheduler(0, SCHED_FIFO, &below))
		err(1, "SCHED_FIFO");
	for (int edge = 0; edge < edges; edge++) {
		const char *word = edge % 2 ? "pull-down" : "pull-up";
		struct timespec until = { due / 1000000000LL, due % 1000000000LL };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		if (pwrite(file, word, strlen(word), 0) < 0)
			err(1, "%s", pull);
		due += micros * 1000LL;
	}
}

int main(int count, char **words)
{
	if (count == 2 && !strcmp(words[1], "clock"))
		printf("%lld\n", nanoseconds(CLOCK_REALTIME) - nanoseconds(CLOCK_MONOTONIC));
	else if (count == 5 && !strcmp(words[1], "hold"))
		hold(words[2], atoi(words[3]), words[4]);
	else if (count == 5 && !strcmp(words[1], "pulse"))
		pulse(words[2], atoi(words[3]), atoi(words[4]));
	else
		errx(64, "clock | hold CHIP OFFSET CONSUMER | pulse PULL EDGES MICROS");
	return 0;
}
