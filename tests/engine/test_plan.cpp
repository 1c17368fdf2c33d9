// Plans: the three spellings, what they mean, and that a slip names the nearest word.
#include <catch2/catch.hpp>

#include "engine/model.h"
#include "engine/plan.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

void check_plan_refused(std::string_view text, std::initializer_list<std::string> words) {
  INFO("plan: " << text);
  check_error([&] { parse_plan(text); }, ErrorCode::kInvalidArgument, words);
}

void check_json_refused(const Json& json, std::initializer_list<std::string> words) {
  INFO("plan: " << json.dump());
  check_error([&] { plan_from_json(json, "suite.json: plans[2]"); }, ErrorCode::kInvalidArgument,
              words);
}

}  // namespace

TEST_CASE("plan: reference keeps everything as stored, an f32 cache and reference ops") {
  const Plan plan = parse_plan("reference");
  CHECK(plan.name == "reference");
  CHECK_FALSE(plan.experts.has_value());
  CHECK_FALSE(plan.attention.has_value());
  CHECK_FALSE(plan.embedding.has_value());
  CHECK_FALSE(plan.unembedding.has_value());
  CHECK(plan.kv == Format::kF32);
  for (const std::string& op : op_names()) CHECK(plan.variant_of(op) == "reference");
  CHECK(plan.canonical_text() == Plan{}.canonical_text());
  CHECK(plan.describe() == "as stored, reference ops");
}

TEST_CASE("plan: a format alone is a plan that holds the experts in it") {
  for (const Codec* c : codecs()) {
    const Plan plan = parse_plan(c->name);
    CHECK(plan.name == c->name);
    REQUIRE(plan.experts.has_value());
    CHECK(format_name(*plan.experts) == c->name);
    CHECK_FALSE(plan.attention.has_value());
    CHECK(plan.kv == Format::kF32);
    CHECK(plan.family == OpFamily::kFast);
  }
  // Four families and each format, on either backend; and "cuda" alone.
  CHECK(builtin_plan_names().size() == 2 * (codecs().size() + 4) + 1);
}

TEST_CASE("plan: cuda_ before a name moves it to the GPU, and cuda alone is cuda_fast") {
  CHECK(parse_plan("fast").backend == PlanBackend::kCpu);
  for (const char* name : {"reference", "accurate", "invariant", "mxfp4", "int8"}) {
    const Plan plan = parse_plan(std::string("cuda_") + name);
    CHECK(plan.backend == PlanBackend::kCuda);
    CHECK(plan.name == std::string("cuda_") + name);
    CHECK(plan.place() == Place::kDevice);
    Plan same = parse_plan(name);
    CHECK(plan.canonical_text() != same.canonical_text());
    same.backend = PlanBackend::kCuda;
    CHECK(plan.canonical_text() == same.canonical_text());
    CHECK(plan_from_json(plan_to_json(plan), "plan").canonical_text() == plan.canonical_text());
  }
  CHECK(parse_plan("cuda").canonical_text() == parse_plan("cuda_fast").canonical_text());
  CHECK(parse_plan("backend=cuda").canonical_text() == parse_plan("cuda").canonical_text());
  CHECK(parse_plan("cuda").describe() == "as stored, fast ops on the GPU");
  CHECK_THROWS_WITH(parse_plan("backend=gpu"), Catch::Contains("no backend 'gpu'"));
  CHECK_THROWS_WITH(parse_plan("cuda_fats"), Catch::Contains("did you mean 'cuda_fast'?"));
}

TEST_CASE("plan: attention takes the format of its weights, or a variant of the op") {
  CHECK(parse_plan("attention=bf16").attention == Format::kBf16);
  CHECK(parse_plan("attention=bf16").ops.empty());
  const Plan plan = parse_plan("attention=portable_f32+reference,kv=bf16");
  CHECK(!plan.attention);
  CHECK(plan.ops.at("attention") == "portable_f32+reference");
  CHECK_THROWS_WITH(parse_plan("attention=portable_f23"), Catch::Contains("no format"));
  CHECK_THROWS_WITH(parse_plan("attention=reference+portable_f23"),
                    Catch::Contains("portable_f23"));
}

TEST_CASE("plan: an op can name one variant for few tokens and another for many") {
  CHECK(variant_for("a+b", false) == "a");
  CHECK(variant_for("a+b", true) == "b");
  CHECK(variant_for("a", true) == "a");
  const Plan plan = parse_plan("linear=avx2_f32+portable_f32");
  CHECK(plan.variant_of("linear") == "avx2_f32+portable_f32");
  CHECK_THROWS_WITH(parse_plan("linear=avx2_f32+portable_f23"),
                    Catch::Contains("did you mean 'portable_f32'?"));
}

