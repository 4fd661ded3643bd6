// Float32 in vectors of sixteen. What is given in bfloat16 is computed in float32, too.
#include "avx512.h"

struct Isa : Avx512 {
    static constexpr int PACK = 1, ROWS = 12, PANEL = 32, KEYS = 128, GROUP = 48, QUERIES = 192;
    using Words = __m512;

    static INLINE Words load_words(const word* from) { return _mm512_loadu_ps(from); }
    static INLINE Words all_words(const word* from) { return _mm512_set1_ps(*reinterpret_cast<const float*>(from)); }
    static INLINE V multiply_add_words(V sum, Words a, Words b) { return _mm512_fmadd_ps(a, b, sum); }
    static void product(const word* a, int64_t lda, const word* b, float* c, int64_t ldc, int64_t steps, bool add) {
        product_of_vectors<Isa>(a, lda, b, c, ldc, steps, add);
    }
    static INLINE V exp2(V x) { return Avx512::exp2(x, EXP2); }
    static INLINE void store_shares(word* to, V one, V other) { _mm512_storeu_ps(to, one), _mm512_storeu_ps(to + LANES, other); }
};

extern "C" int attend_float32(const Call* call) { return attend<Isa, float>(call); }
extern "C" int attend_bfloat16(const Call* call) { return attend<Isa, bfloat16>(call); }
