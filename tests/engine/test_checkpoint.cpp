// Checkpoint directories: one file or several, what is missing or wrong in them, and the forms that
// third parties store gpt-oss in.
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/engine.h"
#include "engine/scoring.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/near.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

const std::vector<std::int32_t> kTokens = {5, 17, 99, 3, 3, 64, 120, 1, 17, 42, 8, 31, 77};

// The logits after every token of kTokens.
std::vector<std::vector<float>> logits_of(const std::filesystem::path& directory,
                                          const Plan& plan = {}) {
  ThreadPool pool(2);
  const EngineOptions options{
      .max_batch = 1, .max_context = 64, .step_tokens = 16, .logit_rows = 16};
  Engine engine = load_engine(directory, plan, options, pool);
  std::vector<std::vector<float>> rows;
  score_sequence(
      *engine.model, *engine.cache, kTokens, 0,
      [&](std::int64_t, std::span<const float> row) { rows.emplace_back(row.begin(), row.end()); });
  return rows;
}

void load(const std::filesystem::path& directory) {
  ThreadPool pool(1);
  Weights::load(directory, {}, pool);
}

// Writes the tiny model after `edit(config, tensors)` and CHECKs that loading it is refused.
template <class Edit>
void check_refused(const Edit& edit, ErrorCode code, std::initializer_list<std::string> words) {
  const TemporaryDirectory directory;
  Json config = synthetic_config({});
  TensorSpecs tensors = synthetic_tensors({}, 1);
  edit(config, tensors);
  write_checkpoint(directory.path(), config, tensors);
  check_error([&] { load(directory.path()); }, code, words);
}

constexpr auto kQuery = "model.layers.1.self_attn.q_proj.weight";
constexpr auto kBlocks = "model.layers.0.mlp.experts.down_proj_blocks";
constexpr auto kScales = "model.layers.0.mlp.experts.down_proj_scales";

}  // namespace

TEST_CASE("checkpoint: shards with an index hold the same model as one file") {
  const TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path() / "one", {}, 3);
  write_synthetic_checkpoint(directory.path() / "five", {}, 3, 5);
  const auto want = logits_of(directory.path() / "one");
  CHECK(logits_of(directory.path() / "five") == want);
  // A file beside the index that it does not name is not part of the model.
  write_file(directory.path() / "five" / "stray.safetensors", "not one");
  CHECK(logits_of(directory.path() / "five") == want);
}

TEST_CASE("checkpoint: an index that does not tell the truth is refused") {
  const TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path(), {}, 1, 2);
  const auto path = directory.path() / "model.safetensors.index.json";
  const Json good = read_json(path);
  const auto check_index = [&](const Json& index, ErrorCode code,
                               std::initializer_list<std::string> words) {
    write_file(path, index.dump());
    check_error([&] { load(directory.path()); }, code, words);
  };
  Json index = good;
  index["weight_map"]["no.such.tensor"] = "model-00000-of-00001.safetensors";
  check_index(index, ErrorCode::kParse, {path.string(), "no.such.tensor", "index"});
  index = good;
  index["weight_map"]["lm_head.weight"] = "model-00007-of-00001.safetensors";
  check_index(index, ErrorCode::kIo, {"model-00007-of-00001.safetensors"});
  index = good;
  const std::string other =
      good["weight_map"]["lm_head.weight"] == "model-00000-of-00001.safetensors"
          ? "model-00001-of-00001.safetensors"
          : "model-00000-of-00001.safetensors";
  index["weight_map"]["lm_head.weight"] = other;
  check_index(index, ErrorCode::kParse, {"lm_head.weight", other});
  for (const char* name : {"../model.safetensors", "/etc/passwd", "..", ""}) {
    index = good;
    index["weight_map"]["lm_head.weight"] = name;
    check_index(index, ErrorCode::kParse, {"lm_head.weight", "not a plain file name", name});
  }
  index = good;
  index["weight_map"]["lm_head.weight"] = 3;
  check_index(index, ErrorCode::kParse, {"lm_head.weight", "not a file name"});
  check_index({{"weight_map", 1}}, ErrorCode::kParse, {path.string(), "weight_map"});
  check_index(Json::object(), ErrorCode::kParse, {path.string(), "weight_map"});
}

TEST_CASE("checkpoint: a tensor that stands in two files is refused") {
  const TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path(), {}, 1);
  TensorSpecs more;
  const std::vector<float> ones(64, 1.0F);
  more.push_back(tensor_of_floats("model.norm.weight", "F32", {64}, ones));
  write_safetensors(directory.path() / "zz.safetensors", more);
  check_error([&] { load(directory.path()); }, ErrorCode::kParse,
              {"zz.safetensors", "model.norm.weight", "model.safetensors"});
}

