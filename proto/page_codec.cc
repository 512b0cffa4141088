// SPDX-License-Identifier: Apache-2.0
#include "proto/page_codec.h"

#include <absl/strings/str_cat.h>
#include <lz4.h>
#if defined(__x86_64__)
// Chooses by the processor: 0.1 us for a page with AVX2 or AVX-512, 0.8 with what every x86 has.
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif
#include <zstd.h>

#include <bit>
#include <cstring>
#include <memory>

namespace faultline {
namespace {

static_assert(std::endian::native == std::endian::little, "the header is copied as it stands");

constexpr uint8_t kFormat = 1;
// Level 1: a page is compressed on the way to a write, where time counts more than the last
// percent.
constexpr int kZstdLevel = 1;

struct Header {
  Codec codec;
  uint8_t format;
  uint16_t payload_bytes;
};
static_assert(sizeof(Header) == 4);

uint64_t Checksum(PageIndex index, Header header, absl::string_view payload) {
  const uint64_t seed = (index.raw() << 24) ^ (uint64_t{header.payload_bytes} << 8) ^
                        static_cast<uint64_t>(header.codec);
  return XXH3_64bits_withSeed(payload.data(), payload.size(), seed);
}

// Writes the header of the payload that stands behind it, and returns the size of both.
size_t FinishEncoded(PageIndex index, Codec codec, size_t payload_bytes, char* out) {
  const Header header{codec, kFormat, static_cast<uint16_t>(payload_bytes)};
  const uint64_t checksum = Checksum(index, header, {out + kEncodedHeaderBytes, payload_bytes});
  memcpy(out, &header, sizeof header);
  memcpy(out + sizeof header, &checksum, sizeof checksum);
  return kEncodedHeaderBytes + payload_bytes;
}

// REQUIRES: encoded holds at least a header.
Header ReadHeader(absl::string_view encoded) {
  Header header;
  memcpy(&header, encoded.data(), sizeof header);
  return header;
}

absl::Status CheckHeader(Header header) {
  if (header.format != kFormat) {
    return absl::DataLossError(
        absl::StrCat("encoded page has format ", header.format, ", this program knows ", kFormat));
  }
  bool fits = false;
  switch (header.codec) {
    case Codec::kZero:
      fits = header.payload_bytes == 0;
      break;
    case Codec::kRaw:
      fits = header.payload_bytes == kPageSize;
      break;
    case Codec::kLz4:
    case Codec::kZstd:
      fits = header.payload_bytes > 0 && header.payload_bytes < kPageSize;
      break;
  }
  if (!fits) {
    return absl::DataLossError(absl::StrCat("encoded page has codec ",
                                            static_cast<int>(header.codec), " with a payload of ",
                                            header.payload_bytes, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status OfPage(PageIndex index, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("page ", index.raw(), ": ", status.message()));
}

// Returns the compressed size, or 0 where it did not get smaller than a page.
size_t Compress(Codec codec, PageBytes page, char* out) {
  const char* source = reinterpret_cast<const char*>(page.data());
  if (codec == Codec::kLz4) {
    const int n = LZ4_compress_default(source, out, kPageSize, kPageSize - 1);
    return n > 0 ? static_cast<size_t>(n) : 0;
  }
  struct FreeContext {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };
  static thread_local std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  const size_t n =
      ZSTD_compressCCtx(context.get(), out, kPageSize - 1, source, kPageSize, kZstdLevel);
  return ZSTD_isError(n) ? 0 : n;
}

bool Decompress(Codec codec, absl::string_view payload, MutablePageBytes out) {
  char* target = reinterpret_cast<char*>(out.data());
  if (codec == Codec::kLz4) {
    const int n = LZ4_decompress_safe(payload.data(), target, static_cast<int>(payload.size()),
                                      static_cast<int>(kPageSize));
    return n == static_cast<int>(kPageSize);
  }
  return ZSTD_decompress(target, kPageSize, payload.data(), payload.size()) == kPageSize;
}

}  // namespace

bool IsZeroPage(PageBytes page) {
  // A page is zero if its first word is and each byte equals the one eight before it. Pages of data
  // nearly always differ in the first word, and memcmp is vectorised for those that do not.
  uint64_t first;
  memcpy(&first, page.data(), sizeof first);
  return first == 0 &&
         memcmp(page.data(), page.data() + sizeof first, kPageSize - sizeof first) == 0;
}

absl::StatusOr<Codec> ParseCodec(absl::string_view name) {
  if (name == "raw") return Codec::kRaw;
  if (name == "lz4") return Codec::kLz4;
  if (name == "zstd") return Codec::kZstd;
  return absl::InvalidArgumentError(
      absl::StrCat("unknown codec \"", name, "\"; known are raw, lz4 and zstd"));
}

size_t EncodePage(PageIndex index, PageBytes page, Codec preferred, char* out) {
  if (IsZeroPage(page)) return FinishEncoded(index, Codec::kZero, 0, out);
  char* const payload = out + kEncodedHeaderBytes;
  if (preferred == Codec::kLz4 || preferred == Codec::kZstd) {
    if (const size_t n = Compress(preferred, page, payload); n > 0) {
      return FinishEncoded(index, preferred, n, out);
    }
  }
  memcpy(payload, page.data(), kPageSize);
  return FinishEncoded(index, Codec::kRaw, kPageSize, out);
}

void EncodePage(PageIndex index, PageBytes page, Codec preferred, std::string* out) {
  const size_t before = out->size();
  out->resize(before + kMaxEncodedPageBytes);
  out->resize(before + EncodePage(index, page, preferred, out->data() + before));
}

void EncodeZeroPage(PageIndex index, std::string* out) {
  char encoded[kEncodedHeaderBytes];
  out->append(encoded, FinishEncoded(index, Codec::kZero, 0, encoded));
}

absl::StatusOr<absl::string_view> TakeEncodedPage(absl::string_view* input) {
  if (input->size() < kEncodedHeaderBytes) {
    return absl::DataLossError(
        absl::StrCat("encoded page is cut off: ", input->size(), " bytes are no header"));
  }
  const Header header = ReadHeader(*input);
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  const size_t size = kEncodedHeaderBytes + header.payload_bytes;
  if (input->size() < size) {
    return absl::DataLossError(
        absl::StrCat("encoded page is cut off: ", input->size(), " of ", size, " bytes"));
  }
  const absl::string_view encoded = input->substr(0, size);
  input->remove_prefix(size);
  return encoded;
}

absl::Status VerifyPage(PageIndex index, absl::string_view encoded) {
  absl::string_view rest = encoded;
  if (auto taken = TakeEncodedPage(&rest); !taken.ok()) return OfPage(index, taken.status());
  if (!rest.empty()) {
    return OfPage(index,
                  absl::DataLossError(absl::StrCat(rest.size(), " bytes follow the encoded page")));
  }
  uint64_t checksum;
  memcpy(&checksum, encoded.data() + sizeof(Header), sizeof checksum);
  if (checksum != Checksum(index, ReadHeader(encoded), encoded.substr(kEncodedHeaderBytes))) {
    return OfPage(index, absl::DataLossError("checksum does not match"));
  }
  return absl::OkStatus();
}

bool IsEncodedZeroPage(absl::string_view encoded) {
  return !encoded.empty() && encoded[0] == static_cast<char>(Codec::kZero);
}

absl::StatusOr<PageBytes> DecodePage(PageIndex index, absl::string_view encoded,
                                     MutablePageBytes scratch) {
  if (absl::Status status = VerifyPage(index, encoded); !status.ok()) return status;
  const absl::string_view payload = encoded.substr(kEncodedHeaderBytes);
  switch (const Codec codec = ReadHeader(encoded).codec) {
    case Codec::kZero:
      memset(scratch.data(), 0, scratch.size());
      return PageBytes(scratch);
    case Codec::kRaw:
      return PageBytes(reinterpret_cast<const std::byte*>(payload.data()), kPageSize);
    case Codec::kLz4:
    case Codec::kZstd:
      if (!Decompress(codec, payload, scratch)) {
        return OfPage(index, absl::DataLossError("payload does not decompress to one page"));
      }
      return PageBytes(scratch);
  }
  return OfPage(index, absl::DataLossError("unknown codec"));
}

}  // namespace faultline
