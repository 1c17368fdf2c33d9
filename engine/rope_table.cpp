// In float64: at position 131071 a float32 frequency is off by 0.008 radians.
#include "engine/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moebench {

RopeTable make_rope_table(const RopeConfig& rope, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  RopeTable table;
  for (std::int64_t i = 0; i < half; ++i) {
    const double exponent = static_cast<double>(2 * i) / static_cast<double>(head_dim);
    table.frequencies.push_back(std::pow(rope.theta, -exponent));
  }
  if (rope.factor <= 1) return table;
  table.concentration = 0.1 * std::log(rope.factor) + 1.0;

  // The (fractional) dimension that turns `beta` times within the original context.
  const auto dimension = [&](double beta) {
    return static_cast<double>(half) *
           std::log(rope.original_context / (beta * 2 * std::numbers::pi)) / std::log(rope.theta);
  };
  double low = dimension(rope.beta_fast);
  double high = dimension(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;  // as transformers does: a step instead of a division by zero
  for (std::int64_t i = 0; i < half; ++i) {
    double& frequency = table.frequencies[static_cast<std::size_t>(i)];
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequency = frequency * (1.0 - ramp) + frequency / rope.factor * ramp;
  }
  return table;
}

void RopeTable::fill(std::int64_t position, float* out_cos, float* out_sin) const {
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    out_cos[i] = static_cast<float>(concentration * std::cos(angle));
    out_sin[i] = static_cast<float>(concentration * std::sin(angle));
  }
}

}  // namespace moebench
