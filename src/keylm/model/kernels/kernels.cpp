// The operations between the matrix products of bfloat16 training on a CPU, each in as few passes over memory as
// possible.
//
// Arrays are contiguous. bfloat16 is stored as uint16_t, arithmetic is float32. Each row is computed by one thread, and
// sums over rows go through a fixed number of partial sums, so results do not depend on the number of threads. Loops
// are plain C++ for the compiler to vectorize. `keylm/model/kernels/ops.py` documents the functions and has the same in
// torch.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

using bf16 = uint16_t;

namespace {

inline float up(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline bf16 down(float x) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// 2^x with a relative error of 3e-6 for x in [-126, 127], and 0 below: the integer part goes into the exponent bits,
// the rest through a polynomial that is exact at 0. NaN stays NaN.
inline float exp2_fast(float x) {
    x = x < -127.0f ? -127.0f : x;
    float n = __builtin_rintf(x), r = x - n;
    float p = 9.5828427e-3f;
    p = p * r + 5.59064262e-2f;
    p = p * r + 2.40240991e-1f;
    p = p * r + 6.93124175e-1f;
    p = p * r + 1.0f;
    int32_t bits = (int32_t(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

constexpr float LOG2_E = 1.44269504f;

// e^min(x, 88), which does not overflow.
inline float exp_fast(float x) { return exp2_fast((x > 88.0f ? 88.0f : x) * LOG2_E); }

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

inline float inverse_rms(const bf16* x, int64_t width, float eps) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += up(x[i]) * up(x[i]);
    return 1.0f / std::sqrt(sum / width + eps);
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

// Sixteen columns of a product: sums of 16 floats, to which the products of 16 pairs of bfloat16 are added.
#ifdef __AVX512BF16__
using Sums = __m512;
using Pairs = __m512bh;
inline Sums load_sums(const float* c) { return _mm512_loadu_ps(c); }
inline void store_sums(float* c, Sums sums) { _mm512_storeu_ps(c, sums); }
inline Pairs load_pairs(const bf16* b) { return Pairs(_mm512_loadu_si512(b)); }
inline Pairs repeat_pair(const bf16* a) {
    int32_t pair;
    std::memcpy(&pair, a, 4);
    return Pairs(_mm512_set1_epi32(pair));
}
inline Sums add_products(Sums sums, Pairs a, Pairs b) { return _mm512_dpbf16_ps(sums, a, b); }
#else
struct Sums {
    float of[16];
};
struct Pairs {
    float even[16], odd[16];
};
inline Sums load_sums(const float* c) {
    Sums sums;
    std::memcpy(sums.of, c, sizeof(sums.of));
    return sums;
}
inline void store_sums(float* c, const Sums& sums) { std::memcpy(c, sums.of, sizeof(sums.of)); }
inline Pairs load_pairs(const bf16* b) {
    Pairs pairs;
#pragma omp simd
    for (int64_t i = 0; i < 16; i++) pairs.even[i] = up(b[2 * i]), pairs.odd[i] = up(b[2 * i + 1]);
    return pairs;
}
inline Pairs repeat_pair(const bf16* a) {
    Pairs pairs;
#pragma omp simd
    for (int64_t i = 0; i < 16; i++) pairs.even[i] = up(a[0]), pairs.odd[i] = up(a[1]);
    return pairs;
}
inline Sums add_products(Sums sums, const Pairs& a, const Pairs& b) {
#pragma omp simd
    for (int64_t i = 0; i < 16; i++) sums.of[i] += a.even[i] * b.even[i] + a.odd[i] * b.odd[i];
    return sums;
}
#endif

// One tile of a product, (ROWS, 16 * COLUMNS): its sums stay in registers, hence the constant sizes.
template <int ROWS, int COLUMNS>
inline void tile_product(int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add, const bf16* A, const bf16* B,
                         float* C) {
    Sums sums[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) sums[r][c] = add ? load_sums(C + r * ld_c + 16 * c) : Sums{};
    for (int64_t k = 0; k < K; k += 2) {
        Pairs b[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) b[c] = load_pairs(B + k * ld_b + 32 * c);
        for (int r = 0; r < ROWS; r++) {
            const Pairs a = repeat_pair(A + r * ld_a + k);
            for (int c = 0; c < COLUMNS; c++) sums[r][c] = add_products(sums[r][c], a, b[c]);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) store_sums(C + r * ld_c + 16 * c, sums[r][c]);
}

constexpr int64_t QUERIES = 64;  // a block of queries
constexpr int64_t KEYS = 512;    // a block of keys, at most

// (rows, width) with a leading dimension, to interleaved (rows / 2, width, 2).
void interleave(const bf16* x, int64_t stride, int64_t rows, int64_t width, bf16* out) {
    for (int64_t r = 0; r < rows; r += 2) {
        const bf16 *even = x + r * stride, *odd = even + stride;
        uint32_t* pairs = reinterpret_cast<uint32_t*>(out + r * width);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) pairs[i] = uint32_t(even[i]) | uint32_t(odd[i]) << 16;
    }
}

constexpr int64_t TILE = 16;

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

constexpr int64_t STRIP = 32;  // columns of a cache line

// Call work(row, column, memory for a tile) for all tiles of (rows, width), in an order that touches few cache lines
// and pages at a time.
template <typename Work>
void by_tiles(int64_t rows, int64_t width, int64_t height, Work work) {
    constexpr int64_t BAND = 256;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t first = 0; first < rows; first += BAND)
        for (int64_t left = 0; left < width; left += STRIP) {
            alignas(64) uint32_t tile[TILE * TILE];
            for (int64_t r = first; r < std::min(first + BAND, rows); r += height)
                for (int64_t i = left; i < std::min(left + STRIP, width); i += TILE) work(r, i, tile);
        }
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

// total = x + delta (x itself without delta); out = total / rms(total) * weight.
void add_rms_norm(const bf16* x, const bf16* delta, const float* weight, bf16* total, bf16* out, int64_t rows,
                  int64_t width, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const bf16* row = x + r * width;
        if (delta) {
            bf16* sum = total + r * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) sum[i] = down(up(row[i]) + up(delta[r * width + i]));
            row = sum;
        }
        float scale = inverse_rms(row, width, eps);
        bf16* o = out + r * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) o[i] = down(up(row[i]) * scale * weight[i]);
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
            float scale = inverse_rms(x, width, eps), dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < width; i++) {
                float product = up(g[i]) * up(x[i]) * scale;
                grad_weight[i] += product;
                dot += product * weight[i];
            }
            dot /= width;
            bf16 *o = grad + r * width, *again = out + r * width;
            const bf16* along = grad_total ? grad_total + r * width : nullptr;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                float own = scale * (up(g[i]) * weight[i] - up(x[i]) * scale * dot);
                again[i] = down(up(x[i]) * scale * weight[i]);
                o[i] = down(along ? own + up(along[i]) : own);
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
#pragma omp simd
        for (int64_t i = 0; i < width; i++) o[i] = down(up(gate[i]) * sigmoid(up(gate[i])) * up(value[i]));
    }
}

// Gradient with respect to gate_up. The result is recomputed, so it need not be kept between forward and backward.
void swiglu_backward(const bf16* gate_up, const bf16* grad_out, bf16* grad, bf16* out, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const bf16 *gate = gate_up + r * 2 * width, *value = gate + width, *go = grad_out + r * width;
        bf16 *grad_gate = grad + r * 2 * width, *grad_value = grad_gate + width, *o = out + r * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            float x = up(gate[i]), s = sigmoid(x), v = up(value[i]), g = up(go[i]);
            o[i] = down(x * s * v);
            grad_value[i] = down(g * x * s);
            grad_gate[i] = down(g * v * s * (1.0f + x * (1.0f - s)));
        }
    }
}