TEST_CASE("plan: a family alone keeps everything as stored") {
  for (const char* name : {"fast", "accurate"}) {
    const Plan plan = parse_plan(name);
    CHECK(plan.name == name);
    CHECK_FALSE(plan.experts.has_value());
    CHECK(op_family_name(plan.family) == name);
    CHECK(plan.variant_of("linear") == name);
    CHECK(plan.describe() == fmt::format("as stored, {} ops", name));
    CHECK(parse_plan(fmt::format("ops={}", name)).canonical_text() == plan.canonical_text());
  }
  CHECK(parse_plan("ops=reference").canonical_text() == Plan{}.canonical_text());
  CHECK(parse_plan("ops=accurate,experts=int4").family == OpFamily::kAccurate);
  CHECK(parse_plan("experts=int4").family == OpFamily::kFast);
}

TEST_CASE("plan: fuse=yes puts several ops in one launch") {
  const Plan plan = parse_plan("backend=cuda,fuse=yes");
  CHECK(plan.fuses);
  CHECK(plan.describe() == "as stored, fast ops on the GPU, several in one launch");
  CHECK(plan.canonical_text() != parse_plan("cuda").canonical_text());
  CHECK(plan_from_json(plan_to_json(plan), "plan").fuses);
  CHECK(parse_plan("backend=cuda,fuse=no").canonical_text() == parse_plan("cuda").canonical_text());
  CHECK_FALSE(plan_to_json(parse_plan("cuda")).contains("fuse"));
  CHECK_THROWS_WITH(parse_plan("fuse=true"), Catch::Contains("fuse is yes or no, not 'true'"));
}

TEST_CASE("plan: overlap=no reads each step before the next, and is another plan") {
  const Plan plan = parse_plan("backend=cuda,overlap=no");
  CHECK_FALSE(plan.overlaps);
  CHECK(plan.describe() == "as stored, fast ops on the GPU, one step at a time");
  CHECK(plan.canonical_text() != parse_plan("cuda").canonical_text());
  CHECK_FALSE(plan_from_json(plan_to_json(plan), "plan").overlaps);
  CHECK(parse_plan("cuda").overlaps);
  CHECK(parse_plan("backend=cuda,overlap=yes").canonical_text() ==
        parse_plan("cuda").canonical_text());
  CHECK_FALSE(plan_to_json(parse_plan("cuda")).contains("overlap"));
  CHECK_THROWS_WITH(parse_plan("overlap=1"), Catch::Contains("overlap is yes or no, not '1'"));
}

TEST_CASE("plan: groups, cache and ops can be chosen one by one") {
  const std::string text =
      "experts=int4,attention=bf16,embedding=f16,unembedding=stored,kv=fp8_e4m3,linear=reference";
  const Plan plan = parse_plan(text);
  CHECK(plan.name == text);
  CHECK(plan.experts == Format::kInt4);
  CHECK(plan.attention == Format::kBf16);
  CHECK(plan.embedding == Format::kF16);
  CHECK_FALSE(plan.unembedding.has_value());
  CHECK(plan.kv == Format::kFp8E4m3);
  CHECK(plan.variant_of("linear") == "reference");
  const std::string words = plan.describe();
  for (const char* word : {"experts int4", "attention bf16", "embedding f16", "cache fp8_e4m3"}) {
    CHECK(words.find(word) != std::string::npos);
  }
}

TEST_CASE("plan: JSON says the same as the short spelling, and survives being written") {
  const Json json = {{"name", "mine"}, {"experts", "nvfp4"},    {"attention", "stored"},
                     {"kv", "bf16"},   {"unembedding", "int8"}, {"ops", {{"linear", "reference"}}}};
  const Plan plan = plan_from_json(json, "suite.json");
  CHECK(plan.name == "mine");
  CHECK(plan.canonical_text() ==
        parse_plan("experts=nvfp4,kv=bf16,unembedding=int8,linear=reference").canonical_text());
  CHECK(plan.canonical_text() != parse_plan("experts=nvfp4,kv=bf16").canonical_text());
  const Plan again = plan_from_json(plan_to_json(plan), "copy");
  CHECK(again.name == plan.name);
  CHECK(again.canonical_text() == plan.canonical_text());
  CHECK(again.ops == plan.ops);
  CHECK(plan_from_json("int4", "suite.json").experts == Format::kInt4);
}

