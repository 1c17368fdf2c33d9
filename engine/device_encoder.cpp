// Up, encode, and what it did to the numbers back.
#include "engine/device_encoder.h"

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

const encode::Variant* device_variant(const encode::Problem& problem) {
  for (const encode::Variant* variant : encode::variants()) {
    if (variant->backend == "cuda" && variant->unsupported(problem).empty()) return variant;
  }
  return nullptr;
}

void at_least(Buffer& buffer, std::size_t bytes, const char* purpose) {
  if (buffer.size() < bytes) buffer = Buffer(bytes, purpose, Place::kDevice);
}

}  // namespace

bool DeviceEncoder::supports(const encode::Problem& problem) {
  return device_variant(problem) != nullptr;
}

encode::Sums DeviceEncoder::run(const encode::Args& args) {
  const encode::Problem problem{args.from.format, args.to, args.from.rows, args.from.cols};
  const encode::Variant* variant = device_variant(problem);
  require_or(ErrorCode::kUnsupported, variant != nullptr, "encode on the GPU: no variant can");
  at_least(workspace_, variant->workspace_bytes(problem, pool_.num_threads()), "encoding weights");
  Context context{pool_, workspace_.span()};
  variant->run(args, context);
  encode::Sums sums;
  gpu::device().copy(&sums, sums_.data(), sizeof(sums), gpu::Copy::kToHost, nullptr);
  gpu::device().synchronize(nullptr);
  return sums;
}

EncodingError DeviceEncoder::encode(const MatrixView& source, Format to, std::byte* data,
                                    std::byte* scales, float* tensor_scale, std::string_view what,
                                    Uploader& uploader) {
  const Codec& from = codec(source.format);
  const auto rows = static_cast<std::size_t>(source.rows);
  const std::size_t data_bytes = rows * from.row_data_bytes(source.cols);
  const std::size_t scale_bytes = rows * from.row_scale_bytes(source.cols);
  // The scales begin where a load of 16 bytes may.
  const std::size_t scales_at = (data_bytes + 255) / 256 * 256;
  at_least(source_, scales_at + scale_bytes, "weights as stored");
  at_least(sums_, sizeof(encode::Sums), "encoding weights");
  uploader.copy(source_.data(), {source.data, data_bytes});
  if (scale_bytes > 0) uploader.copy(source_.data() + scales_at, {source.scales, scale_bytes});
  uploader.finish();

  encode::Args args;
  args.from = source;
  args.from.data = source_.data();
  args.from.scales = scale_bytes > 0 ? source_.data() + scales_at : nullptr;
  args.to = to;
  args.sums = sums_.as<encode::Sums>();
  *tensor_scale = 1.0F;
  const Codec& codec_to = codec(to);
  if (codec_to.tensor_scale != nullptr) {
    *tensor_scale = codec_to.tensor_scale(static_cast<float>(run(args).largest));
  }
  args.data = data;
  args.scales = scales;
  args.tensor_scale = *tensor_scale;
  const encode::Sums sums = run(args);
  require(sums.non_finite == 0, "encode {} as {}: {} of its values are not finite, or too large",
          what, codec_to.name, sums.non_finite);
  return {sums.signal, sums.noise, sums.max_abs, source.rows * source.cols};
}

}  // namespace moebench
