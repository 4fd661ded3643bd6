// Pairs of bfloat16, for the paths that multiply them.
#pragma once
#include "avx512.h"

struct Avx512Pairs : Avx512 {
    static constexpr int PACK = 2;

    static INLINE V exp2(V x) { return Avx512::exp2(x, EXP2_ROUGH); }
    static INLINE void store_shares(word* to, V one, V other) { _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(other, one)); }
};
