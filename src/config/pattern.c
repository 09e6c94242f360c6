/* Owns the matching of parameter names against patterns. */
#include "config/config.h"

bool pq_pattern_match(const char *pattern, const char *name) {
    const char *star = NULL, *retry = NULL; /* the last "*", and where its run of characters ends for now */
    while (*name) {
        if (*pattern == '*') {
            star = ++pattern;
            retry = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++, name++;
        } else if (star) {
            pattern = star;
            name = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}
