// Random numbers in the shapes of gpt-oss.
#include "engine/synthetic_checkpoint.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numbers>

#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/float_types.h"
#include "kernels/core/hash.h"
#include "kernels/core/random.h"
#include "kernels/core/suggest.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

// 16-byte pieces of the random stream that `seed` and the tensor's name choose, turned into bytes
// by `convert(words) -> std::array<std::byte, N>` and written in chunks.
template <class Convert>
void write_random(std::ostream& out, std::int64_t bytes, std::uint64_t seed, std::string_view name,
                  const Convert& convert) {
  const std::uint64_t stream = fnv1a64(name);
  std::string chunk;
  chunk.reserve((1 << 20) + 64);
  for (std::uint64_t counter = 0; bytes > 0; ++counter) {
    const auto piece = convert(
        philox4x32({static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                    static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                   {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}));
    const auto length = std::min(bytes, static_cast<std::int64_t>(piece.size()));
    chunk.append(reinterpret_cast<const char*>(piece.data()), static_cast<std::size_t>(length));
    bytes -= length;
    if (chunk.size() >= (1 << 20) || bytes == 0) {
      out.write(chunk.data(), static_cast<std::streamsize>(chunk.size()));
      chunk.clear();
    }
  }
}

}  // namespace

SyntheticShape gpt_oss_20b_shape(std::int64_t num_layers, std::int64_t vocab_size) {
  return {num_layers, 2880, 2880, 64, 8, 64, 32, 4, vocab_size, 128, 131072, 4096};
}

SyntheticShape gpt_oss_120b_shape(std::int64_t num_layers, std::int64_t vocab_size) {
  return {num_layers, 2880, 2880, 64, 8, 64, 128, 4, vocab_size, 128, 131072, 4096};
}

SyntheticShape nano_shape(std::int64_t num_layers, std::int64_t vocab_size) {
  return {num_layers, 128, 192, 8, 2, 32, 16, 2, vocab_size, 32, 512, 128};
}

SyntheticShape shape_named(std::string_view name) {
  switch (index_of_name(kShapeNames, name, "choose a shape", "shape")) {
    case 0:
      return gpt_oss_20b_shape();
    case 1:
      return gpt_oss_120b_shape();
    default:
      return nano_shape();
  }
}

TensorSpec random_tensor(std::string name, std::vector<std::int64_t> shape, std::uint64_t seed,
                         double mean, double deviation) {
  TensorSpec tensor{std::move(name), "BF16", std::move(shape), nullptr};
  tensor.write = [name = tensor.name, bytes = tensor.bytes(), seed, mean,
                  deviation](std::ostream& out) {
    // 4096 draws of the distribution, of which each number is one: the transform once, not always.
    std::vector<bf16> table(4096);
    RandomStream stream(seed, fnv1a64("normal"));
    for (bf16& entry : table) {
      const double radius = std::sqrt(-2.0 * std::log(1.0 - stream.uniform()));
      const double normal = radius * std::cos(2.0 * std::numbers::pi * stream.uniform());
      entry = to_bf16(static_cast<float>(mean + deviation * normal));
    }
    write_random(out, bytes, seed, name, [&](const std::array<std::uint32_t, 4>& words) {
      std::array<std::byte, 16> piece;
      for (std::size_t i = 0; i < 8; ++i) {
        const bf16 value = table[(words[i / 2] >> (i % 2 * 16)) & 0xfff];
        std::memcpy(piece.data() + 2 * i, &value, sizeof(value));
      }
      return piece;
    });
  };
  return tensor;
}

TensorSpec random_bytes(std::string name, std::vector<std::int64_t> shape, std::uint64_t seed,
                        int base) {
  TensorSpec tensor{std::move(name), "U8", std::move(shape), nullptr};
  tensor.write = [name = tensor.name, bytes = tensor.bytes(), seed, base](std::ostream& out) {
    write_random(out, bytes, seed, name, [&](const std::array<std::uint32_t, 4>& words) {
      auto piece = std::bit_cast<std::array<std::uint8_t, 16>>(words);
      if (base >= 0) {
        for (std::uint8_t& byte : piece) byte = static_cast<std::uint8_t>(base - 1 + byte % 3);
      }
      return piece;
    });
  };
  return tensor;
}

Json synthetic_config(const SyntheticShape& shape) {
  Json layer_types = Json::array();
  for (std::int64_t l = 0; l < shape.num_layers; ++l) {
    layer_types.push_back(l % 2 == 0 ? "sliding_attention" : "full_attention");
  }
  return {{"model_type", "gpt_oss"},
          {"num_hidden_layers", shape.num_layers},
          {"hidden_size", shape.hidden_size},
          {"intermediate_size", shape.intermediate_size},
          {"num_attention_heads", shape.num_heads},
          {"num_key_value_heads", shape.num_kv_heads},
          {"head_dim", shape.head_dim},
          {"num_local_experts", shape.num_experts},
          {"num_experts_per_tok", shape.top_k},
          {"vocab_size", shape.vocab_size},
          {"sliding_window", shape.sliding_window},
          {"max_position_embeddings", shape.max_context},
          {"rms_norm_eps", 1e-5},
          {"swiglu_limit", 7.0},
          {"rope_theta", 150000},
          {"rope_scaling",
           {{"rope_type", "yarn"},
            {"factor", std::max<std::int64_t>(1, shape.max_context / shape.original_context)},
            {"beta_fast", 32.0},
            {"beta_slow", 1.0},
            {"original_max_position_embeddings", shape.original_context},
            {"truncate", false}}},
          {"attention_bias", true},
          {"tie_word_embeddings", false},
          {"eos_token_id", shape.vocab_size - 1},
          {"layer_types", layer_types}};
}

