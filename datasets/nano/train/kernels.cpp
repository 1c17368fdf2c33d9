// Fused CPU kernels for training, called from kernels.py through ctypes: attention with rotary embedding and
// sinks, the clamped SwiGLU, and the MXFP4 round trip. They exist because these parts cost more than all matrix
// products together when written as sequences of PyTorch operations. Single-threaded; tensors are contiguous float32.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

// Vectors of 8 floats suit AVX2; longer ones would go through memory there. Keys are taken kStep at a time: with
// kGroup rows that makes 8 running sums, enough to hide the latency of a multiply-add.
constexpr int kHeadDim = 32, kHalf = kHeadDim / 2, kGroup = 4, kLanes = 8, kStep = 2 * kLanes;
typedef float vec __attribute__((vector_size(4 * kLanes), aligned(4)));

vec load(const float* x) { return *reinterpret_cast<const vec*>(x); }
void store(float* x, vec value) { *reinterpret_cast<vec*>(x) = value; }

// Half-split rotation of one head; direction -1 is the inverse up to the factor in the table, which the
// transpose (what a backward pass needs) keeps: rotating gradients by -angle with the same cos and sin.
void rotate(const float* x, const float* cos, const float* sin, float scale, float* out) {
  for (int i = 0; i < kHalf; ++i) {
    float a = x[i] * scale, b = x[i + kHalf] * scale;
    out[i] = a * cos[i] - b * sin[i];
    out[i + kHalf] = b * cos[i] + a * sin[i];
  }
}

void rotate_back(const float* x, const float* cos, const float* sin, float scale, float* out) {
  for (int i = 0; i < kHalf; ++i) {
    out[i] = (x[i] * cos[i] + x[i + kHalf] * sin[i]) * scale;
    out[i + kHalf] = (x[i + kHalf] * cos[i] - x[i] * sin[i]) * scale;
  }
}

// out[r][j] = rows[r] . columns[:, j] for j in [from, to), both multiples of kStep.
void products(const float (*rows)[kHeadDim], const float* columns, int stride, int from, int to, float* out) {
  for (int j = from; j < to; j += kStep) {
    vec low[kGroup] = {}, high[kGroup] = {};
    for (int d = 0; d < kHeadDim; ++d) {
      vec a = load(columns + d * stride + j), b = load(columns + d * stride + j + kLanes);
      for (int r = 0; r < kGroup; ++r) {
        low[r] += rows[r][d] * a;
        high[r] += rows[r][d] * b;
      }
    }
    for (int r = 0; r < kGroup; ++r) {
      store(out + r * stride + j, low[r]);
      store(out + r * stride + j + kLanes, high[r]);
    }
  }
}

// out[r] += sum_j weights[r][j] * rows[j], half a row at a time so that the sums stay in registers.
void combine(const float* weights, int stride, const float (*rows)[kHeadDim], int from, int to, float (*out)[kHeadDim]) {
  for (int d = 0; d < kHeadDim; d += kStep) {
    vec low[kGroup] = {}, high[kGroup] = {};
    for (int j = from; j < to; ++j) {
      vec a = load(rows[j] + d), b = load(rows[j] + d + kLanes);
      for (int r = 0; r < kGroup; ++r) {
        low[r] += weights[r * stride + j] * a;
        high[r] += weights[r * stride + j] * b;
      }
    }
    for (int r = 0; r < kGroup; ++r) {
      store(out[r] + d, load(out[r] + d) + low[r]);
      store(out[r] + d + kLanes, load(out[r] + d + kLanes) + high[r]);
    }
  }
}

// out[j] += sum_r weights[r][j] * rows[r]
void scatter(const float* weights, int stride, const float (*rows)[kHeadDim], int from, int to, float (*out)[kHeadDim]) {
  for (int d = 0; d < kHeadDim; d += kStep) {
    vec low[kGroup], high[kGroup];
    for (int r = 0; r < kGroup; ++r) {
      low[r] = load(rows[r] + d);
      high[r] = load(rows[r] + d + kLanes);
    }
    for (int j = from; j < to; ++j) {
      vec a = load(out[j] + d), b = load(out[j] + d + kLanes);
      for (int r = 0; r < kGroup; ++r) {
        a += weights[r * stride + j] * low[r];
        b += weights[r * stride + j] * high[r];
      }
      store(out[j] + d, a);
      store(out[j] + d + kLanes, b);
    }
  }
}

