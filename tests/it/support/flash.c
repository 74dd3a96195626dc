// Stands before the C library's fsync and fdatasync, and does to them what the file $FLASH says: a number of
// milliseconds that each takes longer, or `fail`. Loaded into the agent by LD_PRELOAD.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int suffer(void) {
    char word[16] = "";
    const char *path = getenv("FLASH");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        if (read(file, word, sizeof word - 1) < 0)
            word[0] = 0;
        close(file);
    }
    if (strncmp(word, "fail", 4) == 0) {
        errno = EIO;
        return -1;
    }
    long ms = atol(word);
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    if (ms > 0)
        nanosleep(&pause, NULL);
    return 0;
}

int fsync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return suffer() ? -1 : real(file);
}

int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return suffer() ? -1 : real(file);
}
