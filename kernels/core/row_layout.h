// In which order the encoded bytes of a matrix lie.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moebench {

//   kRowMajor      row after row, as in a checkpoint
//   kInterleaved   8 rows side by side: 4 bytes of each of the 8, then the next 4 bytes of each,
//                  and so on; scales likewise, one of each row at a time. One vector load then
//                  holds the same columns of 8 rows, so that a kernel reads a column of the input
//                  once for all 8 and finishes 8 sums without adding across lanes. Rows are filled
//                  up with zeros to a multiple of 8.
enum class RowLayout : std::uint8_t { kRowMajor, kInterleaved };
inline constexpr std::int64_t kRowGroup = 8;  // rows side by side
inline constexpr std::size_t kRowUnit = 4;    // bytes of one row before the next row's

}  // namespace moebench