using Row = float[kHeadDim];

// One block rounded to E2M1 times 2^exponent (nearest, ties to even, saturating); returns the squared error.
constexpr int kBlock = 32;
float quantise(const float* x, int exponent, float* out) {
  const float scale = std::ldexp(1.0f, exponent), inverse = std::ldexp(1.0f, -exponent);
  float error = 0.0f;
  for (int i = 0; i < kBlock; ++i) {
    float magnitude = std::min(std::fabs(x[i]) * inverse, 6.0f);
    float step = magnitude < 2.0f ? 0.5f : magnitude < 4.0f ? 1.0f : 2.0f;
    float per_step = magnitude < 2.0f ? 2.0f : magnitude < 4.0f ? 1.0f : 0.5f;
    float value = std::copysign(std::nearbyint(magnitude * per_step) * step * scale, x[i]);
    error += (value - x[i]) * (value - x[i]);
    out[i] = value;
  }
  return error;
}

}  // namespace

extern "C" {

// A run of queries that see the same keys: first the rows of a shared prefix, then rows of their own.
struct Segment {
  std::int64_t prefix_row, prefix_count;  // rows of k and v; count 0 for none
  std::int64_t row, count;                // own rows of k and v
  std::int64_t query_row, query_count;    // rows of q; the last query stands at the last own row
};

// Common arguments. k, v: [rows, kv_heads, 32]; q, out: [query rows, kv_heads * 4, 32]; cos, sin: [positions, 16];
// a key's position is its place among the segment's keys. window <= 0 means full attention.
struct Shape {
  std::int64_t segments, kv_heads, rows, query_rows, window;
};

}  // extern "C"

namespace {

// Keys and values of one segment and kv head in float, both by row and by column.
struct Keys {
  std::vector<float> k_columns, v_columns, k_rows, v_rows;
  int count = 0, stride = 0;
  const Row* k() const { return reinterpret_cast<const Row*>(k_rows.data()); }
  const Row* v() const { return reinterpret_cast<const Row*>(v_rows.data()); }

  void read(const Segment& s, std::int64_t kv_heads, std::int64_t head, const float* k_in,
            const float* v_in, const float* cos, const float* sin) {
    count = static_cast<int>(s.prefix_count + s.count);
    stride = (count + kStep - 1) / kStep * kStep;
    for (auto* buffer : {&k_columns, &v_columns, &k_rows, &v_rows}) buffer->assign(stride * kHeadDim, 0.0f);
    for (int j = 0; j < count; ++j) {
      std::int64_t at = (key_row(s, j) * kv_heads + head) * kHeadDim;
      float* row = &k_rows[j * kHeadDim];
      rotate(k_in + at, cos + j * kHalf, sin + j * kHalf, 1.0f, row);
      for (int d = 0; d < kHeadDim; ++d) {
        float value = v_in[at + d];
        v_rows[j * kHeadDim + d] = value;
        k_columns[d * stride + j] = row[d];
        v_columns[d * stride + j] = value;
      }
    }
  }
  static std::int64_t key_row(const Segment& s, int j) {
    return j < s.prefix_count ? s.prefix_row + j : s.row + j - s.prefix_count;
  }
};

// Keys visible to the query at `position`: [first, last). Scores outside stay untouched.
int first_key(std::int64_t window, int position) {
  return window > 0 ? std::max(0, position + 1 - static_cast<int>(window)) : 0;
}
int round_down(int j) { return j / kStep * kStep; }
int round_up(int j) { return (j + kStep - 1) / kStep * kStep; }

}  // namespace

