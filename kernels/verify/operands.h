// A variant's operands where it wants them: as they are for the CPU, copied to the device and back
// for CUDA. Each gets an allocation of its own, so that memory checkers see its exact end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/device.h"
#include "kernels/core/thread_pool.h"
#include "kernels/formats/format.h"

namespace moebench::verify {

class Operands {
 public:
  explicit Operands(std::string_view backend) : on_device_(backend == "cuda") {}

  // `values` for reading. Null stays null.
  template <class T>
  const T* in(const T* values, std::size_t count) {
    return on_device_ && values != nullptr
               ? static_cast<const T*>(upload(values, count * sizeof(T)))
               : values;
  }
  template <class T>
  const T* in(const std::vector<T>& values) {
    return in(values.data(), values.size());
  }
  // `values` for writing: what they hold goes to the device, and fetch() brings the results back.
  template <class T>
  T* out(T* values, std::size_t count) {
    if (!on_device_) return values;
    auto* copy = static_cast<T*>(upload(values, count * sizeof(T)));
    results_.push_back({values, copy, count * sizeof(T)});
    return copy;
  }
  template <class T>
  T* out(std::vector<T>& values) {
    return out(values.data(), values.size());
  }
  MatrixStackView in(const MatrixStackView& stack) {
    const Codec& c = codec(stack.format);
    const auto rows = static_cast<std::size_t>(stack.count * stored_rows(stack.layout, stack.rows));
    MatrixStackView copy = stack;
    copy.data = in(stack.data, rows * c.row_data_bytes(stack.cols));
    copy.scales = in(stack.scales, rows * c.row_scale_bytes(stack.cols));
    copy.tensor_scales = {in(stack.tensor_scales.data(), stack.tensor_scales.size()),
                          stack.tensor_scales.size()};
    return copy;
  }
  // One matrix: its tensor scale stays a number of the host's.
  MatrixView in(const MatrixView& matrix) {
    const Codec& c = codec(matrix.format);
    const auto rows = static_cast<std::size_t>(stored_rows(matrix.layout, matrix.rows));
    MatrixView copy = matrix;
    copy.data = in(matrix.data, rows * c.row_data_bytes(matrix.cols));
    copy.scales = in(matrix.scales, rows * c.row_scale_bytes(matrix.cols));
    return copy;
  }

  // A context with the scratch that the variant asks for, full of NaNs: they show who reads it
  // before writing it. Lives as long as the operands.
  template <class V>
  Context context(const V& variant, const typename V::Problem& problem, ThreadPool& pool) {
    const std::size_t bytes = variant.workspace_bytes(problem, pool.num_threads());
    if (!on_device_) {
      Buffer& scratch = host_scratch_.emplace_back(bytes, "scratch");
      std::fill_n(scratch.data(), bytes, std::byte{0xff});
      return {pool, scratch.span()};
    }
    auto* scratch = static_cast<std::byte*>(take(bytes));
    const std::vector<std::byte> garbage(bytes, std::byte{0xff});
    gpu::device().copy(scratch, garbage.data(), bytes, gpu::Copy::kToDevice, nullptr);
    Context context{pool, {scratch, bytes}};
    auto* signals = static_cast<std::byte*>(take(kSignalBytes));
    gpu::device().fill_zero(signals, kSignalBytes, nullptr);
    context.signals = {signals, kSignalBytes};
    return context;
  }

  // Runs the variant once and fetches what it wrote.
  template <class V>
  void run(const V& variant, const typename V::Problem& problem, const typename V::Args& args,
           ThreadPool& pool) {
    Context scratch = context(variant, problem, pool);
    variant.run(args, scratch);
    fetch();
  }

  // Brings results back to the host.
  void fetch() {
    if (!on_device_) return;
    for (const Result& r : results_) {
      gpu::device().copy(r.to, r.from, r.bytes, gpu::Copy::kToHost, nullptr);
    }
    gpu::device().synchronize(nullptr);
  }

 private:
  struct Result {
    void* to;
    const void* from;
    std::size_t bytes;
  };

  void* take(std::size_t bytes) {
    return memory_.emplace_back(gpu::device().allocate(bytes, "an operand")).get();
  }
  void* upload(const void* from, std::size_t bytes) {
    void* to = take(bytes);
    gpu::device().copy(to, from, bytes, gpu::Copy::kToDevice, nullptr);
    return to;
  }

  bool on_device_;
  std::vector<gpu::DeviceMemory> memory_;
  std::vector<Buffer> host_scratch_;
  std::vector<Result> results_;
};

}  // namespace moebench::verify
