// What the tests of the SIMT machine share.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "tests/simt/machine.h"

namespace moebench::test {

// Values in the machine's device memory, which the host may look into.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count)
      : memory_(gpu::device().allocate(count * sizeof(T), "a test")), count_(count) {}
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    for (std::size_t i = 0; i < count_; ++i) data()[i] = values[i];
  }

  T* data() { return reinterpret_cast<T*>(memory_.get()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.get()); }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }
  std::vector<T> values() const { return {data(), data() + count_}; }

 private:
  gpu::DeviceMemory memory_;
  std::size_t count_;
};

// The machine's settings for a while.
class WithSettings {
 public:
  explicit WithSettings(const simt::Settings& settings) : before_(simt::settings()) {
    simt::settings() = settings;
  }
  ~WithSettings() { simt::settings() = before_; }
  WithSettings(const WithSettings&) = delete;
  WithSettings& operator=(const WithSettings&) = delete;

 private:
  simt::Settings before_;
};

// A CUDA variant of an op.
template <class V>
const V& cuda_variant(std::span<const V* const> variants, std::string_view name) {
  return **std::find_if(variants.begin(), variants.end(),
                        [&](const V* v) { return v->name == name && v->backend == "cuda"; });
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Of the squared error, by the squares wanted. NaN if any is.
inline double nmse(const std::vector<float>& out, const std::vector<float>& want) {
  REQUIRE(out.size() == want.size());
  double error = 0;
  double power = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(out[i]) - want[i], 2);
    power += std::pow(static_cast<double>(want[i]), 2);
  }
  return error / power;
}

inline std::string describe(const simt::Settings& settings) {
  const char* orders[] = {"fifo", "lifo", "shuffled"};
  const bool late = settings.asynchrony == simt::Asynchrony::kLate;
  return std::string(orders[static_cast<int>(settings.order)]) + (late ? ", late" : ", early");
}

// Under ThreadSanitizer a test takes five times as long: there, and where it was asked for, some do
// with less of the same kind.
#if defined(MOEBENCH_SHORT_TESTS) || defined(SIMT_TSAN)
inline constexpr bool kShort = true;
#else
inline constexpr bool kShort = false;
#endif

// Every order with every timing of asynchronous operations.
inline std::vector<simt::Settings> all_schedules() {
  std::vector<simt::Settings> all;
  for (const auto order : {simt::Order::kFifo, simt::Order::kLifo, simt::Order::kShuffled}) {
    for (const auto asynchrony : {simt::Asynchrony::kLate, simt::Asynchrony::kEarly}) {
      simt::Settings settings;
      settings.order = order;
      settings.asynchrony = asynchrony;
      all.push_back(settings);
    }
  }
  return all;
}

// All of them; in a short run half, with each order once. ThreadSanitizer sees a race in whatever
// order it runs: there half of them, in a short run the one that is like a GPU's most.
inline std::vector<simt::Settings> schedules() {
  const std::vector<simt::Settings> all = all_schedules();
#if defined(MOEBENCH_SHORT_TESTS) && defined(SIMT_TSAN)
  return {all[4]};
#elif defined(MOEBENCH_SHORT_TESTS)
  return {all[1], all[2], all[5]};
#elif defined(SIMT_TSAN)
  return {all[0], all[3], all[4]};
#else
  return all;
#endif
}

// Small whole numbers, which every format holds and every sum of products keeps exact.
class SmallNumbers {
 public:
  int next() {
    state_ = state_ * 1664525U + 1013904223U;
    return static_cast<int>(state_ >> 24) % 9 - 4;
  }

 private:
  std::uint32_t state_ = 1;
};

}  // namespace moebench::test