extern "C" {

// log_sum [query rows, heads] receives log(sum of exp) of the scores and the sink, for the backward pass.
void attention_forward(const Shape* shape, const Segment* segments, const float* q, const float* k,
                       const float* v, const float* sinks, const float* cos, const float* sin,
                       float* out, float* log_sum) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
  Keys keys;
  std::vector<float> scores;
  for (std::int64_t n = 0; n < shape->segments; ++n) {
    const Segment& s = segments[n];
    for (std::int64_t head = 0; head < shape->kv_heads; ++head) {
      keys.read(s, shape->kv_heads, head, k, v, cos, sin);
      scores.assign(kGroup * keys.stride, 0.0f);
      for (int i = 0; i < s.query_count; ++i) {
        int position = keys.count - static_cast<int>(s.query_count) + i;
        int first = first_key(shape->window, position), last = position + 1;
        std::int64_t at = ((s.query_row + i) * shape->kv_heads + head) * kGroup;
        Row rows[kGroup], sums[kGroup] = {};
        for (int r = 0; r < kGroup; ++r)
          rotate(q + (at + r) * kHeadDim, cos + position * kHalf, sin + position * kHalf, scale, rows[r]);
        products(rows, keys.k_columns.data(), keys.stride, round_down(first), round_up(last), scores.data());
        for (int r = 0; r < kGroup; ++r) {
          float* row = &scores[r * keys.stride];
          float sink = sinks[head * kGroup + r], peak = sink, total = 0.0f;
          for (int j = first; j < last; ++j) peak = std::max(peak, row[j]);
          for (int j = first; j < last; ++j) row[j] = std::exp(row[j] - peak);
          for (int j = first; j < last; ++j) total += row[j];
          total += std::exp(sink - peak);
          log_sum[at + r] = peak + std::log(total);
          for (int j = first; j < last; ++j) row[j] /= total;
        }
        combine(scores.data(), keys.stride, keys.v(), first, last, sums);
        for (int r = 0; r < kGroup; ++r)
          for (int d = 0; d < kHeadDim; ++d) out[(at + r) * kHeadDim + d] = sums[r][d];
      }
    }
  }
}

// grad_k and grad_v are float, zero on entry and accumulated (a prefix serves many segments); grad_k is still
// rotated: the caller turns it back once with `unrotate`. grad_sinks is zero on entry.
void attention_backward(const Shape* shape, const Segment* segments, const float* q, const float* k,
                        const float* v, const float* sinks, const float* cos, const float* sin,
                        const float* out, const float* log_sum, const float* grad_out,
                        float* grad_q, float* grad_k, float* grad_v, float* grad_sinks) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
  Keys keys;
  std::vector<float> weights, grads, dk, dv;
  for (std::int64_t n = 0; n < shape->segments; ++n) {
    const Segment& s = segments[n];
    for (std::int64_t head = 0; head < shape->kv_heads; ++head) {
      keys.read(s, shape->kv_heads, head, k, v, cos, sin);
      for (auto* buffer : {&weights, &grads}) buffer->assign(kGroup * keys.stride, 0.0f);
      for (auto* buffer : {&dk, &dv}) buffer->assign(keys.stride * kHeadDim, 0.0f);
      for (int i = 0; i < s.query_count; ++i) {
        int position = keys.count - static_cast<int>(s.query_count) + i;
        int first = first_key(shape->window, position), last = position + 1;
        std::int64_t at = ((s.query_row + i) * shape->kv_heads + head) * kGroup;
        const float *c = cos + position * kHalf, *sn = sin + position * kHalf;
        Row rows[kGroup], grad[kGroup], dq[kGroup] = {};
        float dots[kGroup] = {};
        for (int r = 0; r < kGroup; ++r) {
          rotate(q + (at + r) * kHeadDim, c, sn, scale, rows[r]);
          for (int d = 0; d < kHeadDim; ++d) {
            grad[r][d] = grad_out[(at + r) * kHeadDim + d];
            dots[r] += grad[r][d] * out[(at + r) * kHeadDim + d];
          }
          grad_sinks[head * kGroup + r] -= std::exp(sinks[head * kGroup + r] - log_sum[at + r]) * dots[r];
        }
        products(rows, keys.k_columns.data(), keys.stride, round_down(first), round_up(last), weights.data());
        products(grad, keys.v_columns.data(), keys.stride, round_down(first), round_up(last), grads.data());
        for (int r = 0; r < kGroup; ++r) {
          float *w = &weights[r * keys.stride], *g = &grads[r * keys.stride];
          for (int j = first; j < last; ++j) w[j] = std::exp(w[j] - log_sum[at + r]);
          for (int j = first; j < last; ++j) g[j] = w[j] * (g[j] - dots[r]);
        }
        scatter(weights.data(), keys.stride, grad, first, last, reinterpret_cast<Row*>(dv.data()));
        scatter(grads.data(), keys.stride, rows, first, last, reinterpret_cast<Row*>(dk.data()));
        combine(grads.data(), keys.stride, keys.k(), first, last, dq);
        for (int r = 0; r < kGroup; ++r) rotate_back(dq[r], c, sn, scale, grad_q + (at + r) * kHeadDim);
      }
      for (int j = 0; j < keys.count; ++j) {
        std::int64_t at = (Keys::key_row(s, j) * shape->kv_heads + head) * kHeadDim;
        for (int d = 0; d < kHeadDim; ++d) {
          grad_k[at + d] += dk[j * kHeadDim + d];
          grad_v[at + d] += dv[j * kHeadDim + d];
        }
      }
    }
  }
}

