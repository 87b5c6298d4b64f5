// The operations between the matrix products of bfloat16 training on a CPU, each in as few passes over memory as
// possible.
//
// Arrays are contiguous. bfloat16 is stored as uint16_t, arithmetic is float32, 16 numbers at a time: widths are
// multiples of 32. Each row is computed by one thread, and sums over rows go through a fixed number of partial sums, so
// results do not depend on the number of threads. `keylm/model/kernels/ops.py` documents the functions and has the same
// in torch.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

using bf16 = uint16_t;

namespace {

// Sixteen numbers: one register where the processor has such wide ones, several elsewhere.
using Floats [[gnu::vector_size(64)]] = float;
using Words [[gnu::vector_size(64)]] = uint32_t;
using Halves [[gnu::vector_size(32)]] = uint16_t;
constexpr int64_t LANES = 16;

template <typename Vector>
inline Vector load(const void* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof(vector));
    return vector;
}

template <typename Vector>
inline void store(void* to, Vector vector) {
    std::memcpy(to, &vector, sizeof(vector));
}

constexpr float LOG2_E = 1.44269504f;

// Instructions that compilers do not find by themselves, and the same in plain C++:
//   widen: zero-extend to 32 bits.
//   down: round to bfloat16, to nearest, ties to even.
//   exp2: 2^x with a relative error of 3e-6; 0 for -infinity. NaN stays NaN.
//   reciprocal: 1 / x with a relative error of 1e-7; 0 for infinity.
//   Pairs: 16 pairs of bfloat16 of a matrix product, and add_products: sums + a.even * b.even + a.odd * b.odd.
#ifdef __AVX512BF16__
inline Words widen(Halves x) { return Words(_mm512_cvtepu16_epi32(__m256i(x))); }
inline Halves down(Floats x) { return Halves(_mm512_cvtneps_pbh(x)); }
inline Floats exp2(Floats x) {
    const Floats r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);  // x - floor(x)
    const Floats p = (((1.342668e-2f * r + 5.224247e-2f) * r + 2.412802e-1f) * r + 6.9304484e-1f) * r + 1.0f;
    return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}
inline Floats reciprocal(Floats x) {
    const Floats r = _mm512_rcp14_ps(x);
    return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.0f)), r);
}
inline float sum(Floats x) { return _mm512_reduce_add_ps(x); }
inline float max(Floats x) { return _mm512_reduce_max_ps(x); }

