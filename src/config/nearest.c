/* Owns the edit distance behind every "did you mean". */
#include "config/nearest.h"

#include <string.h>

enum { LONGEST = 63 }; /* longer words are no typing mistakes of ours */

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t pq_edit_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b), rows[3][LONGEST + 1];
    if (n > LONGEST || m > LONGEST) return n > m ? n : m;
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++) last[j] = before[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            now[j] = least(last[j - 1] + (a[i - 1] != b[j - 1]), least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
        size_t *reuse = before;
        before = last, last = now, now = reuse;
    }
    return last[m];
}

void pq_nearest_offer(pq_nearest *nearest, const char *word) {
    size_t distance = pq_edit_distance(nearest->wanted, word);
    size_t shorter = least(strlen(nearest->wanted), strlen(word));
    if (distance > 1 + shorter / 3 || distance >= shorter) return;
    if (nearest->best && distance >= nearest->distance) return;
    nearest->best = word;
    nearest->distance = distance;
}
