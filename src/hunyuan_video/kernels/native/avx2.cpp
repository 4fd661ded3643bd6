// Float32 in vectors of eight. What is given in bfloat16 is computed in float32, too.
#include <immintrin.h>

#include "flash.h"

struct Isa {
    static constexpr int PACK = 1, ROWS = 6, PANEL = 16, KEYS = 128, GROUP = 48, QUERIES = 96, LANES = 8;
    using V = __m256;
    using Words = __m256;
    struct Thread {};

    static INLINE V load(const float* from) { return _mm256_loadu_ps(from); }
    static INLINE void store(float* to, V x) { _mm256_storeu_ps(to, x); }
    static INLINE V all(float x) { return _mm256_set1_ps(x); }
    static INLINE V add(V a, V b) { return _mm256_add_ps(a, b); }
    static INLINE V multiply(V a, V b) { return _mm256_mul_ps(a, b); }
    static INLINE V multiply_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
    static INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
    static INLINE bool any_above(V a, V b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; }
    static float most(V x) {
        float values[LANES];
        store(values, x);
        return *std::max_element(values, values + LANES);
    }
    static float sum(V x) {
        float values[LANES], all = 0;
        store(values, x);
        for (float value : values) all += value;
        return all;
    }

    // x is not above 8 or so. Below -126 it is taken for that; where it is NaN it stays so, for max gives its second operand then.
    static INLINE V exp2(V x) {
        x = _mm256_max_ps(all(-126), x);
        const V floor = _mm256_floor_ps(x);
        const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(floor), 23);
        const V fraction = polynomial<Isa>(_mm256_sub_ps(x, floor), EXP2);
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(fraction), exponent));
    }

    static INLINE void store_shares(word* to, V one, V other) {
        store(reinterpret_cast<float*>(to), one), store(reinterpret_cast<float*>(to) + LANES, other);
    }

    static INLINE Words load_words(const word* from) { return load(reinterpret_cast<const float*>(from)); }
    static INLINE Words all_words(const word* from) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(from)); }
    static INLINE V multiply_add_words(V sum, Words a, Words b) { return _mm256_fmadd_ps(a, b, sum); }
    static void product(const word* a, int64_t lda, const word* b, float* c, int64_t ldc, int64_t steps, bool add) {
        product_of_vectors<Isa>(a, lda, b, c, ldc, steps, add);
    }

    static INLINE void transpose(const word* from, int64_t lda, word* to, int64_t ldb) {
        __m256 a[8], b[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) a[i] = load_words(from + i * lda);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i += 2) b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {  // four rows of each half
            const V x = b[i / 4 * 4 + i % 4 / 2], y = b[i / 4 * 4 + i % 4 / 2 + 2];
            a[i] = i % 2 ? _mm256_shuffle_ps(x, y, 0xee) : _mm256_shuffle_ps(x, y, 0x44);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {  // a[i] has the columns i and i + 4 of the first four rows, a[i + 4] of the last
            store(reinterpret_cast<float*>(to + i * ldb), _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
            store(reinterpret_cast<float*>(to + (i + 4) * ldb), _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
        }
    }
};

extern "C" int attend_float32(const Call* call) { return attend<Isa, float>(call); }
extern "C" int attend_bfloat16(const Call* call) { return attend<Isa, bfloat16>(call); }