using Pairs = __m512bh;
inline Pairs load_pairs(const bf16* x) { return Pairs(load<__m512i>(x)); }
inline Pairs repeat_pair(const bf16* x) { return Pairs(_mm512_set1_epi32(load<int32_t>(x))); }
inline Floats add_products(Floats sums, Pairs a, Pairs b) { return _mm512_dpbf16_ps(sums, a, b); }
#else
inline Words widen(Halves x) { return __builtin_convertvector(x, Words); }
inline Halves down(Floats x) {
    const Words bits = Words(x);
    return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
}
inline Floats exp2(Floats x) {
    float power[LANES];
    for (int64_t i = 0; i < LANES; i++) power[i] = x[i] < -127.0f ? -127.0f : x[i];
    // The integer part goes into the exponent bits, the rest through a polynomial that is exact at 0.
    for (int64_t i = 0; i < LANES; i++) {
        const float n = __builtin_rintf(power[i]), r = power[i] - n;
        const float p = (((9.5828427e-3f * r + 5.59064262e-2f) * r + 2.40240991e-1f) * r + 6.93124175e-1f) * r + 1.0f;
        power[i] = p * load<float>(std::array{(int32_t(n) + 127) << 23}.data());
    }
    return load<Floats>(power);
}
inline Floats reciprocal(Floats x) { return 1.0f / x; }
inline float sum(Floats x) {
    for (int64_t half = LANES / 2; half; half /= 2)
        for (int64_t i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}
inline float max(Floats x) {
    for (int64_t half = LANES / 2; half; half /= 2)
        for (int64_t i = 0; i < half; i++) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
    return x[0];
}

struct Pairs {
    Floats even, odd;
};
inline Pairs pairs_of(Words x) { return {Floats(x << 16), Floats(x & 0xffff0000)}; }
inline Pairs load_pairs(const bf16* x) { return pairs_of(load<Words>(x)); }
inline Pairs repeat_pair(const bf16* x) { return pairs_of(Words{} + load<uint32_t>(x)); }
inline Floats add_products(Floats sums, const Pairs& a, const Pairs& b) {
    return sums + a.even * b.even + a.odd * b.odd;
}
#endif

inline Floats up(const bf16* x) { return Floats(widen(load<Halves>(x)) << 16); }
inline void store_down(bf16* to, Floats x) { store(to, down(x)); }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
// Not above e^88, which is near float32's largest number.
inline Floats exp(Floats x) { return exp2((x > 88.0f ? 88.0f : x) * LOG2_E); }
inline Floats sigmoid(Floats x) { return reciprocal(1.0f + exp(-x)); }

// The sum of term(i) for the 16 columns from each i on.
template <typename Term>
inline float sum_over(int64_t width, Term term) {
    Floats even{}, odd{};  // Two sums, since an addition waits for the one before it.
    for (int64_t i = 0; i < width; i += 2 * LANES) even += term(i), odd += term(i + LANES);
    return sum(even + odd);
}

inline float inverse_rms(const bf16* x, int64_t width, float eps) {
    return 1.0f / std::sqrt(sum_over(width, [=](int64_t i) { return up(x + i) * up(x + i); }) / width + eps);
}

// Call `work` with the width of a head. The usual one is a constant, so that the loops over it are unrolled.
template <typename Work>
inline void with_head_dim(int64_t D, Work work) {
    if (D == 64)
        work(std::integral_constant<int64_t, 64>());
    else
        work(D);
}

constexpr int64_t PARTS = 32;  // partial sums over rows

struct Rows {
    int64_t first, last;
};

inline Rows part_of(int64_t rows, int64_t part) { return {rows * part / PARTS, rows * (part + 1) / PARTS}; }

// Product of two blocks, C (M, N) = A (M, K) B (K, N), or +=. Pairs of rows of B are interleaved. Either torch's
// at::native::cpublas::brgemm, which calls oneDNN and needs AMX, or `block_product` below.
using Product = void (*)(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add,
                         const bf16* A, const bf16* B, float* C, bool interleaved);
using Release = void (*)(bool interleaved);

// Memory of one thread, aligned to a cache line: products of blocks whose rows straddle cache lines take two to four
// times as long.
template <typename T>
class Scratch {
public:
    explicit Scratch(int64_t count) : data_(static_cast<T*>(::operator new(count * sizeof(T), LINE))) {}
    ~Scratch() { ::operator delete(data_, LINE); }
    Scratch(const Scratch&) = delete;
    operator T*() { return data_; }

private:
    static constexpr std::align_val_t LINE{64};
    T* data_;
};

// One tile of a product, (ROWS, 16 * COLUMNS): its sums stay in registers, hence the constant sizes.
template <int ROWS, int COLUMNS>
inline void tile_product(int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add, const bf16* A, const bf16* B,
                         float* C) {
    Floats sums[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) sums[r][c] = add ? load<Floats>(C + r * ld_c + LANES * c) : Floats{};
    for (int64_t k = 0; k < K; k += 2) {
        Pairs b[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) b[c] = load_pairs(B + k * ld_b + 2 * LANES * c);
        for (int r = 0; r < ROWS; r++) {
            const Pairs a = repeat_pair(A + r * ld_a + k);
            for (int c = 0; c < COLUMNS; c++) sums[r][c] = add_products(sums[r][c], a, b[c]);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) store(C + r * ld_c + LANES * c, sums[r][c]);
}

constexpr int64_t QUERIES = 64;  // a block of queries
constexpr int64_t KEYS = 512;    // a block of keys, at most

// (rows, width) with a leading dimension, to interleaved (rows / 2, width, 2).
void interleave(const bf16* x, int64_t stride, int64_t rows, int64_t width, bf16* out) {
    for (int64_t r = 0; r < rows; r += 2) {
        const bf16 *even = x + r * stride, *odd = even + stride;
        uint32_t* pairs = reinterpret_cast<uint32_t*>(out + r * width);
        for (int64_t i = 0; i < width; i += LANES)
            store(pairs + i, widen(load<Halves>(even + i)) | widen(load<Halves>(odd + i)) << 16);
    }
}

constexpr int64_t TILE = LANES;

// Transpose a tile: a perfect shuffle turns the bits of an index by one, four of them by half.
inline void transpose_tile(uint32_t* tile) {
    alignas(64) uint32_t other[TILE * TILE];
    const auto shuffle = [](const uint32_t* from, uint32_t* to) {
#pragma omp simd
        for (int64_t i = 0; i < TILE * TILE / 2; i++) {
            to[2 * i] = from[i];
            to[2 * i + 1] = from[i + TILE * TILE / 2];
        }
    };
    shuffle(tile, other);
    shuffle(other, tile);
    shuffle(tile, other);
    shuffle(other, tile);
}

// Transpose a tile of (32, 16), each with a leading dimension.
inline void transpose_pairs(const bf16* x, int64_t stride, bf16* out, int64_t out_stride) {
    alignas(64) uint32_t tile[TILE * TILE];
    interleave(x, stride, 2 * TILE, TILE, reinterpret_cast<bf16*>(tile));
    transpose_tile(tile);
    for (int64_t t = 0; t < TILE; t++) std::memcpy(out + t * out_stride, tile + t * TILE, 4 * TILE);
}

// Transpose and round a tile of (16, 16).
inline void transpose_down(const float* x, int64_t stride, bf16* out, int64_t out_stride) {
    alignas(64) uint32_t tile[TILE * TILE];
    for (int64_t t = 0; t < TILE; t++) std::memcpy(tile + t * TILE, x + t * stride, 4 * TILE);
    transpose_tile(tile);
    for (int64_t t = 0; t < TILE; t++) store_down(out + t * out_stride, load<Floats>(tile + t * TILE));
}

// (rows, width) with a leading dimension, to the interleaved transpose (width / 2, rows, 2). Rows are a multiple of 16,
// the width of 32.
void interleave_transposed(const bf16* x, int64_t stride, int64_t rows, int64_t width, bf16* out) {
    alignas(64) uint32_t tile[TILE * TILE];
    for (int64_t r = 0; r < rows; r += TILE)
        for (int64_t i = 0; i < width; i += 2 * TILE) {
            for (int64_t t = 0; t < TILE; t++) std::memcpy(tile + t * TILE, x + (r + t) * stride + i, 4 * TILE);
            transpose_tile(tile);
            for (int64_t t = 0; t < TILE; t++)
                std::memcpy(out + (i / 2 + t) * 2 * rows + 2 * r, tile + t * TILE, 4 * TILE);
        }
}

// weights = 2^(scale * scores - top) for `count` scores, a multiple of 64; top is the largest of scale * scores.
// Returns the sum of the weights.
float softmax_row(const float* scores, int64_t count, float scale, bf16* weights, float* top) {
    Floats tops[4], sums[4] = {};
    for (Floats& lanes : tops) lanes = Floats{} - INFINITY;
    for (int64_t j = 0; j < count; j += 4 * LANES)
        for (int c = 0; c < 4; c++) tops[c] = larger(load<Floats>(scores + j + LANES * c), tops[c]);
    *top = scale * max(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
    for (int64_t j = 0; j < count; j += 4 * LANES)
        for (int c = 0; c < 4; c++) {
            const Floats e = exp2(load<Floats>(scores + j + LANES * c) * scale - *top);
            sums[c] += e;
            store_down(weights + j + LANES * c, e);
        }
    return sum(sums[0] + sums[1] + sums[2] + sums[3]);
}

// For a pair of keys and a block of queries, of which the first `hidden` (and one more for the second key) do not see
// them: weights p = 2^(scores * scale * log2(e) - log_sums), and the gradients of the scores, ds = p (dp - delta) scale,
// by rows and with the two rows interleaved.
void softmax_backward_pair(const float* scores, const float* dp, const float* log_sums, const float* delta, float scale,
                           int64_t hidden, bf16* p, bf16* ds, bf16* ds_pairs) {
    const Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int64_t i = 0; i < QUERIES; i += LANES) {
        Halves gradients[2];
        for (int64_t j = 0; j < 2; j++) {
            const int64_t at = j * QUERIES + i;
            const Floats weight = exp2(load<Floats>(scores + at) * (scale * LOG2_E) - load<Floats>(log_sums + i));
            const Floats e = lane < uint32_t(std::max<int64_t>(0, hidden + j - i)) ? 0.0f : weight;
            gradients[j] = down(e * (load<Floats>(dp + at) - load<Floats>(delta + i)) * scale);
            store_down(p + at, e);
            store(ds + at, gradients[j]);
        }
        store(ds_pairs + 2 * i, widen(gradients[0]) | widen(gradients[1]) << 16);
    }
}

constexpr int64_t STRIP = 32;  // columns of a cache line

// Call work(row, column) for all tiles of (rows, width), in an order that touches few cache lines
// and pages at a time.
template <typename Work>
void by_tiles(int64_t rows, int64_t width, int64_t height, Work work) {
    constexpr int64_t BAND = 256;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t first = 0; first < rows; first += BAND)
        for (int64_t left = 0; left < width; left += STRIP)
            for (int64_t r = first; r < std::min(first + BAND, rows); r += height)
                for (int64_t i = left; i < std::min(left + STRIP, width); i += TILE) work(r, i);
}

}  // namespace

