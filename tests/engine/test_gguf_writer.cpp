// The GGUF file holds the numbers of the checkpoint: read back here by a reader of its own.
#include <catch2/catch.hpp>
#include <cstring>
#include <map>

#include "engine/gguf_writer.h"
#include "engine/weights.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// The container as docs/gguf.md of ggml describes it.
struct GgufFile {
  std::map<std::string, std::string> texts;
  std::map<std::string, double> numbers;
  struct Tensor {
    std::vector<std::uint64_t> shape;  // innermost first
    std::uint32_t type = 0;
    const char* data = nullptr;
  };
  std::map<std::string, Tensor> tensors;
  std::string bytes;

  explicit GgufFile(const std::filesystem::path& path) : bytes(read_file(path)) {
    std::size_t at = 0;
    const auto take = [&](auto value) {
      REQUIRE(at + sizeof(value) <= bytes.size());
      std::memcpy(&value, bytes.data() + at, sizeof(value));
      at += sizeof(value);
      return value;
    };
    const auto text = [&] {
      const auto length = static_cast<std::size_t>(take(std::uint64_t{}));
      REQUIRE(at + length <= bytes.size());
      at += length;
      return bytes.substr(at - length, length);
    };
    REQUIRE(bytes.substr(0, 4) == "GGUF");
    at = 4;
    CHECK(take(std::uint32_t{}) == 3);
    const auto num_tensors = take(std::uint64_t{});
    const auto num_values = take(std::uint64_t{});
    for (std::uint64_t i = 0; i < num_values; ++i) {
      const std::string key = text();
      const auto type = take(std::uint32_t{});
      if (type == 8) texts[key] = text();
      if (type == 4) numbers[key] = take(std::uint32_t{});
      if (type == 6) numbers[key] = static_cast<double>(take(float{}));
      REQUIRE((type == 4 || type == 6 || type == 8));
    }
    std::map<std::string, std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < num_tensors; ++i) {
      const std::string name = text();
      Tensor& tensor = tensors[name];
      const auto rank = take(std::uint32_t{});
      for (std::uint32_t d = 0; d < rank; ++d) tensor.shape.push_back(take(std::uint64_t{}));
      tensor.type = take(std::uint32_t{});
      offsets[name] = take(std::uint64_t{});
    }
    const std::size_t begin = (at + 31) / 32 * 32;
    for (auto& [name, tensor] : tensors) {
      CHECK(offsets[name] % 32 == 0);
      tensor.data = bytes.data() + begin + offsets[name];
    }
  }
};

// A row of ggml's MXFP4: 17 bytes for 32 numbers, columns j and j + 16 in byte j.
std::vector<float> mxfp4_row(const char* data, std::size_t cols, std::size_t row) {
  std::vector<float> values(cols);
  const auto* block = reinterpret_cast<const std::uint8_t*>(data) + row * (cols / 32) * 17;
  for (std::size_t b = 0; b < cols / 32; ++b, block += 17) {
    for (std::size_t j = 0; j < 16; ++j) {
      const float scale = e8m0_to_float(block[0]);
      values[32 * b + j] = kE2m1Values[block[1 + j] & 15] * scale;
      values[32 * b + j + 16] = kE2m1Values[block[1 + j] >> 4] * scale;
    }
  }
  return values;
}

std::vector<float> row_of(const MatrixView& matrix, std::int64_t row) {
  std::vector<float> values(static_cast<std::size_t>(matrix.cols));
  matrix.decode_row(row, values.data());
  return values;
}

}  // namespace

TEST_CASE("gguf: every number of the checkpoint is in the file, where other engines look for it") {
  TemporaryDirectory directory;
  SyntheticShape shape;
  shape.hidden_size = 96;
  write_synthetic_checkpoint(directory.path(), shape, 5);
  write_gguf(directory.path(), directory.path() / "m.gguf", Format::kBf16);
  const GgufFile file(directory.path() / "m.gguf");
  CHECK(file.texts.at("general.architecture") == "gpt-oss");
  CHECK(file.texts.at("gpt-oss.rope.scaling.type") == "yarn");
  CHECK(file.numbers.at("gpt-oss.block_count") == 2);
  CHECK(file.numbers.at("gpt-oss.expert_used_count") == 2);
  CHECK(file.numbers.at("gpt-oss.rope.freq_base") == 150000);
  CHECK(file.tensors.size() == 3 + 2 * 19);

  ThreadPool pool(1);
  const auto weights = Weights::load(directory.path(), {}, pool);
  const LayerWeights& layer = weights->layers[1];
  const auto& gate = file.tensors.at("blk.1.ffn_gate_exps.weight");
  const auto& up = file.tensors.at("blk.1.ffn_up_exps.weight");
  const auto& down = file.tensors.at("blk.1.ffn_down_exps.weight");
  CHECK(gate.shape == std::vector<std::uint64_t>{96, 64, 4});
  CHECK(gate.type == 39);
  for (std::int64_t e = 0; e < 4; ++e) {
    for (std::int64_t r = 0; r < 64; ++r) {
      const auto at = static_cast<std::size_t>(e * 64 + r);
      CHECK(mxfp4_row(gate.data, 96, at) == row_of(layer.gate_up[e], 2 * r));
      CHECK(mxfp4_row(up.data, 96, at) == row_of(layer.gate_up[e], 2 * r + 1));
      float bias = 0;
      std::memcpy(&bias, file.tensors.at("blk.1.ffn_up_exps.bias").data + 4 * at, 4);
      CHECK(bias == layer.gate_up_bias[e][2 * r + 1]);
    }
    for (std::int64_t r = 0; r < 96; ++r) {
      CHECK(mxfp4_row(down.data, 64, static_cast<std::size_t>(e * 96 + r)) ==
            row_of(layer.down[e], r));
    }
  }
  const auto& query = file.tensors.at("blk.1.attn_q.weight");
  CHECK(query.type == 30);
  CHECK(std::memcmp(query.data, layer.query.data, 128 * 96 * 2) == 0);
  float sink = 0;
  std::memcpy(&sink, file.tensors.at("blk.1.attn_sinks.weight").data + 8, 4);
  CHECK(sink == layer.sinks[2]);
}

TEST_CASE("gguf: dense matrices as Q8_0 are the numbers of an int8 plan") {
  TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path(), {}, 6);
  write_gguf(directory.path(), directory.path() / "m.gguf", Format::kInt8);
  const GgufFile file(directory.path() / "m.gguf");
  ThreadPool pool(1);
  const auto weights =
      Weights::load(directory.path(), parse_plan("attention=int8,ops=reference"), pool);
  const auto& query = file.tensors.at("blk.0.attn_q.weight");
  CHECK(query.type == 8);
  for (std::int64_t r = 0; r < 128; ++r) {
    const std::vector<float> want = row_of(weights->layers[0].query, r);
    for (std::size_t c = 0; c < 64; ++c) {
      const char* block = query.data + (static_cast<std::size_t>(r) * 2 + c / 32) * 34;
      const float scale = to_float(load_unaligned<f16>(block));
      CHECK(static_cast<float>(static_cast<std::int8_t>(block[2 + c % 32])) * scale == want[c]);
    }
  }
}

TEST_CASE("gguf: what cannot be written is refused with a reason") {
  TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path(), {}, 7);
  check_error([&] { write_gguf(directory.path(), directory.path() / "m", Format::kInt4); },
              ErrorCode::kUnsupported, {"int4", "bf16"});
  check_error([&] { write_gguf(directory.path(), directory.path() / "no" / "m", Format::kBf16); },
              ErrorCode::kIo, {"no/m"});
}

}  // namespace moebench::test