// Split qkv (batch, time, N + 2K, D) into q (batch, N, time, D), k and v (batch, K, time, D); norm queries and keys,
// and rotate them by their positions. rotary is (2, batch or 1, time, D): cosines, then sines.
void split_norm_rope(const bf16* qkv, const float* q_weight, const float* k_weight, const float* rotary, bf16* q,
                     bf16* k, bf16* v, int64_t batch, int64_t time, int64_t N, int64_t K, int64_t D,
                     int64_t rotary_batch, float eps) {
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
            float scale = inverse_rms(x, D, eps);
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                float left = up(x[i]) * scale * weight[i], right = up(x[i + half]) * scale * weight[i + half];
                o[i] = down(left * cos[i] - right * sin[i]);
                o[i + half] = down(right * cos[i] + left * sin[i]);
            }
        }
        for (int64_t h = 0; h < K; h++)
            std::memcpy(v + ((b * K + h) * time + t) * D, qkv + (r * (N + 2 * K) + N + K + h) * D, 2 * D);
    }
}

// Gradient of the above with respect to qkv; those of the norms' weights are the sums of `parts` (PARTS, 2, D).
void split_norm_rope_backward(const bf16* qkv, const float* q_weight, const float* k_weight, const float* rotary,
                              const bf16* grad_q, const bf16* grad_k, const bf16* grad_v, bf16* grad, float* parts,
                              int64_t batch, int64_t time, int64_t N, int64_t K, int64_t D, int64_t rotary_batch,
                              float eps) {
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
#pragma omp simd
                for (int64_t i = 0; i < half; i++) {
                    g[i] = up(go[i]) * cos[i] + up(go[i + half]) * sin[i];
                    g[i + half] = up(go[i + half]) * cos[i] - up(go[i]) * sin[i];
                }
                float scale = inverse_rms(x, D, eps), dot = 0;
#pragma omp simd reduction(+ : dot)
                for (int64_t i = 0; i < D; i++) {
                    float product = g[i] * up(x[i]) * scale;
                    grad_weight[i] += product;
                    dot += product * weight[i];
                }
                dot /= D;
#pragma omp simd
                for (int64_t i = 0; i < D; i++) o[i] = down(scale * (g[i] * weight[i] - up(x[i]) * scale * dot));
            }
            for (int64_t h = 0; h < K; h++)
                std::memcpy(grad + (r * (N + 2 * K) + N + K + h) * D, grad_v + ((b * K + h) * time + t) * D, 2 * D);
        }
    }
}