TensorSpecs synthetic_tensors(const SyntheticShape& s, std::uint64_t seed) {
  TensorSpecs tensors;
  const std::int64_t q_rows = s.num_heads * s.head_dim;
  const std::int64_t kv_rows = s.num_kv_heads * s.head_dim;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, double mean,
                       double deviation) {
    tensors.push_back(random_tensor(name, std::move(shape), seed, mean, deviation));
  };
  const auto add_linear = [&](const std::string& stem, std::int64_t rows, std::int64_t cols,
                              double gain) {
    add(stem + ".weight", {rows, cols}, 0, gain / std::sqrt(static_cast<double>(cols)));
    add(stem + ".bias", {rows}, 0, 0.1);
  };
  const auto add_experts = [&](const std::string& stem, std::int64_t rows, std::int64_t cols,
                               double gain) {
    require(cols % 32 == 0, "make {}: {} columns are not a multiple of 32", stem, cols);
    // Uniform E2M1 codes have a deviation of 2.93.
    const double scale = std::log2(gain / std::sqrt(static_cast<double>(cols)) / 2.93);
    tensors.push_back(random_bytes(stem + "_blocks", {s.num_experts, rows, cols / 32, 16}, seed));
    tensors.push_back(random_bytes(stem + "_scales", {s.num_experts, rows, cols / 32}, seed,
                                   127 + static_cast<int>(std::lround(scale))));
    add(stem + "_bias", {s.num_experts, rows}, 0, 0.1);
  };
  // What a layer adds to the residual stream is small beside it, as GPT-2 begins (section 2.3 of
  // "Language Models are Unsupervised Multitask Learners"): otherwise every layer amplifies a
  // rounding error, and after 24 of them two right kernels have nothing in common.
  const double branch_gain = 1.0 / std::sqrt(2.0 * static_cast<double>(s.num_layers));
  add("model.embed_tokens.weight", {s.vocab_size, s.hidden_size}, 0, 1);
  for (std::int64_t l = 0; l < s.num_layers; ++l) {
    const std::string layer = fmt::format("model.layers.{}.", l);
    add(layer + "input_layernorm.weight", {s.hidden_size}, 1, 0.1);
    add_linear(layer + "self_attn.q_proj", q_rows, s.hidden_size, 1);
    add_linear(layer + "self_attn.k_proj", kv_rows, s.hidden_size, 1);
    add_linear(layer + "self_attn.v_proj", kv_rows, s.hidden_size, 1);
    add_linear(layer + "self_attn.o_proj", s.hidden_size, q_rows, branch_gain);
    add(layer + "self_attn.sinks", {s.num_heads}, 0, 1);
    add(layer + "post_attention_layernorm.weight", {s.hidden_size}, 1, 0.1);
    add_linear(layer + "mlp.router", s.num_experts, s.hidden_size, 2);
    add_experts(layer + "mlp.experts.gate_up_proj", 2 * s.intermediate_size, s.hidden_size, 1);
    add_experts(layer + "mlp.experts.down_proj", s.hidden_size, s.intermediate_size, branch_gain);
  }
  add("model.norm.weight", {s.hidden_size}, 1, 0.1);
  add("lm_head.weight", {s.vocab_size, s.hidden_size}, 0,
      3.0 / std::sqrt(static_cast<double>(s.hidden_size)));
  return tensors;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorSpec> tensors) {
  OrderedJson header = {{"__metadata__", {{"format", "pt"}}}};
  std::int64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  const std::string text = header.dump();
  const auto length = static_cast<std::uint64_t>(text.size());
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof(length));
  out << text;
  const std::int64_t first = out.tellp();
  const auto check = [&](bool good) {
    require_or(ErrorCode::kIo, good, "write {}: {}", path.string(), std::strerror(errno));
  };
  check(static_cast<bool>(out.flush()));
  out.close();
  // Each tensor at its place, through a stream of its own: a large model is gigabytes of random
  // numbers, which one core would take minutes to draw.
  std::filesystem::resize_file(path, static_cast<std::uintmax_t>(first + offset));
  std::vector<std::int64_t> places;
  std::int64_t place = first;
  for (const TensorSpec& tensor : tensors) {
    places.push_back(place);
    place += tensor.bytes();
  }
  ThreadPool pool(0);
  pool.parallel_for(
      static_cast<std::int64_t>(tensors.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
          std::fstream part(path, std::ios::binary | std::ios::in | std::ios::out);
          part.seekp(places[i]);
          tensors[i].write(part);
          check(part.good());
          const std::int64_t wrote = static_cast<std::int64_t>(part.tellp()) - places[i];
          require(wrote == tensors[i].bytes(), "write {}: tensor '{}' wrote {} of {} bytes",
                  path.string(), tensors[i].name, wrote, tensors[i].bytes());
          check(static_cast<bool>(part.flush()));
        }
      });
}

void write_checkpoint(const std::filesystem::path& directory, const Json& config,
                      const TensorSpecs& tensors, std::size_t num_shards) {
  std::filesystem::create_directories(directory);
  write_file_atomically(directory / "config.json", config.dump(1));
  if (num_shards == 1) {
    write_safetensors(directory / "model.safetensors", tensors);
    return;
  }
  Json weight_map = Json::object();
  for (std::size_t shard = 0; shard < num_shards; ++shard) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", shard, num_shards - 1);
    TensorSpecs part;
    for (std::size_t i = shard; i < tensors.size(); i += num_shards) part.push_back(tensors[i]);
    for (const TensorSpec& tensor : part) weight_map[tensor.name] = name;
    write_safetensors(directory / name, part);
  }
  write_file_atomically(directory / "model.safetensors.index.json",
                        Json{{"weight_map", weight_map}}.dump(1));
}

}  // namespace moebench
