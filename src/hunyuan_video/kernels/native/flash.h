// Attention in blocks (FlashAttention, arXiv 2205.14135): softmax(q k^T * scale) v without a mask, of which only a block of scores exists.
//
// Each path is a file that gives its instructions as a class `Isa` and is compiled alone, with the flags for just these (see paths.py).
// A word is 32 bits: one float32, or PACK = 2 neighbouring bfloat16, which bfloat16 instructions multiply and add at once. Isa has
//
//   PACK, ROWS, PANEL   values of a word; rows and columns of a product
//   KEYS, QUERIES, GROUP   keys of a block, at most; queries that see it before the next one; and of these, those whose scores exist at once
//   product(a, lda, b, c, ldc, steps, add)   c[ROWS, PANEL] = or += a[ROWS, steps words] b[steps words, PANEL]
//   transpose(from, lda, to, ldb)   LANES rows of LANES words
//   V, LANES and functions of so many float32; store_shares, which rounds them where PACK is 2
//   Thread   an object that each thread has while it works
//
// Keys and values are packed once a head, as `product` reads them: keys as panels [width words, PANEL keys], values for each block of
// keys as panels [keys words, PANEL features]. What is beyond the last key or feature is zero.
//
// As in the paper, of a block: S its scores, m the largest of a query so far, P = exp2(S - m), rounded as values are, l the sum of P so far.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "numbers.h"
#include "parallel.h"

#define INLINE inline __attribute__((always_inline))

// As the class of this name in paths.py. Strides are in values, of a batch, a token and a head; the features of a head lie together.
struct Call {
    const void *q, *k, *v;
    void* out;
    int64_t batch, queries, keys, heads, dim;
    int64_t q_stride[3], k_stride[3], v_stride[3], out_stride[3];
    Parallel parallel;
    int32_t threads;
    float scale;
    // Null where every query sees every key. Else for each head (or once, for all alike) and each block of queries the blocks of keys that
    // it sees: the first `counts` of `most` numbers.
    const int32_t *seen, *counts;
    int64_t lists, most, query_block, key_block;
};

// 2^x for x in [0, 1), by increasing power: with a relative error of 8e-8, and of 8e-5 for what is rounded to bfloat16.
constexpr float EXP2[] = {9.999999251e-01f, 6.931530731e-01f, 2.401536173e-01f, 5.582631767e-02f, 8.989340283e-03f, 1.877576680e-03f};
constexpr float EXP2_ROUGH[] = {9.999252205e-01f, 6.958335289e-01f, 2.260671678e-01f, 7.802452307e-02f};

template <class Isa, int N>
INLINE typename Isa::V polynomial(typename Isa::V x, const float (&factors)[N]) {
    auto sum = Isa::all(factors[N - 1]);
#pragma GCC unroll 8
    for (int i = N - 2; i >= 0; i--) sum = Isa::multiply_add(sum, x, Isa::all(factors[i]));
    return sum;
}

// As `product` in an Isa of vectors: multiply_add of a word that all lanes have with a vector of words.
template <class Isa>
INLINE void product_of_vectors(const word* a, int64_t lda, const word* b, float* c, int64_t ldc, int64_t steps, bool add) {
    constexpr int ROWS = Isa::ROWS, COLUMNS = Isa::PANEL / Isa::LANES;
    typename Isa::V sums[ROWS][COLUMNS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; j++) sums[r][j] = add ? Isa::load(c + r * ldc + j * Isa::LANES) : Isa::all(0);
    for (int64_t s = 0; s < steps; s++) {
        typename Isa::Words columns[COLUMNS];
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; j++) columns[j] = Isa::load_words(b + s * Isa::PANEL + j * Isa::LANES);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            auto row = Isa::all_words(a + r * lda + s);
#pragma GCC unroll 4
            for (int j = 0; j < COLUMNS; j++) sums[r][j] = Isa::multiply_add_words(sums[r][j], row, columns[j]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; j++) Isa::store(c + r * ldc + j * Isa::LANES, sums[r][j]);
}

