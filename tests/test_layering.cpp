// The arrows between folders point one way:
//   cli -> reports -> bench -> evals -> engine, datasets -> kernels/<op> -> kernels/core
#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>
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

// The headers of all rooms, by their names from the root, without comments and texts.
std::map<std::string, std::string> all_headers() {
  static const std::regex kNoCode("//[^\\n]*|\"[^\"\\n]*\"");
  std::map<std::string, std::string> headers;
  for (const char* room : {"cli", "reports", "bench", "evals", "engine", "datasets", "kernels"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(source_dir() / room)) {
      if (entry.path().extension() != ".h") continue;
      headers[std::filesystem::relative(entry.path(), source_dir()).string()] =
          std::regex_replace(read_file(entry.path()), kNoCode, "");
    }
  }
  return headers;
}

// What the first group of `pattern` is, wherever it is found.
std::set<std::string> all_found(const std::string& text, const std::regex& pattern) {
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
    found.insert((*it)[1]);
  }
  return found;
}

// What files include by themselves or through ours: of ours and of the system's.
class Included {
 public:
  const std::set<std::string>& by(const std::string& file) {
    static const std::regex kInclude("#include [<\"]([^>\"]+)[>\"]");
    const auto it = known_.find(file);
    if (it != known_.end()) return it->second;
    const std::set<std::string> direct = all_found(read_file(source_dir() / file), kInclude);
    std::set<std::string> all = direct;
    for (const std::string& header : direct) {
      if (std::filesystem::exists(source_dir() / header)) all.merge(std::set(by(header)));
    }
    return known_[file] = all;
  }

 private:
  std::map<std::string, std::set<std::string>> known_;
};

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
    if (from == "fused") CHECK((to == "fused" || to == "formats" || to == "core"));
    if (from == "rows") CHECK((to == "rows" || to == "formats" || to == "core"));
    // An op may use another's views (kv_write writes what attention reads), never its variants.
    if (from != to && to != "core" && to != "formats" && to != "fused" && to != "rows" &&
        from != "verify") {
      const bool is_view = i.target == "kernels/attention/kv_view.h" ||
                           i.target == "kernels/attention/kv_device.cuh";
      CHECK(is_view);
    }
  }
}

// So compiling the .cpp shows that the header needs nothing before it.
TEST_CASE("layering: a source file includes the header beside it before any other") {
  std::set<std::string> seen;
  int count = 0;
  for (const Include& i : all_includes()) {
    if (!i.file.ends_with(".cpp") || !seen.insert(i.file).second) continue;
    const std::string header = i.file.substr(0, i.file.size() - 3) + "h";
    if (i.file.starts_with("tests/") || !std::filesystem::exists(source_dir() / header)) continue;
    ++count;
    INFO("the first of our headers in " << i.file);
    CHECK(i.target == header);
  }
  CHECK(count > 120);
}

// Two of one name in one program are one to the linker, whatever they hold; two files that are
// compiled together show it, others do not.
TEST_CASE("layering: no two structures of a namespace have one name") {
  const std::regex kOpens("^(?:inline )?namespace ?([\\w:]*) ?\\{");
  const std::regex kCloses("^\\}  // namespace");
  const std::regex kDefines("^(?:struct|class|enum(?: class)?) (\\w+)(?: final)?(?: : [^;]*)? \\{");
  std::map<std::string, std::set<std::string>> files;  // by qualified name
  for (const char* folder : {"cli", "reports", "bench", "evals", "engine", "datasets", "kernels"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(source_dir() / folder)) {
      if (entry.path().extension() != ".h" && entry.path().extension() != ".cpp") continue;
      std::vector<std::string> spaces;
      std::istringstream text(read_file(entry.path()));
      std::smatch match;
      for (std::string line; std::getline(text, line);) {
        if (std::regex_search(line, match, kOpens)) {
          spaces.push_back(match[1]);
        } else if (std::regex_search(line, kCloses)) {
          if (!spaces.empty()) spaces.pop_back();
        } else if (std::regex_search(line, match, kDefines)) {
          if (std::count(spaces.begin(), spaces.end(), "") > 0) continue;  // the file's own
          std::string name = match[1];
          for (auto it = spaces.rbegin(); it != spaces.rend(); ++it) name = *it + "::" + name;
          files[name].insert(std::filesystem::relative(entry.path(), source_dir()).string());
        }
      }
    }
  }
  CHECK(files.size() > 250);
  for (const auto& [name, defined_in] : files) {
    INFO(name << " is defined in " << *defined_in.begin() << " and " << *defined_in.rbegin());
    CHECK(defined_in.size() == 1);
  }
}

