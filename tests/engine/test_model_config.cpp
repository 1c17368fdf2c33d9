// config.json in both spellings, and every field of it that can be missing, of a wrong type, or
// absurd.
#include <catch2/catch.hpp>

#include "engine/model_config.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

Json hugging_face() { return read_json(golden("gpt-oss-tiny-a/config.json")); }
Json original() { return read_json(golden("gpt-oss-tiny-a/original/config.json")); }

ModelConfig parse(const Json& json) { return parse_model_config(json, "config.json"); }

void check_refused(const Json& json, std::initializer_list<std::string> words,
                   ErrorCode code = ErrorCode::kInvalidArgument) {
  INFO("config: " << json.dump());
  check_error([&] { parse(json); }, code, words);
}

}  // namespace

TEST_CASE("config: both spellings of the tiny model say the same, in our words") {
  const ModelConfig config = parse(GENERATE(0, 1) == 0 ? hugging_face() : original());
  CHECK(config.family == "gpt_oss");
  CHECK(config.num_layers == 4);
  CHECK(config.hidden_size == 64);
  CHECK(config.intermediate_size == 96);
  CHECK(config.num_heads == 4);
  CHECK(config.num_kv_heads == 2);
  CHECK(config.head_dim == 64);
  CHECK(config.num_experts == 8);
  CHECK(config.top_k == 2);
  CHECK(config.vocab_size == 512);
  CHECK(config.sliding_window == 8);
  CHECK(config.max_context == 256);
  CHECK(config.rms_norm_epsilon == 1e-5);
  CHECK(config.swiglu_alpha == 1.702);
  CHECK(config.swiglu_limit == 7.0);
  CHECK_FALSE(config.tied_embeddings);
  CHECK(config.rope.theta == 150000);
  CHECK(config.rope.factor == 8);
  CHECK(config.rope.beta_fast == 4);
  CHECK(config.rope.beta_slow == 1);
  CHECK(config.rope.original_context == 32);
  CHECK_FALSE(config.rope.truncate);
  CHECK(config.layer_is_sliding == std::vector<bool>{true, false, true, false});
  CHECK(config.num_sliding_layers() == 2);
}

TEST_CASE("config: newer files hold rope_parameters instead of rope_scaling") {
  Json json = hugging_face();
  Json rope = json["rope_scaling"];
  json.erase("rope_scaling");
  json.erase("rope_theta");
  rope["rope_theta"] = 10000.0;
  json["rope_parameters"] = rope;
  const ModelConfig config = parse(json);
  CHECK(config.rope.theta == 10000);
  CHECK(config.rope.factor == 8);
  json["rope_parameters"].erase("truncate");
  CHECK(parse(json).rope.truncate);  // the default of transformers
}

TEST_CASE("config: without scaling the rotary embedding is plain") {
  Json json = hugging_face();
  json["rope_scaling"] = nullptr;
  CHECK(parse(json).rope.factor == 1);
  json["rope_scaling"] = {{"rope_type", "default"}, {"factor", 4.0}};
  CHECK(parse(json).rope.factor == 1);
  json.erase("rope_scaling");
  CHECK(parse(json).rope.factor == 1);
}

TEST_CASE("config: stop tokens are a number or a list, of both files, each once") {
  Json json = hugging_face();
  json["eos_token_id"] = {3, 5, 3};
  CHECK(parse(json).stop_token_ids == std::vector<std::int64_t>{3, 5});
  json["eos_token_id"] = nullptr;
  CHECK(parse(json).stop_token_ids.empty());
  json["eos_token_id"] = 512;
  check_refused(json, {"eos_token_id", "512", "[0, 511]"});
  json["eos_token_id"] = {1, -1};
  check_refused(json, {"eos_token_id", "-1"});

  const TemporaryDirectory directory;
  json["eos_token_id"] = 7;
  write_file(directory.path() / "config.json", json.dump());
  write_file(directory.path() / "generation_config.json", R"({"eos_token_id": [9, 7]})");
  CHECK(load_model_config(directory.path()).stop_token_ids == std::vector<std::int64_t>{7, 9});
  write_file(directory.path() / "generation_config.json", R"({"eos_token_id": [600]})");
  check_error([&] { load_model_config(directory.path()); }, ErrorCode::kInvalidArgument,
              {"generation_config.json", "eos_token_id", "600"});
}

TEST_CASE("config: a field that is missing is named") {
  for (const char* field :
       {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
        "num_key_value_heads", "head_dim", "num_local_experts", "vocab_size", "sliding_window",
        "max_position_embeddings", "model_type"}) {
    Json json = hugging_face();
    json.erase(field);
    check_refused(json, {"config.json", field, "missing"});
  }
  Json json = hugging_face();
  json.erase("num_experts_per_tok");
  CHECK(parse(json).top_k == 2);  // by the other spelling, which stands there too
  json.erase("experts_per_token");
  check_refused(json, {"num_experts_per_tok", "missing"});
  const Json whole = original();
  for (const auto& [field, value] : whole.items()) {
    if (field == "swiglu_limit" || field.starts_with("rope_") || field == "num_experts" ||
        field == "initial_context_length") {
      continue;  // those have a default, or make the spelling what it is
    }
    json = original();
    json.erase(field);
    check_refused(json, {"config.json", "missing"});
  }
}

