// From checkpoint tensors to the matrices the ops read.
#include "engine/weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

#include "engine/device_encoder.h"
#include "engine/op_choice.h"
#include "engine/tensor_names.h"
#include "engine/uploader.h"
#include "kernels/core/error.h"
#include "kernels/core/float_types.h"
#include "kernels/core/hash.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

// Third parties write norms, sinks and even matrices as F32 or F16 where OpenAI has BF16.
constexpr std::array<std::string_view, 3> kDenseDtypes = {"BF16", "F32", "F16"};
constexpr std::array<std::string_view, 1> kBytesDtype = {"U8"};

Format dense_format(const SafetensorsEntry& tensor) {
  if (tensor.dtype == "BF16") return Format::kBf16;
  return tensor.dtype == "F16" ? Format::kF16 : Format::kF32;
}

// Finds and checks the tensors of one checkpoint for one plan.
class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const ModelConfig& config, const Plan& plan)
      : checkpoint_(checkpoint),
        config_(config),
        plan_(plan),
        names_(detect_tensor_names(checkpoint)) {}

  WeightLayout run() {
    WeightLayout layout;
    const std::int64_t hidden = config_.hidden_size;
    layout.embedding = dense(names_.embedding, WeightGroup::kEmbedding, config_.vocab_size, hidden,
                             plan_.embedding);
    if (config_.tied_embeddings) {
      layout.unembedding = layout.embedding;
    } else {
      layout.unembedding = dense(names_.unembedding, WeightGroup::kUnembedding, config_.vocab_size,
                                 hidden, plan_.unembedding);
    }
    for (std::int64_t l = 0; l < config_.num_layers; ++l) layout.layers.push_back(layer(l));
    const std::int64_t kv_rows = config_.num_kv_heads * config_.head_dim;
    const std::int64_t q_rows = config_.num_heads * config_.head_dim;
    layout.small_parameters =
        hidden +
        config_.num_layers * (2 * hidden + q_rows + 2 * kv_rows + hidden + config_.num_heads +
                              config_.num_experts * (1 + 2 * config_.intermediate_size + hidden));
    layout.ops = choose_ops(plan_, config_, layout, false);
    layout.many_ops = choose_ops(plan_, config_, layout, true);
    lay_out(layout);
    return layout;
  }

 private:
  // Gives each matrix the order of bytes that its op's variant reads.
  void lay_out(WeightLayout& layout) const {
    const bool on_host = plan_.place() == Place::kHost;
    const auto set = [&](WeightPlacement& p, std::optional<RowLayout> wanted) {
      p.layout = wanted.value_or(RowLayout::kRowMajor);
      p.mapped = p.mapped && p.layout == RowLayout::kRowMajor && on_host;
    };
    const std::optional<RowLayout> linear = layout.ops.linear->weight_layout;
    const std::optional<RowLayout> experts = layout.ops.moe_experts->weight_layout;
    set(layout.unembedding, linear);
    if (!on_host) layout.embedding.mapped = false;
    if (config_.tied_embeddings) layout.embedding = layout.unembedding;
    for (LayerPlacements& l : layout.layers) {
      for (WeightPlacement* p : {&l.query, &l.key, &l.value, &l.attention_out}) set(*p, linear);
      set(l.router, layout.ops.router_linear->weight_layout);
      set(l.gate_up, experts);
      set(l.down, experts);
    }
  }

  WeightPlacement dense(std::string_view name, WeightGroup group, std::int64_t rows,
                        std::int64_t cols, std::optional<Format> wanted) {
    return dense_part(name, group, rows, 0, rows, cols, wanted);
  }

  // Rows [first_row, first_row + rows) of a tensor of `total_rows`.
  WeightPlacement dense_part(std::string_view name, WeightGroup group, std::int64_t total_rows,
                             std::int64_t first_row, std::int64_t rows, std::int64_t cols,
                             std::optional<Format> wanted) {
    const std::array<std::int64_t, 2> shape = {total_rows, cols};
    WeightPlacement placement;
    placement.name = std::string(name);
    if (rows != total_rows) placement.name += fmt::format("[{}:{}]", first_row, first_row + rows);
    placement.group = group;
    placement.rows = rows;
    placement.cols = cols;
    placement.first_row = first_row;
    placement.data = &checkpoint_.require_tensor(name, kDenseDtypes, shape);
    placement.stored = dense_format(*placement.data);
    return finish(std::move(placement), wanted);
  }

  // MXFP4 blocks and scales, or a dense re-export with its last two axes swapped.
  WeightPlacement experts(std::string_view dense_name, std::string_view blocks_name,
                          std::string_view scales_name, std::int64_t layer, std::int64_t rows,
                          std::int64_t cols) {
    WeightPlacement placement;
    placement.group = WeightGroup::kExperts;
    placement.count = config_.num_experts;
    placement.rows = rows;
    placement.cols = cols;
    const std::string dense_tensor = layer_tensor(dense_name, layer);
    if (!dense_name.empty() && checkpoint_.find(dense_tensor) != nullptr) {
      const std::array<std::int64_t, 3> shape = {placement.count, cols, rows};
      placement.name = dense_tensor;
      placement.data = &checkpoint_.require_tensor(dense_tensor, kDenseDtypes, shape);
      placement.stored = dense_format(*placement.data);
      placement.transposed = true;
      return finish(std::move(placement), plan_.experts);
    }
    placement.name = layer_tensor(blocks_name, layer);
    require(cols % 32 == 0, "read {}: '{}': {} columns are not whole MXFP4 blocks of 32",
            checkpoint_.directory().string(), placement.name, cols);
    const std::array<std::int64_t, 4> blocks = {placement.count, rows, cols / 32, 16};
    const std::array<std::int64_t, 3> scales = {placement.count, rows, cols / 32};
    placement.data = &checkpoint_.require_tensor(placement.name, kBytesDtype, blocks);
    placement.scales =
        &checkpoint_.require_tensor(layer_tensor(scales_name, layer), kBytesDtype, scales);
    placement.stored = Format::kMxfp4;
    return finish(std::move(placement), plan_.experts);
  }

  WeightPlacement finish(WeightPlacement placement, std::optional<Format> wanted) {
    placement.format = wanted.value_or(placement.stored);
    placement.mapped = placement.format == placement.stored && !placement.transposed;
    const Codec& c = codec(placement.format);
    require(placement.cols % c.block == 0, "hold '{}' as {}: {} columns are not a multiple of {}",
            placement.name, c.name, placement.cols, c.block);
    return placement;
  }

  LayerPlacements layer(std::int64_t l) {
    const std::int64_t hidden = config_.hidden_size;
    const std::int64_t q_rows = config_.num_heads * config_.head_dim;
    const std::int64_t kv_rows = config_.num_kv_heads * config_.head_dim;
    LayerPlacements p;
    const auto weight = [&](std::string_view stem) { return layer_tensor(stem, l) + ".weight"; };
    constexpr auto kAttention = WeightGroup::kAttention;
    if (names_.query_key_value.empty()) {
      p.query = dense(weight(names_.query), kAttention, q_rows, hidden, plan_.attention);
      p.key = dense(weight(names_.key), kAttention, kv_rows, hidden, plan_.attention);
      p.value = dense(weight(names_.value), kAttention, kv_rows, hidden, plan_.attention);
    } else {
      const std::string fused = weight(names_.query_key_value);
      const std::int64_t total = q_rows + 2 * kv_rows;
      const auto part = [&](std::int64_t first, std::int64_t rows) {
        return dense_part(fused, kAttention, total, first, rows, hidden, plan_.attention);
      };
      p.query = part(0, q_rows);
      p.key = part(q_rows, kv_rows);
      p.value = part(q_rows + kv_rows, kv_rows);
    }
    p.attention_out =
        dense(weight(names_.attention_out), kAttention, hidden, q_rows, plan_.attention);
    // The router is tiny and decides everything; plans keep it as stored.
    p.router = dense(weight(names_.router), WeightGroup::kRouter, config_.num_experts, hidden,
                     std::nullopt);
    p.gate_up = experts(names_.gate_up, names_.gate_up_blocks, names_.gate_up_scales, l,
                        2 * config_.intermediate_size, hidden);
    p.down = experts(names_.down, names_.down_blocks, names_.down_scales, l, hidden,
                     config_.intermediate_size);
    return p;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const Plan& plan_;
  const TensorNames& names_;
};

}  // namespace

