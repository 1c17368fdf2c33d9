// Getting data: downloads against a server of our own (resumed, redirected, cut off, too large),
// the zip with a password, checksums, and where files end up.
#include <catch2/catch.hpp>

#include "datasets/archive.h"
#include "datasets/fetch.h"
#include "datasets/sha256.h"
#include "datasets/store.h"
#include "tests/support/files.h"
#include "tests/support/http_server.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

const std::string kBody = "{\"q\": \"one?\", \"a\": \"1\"}\n{\"q\": \"two?\", \"a\": \"2\"}\n";

std::string response(const std::string& status, const std::string& headers,
                     const std::string& body) {
  return "HTTP/1.1 " + status + "\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
}

bool has_line(const std::string& request, const std::string& beginning) {
  return request.find("\r\n" + beginning) != std::string::npos;
}

// Serves kBody with an ETag, in parts where asked for them under that name.
std::string serve_parts(const std::string& request) {
  const std::string headers = "ETag: \"v1\"\r\n";
  const auto range = request.find("Range: bytes=");
  if (range == std::string::npos || !has_line(request, "If-Range: \"v1\"")) {
    return response("200 OK", headers, kBody);
  }
  const auto from = static_cast<std::size_t>(std::stol(request.substr(range + 13)));
  if (from >= kBody.size()) return response("416 Range Not Satisfiable", "", "");
  return response("206 Partial Content",
                  headers + "Content-Range: bytes " + std::to_string(from) + "-" +
                      std::to_string(kBody.size() - 1) + "/" + std::to_string(kBody.size()) +
                      "\r\n",
                  kBody.substr(from));
}

DownloadOptions local() {
  DownloadOptions options;
  options.allow_http = true;
  options.connect_timeout_s = 10;
  options.stall_timeout_s = 20;
  return options;
}

DatasetInfo small_set() {
  DatasetInfo info;
  info.name = "small";
  info.columns = {"q", "a"};
  DatasetFile file;
  file.name = "small.jsonl";
  file.format = DataFormat::kJsonl;
  file.rows = 2;
  info.files = {file};
  return info;
}

FetchOptions fetch_from(const HttpServer& server, const std::filesystem::path& folder) {
  FetchOptions options;
  options.folder = folder;
  options.mirror = server.url("/data/");
  options.download = local();
  return options;
}

}  // namespace

TEST_CASE("sha256: the values of FIPS 180-2") {
  CHECK(sha256_of_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_of_text("abc") ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const TemporaryDirectory folder;
  write_file(folder.path() / "a", std::string(1'000'000, 'a'));
  CHECK(sha256_of_file(folder.path() / "a") ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("download: a file arrives whole, and what was cut off goes on where it stopped") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "x.part";
  HttpServer server(serve_parts);
  CHECK(download(server.url("/x"), path, local()).bytes == static_cast<std::int64_t>(kBody.size()));
  CHECK(read_file(path) == kBody);
  CHECK_FALSE(std::filesystem::exists(tag_path(path)));

  write_file(path, kBody.substr(0, 10));
  write_file(tag_path(path), "\"v1\"");
  const DownloadResult rest = download(server.url("/x"), path, local());
  CHECK(rest.resumed_from == 10);
  CHECK(rest.bytes == static_cast<std::int64_t>(kBody.size()));
  CHECK(read_file(path) == kBody);
  CHECK(has_line(server.requests().back(), "Range: bytes=10-"));
}

TEST_CASE("download: a part of another version, or of none, is begun anew") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "x.part";
  HttpServer server(serve_parts);
  write_file(path, "old words");
  SECTION("the server has another version") { write_file(tag_path(path), "\"v0\""); }
  SECTION("nobody knows of which version the part is") {}
  SECTION("there are more bytes than the file has") {
    write_file(path, kBody + "more");
    write_file(tag_path(path), "\"v1\"");
  }
  const DownloadResult result = download(server.url("/x"), path, local());
  CHECK(result.resumed_from == 0);
  CHECK(read_file(path) == kBody);
}

TEST_CASE("download: a connection that breaks leaves a part, and the next try ends it") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "x.part";
  std::size_t calls = 0;
  HttpServer server([&](const std::string& request) {
    const std::string whole = serve_parts(request);
    return ++calls == 1 ? whole.substr(0, whole.size() - 20) : whole;
  });
  check_error([&] { download(server.url("/x"), path, local()); }, ErrorCode::kIo, {"/x"});
  CHECK(read_file(path) == kBody.substr(0, kBody.size() - 20));
  CHECK(download(server.url("/x"), path, local()).resumed_from ==
        static_cast<std::int64_t>(kBody.size() - 20));
  CHECK(read_file(path) == kBody);
}