extern "C" {

// `Product` for processors without AMX. M is a multiple of 4, N of 32, K of 2.
void block_product(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add, const bf16* A,
                   const bf16* B, float* C, bool) {
    for (int64_t n = 0; n < N; n += 64)
        for (int64_t m = 0; m < M; m += 4) {
            const auto tile = n + 64 <= N ? tile_product<4, 4> : tile_product<4, 2>;
            tile(K, ld_a, ld_b, ld_c, add, A + m * ld_a, B + 2 * n, C + m * ld_c + n);
        }
}

void block_release(bool) {}

// total = x + delta; out = total / rms(total) * weight.
void add_rms_norm(const bf16* x, const bf16* delta, const float* weight, bf16* total, bf16* out, int64_t rows,
                  int64_t width, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const int64_t first = r * width;
        for (int64_t i = 0; i < width; i += LANES)
            store_down(total + first + i, up(x + first + i) + up(delta + first + i));
        const float scale = inverse_rms(total + first, width, eps);
        for (int64_t i = 0; i < width; i += LANES)
            store_down(out + first + i, up(total + first + i) * scale * load<Floats>(weight + i));
    }
}

// Gradient of the above with respect to total, including grad_total (that of the residual stream, or null); the
// weight's gradient is the sum of `parts` (PARTS, width). `out` is recomputed, so it need not be kept between forward
// and backward.
void add_rms_norm_backward(const bf16* total, const float* weight, const bf16* grad_out, const bf16* grad_total,
                           bf16* grad, bf16* out, float* parts, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < PARTS; part++) {
        float* grad_weight = parts + part * width;
        std::fill(grad_weight, grad_weight + width, 0.0f);
        Rows mine = part_of(rows, part);
        for (int64_t r = mine.first; r < mine.last; r++) {
            const bf16 *x = total + r * width, *g = grad_out + r * width;
            const float scale = inverse_rms(x, width, eps);
            const float dot = sum_over(width, [=](int64_t i) {
                const Floats product = up(g + i) * up(x + i) * scale;
                store(grad_weight + i, load<Floats>(grad_weight + i) + product);
                return product * load<Floats>(weight + i);
            }) / width;
            const bf16* along = grad_total ? grad_total + r * width : nullptr;
            for (int64_t i = 0; i < width; i += LANES) {
                const Floats normed = up(x + i) * scale, weights = load<Floats>(weight + i);
                const Floats own = scale * (up(g + i) * weights - normed * dot);
                store_down(out + r * width + i, normed * weights);
                store_down(grad + r * width + i, along ? own + up(along + i) : own);
            }
        }
    }
}