inline int64_t many(int64_t value, int64_t size) { return (value + size - 1) / size; }

inline int64_t up(int64_t value, int64_t multiple) { return many(value, multiple) * multiple; }

template <int PACK>
void to_words(const float* from, int64_t count, word* to, int64_t words) {
    std::memcpy(to, from, count * 4);
    std::memset(to + count, 0, (words - count) * 4);
}

template <int PACK>
void to_words(const bfloat16* from, int64_t count, word* to, int64_t words) {
    if (PACK == 1) {
        for (int64_t i = 0; i < count; i++) to[i] = word(from[i]) << 16;
        std::memset(to + count, 0, (words - count) * 4);
    } else {
        std::memcpy(to, from, count * 2);
        std::memset(reinterpret_cast<bfloat16*>(to) + count, 0, words * 4 - count * 2);
    }
}

template <class T>
void store(T* to, const float* from, float factor, int64_t count) {
    for (int64_t i = 0; i < count; i++) narrow(from[i] * factor, to + i);
}

template <class Isa, class In>
class Flash {
    static_assert(Isa::KEYS >= 128 && 64 % Isa::PANEL == 0);  // blocks of lists are of 64 or 128
    static constexpr int64_t PACK = Isa::PACK, PANEL = Isa::PANEL, ROWS = Isa::ROWS, LANES = Isa::LANES, KEYS = Isa::KEYS;
    static constexpr int64_t QUERIES = Isa::QUERIES, GROUP = Isa::GROUP;
    static constexpr int64_t S_STRIDE = KEYS + 16, P_STRIDE = KEYS / PACK + 16;  // of a row; rows a power of two apart would evict each other
    static constexpr int64_t PACKED = 1 << 24;  // bytes of keys and values that are packed at once, or one head's
    static constexpr float SLACK = 8;  // P may be up to 2^8 before l and the output are scaled anew, which is seldom

    // What one thread needs beside the packed keys and values.
    struct Scratch {
        word *queries, *P;
        float *S, *out, *l, *m;

        static int64_t size(int64_t rows, int64_t width) {
            return 4 * (rows * (width / PACK + width + LANES + 1) + GROUP * (P_STRIDE + S_STRIDE));
        }

        Scratch(char* memory, int64_t rows, int64_t width) {
            auto take = [&](int64_t words) { return reinterpret_cast<word*>(std::exchange(memory, memory + words * 4)); };
            queries = take(rows * width / PACK);
            P = take(GROUP * P_STRIDE);
            S = reinterpret_cast<float*>(PACK == 1 ? P : take(GROUP * S_STRIDE));
            out = reinterpret_cast<float*>(take(rows * width));
            l = reinterpret_cast<float*>(take(rows * LANES));
            m = reinterpret_cast<float*>(take(rows));
        }
    };

  public:
    explicit Flash(const Call& call)
        : call(call),
          width(up(call.dim, PANEL)),
          words(width / PACK),
          padded(up(call.keys, PANEL)),
          span(call.seen ? call.key_block : KEYS),
          rows(call.seen ? call.query_block : QUERIES),
          factor(call.scale * 1.44269504f) {
        const int64_t all = call.batch * call.heads;
        while (rows > QUERIES) rows /= 2;
        while (rows % (2 * ROWS) == 0 && rows >= 2 * LANES && all * blocks() < 4 * call.threads) rows /= 2;
        heads = std::clamp<int64_t>(PACKED / (2 * padded * words * 4), 1, all);
        while (heads < all && heads * blocks() < 4 * call.threads) heads++;
    }

