// Catching an Error to look at its code and its words.
#pragma once

#include <catch2/catch.hpp>
#include <stdexcept>
#include <string>

#include "kernels/core/error.h"

namespace moebench::test {

// The Error that `body` throws; the test fails if it throws none.
template <class Body>
Error error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  FAIL("no Error was thrown");
  throw std::logic_error("unreachable");
}

template <class Body>
std::string message_of(const Body& body) {
  return error_of(body).what();
}

// CHECKs that `body` throws an Error of `code` whose message holds every one of `words`: the file,
// the field, the value.
template <class Body>
void check_error(const Body& body, ErrorCode code, std::initializer_list<std::string> words) {
  const Error error = error_of(body);
  INFO("message: " << error.what());
  CHECK(error_code_name(error.code()) == error_code_name(code));
  for (const std::string& word : words) {
    INFO("must hold: " << word);
    CHECK(std::string(error.what()).find(word) != std::string::npos);
  }
}

}  // namespace moebench::test
