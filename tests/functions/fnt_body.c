/* Bodies that tell about the process and what it may do. */
#define _GNU_SOURCE
#include "fnt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

void add_identity(struct text *body, const struct request *request) {
    text_str(body, "{\"id\":");
    text_json(body, this_process.id);
    text_fmt(body, ",\"pid\":%d,\"uid\":%d,\"gid\":%d,\"request\":%lu,\"body_size\":%zu", getpid(),
             getuid(), getgid(), __atomic_load_n(&this_process.requests, __ATOMIC_RELAXED),
             request->body.len);
}

static void add_pair(struct text *body, const char *name, const char *value) {
    text_json(body, name);
    text_add(body, ":", 1);
    text_json(body, value);
}

void describe(struct text *body, const struct request *request) {
    add_identity(body, request);
    text_str(body, ",\"framing\":");
    text_json(body, request->framing == LENGTH    ? "length"
                    : request->framing == CHUNKED ? "chunked"
                                                  : "none");
    text_str(body, ",\"env\":{");
    for (char **entry = environ; *entry; entry++) {
        char *name = strndup(*entry, strcspn(*entry, "="));
        const char *value = strchr(*entry, '=');
        text_str(body, entry == environ ? "" : ",");
        add_pair(body, name, value ? value + 1 : "");
        free(name);
    }
    text_str(body, "},\"headers\":[");
    for (size_t i = 0; i < request->header_count; i++) {
        text_str(body, i ? ",[" : "[");
        text_json(body, request->headers[i].name);
        text_add(body, ",", 1);
        text_json(body, request->headers[i].value);
        text_add(body, "]", 1);
    }
    text_str(body, "]}");
}

void read_path(struct text *body, const char *path) {
    char block[4096];
    ssize_t got = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && (got = read(fd, block, sizeof block)) > 0)
        text_add(body, block, (size_t)got);
    if (got < 0)
        text_fmt(body, "error: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* Writes the request's body into a file. */
void write_path(struct text *body, const char *path, const struct request *request) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = fd >= 0;
    for (size_t done = 0; good && done < request->body.len;) {
        ssize_t put = write(fd, request->body.at + done, request->body.len - done);
        good = put >= 0;
        done += good ? (size_t)put : 0;
    }
    text_fmt(body, good ? "ok" : "error: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* A child that outlives the request; whoever ends the function must end it too. Its SIGTERM is
 * blocked before it exists, so that there is no moment in which it could be ended. */
void start_child(struct text *body) {
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, &before);
    pid_t child = fork();
    while (!child)
        pause();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (child < 0)
        text_fmt(body, "error: %s", strerror(errno));
    else
        text_fmt(body, "%d", child);
}