TEST_CASE("download: a server's wrong part is refused, not appended") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "x.part";
  write_file(path, kBody.substr(0, 10));
  write_file(tag_path(path), "\"v1\"");
  HttpServer server([](const std::string&) {
    return response("206 Partial Content", "Content-Range: bytes 3-9/40\r\n", "abcdefg");
  });
  check_error([&] { download(server.url("/x"), path, local()); }, ErrorCode::kIo,
              {"bytes from 10 were wanted"});
  CHECK(read_file(path) == kBody.substr(0, 10));
}

TEST_CASE("download: limits, errors and schemes") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "x";
  HttpServer server([](const std::string& request) {
    if (request.starts_with("GET /gone")) return response("404 Not Found", "", "a page");
    if (request.starts_with("GET /gated")) return response("401 Unauthorized", "", "");
    if (request.starts_with("GET /round")) return response("302 Found", "Location: /round\r\n", "");
    if (request.starts_with("GET /away")) {
      return response("302 Found", "Location: file:///etc/hostname\r\n", "");
    }
    if (request.starts_with("GET /empty")) return response("200 OK", "", "");
    return response("200 OK", "", std::string(1000, 'x'));
  });
  const auto get = [&](const std::string& what, DownloadOptions options = local()) {
    download(server.url(what), path, options);
  };
  check_error([&] { get("/gone"); }, ErrorCode::kIo, {"/gone", "404"});
  check_error([&] { get("/gated"); }, ErrorCode::kIo, {"401", "HF_TOKEN"});
  check_error([&] { get("/round"); }, ErrorCode::kIo, {"more than 10 redirects"});
  CHECK(server.requests().size() == 13);
  check_error([&] { get("/away"); }, ErrorCode::kIo, {"only https"});
  DownloadOptions bounded = local();
  bounded.max_bytes = 999;
  check_error([&] { get("/big", bounded); }, ErrorCode::kIo, {"larger than 999 bytes"});
  bounded.max_bytes = 1000;
  CHECK_NOTHROW(get("/big", bounded));
  get("/empty");
  CHECK(read_file(path).empty());
  check_error([&] { get("/big", DownloadOptions{}); }, ErrorCode::kIo, {"only https"});
  DownloadOptions stopped = local();
  stopped.stop_requested = [] { return true; };
  check_error([&] { get("/big", stopped); }, ErrorCode::kInterrupted, {"interrupted"});
  // What a URL may hide is not shown.
  CHECK(shown_url("https://user:secret@host.org:8080/a?key=secret") == "https://host.org:8080/a");
}

