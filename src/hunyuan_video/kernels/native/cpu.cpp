// Which paths this CPU and its system have. Compiled for any CPU.
#include <cpuid.h>
#include <cstdint>
#include <cstring>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>

static bool may_use_tiles() {  // a process asks for their 8 KB of state, once
    const long request = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#else
static bool may_use_tiles() { return false; }
#endif

static uint64_t saved_by_system() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t(high) << 32 | low;
}

extern "C" int has(const char* path) {
    uint32_t eax, ebx, ecx, edx, basic;
    if (!__get_cpuid(1, &eax, &ebx, &basic, &edx) || !(basic >> 27 & 1)) return 0;  // the system saves no vectors
    const uint64_t saved = saved_by_system();
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    uint32_t more = 0, b, c, d;
    __get_cpuid_count(7, 1, &more, &b, &c, &d);
    const bool avx2 = (saved & 0x6) == 0x6 && (basic >> 12 & 1) && (ebx >> 5 & 1);
    const bool avx512 = avx2 && (saved & 0xe6) == 0xe6 && (ebx >> 16 & 1) && (ebx >> 17 & 1);  // f, dq
    const bool bf16 = avx512 && (ebx >> 30 & 1) && (ebx >> 31 & 1) && (more >> 5 & 1);         // bw, vl, bf16
    if (!std::strcmp(path, "avx2")) return avx2;
    if (!std::strcmp(path, "avx512")) return avx512;
    if (!std::strcmp(path, "avx512-bf16")) return bf16;
    if (!std::strcmp(path, "amx")) return bf16 && (edx >> 22 & 1) && (edx >> 24 & 1) && (saved >> 17 & 3) == 3 && may_use_tiles();
    return 0;
}