// The names of the standard library that precompiled headers would provide unasked.
TEST_CASE(
    "layering: headers name the standard headers they use, or include one of ours that does") {
  const std::vector<std::pair<std::string, std::regex>> kNames = [] {
    std::vector<std::pair<std::string, std::regex>> names;
    for (const auto& [header, pattern] : std::map<std::string, std::string>{
             {"algorithm", "std::(sort|min|max|clamp|any_of|all_of|find_if|copy|fill)\\b"},
             {"cstdint", "std::u?int(8|16|32|64)_t\\b"},
             {"filesystem", "std::filesystem\\b"},
             {"functional", "std::function\\b"},
             {"map", "std::(multi)?map\\b"},
             {"memory", "std::(unique|shared|weak)_ptr\\b"},
             {"optional", "std::(optional|nullopt)\\b"},
             {"span", "std::span\\b"},
             {"string", "std::(string|to_string)\\b"},
             {"string_view", "std::string_view\\b"},
             {"variant", "std::variant\\b"},
             {"vector", "std::vector\\b"}}) {
      names.emplace_back(header, std::regex(pattern));
    }
    return names;
  }();
  Included included;
  const std::map<std::string, std::string> headers = all_headers();
  CHECK(headers.size() > 150);
  for (const auto& [name, text] : headers) {
    for (const auto& [header, pattern] : kNames) {
      INFO(name << " uses what <" << header << "> has");
      CHECK((!std::regex_search(text, pattern) || included.by(name).contains(header)));
    }
  }
}

// Files that are compiled together (MOEBENCH_UNITY) would provide ours unasked, too.
TEST_CASE("layering: headers include what defines the types of ours they use") {
  const std::regex kTypes(
      "(?:^|\n) *(?:struct|class|enum class|enum) (?:alignas\\([^)]*\\) )?(\\w+)[ ;]");
  const std::regex kAliases("(?:^|\n) *using (\\w+) = ");
  // Of templates, and what parameters have.
  const std::regex kParameters("(?:class|typename)(?:\\.\\.\\.)? (?:\\w+::)?(\\w+)[,>& ]");
  const std::regex kNamed("\\b([A-Z]\\w*[a-z]\\w*)\\b");
  const std::map<std::string, std::string> headers = all_headers();
  std::map<std::string, std::set<std::string>> where;  // by type
  for (const auto& [name, text] : headers) {
    for (const std::regex& pattern : {kTypes, kAliases}) {
      for (const std::string& type : all_found(text, pattern)) where[type].insert(name);
    }
  }
  CHECK(where.size() > 400);
  Included included;
  int uses = 0;
  for (const auto& [name, text] : headers) {
    const std::set<std::string> parameters = all_found(text, kParameters);
    for (const std::string& type : all_found(text, kNamed)) {
      const auto it = where.find(type);
      if (it == where.end() || it->second.contains(name) || parameters.contains(type)) continue;
      ++uses;
      const std::set<std::string>& known = included.by(name);
      INFO(name << " uses " << type << ", which " << *it->second.begin() << " has");
      CHECK(std::any_of(it->second.begin(), it->second.end(),
                        [&](const std::string& header) { return known.contains(header); }));
    }
  }
  CHECK(uses > 400);
}

}  // namespace moebench::test
