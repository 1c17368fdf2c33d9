// The ceilings of this machine, measured: what memory delivers and what arithmetic reaches, for so
// many threads of the CPU or for the GPU. Kept in roofline.json (bench/machine_cache.h), since they
// change only with the machine and the build.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/record.h"
#include "kernels/core/json_fields.h"
#include "kernels/core/precision.h"

namespace moebench {

// One way of using the machine. Rates are medians over rounds, with their samples:
//   read_gb_per_s    streaming loads from memory
//   copy_gb_per_s    bytes read and bytes written, both counted
//   <precision>_gop_per_s  multiply-adds, two operations each: f32, int16, int8 in registers of the
//                    CPU; bf16 and fp8 as products of large matrices by cuBLASLt
//   launch_us        of the GPU: one empty kernel in a graph of many
// One that this machine or build cannot measure is missing.
struct MachineRates {
  int threads = 0;          // of the CPU; 0: the GPU
  std::string measured;     // UTC
  double load_average = 0;  // of one minute, before
  std::map<std::string, Metric> rates;
  // Reading the same bytes over and over: caches hold the smaller sets. Ascending.
  struct Cached {
    std::int64_t bytes = 0;
    Metric read_gb_per_s;
  };
  std::vector<Cached> cached;

  // Of all rounds; 0 if it is missing.
  double fastest(const std::string& name) const;
};

struct Roofline {
  std::string machine;     // "AMD EPYC" or "NVIDIA H200"
  std::string conditions;  // "microcode 0x..., governor performance, 2 usable CPUs"
  std::vector<MachineRates> rates;
};

OrderedJson to_json(const Roofline& roofline);
// Throws Error naming `where` and the field.
Roofline roofline_from_json(const Json& json, const std::string& where);

struct RooflineOptions {
  bool refresh = false;                        // measure again what is remembered
  int rounds = 7;                              // after one that warms up
  double seconds = 0.015;                      // of one rate in one round
  std::size_t bytes = std::size_t{512} << 20;  // beyond every cache; 4 times that of a GPU
  std::int64_t product_size = 8192;            // of the GPU's matrices
  int launches = 1000;                         // in the GPU's graph
};

// 1, 2, 4, ... and `most`.
std::vector<int> doubling_up_to(int most);

// The CPU's, for these numbers of threads: from the cache, or measured in turns (about a second and
// 512 MB for the moment) and remembered.
Roofline cpu_roofline(std::span<const int> threads, const RooflineOptions& options = {});
// The GPU's. Throws Error(kUnsupported) if there is none.
Roofline gpu_roofline(const RooflineOptions& options = {});
// Measures it now. In roofline_gpu.cpp.
MachineRates measure_gpu(const RooflineOptions& options);

// What work on the machine is held against: the fastest round of each rate. What was reached once
// can be reached; a median would call a busy neighbour a limit of the machine.
struct Ceilings {
  std::string machine;   // "AMD EPYC, 2 threads"
  std::string measured;  // UTC
  struct Read {
    double bytes = 0;
    double gb_per_s = 0;
  };
  std::vector<Read> read;                                  // ascending; the last is memory's
  std::array<double, kPrecisionNames.size()> gop_per_s{};  // by Precision; 0: not measured

  // For a step that reads `bytes` in all, and the same ones in the next step: between two measured
  // sizes by the logarithm of the size.
  double read_gb_per_s(double bytes) const;
  // Of the precision; where it was not measured, the fastest of the machine: a ceiling all the
  // same.
  double peak_gop_per_s(Precision precision) const;
};

// Throws Error(kInvalidArgument) if the roofline has no rates for that many threads (0: the GPU).
Ceilings ceilings_of(const Roofline& roofline, int threads);
// For so many threads (0: one per CPU), and for the GPU: remembered or measured now. Nothing where
// measuring finds too little memory.
std::optional<Ceilings> cpu_ceilings(int threads);
std::optional<Ceilings> gpu_ceilings();
OrderedJson to_json(const Ceilings& ceilings);
Ceilings ceilings_from_json(const Json& json, const std::string& where);

}  // namespace moebench
