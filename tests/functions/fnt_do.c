/* What a request asks of fnt: its Fnt-Do header, taken apart and carried out. */
#define _GNU_SOURCE
#include "fnt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK (64 * 1024)

static const char *const REQUEST_KEYS[] = {
    "after",  "bighead", "burn", "child",   "close",     "count", "crash",    "early", "eat",
    "env",    "err",     "every",   "exit",      "extra", "fnstatus", "framing", "garbage",
    "hang",   "header",  "leak",    "lines",     "mid",   "out",      "outlines", "pid",
    "read",   "readdelay", "size",  "sleep",     "status", "type",    "until", "who",   "write",
    NULL,
};

struct answer {
    int status;
    enum framing framing;
    char *type;
    struct text body;
    uint64_t size; /* of a generated body, instead of `body` */
    long lines, every; /* `lines` lines, `every` ms apart, instead of both */
    long pause;        /* ms in the middle of the body */
    bool cut;          /* close in the middle of the body */
    bool close;
};

/* --- bodies ----------------------------------------------------------------------------- */

static void make_body(struct answer *answer, struct request *request, const char *list) {
    char *value;
    const char *type = "text/plain";
    if (asked(list, "env", NULL) || asked(list, "who", NULL)) {
        type = "application/json";
        if (asked(list, "env", NULL)) {
            describe(&answer->body, request);
        } else {
            add_identity(&answer->body, request);
            text_str(&answer->body, "}");
        }
    } else if (asked(list, "pid", NULL)) {
        text_fmt(&answer->body, "%d", getpid());
    } else if ((value = find_key(list, "read", 0))) {
        read_path(&answer->body, value);
        free(value);
    } else if ((value = find_key(list, "write", 0))) {
        write_path(&answer->body, value, request);
        free(value);
    } else if (asked(list, "child", NULL)) {
        start_child(&answer->body);
    } else if (asked(list, "count", NULL)) {
        text_fmt(&answer->body, "%zu", request->body.len);
    } else if (asked(list, "size", NULL)) {
        answer->size = (uint64_t)find_number(list, "size", 0);
    } else if ((value = find_key(list, "lines", 0))) {
        char *every = strstr(value, ",every=");
        answer->lines = atol(value);
        answer->every = every ? atol(every + 7) : find_number(list, "every", 0);
        free(value);
    } else {
        struct text body = request->body;
        request->body = (struct text){0};
        answer->body = body;
        type = find_header(request, "Content-Type");
    }
    answer->type = find_key(list, "type", 0);
    if (!answer->type && type)
        answer->type = strdup(type);
}

/* --- sending ---------------------------------------------------------------------------- */

static void add_head(struct text *head, const struct answer *answer, const char *list) {
    char *value;
    text_fmt(head, "HTTP/1.1 %d %s\r\nFn-Fdk-Version: fnt/1\r\n", answer->status,
             answer->status == 200 ? "OK" : "Asked-For");
    if (answer->type) {
        text_str(head, "Content-Type: ");
        text_str(head, answer->type);
        text_str(head, "\r\n");
    }
    if ((value = find_key(list, "fnstatus", 0))) {
        text_str(head, "Fn-Http-Status: ");
        text_str(head, value);
        text_str(head, "\r\n");
        free(value);
    }
    for (int i = 0; (value = find_key(list, "header", i)); i++) {
        char *colon = strchr(value, ':');
        if (!colon)
            die("header=%s has no colon", value);
        text_add(head, value, (size_t)(colon - value));
        text_str(head, ": ");
        text_str(head, colon + 1 + strspn(colon + 1, " "));
        text_str(head, "\r\n");
        free(value);
    }
    long big = find_number(list, "bighead", 0);
    if (big) {
        text_str(head, "Fnt-Big: ");
        for (long i = 0; i < big; i++)
            text_add(head, "x", 1);
        text_str(head, "\r\n");
    }
    if (answer->close)
        text_str(head, "Connection: close\r\n");
}

static bool send_piece(struct conn *conn, const struct answer *answer, const void *data,
                       size_t len) {
    char size[32];
    if (answer->framing != CHUNKED)
        return send_all(conn, data, len);
    snprintf(size, sizeof size, "%zx\r\n", len);
    return !len || (send_all(conn, size, strlen(size)) && send_two(conn, data, len, "\r\n", 2));
}