TEST_CASE("checkpoint: a directory without a model says what is missing") {
  const TemporaryDirectory directory;
  check_error([&] { load(directory.path() / "nowhere"); }, ErrorCode::kIo, {"nowhere"});
  check_error([&] { load(directory.path()); }, ErrorCode::kIo,
              {directory.path().string(), "config.json"});
  write_file(directory.path() / "config.json", synthetic_config({}).dump());
  check_error([&] { load(directory.path()); }, ErrorCode::kIo,
              {directory.path().string(), "safetensors"});
  write_file(directory.path() / "model.safetensors", "");
  check_error([&] { load(directory.path()); }, ErrorCode::kParse, {"model.safetensors", "0 bytes"});
}

TEST_CASE("checkpoint: any tensor that is missing is named") {
  std::vector<std::string> names;
  for (const TensorSpec& tensor : synthetic_tensors({}, 1)) names.push_back(tensor.name);
  REQUIRE(names.size() == 41);  // 3 of the model, 19 of each layer
  for (const std::string& name : names) {
    INFO("without " << name);
    check_refused([&](Json&, TensorSpecs& tensors) { drop_tensor(tensors, name); },
                  ErrorCode::kParse, {name});
  }
}

TEST_CASE("checkpoint: a tensor of a wrong name suggests the one that is there") {
  check_refused(
      [](Json&, TensorSpecs& tensors) {
        find_tensor(tensors, "model.norm.weight").name = "model.norms.weight";
      },
      ErrorCode::kParse, {"'model.norm.weight' is missing", "there is 'model.norms.weight'"});
}

TEST_CASE(
    "checkpoint: a wrong shape or dtype names file, tensor, what is there and what is wanted") {
  check_refused(
      [](Json&, TensorSpecs& tensors) {
        find_tensor(tensors, kQuery).shape = {64, 128};
      },
      ErrorCode::kParse, {"model.safetensors", kQuery, "[64, 128]", "[128, 64]"});
  check_refused([](Json&, TensorSpecs& tensors) { find_tensor(tensors, kQuery).shape = {8192}; },
                ErrorCode::kParse, {kQuery, "[8192]", "[128, 64]"});
  check_refused([](Json& config, TensorSpecs&) { config["vocab_size"] = 256; }, ErrorCode::kParse,
                {"embed_tokens", "[128, 64]", "[256, 64]"});
  check_refused(
      [](Json&, TensorSpecs& tensors) {
        const std::string bytes(2 * 128 * 64, '\0');
        find_tensor(tensors, kQuery) = tensor_of_bytes(kQuery, "U8", {128, 128}, bytes);
      },
      ErrorCode::kParse, {kQuery, "U8", "BF16 or F32 or F16"});
  check_refused(
      [](Json&, TensorSpecs& tensors) {
        TensorSpec& blocks = find_tensor(tensors, kBlocks);
        blocks = random_tensor(blocks.name, {4, 64, 2, 8}, 1, 0, 1);
      },
      ErrorCode::kParse, {kBlocks, "BF16", "U8"});
  check_refused(
      [](Json&, TensorSpecs& tensors) {
        find_tensor(tensors, kScales).shape = {4, 2, 64};
      },
      ErrorCode::kParse, {kScales, "[4, 2, 64]", "[4, 64, 2]"});
}

TEST_CASE("checkpoint: an intermediate size that MXFP4 blocks cannot hold is refused") {
  check_refused(
      [](Json& config, TensorSpecs& tensors) {
        config["intermediate_size"] = 72;
        const std::string gate_up = "model.layers.0.mlp.experts.gate_up_proj";
        find_tensor(tensors, gate_up + "_blocks") =
            random_bytes(gate_up + "_blocks", {4, 144, 2, 16}, 1);
        find_tensor(tensors, gate_up + "_scales") =
            random_bytes(gate_up + "_scales", {4, 144, 2}, 1, 120);
      },
      ErrorCode::kInvalidArgument, {kBlocks, "72 columns", "32"});
}

TEST_CASE("checkpoint: a number that is not finite in a norm or bias is refused") {
  for (const float value : {std::nanf(""), INFINITY, -INFINITY}) {
    check_refused(
        [&](Json&, TensorSpecs& tensors) {
          std::vector<float> values(64, 1.0F);
          values[5] = value;
          find_tensor(tensors, "model.norm.weight") =
              tensor_of_floats("model.norm.weight", "BF16", {64}, values);
        },
        ErrorCode::kParse, {"model.safetensors", "model.norm.weight", fmt::format("{}", value)});
  }
}

TEST_CASE("checkpoint: norms, biases and matrices may be F32 or F16 where OpenAI has BF16") {
  const TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path() / "bf16", {}, 2);
  const auto want = logits_of(directory.path() / "bf16");
  const std::string dtype = GENERATE("F32", "F16");
  TensorSpecs tensors = synthetic_tensors({}, 2);
  for (TensorSpec& tensor : tensors) {
    if (tensor.dtype != "BF16") continue;
    // Every number here survives both: bf16 has fewer digits, and no size leaves f16's range...
    tensor = tensor_of_floats(tensor.name, dtype, tensor.shape, floats_of(tensor));
  }
  write_checkpoint(directory.path() / dtype, synthetic_config({}), tensors);
  const auto got = logits_of(directory.path() / dtype);
  REQUIRE(got.size() == want.size());
  // ... but its smallest ones: below 2^-17 f16 has fewer digits than bf16.
  for (std::size_t t = 0; t < want.size(); ++t) {
    check_near(got[t], want[t], dtype == "F32" ? 0.0 : 1e-3);
  }
}