TEST_CASE("download: the token goes to its own hosts only, also after redirects") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "x";
  std::string target;
  HttpServer server([&](const std::string& request) {
    if (request.starts_with("GET /first")) {
      return response("302 Found", "Location: " + target + "\r\n", "");
    }
    return response("200 OK", "", "x");
  });
  DownloadOptions options = local();
  options.token = "hf_made_up";
  const auto sent = [&](std::size_t index) {
    return has_line(server.requests().at(index), "Authorization: Bearer hf_made_up");
  };
  SECTION("hosts that are not named get none") {
    download(server.url("/x"), path, options);
    CHECK_FALSE(sent(0));
  }
  SECTION("over plain http nobody gets it") {
    options.token_hosts = {"127.0.0.1"};
    download(server.url("/x"), path, options);
    CHECK_FALSE(sent(0));
  }
  SECTION("a redirect to another host does not take it along") {
    options.token_hosts = {"127.0.0.1"};
    options.allow_token_over_http = true;
    target = server.url("/second", "localhost");
    download(server.url("/first"), path, options);
    CHECK(sent(0));
    CHECK_FALSE(sent(1));
  }
  SECTION("a host whose name merely ends alike gets none") {
    options.token_hosts = {"calhost"};
    options.allow_token_over_http = true;
    download(server.url("/x", "localhost"), path, options);
    CHECK_FALSE(sent(0));
  }
  SECTION("a token that would break a header is refused, and not printed") {
    options.token = "hf_secret\r\nX: y";
    const std::string message = message_of([&] { download(server.url("/x"), path, options); });
    CHECK_THAT(message, Catch::Contains("HF_TOKEN") && !Catch::Contains("secret"));
  }
}

TEST_CASE("archive: a member of a zip with a password, made by Info-ZIP") {
  const auto zip = source_dir() / "tests/datasets/data/locked.zip";
  const TemporaryDirectory folder;
  const auto out = folder.path() / "out.csv";
  extract_member(zip, "dataset/gpqa_made_up.csv", "made-up-password", out);
  CHECK_THAT(read_file(out), Catch::StartsWith("Question,Correct Answer,") &&
                                 Catch::EndsWith("\"A line\nbreak?\",yes,no,maybe,never\n"));
  check_error([&] { extract_member(zip, "dataset/gpqa_made_up.csv", "wrong", out); },
              ErrorCode::kParse, {"locked.zip"});
  check_error([&] { extract_member(zip, "gpqa_made_up.csv", "made-up-password", out); },
              ErrorCode::kParse, {"no member 'gpqa_made_up.csv'"});
  ArchiveLimits limits;
  limits.max_bytes = 50;
  check_error(
      [&] { extract_member(zip, "dataset/gpqa_made_up.csv", "made-up-password", out, limits); },
      ErrorCode::kParse, {"more than 50 bytes"});
  limits.max_entries = 1;
  check_error(
      [&] { extract_member(zip, "dataset/gpqa_made_up.csv", "made-up-password", out, limits); },
      ErrorCode::kParse, {"more than 1 entries"});
  write_file(folder.path() / "no.zip", "this is no archive");
  check_error([&] { extract_member(folder.path() / "no.zip", "a", "", out); }, ErrorCode::kParse,
              {"no.zip"});
}

TEST_CASE("fetch: a file gets to its place when it is right, and its checksum is written down") {
  const TemporaryDirectory folder;
  HttpServer server(serve_parts);
  const DatasetInfo info = small_set();
  std::string said;
  FetchOptions options = fetch_from(server, folder.path());
  options.say = [&](const std::string& line) { said += line + "\n"; };
  fetch_dataset(info, options);
  const auto place = folder.path() / "small" / "small.jsonl";
  CHECK(read_file(place) == kBody);
  CHECK_THAT(server.requests().front(), Catch::StartsWith("GET /data/small/small.jsonl "));
  CHECK_THAT(said, Catch::Contains("publisher gives no checksum") &&
                       Catch::Contains(sha256_of_text(kBody)));
  CHECK(verify_file(info, info.files[0], place).status == VerifyStatus::kAsRecorded);
  const auto entries = std::distance(std::filesystem::directory_iterator(place.parent_path()), {});
  CHECK(entries == 1);  // no parts are left

  said.clear();
  fetch_dataset(info, options);  // nothing to do
  CHECK(server.requests().size() == 1);
  CHECK_THAT(said, Catch::Contains("there already"));

  write_file(place, kBody + "{\"q\": \"three?\", \"a\": \"3\"}\n");
  CHECK(verify_file(info, info.files[0], place).status == VerifyStatus::kWrong);
}

