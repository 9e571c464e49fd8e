/* A libnvidia-ml.so.1 for tests: real pynvml code runs against a script instead of a driver.
 *
 * The file named by FAKE_NVML_SCRIPT has one line per fact (sizes in bytes, "-" is unknown):
 *   gpu UUID NAME TOTAL                     a GPU, in NVML's order; NAME without spaces
 *   mig UUID PARENT_UUID TOTAL              an instance; its GPU is in MIG mode then
 *   memory UUID USED [USED ...]             one figure per call, the last one stays
 *   process UUID PID USED|- compute|graphics
 *   error FUNCTION CODE SKIP COUNT [UUID]   calls SKIP+1 .. SKIP+COUNT fail; COUNT 0: for good
 *   delay FUNCTION MILLISECONDS SKIP COUNT [UUID]
 *   gate FUNCTION PATH SKIP COUNT [UUID]    the call returns once PATH exists
 * It is read at the first nvmlInitWithFlags; counters outlive a re-initialisation. Plain
 * nvmlInit is left out, so that torch, which looks for it, does not take this for a driver.
 * -DOLD_DRIVER leaves out what drivers before 510 lack.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MANY 32
typedef unsigned long long u64;
typedef struct { char uuid[96], name[96], parent[96]; u64 total, used[MANY]; int traced, asked; } Device;
typedef struct { char uuid[96]; unsigned pid; u64 used; int graphics; } Process;
typedef struct { char kind, function[64], value[256], uuid[96]; int skip, count, seen; } Rule;
typedef struct { char function[64]; int count; } Calls;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } Memory2;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } ProcessInfo;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Device devices[MANY]; static Process processes[MANY]; static Rule rules[MANY]; static Calls calls[MANY];
static int n_devices, n_processes, n_rules, n_calls, loaded, users;

static Device *find(const char *uuid) {
    for (int i = 0; i < n_devices; i++) if (!strcmp(devices[i].uuid, uuid)) return &devices[i];
    return NULL;
}

static void read_line(char *line) {
    char kind[16] = "", a[96] = "", b[256] = "", c[64] = "", d[64] = "", e[96] = "";
    sscanf(line, "%15s %95s %255s %63s %63s %95s", kind, a, b, c, d, e);
    if (!strcmp(kind, "gpu") || !strcmp(kind, "mig")) {
        Device *device = &devices[n_devices++];
        strcpy(device->uuid, a); device->total = strtoull(c, NULL, 10);
        strncpy(*kind == 'm' ? device->parent : device->name, b, 95);
    } else if (!strcmp(kind, "memory") && find(a)) {
        Device *device = find(a);
        strtok(line, " "); strtok(NULL, " ");
        for (char *word; (word = strtok(NULL, " \n"));) device->used[device->traced++] = strtoull(word, NULL, 10);
    } else if (!strcmp(kind, "process")) {
        Process *process = &processes[n_processes++];
        strcpy(process->uuid, a); process->pid = (unsigned)atoi(b);
        process->used = *c == '-' ? ~0ull : strtoull(c, NULL, 10); process->graphics = *d == 'g';
    } else if (!strcmp(kind, "error") || !strcmp(kind, "delay") || !strcmp(kind, "gate")) {
        Rule *rule = &rules[n_rules++];
        rule->kind = *kind; strncpy(rule->function, a, 63); strcpy(rule->value, b); strcpy(rule->uuid, e);
        rule->skip = atoi(c); rule->count = atoi(d);
    }
}

/* Counts the call, waits where the script says so and gives the error to return, 0 for none. */
static int enter(const char *function, Device *device) {
    int error = 0, delay_ms = 0; const char *gate = NULL;
    pthread_mutex_lock(&lock);
    int known = 0;
    for (int i = 0; i < n_calls; i++) if (!strcmp(calls[i].function, function)) { calls[i].count++; known = 1; }
    if (!known && n_calls < MANY) { strcpy(calls[n_calls].function, function); calls[n_calls++].count = 1; }
    for (int i = 0; i < n_rules; i++) {
        Rule *rule = &rules[i];
        if (strcmp(rule->function, function) || (*rule->uuid && (!device || strcmp(rule->uuid, device->uuid)))) continue;
        int nth = rule->seen++;
        if (nth < rule->skip || (rule->count && nth >= rule->skip + rule->count)) continue;
        if (rule->kind == 'e') error = atoi(rule->value);
        else if (rule->kind == 'd') delay_ms = atoi(rule->value);
        else gate = rule->value;
    }
    pthread_mutex_unlock(&lock);
    if (delay_ms) usleep(1000u * (unsigned)delay_ms);
    while (gate && access(gate, F_OK)) usleep(1000);
    return error ? error : !users && strcmp(function, "nvmlInitWithFlags") ? 1 : 0;
}
#define ENTER(device) do { int error = enter(__func__, device); if (error) return error; } while (0)

