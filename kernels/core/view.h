// View<T, Rank>: a pointer and a shape, row-major and contiguous. It owns nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace moebench {

template <class T, std::size_t Rank>
struct View {
  T* data = nullptr;
  std::array<std::int64_t, Rank> shape{};

  constexpr std::int64_t size() const {
    std::int64_t n = 1;
    for (std::int64_t extent : shape) n *= extent;
    return n;
  }

  // Sub-view at the first index: a row of a matrix, a matrix of a stack.
  constexpr decltype(auto) operator[](std::int64_t i) const {
    if constexpr (Rank == 1) {
      return (data[i]);
    } else {
      View<T, Rank - 1> inner;
      std::int64_t stride = 1;
      for (std::size_t d = 1; d < Rank; ++d) {
        inner.shape[d - 1] = shape[d];
        stride *= shape[d];
      }
      inner.data = data + i * stride;
      return inner;
    }
  }

  constexpr std::span<T> span() const { return {data, static_cast<std::size_t>(size())}; }

  template <class U>
  requires(!std::is_const_v<T> && std::is_same_v<U, const T>) constexpr operator View<U, Rank>()
      const {  // NOLINT: reading is always allowed
    return {data, shape};
  }
};

}  // namespace moebench