std::string_view weight_group_name(WeightGroup group) {
  constexpr std::array<std::string_view, kNumWeightGroups> kNames = {
      "embedding", "attention", "router", "experts", "unembedding", "norms and biases"};
  return kNames[static_cast<std::size_t>(group)];
}

std::size_t WeightLayout::bytes(WeightGroup group) const {
  if (group == WeightGroup::kSmall) return static_cast<std::size_t>(small_parameters) * 4;
  std::size_t total = 0;
  for_each([&](const WeightPlacement& p) {
    if (p.group == group) total += p.bytes();
  });
  return total;
}

std::int64_t WeightLayout::parameters() const {
  std::int64_t total = small_parameters;
  for_each([&](const WeightPlacement& p) { total += p.parameters(); });
  return total;
}

WeightLayout plan_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                          const Plan& plan) {
  return Planner(checkpoint, config, plan).run();
}

// Reads what Planner placed.
class WeightLoader {
 public:
  WeightLoader(Weights& weights, ThreadPool& pool)
      : weights_(weights),
        pool_(pool),
        names_(detect_tensor_names(weights.checkpoint_)),
        place_(weights.plan.place()) {
    if (place_ == Place::kDevice) {
      uploader_.emplace(pool);
      encoder_.emplace(pool);
    }
  }

