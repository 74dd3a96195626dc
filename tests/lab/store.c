// What systemd does for a service with a store of descriptors, where there is no systemd: keeps what the service gives it, and
// hands it to the next one.
//   store COMMAND...
// Starts the command, and again whenever it ends, until it is ended by SIGTERM itself. A SIGHUP has it end the command by
// SIGTERM, as at a restart that was planned. Tells each start and end on standard output. Of sd_notify(3) it knows
// FDSTORE, FDSTOREREMOVE and FDNAME.
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOM 32
#define SOCKET "/run/notify"

static struct { char name[256]; int fd; } kept[ROOM];
static int count;

static void let_go(const char *name) {
    for (int n = 0; n < count; n++)
        if (strcmp(kept[n].name, name) == 0) { close(kept[n].fd); kept[n--] = kept[--count]; }
}

// One message of the service.
static void take(int notify) {
    char text[1024], space[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    ssize_t length = recvmsg(notify, &message, MSG_CMSG_CLOEXEC);
    if (length < 0) return;
    text[length] = 0;
    int fd = -1, store = 0, remove = 0;
    struct cmsghdr *attached = CMSG_FIRSTHDR(&message);
    if (attached && attached->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(attached), sizeof fd);
    const char *name = "stored";
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (strcmp(line, "FDSTORE=1") == 0) store = 1;
        if (strcmp(line, "FDSTOREREMOVE=1") == 0) remove = 1;
        if (strncmp(line, "FDNAME=", 7) == 0) name = line + 7;
    }
    if (remove) let_go(name);
    if (store && fd >= 0 && count < ROOM) {
        snprintf(kept[count].name, sizeof kept->name, "%s", name);
        kept[count++].fd = fd;
    } else if (fd >= 0) {
        close(fd);
    }
}

static pid_t start(char **command) {
    pid_t pid = fork();
    if (pid != 0) { printf("started %d with %d\n", (int)pid, count); return pid; }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    char names[ROOM * 256] = "", number[16];
    // Out of the way of the places from 3 on, then into them.
    for (int n = 0; n < count; n++) kept[n].fd = fcntl(kept[n].fd, F_DUPFD, 3 + ROOM);
    for (int n = 0; n < count; n++) {
        dup2(kept[n].fd, 3 + n);
        close(kept[n].fd);
        strcat(strcat(names, n ? ":" : ""), kept[n].name);
    }
    setenv("NOTIFY_SOCKET", SOCKET, 1);
    snprintf(number, sizeof number, "%d", (int)getpid());
    if (count) setenv("LISTEN_PID", number, 1);
    snprintf(number, sizeof number, "%d", count);
    if (count) { setenv("LISTEN_FDS", number, 1); setenv("LISTEN_FDNAMES", names, 1); }
    execvp(command[0], command);
    _exit(127);
}

int main(int argc, char **argv) {
    if (argc < 2) return 64;
    setlinebuf(stdout);
    int notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {AF_UNIX, SOCKET};
    unlink(SOCKET);
    if (bind(notify, (struct sockaddr *)&address, sizeof address) < 0) { perror("store"); return 1; }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD); sigaddset(&set, SIGHUP); sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct pollfd ready[] = {{notify, POLLIN}, {signalfd(-1, &set, SFD_CLOEXEC), POLLIN}};
    pid_t service = start(argv + 1);
    for (int ending = 0;;) {
        poll(ready, 2, -1);
        while (poll(ready, 1, 0) > 0) take(notify);
        if (poll(ready + 1, 1, 0) <= 0) continue;
        struct signalfd_siginfo got;
        if (read(ready[1].fd, &got, sizeof got) < 0) return 1;
        if (got.ssi_signo != SIGCHLD) { ending |= got.ssi_signo == SIGTERM; kill(service, SIGTERM); continue; }
        int status;
        if (waitpid(service, &status, WNOHANG) != service) continue;
        while (poll(ready, 1, 0) > 0) take(notify);
        printf("ended %s %d\n", WIFSIGNALED(status) ? "by" : "with", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        if (ending) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        service = start(argv + 1);
    }
}
