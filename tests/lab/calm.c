// Loaded before libc (LD_PRELOAD) by mosquitto and its clients, which otherwise wake ten times and once a second for
// nothing: on a board with simulated time that would be most of what is computed. What comes in wakes them as ever.
#define _GNU_SOURCE
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LEAST_S = 30 };

int epoll_wait(int file, struct epoll_event *events, int most, int timeout)
{
	if (timeout > 0 && timeout < LEAST_S * 1000)
		timeout = LEAST_S * 1000;
	return epoll_pwait(file, events, most, timeout, NULL);
}

int pselect(int files, fd_set *in, fd_set *out, fd_set *bad, const struct timespec *timeout, const sigset_t *mask)
{
	struct timespec least = { .tv_sec = LEAST_S };
	struct { const sigset_t *mask; size_t size; } masked = { mask, _NSIG / 8 };
	if (timeout && timeout->tv_sec > 0 && timeout->tv_sec < LEAST_S)
		timeout = &least;
	else if (timeout)
		least = *timeout, timeout = &least;
	return syscall(SYS_pselect6, files, in, out, bad, timeout, &masked);
}