  void run() {
    const ModelConfig& config = weights_.config;
    const WeightLayout& layout = weights_.layout;
    weights_.embedding = matrix(layout.embedding);
    weights_.unembedding = config.tied_embeddings ? weights_.embedding : matrix(layout.unembedding);
    weights_.final_norm = vector(names_.final_norm, {config.hidden_size});
    for (std::int64_t l = 0; l < config.num_layers; ++l) {
      weights_.layers.push_back(layer(l, layout.layers[static_cast<std::size_t>(l)]));
    }
    if (uploader_) uploader_->finish();
  }

 private:
  LayerWeights layer(std::int64_t l, const LayerPlacements& p) {
    const ModelConfig& config = weights_.config;
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t q_rows = config.num_heads * config.head_dim;
    const std::int64_t kv_rows = config.num_kv_heads * config.head_dim;
    const auto named = [&](std::string_view pattern) { return layer_tensor(pattern, l); };
    LayerWeights w;
    w.attention_norm = vector(named(names_.attention_norm), {hidden});
    query_key_value(p, w);
    w.attention_out = matrix(p.attention_out);
    const View<const float, 1> fused =
        names_.query_key_value.empty()
            ? joined_vector({{named(names_.query) + ".bias", q_rows},
                             {named(names_.key) + ".bias", kv_rows},
                             {named(names_.value) + ".bias", kv_rows}})
            : vector(named(names_.query_key_value) + ".bias", {q_rows + 2 * kv_rows});
    w.query_bias = {fused.data, {q_rows}};
    w.key_bias = {fused.data + q_rows, {kv_rows}};
    w.value_bias = {fused.data + q_rows + kv_rows, {kv_rows}};
    w.query_key_value_bias = fused;
    w.attention_out_bias = vector(named(names_.attention_out) + ".bias", {hidden});
    w.sinks = vector(named(names_.sinks), {config.num_heads});
    w.ffn_norm = vector(named(names_.ffn_norm), {hidden});
    w.router = matrix(p.router);
    w.router_bias = vector(named(names_.router) + ".bias", {config.num_experts});
    w.gate_up = stack(p.gate_up).view;
    w.down = stack(p.down).view;
    const std::int64_t wide = 2 * config.intermediate_size;
    w.gate_up_bias = {vector(named(names_.gate_up_bias), {config.num_experts, wide}).data,
                      {config.num_experts, wide}};
    w.down_bias = {vector(named(names_.down_bias), {config.num_experts, hidden}).data,
                   {config.num_experts, hidden}};
    return w;
  }

