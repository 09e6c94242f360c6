/* Owns the normal distribution; the generator itself is inline in the header. */
#include "base/random.h"

#include <math.h>

void pq_random_normal2(uint64_t seed, pq_stream stream, uint64_t a, uint64_t b, double out[2]) {
    uint32_t r[4];
    pq_random4(seed, stream, a, b, r);
    double u = 1.0 - pq_random_unit(r[0], r[1]),
           angle = 6.283185307179586476925287 * pq_random_unit(r[2], r[3]);
    double radius = sqrt(-2.0 * log(u));
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}