/* Bytes from..to of the body; those of a generated one follow a pattern of 16 bytes. */
static bool send_range(struct conn *conn, const struct answer *answer, uint64_t from,
                       uint64_t to) {
    char block[BLOCK];
    if (!answer->size)
        return send_piece(conn, answer, answer->body.at + from, (size_t)(to - from));
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = "0123456789abcdef"[(from + i) % 16];
    while (from < to) {
        size_t len = to - from < BLOCK ? (size_t)(to - from) : BLOCK;
        if (!send_piece(conn, answer, block, len))
            return false;
        from += len;
    }
    return true;
}

static bool send_lines(struct conn *conn, const struct answer *answer) {
    for (long i = 1; i <= answer->lines; i++) {
        char line[32];
        snprintf(line, sizeof line, "line %ld\n", i);
        if (i > 1)
            sleep_ms(answer->every);
        if (!send_piece(conn, answer, line, strlen(line)))
            return false;
        if (answer->cut && i >= answer->lines / 2)
            break;
    }
    return true;
}

static bool send_body(struct conn *conn, const struct answer *answer, uint64_t size) {
    if (answer->lines)
        return send_lines(conn, answer);
    uint64_t half = answer->cut || answer->pause ? size / 2 : size;
    if (!send_range(conn, answer, 0, half))
        return false;
    sleep_ms(answer->pause);
    return answer->cut || half == size || send_range(conn, answer, half, size);
}

static bool send_answer(struct conn *conn, struct answer *answer, const char *list) {
    uint64_t size = answer->size ? answer->size : answer->body.len;
    bool empty = answer->status == 204 || answer->status == 304;
    struct text head = {0};
    bool good;
    add_head(&head, answer, list);
    if (!empty && answer->framing == LENGTH)
        text_fmt(&head, "Content-Length: %llu\r\n", (unsigned long long)size);
    else if (!empty && answer->framing == CHUNKED)
        text_str(&head, "Transfer-Encoding: chunked\r\n");
    text_str(&head, "\r\n");

    bool whole = answer->framing == LENGTH && !answer->size && !answer->pause && !answer->cut;
    char *extra = find_key(list, "extra", 0);
    if (extra && whole && !empty) { /* in the same write, so that both arrive together */
        text_str(&answer->body, extra);
        free(extra);
        extra = NULL;
    }
    if (empty)
        good = send_all(conn, head.at, head.len);
    else if (whole)
        good = send_two(conn, head.at, head.len, answer->body.at, answer->body.len);
    else
        good = send_all(conn, head.at, head.len) && send_body(conn, answer, size);
    if (good && !empty && answer->framing == CHUNKED && !answer->cut)
        good = send_all(conn, "0\r\n\r\n", 5);
    if (good && extra)
        good = send_all(conn, extra, strlen(extra));
    free(extra);
    text_free(&head);
    return good && !answer->close && !answer->cut;
}

bool refuse(struct conn *conn, int status) {
    struct answer answer = {.status = status, .framing = LENGTH, .close = true};
    text_fmt(&answer.body, "fnt does not take this request: %d\n", status);
    send_answer(conn, &answer, "");
    text_free(&answer.body);
    return false;
}

/* --- doing ------------------------------------------------------------------------------ */

static void put_line(int fd, const char *text) {
    struct text line = {0};
    text_str(&line, text);
    text_str(&line, "\n");
    for (size_t done = 0; done < line.len;) {
        ssize_t put = write(fd, line.at + done, line.len - done);
        if (put < 0)
            break; /* nobody listens; the request goes on */
        done += (size_t)put;
    }
    text_free(&line);
}

static void print(const char *list) {
    char *text;
    for (int i = 0; (text = find_key(list, "out", i)); i++, free(text))
        put_line(STDOUT_FILENO, text);
    for (int i = 0; (text = find_key(list, "err", i)); i++, free(text))
        put_line(STDERR_FILENO, text);
    char block[1001];
    memset(block, 'o', sizeof block - 1);
    block[sizeof block - 1] = 0;
    for (long lines = find_number(list, "outlines", 0); lines > 0; lines--)
        put_line(STDOUT_FILENO, block);
}