  // On the GPU one after the other in memory, if each begins where a matrix by itself might.
  void query_key_value(const LayerPlacements& p, LayerWeights& w) {
    constexpr std::size_t kAlignment = 256;
    struct Part {
      const WeightPlacement& placement;
      MatrixView& view;
    };
    const std::array<Part, 3> parts = {{{p.query, w.query}, {p.key, w.key}, {p.value, w.value}}};
    const Codec& c = codec(p.query.format);
    bool joins = place_ == Place::kDevice && c.tensor_scale == nullptr;
    std::size_t data_bytes = 0;
    std::size_t scale_bytes = 0;
    std::int64_t rows = 0;
    for (const Part& part : parts) {
      const WeightPlacement& of = part.placement;
      joins = joins && of.format == p.query.format && of.layout == RowLayout::kRowMajor &&
              data_bytes % kAlignment == 0 && scale_bytes % kAlignment == 0;
      data_bytes += static_cast<std::size_t>(of.rows) * c.row_data_bytes(of.cols);
      scale_bytes += static_cast<std::size_t>(of.rows) * c.row_scale_bytes(of.cols);
      rows += of.rows;
    }
    if (!joins) {
      for (const Part& part : parts) part.view = matrix(part.placement);
      return;
    }
    const char* name = p.query.name.c_str();
    Destination to{weights_.buffers_.emplace_back(data_bytes, name, place_).data(),
                   weights_.buffers_.emplace_back(scale_bytes, name, place_).data()};
    for (const Part& part : parts) {
      const WeightPlacement& of = part.placement;
      part.view = matrix(of, to);
      to.data += static_cast<std::size_t>(of.rows) * c.row_data_bytes(of.cols);
      if (to.scales != nullptr) {
        to.scales += static_cast<std::size_t>(of.rows) * c.row_scale_bytes(of.cols);
      }
    }
    w.query_key_value = w.query;
    w.query_key_value.rows = rows;
  }

  // A small tensor as f32. Refuses values that are not finite: one of them would poison every
  // logit.
  View<const float, 1> vector(std::string_view name, std::initializer_list<std::int64_t> shape) {
    const std::vector<float> values = finite_values(name, std::span(shape.begin(), shape.size()));
    return {keep(values, name), {static_cast<std::int64_t>(values.size())}};
  }

  // Several, one after the other.
  View<const float, 1> joined_vector(
      std::initializer_list<std::pair<std::string, std::int64_t>> parts) {
    std::vector<float> values;
    for (const auto& [name, size] : parts) {
      const std::vector<float> part = finite_values(name, std::span(&size, 1));
      values.insert(values.end(), part.begin(), part.end());
    }
    return {keep(values, parts.begin()->first), {static_cast<std::int64_t>(values.size())}};
  }

  std::vector<float> finite_values(std::string_view name, std::span<const std::int64_t> shape) {
    const SafetensorsEntry& tensor = weights_.checkpoint_.require_tensor(name, kDenseDtypes, shape);
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    std::vector<float> values(static_cast<std::size_t>(count));
    codec(dense_format(tensor)).decode_row(tensor.data.data(), nullptr, 1.0F, count, values.data());
    for (const float value : values) {
      require_or(ErrorCode::kParse, std::isfinite(value), "read {}: tensor '{}' holds {}",
                 weights_.checkpoint_.file_of(tensor), name, value);
    }
    return values;
  }

  // A copy of `values` that lives as long as the weights, where the ops read it.
  const float* keep(std::span<const float> values, std::string_view name) {
    const auto bytes = std::as_bytes(values);
    Buffer& buffer =
        weights_.buffers_.emplace_back(bytes.size(), std::string(name).c_str(), place_);
    store(bytes, buffer.data());
    note(WeightGroup::kSmall, {buffer.data(), buffer.size()}, false);
    return buffer.as<float>();
  }

  void note(WeightGroup group, std::span<const std::byte> bytes, bool mapped) {
    if (place_ == Place::kHost && !bytes.empty()) weights_.ranges.push_back({group, bytes, mapped});
  }

  void store(std::span<const std::byte> from, std::byte* to) {
    if (uploader_) {
      uploader_->copy(to, from);
    } else {
      std::memcpy(to, from.data(), from.size());
    }
  }

  // A view for ops, whose tensor scales may be the device's, and the scales as the host knows them.
  struct Stack {
    MatrixStackView view;
    std::vector<float> tensor_scales;
  };

  // Where a tensor is to lie; data == nullptr: in buffers of its own.
  struct Destination {
    std::byte* data;
    std::byte* scales;
  };

  MatrixView matrix(const WeightPlacement& p, const Destination& to = {}) {
    Stack loaded = stack(p, to);
    loaded.view.tensor_scales = loaded.tensor_scales;
    return loaded.view[0];
  }