// silu(gate) * up, for gate_up (rows, 2 width).
void swiglu(const bf16* gate_up, bf16* out, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const bf16 *gate = gate_up + r * 2 * width, *value = gate + width;
        bf16* o = out + r * width;
        for (int64_t i = 0; i < width; i += LANES) {
            const Floats x = up(gate + i);
            store_down(o + i, x * sigmoid(x) * up(value + i));
        }
    }
}

// Gradient with respect to gate_up. The result is recomputed, so it need not be kept between forward and backward.
void swiglu_backward(const bf16* gate_up, const bf16* grad_out, bf16* grad, bf16* out, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const bf16 *gate = gate_up + r * 2 * width, *value = gate + width, *go = grad_out + r * width;
        bf16 *grad_gate = grad + r * 2 * width, *grad_value = grad_gate + width, *o = out + r * width;
        for (int64_t i = 0; i < width; i += LANES) {
            const Floats x = up(gate + i), s = sigmoid(x), v = up(value + i), g = up(go + i);
            store_down(o + i, x * s * v);
            store_down(grad_value + i, g * x * s);
            store_down(grad_gate + i, g * v * s * (1.0f + x * (1.0f - s)));
        }
    }
}

// Split qkv (batch, time, N + 2K, D) into q (batch, N, time, D), k and v (batch, K, time, D); norm queries and keys,
// and rotate them by their positions. rotary is (2, batch or 1, time, D): cosines, then sines.
void split_norm_rope(const bf16* qkv, const float* q_weight, const float* k_weight, const float* rotary, bf16* q,
                     bf16* k, bf16* v, int64_t batch, int64_t time, int64_t N, int64_t K, int64_t head_dim,
                     int64_t rotary_batch, float eps) {
    with_head_dim(head_dim, [=](auto D) {
        const int64_t half = D / 2;
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < batch * time; r++) {
            int64_t b = r / time, t = r % time;
            const float* cos = rotary + (rotary_batch == 1 ? t : r) * D;
            const float* sin = cos + rotary_batch * time * D;
            for (int64_t h = 0; h < N + K; h++) {
                const bf16* x = qkv + (r * (N + 2 * K) + h) * D;
                const float* weight = h < N ? q_weight : k_weight;
                bf16* o = h < N ? q + ((b * N + h) * time + t) * D : k + ((b * K + h - N) * time + t) * D;
                const float scale = inverse_rms(x, D, eps);
                for (int64_t i = 0; i < half; i += LANES) {
                    const Floats left = up(x + i) * scale * load<Floats>(weight + i);
                    const Floats right = up(x + half + i) * scale * load<Floats>(weight + half + i);
                    const Floats c = load<Floats>(cos + i), s = load<Floats>(sin + i);
                    store_down(o + i, left * c - right * s);
                    store_down(o + half + i, right * c + left * s);
                }
            }
            for (int64_t h = 0; h < K; h++)
                std::memcpy(v + ((b * K + h) * time + t) * D, qkv + (r * (N + 2 * K) + N + K + h) * D, 2 * D);
        }
    });
}