// Rotated key gradients [rows, kv_heads, 32] -> gradients of the keys before rotation.
void unrotate(std::int64_t rows, std::int64_t kv_heads, const std::int64_t* positions, const float* cos,
              const float* sin, const float* rotated, float* out) {
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t head = 0; head < kv_heads; ++head) {
      std::int64_t at = (row * kv_heads + head) * kHeadDim, p = positions[row] * kHalf;
      rotate_back(rotated + at, cos + p, sin + p, 1.0f, out + at);
    }
}

// x [rows, 2 * width]: gates, then ups. out [rows, width].
void swiglu_forward(std::int64_t rows, std::int64_t width, float limit, float alpha, const float* x,
                    float* out) {
  for (std::int64_t row = 0; row < rows; ++row, x += 2 * width, out += width)
    for (std::int64_t i = 0; i < width; ++i) {
      float gate = std::min(x[i], limit), up = std::max(-limit, std::min(x[width + i], limit));
      out[i] = gate / (1.0f + std::exp(-alpha * gate)) * (up + 1.0f);
    }
}

void swiglu_backward(std::int64_t rows, std::int64_t width, float limit, float alpha, const float* x,
                     const float* grad_out, float* grad_x) {
  for (std::int64_t row = 0; row < rows; ++row, x += 2 * width, grad_x += 2 * width, grad_out += width)
    for (std::int64_t i = 0; i < width; ++i) {
      float raw_gate = x[i], raw_up = x[width + i], g = grad_out[i];
      float gate = std::min(raw_gate, limit), up = std::max(-limit, std::min(raw_up, limit)) + 1.0f;
      float sigmoid = 1.0f / (1.0f + std::exp(-alpha * gate));
      float slope = sigmoid * (1.0f + alpha * gate * (1.0f - sigmoid));
      grad_x[i] = raw_gate < limit ? g * up * slope : 0.0f;
      grad_x[width + i] = raw_up > -limit && raw_up < limit ? g * gate * sigmoid : 0.0f;
    }
}

// The weight as it reads after MXFP4, by the rule that mxfp4.py explains: its unpack(*pack(x)).
void mxfp4_round_trip(std::int64_t blocks, const float* x, float* out) {
  for (std::int64_t block = 0; block < blocks; ++block, x += kBlock, out += kBlock) {
    float largest = 0.0f;
    for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
    int exponent = 0;
    std::frexp(largest, &exponent);
    exponent = std::max(exponent - 3, -126);
    float wide[kBlock];
    float error = quantise(x, exponent, out), wide_error = quantise(x, exponent + 1, wide);
    if (wide_error < error) std::copy(wide, wide + kBlock, out);
  }
}

}  // extern "C"
