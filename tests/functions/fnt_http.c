/* HTTP/1.1 for fnt: strict about framing, so that a wrong request is noticed and not guessed at. */
#define _GNU_SOURCE
#include "fnt.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define READ_SIZE (64 * 1024)

/* Receives more into conn->in. False at the end of the stream or on an error. */
static bool receive(struct conn *conn) {
    if (conn->used == conn->in.len)
        conn->in.len = conn->used = 0;
    if (conn->in.cap < conn->in.len + READ_SIZE + 1) {
        /* Moving the rest to the front first keeps the buffer from growing with every request. */
        if (conn->used)
            memmove(conn->in.at, conn->in.at + conn->used, conn->in.len - conn->used);
        conn->in.len -= conn->used;
        conn->used = 0;
        text_room(&conn->in, READ_SIZE);
    }
    ssize_t got;
    do
        got = recv(conn->fd, conn->in.at + conn->in.len, READ_SIZE, 0);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return false;
    conn->in.len += (size_t)got;
    return true;
}

bool wait_byte(struct conn *conn) {
    return conn->used < conn->in.len || receive(conn);
}

void wait_close(struct conn *conn) {
    struct pollfd fd = {.fd = conn->fd, .events = POLLRDHUP};
    while (poll(&fd, 1, -1) < 0 && errno == EINTR) {
    }
}

bool send_two(struct conn *conn, const void *a, size_t a_len, const void *b, size_t b_len) {
    struct iovec parts[2] = {{(void *)a, a_len}, {(void *)b, b_len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    while (parts[0].iov_len + parts[1].iov_len) {
        ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        for (int i = 0; i < 2; i++) {
            size_t part = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
            parts[i].iov_base = (char *)parts[i].iov_base + part;
            parts[i].iov_len -= part;
            sent -= (ssize_t)part;
        }
    }
    return true;
}

bool send_all(struct conn *conn, const void *data, size_t len) {
    return send_two(conn, data, len, NULL, 0);
}

/* Takes one line without its CRLF off the input and appends it to `line`, NUL-terminated.
 * 0 = done, -1 = the peer is gone, else the status of the refusal. */
static int read_line(struct conn *conn, struct text *line, size_t limit) {
    size_t seen = 0;
    for (;;) {
        char *from = conn->in.at + conn->used;
        size_t len = conn->in.len - conn->used;
        char *end = len > seen ? memchr(from + seen, '\n', len - seen) : NULL;
        if (end) {
            size_t size = (size_t)(end - from);
            if (!size || end[-1] != '\r' || memchr(from, 0, size))
                return 400;
            text_add(line, from, size - 1);
            text_add(line, "", 1);
            conn->used += size + 1;
            return line->len > limit ? 431 : 0;
        }
        seen = len;
        if (line->len + len > limit)
            return 431;
        if (!receive(conn))
            return -1;
    }
}

const char *find_header(const struct request *request, const char *name) {
    for (size_t i = 0; i < request->header_count; i++)
        if (!strcasecmp(request->headers[i].name, name))
            return request->headers[i].value;
    return NULL;
}

static int count_headers(const struct request *request, const char *name) {
    int count = 0;
    for (size_t i = 0; i < request->header_count; i++)
        count += !strcasecmp(request->headers[i].name, name);
    return count;
}

static bool parse_number(const char *digits, int base, uint64_t *number) {
    const char *allowed = base == 16 ? "0123456789abcdefABCDEF" : "0123456789";
    if (!*digits || digits[strspn(digits, allowed)])
        return false;
    errno = 0;
    *number = strtoull(digits, NULL, base);
    return !errno && *number <= INT64_MAX;
}

static int parse_framing(struct request *request) {
    const char *length = find_header(request, "Content-Length");
    const char *coding = find_header(request, "Transfer-Encoding");
    const char *connection = find_header(request, "Connection");
    request->close = connection && !strcasecmp(connection, "close");
    if (count_headers(request, "Content-Length") > 1 || count_headers(request, "Host") != 1 ||
        count_headers(request, "Transfer-Encoding") > 1)
        return 400;
    if (coding) {
        if (length || strcasecmp(coding, "chunked"))
            return 400;
        request->framing = CHUNKED;
    } else if (length) {
        if (!parse_number(length, 10, &request->length))
            return 400;
        request->framing = LENGTH;
    }
    return 0;
}

static int split_request_line(struct request *request) {
    char *method = request->head.at;
    char *target = strchr(method, ' ');
    if (!target)
        return 400;
    *target++ = 0;
    char *version = strchr(target, ' ');
    if (!version || strcmp(version, " HTTP/1.1"))
        return 400;
    *version = 0;
    request->method = method;
    request->target = target;
    return 0;
}

static int split_header(char *line, struct header *header) {
    char *colon = strchr(line, ':');
    char *blank = strpbrk(line, " \t");
    if (!colon || colon == line || (blank && blank < colon))
        return 400;
    *colon = 0;
    char *value = colon + 1 + strspn(colon + 1, " \t");
    for (char *end = value + strlen(value); end > value && strchr(" \t", end[-1]); end--)
        end[-1] = 0;
    *header = (struct header){line, value};
    return 0;
}

int read_head(struct conn *conn, struct request *request) {
    /* Lines are found by their offsets until the buffer has stopped moving. */
    size_t lines[MAX_HEADERS + 1], count = 0;
    for (;;) {
        size_t at = request->head.len;
        int failed = read_line(conn, &request->head, MAX_HEAD);
        if (failed)
            return failed;
        if (request->head.len == at + 1)
            break;
        if (count > MAX_HEADERS)
            return 431;
        lines[count++] = at;
    }
    if (!count || split_request_line(request))
        return 400;
    for (size_t i = 1; i < count; i++)
        if (split_header(request->head.at + lines[i], &request->headers[i - 1]))
            return 400;
    request->header_count = count - 1;
    return parse_framing(request);
}

/* Moves `len` bytes of the input to the body, or drops them. */
static int take(struct conn *conn, struct request *request, uint64_t len, bool keep) {
    while (len) {
        if (!wait_byte(conn))
            return -1;
        size_t part = conn->in.len - conn->used;
        part = part < len ? part : (size_t)len;
        if (keep)
            text_add(&request->body, conn->in.at + conn->used, part);
        conn->used += part;
        len -= part;
    }
    return 0;
}

static int take_chunked(struct conn *conn, struct request *request, bool keep) {
    struct text line = {0};
    int failed;
    uint64_t size;
    while (!(failed = read_line(conn, &line, 1024))) {
        line.at[strcspn(line.at, "; \t")] = 0;
        if (!parse_number(line.at, 16, &size)) {
            failed = 400;
            break;
        }
        line.len = 0;
        if (!size)
            break;
        if ((failed = take(conn, request, size, keep)) || (failed = read_line(conn, &line, 16)))
            break;
        if (line.len != 1) {
            failed = 400;
            break;
        }
        line.len = 0;
    }
    /* Trailers, up to the empty line. */
    while (!failed && !(failed = read_line(conn, &line, MAX_HEAD)) && line.len != 1)
        line.len = 0;
    text_free(&line);
    return failed == 431 ? 400 : failed;
}

int read_body(struct conn *conn, struct request *request, bool keep) {
    switch (request->framing) {
    case LENGTH:
        return take(conn, request, request->length, keep);
    case CHUNKED:
        return take_chunked(conn, request, keep);
    default:
        return 0;
    }
}

void request_free(struct request *request) {
    text_free(&request->head);
    text_free(&request->body);
}
