/* Lists like "key=value;key;key=value", the form of Fnt-Do and of FNT_START. */
#define _GNU_SOURCE
#include "fnt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int hex(char c) {
    const char *digits = "0123456789abcdef0123456789ABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) % 16 : -1;
}

static char *decode(const char *from, size_t len) {
    char *value = malloc(len + 1), *to = value;
    if (!value)
        die("out of memory");
    for (size_t i = 0; i < len; i++) {
        if (from[i] == '%' && i + 2 < len && hex(from[i + 1]) >= 0 && hex(from[i + 2]) >= 0) {
            *to++ = (char)(hex(from[i + 1]) * 16 + hex(from[i + 2]));
            i += 2;
        } else {
            *to++ = from[i];
        }
    }
    *to = 0;
    return value;
}

char *find_key(const char *list, const char *key, int nth) {
    size_t key_len = strlen(key);
    while (list && *list) {
        list += strspn(list, "; ");
        size_t len = strcspn(list, ";");
        bool bare = len == key_len || (len > key_len && list[key_len] == ' ');
        bool named = !strncmp(list, key, key_len) && (bare || list[key_len] == '=');
        if (named && !nth--)
            return bare ? decode("", 0) : decode(list + key_len + 1, len - key_len - 1);
        list += len;
    }
    return NULL;
}

long find_number(const char *list, const char *key, long otherwise) {
    char *value = find_key(list, key, 0), *end;
    if (!value)
        return otherwise;
    long number = strtol(value, &end, 10);
    if (end == value || *end)
        die("%s=%s is not a number", key, value);
    free(value);
    return number;
}

bool asked(const char *list, const char *key, const char *for_value) {
    char *value = find_key(list, key, 0);
    bool yes = value && (!for_value || !strcmp(value, for_value));
    free(value);
    return yes;
}

static bool is_key(const char *name, size_t len, const char *const *known) {
    for (; *known; known++)
        if (strlen(*known) == len && !strncmp(name, *known, len))
            return true;
    return false;
}

bool check_list(const char *list, const char *const *known) {
    while (*list) {
        list += strspn(list, "; ");
        size_t len = strcspn(list, "=; ");
        if (len && !is_key(list, len, known)) {
            fprintf(stderr, "fnt: the key %.*s is not known\n", (int)len, list);
            return false;
        }
        list += strcspn(list, ";");
    }
    return true;
}