// Gradient of the above with respect to qkv; those of the norms' weights are the sums of `parts` (PARTS, 2, D).
void split_norm_rope_backward(const bf16* qkv, const float* q_weight, const float* k_weight, const float* rotary,
                              const bf16* grad_q, const bf16* grad_k, const bf16* grad_v, bf16* grad, float* parts,
                              int64_t batch, int64_t time, int64_t N, int64_t K, int64_t head_dim, int64_t rotary_batch,
                              float eps) {
    with_head_dim(head_dim, [=](auto D) {
        const int64_t half = D / 2;
#pragma omp parallel for schedule(static)
        for (int64_t part = 0; part < PARTS; part++) {
            float* sums = parts + part * 2 * D;
            std::fill(sums, sums + 2 * D, 0.0f);
            Scratch<float> g(D);
            Rows mine = part_of(batch * time, part);
            for (int64_t r = mine.first; r < mine.last; r++) {
                int64_t b = r / time, t = r % time;
                const float* cos = rotary + (rotary_batch == 1 ? t : r) * D;
                const float* sin = cos + rotary_batch * time * D;
                for (int64_t h = 0; h < N + K; h++) {
                    const bf16* x = qkv + (r * (N + 2 * K) + h) * D;
                    bf16* o = grad + (r * (N + 2 * K) + h) * D;
                    const bf16* go = h < N ? grad_q + ((b * N + h) * time + t) * D
                                           : grad_k + ((b * K + h - N) * time + t) * D;
                    const float* weight = h < N ? q_weight : k_weight;
                    float* grad_weight = h < N ? sums : sums + D;
                    for (int64_t i = 0; i < half; i += LANES) {
                        const Floats left = up(go + i), right = up(go + half + i);
                        const Floats c = load<Floats>(cos + i), s = load<Floats>(sin + i);
                        store(g + i, left * c + right * s);
                        store(g + half + i, right * c - left * s);
                    }
                    const float scale = inverse_rms(x, D, eps);
                    const float dot = sum_over(D, [&](int64_t i) {
                        const Floats product = load<Floats>(g + i) * up(x + i) * scale;
                        store(grad_weight + i, load<Floats>(grad_weight + i) + product);
                        return product * load<Floats>(weight + i);
                    }) / D;
                    for (int64_t i = 0; i < D; i += LANES) {
                        const Floats normed = up(x + i) * scale;
                        store_down(o + i, scale * (load<Floats>(g + i) * load<Floats>(weight + i) - normed * dot));
                    }
                }
                for (int64_t h = 0; h < K; h++)
                    std::memcpy(grad + (r * (N + 2 * K) + N + K + h) * D, grad_v + ((b * K + h) * time + t) * D, 2 * D);
            }
        }
    });
}