TEST_CASE("checkpoint: dense experts, stored with rows and columns swapped, are the same model") {
  const TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path() / "mxfp4", {}, 4);
  TensorSpecs tensors = synthetic_tensors({}, 4);
  const TensorSpecs original = read_tensors(directory.path() / "mxfp4");
  const auto bytes_of = [&](const std::string& name) {
    for (const TensorSpec& tensor : original) {
      if (tensor.name != name) continue;
      std::ostringstream out;
      tensor.write(out);
      return out.str();
    }
    throw std::logic_error("no tensor " + name);
  };
  for (const char* layer : {"model.layers.0.mlp.experts.", "model.layers.1.mlp.experts."}) {
    for (const std::string part : {"gate_up_proj", "down_proj"}) {
      const std::string stem = layer + part;
      const std::int64_t rows = part == "down_proj" ? 64 : 128;
      const std::int64_t cols = 64;
      const std::string blocks = bytes_of(stem + "_blocks");
      const std::string scales = bytes_of(stem + "_scales");
      // By hand, from the definition: two E2M1 codes a byte, the low one first; 2^(scale - 127).
      constexpr std::array<float, 8> kMagnitudes = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
      std::vector<float> values(static_cast<std::size_t>(4 * rows * cols));
      for (std::int64_t e = 0; e < 4; ++e) {
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t c = 0; c < cols; ++c) {
            const std::int64_t at = (e * rows + r) * cols + c;
            const auto byte = static_cast<unsigned char>(blocks[static_cast<std::size_t>(at / 2)]);
            const unsigned code = c % 2 == 0 ? byte & 15U : byte >> 4U;
            const auto scale =
                static_cast<unsigned char>(scales[static_cast<std::size_t>(at / 32)]);
            const float magnitude = std::ldexp(kMagnitudes[code & 7U], scale - 127);
            values[static_cast<std::size_t>((e * cols + c) * rows + r)] =
                code >= 8 ? -magnitude : magnitude;
          }
        }
      }
      drop_tensor(tensors, stem + "_blocks");
      drop_tensor(tensors, stem + "_scales");
      tensors.push_back(tensor_of_floats(stem, "BF16", {4, cols, rows}, values));
    }
  }
  write_checkpoint(directory.path() / "dense", synthetic_config({}), tensors);
  const auto got = logits_of(directory.path() / "dense");
  CHECK(got == logits_of(directory.path() / "mxfp4"));
  // And a plan that asks for MXFP4 finds the very codes again, or others of the same values.
  CHECK(logits_of(directory.path() / "dense", parse_plan("experts=mxfp4,ops=reference")) == got);
}

TEST_CASE("checkpoint: tied embeddings need no lm_head, and use the embedding for it") {
  const TemporaryDirectory directory;
  Json config = synthetic_config({});
  TensorSpecs tensors = synthetic_tensors({}, 6);
  TensorSpec& head = find_tensor(tensors, "lm_head.weight");
  head = tensor_of_floats("lm_head.weight", "BF16", head.shape,
                          floats_of(find_tensor(tensors, "model.embed_tokens.weight")));
  write_checkpoint(directory.path() / "untied", config, tensors);
  drop_tensor(tensors, "lm_head.weight");
  config["tie_word_embeddings"] = true;
  write_checkpoint(directory.path() / "tied", config, tensors);
  CHECK(logits_of(directory.path() / "tied") == logits_of(directory.path() / "untied"));
}

TEST_CASE("checkpoint: its hash changes with a config, a name and a byte, not with the folder") {
  const TemporaryDirectory directory;
  const auto hash = [&](const std::string& name, const Json& config, const TensorSpecs& tensors) {
    write_checkpoint(directory.path() / name, config, tensors);
    return checkpoint_hash(directory.path() / name);
  };
  const Json config = synthetic_config({});
  const TensorSpecs tensors = synthetic_tensors({}, 1);
  const std::string base = hash("a", config, tensors);
  CHECK(hash("b", config, tensors) == base);
  CHECK(hash("c", config, synthetic_tensors({}, 2)) != base);
  Json other = config;
  other["swiglu_limit"] = 8.0;
  CHECK(hash("d", other, tensors) != base);
  TensorSpecs one_byte = tensors;
  std::vector<float> values = floats_of(find_tensor(one_byte, "model.norm.weight"));
  values[63] += 0.5F;
  find_tensor(one_byte, "model.norm.weight") =
      tensor_of_floats("model.norm.weight", "BF16", {64}, values);
  CHECK(hash("e", config, one_byte) != base);
}

}  // namespace moebench::test
