/* Stands in for NVIDIA's management library: exports what a node asks of it, and reads how many
 * GPUs there are and which is lost from a file, one digit and one index, named at build time. */
#include <stdio.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, LOST = 15 };

static int initialized;
static struct device { int index; } devices[16];

static void state(int *count, int *lost) {
    *count = 0;
    *lost = -1;
    FILE *file = fopen(STATE, "r");
    if (file) {
        if (fscanf(file, "%d %d", count, lost) < 1) *count = 0;
        fclose(file);
    }
}

static int check(struct device *device) {
    int count, lost;
    state(&count, &lost);
    return device->index == lost ? LOST : OK;
}

int nvmlInit_v2(void) { initialized = 1; return OK; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { initialized = 0; return OK; }
const char *nvmlErrorString(int code) { (void)code; return "an error"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "550.00");
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *found) {
    int count, lost;
    if (!initialized) return UNINITIALIZED;
    state(&count, &lost);
    *found = (unsigned)count;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device) {
    if (index >= 16) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *device = &devices[index];
    return OK;
}

int nvmlDeviceGetName(struct device *device, char *text, unsigned length) {
    int code = check(device);
    if (code == OK) snprintf(text, length, "Imaginary T1000");
    return code;
}

int nvmlDeviceGetUUID(struct device *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-0000000%d", device->index);
    return OK;
}

struct memory { unsigned version; unsigned long long total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct memory *memory) {
    int code = check(device);
    memory->total = 16ULL << 30;
    memory->reserved = 0;
    memory->free = 15ULL << 30;
    memory->used = 1ULL << 30;
    return code;
}

struct rates { unsigned gpu, memory; };

int nvmlDeviceGetUtilizationRates(struct device *device, struct rates *rates) {
    rates->gpu = 42;
    rates->memory = 7;
    return check(device);
}

int nvmlDeviceGetTotalEccErrors(struct device *device, int kind, int counter, unsigned long long *count) {
    (void)device; (void)kind; (void)counter; (void)count;
    return NOT_SUPPORTED;
}
