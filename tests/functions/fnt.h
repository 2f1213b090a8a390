/* fnt: a Fn function server for tests. What each part may use of the others. */
#ifndef FNT_H
#define FNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- text: a growing byte buffer, always NUL-terminated when not empty --- */

struct text {
    char *at;
    size_t len, cap;
};

/* Room for `more` bytes after the present ones. */
void text_room(struct text *text, size_t more);
void text_add(struct text *text, const void *data, size_t len);
void text_str(struct text *text, const char *string);
void text_fmt(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_json(struct text *text, const char *string);
void text_free(struct text *text);

/* Ends the process with a message: bad settings and exhausted memory. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void sleep_ms(long ms);
void wait_for_file(const char *list); /* the file of `until`, if that is asked for */

/* --- lists: "key=value;key;key=value" --- */

/* The value of `key` in a "key=value;key" list, percent-decoded and allocated; "" for a bare key,
 * NULL if it is not there. `nth` counts repetitions from 0. */
char *find_key(const char *list, const char *key, int nth);
/* As a number; `otherwise` if the key is missing. A value that is no number ends the process. */
long find_number(const char *list, const char *key, long otherwise);
/* Whether the key is there; with for_value, whether it is there with exactly that value. */
bool asked(const char *list, const char *key, const char *for_value);
/* Whether all keys are known (NULL ends the table); reports an unknown one on stderr. */
bool check_list(const char *list, const char *const *known);

/* --- http: one connection, requests strictly one after the other --- */

#define MAX_HEADERS 256
#define MAX_HEAD (1 << 20)

struct conn {
    int fd;
    struct text in; /* received, not yet used bytes are in.at[used .. in.len) */
    size_t used;
};

struct header {
    const char *name, *value;
};

enum framing { NO_BODY, LENGTH, CHUNKED, UNTIL_CLOSE };

struct request {
    struct text head; /* names, values, method and target point into it */
    const char *method, *target;
    struct header headers[MAX_HEADERS];
    size_t header_count;
    enum framing framing;
    uint64_t length;
    bool close; /* the client asked for it */
    struct text body;
};

/* 0 = a request, -1 = the peer is gone, else the status of the refusal. */
int read_head(struct conn *conn, struct request *request);
/* 0 = complete (kept in request->body if keep), -1 = the peer is gone, 400 = malformed. */
int read_body(struct conn *conn, struct request *request, bool keep);
/* Waits for the next unread byte. False when the peer is gone. */
bool wait_byte(struct conn *conn);
/* Waits until the peer has closed its end. */
void wait_close(struct conn *conn);
const char *find_header(const struct request *request, const char *name);
bool send_all(struct conn *conn, const void *data, size_t len);
bool send_two(struct conn *conn, const void *a, size_t a_len, const void *b, size_t b_len);
void request_free(struct request *request);

/* --- do: what one request asks for --- */

struct process {
    char id[17]; /* random, of this process */
    unsigned long requests;
};
extern struct process this_process;

/* An open JSON object about process and request; the caller closes it. */
void add_identity(struct text *body, const struct request *request);
/* The whole object of `env`. */
void describe(struct text *body, const struct request *request);
void read_path(struct text *body, const char *path);
void write_path(struct text *body, const char *path, const struct request *request);
void start_child(struct text *body);
/* Memory of so many MB, all of it touched. NULL for 0. */
char *eat(long mb);

/* Answers one request whose head was read. Whether the connection can go on. */
bool answer_request(struct conn *conn, struct request *request);
bool refuse(struct conn *conn, int status);
#endif
