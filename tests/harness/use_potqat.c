/* A program outside the repository: reads a config with libpotqat. */
#include <potqat/config.h>
#include <stdio.h>

int main(void) {
    const char *overrides[] = {"train.lr=1e-3"}, yaml[] = "model: {layers: 2, heads: 2, width: 32}\n";
    pq_error err = {0};
    pq_config *config = NULL;
    pq_status status = pq_config_from_text(yaml, sizeof yaml - 1, "here", overrides, 1, &config, &err);
    printf("status %d %s\n", (int)status, err.message);
    pq_config_destroy(config);
    return pq_exit_code(status);
}
