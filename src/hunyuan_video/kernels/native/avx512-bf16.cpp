// Bfloat16 by vdpbf16ps, which multiplies sixteen pairs and adds them to float32.
#include "avx512-bf16.h"

struct Isa : Avx512Pairs {
    static constexpr int ROWS = 12, PANEL = 32, KEYS = 256, GROUP = 48, QUERIES = 192;
    using Words = __m512bh;

    static INLINE Words load_words(const word* from) { return (Words)_mm512_loadu_si512(from); }
    static INLINE Words all_words(const word* from) { return (Words)_mm512_set1_epi32(int(*from)); }
    static INLINE V multiply_add_words(V sum, Words a, Words b) { return _mm512_dpbf16_ps(sum, a, b); }
    static void product(const word* a, int64_t lda, const word* b, float* c, int64_t ldc, int64_t steps, bool add) {
        product_of_vectors<Isa>(a, lda, b, c, ldc, steps, add);
    }
};

extern "C" int attend_bfloat16(const Call* call) { return attend<Isa, bfloat16>(call); }