TEST_CASE("config: absurd numbers are refused with the field, the value and the range") {
  const std::vector<const char*> extents = {
      "num_hidden_layers",   "hidden_size",    "intermediate_size",      "num_attention_heads",
      "num_key_value_heads", "head_dim",       "num_local_experts",      "num_experts_per_tok",
      "vocab_size",          "sliding_window", "max_position_embeddings"};
  for (const char* field : extents) {
    for (const Json& value : {Json(0), Json(-1), Json(std::int64_t{1} << 40), Json(~0ULL)}) {
      Json json = hugging_face();
      json[field] = value;
      check_refused(json, {"config.json", field, value.dump()});
    }
    for (const Json& value : {Json(1.5), Json("64"), Json(nullptr), Json::array({1})}) {
      Json json = hugging_face();
      json[field] = value;
      check_refused(json, {"config.json", field, "expected an integer"});
    }
  }
  for (const char* field : {"rms_norm_eps", "swiglu_limit", "rope_theta"}) {
    Json json = hugging_face();
    json[field] = -1.0;
    check_refused(json, {field, "-1"});
    json[field] = "1";
    check_refused(json, {field, "expected a number"});
  }
}

TEST_CASE("config: shapes that do not fit each other are refused") {
  Json json = hugging_face();
  json["num_key_value_heads"] = 3;
  check_refused(json, {"num_key_value_heads", "4", "3"});
  json = hugging_face();
  json["head_dim"] = 63;
  check_refused(json, {"head_dim", "63", "odd"});
  json = hugging_face();
  json["num_experts_per_tok"] = 9;
  check_refused(json, {"num_experts_per_tok", "9", "[1, 8]"});
  json = hugging_face();
  json["layer_types"] = {"sliding_attention", "full_attention"};
  check_refused(json, {"layer_types", "2 entries for 4 layers"});
  json = hugging_face();
  json["layer_types"][2] = "chunked_attention";
  check_refused(json, {"layer_types", "[2]", "chunked_attention"});
  json.erase("layer_types");
  CHECK(parse(json).layer_is_sliding == std::vector<bool>{true, false, true, false});
}

TEST_CASE("config: what the engine cannot compute is unsupported, by name") {
  Json json = hugging_face();
  json["model_type"] = "mixtral";
  check_refused(json, {"model_type", "mixtral", "gpt_oss"}, ErrorCode::kUnsupported);
  json = hugging_face();
  json["rope_scaling"]["rope_type"] = "llama3";
  check_refused(json, {"rope_type", "llama3", "yarn"}, ErrorCode::kUnsupported);
  json = hugging_face();
  json["rope_scaling"].erase("rope_type");
  json["rope_scaling"]["type"] = "linear";
  check_refused(json, {"linear", "yarn"}, ErrorCode::kUnsupported);
  json = hugging_face();
  json["attention_bias"] = false;
  check_refused(json, {"attention_bias"}, ErrorCode::kUnsupported);
}

TEST_CASE("config: a YaRN ramp that runs backwards or has no length is refused") {
  Json json = hugging_face();
  json["rope_scaling"]["beta_fast"] = 1.0;
  check_refused(json, {"config.json", "beta_fast 1", "beta_slow 1"});
  json["rope_scaling"]["beta_fast"] = 0;
  check_refused(json, {"rope_scaling.beta_fast", "0"});
  json = hugging_face();
  json["rope_scaling"]["factor"] = 0.5;
  check_refused(json, {"rope_scaling.factor", "0.5"});
  // Found by the fuzz entry: the logarithm of 1 is 0, and every frequency was NaN.
  json = hugging_face();
  json["rope_theta"] = 1;
  check_refused(json, {"config.json", "rope_theta 1"});
  json.erase("rope_scaling");
  CHECK(parse(json).rope.theta == 1);
}

TEST_CASE("config: a context of the original layout beyond reason is refused") {
  Json json = original();
  json["initial_context_length"] = 1e12;
  json["rope_scaling_factor"] = 1e6;
  check_refused(json, {"config.json", "initial_context_length"});
}

TEST_CASE("config: what is not an object, and what is not JSON, is refused") {
  check_refused(Json::array(), {"config.json", "expected an object"});
  const TemporaryDirectory directory;
  write_file(directory.path() / "config.json", "{\"model_type\": ");
  check_error([&] { load_model_config(directory.path()); }, ErrorCode::kParse,
              {(directory.path() / "config.json").string()});
}

}  // namespace moebench::test