/* Uses that much CPU time, however long that takes. */
static void burn_ms(long ms) {
    struct timespec now;
    if (!ms)
        return;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    long long end = now.tv_sec * 1000000000LL + now.tv_nsec + ms * 1000000LL;
    while (now.tv_sec * 1000000000LL + now.tv_nsec < end)
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
}

static void end_if_asked(const char *list) {
    long code = find_number(list, "exit", -1);
    if (code >= 0)
        _exit((int)code);
    if (asked(list, "crash", NULL))
        abort();
}

char *eat(long mb) {
    size_t size = (size_t)mb << 20;
    if (!mb)
        return NULL;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("can't get %ld MB: %s", mb, strerror(errno));
    for (size_t i = 0; i < size; i += 4096)
        memory[i] = 1;
    return memory;
}

/* Things that end the connection without a proper answer. */
static bool break_off(struct conn *conn, const char *list) {
    if (asked(list, "hang", NULL)) {
        wait_close(conn);
        return true;
    }
    if (asked(list, "garbage", NULL)) {
        const char *garbage = "this is not HTTP\r\n\r\n";
        send_all(conn, garbage, strlen(garbage));
        return true;
    }
    return asked(list, "close", "");
}

static enum framing find_framing(const char *list) {
    char *value = find_key(list, "framing", 0);
    enum framing framing = asked(list, "lines", NULL) ? CHUNKED : LENGTH;
    if (value && !strcmp(value, "chunked"))
        framing = CHUNKED;
    else if (value && !strcmp(value, "close"))
        framing = UNTIL_CLOSE;
    else if (value && strcmp(value, "length"))
        die("framing=%s is not known", value);
    free(value);
    return framing;
}

static bool carry_out(struct conn *conn, struct request *request, const char *list) {
    struct answer answer = {
        .status = (int)find_number(list, "status", 200),
        .framing = find_framing(list),
        .pause = find_number(list, "mid", 0),
        .cut = asked(list, "close", "mid"),
    };
    char *memory = eat(find_number(list, "eat", 0));
    eat(find_number(list, "leak", 0));
    answer.close = request->close || answer.framing == UNTIL_CLOSE || asked(list, "close", "after");
    make_body(&answer, request, list);
    bool good = send_answer(conn, &answer, list);
    if (memory)
        munmap(memory, (size_t)find_number(list, "eat", 0) << 20);
    text_free(&answer.body);
    free(answer.type);
    return good;
}

static bool do_request(struct conn *conn, struct request *request, const char *list) {
    bool early = asked(list, "early", NULL);
    bool good = true;
    print(list);
    sleep_ms(find_number(list, "readdelay", 0));
    if (asked(list, "close", "early")) {
        if (request->framing != NO_BODY)
            wait_byte(conn);
        return false;
    }
    if (asked(list, "early", "close")) {
        request->close = true;
        return carry_out(conn, request, list);
    }
    if (early)
        good = carry_out(conn, request, list);
    int failed = read_body(conn, request, !early);
    if (failed || early)
        return failed > 0 ? refuse(conn, failed) : !failed && good;
    burn_ms(find_number(list, "burn", 0));
    sleep_ms(find_number(list, "sleep", 0));
    wait_for_file(list);
    end_if_asked(list);
    if (break_off(conn, list))
        return false;
    good = carry_out(conn, request, list);
    sleep_ms(find_number(list, "after", 0));
    return good;
}

bool answer_request(struct conn *conn, struct request *request) {
    /* A call through a trigger carries the client's headers with a prefix. */
    const char *list = find_header(request, "Fnt-Do");
    if (!list)
        list = find_header(request, "Fn-Http-H-Fnt-Do");
    if (strcmp(request->target, "/call"))
        return refuse(conn, 404);
    if (strcmp(request->method, "POST"))
        return refuse(conn, 405);
    /* The body is read first, so that the client sees the refusal and not a broken connection. */
    if (list && !check_list(list, REQUEST_KEYS))
        return read_body(conn, request, false) >= 0 && refuse(conn, 400);
    __atomic_add_fetch(&this_process.requests, 1, __ATOMIC_RELAXED);
    return do_request(conn, request, list ? list : "");
}
