// Bfloat16 by matrix units (AMX): tiles of 16 rows of 16 words.
#include "avx512-bf16.h"

struct Isa : Avx512Pairs {
    static constexpr int ROWS = 32, PANEL = 32, KEYS = 256, GROUP = 64, QUERIES = 128;

    // A thread's tiles, all of one shape.
    struct Thread {
        Thread() {
            struct alignas(64) {
                uint8_t palette = 1, start_row = 0, reserved[14] = {};
                uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
                uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
            } shape;
            _tile_loadconfig(&shape);
        }
        ~Thread() { _tile_release(); }
    };

    static INLINE void product(const word* a, int64_t lda, const word* b, float* c, int64_t ldc, int64_t steps, bool add) {
        asm volatile("" ::: "memory");  // compilers do not know that tiles read and write it
        if (add) {
            _tile_loadd(0, c, ldc * 4);
            _tile_loadd(1, c + 16, ldc * 4);
            _tile_loadd(2, c + 16 * ldc, ldc * 4);
            _tile_loadd(3, c + 16 * ldc + 16, ldc * 4);
        } else {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
        for (int64_t s = 0; s < steps; s += 16) {
            _tile_loadd(4, a + s, lda * 4);
            _tile_loadd(6, b + s * PANEL, PANEL * 4);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b + s * PANEL + 16, PANEL * 4);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, a + 16 * lda + s, lda * 4);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, c, ldc * 4);
        _tile_stored(1, c + 16, ldc * 4);
        _tile_stored(2, c + 16 * ldc, ldc * 4);
        _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
        asm volatile("" ::: "memory");
    }
};

extern "C" int attend_bfloat16(const Call* call) { return attend<Isa, bfloat16>(call); }