  Stack stack(const WeightPlacement& p, const Destination& to = {}) {
    const std::size_t offset =
        static_cast<std::size_t>(p.first_row) * codec(p.stored).row_data_bytes(p.cols);
    const MatrixStackView stored{p.stored,
                                 p.count,
                                 p.transposed ? p.cols : p.rows,
                                 p.transposed ? p.rows : p.cols,
                                 p.data->data.data() + offset,
                                 p.scales != nullptr ? p.scales->data.data() : nullptr,
                                 {}};
    if (!p.mapped) return bring(p, stored, to);
    const auto rows = static_cast<std::size_t>(p.count * p.rows);
    note(p.group, {stored.data, rows * codec(p.stored).row_data_bytes(p.cols)}, true);
    if (stored.scales != nullptr) {
      note(p.group, {stored.scales, rows * codec(p.stored).row_scale_bytes(p.cols)}, true);
    }
    return Stack{stored, {}};
  }

  // Copies, reorders or re-encodes, to where the ops read it.
  Stack bring(const WeightPlacement& p, const MatrixStackView& stored, const Destination& to) {
    const Codec& c = codec(p.format);
    const auto rows = static_cast<std::size_t>(stored_rows(p.layout, p.rows));
    const std::size_t data_bytes = rows * c.row_data_bytes(p.cols);
    const std::size_t scale_bytes = rows * c.row_scale_bytes(p.cols);
    const auto count = static_cast<std::size_t>(p.count);
    const char* name = p.name.c_str();
    const bool is_given = to.data != nullptr;
    std::byte* data = is_given
                          ? to.data
                          : weights_.buffers_.emplace_back(count * data_bytes, name, place_).data();
    std::byte* scales =
        is_given ? to.scales
                 : weights_.buffers_.emplace_back(count * scale_bytes, name, place_).data();
    note(p.group, {data, count * data_bytes}, false);
    note(p.group, {scales, count * scale_bytes}, false);
    std::vector<float> tensor_scales(count, 1.0F);

    const bool as_stored = p.format == p.stored && !p.transposed;
    // On its way to the device, a matrix is re-encoded there if it can be, else here.
    const bool on_device = encoder_ && !as_stored && !p.transposed &&
                           p.layout == RowLayout::kRowMajor &&
                           DeviceEncoder::supports({p.stored, p.format, p.rows, p.cols});
    const bool staged = uploader_ && !on_device && (!as_stored || p.layout != RowLayout::kRowMajor);
    Buffer staging(staged ? data_bytes + scale_bytes : 0, "a matrix on its way to the GPU");
    TensorError report{p.name, p.group, p.stored, p.format, {}};
    std::vector<float> untransposed;
    for (std::size_t e = 0; e < count; ++e) {
      const MatrixView source = stored[static_cast<std::int64_t>(e)];
      std::byte* data_to = staged ? staging.data() : data + e * data_bytes;
      std::byte* scales_to = staged ? staging.data() + data_bytes : scales + e * scale_bytes;
      if (on_device) {
        report.error.add(encoder_->encode(source, p.format, data_to, scales_to, &tensor_scales[e],
                                          p.name, *uploader_));
      } else if (as_stored && p.layout == RowLayout::kRowMajor) {
        store({source.data, data_bytes}, data_to);
        if (scale_bytes > 0) store({source.scales, scale_bytes}, scales_to);
      } else if (as_stored) {
        interleave_rows(source, data_to, scales_to, pool_);
      } else {
        if (p.transposed) untranspose(source, untransposed);
        const auto read_row = [&](std::int64_t row, float* values) {
          if (p.transposed) {
            const float* from = untransposed.data() + row * p.cols;
            std::copy(from, from + p.cols, values);
          } else {
            source.decode_row(row, values);
          }
        };
        report.error.add(encode_matrix(c, p.rows, p.cols, read_row, data_to, scales_to,
                                       &tensor_scales[e], p.name, pool_, p.layout));
      }
      if (staged) {
        store({data_to, data_bytes}, data + e * data_bytes);
        if (scale_bytes > 0) store({scales_to, scale_bytes}, scales + e * scale_bytes);
      }
      // Its pages were read once and will not be again: give them back before the next matrix, so
      // that no tensor is ever held twice.
      release(source);
    }
    if (!as_stored) weights_.errors.push_back(std::move(report));
    Stack loaded{
        {p.format, p.count, p.rows, p.cols, data, scale_bytes > 0 ? scales : nullptr, {}, p.layout},
        std::move(tensor_scales)};
    if (c.tensor_scale != nullptr) {
      loaded.view.tensor_scales = {keep(loaded.tensor_scales, p.name), count};
    }
    return loaded;
  }