// Causal attention (Dao et al. 2022): q (batch, N, time, D), k and v (batch, K, time, D), out (batch, time, N, D);
// lse (batch, N, time) is the logarithm, to base 2, of each softmax's denominator, for the backward pass.
void attention(Product product, Release release, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse,
               int64_t batch, int64_t N, int64_t K, int64_t time, int64_t D) {
    const int64_t group = N / K;
    const float scale = 1.0f / std::sqrt(float(D)), scale2 = scale * LOG2_E;
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
                        float* s = scores + r * time;
                        bf16* p = weights + r * time;
                        float top = -INFINITY, sum = 0;
#pragma omp simd
                        for (int64_t i = 0; i < QUERIES; i++) s[first + i] = i <= r ? s[first + i] : -INFINITY;
#pragma omp simd reduction(max : top)
                        for (int64_t j = 0; j < seen; j++) top = s[j] > top ? s[j] : top;
#pragma omp simd reduction(+ : sum)
                        for (int64_t j = 0; j < seen; j++) {
                            float e = exp2_fast((s[j] - top) * scale2);
                            sum += e;
                            p[j] = down(e);
                        }
                        sums[r] = 1.0f / sum;
                        lse[head * time + first + r] = top * scale2 + std::log2(sum);
                    }
                    product(QUERIES, D, seen, time, D, D, false, weights, values, block, true);
                    for (int64_t r = 0; r < QUERIES; r++) {
                        bf16* o = out + (((head / N) * time + first + r) * N + head % N) * D;
#pragma omp simd
                        for (int64_t i = 0; i < D; i++) o[i] = down(block[r * D + i] * sums[r]);
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
    const float scale = 1.0f / std::sqrt(float(D)), scale2 = scale * LOG2_E;
#pragma omp parallel
    {
        Scratch<bf16> keys_down(D * time), p(keys_at_once * B), ds(keys_at_once * B), ds_pairs(keys_at_once * B);
        Scratch<bf16> q_across(B * D), q_pairs(B * D), go_across(B * D), go_pairs(B * D);
        Scratch<float> scores(keys_at_once * B), dp(keys_at_once * B), dq(D * B), delta(B), dk(time * D), dv(time * D);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch * K; task++) {
            const bf16 *keys = k + task * time * D, *values = v + task * time * D;
            for (int64_t t = 0; t < time; t++)
                for (int64_t i = 0; i < D; i++) keys_down[i * time + t] = keys[t * D + i];
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
                        float sum = 0;
#pragma omp simd reduction(+ : sum)
                        for (int64_t i = 0; i < D; i++) sum += up(o[i]) * up(g[i]);
                        delta[r] = sum;
                    }
                    for (int64_t from = 0; from < first + B; from += keys_at_once) {
                        const int64_t count = std::min(keys_at_once, first + B - from);
                        product(count, B, D, D, B, B, false, keys + from * D, q_across, scores, true);
                        product(count, B, D, D, B, B, false, values + from * D, go_across, dp, true);
                        for (int64_t j = 0; j < count; j++) {
                            const int64_t hidden = std::max<int64_t>(0, from + j - first);  // queries before this key
                            const float *s = scores + j * B, *d = dp + j * B;
                            bf16 *pj = p + j * B, *dj = ds + j * B;
#pragma omp simd
                            for (int64_t i = 0; i < QUERIES; i++) {
                                float e = i < hidden ? 0.0f : exp2_fast(s[i] * scale2 - log_sums[i]);
                                pj[i] = down(e);
                                dj[i] = down(e * (d[i] - delta[i]) * scale);
                            }
                        }
                        interleave(ds, B, count, B, ds_pairs);
                        product(count, D, B, B, D, D, true, p, go_pairs, dv + from * D, true);
                        product(count, D, B, B, D, D, true, ds, q_pairs, dk + from * D, true);
                        product(D, B, count, time, B, B, from > 0, keys_down + from, ds_pairs, dq,
                                true);
                    }
                    bf16* o = grad_q + (head * time + first) * D;
                    for (int64_t r = 0; r < B; r++)
                        for (int64_t i = 0; i < D; i++) o[r * D + i] = down(dq[i * B + r]);
                }
            bf16 *ok = grad_k + task * time * D, *ov = grad_v + task * time * D;
