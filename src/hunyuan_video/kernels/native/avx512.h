// Vectors of sixteen float32, for the paths that have them.
#pragma once
#include <immintrin.h>

#include "flash.h"

struct Avx512 {
    using V = __m512;
    static constexpr int LANES = 16;
    struct Thread {};

    static INLINE V load(const float* from) { return _mm512_loadu_ps(from); }
    static INLINE void store(float* to, V x) { _mm512_storeu_ps(to, x); }
    static INLINE V all(float x) { return _mm512_set1_ps(x); }
    static INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
    static INLINE V multiply(V a, V b) { return _mm512_mul_ps(a, b); }
    static INLINE V multiply_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
    static INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
    static INLINE bool any_above(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
    static INLINE float most(V x) { return _mm512_reduce_max_ps(x); }
    static INLINE float sum(V x) { return _mm512_reduce_add_ps(x); }

    // x is not above 8 or so; -1e30 gives zero.
    template <int N>
    static INLINE V exp2(V x, const float (&factors)[N]) {
        const V above_floor = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        return _mm512_scalef_ps(polynomial<Avx512>(above_floor, factors), x);  // which takes the floor of x
    }

    static INLINE void transpose(const word* from, int64_t lda, word* to, int64_t ldb) {
        __m512 a[16], b[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * lda);
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {  // four rows of each quarter
            const __m512d x = _mm512_castps_pd(b[i / 4 * 4 + i % 4 / 2]), y = _mm512_castps_pd(b[i / 4 * 4 + i % 4 / 2 + 2]);
            a[i] = _mm512_castpd_ps(i % 2 ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {  // a[i + 4 n] has the columns i, i + 4, i + 8, i + 12 of the rows 4 n to 4 n + 3
            const __m512 even = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), odd = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
            const __m512 even2 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88), odd2 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
            _mm512_storeu_ps(to + i * ldb, _mm512_shuffle_f32x4(even, even2, 0x88));
            _mm512_storeu_ps(to + (i + 4) * ldb, _mm512_shuffle_f32x4(odd, odd2, 0x88));
            _mm512_storeu_ps(to + (i + 8) * ldb, _mm512_shuffle_f32x4(even, even2, 0xdd));
            _mm512_storeu_ps(to + (i + 12) * ldb, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
        }
    }
};

