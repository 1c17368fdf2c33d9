// GGUF version 3: header, metadata, tensor table, then the data of each tensor, aligned.
#include "engine/gguf_writer.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/model_config.h"
#include "engine/tensor_names.h"
#include "kernels/core/error.h"
#include "kernels/core/float_types.h"

namespace moebench {
namespace {

constexpr std::uint64_t kAlignment = 32;
// ggml type numbers (ggml.h, enum ggml_type) and GGUF value types.
enum class TensorType : std::uint32_t { kF32 = 0, kQ8_0 = 8, kBf16 = 30, kMxfp4 = 39 };
enum class ValueType : std::uint32_t { kUint32 = 4, kFloat32 = 6, kString = 8 };

struct GgufTensor {
  std::string name;
  std::vector<std::uint64_t> shape;  // innermost first
  TensorType type;
  std::uint64_t bytes;
  std::function<void(std::ostream&)> write;
};

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_string(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

class Writer {
 public:
  Writer(const std::filesystem::path& directory, Format dense_format)
      : checkpoint_(Checkpoint::open(directory)),
        config_(load_model_config(directory)),
        names_(detect_tensor_names(checkpoint_)),
        dense_format_(dense_format) {
    require_or(ErrorCode::kUnsupported,
               dense_format == Format::kBf16 || dense_format == Format::kInt8,
               "write GGUF: dense matrices as {} are not supported (bf16 and int8 are)",
               format_name(dense_format));
    require_or(ErrorCode::kUnsupported, names_.query_key_value.empty(),
               "write GGUF: {} is not in the Hugging Face layout", directory.string());
    add_tensors();
  }

  void write(const std::filesystem::path& path) const {
    std::string header = "GGUF";
    put(header, std::uint32_t{3});
    put(header, static_cast<std::uint64_t>(tensors_.size()));
    std::uint64_t num_values = 0;
    const std::string values = metadata(&num_values);
    put(header, num_values);
    header += values;
    std::uint64_t offset = 0;
    for (const GgufTensor& tensor : tensors_) {
      put_string(header, tensor.name);
      put(header, static_cast<std::uint32_t>(tensor.shape.size()));
      for (const std::uint64_t extent : tensor.shape) put(header, extent);
      put(header, tensor.type);
      put(header, offset);
      offset += padded(tensor.bytes);
    }
    header.resize(padded(header.size()), '\0');
    std::ofstream out(path, std::ios::binary);
    out << header;
    for (const GgufTensor& tensor : tensors_) {
      const auto begin = out.tellp();
      tensor.write(out);
      require_or(ErrorCode::kIo, out.good(), "write {}: {}", path.string(), std::strerror(errno));
      const auto written = static_cast<std::uint64_t>(out.tellp() - begin);
      require(written == tensor.bytes, "write {}: '{}' wrote {} of {} bytes", path.string(),
              tensor.name, written, tensor.bytes);
      out << std::string(padded(written) - written, '\0');
    }
    require_or(ErrorCode::kIo, static_cast<bool>(out.flush()), "write {}: {}", path.string(),
               std::strerror(errno));
  }

 private:
  static std::uint64_t padded(std::uint64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  std::string metadata(std::uint64_t* count) const {
    std::string out;
    const auto text = [&](std::string_view key, std::string_view value) {
      put_string(out, key);
      put(out, ValueType::kString);
      put_string(out, value);
      ++*count;
    };
    const auto number = [&](std::string_view key, std::int64_t value) {
      put_string(out, key);
      put(out, ValueType::kUint32);
      put(out, static_cast<std::uint32_t>(value));
      ++*count;
    };
    const auto real = [&](std::string_view key, double value) {
      put_string(out, key);
      put(out, ValueType::kFloat32);
      put(out, static_cast<float>(value));
      ++*count;
    };
    const ModelConfig& c = config_;
    text("general.architecture", "gpt-oss");
    text("general.name", checkpoint_.directory().filename().string());
    text("tokenizer.ggml.model", "no_vocab");
    number("gpt-oss.vocab_size", c.vocab_size);
    number("gpt-oss.block_count", c.num_layers);
    number("gpt-oss.context_length", c.max_context);
    number("gpt-oss.embedding_length", c.hidden_size);
    number("gpt-oss.feed_forward_length", c.intermediate_size);
    number("gpt-oss.expert_feed_forward_length", c.intermediate_size);
    number("gpt-oss.attention.head_count", c.num_heads);
    number("gpt-oss.attention.head_count_kv", c.num_kv_heads);
    number("gpt-oss.attention.key_length", c.head_dim);
    number("gpt-oss.attention.value_length", c.head_dim);
    number("gpt-oss.attention.sliding_window", c.sliding_window);
    real("gpt-oss.attention.layer_norm_rms_epsilon", c.rms_norm_epsilon);
    number("gpt-oss.expert_count", c.num_experts);
    number("gpt-oss.expert_used_count", c.top_k);
    real("gpt-oss.rope.freq_base", c.rope.theta);
    text("gpt-oss.rope.scaling.type", "yarn");
    real("gpt-oss.rope.scaling.factor", c.rope.factor);
    number("gpt-oss.rope.scaling.original_context_length",
           static_cast<std::int64_t>(c.rope.original_context));
    return out;
  }

  void add_tensors() {
    const ModelConfig& c = config_;
    dense("token_embd.weight", names_.embedding, {c.vocab_size, c.hidden_size});
    dense("output.weight", c.tied_embeddings ? names_.embedding : names_.unembedding,
          {c.vocab_size, c.hidden_size});
    floats("output_norm.weight", names_.final_norm, {c.hidden_size});
    const std::int64_t q_rows = c.num_heads * c.head_dim;
    const std::int64_t kv_rows = c.num_kv_heads * c.head_dim;
    for (std::int64_t l = 0; l < c.num_layers; ++l) {
      const std::string block = fmt::format("blk.{}.", l);
      const auto named = [&](std::string_view pattern) { return layer_tensor(pattern, l); };
      const auto linear = [&](std::string_view name, std::string_view pattern, std::int64_t rows,
                              std::int64_t cols) {
        dense(fmt::format("{}{}.weight", block, name), named(pattern) + ".weight", {rows, cols});
        floats(fmt::format("{}{}.bias", block, name), named(pattern) + ".bias", {rows});
      };
      floats(block + "attn_norm.weight", named(names_.attention_norm), {c.hidden_size});
      linear("attn_q", names_.query, q_rows, c.hidden_size);
      linear("attn_k", names_.key, kv_rows, c.hidden_size);
      linear("attn_v", names_.value, kv_rows, c.hidden_size);
      linear("attn_output", names_.attention_out, c.hidden_size, q_rows);
      floats(block + "attn_sinks.weight", named(names_.sinks), {c.num_heads});
      floats(block + "post_attention_norm.weight", named(names_.ffn_norm), {c.hidden_size});
      floats(block + "ffn_gate_inp.weight", named(names_.router) + ".weight",
             {c.num_experts, c.hidden_size});
      floats(block + "ffn_gate_inp.bias", named(names_.router) + ".bias", {c.num_experts});
      experts(block, l, names_.gate_up_blocks, names_.gate_up_scales, names_.gate_up_bias,
              {{"ffn_gate_exps", 0, 2}, {"ffn_up_exps", 1, 2}}, 2 * c.intermediate_size,
              c.hidden_size);
      experts(block, l, names_.down_blocks, names_.down_scales, names_.down_bias,
              {{"ffn_down_exps", 0, 1}}, c.hidden_size, c.intermediate_size);
    }
  }

  const SafetensorsEntry& find(std::string_view name, std::vector<std::int64_t> shape) const {
    static constexpr std::string_view kBf16[] = {"BF16"};
    return checkpoint_.require_tensor(name, kBf16, shape);
  }

  static std::vector<std::uint64_t> innermost_first(const std::vector<std::int64_t>& shape) {
    return {shape.rbegin(), shape.rend()};
  }

  static std::uint64_t product(const std::vector<std::int64_t>& shape) {
    std::uint64_t count = 1;
    for (const std::int64_t extent : shape) count *= static_cast<std::uint64_t>(extent);
    return count;
  }

  void dense(std::string name, std::string_view from, std::vector<std::int64_t> shape) {
    const SafetensorsEntry& entry = find(from, shape);
    const std::uint64_t count = product(shape);
    if (dense_format_ == Format::kBf16) {
      tensors_.push_back({std::move(name), innermost_first(shape), TensorType::kBf16, 2 * count,
                          [data = entry.data](std::ostream& out) {
                            out.write(reinterpret_cast<const char*>(data.data()),
                                      static_cast<std::streamsize>(data.size()));
                          }});
      return;
    }
    const std::int64_t cols = shape.back();
    require(cols % 32 == 0, "write GGUF: '{}': {} columns are not a multiple of 32", name, cols);
    tensors_.push_back(
        {std::move(name), innermost_first(shape), TensorType::kQ8_0, count / 32 * 34,
         [data = entry.data, cols](std::ostream& out) { write_q8_0(data, cols, out); }});
  }

  // Blocks of a float16 scale and 32 signed bytes.
  static void write_q8_0(std::span<const std::byte> bf16s, std::int64_t cols, std::ostream& out) {
    const MatrixView matrix{Format::kBf16, static_cast<std::int64_t>(bf16s.size()) / 2 / cols,
                            cols,          bf16s.data(),
                            nullptr,       1.0F};
    const Codec& c = codec(Format::kInt8);
    std::vector<float> values(static_cast<std::size_t>(cols));
    std::vector<std::byte> data(c.row_data_bytes(cols));
    std::vector<std::byte> scales(c.row_scale_bytes(cols));
    std::string row;
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      matrix.decode_row(r, values.data());
      c.encode_row(values.data(), cols, 1.0F, data.data(), scales.data());
      row.clear();
      for (std::size_t b = 0; b < data.size() / 32; ++b) {
        row.append(reinterpret_cast<const char*>(scales.data() + 2 * b), 2);
        row.append(reinterpret_cast<const char*>(data.data() + 32 * b), 32);
      }
      out.write(row.data(), static_cast<std::streamsize>(row.size()));
    }
  }

  // Small tensors, which GGUF files hold as float32. Of rows, every `step`-th from `first` on.
  void floats(std::string name, std::string_view from, std::vector<std::int64_t> shape,
              std::int64_t first = 0, std::int64_t step = 1) {
    const SafetensorsEntry& entry = find(from, shape);
    shape.back() /= step;
    const std::uint64_t count = product(shape);
    tensors_.push_back({std::move(name), innermost_first(shape), TensorType::kF32, 4 * count,
                        [data = entry.data, first, step](std::ostream& out) {
                          const std::size_t begin = static_cast<std::size_t>(first) * 2;
                          const std::size_t stride = static_cast<std::size_t>(step) * 2;
                          for (std::size_t i = begin; i < data.size(); i += stride) {
                            const float value = to_float(load_unaligned<bf16>(data.data() + i));
                            out.write(reinterpret_cast<const char*>(&value), sizeof(value));
                          }
                        }});
  }

  // Every `step`-th row from `first` on: gate and up alternate in a checkpoint, not in GGUF.
  struct Part {
    std::string_view name;
    std::int64_t first;
    std::int64_t step;
  };

  void experts(const std::string& block, std::int64_t layer, std::string_view blocks_name,
               std::string_view scales_name, std::string_view bias_name,
               const std::vector<Part>& parts, std::int64_t rows, std::int64_t cols) {
    static constexpr std::string_view kU8[] = {"U8"};
    const std::int64_t count = config_.num_experts;
    const std::vector<std::int64_t> blocks_shape = {count, rows, cols / 32, 16};
    const std::vector<std::int64_t> scales_shape = {count, rows, cols / 32};
    const auto blocks =
        checkpoint_.require_tensor(layer_tensor(blocks_name, layer), kU8, blocks_shape).data;
    const auto scales =
        checkpoint_.require_tensor(layer_tensor(scales_name, layer), kU8, scales_shape).data;
    for (const Part& part : parts) {
      const std::vector<std::int64_t> shape = {count, rows / part.step, cols};
      tensors_.push_back({fmt::format("{}{}.weight", block, part.name), innermost_first(shape),
                          TensorType::kMxfp4, product(shape) / 32 * 17,
                          [blocks, scales, part, total = count * rows, cols](std::ostream& out) {
                            for (std::int64_t r = part.first; r < total; r += part.step) {
                              write_mxfp4_row(blocks, scales, r, cols, out);
                            }
                          }});
      floats(fmt::format("{}{}.bias", block, part.name), layer_tensor(bias_name, layer),
             {count, rows}, part.first, part.step);
    }
  }

  // Blocks of a scale and 16 bytes: columns j and j + 16 share byte j, where a checkpoint puts 2j
  // and 2j + 1 together.
  static void write_mxfp4_row(std::span<const std::byte> blocks, std::span<const std::byte> scales,
                              std::int64_t row, std::int64_t cols, std::ostream& out) {
    const auto num_blocks = static_cast<std::size_t>(cols / 32);
    const auto first = static_cast<std::size_t>(row) * num_blocks;
    std::string bytes;
    for (std::size_t b = first; b < first + num_blocks; ++b) {
      bytes += static_cast<char>(scales[b]);
      const auto code = [&](std::size_t column) {
        const auto pair = static_cast<unsigned>(blocks[16 * b + column / 2]);
        return column % 2 == 0 ? pair & 15U : pair >> 4;
      };
      for (std::size_t j = 0; j < 16; ++j) {
        bytes += static_cast<char>(code(j) | code(j + 16) << 4);
      }
    }
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  Checkpoint checkpoint_;
  ModelConfig config_;
  const TensorNames& names_;
  Format dense_format_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace

void write_gguf(const std::filesystem::path& directory, const std::filesystem::path& path,
                Format dense_format) {
  Writer(directory, dense_format).write(path);
}

}  // namespace moebench
