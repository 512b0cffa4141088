// SPDX-License-Identifier: Apache-2.0
//
// The encoded page: the one form in which a page is written, stored and sent. The writer makes it
// once, the reader verifies it, and nobody in between looks inside.
//
//   byte  0     codec
//         1     format, 1
//         2-3   payload size in bytes, little endian
//         4-11  checksum: XXH3-64 of the payload, seeded with the page's index, codec and size
//        12-    payload
//
// The checksum covers the payload as stored, so it is checked before a decompressor sees a byte.
// Its seed makes a page that was stored or sent under the wrong index a corrupt one too.
//
// All functions are thread-safe.
#ifndef FAULTLINE_PROTO_PAGE_CODEC_H_
#define FAULTLINE_PROTO_PAGE_CODEC_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "proto/page.h"

namespace faultline {

enum class Codec : uint8_t {
  kZero = 0,  // all bytes are zero; no payload
  kRaw = 1,
  kLz4 = 2,
  kZstd = 3,
};

inline constexpr size_t kEncodedHeaderBytes = 12;
inline constexpr size_t kMaxEncodedPageBytes = kEncodedHeaderBytes + kPageSize;

using PageBytes = std::span<const std::byte, kPageSize>;
using MutablePageBytes = std::span<std::byte, kPageSize>;

bool IsZeroPage(PageBytes page);

// Parses "raw", "lz4" or "zstd". INVALID_ARGUMENT for anything else.
absl::StatusOr<Codec> ParseCodec(absl::string_view name);

// Writes the encoded form of `page` to `out`, which has room for kMaxEncodedPageBytes, and returns
// its size. A page of zeros always becomes kZero, and one that does not get smaller under
// `preferred` becomes kRaw.
size_t EncodePage(PageIndex index, PageBytes page, Codec preferred, char* out);
// Appends it to `*out`.
void EncodePage(PageIndex index, PageBytes page, Codec preferred, std::string* out);

// Appends the encoded form of a page of zeros.
void EncodeZeroPage(PageIndex index, std::string* out);

// Takes the first encoded page off the front of `*input` and returns it. Looks at its structure
// only. DATA_LOSS, with `*input` as it was, where no whole encoded page stands there.
absl::StatusOr<absl::string_view> TakeEncodedPage(absl::string_view* input);

// DATA_LOSS unless `encoded` is exactly one encoded page of `index` with a right checksum.
absl::Status VerifyPage(PageIndex index, absl::string_view encoded);

// Whether `encoded`, which has passed VerifyPage or come from this process, is a page of zeros.
bool IsEncodedZeroPage(absl::string_view encoded);

// Verifies `encoded` and returns its 4096 bytes: inside `encoded` where they are stored raw,
// otherwise in `scratch`. DATA_LOSS, naming the page, where anything does not fit.
absl::StatusOr<PageBytes> DecodePage(PageIndex index, absl::string_view encoded,
                                     MutablePageBytes scratch);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_PAGE_CODEC_H_
