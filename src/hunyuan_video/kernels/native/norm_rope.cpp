// RMSNorm of each head's features and their rotation by position, in one pass over the tokens, rounded where PyTorch rounds. Plain loops,
// of which a compiler makes vectors: reading and writing is most of the work.
#include <algorithm>
#include <cmath>

#include "numbers.h"
#include "parallel.h"

// As the class of this name in norm_rope.py. Strides are in values, of a batch, a token and a head; the features of a head lie together.
struct Norms {
    const void *x, *weight;
    const float *cos, *sin;  // [tokens, dim / 2]; null where nothing is rotated
    void* out;
    int64_t batch, tokens, heads, dim;
    int64_t x_stride[3], out_stride[3];
    Parallel parallel;
    int32_t threads;
};

namespace {

constexpr int64_t MAX_DIM = 256;  // as in paths.py
constexpr int64_t SOME = 16;      // tokens that a thread takes at a time
constexpr float EPS = 1e-6f;

template <class T>
float rounded(float x) {
    T narrowed;
    narrow(x, &narrowed);
    return wide(narrowed);
}

template <class T>
void of_head(const T* x, const float* weight, const float* cos, const float* sin, T* out, int64_t dim) {
    float numbers[MAX_DIM], squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < dim; i++) {
        numbers[i] = wide(x[i]);
        squares += numbers[i] * numbers[i];
    }
    const float scale = 1 / std::sqrt(squares / float(dim) + EPS);
    for (int64_t i = 0; i < dim; i++) numbers[i] = rounded<T>(rounded<T>(numbers[i] * scale) * weight[i]);
    if (!cos) {
        for (int64_t i = 0; i < dim; i++) narrow(numbers[i], out + i);
        return;
    }
    for (int64_t i = 0; i < dim / 2; i++) {
        const float even = numbers[2 * i], odd = numbers[2 * i + 1];
        narrow(even * cos[i] - odd * sin[i], out + 2 * i);
        narrow(odd * cos[i] + even * sin[i], out + 2 * i + 1);
    }
}

template <class T>
void of_all(const Norms& call) {
    float weight[MAX_DIM];
    for (int64_t i = 0; i < call.dim; i++) weight[i] = wide(static_cast<const T*>(call.weight)[i]);
    struct Nothing {};
    const int64_t blocks = (call.tokens + SOME - 1) / SOME;
    in_parallel<Nothing>(call.parallel, call.threads, call.batch * blocks, [&](int64_t, int64_t item) {
        const int64_t batch = item / blocks, first = item % blocks * SOME;
        for (int64_t token = first; token < std::min(first + SOME, call.tokens); token++) {
            const T* x = static_cast<const T*>(call.x) + batch * call.x_stride[0] + token * call.x_stride[1];
            T* out = static_cast<T*>(call.out) + batch * call.out_stride[0] + token * call.out_stride[1];
            const int64_t turn = token * call.dim / 2;
            for (int64_t head = 0; head < call.heads; head++)
                of_head(x + head * call.x_stride[2], weight, call.cos ? call.cos + turn : nullptr, call.cos ? call.sin + turn : nullptr,
                        out + head * call.out_stride[2], call.dim);
        }
    });
}

}  // namespace

extern "C" void norm_rope_float32(const Norms* call) { of_all<float>(*call); }
extern "C" void norm_rope_bfloat16(const Norms* call) { of_all<bfloat16>(*call); }