TEST_CASE("fetch: what is not what the manifest says does not get to its place") {
  const TemporaryDirectory folder;
  HttpServer server(serve_parts);
  DatasetInfo info = small_set();
  std::string word;
  SECTION("another checksum") {
    info.files[0].sha256 = sha256_of_text("something else");
    word = "SHA-256";
  }
  SECTION("another number of rows") {
    info.files[0].rows = 3;
    word = "2 rows";
  }
  SECTION("a column is missing") {
    info.columns.emplace_back("category");
    word = "'category'";
  }
  check_error([&] { fetch_dataset(info, fetch_from(server, folder.path())); },
              ErrorCode::kInvalidArgument, {"fetch small", word});
  CHECK(std::filesystem::is_empty(folder.path() / "small"));
}

TEST_CASE("fetch: without a URL, and without a server, it says what to do by hand") {
  const TemporaryDirectory folder;
  DatasetInfo info = small_set();
  info.instructions = "ask its authors";
  FetchOptions options;
  options.folder = folder.path();
  const std::string place = (folder.path() / "small" / "small.jsonl").string();
  check_error([&] { fetch_dataset(info, options); }, ErrorCode::kUnsupported,
              {"ask its authors", place});
  info.files[0].urls = {"https://127.0.0.1:9/small.jsonl"};  // the port of "discard"
  options.download.connect_timeout_s = 10;
  check_error([&] { fetch_dataset(info, options); }, ErrorCode::kIo,
              {"no URL served", "https://127.0.0.1:9/small.jsonl", place});
}

TEST_CASE("manifest: the one that ships can be read, and what ships is right") {
  const DatasetInfo& nano = find_dataset("nano");
  CHECK(verify_file(nano, nano.files[0]).status == VerifyStatus::kVerified);
  CHECK(load_dataset(nano).rows.size() == 1500);
  for (const char* name : {"gpqa_diamond", "gpqa_main", "gpqa_extended"}) {
    CHECK_FALSE(find_dataset(name).public_text);
  }
  CHECK(find_dataset("gpqa_diamond").rows() == 198);
  CHECK(find_dataset("aime_2025").rows() == 30);
  CHECK(find_dataset("mmlu_pro").rows("few_shot") == 70);
  check_error([] { find_dataset("gpqa_diamont"); }, ErrorCode::kInvalidArgument,
              {"did you mean 'gpqa_diamond'?"});
}

TEST_CASE("manifest: what could harm is refused by field") {
  const auto manifest = [](const std::string& file_fields, const std::string& more = "") {
    parse_manifest(R"({"schema": "moebench.datasets/1", "datasets": [{"name": "d", "licence": "l",
      "description": "d", "homepage": "h", "citation": "c", "columns": [])" +
                       more + R"(, "files": [{"format": "csv", "rows": 1, )" + file_fields +
                       "}]}]}",
                   "m.json");
  };
  CHECK_NOTHROW(manifest(R"("name": "a.csv")"));
  check_error([&] { manifest(R"("name": "../a.csv")"); }, ErrorCode::kInvalidArgument,
              {"m.json", "datasets[0]", "files[0]", "../a.csv"});
  check_error([&] { manifest(R"("name": "a/b.csv")"); }, ErrorCode::kInvalidArgument, {"a/b.csv"});
  check_error([&] { manifest(R"("name": ".a")"); }, ErrorCode::kInvalidArgument, {"plain name"});
  check_error([&] { manifest(R"("name": "a.csv", "urls": ["http://x.org/a"])"); },
              ErrorCode::kInvalidArgument, {"https"});
  check_error([&] { manifest(R"("name": "a.csv", "sha256": "12ab")"); },
              ErrorCode::kInvalidArgument, {"64 lower-case"});
  check_error([&] { manifest(R"("name": "a.csv", "size": 3)"); }, ErrorCode::kInvalidArgument,
              {"size"});
  check_error([&] { manifest(R"("name": "a.csv", "split": "train")"); },
              ErrorCode::kInvalidArgument, {"split", "few_shot"});
  check_error([&] { manifest(R"("name": "a.csv")", R"(, "licence2": "x")"); },
              ErrorCode::kInvalidArgument, {"licence2"});
}

}  // namespace moebench::test
