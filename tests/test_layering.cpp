// The arrows between folders point one way:
//   cli -> reports -> bench -> evals -> engine, datasets -> kernels/<op> -> kernels/core
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "tests/support/files.h"

namespace moebench::test {
namespace {

struct Include {
  std::string file;    // relative to the source root
  std::string target;  // as written
};

std::vector<Include> all_includes() {
  const std::regex pattern("^\\s*#\\s*include\\s+\"([^\"]+)\"");
  std::vector<Include> includes;
  for (const char* folder :
       {"cli", "reports", "bench", "evals", "engine", "datasets", "kernels", "tests"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(source_dir() / folder)) {
      const auto extension = entry.path().extension();
      constexpr std::string_view kSources[] = {".cpp", ".h", ".cu", ".cuh"};
      if (std::find(std::begin(kSources), std::end(kSources), extension.string()) ==
          std::end(kSources))
        continue;
      const std::string name = std::filesystem::relative(entry.path(), source_dir()).string();
      const std::string text = read_file(entry.path());
      std::size_t begin = 0;
      while (begin < text.size()) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        std::smatch match;
        const std::string line = text.substr(begin, end - begin);
        if (std::regex_search(line, match, pattern)) includes.push_back({name, match[1]});
        begin = end + 1;
      }
    }
  }
  return includes;
}

// Higher folders may include lower ones. Folders of one height may not include each other.
int height(const std::string& path) {
  static const std::map<std::string, int> kHeights = {
      {"kernels", 1}, {"engine", 2},  {"datasets", 2}, {"evals", 3},
      {"bench", 4},   {"reports", 5}, {"cli", 6},      {"tests", 7}};
  const auto it = kHeights.find(path.substr(0, path.find('/')));
  return it == kHeights.end() ? 0 : it->second;
}

std::string folder(const std::string& path) { return path.substr(0, path.find('/')); }

// "kernels/linear/linear.h" -> "linear"
std::string op_of(const std::string& path) {
  const std::size_t begin = path.find('/') + 1;
  return path.substr(begin, path.find('/', begin) - begin);
}

}  // namespace

TEST_CASE("layering: includes are written from the root and never point to a higher folder") {
  const std::vector<Include> includes = all_includes();
  REQUIRE(includes.size() > 200);
  for (const Include& i : includes) {
    INFO(i.file << " includes " << i.target);
    CHECK(std::filesystem::exists(source_dir() / i.target));
    const bool same_folder = folder(i.file) == folder(i.target);
    CHECK((same_folder || height(i.target) < height(i.file)));
  }
}

TEST_CASE("layering: within kernels, core knows no op, and formats know only core") {
  for (const Include& i : all_includes()) {
    if (folder(i.file) != "kernels") continue;
    INFO(i.file << " includes " << i.target);
    const std::string from = op_of(i.file);
    const std::string to = op_of(i.target);
    if (from == "core") CHECK(to == "core");
    if (from == "formats") CHECK((to == "formats" || to == "core"));
    if (from == "rows") CHECK((to == "rows" || to == "formats" || to == "core"));
    // An op may use another's views (kv_write writes what attention reads), never its variants.
    if (from != to && to != "core" && to != "formats" && to != "rows" && from != "verify") {
      const bool is_view = i.target == "kernels/attention/kv_view.h" ||
                           i.target == "kernels/attention/kv_device.cuh";
      CHECK(is_view);
    }
  }
}

}  // namespace moebench::test
