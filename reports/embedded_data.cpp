// zlib for the compression, libcrypto for the base64.
#include "reports/embedded_data.h"

#include <openssl/evp.h>
#include <zlib.h>

#include <vector>

#include "kernels/core/error.h"

namespace moebench {

std::string deflate_base64(std::string_view bytes) {
  uLongf size = compressBound(static_cast<uLong>(bytes.size()));
  std::vector<Bytef> packed(size);
  const int status = compress2(packed.data(), &size, reinterpret_cast<const Bytef*>(bytes.data()),
                               static_cast<uLong>(bytes.size()), Z_BEST_COMPRESSION);
  require_or(ErrorCode::kOutOfMemory, status == Z_OK,
             "compress {} bytes for a page: zlib's status {} (more memory is needed)", bytes.size(),
             status);
  // EVP_EncodeBlock ends the text with a NUL.
  std::string text(4 * ((size + 2) / 3) + 1, '\0');
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), packed.data(),
                                     static_cast<int>(size));
  text.resize(static_cast<std::size_t>(length));
  return text;
}

}  // namespace moebench