    // False: there is not enough memory.
    bool run() {
        const int64_t of_head = padded * words, all = call.batch * call.heads, room = up(rows, ROWS);
        const int64_t of_thread = up(Scratch::size(room, width), 64);
        std::unique_ptr<char, decltype(&std::free)> memory(
            static_cast<char*>(std::aligned_alloc(64, up(2 * heads * of_head * 4 + call.threads * of_thread, 64))), &std::free);
        if (!memory) return false;
        word* packed = reinterpret_cast<word*>(memory.get());
        char* scratch = memory.get() + 2 * heads * of_head * 4;
        std::memset(scratch, 0, call.threads * of_thread);  // rows beyond the last query are computed, too
        const int64_t key_blocks = many(call.keys, span), query_blocks = blocks();
        for (int64_t first = 0; first < all; first += heads) {
            const int64_t count = std::min(heads, all - first);
            auto keys_of = [&](int64_t head) { return packed + 2 * (head - first) * of_head; };
            auto scratch_of = [&](int64_t thread) { return Scratch(scratch + thread * of_thread, room, width); };
            run_each(count * key_blocks, [&](int64_t thread, int64_t item) {
                const int64_t head = first + item / key_blocks;
                pack(head, item % key_blocks * span, keys_of(head), keys_of(head) + of_head, scratch_of(thread));
            });
            run_each(count * query_blocks, [&](int64_t thread, int64_t item) {
                const int64_t head = first + item / query_blocks;
                attend(head, item % query_blocks * rows, keys_of(head), keys_of(head) + of_head, scratch_of(thread));
            });
        }
        return true;
    }

  private:
    const Call& call;
    const int64_t width, words, padded;  // features of a head, also as words, and keys, with the padding
    const int64_t span;                  // keys of a block, which are packed together
    int64_t rows, heads;                 // queries of a block, and heads that are packed at once
    const float factor;                  // from products to logarithms to the base 2

    int64_t blocks() const { return many(call.queries, rows); }

    template <class Body>
    void run_each(int64_t items, Body body) const {
        in_parallel<typename Isa::Thread>(call.parallel, call.threads, items, body);
    }

    const In* row(const void* of, const int64_t (&stride)[3], int64_t head, int64_t token) const {
        return static_cast<const In*>(of) + head / call.heads * stride[0] + token * stride[1] + head % call.heads * stride[2];
    }

    // A block of keys and values, which begins with key `start`.
    void pack(int64_t head, int64_t start, word* keys, word* values, Scratch scratch) const {
        const int64_t count = std::min(span, call.keys - start), with_padding = up(count, PANEL);
        word* some = scratch.queries;
        for (int64_t n = 0; n < with_padding; n += LANES) {
            for (int64_t i = 0; i < LANES; i++) {
                if (n + i < count)
                    to_words<PACK>(row(call.k, call.k_stride, head, start + n + i), call.dim, some + i * words, words);
                else
                    std::memset(some + i * words, 0, words * 4);
            }
            word* to = keys + (start + n) / PANEL * PANEL * words + n % PANEL;
            for (int64_t w = 0; w < words; w += LANES) Isa::transpose(some + w, words, to + w * PANEL, PANEL);
        }
        word* block = values + start * words;
        for (int64_t n = 0; n < with_padding; n += PACK) {
            for (int64_t i = 0; i < PACK; i++) {
                if (n + i < count)
                    to_words<PACK>(row(call.v, call.v_stride, head, start + n + i), call.dim, some + i * words, words);
                else
                    std::memset(some + i * words, 0, words * 4);
            }
            for (int64_t p = 0; p < width; p += PANEL) {
                word* to = block + p * with_padding / PACK + n / PACK * PANEL;
                if (PACK == 1) {
                    std::memcpy(to, some + p, PANEL * 4);
                } else {
                    auto *one = reinterpret_cast<bfloat16*>(some) + p, *other = one + width;
                    for (int64_t i = 0; i < PANEL; i++) to[i] = one[i] | word(other[i]) << 16;
                }
            }
        }
    }