// Causal attention (Dao et al. 2022): q (batch, N, time, D), k and v (batch, K, time, D), out (batch, time, N, D);
// lse (batch, N, time) is the logarithm, to base 2, of each softmax's denominator, for the backward pass.
void attention(Product product, Release release, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse,
               int64_t batch, int64_t N, int64_t K, int64_t time, int64_t D) {
    const int64_t group = N / K;
    const float scale = LOG2_E / std::sqrt(float(D));
#pragma omp parallel
    {
        Scratch<bf16> keys(time * D), values(time * D), weights(QUERIES * time);
        Scratch<float> scores(QUERIES * time), sums(QUERIES), block(QUERIES * D);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * K; task++) {
            interleave_transposed(k + task * time * D, D, time, D, keys);
            interleave(v + task * time * D, D, time, D, values);
            for (int64_t head = task * group; head < (task + 1) * group; head++)
                for (int64_t first = 0; first < time; first += QUERIES) {
                    const int64_t seen = first + QUERIES;
                    product(QUERIES, seen, D, D, time, time, false, q + (head * time + first) * D, keys,
                            scores, true);
                    for (int64_t r = 0; r < QUERIES; r++) {
                        float *row = scores + r * time, top;
                        std::fill(row + first + r + 1, row + seen, -INFINITY);
                        const float sum = softmax_row(row, seen, scale, weights + r * time, &top);
                        sums[r] = 1.0f / sum;
                        lse[head * time + first + r] = top + std::log2(sum);
                    }
                    product(QUERIES, D, seen, time, D, D, false, weights, values, block, true);
                    for (int64_t r = 0; r < QUERIES; r++) {
                        bf16* o = out + (((head / N) * time + first + r) * N + head % N) * D;
                        for (int64_t i = 0; i < D; i += LANES)
                            store_down(o + i, load<Floats>(block + r * D + i) * sums[r]);
                    }
                }
        }
        release(true);
    }
}

// Gradients of the above. Scores are recomputed, transposed: keys down, queries across.
void attention_backward(Product product, Release release, const bf16* q, const bf16* k, const bf16* v,
                        const bf16* out, const float* lse, const bf16* grad_out, bf16* grad_q, bf16* grad_k,
                        bf16* grad_v, int64_t batch, int64_t N, int64_t K, int64_t time, int64_t D) {
    const int64_t group = N / K, keys_at_once = std::min(KEYS, time), B = QUERIES;
    const float scale = 1.0f / std::sqrt(float(D));
#pragma omp parallel
    {
        Scratch<bf16> keys_down(D * time), p(keys_at_once * B), ds(keys_at_once * B), ds_pairs(keys_at_once * B);
        Scratch<bf16> q_across(B * D), q_pairs(B * D), go_across(B * D), go_pairs(B * D);
        Scratch<float> scores(keys_at_once * B), dp(keys_at_once * B), dq(D * B), delta(B), dk(time * D), dv(time * D);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * K; task++) {
            const bf16 *keys = k + task * time * D, *values = v + task * time * D;
            for (int64_t t = 0; t < time; t += 2 * TILE)
                for (int64_t i = 0; i < D; i += TILE)
                    transpose_pairs(keys + t * D + i, D, keys_down + i * time + t, time);
            std::fill(&dk[0], &dk[time * D], 0.0f);
            std::fill(&dv[0], &dv[time * D], 0.0f);
            for (int64_t head = task * group; head < (task + 1) * group; head++)
                for (int64_t first = 0; first < time; first += B) {
                    const bf16* queries = q + (head * time + first) * D;
                    const int64_t place = (((head / N) * time + first) * N + head % N) * D;
                    const float* log_sums = lse + head * time + first;
                    interleave_transposed(queries, D, B, D, q_across);
                    interleave(queries, D, B, D, q_pairs);
                    interleave_transposed(grad_out + place, N * D, B, D, go_across);
                    interleave(grad_out + place, N * D, B, D, go_pairs);
                    for (int64_t r = 0; r < B; r++) {
                        const bf16 *o = out + place + r * N * D, *g = grad_out + place + r * N * D;
                        delta[r] = sum_over(D, [=](int64_t i) { return up(o + i) * up(g + i); });
                    }
                    for (int64_t from = 0; from < first + B; from += keys_at_once) {
                        const int64_t count = std::min(keys_at_once, first + B - from);
                        product(count, B, D, D, B, B, false, keys + from * D, q_across, scores, true);
                        product(count, B, D, D, B, B, false, values + from * D, go_across, dp, true);
                        for (int64_t j = 0; j < count; j += 2)
                            softmax_backward_pair(scores + j * B, dp + j * B, log_sums, delta, scale, from + j - first,
                                                  p + j * B, ds + j * B, ds_pairs + j * B);
                        product(count, D, B, B, D, D, true, p, go_pairs, dv + from * D, true);
                        product(count, D, B, B, D, D, true, ds, q_pairs, dk + from * D, true);
                        product(D, B, count, time, B, B, from > 0, keys_down + from, ds_pairs, dq,
                                true);
                    }
                    bf16* o = grad_q + (head * time + first) * D;
                    for (int64_t r = 0; r < B; r += TILE)
                        for (int64_t i = 0; i < D; i += TILE) transpose_down(dq + i * B + r, B, o + r * D + i, D);
                }
            bf16 *ok = grad_k + task * time * D, *ov = grad_v + task * time * D;
            for (int64_t i = 0; i < time * D; i += LANES) {
                store_down(ok + i, load<Floats>(dk + i));
                store_down(ov + i, load<Floats>(dv + i));
            }
        }
        release(true);
    }
}

