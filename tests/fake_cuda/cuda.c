/* A libcuda.so.1 for tests: the real comfy-aimdo manages the pages of a card that is not there.
 *
 * Memory is counted, not given: addresses are reserved and cannot be touched. Tensors on the card
 * are torch's "meta" ones. Only what comfy-aimdo asks for is here. One thread at a time.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MANY 65536
#define OUT_OF_MEMORY 2
#define NOT_FOUND 500
#define PER_THREAD_STREAM 2

typedef int Result;
typedef unsigned long long u64;

static size_t total_bytes, used_bytes, others_bytes;
static struct { u64 handle; size_t size; } held[MANY];
static int n_held;
static u64 last_handle;

/* How large the card is, and what other programs hold of it. */
void fake_cuda_card(size_t total, size_t others) { total_bytes = total; others_bytes = others; }

/* What is free, as the driver says. */
size_t fake_cuda_free(void) {
    size_t taken = used_bytes + others_bytes;
    return taken < total_bytes ? total_bytes - taken : 0;
}

static Result take(u64 *handle, size_t size) {
    if (size > fake_cuda_free() || n_held == MANY) return OUT_OF_MEMORY;
    /* Addresses of the driver's are multiples of 2 MiB; handles may be, too. */
    *handle = ++last_handle << 21;
    held[n_held].handle = *handle;
    held[n_held++].size = size;
    used_bytes += size;
    return 0;
}

static Result give_back(u64 handle) {
    for (int i = n_held - 1; i >= 0; i--)
        if (held[i].handle == handle) {
            used_bytes -= held[i].size;
            held[i] = held[--n_held];
            return 0;
        }
    return 1;
}

Result cuInit(unsigned flags) { (void)flags; return 0; }
Result cuGetErrorString(Result code, const char **text) { (void)code; *text = "of the fake driver"; return 0; }
Result cuCtxGetDevice(int *device) { *device = 0; return 0; }
Result cuCtxSynchronize(void) { return 0; }
Result cuDeviceGet(int *device, int index) { *device = index; return 0; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) { (void)attribute; (void)device; *value = 0; return 0; }
Result cuDeviceTotalMem(size_t *bytes, int device) { (void)device; *bytes = total_bytes; return 0; }
Result cuDeviceGetName(char *name, int length, int device) { (void)device; strncpy(name, "fake", (size_t)length); return 0; }
Result cuDeviceGetUuid(char *uuid, int device) { (void)device; memset(uuid, 1, 16); return 0; }
Result cuMemGetInfo(size_t *free_bytes, size_t *bytes) { *free_bytes = fake_cuda_free(); *bytes = total_bytes; return 0; }

Result cuMemAlloc(u64 *pointer, size_t size) { return take(pointer, size); }
Result cuMemFree(u64 pointer) { return give_back(pointer); }
Result cuMemAllocAsync(u64 *pointer, size_t size, void *stream) { (void)stream; return take(pointer, size); }
Result cuMemFreeAsync(u64 pointer, void *stream) { (void)stream; return give_back(pointer); }
Result cuMemAllocAsync_ptsz(u64 *pointer, size_t size, void *stream) { (void)stream; return take(pointer, size); }
Result cuMemFreeAsync_ptsz(u64 pointer, void *stream) { (void)stream; return give_back(pointer); }

Result cuMemAllocHost(void **pointer, size_t size) { *pointer = malloc(size); return *pointer ? 0 : OUT_OF_MEMORY; }
Result cuMemFreeHost(void *pointer) { free(pointer); return 0; }
Result cuMemHostRegister(void *pointer, size_t size, unsigned flags) { (void)pointer; (void)size; (void)flags; return 0; }
Result cuMemHostUnregister(void *pointer) { (void)pointer; return 0; }

Result cuMemAddressReserve(u64 *pointer, size_t size, size_t alignment, u64 wish, u64 flags) {
    void *where = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    (void)alignment; (void)wish; (void)flags;
    if (where == MAP_FAILED) return OUT_OF_MEMORY;
    *pointer = (u64)where;
    return 0;
}
Result cuMemAddressFree(u64 pointer, size_t size) { return munmap((void *)pointer, size) ? 1 : 0; }
Result cuMemCreate(u64 *handle, size_t size, const void *wish, u64 flags) { (void)wish; (void)flags; return take(handle, size); }
Result cuMemRelease(u64 handle) { return give_back(handle); }
Result cuMemMap(u64 pointer, size_t size, size_t offset, u64 handle, u64 flags) {
    (void)pointer; (void)size; (void)offset; (void)handle; (void)flags;
    return 0;
}
Result cuMemUnmap(u64 pointer, size_t size) { (void)pointer; (void)size; return 0; }
Result cuMemSetAccess(u64 pointer, size_t size, const void *wish, size_t count) {
    (void)pointer; (void)size; (void)wish; (void)count;
    return 0;
}
Result cuMemcpyHtoDAsync(u64 to, const void *from, size_t size, void *stream) {
    (void)to; (void)from; (void)size; (void)stream;
    return 0;
}
Result cuEventCreate(void **event, unsigned flags) { (void)flags; *event = &last_handle; return 0; }
Result cuEventDestroy(void *event) { (void)event; return 0; }
Result cuEventRecord(void *event, void *stream) { (void)event; (void)stream; return 0; }
Result cuEventSynchronize(void *event) { (void)event; return 0; }

typedef void (*Function)(void);
#define HAS(name) { #name, (Function)name }
static const struct { const char *name; Function function; } functions[] = {
    HAS(cuInit), HAS(cuGetErrorString), HAS(cuCtxGetDevice), HAS(cuCtxSynchronize), HAS(cuDeviceGet),
    HAS(cuDeviceGetAttribute), HAS(cuDeviceTotalMem), HAS(cuDeviceGetName), HAS(cuDeviceGetUuid),
    HAS(cuMemGetInfo), HAS(cuMemAlloc), HAS(cuMemFree), HAS(cuMemAllocAsync), HAS(cuMemFreeAsync),
    HAS(cuMemAllocAsync_ptsz), HAS(cuMemFreeAsync_ptsz), HAS(cuMemAllocHost), HAS(cuMemFreeHost),
    HAS(cuMemHostRegister), HAS(cuMemHostUnregister), HAS(cuMemAddressReserve), HAS(cuMemAddressFree),
    HAS(cuMemCreate), HAS(cuMemRelease), HAS(cuMemMap), HAS(cuMemUnmap), HAS(cuMemSetAccess),
    HAS(cuMemcpyHtoDAsync), HAS(cuEventCreate), HAS(cuEventDestroy), HAS(cuEventRecord),
    HAS(cuEventSynchronize),
};

Result cuGetProcAddress(const char *name, void **found, int version, u64 flags, void *status) {
    size_t length = strlen(name);
    const char *ending = flags & PER_THREAD_STREAM ? "_ptsz" : "";
    (void)version; (void)status;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        const char *each = functions[i].name;
        if (!strncmp(each, name, length) && !strcmp(each + length, ending)) {
            *found = (void *)functions[i].function;
            return 0;
        }
    }
    return NOT_FOUND;
}