    // A block of queries, which begins with query `start`.
    void attend(int64_t head, int64_t start, const word* keys, const word* values, Scratch scratch) const {
        const int64_t count = std::min(rows, call.queries - start), with_padding = up(count, ROWS);
        for (int64_t i = 0; i < count; i++)
            to_words<PACK>(row(call.q, call.q_stride, head, start + i), call.dim, scratch.queries + i * words, words);
        std::memset(scratch.out, 0, with_padding * width * 4);
        std::memset(scratch.l, 0, count * LANES * 4);
        std::fill_n(scratch.m, count, -std::numeric_limits<float>::infinity());
        const int64_t list = call.seen ? head % call.lists * many(call.queries, call.query_block) + start / call.query_block : 0;
        const int64_t blocks = call.seen ? call.counts[list] : many(call.keys, span);
        for (int64_t i = 0; i < blocks; i++) {
            const int64_t block = (call.seen ? call.seen[list * call.most + i] : i) * span;
            const int64_t some = std::min(span, call.keys - block), some_padded = up(some, PANEL);
            const word *some_keys = keys + block * words, *some_values = values + block * words;
            for (int64_t g = 0; g < with_padding; g += GROUP) {
                const int64_t end = std::min(g + GROUP, with_padding);
                for (int64_t p = 0; p < some_padded; p += PANEL)
                    for (int64_t r = g; r < end; r += ROWS) {
                        const word* queries = scratch.queries + r * words;
                        Isa::product(queries, words, some_keys + p * words, scratch.S + (r - g) * S_STRIDE + p, S_STRIDE, words, false);
                    }
                for (int64_t r = g; r < std::min(end, count); r++) {
                    float* S = scratch.S + (r - g) * S_STRIDE;
                    std::fill(S + some, S + some_padded, -1e30f);
                    softmax(r, S, scratch.P + (r - g) * P_STRIDE, some_padded, scratch);
                }
                const int64_t steps = some_padded / PACK;
                for (int64_t p = 0; p < width; p += PANEL)
                    for (int64_t r = g; r < end; r += ROWS) {
                        const word* P = scratch.P + (r - g) * P_STRIDE;
                        Isa::product(P, P_STRIDE, some_values + p * steps, scratch.out + r * width + p, width, steps, true);
                    }
            }
        }
        for (int64_t i = 0; i < count; i++) {
            const float sum = Isa::sum(Isa::load(scratch.l + i * LANES));
            store(const_cast<In*>(row(call.out, call.out_stride, head, start + i)), scratch.out + i * width, 1 / sum, call.dim);
        }
    }

    // Of one query: S becomes P, by the largest score so far, which is summed.
    INLINE void softmax(int64_t r, const float* S, word* P, int64_t keys, Scratch& scratch) const {
        float *out = scratch.out + r * width, *l = scratch.l + r * LANES, &m = scratch.m[r];
        auto most = Isa::load(S);
        for (int64_t j = LANES; j < keys; j += LANES) most = Isa::max(most, Isa::load(S + j));
        most = Isa::multiply(most, Isa::all(factor));
        if (Isa::any_above(most, Isa::all(m + SLACK))) {
            const float before = std::exchange(m, Isa::most(most));
            const auto less = Isa::all(std::exp2(before - m));
            Isa::store(l, Isa::multiply(Isa::load(l), less));
            for (int64_t i = 0; i < width; i += LANES) Isa::store(out + i, Isa::multiply(Isa::load(out + i), less));
        }
        auto sum = Isa::load(l);
        const auto times = Isa::all(factor), minus = Isa::all(-m);
        for (int64_t j = 0; j < keys; j += 2 * LANES) {
            const auto one = Isa::exp2(Isa::multiply_add(Isa::load(S + j), times, minus));
            const auto other = Isa::exp2(Isa::multiply_add(Isa::load(S + j + LANES), times, minus));
            sum = Isa::add(sum, Isa::add(one, other));
            Isa::store_shares(P + j / PACK, one, other);
        }
        Isa::store(l, sum);
    }
};

// 0: done. 1: there is not enough memory.
template <class Isa, class In>
int attend(const Call* call) {
    return Flash<Isa, In>(*call).run() ? 0 : 1;
}