int fake_nvml_calls(const char *function) {
    for (int i = 0; i < n_calls; i++) if (!strcmp(calls[i].function, function)) return calls[i].count;
    return 0;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (!loaded++) {
        FILE *script = fopen(getenv("FAKE_NVML_SCRIPT"), "r");
        char line[1024];
        while (script && fgets(line, sizeof line, script)) read_line(line);
        if (script) fclose(script);
    }
    ENTER(NULL); users++; return 0;
}
int nvmlShutdown(void) { ENTER(NULL); users--; return 0; }
const char *nvmlErrorString(int code) {
    return code == 3 ? "Not Supported" : code == 4 ? "Insufficient Permissions" : code == 15 ? "GPU is lost"
         : code == 6 ? "Not Found" : code == 1 ? "Uninitialized" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    ENTER(NULL); snprintf(text, length, "580.95.05"); return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER(NULL); *count = 0;
    for (int i = 0; i < n_devices; i++) *count += !*devices[i].parent;
    return 0;
}
static int nth(const char *parent, unsigned index, Device **found) {
    for (int i = 0; i < n_devices; i++)
        if (!strcmp(devices[i].parent, parent) && !index--) { *found = &devices[i]; return 0; }
    return 6;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) { ENTER(NULL); return nth("", index, device); }
int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) { ENTER(find(uuid)); return (*device = find(uuid)) ? 0 : 6; }
int nvmlDeviceGetUUID(Device *device, char *out, unsigned size) { ENTER(device); snprintf(out, size, "%s", device->uuid); return 0; }
int nvmlDeviceGetName(Device *device, char *out, unsigned size) { ENTER(device); snprintf(out, size, "%s", device->name); return 0; }
int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) { ENTER(device); *major = 9; *minor = 0; return 0; }

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) { ENTER(device); *count = 7; return 0; }
int nvmlDeviceGetMigMode(Device *device, unsigned *now, unsigned *later) {
    Device *instance; ENTER(device); *now = *later = !nth(device->uuid, 0, &instance); return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **found) { ENTER(device); return nth(device->uuid, index, found); }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **found) { ENTER(device); return (*found = find(device->parent)) ? 0 : 6; }

static u64 next_used(Device *device) {
    int at = device->asked < device->traced ? device->asked++ : device->traced - 1;
    return at < 0 ? 0 : device->used[at];
}
/* Version 1 counts what the driver keeps for itself (1 MiB here) as used, version 2 does not. */
int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    ENTER(device); memory->total = device->total; memory->used = next_used(device) + (1 << 20);
    memory->free = memory->total - memory->used; return 0;
}
int nvmlDeviceGetUtilizationRates(Device *device, unsigned *rates) { ENTER(device); if (*device->parent) return 3; rates[0] = 42; rates[1] = 7; return 0; }
int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) { ENTER(device); (void)sensor; if (*device->parent) return 3; *celsius = 55; return 0; }
int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) { ENTER(device); if (*device->parent) return 3; *milliwatts = 123400; return 0; }

static int list(Device *device, int graphics, unsigned *count, ProcessInfo *out) {
    unsigned room = *count; *count = 0;
    for (int i = 0; i < n_processes; i++) {
        Process *process = &processes[i];
        if (process->graphics != graphics || strcmp(process->uuid, device->uuid)) continue;
        if (*count < room) out[*count] = (ProcessInfo){process->pid, process->used, 0, 0};
        ++*count;
    }
    return *count > room ? 7 : 0;
}
int nvmlDeviceGetComputeRunningProcesses_v2(Device *device, unsigned *count, ProcessInfo *out) { ENTER(device); return list(device, 0, count, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v2(Device *device, unsigned *count, ProcessInfo *out) { ENTER(device); return list(device, 1, count, out); }
#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, ProcessInfo *out) { ENTER(device); return list(device, 0, count, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device *device, unsigned *count, ProcessInfo *out) { ENTER(device); return list(device, 1, count, out); }
int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory2 *memory) {
    ENTER(device); memory->total = device->total; memory->reserved = 1 << 20; memory->used = next_used(device);
    memory->free = memory->total - memory->used - memory->reserved; return 0;
}
#endif