// Negative log-likelihood of each row's target (0 where it is negative); the logits are overwritten by their gradient.
// Of a row's `stride` logits, a multiple of 32, the first `width` count; the gradient of the others is 0.
void cross_entropy(bf16* logits, const int64_t* targets, float* nll, int64_t rows, int64_t width, int64_t stride) {
    constexpr bf16 MINUS_INFINITY = 0xff80;
#pragma omp parallel
    {
        Scratch<float> weights(stride);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            bf16* x = logits + r * stride;
            const int64_t target = targets[r];
            if (target < 0) {
                std::fill(x, x + stride, bf16(0));
                nll[r] = 0;
                continue;
            }
            std::fill(x + width, x + stride, MINUS_INFINITY);
            Floats tops[2] = {up(x), up(x + LANES)};
            for (int64_t i = 0; i < stride; i += 2 * LANES)
                for (int c = 0; c < 2; c++) tops[c] = larger(up(x + i + c * LANES), tops[c]);
            const float top = max(larger(tops[0], tops[1])), of_target = up(x + target - target % LANES)[target % LANES];
            const float total = sum_over(stride, [&](int64_t i) {
                const Floats weight = exp2((up(x + i) - top) * LOG2_E);
                store(weights + i, weight);
                return weight;
            });
            nll[r] = std::log(total) + top - of_target;
            weights[target] -= total;
            for (int64_t i = 0; i < stride; i += LANES) store_down(x + i, load<Floats>(weights + i) * (1.0f / total));
        }
    }
}

// Transpose x (rows, width) to (width, rows). Rows are a multiple of 32, the width of 16.
void transpose(const bf16* x, bf16* out, int64_t rows, int64_t width) {
    by_tiles(rows, width, 2 * TILE, [=](int64_t r, int64_t i) {
        for (int64_t t = 0; t < 2 * TILE; t++) __builtin_prefetch(x + (r + t) * width + i + STRIP);
        transpose_pairs(x + r * width + i, width, out + i * rows + r, rows);
    });
}

// The same, cast to float32. Rows and width are multiples of 16.
void transpose_up(const bf16* x, float* out, int64_t rows, int64_t width) {
    by_tiles(rows, width, TILE, [=](int64_t r, int64_t i) {
        alignas(64) uint32_t tile[TILE * TILE];
        for (int64_t t = 0; t < TILE; t++) store(tile + t * TILE, up(x + (r + t) * width + i));
        transpose_tile(tile);
        for (int64_t t = 0; t < TILE; t++) std::memcpy(out + (i + t) * rows + r, tile + t * TILE, 4 * TILE);
    });
}

// total += x, for a bfloat16 product and a float32 gradient.
void accumulate(float* total, const bf16* x, int64_t count) {
    const int64_t whole = count / LANES * LANES;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < whole; i += LANES) store(total + i, load<Floats>(total + i) + up(x + i));
    for (int64_t i = whole; i < count; i++) total[i] += load<float>(std::array{uint32_t(x[i]) << 16}.data());
}

}  // extern "C"
