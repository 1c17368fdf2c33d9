// The small parts of the page: the Pareto front, escaping, numbers as people read them.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "reports/embedded_data.h"
#include "reports/html_definitions.h"
#include "reports/html_text.h"
#include "reports/pareto.h"

namespace moebench::test {
namespace {

std::vector<bool> front_of(const std::vector<ParetoPoint>& points) { return pareto_front(points); }

}  // namespace

TEST_CASE("pareto: a point is on the front unless another is as good on both and better on one") {
  // cost, value: the second costs more for less; the fourth costs as much as the third for less.
  CHECK(front_of({{1, 1}, {2, 0.5}, {3, 2}, {3, 1.5}}) ==
        std::vector<bool>{true, false, true, false});
}

TEST_CASE("pareto: equal points are on the front together") {
  CHECK(front_of({{1, 1}, {1, 1}}) == std::vector<bool>{true, true});
}

TEST_CASE("pareto: an unknown value is never on the front and beats nobody") {
  const double nan = std::nan("");
  CHECK(front_of({{nan, 5}, {1, nan}, {2, 1}}) == std::vector<bool>{false, false, true});
  CHECK(front_of({}).empty());
}

TEST_CASE("html text: markup, quotes, control characters and broken UTF-8 are harmless") {
  CHECK(escape_html("<a href=\"x\">'&'</a>") ==
        "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  CHECK(escape_html(std::string_view("a\0b\x1b[0m\n\t", 9)) ==
        "a\xEF\xBF\xBD"
        "b\xEF\xBF\xBD[0m\n\t");
  CHECK(escape_html("caf\xC3\xA9 \xFF") == "caf\xC3\xA9 \xEF\xBF\xBD");
}

TEST_CASE("html text: characters that turn the direction of text are named") {
  CHECK(visible_text("a\u202Eb\u2066c\u2069") == "a[U+202E]b[U+2066]c[U+2069]");
  CHECK(escape_html("\u202A<b>") == "[U+202A]&lt;b&gt;");
  // Marks that languages written from right to left use in ordinary text stay.
  CHECK(visible_text("\u200F\u05D0 \u2028") == "\u200F\u05D0 \u2028");
}

TEST_CASE("embedded data: zlib's stream in base64, padded") {
  // Read with Python's zlib.decompress(base64.b64decode(...)).
  CHECK(deflate_base64("") == "eNoDAAAAAAE=");
  CHECK(deflate_base64("moebench") == "eNrLzU9NSs1LzgAADs0DQg==");
}

TEST_CASE("definitions: a column is known by its narrowest term; a plan's name is not defined") {
  CHECK_THAT(std::string(page::definition_of("TTFT p99, ms")), Catch::StartsWith("Time to first"));
  CHECK_THAT(std::string(page::definition_of("good requests")), Catch::Contains("goodput"));
  CHECK_THAT(std::string(page::definition_of("decode batch 1, context 64, tokens/s")),
             Catch::StartsWith("Output tokens per second while"));
  CHECK(page::definition_of("plan").empty());
}

TEST_CASE("html text: JSON in a script cannot end the script or open a comment") {
  const OrderedJson json = {{"x", "</script><!-- & \xE2\x80\xA8"}};
  const std::string text = script_json(json);
  for (const char* bad : {"<", ">", "&", "\xE2\x80\xA8"}) {
    CHECK(text.find(bad) == std::string::npos);
  }
  CHECK(OrderedJson::parse(text) == json);
}

TEST_CASE("html text: numbers keep three digits") {
  CHECK(format_number(0) == "0");
  CHECK(format_number(0.01234) == "0.0123");
  CHECK(format_number(0.0001234) == "1.23×10⁻⁴");
  CHECK(format_number(-2.5e12) == "−2.50×10¹²");
  CHECK(format_number(9.999) == "10.0");
  CHECK(format_number(99.96) == "100");
  CHECK(format_number(999.6) == "1,000");
  CHECK(format_number(1234567) == "1,234,567");
  CHECK(format_number(-2.5) ==
        "\xE2\x88\x92"
        "2.50");
  CHECK(format_number(std::numeric_limits<double>::infinity()) == "not finite");
  CHECK(format_number(std::nan("")) == "not finite");
}

TEST_CASE("html text: sizes, shares, points and p-values carry their units") {
  CHECK(format_size(999) == "999 B");
  CHECK(format_size(4200000) == "4.20 MB");
  CHECK(format_size(13.8e9) == "13.80 GB");
  CHECK(format_percent(0.8455) == "84.5 %");
  CHECK(format_points(0.015) == "+1.5");
  CHECK(format_points(-0.0004) == "0.0");
  CHECK(format_p_value(0.0004) == "< 0.001");
  CHECK(format_p_value(0.032) == "0.032");
  CHECK(format_p_value(0.5) == "0.50");
}

}  // namespace moebench::test