#pragma omp simd
            for (int64_t i = 0; i < time * D; i++) ok[i] = down(dk[i]);
#pragma omp simd
            for (int64_t i = 0; i < time * D; i++) ov[i] = down(dv[i]);
        }
        release(true);
    }
}

// Negative log-likelihood of each row's target (0 where it is negative); the logits are overwritten by their gradient.
// Of a row's `stride` logits the first `width` count; the gradient of the others is 0.
void cross_entropy(bf16* logits, const int64_t* targets, float* nll, int64_t rows, int64_t width, int64_t stride) {
#pragma omp parallel
    {
        Scratch<float> w(width);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            bf16* x = logits + r * stride;
            std::fill(x + width, x + stride, bf16(0));
            if (targets[r] < 0) {
                std::fill(x, x + width, bf16(0));
                nll[r] = 0;
                continue;
            }
            float top = -INFINITY, sum = 0;
#pragma omp simd reduction(max : top)
            for (int64_t i = 0; i < width; i++) top = up(x[i]) > top ? up(x[i]) : top;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < width; i++) {
                w[i] = exp_fast(up(x[i]) - top);
                sum += w[i];
            }
            nll[r] = std::log(sum) + top - up(x[targets[r]]);
            const float scale = 1.0f / sum, own = w[targets[r]] * scale - 1.0f;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) x[i] = down(w[i] * scale);
            x[targets[r]] = down(own);
        }
    }
}

// Transpose x (rows, width) to (width, rows). Rows are a multiple of 32, the width of 16.
void transpose(const bf16* x, bf16* out, int64_t rows, int64_t width) {
    by_tiles(rows, width, 2 * TILE, [=](int64_t r, int64_t i, uint32_t* tile) {
        for (int64_t t = 0; t < 2 * TILE; t++) __builtin_prefetch(x + (r + t) * width + i + STRIP);
        interleave(x + r * width + i, width, 2 * TILE, TILE, reinterpret_cast<bf16*>(tile));
        transpose_tile(tile);
        for (int64_t t = 0; t < TILE; t++) std::memcpy(out + (i + t) * rows + r, tile + t * TILE, 4 * TILE);
    });
}

// The same, cast to float32. Rows and width are multiples of 16.
void transpose_up(const bf16* x, float* out, int64_t rows, int64_t width) {
    by_tiles(rows, width, TILE, [=](int64_t r, int64_t i, uint32_t* tile) {
        for (int64_t t = 0; t < TILE; t++)
#pragma omp simd
            for (int64_t j = 0; j < TILE; j++) tile[t * TILE + j] = uint32_t(x[(r + t) * width + i + j]) << 16;
        transpose_tile(tile);
        for (int64_t t = 0; t < TILE; t++) std::memcpy(out + (i + t) * rows + r, tile + t * TILE, 4 * TILE);
    });
}

// sum += x, for a bfloat16 product and a float32 gradient.
void accumulate(float* sum, const bf16* x, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) sum[i] += up(x[i]);
}

}  // extern "C"