  static void release(const MatrixView& source) {
    const Codec& c = codec(source.format);
    const auto rows = static_cast<std::size_t>(source.rows);
    MappedFile::release({source.data, rows * c.row_data_bytes(source.cols)});
    if (source.scales != nullptr) {
      MappedFile::release({source.scales, rows * c.row_scale_bytes(source.cols)});
    }
  }

  // source [cols, rows] -> out [rows, cols], as f32.
  void untranspose(const MatrixView& source, std::vector<float>& out) {
    const std::int64_t cols = source.rows;
    const std::int64_t rows = source.cols;
    out.resize(static_cast<std::size_t>(rows * cols));
    pool_.parallel_for(cols, 16, [&](std::int64_t begin, std::int64_t end, int) {
      std::vector<float> values(static_cast<std::size_t>(rows));
      for (std::int64_t c = begin; c < end; ++c) {
        source.decode_row(c, values.data());
        for (std::int64_t r = 0; r < rows; ++r) {
          out[static_cast<std::size_t>(r * cols + c)] = values[static_cast<std::size_t>(r)];
        }
      }
    });
  }

  Weights& weights_;
  ThreadPool& pool_;
  const TensorNames& names_;
  Place place_;
  std::optional<Uploader> uploader_;
  std::optional<DeviceEncoder> encoder_;
};

std::shared_ptr<const Weights> Weights::load(const std::filesystem::path& directory,
                                             const Plan& plan, ThreadPool& pool) {
  std::shared_ptr<Weights> weights(new Weights);
  weights->config = load_model_config(directory);
  weights->plan = plan;
  weights->checkpoint_ = Checkpoint::open(directory);
  weights->checkpoint_layout = detect_tensor_names(weights->checkpoint_).layout;
  weights->layout = plan_weights(weights->checkpoint_, weights->config, plan);
  WeightLoader(*weights, pool).run();
  // Headers, small tensors and the ends of re-encoded ones: read once.
  weights->checkpoint_.release();
  return weights;
}

namespace {

// In the order of names.
std::vector<const SafetensorsEntry*> sorted_tensors(const Checkpoint& checkpoint) {
  std::vector<const SafetensorsEntry*> entries;
  for (const auto& [name, entry] : checkpoint.tensors()) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(),
            [](const auto* a, const auto* b) { return a->name < b->name; });
  return entries;
}

std::uint64_t tensor_hash(const SafetensorsEntry& entry, std::uint64_t seed) {
  constexpr std::size_t kSample = 64 << 10;
  std::uint64_t hash =
      content_hash(fmt::format("{} {} {}", entry.name, entry.dtype, shape_text(entry.shape)), seed);
  const auto data = entry.data;
  if (data.size() <= 3 * kSample) return content_hash(data, hash);
  hash = content_hash(data.first(kSample), hash);
  hash = content_hash(data.subspan(data.size() / 2, kSample), hash);
  return content_hash(data.last(kSample), hash);
}

}  // namespace

std::string checkpoint_hash(const std::filesystem::path& directory) {
  const Checkpoint checkpoint = Checkpoint::open(directory);
  std::uint64_t hash = content_hash(read_text_file(directory / "config.json"));
  for (const SafetensorsEntry* entry : sorted_tensors(checkpoint)) hash = tensor_hash(*entry, hash);
  return hash_hex(hash);
}

std::vector<TensorHash> tensor_hashes(const std::filesystem::path& directory) {
  const Checkpoint checkpoint = Checkpoint::open(directory);
  std::vector<TensorHash> hashes;
  for (const SafetensorsEntry* entry : sorted_tensors(checkpoint)) {
    hashes.push_back({entry->name, entry->dtype, entry->shape, hash_hex(tensor_hash(*entry, 0))});
  }
  return hashes;
}

}  // namespace moebench
