/* fnt: a Fn function server for tests; see README.md for what it can be asked to do.
 *
 * Start-up behaviour comes from FNT_START, each request's from its Fnt-Do header. One thread per
 * connection, blocking calls only: simple, and a request takes microseconds.
 */
#define _GNU_SOURCE
#include "fnt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char *const START_KEYS[] = {
    "crash", "delay", "die", "direct", "eat", "err", "exit", "hang", "noterm", "nosocket", "out",
    "until", NULL,
};

struct process this_process;

void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("fnt: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

void sleep_ms(long ms) {
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

void wait_for_file(const char *list) {
    char *path = find_key(list, "until", 0);
    while (path && access(path, F_OK) < 0)
        sleep_ms(5);
    free(path);
}

/* --- text ------------------------------------------------------------------------------- */

void text_room(struct text *text, size_t more) {
    size_t need = text->len + more + 1;
    if (need <= text->cap)
        return;
    size_t cap = text->cap ? text->cap : 256;
    while (cap < need)
        cap *= 2;
    text->at = realloc(text->at, cap);
    if (!text->at)
        die("out of memory for %zu bytes", cap);
    text->cap = cap;
}

void text_add(struct text *text, const void *data, size_t len) {
    text_room(text, len);
    if (len)
        memcpy(text->at + text->len, data, len);
    text->len += len;
    text->at[text->len] = 0;
}

void text_str(struct text *text, const char *string) {
    text_add(text, string, strlen(string));
}

void text_fmt(struct text *text, const char *format, ...) {
    va_list args;
    char line[512];
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof line)
        die("a formatted line is too long");
    text_add(text, line, (size_t)len);
}

/* Bytes from 0x80 up are passed through: the result is JSON if the string is UTF-8. */
void text_json(struct text *text, const char *string) {
    text_add(text, "\"", 1);
    for (const char *c = string; *c; c++) {
        if (*c == '"' || *c == '\\')
            text_fmt(text, "\\%c", *c);
        else if ((unsigned char)*c < 0x20 || *c == 0x7f)
            text_fmt(text, "\\u%04x", *c);
        else
            text_add(text, c, 1);
    }
    text_add(text, "\"", 1);
}

void text_free(struct text *text) {
    free(text->at);
    *text = (struct text){0};
}

/* --- the socket ------------------------------------------------------------------------- */

static int bind_to(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(name) >= sizeof address.sun_path)
        die("socket name is too long: %s", name);
    strcpy(address.sun_path, name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("can't bind %s: %s", name, strerror(errno));
    return fd;
}

static void listen_on(int fd, const char *name) {
    if (listen(fd, 128) < 0 || chmod(name, 0666) < 0)
        die("can't listen on %s: %s", name, strerror(errno));
}

static void link_to(const char *target, const char *name) {
    if (symlink(target, name) < 0)
        die("can't create %s: %s", name, strerror(errno));
}

/* The ways of offering something that is not a good socket. */
static int bad_socket(const char *way, const char *dir, const char *name) {
    char target[4096];
    if (!strcmp(way, "file")) {
        FILE *file = fopen(name, "w");
        if (!file || fclose(file))
            die("can't create %s: %s", name, strerror(errno));
    } else if (!strcmp(way, "dangling")) {
        link_to("missing.sock", name);
    } else if (!strcmp(way, "absolute")) {
        int fd = bind_to("phony.sock");
        listen_on(fd, "phony.sock");
        snprintf(target, sizeof target, "%s/phony.sock", dir);
        link_to(target, name);
        return fd;
    } else if (!strcmp(way, "outside")) {
        if (mkdir("outside", 0777) < 0)
            die("can't create the folder outside: %s", strerror(errno));
        int fd = bind_to("outside/phony.sock");
        listen_on(fd, "outside/phony.sock");
        link_to("outside/phony.sock", name);
        return fd;
    } else {
        die("FNT_START: nosocket=%s is not known", way);
    }
    for (;;)
        pause();
}

/* Working in the socket's folder keeps the names short: a socket address has 107 bytes. */
static int open_socket(const char *start) {
    const char *listener = getenv("FN_LISTENER");
    const char *format = getenv("FN_FORMAT");
    if (!format || strcmp(format, "http-stream"))
        die("FN_FORMAT must be http-stream, not %s", format ? format : "unset");
    if (!listener || strncmp(listener, "unix:/", 6))
        die("FN_LISTENER must be unix:/path, not %s", listener ? listener : "unset");
    char *dir = strdup(listener + 5);
    char *name = strrchr(dir, '/');
    *name++ = 0;
    if (chdir(*dir ? dir : "/") < 0)
        die("can't enter %s: %s", dir, strerror(errno));

    int fd;
    char *way = find_key(start, "nosocket", 0);
    char *direct = find_key(start, "direct", 0);
    if (way) {
        fd = bad_socket(way, dir, name);
    } else if (direct) {
        fd = bind_to(name);
        sleep_ms(*direct ? atol(direct) : 0);
        listen_on(fd, name);
    } else {
        fd = bind_to("phony.sock");
        listen_on(fd, "phony.sock");
        link_to("phony.sock", name);
    }
    free(way);
    free(direct);
    free(dir);
    return fd;
}

/* --- connections ------------------------------------------------------------------------ */

static void *serve(void *argument) {
    struct conn conn = {.fd = (int)(intptr_t)argument};
    bool going = true;
    while (going) {
        struct request request = {0};
        int refused = read_head(&conn, &request);
        if (refused)
            going = refused > 0 && refuse(&conn, refused);
        else
            going = answer_request(&conn, &request);
        request_free(&request);
    }
    close(conn.fd);
    text_free(&conn.in);
    return NULL;
}

static void accept_forever(int listener) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    for (;;) {
        pthread_t thread;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            die("can't accept: %s", strerror(errno));
        int failed = pthread_create(&thread, &attributes, serve, (void *)(intptr_t)fd);
        if (failed)
            die("can't start a thread: %s", strerror(failed));
    }
}

static void *exit_later(void *argument) {
    const char *start = argument;
    sleep_ms(find_number(start, "die", 0));
    _exit((int)find_number(start, "exit", 0));
}

static void print_start(const char *start) {
    char *out = find_key(start, "out", 0);
    char *err = find_key(start, "err", 0);
    if (out)
        printf("%s\n", out);
    fflush(stdout);
    if (err)
        fprintf(stderr, "%s\n", err);
    free(out);
    free(err);
}

int main(void) {
    const char *start = getenv("FNT_START");
    pthread_t thread;
    unsigned char random[8];
    start = start ? start : "";
    signal(SIGPIPE, SIG_IGN);
    umask(0);
    if (getrandom(random, sizeof random, 0) != sizeof random)
        die("no random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        sprintf(this_process.id + 2 * i, "%02x", random[i]);
    if (!check_list(start, START_KEYS))
        return 2;
    print_start(start);

    if (asked(start, "noterm", NULL))
        signal(SIGTERM, SIG_IGN);
    sleep_ms(find_number(start, "delay", 0));
    wait_for_file(start);
    eat(find_number(start, "eat", 0));
    if (asked(start, "crash", NULL))
        abort();
    while (asked(start, "hang", NULL))
        pause();
    long life = find_number(start, "die", -1);
    long code = find_number(start, "exit", -1);
    if (life < 0 && code >= 0)
        return (int)code;

    int listener = open_socket(start);
    if (life >= 0 && pthread_create(&thread, NULL, exit_later, (void *)start))
        die("can't start a thread");
    accept_forever(listener);
}
