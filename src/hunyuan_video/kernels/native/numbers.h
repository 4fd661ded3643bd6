// Float32 and bfloat16, read as float32 and rounded back to the nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

using word = uint32_t;
using bfloat16 = uint16_t;

inline float wide(float x) { return x; }

inline float wide(bfloat16 x) {
    const word bits = word(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline void narrow(float x, float* to) { *to = x; }

inline void narrow(float x, bfloat16* to) {
    word bits;
    std::memcpy(&bits, &x, 4);
    *to = bfloat16(x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