TEST_CASE("plan: the short spelling of every choice there is survives being written") {
  std::string text = "experts=fp8_e4m3,attention=fp8_e4m3,embedding=fp8_e4m3,kv=fp8_e4m3";
  text += ",unembedding=fp8_e4m3";
  for_each_op([&](std::string_view op, const auto& variants) {
    if (op == "attention" || op == "embedding") return;  // these words are weight groups
    text += fmt::format(",{}={}", op, variants.back()->name);
  });
  const Plan plan = parse_plan(text);
  CHECK(plan_from_json(plan_to_json(plan), "copy").canonical_text() == plan.canonical_text());
}

TEST_CASE("plan: the canonical text tells apart whatever acts differently") {
  std::vector<std::string> seen;
  for (const char* text :
       {"reference", "int4", "experts=int8", "attention=int4", "embedding=int4", "unembedding=int4",
        "kv=int4", "kv=bf16", "fast", "accurate", "linear=reference"}) {
    const std::string canonical = parse_plan(text).canonical_text();
    CHECK(std::find(seen.begin(), seen.end(), canonical) == seen.end());
    seen.push_back(canonical);
  }
  CHECK(parse_plan("experts=int4").canonical_text() == parse_plan("int4").canonical_text());
  CHECK(parse_plan("experts=stored").canonical_text() == parse_plan("fast").canonical_text());
}

TEST_CASE("plan: an unknown word is refused with the nearest one and the list") {
  check_plan_refused("inf4", {"'inf4'", "did you mean 'int4'", "known: ", "reference"});
  check_plan_refused("refrence", {"'refrence'", "did you mean 'reference'"});
  check_plan_refused("experts=mxpf4", {"'mxpf4'", "did you mean 'mxfp4'"});
  check_plan_refused("expert=int4", {"'expert'", "did you mean 'experts'"});
  check_plan_refused("kv=fp8", {"'fp8'", "fp8_e4m3"});
  check_plan_refused("linaer=reference", {"'linaer'", "did you mean 'linear'"});
  check_plan_refused("linear=refrence", {"linear", "'refrence'", "did you mean 'reference'"});
  check_plan_refused("ops=acurate", {"family of ops", "'acurate'", "did you mean 'accurate'"});
  check_plan_refused("zzzzzz", {"'zzzzzz'", "known: "});
}

TEST_CASE("plan: text that is not a list of choices is refused") {
  check_plan_refused("", {"''"});
  check_plan_refused("experts=", {"''", "known: "});
  check_plan_refused("=int4", {"''"});
  check_plan_refused("experts=int4,", {"''", "group=format"});
  check_plan_refused("experts=int4,,kv=bf16", {"''", "group=format"});
  check_plan_refused("experts=int4,bf16", {"'bf16'", "group=format"});
  check_plan_refused("experts=int4, kv=bf16", {"' kv'", "did you mean 'kv'"});
}

TEST_CASE("plan: a choice made twice is refused, even if it agrees") {
  check_plan_refused("experts=int4,kv=bf16,experts=int8", {"'experts'", "twice"});
  check_plan_refused("linear=reference,linear=reference", {"'linear'", "twice"});
}

TEST_CASE("plan: JSON that is wrong names the place, the field and the value") {
  check_json_refused({{"experts", "int4"}}, {"suite.json: plans[2]", "'name'", "missing"});
  check_json_refused({{"name", ""}}, {"plans[2].name"});
  check_json_refused({{"name", std::string(1001, 'x')}}, {"plans[2].name", "1000"});
  check_json_refused({{"name", "p"}, {"expert", "int4"}},
                     {"plans[2]", "'expert'", "did you mean 'experts'"});
  check_json_refused({{"name", "p"}, {"experts", 4}}, {"plans[2].experts", "4"});
  check_json_refused({{"name", "p"}, {"experts", "int5"}}, {"'int5'", "int4"});
  check_json_refused({{"name", "p"}, {"ops", "linear"}}, {"plans[2].ops"});
  check_json_refused({{"name", "p"}, {"ops", {{"linaer", "reference"}}}},
                     {"'linaer'", "did you mean 'linear'"});
  check_json_refused({{"name", "p"}, {"ops", {{"default", "quick"}}}}, {"'quick'", "fast"});
  check_json_refused({{"name", "p"}, {"ops", {{"linear", 1}}}}, {"plans[2].ops.linear", "1"});
  check_json_refused(Json::array(), {"plans[2]", "expected an object"});
  check_json_refused(7, {"plans[2]", "expected an object", "7"});
}

}  // namespace moebench::test
