// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "client/cli/batch_pipe.h"
#include "client/cli/image_reader.h"
#include "client/cli/image_writer.h"
#include "proto/page_batch.h"

namespace faultline {
namespace {

namespace fs = std::filesystem;

class ImageTest : public testing::Test {
 protected:
  ImageTest() {
    std::string path = absl::StrCat(testing::TempDir(), "/image_XXXXXX");
    directory_ = mkdtemp(path.data());
  }
  ~ImageTest() override { fs::remove_all(directory_); }

  std::string Path(const std::string& name) const { return absl::StrCat(directory_, "/", name); }

  // A file of `size` bytes with random bytes at `data` (offset, length), and holes elsewhere.
  std::string WriteFile(const std::string& name, uint64_t size,
                        const std::vector<std::pair<uint64_t, uint64_t>>& data) {
    const UniqueFd fd(open(Path(name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(size)), 0);
    std::mt19937_64 random(size);
    for (const auto& [offset, length] : data) {
      std::string bytes(length, '\0');
      for (char& c : bytes) c = static_cast<char>(random() % 255 + 1);
      EXPECT_EQ(pwrite(fd.get(), bytes.data(), length, static_cast<off_t>(offset)),
                static_cast<ssize_t>(length));
    }
    return Path(name);
  }

  static std::string ReadFile(const std::string& path) {
    std::string bytes(fs::file_size(path), '\0');
    std::ifstream(path, std::ios::binary)
        .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }

  // As an import and an export would move it, the pages that an import leaves out filled in.
  static absl::Status Copy(const std::string& from, Codec codec, const std::string& to) {
    const auto reader = ImageReader::Open(from, codec);
    if (!reader.ok()) return reader.status();
    const auto writer = ImageWriter::Open(to, Overwrite::kNo);
    if (!writer.ok()) return writer.status();
    const uint64_t size = (*reader)->size_bytes();
    BatchPipe pipe(reader->get());
    PageIndex next;
    rpc::PageBatch batch;
    for (;;) {
      const absl::StatusOr<bool> more = pipe.Next(&batch);
      if (!more.ok()) return more.status();
      if (!*more) break;
      rpc::PageBatch filled;
      PageBatchBuilder builder(&filled);
      absl::Status status = ForEachPage(
          batch,
          [&](PageIndex page, absl::string_view encoded) {
            builder.AddZero(PageRange::Between(next, page));
            builder.Add(page, encoded);
            next = page + PageCount(1);
            return absl::OkStatus();
          },
          [](PageRange) { return absl::InternalError("zero pages are to be left out"); });
      if (status.ok()) status = (*writer)->Append(size, filled);
      if (!status.ok()) return status;
    }
    rpc::PageBatch end;
    PageBatchBuilder(&end).AddZero(
        PageRange::Between(next, PageIndex(PageCount::CoveringBytes(size).raw())));
    if (absl::Status status = (*writer)->Append(size, end); !status.ok()) return status;
    return (*writer)->Commit();
  }

  std::string directory_;
};

TEST_F(ImageTest, CopyIsEqualByteForByte) {
  const std::vector<std::pair<uint64_t, std::vector<std::pair<uint64_t, uint64_t>>>> images = {
      {1, {{0, 1}}},
      {4096, {{0, 4096}}},
      {4097, {{0, 4097}}},
      {10'000, {}},
      {10'000, {{9'999, 1}}},
      {5 << 20, {{0, 5 << 20}}},
      {(64 << 20) + 123, {{100, 50}, {1 << 20, 3 << 20}, {(64 << 20) + 100, 23}}},
      {(64 << 20) + 5000, {{8191, 2}, {33 << 20, 1}}},
  };
  int number = 0;
  for (const auto& [size, data] : images) {
    for (const Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
      const std::string from = WriteFile(absl::StrCat("from", number), size, data);
      const std::string to = Path(absl::StrCat("to", number++));
      const absl::Status status = Copy(from, codec, to);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(fs::file_size(to), size);
      EXPECT_TRUE(ReadFile(from) == ReadFile(to)) << size << " bytes";
    }
  }
}

TEST_F(ImageTest, HolesStayHoles) {
  const std::string from = WriteFile("from", 64 << 20, {{32 << 20, 4096}});
  ASSERT_TRUE(Copy(from, Codec::kRaw, Path("to")).ok());
  struct stat status;
  ASSERT_EQ(stat(Path("to").c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
}

TEST_F(ImageTest, ZerosThatAreNoHolesAreLeftOutToo) {
  std::ofstream(Path("zeros"), std::ios::binary) << std::string(3 << 20, '\0');
  const auto reader = ImageReader::Open(Path("zeros"), Codec::kRaw);
  ASSERT_TRUE(reader.ok());
  rpc::PageBatch batch;
  const absl::StatusOr<bool> more = (*reader)->Next(&batch);
  ASSERT_TRUE(more.ok());
  EXPECT_FALSE(*more);
  EXPECT_EQ(batch.runs_size(), 0);
}

TEST_F(ImageTest, FileThatShrinksWhileItIsReadIsAborted) {
  const std::string path = WriteFile("file", 8 << 20, {{0, 8 << 20}});
  const auto reader = ImageReader::Open(path, Codec::kRaw);
  ASSERT_TRUE(reader.ok());
  rpc::PageBatch batch;
  ASSERT_TRUE((*reader)->Next(&batch).ok());
  fs::resize_file(path, (1 << 20) + 100);
  absl::StatusOr<bool> more = (*reader)->Next(&batch);
  while (more.ok() && *more) more = (*reader)->Next(&batch);
  EXPECT_EQ(more.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(more.status().message(),
            absl::StrCat(path,
                         " was cut off at 1048676 of 8388608 bytes while it was read; the "
                         "volume is as it was, import it again"));
}

TEST_F(ImageTest, FileThatGrowsOrIsWrittenToWhileItIsReadIsAborted) {
  for (const bool grow : {true, false}) {
    const std::string path = WriteFile(grow ? "grows" : "written", 4096, {{0, 4096}});
    // Long ago, so that the write changes the time whatever the clock's resolution.
    const timespec times[2] = {{1000, 0}, {1000, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    const auto reader = ImageReader::Open(path, Codec::kRaw);
    ASSERT_TRUE(reader.ok());
    rpc::PageBatch batch;
    ASSERT_TRUE(*(*reader)->Next(&batch));
    std::ofstream(path, std::ios::binary | std::ios::in | (grow ? std::ios::app : std::ios::ate))
            .seekp(grow ? 4096 : 0)
        << "x";
    const absl::StatusOr<bool> more = (*reader)->Next(&batch);
    EXPECT_EQ(more.status().code(), absl::StatusCode::kAborted);
    EXPECT_EQ(
        more.status().message(),
        absl::StrCat(path, " was written to while it was read (it has ", grow ? "4097" : "4096",
                     " bytes, and had 4096); the volume is as it was, import it again when "
                     "nobody writes to the file"));
  }
}

TEST_F(ImageTest, WhatIsNoImageIsRefusedByName) {
  const auto message = [](const std::string& path) {
    return std::string(ImageReader::Open(path, Codec::kRaw).status().message());
  };
  EXPECT_EQ(message(Path("missing")),
            absl::StrCat("cannot open ", Path("missing"), ": No such file or directory"));
  EXPECT_EQ(message(directory_),
            absl::StrCat(directory_, " is a directory; an import needs a raw image"));
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(message(Path("fifo")),
            absl::StrCat(Path("fifo"), " is not a regular file; an import needs a raw image"));
  EXPECT_EQ(message(WriteFile("empty", 0, {})),
            absl::StrCat(Path("empty"), " is empty; a volume needs at least one byte"));
}

TEST_F(ImageTest, PipeThatIsLeftEarlyEnds) {
  const auto reader = ImageReader::Open(WriteFile("f", 32 << 20, {{0, 32 << 20}}), Codec::kRaw);
  ASSERT_TRUE(reader.ok());
  BatchPipe pipe(reader->get());
  rpc::PageBatch batch;
  EXPECT_TRUE(*pipe.Next(&batch));
}

class ImageWriterTest : public ImageTest {
 protected:
  ImageWriterTest() : writer_(*ImageWriter::Open(Path("image"), Overwrite::kNo)) {}

  static rpc::PageBatch BatchOf(const std::vector<uint64_t>& pages) {
    rpc::PageBatch batch;
    PageBatchBuilder builder(&batch);
    const std::vector<std::byte> bytes(kPageSize, std::byte{7});
    for (const uint64_t page : pages) {
      builder.Encode(PageIndex(page), PageBytes(bytes.data(), kPageSize), Codec::kRaw);
    }
    return batch;
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  std::unique_ptr<ImageWriter> writer_;
};

TEST_F(ImageWriterTest, FileTakesItsNameOnlyWhenItIsComplete) {
  ASSERT_TRUE(writer_->Append(5000, BatchOf({0, 1})).ok());
  EXPECT_FALSE(fs::exists(Path("image")));
  ASSERT_TRUE(writer_->Commit().ok());
  writer_.reset();
  EXPECT_EQ(Files(), std::vector<std::string>{"image"});
  EXPECT_EQ(ReadFile(Path("image")), std::string(5000, '\7'));
}

TEST_F(ImageWriterTest, NothingIsLeftOfAnExportThatFails) {
  ASSERT_TRUE(writer_->Append(5000, BatchOf({0})).ok());
  writer_.reset();
  EXPECT_EQ(Files(), std::vector<std::string>());
}

TEST_F(ImageWriterTest, MissingPagesAreDataLoss) {
  ASSERT_TRUE(writer_->Append(3 * kPageSize, BatchOf({0, 1})).ok());
  const absl::Status status = writer_->Commit();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "the export ended at byte 8192 of 12288, before all pages came");
}

TEST_F(ImageWriterTest, PagesOutOfOrderAreRefused) {
  EXPECT_EQ(writer_->Append(3 * kPageSize, BatchOf({1})).message(),
            "page 1 came where page 0 was next");
  rpc::PageBatch zero;
  PageBatchBuilder(&zero).AddZero({PageIndex(2), PageCount(1)});
  EXPECT_EQ(writer_->Append(3 * kPageSize, zero).message(), "page 2 came where page 0 was next");
}

TEST_F(ImageWriterTest, DamagedPageIsDataLossAndNamesThePage) {
  rpc::PageBatch batch = BatchOf({0, 1});
  batch.mutable_pages()->back() = 8;
  const absl::Status status = writer_->Append(2 * kPageSize, batch);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "page 1: checksum does not match");
}

TEST_F(ImageWriterTest, ExistingFileIsKeptUnlessItMayBeOverwritten) {
  std::ofstream(Path("there")) << "precious";
  const auto refused = ImageWriter::Open(Path("there"), Overwrite::kNo);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(refused.status().message(),
            absl::StrCat(Path("there"), " is there already; add --force to overwrite it"));
  const auto writer = ImageWriter::Open(Path("there"), Overwrite::kYes);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append(100, BatchOf({0})).ok());
  EXPECT_EQ(ReadFile(Path("there")), "precious");
  ASSERT_TRUE((*writer)->Commit().ok());
  EXPECT_EQ(ReadFile(Path("there")), std::string(100, '\7'));
}

TEST_F(ImageWriterTest, TargetThatCannotBeWrittenIsNamed) {
  EXPECT_EQ(ImageWriter::Open(directory_, Overwrite::kYes).status().message(),
            absl::StrCat(directory_,
                         " is a directory; name a file to export to, or \"-\" for the "
                         "standard output"));
  EXPECT_EQ(ImageWriter::Open(Path("no/where"), Overwrite::kNo).status().message(),
            absl::StrCat("cannot create ", Path("no/where.part"), ": No such file or directory"));
}

}  // namespace
}  // namespace faultline
