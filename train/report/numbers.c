/* Owns how numbers of a report are written, and the intervals they come with. */
#include <math.h>
#include <stdio.h>

#include "train/report/data.h"

/* Student's t, 97.5 %, for 1, 2, ... degrees of freedom; beyond the table within 0.003. */
double pq_report_t(size_t freedom) {
    static const double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    const size_t known = sizeof t / sizeof *t;
    if (!freedom) return NAN;
    return freedom <= known ? t[freedom - 1] : 1.96 + 2.4 / (double)freedom;
}

pq_text pq_text_interval(double from, double to, int digits) {
    pq_text text = {"–"};
    if (!isfinite(from) || !isfinite(to)) return text;
    snprintf(text.at, sizeof text.at, fabs(to) < 1e6 && fabs(from) < 1e6 ? "%.*f to %.*f" : "%.*e to %.*e",
             digits, from, digits, to);
    return text;
}

pq_text pq_text_difference(pq_difference d) {
    pq_text text = {"–"};
    if (isfinite(d.mean)) snprintf(text.at, sizeof text.at, fabs(d.mean) < 1e6 ? "%+.4f" : "%+.3e", d.mean);
    return text;
}

#define UNKNOWN "–"

pq_text pq_text_count(double value) {
    pq_text text = {UNKNOWN};
    char digits[40];
    if (!(fabs(value) < 1e15)) return text;
    int length = snprintf(digits, sizeof digits, "%.0f", value), o = 0;
    for (int i = 0; i < length; i++) {
        if (i > (digits[0] == '-') && (length - i) % 3 == 0) text.at[o++] = ',';
        text.at[o++] = digits[i];
    }
    text.at[o] = 0;
    return text;
}

static pq_text with_error(double value, double se, int digits) {
    pq_text text = {UNKNOWN};
    if (isnan(value)) return text;
    int length = snprintf(text.at, sizeof text.at, fabs(value) < 1e6 ? "%.*f" : "%.*e", digits, value);
    if (!isnan(se) && length < 30)
        snprintf(text.at + length, sizeof text.at - (size_t)length, fabs(se) < 1e6 ? " ± %.*f" : " ± %.*e",
                 digits, se);
    return text;
}

pq_text pq_text_loss(double loss, double se) {
    return with_error(loss, se, 4);
}

pq_text pq_text_perplexity(double loss, double se) {
    double perplexity = exp(loss);
    return with_error(perplexity, perplexity * se, perplexity < 100 ? 3 : perplexity < 1e4 ? 1 : 0);
}

pq_text pq_text_bytes(double bytes) {
    pq_text text = {UNKNOWN};
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int unit = 0;
    if (isnan(bytes)) return text;
    for (; bytes >= 1000 && unit < 4; unit++) bytes /= 1000;
    snprintf(text.at, sizeof text.at, "%.*f %s",
             unit == 0     ? 0
             : bytes < 10  ? 2
             : bytes < 100 ? 1
                           : 0,
             bytes, units[unit]);
    return text;
}

pq_text pq_text_seconds(double seconds) {
    pq_text text = {UNKNOWN};
    if (!(seconds >= 0 && seconds < 1e12)) return text;
    long long s = llround(seconds);
    if (s >= 3600)
        snprintf(text.at, sizeof text.at, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text.at, sizeof text.at, "%lld:%02lld", s / 60, s % 60);
    return text;
}
