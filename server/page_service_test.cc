// SPDX-License-Identifier: Apache-2.0
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "server/test_server.h"
#include "storage/faulty_page_store.h"

namespace faultline {
namespace {

// As if in a cluster, and only pages below kAtHand were at hand: what reads others waits at a gate.
class FarPageStore final : public ForwardingPageStore {
 public:
  static constexpr uint64_t kAtHand = 50;

  explicit FarPageStore(Gate* gate) : ForwardingPageStore(NewMemoryPageStore()), gate_(gate) {}

  bool shared() const override { return true; }
  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override {
    if (range.end().raw() > kAtHand) gate_->Pass();
    return ForwardingPageStore::Read(layer, range, visit);
  }
  absl::Status ReadAtHand(LayerId layer, PageRange range, Visitor visit) override {
    if (range.end().raw() > kAtHand) return absl::UnavailableError("far away");
    return ForwardingPageStore::Read(layer, range, visit);
  }

 private:
  Gate* const gate_;
};

class PageServiceTest : public ServerTest {
 protected:
  // The code and message of the answer to `request`, on `stream`.
  static absl::Status FetchError(FetchClient* stream, const rpc::FetchRequest& request) {
    return stream->Call(request).status();
  }
};

TEST_F(PageServiceTest, FetchGivesTheBytesThatWereWrittenInEveryCodec) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 1000);
  EXPECT_TRUE(client_->Write(volume, BatchOf(0, 20, 1, Codec::kRaw)).ok());
  EXPECT_TRUE(client_->Write(volume, BatchOf(20, 20, 2, Codec::kLz4)).ok());
  EXPECT_TRUE(client_->Write(volume, BatchOf(40, 20, 3, Codec::kZstd)).ok());
  ExpectPages(volume.volume_id(), 0, 20, 1);
  ExpectPages(volume.volume_id(), 20, 20, 2);
  ExpectPages(volume.volume_id(), 40, 20, 3);
  ExpectPages(volume.volume_id(), 60, 940, 0);
}

TEST_F(PageServiceTest, PagesAreSentAsTheWriterEncodedThem) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  const rpc::PageBatch written = BatchOf(3, 2, 1, Codec::kZstd);
  EXPECT_TRUE(client_->Write(volume, written).ok());
  const auto response = client_->NewFetchStream()->Call(FetchOf(1, volume.volume_id(), 3, 2));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->batch().pages(), written.pages());
}

TEST_F(PageServiceTest, AFetchIsAnsweredInTheOrderOfItsRunsWithZerosWithoutPayload) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  EXPECT_TRUE(client_->Write(volume, BatchOf(10, 5, 1)).ok());
  rpc::FetchRequest request = FetchOf(7, volume.volume_id(), 13, 4);
  rpc::PageRun* run = request.add_runs();
  run->set_first(8);
  run->set_count(3);
  const auto response = client_->NewFetchStream()->Call(request);
  ASSERT_TRUE(response.ok()) << response.status();
  std::vector<std::string> runs;
  for (const rpc::PageRun& got : response->batch().runs()) {
    runs.push_back(std::to_string(got.first()) + "+" + std::to_string(got.count()) +
                   (got.kind() == rpc::PageRun::ZERO ? " zero" : " data"));
  }
  EXPECT_EQ(runs, (std::vector<std::string>{"13+2 data", "15+2 zero", "8+2 zero", "10+1 data"}));
  const auto pages = PagesOf(response->batch());
  ASSERT_TRUE(pages.ok());
  for (const auto& [index, page] : *pages) {
    EXPECT_TRUE(page == PageOf(index, index >= 10 && index < 15 ? 1 : 0)) << index;
  }
}

TEST_F(PageServiceTest, AFetchThatEndsInAHoleTellsHowFarThatGoes) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 30'000);
  EXPECT_TRUE(client_->Write(volume, BatchOf(10, 5, 1)).ok());
  EXPECT_TRUE(client_->Write(volume, BatchOf(50, 5, 1)).ok());
  const auto zeros_beyond = [&](uint64_t first, uint64_t count) {
    const auto response =
        client_->NewFetchStream()->Call(FetchOf(7, volume.volume_id(), first, count));
    EXPECT_TRUE(response.ok()) << response.status();
    return response->zeros_beyond();
  };
  EXPECT_EQ(zeros_beyond(10, 10), 30u);  // 20 to 49
  EXPECT_EQ(zeros_beyond(8, 6), 0u);     // ends in data
  EXPECT_EQ(zeros_beyond(48, 2), 0u);    // data follows
  EXPECT_EQ(zeros_beyond(20, 1), 0u);    // a fault has no time for it
  EXPECT_EQ(zeros_beyond(60, 2), uint64_t{1} << 14);
  EXPECT_EQ(zeros_beyond(29'000, 200), 800u) << "up to the end of the volume";
  EXPECT_EQ(zeros_beyond(29'990, 10), 0u);
}

TEST_F(PageServiceTest, ZeroRunsAndPagesOfZerosTrim) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  EXPECT_TRUE(client_->Write(volume, BatchOf(0, 30, 1)).ok());
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  builder.AddZero({PageIndex(5), PageCount(10)});
  EXPECT_TRUE(client_->Write(volume, batch).ok());
  // A page of zeros as data, which our own clients do not send.
  rpc::PageBatch encoded_zero;
  EncodeZeroPage(PageIndex(20), encoded_zero.mutable_pages());
  rpc::PageRun* run = encoded_zero.add_runs();
  run->set_first(20);
  run->set_count(1);
  EXPECT_TRUE(client_->Write(volume, encoded_zero).ok());
  ExpectPages(volume.volume_id(), 0, 5, 1);
  ExpectPages(volume.volume_id(), 5, 10, 0);
  ExpectPages(volume.volume_id(), 15, 5, 1);
  ExpectPages(volume.volume_id(), 20, 1, 0);
  ExpectPages(volume.volume_id(), 21, 9, 1);
}

TEST_F(PageServiceTest, AWriteInAnyOrderOfPagesIsApplied) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  for (const uint64_t page : {9, 3, 7}) {
    builder.Encode(PageIndex(page), PageOf(page, 4), Codec::kRaw);
  }
  builder.AddZero({PageIndex(8), PageCount(1)});
  builder.AddZero({PageIndex(1), PageCount(2)});
  EXPECT_TRUE(client_->Write(volume, batch).ok());
  for (const uint64_t page : {9, 3, 7}) ExpectPages(volume.volume_id(), page, 1, 4);
  ExpectPages(volume.volume_id(), 8, 1, 0);
}

TEST_F(PageServiceTest, ManyRequestsOfOneStreamAreAllAnswered) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 2000);
  for (uint64_t first = 0; first < 2000; first += 500) {
    ASSERT_TRUE(client_->Write(volume, BatchOf(first, 500, 1)).ok());
  }
  auto stream = client_->NewFetchStream();
  std::set<uint64_t> asked;
  for (uint64_t i = 0; i < 300; ++i) {
    // Small ones and large ones, so that both ways of answering are mixed.
    ASSERT_TRUE(stream->Send(FetchOf(i, volume.volume_id(), i, i % 3 == 0 ? 200 : 1)));
    asked.insert(i);
  }
  stream->HalfClose();
  rpc::FetchResponse response;
  while (stream->Receive(&response)) {
    const uint64_t id = response.request_id();
    EXPECT_EQ(asked.erase(id), 1u) << id;
    ASSERT_EQ(response.code(), 0) << response.message();
    const auto pages = PagesOf(response.batch());
    ASSERT_TRUE(pages.ok()) << pages.status();
    ASSERT_EQ(pages->size(), id % 3 == 0 ? 200u : 1u);
    EXPECT_EQ(pages->begin()->first, id);
    for (const auto& [index, page] : *pages) ASSERT_TRUE(page == PageOf(index, 1));
  }
  EXPECT_TRUE(asked.empty()) << asked.size() << " requests without an answer";
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(PageServiceTest, WritesOfOneStreamOverlapInTheStore) {
  StartGatedServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  gate_.Close();
  auto stream = client_->NewWriteStream();
  for (uint64_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(stream->Send(WriteOf(i, volume, BatchOf(i * 10, 10, 1))));
  }
  gate_.WaitForThreads(4);
  gate_.Open();
  stream->HalfClose();
  rpc::WriteResponse response;
  int answers = 0;
  while (stream->Receive(&response)) {
    EXPECT_EQ(response.code(), 0) << response.message();
    ++answers;
  }
  EXPECT_EQ(answers, 4);
  EXPECT_TRUE(stream->Finish().ok());
  ExpectPages(volume.volume_id(), 0, 40, 1);
}

TEST_F(PageServiceTest, FaultsOnPagesThatAreFarAwayHoldUpNeitherEachOtherNorWhatIsAtHand) {
  StartServer({}, std::make_unique<FarPageStore>(&gate_));
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  EXPECT_TRUE(client_->Write(volume, BatchOf(0, 100, 1)).ok());
  gate_.Close();
  auto stream = client_->NewFetchStream();
  for (uint64_t page = 60; page < 68; ++page) {
    ASSERT_TRUE(stream->Send(FetchOf(page, volume.volume_id(), page, 1)));
  }
  gate_.WaitForThreads(8);
  ExpectPages(volume.volume_id(), 3, 5, 1);  // on a stream of its own
  ASSERT_TRUE(stream->Send(FetchOf(7, volume.volume_id(), 7, 1)));
  rpc::FetchResponse response;
  ASSERT_TRUE(stream->Receive(&response));
  EXPECT_EQ(response.request_id(), 7u);
  gate_.Open();
  std::set<uint64_t> answered;
  while (answered.size() < 8 && stream->Receive(&response)) {
    const auto pages = PagesOf(response.batch());
    ASSERT_TRUE(pages.ok()) << pages.status();
    ASSERT_EQ(pages->size(), 1u);
    EXPECT_TRUE(pages->begin()->second == PageOf(response.request_id(), 1));
    answered.insert(response.request_id());
  }
  EXPECT_EQ(answered.size(), 8u);
  stream->HalfClose();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(PageServiceTest, OpeningTellsWhatAClientNeeds) {
  ServerOptions options;
  options.max_pages_per_request = 77;
  StartServer(options);
  const auto created = client_->Create("v", 10 * kPageSize + 1);
  ASSERT_TRUE(created.ok()) << created.status();
  const auto read = client_->Open("v", rpc::OpenVolumeRequest::READ);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->volume_id(), created->id());
  EXPECT_EQ(read->size_bytes(), 10 * kPageSize + 1);
  EXPECT_EQ(read->epoch(), 0u);
  EXPECT_EQ(read->max_pages_per_request(), 77u);
  const auto first = client_->Open("v", rpc::OpenVolumeRequest::WRITE);
  const auto second = client_->Open("v", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_GT(first->epoch(), 0u);
  EXPECT_GT(second->epoch(), first->epoch());
}

TEST_F(PageServiceTest, OpeningWhatIsNotThereNamesIt) {
  StartServer();
  for (const auto access : {rpc::OpenVolumeRequest::READ, rpc::OpenVolumeRequest::WRITE}) {
    EXPECT_STATUS(client_->Open("nothing", access).status(), absl::StatusCode::kNotFound,
                  "\"nothing\"");
  }
  CreateAndOpen("v", 1);
  EXPECT_STATUS(client_->Open("v", static_cast<rpc::OpenVolumeRequest::Access>(9)).status(),
                absl::StatusCode::kInvalidArgument, "volume \"v\": unknown access 9");
}

TEST_F(PageServiceTest, ABadFetchIsAnsweredWithItsErrorAndTheStreamGoesOn) {
  ServerOptions options;
  options.max_pages_per_request = 50;
  StartServer(options);
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 10, 1)).ok());
  const uint64_t id = volume.volume_id();
  auto stream = client_->NewFetchStream();
  EXPECT_STATUS(FetchError(stream.get(), FetchOf(1, id + 1000, 0, 1)), absl::StatusCode::kNotFound,
                std::to_string(id + 1000));
  EXPECT_STATUS(FetchError(stream.get(), FetchOf(2, id, 99, 2)), absl::StatusCode::kOutOfRange,
                "volume \"v\"");
  EXPECT_STATUS(FetchError(stream.get(), FetchOf(3, id, ~uint64_t{0}, 1)),
                absl::StatusCode::kOutOfRange, "reach beyond the volume's 100");
  EXPECT_STATUS(FetchError(stream.get(), FetchOf(4, id, 0, 51)), absl::StatusCode::kInvalidArgument,
                "more than 50 pages in one message");
  EXPECT_STATUS(FetchError(stream.get(), FetchOf(5, id, 0, 0)), absl::StatusCode::kInvalidArgument,
                "a run of pages is empty");
  rpc::FetchRequest no_runs;
  no_runs.set_request_id(6);
  no_runs.set_volume_id(id);
  EXPECT_STATUS(FetchError(stream.get(), no_runs), absl::StatusCode::kInvalidArgument,
                "a request names no pages");
  rpc::FetchRequest in_part = FetchOf(7, id, 0, 1);
  *in_part.add_runs() = FetchOf(0, id, 100, 1).runs(0);
  EXPECT_STATUS(FetchError(stream.get(), in_part), absl::StatusCode::kOutOfRange, "\"v\"");
  EXPECT_TRUE(stream->Call(FetchOf(8, id, 0, 10)).ok());
  EXPECT_EQ(client_->Status().requests_failed_total(), 7u);
}

TEST_F(PageServiceTest, ABadWriteIsAnsweredWithItsErrorAndChangesNothing) {
  ServerOptions options;
  options.max_pages_per_request = 50;
  StartServer(options);
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 40, 1)).ok());
  auto stream = client_->NewWriteStream();
  const auto refused = [&](rpc::PageBatch batch) {
    return stream->Call(WriteOf(5, volume, std::move(batch))).status();
  };

  rpc::PageBatch flipped = BatchOf(0, 10, 2);
  (*flipped.mutable_pages())[flipped.pages().size() - 5] ^= 4;
  EXPECT_STATUS(refused(flipped), absl::StatusCode::kDataLoss,
                "volume \"v\": page 9: checksum does not match; nothing was written");
  rpc::PageBatch misplaced = BatchOf(0, 10, 2);
  misplaced.mutable_runs(0)->set_first(1);
  EXPECT_STATUS(refused(misplaced), absl::StatusCode::kDataLoss, "page 1: checksum");
  rpc::PageBatch cut_off = BatchOf(0, 10, 2);
  cut_off.mutable_pages()->pop_back();
  EXPECT_STATUS(refused(cut_off), absl::StatusCode::kDataLoss, "page 9: encoded page is cut off");
  rpc::PageBatch garbage = BatchOf(0, 1, 2);
  garbage.set_pages("garbage garbage garbage");
  EXPECT_STATUS(refused(garbage), absl::StatusCode::kDataLoss, "page 0: encoded page has");
  rpc::PageBatch twice = BatchOf(0, 5, 2);
  PageBatchBuilder(&twice).Encode(PageIndex(3), PageOf(3, 2), Codec::kRaw);
  EXPECT_STATUS(refused(twice), absl::StatusCode::kInvalidArgument,
                "page 3 stands twice in one write");
  rpc::PageBatch trimmed_too = BatchOf(0, 5, 2);
  PageBatchBuilder(&trimmed_too).AddZero({PageIndex(4), PageCount(2)});
  EXPECT_STATUS(refused(trimmed_too), absl::StatusCode::kInvalidArgument,
                "page 4 stands twice in one write");
  rpc::PageBatch trimmed_twice = BatchOf(0, 1, 2);
  PageBatchBuilder(&trimmed_twice).AddZero({PageIndex(10), PageCount(5)});
  PageBatchBuilder(&trimmed_twice).AddZero({PageIndex(8), PageCount(3)});
  EXPECT_STATUS(refused(trimmed_twice), absl::StatusCode::kInvalidArgument,
                "page 10 stands twice in one write");
  EXPECT_STATUS(refused(BatchOf(0, 51, 2)), absl::StatusCode::kInvalidArgument,
                "more than 50 pages");
  EXPECT_STATUS(refused(BatchOf(90, 11, 2)), absl::StatusCode::kOutOfRange, "\"v\"");
  EXPECT_STATUS(refused(rpc::PageBatch()), absl::StatusCode::kInvalidArgument, "names no pages");
  rpc::OpenVolumeResponse unknown = volume;
  unknown.set_volume_id(4711);
  EXPECT_STATUS(stream->Call(WriteOf(5, unknown, BatchOf(0, 1, 2))).status(),
                absl::StatusCode::kNotFound, "4711");

  ExpectPages(volume.volume_id(), 0, 40, 1);
  ExpectPages(volume.volume_id(), 40, 50, 0);
  EXPECT_TRUE(stream->Call(WriteOf(6, volume, BatchOf(0, 40, 3))).ok());
  ExpectPages(volume.volume_id(), 0, 40, 3);
}

TEST_F(PageServiceTest, AWriterThatWasFencedIsRefused) {
  StartServer();
  const rpc::OpenVolumeResponse old_writer = CreateAndOpen("v", 100);
  auto stream = client_->NewWriteStream();
  ASSERT_TRUE(stream->Call(WriteOf(1, old_writer, BatchOf(0, 1, 1))).ok());
  const auto new_writer = client_->Open("v", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(new_writer.ok());
  EXPECT_STATUS(stream->Call(WriteOf(2, old_writer, BatchOf(0, 1, 2))).status(),
                absl::StatusCode::kFailedPrecondition, "volume \"v\"");
  rpc::OpenVolumeResponse reader = *new_writer;
  reader.set_epoch(0);
  EXPECT_STATUS(stream->Call(WriteOf(3, reader, BatchOf(0, 1, 2))).status(),
                absl::StatusCode::kFailedPrecondition, "volume \"v\"");
  ExpectPages(old_writer.volume_id(), 0, 1, 1);
  EXPECT_TRUE(stream->Call(WriteOf(4, *new_writer, BatchOf(0, 1, 3))).ok());
  ExpectPages(old_writer.volume_id(), 0, 1, 3);
}

TEST_F(PageServiceTest, AWriteThatComesAfterOneOfAHigherGenerationIsAborted) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  rpc::WriteRequest late = WriteOf(1, volume, BatchOf(0, 10, 1));
  rpc::WriteRequest newer = WriteOf(2, volume, BatchOf(5, 10, 2));
  newer.set_generation(1);
  ASSERT_TRUE(client_->NewWriteStream()->Call(newer).ok());
  auto stream = client_->NewWriteStream();
  EXPECT_STATUS(stream->Call(late).status(), absl::StatusCode::kAborted,
                "a write of generation 0 came after one of generation 1");
  ExpectPages(volume.volume_id(), 0, 5, 0);
  ExpectPages(volume.volume_id(), 5, 10, 2);
  late.set_generation(1);
  EXPECT_TRUE(stream->Call(late).ok());
  ExpectPages(volume.volume_id(), 0, 10, 1);
}

TEST_F(PageServiceTest, AfterADeleteStreamsThatUsedTheVolumeGetNotFound) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  auto reader = client_->NewFetchStream();
  auto writer = client_->NewWriteStream();
  ASSERT_TRUE(writer->Call(WriteOf(1, volume, BatchOf(0, 100, 1))).ok());
  ASSERT_TRUE(reader->Call(FetchOf(1, volume.volume_id(), 0, 100)).ok());
  ASSERT_TRUE(client_->Delete("v").ok());
  EXPECT_STATUS(reader->Call(FetchOf(2, volume.volume_id(), 0, 1)).status(),
                absl::StatusCode::kNotFound, "\"v\"");
  EXPECT_STATUS(reader->Call(FetchOf(3, volume.volume_id(), 0, 100)).status(),
                absl::StatusCode::kNotFound, "\"v\"");
  EXPECT_STATUS(writer->Call(WriteOf(2, volume, BatchOf(0, 1, 2))).status(),
                absl::StatusCode::kNotFound, std::to_string(volume.volume_id()));
  // The name may be used again, the id is another one and the old pages are gone.
  const rpc::OpenVolumeResponse again = CreateAndOpen("v", 100);
  EXPECT_NE(again.volume_id(), volume.volume_id());
  ExpectPages(again.volume_id(), 0, 100, 0);
}

TEST_F(PageServiceTest, ErrorsOfTheStoreAreThoseOfTheRequest) {
  FaultyPageStore::Faults faults;
  faults.seed = 3;
  faults.read_error = 0.3;
  faults.write_error = 0.3;
  auto store = std::make_unique<FaultyPageStore>(NewMemoryPageStore(), faults);
  // The catalog is read at the start; a seed for which that fails would fail this line.
  StartServer({}, std::move(store));
  absl::StatusOr<rpc::OpenVolumeResponse> volume = absl::UnavailableError("not tried");
  while (absl::IsUnavailable(volume.status())) {
    const absl::Status created = client_->Create("v", 100 * kPageSize).status();
    ASSERT_TRUE(created.ok() || absl::IsUnavailable(created) || absl::IsAlreadyExists(created));
    volume = client_->Open("v", rpc::OpenVolumeRequest::WRITE);
    if (absl::IsNotFound(volume.status())) volume = absl::UnavailableError("not created");
  }
  ASSERT_TRUE(volume.ok()) << volume.status();
  auto writer = client_->NewWriteStream();
  auto reader = client_->NewFetchStream();
  int errors = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    absl::Status written = writer->Call(WriteOf(i, *volume, BatchOf(i, 1, 1))).status();
    while (absl::IsUnavailable(written)) {
      ++errors;
      EXPECT_EQ(written.message(), "injected write error");
      written = writer->Call(WriteOf(i, *volume, BatchOf(i, 1, 1))).status();
    }
    ASSERT_TRUE(written.ok()) << written;
    auto read = reader->Call(FetchOf(i, volume->volume_id(), i, 1));
    while (absl::IsUnavailable(read.status())) {
      ++errors;
      EXPECT_EQ(read.status().message(), "injected read error");
      read = reader->Call(FetchOf(i, volume->volume_id(), i, 1));
    }
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_TRUE(PagesOf(read->batch())->at(i) == PageOf(i, 1));
  }
  EXPECT_GT(errors, 20) << "seed " << faults.seed;
}

TEST_F(PageServiceTest, DamageInTheStoreReachesTheReaderWhoNoticesIt) {
  FaultyPageStore::Faults faults;
  faults.seed = 11;
  faults.corruption = 1;
  StartServer({}, std::make_unique<FaultyPageStore>(NewMemoryPageStore(), faults));
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 50, 1, Codec::kRaw)).ok());
  auto reader = client_->NewFetchStream();
  for (uint64_t i = 0; i < 50; ++i) {
    const auto response = reader->Call(FetchOf(i, volume.volume_id(), i, 1));
    // One flipped bit may also make the batch unreadable; it never makes a page of wrong bytes.
    const absl::Status status =
        response.ok() ? PagesOf(response->batch()).status() : response.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status << ", seed " << faults.seed;
  }
}

// Sends bytes that are no message on a stream of `method`; the status that it ends with.
absl::Status SendGarbage(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  auto context = NewContext();
  auto stream = stub.PrepareCall(context.get(), method, &queue);
  void* tag;
  bool ok;
  stream->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice slice("\xff\xff\xff\xff garbage");
  stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
  queue.Next(&tag, &ok);
  grpc::ByteBuffer answer;
  stream->Read(&answer, nullptr);
  queue.Next(&tag, &ok);
  EXPECT_FALSE(ok) << "garbage was answered";
  grpc::Status status;
  stream->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  return ToStatus(status);
}

TEST_F(PageServiceTest, AMessageThatCannotBeParsedEndsItsStreamOnly) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  auto stream = client_->NewFetchStream();
  ASSERT_TRUE(stream->Call(FetchOf(1, volume.volume_id(), 0, 1)).ok());
  EXPECT_STATUS(SendGarbage(client_->channel(), "/faultline.rpc.PageService/Fetch"),
                absl::StatusCode::kInvalidArgument,
                "a message of 12 bytes is no faultline.rpc.FetchRequest");
  EXPECT_STATUS(SendGarbage(client_->channel(), "/faultline.rpc.PageService/Write"),
                absl::StatusCode::kInvalidArgument,
                "a message of 12 bytes is no faultline.rpc.WriteRequest");
  EXPECT_TRUE(stream->Call(FetchOf(2, volume.volume_id(), 0, 1)).ok());
  EXPECT_TRUE(client_->WaitForStatus([](const rpc::ServerStatus& status) {
    return status.fetch_streams() == 1 && status.write_streams() == 0 &&
           status.pages_in_flight() == 0;
  }));
}

TEST_F(PageServiceTest, AMessageThatIsTooLargeEndsItsStream) {
  ServerOptions options;
  options.max_pages_per_request = 16;
  options.max_message_bytes = 128 << 10;
  StartServer(options);
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  auto stream = client_->NewWriteStream();
  rpc::WriteResponse response;
  stream->Send(WriteOf(1, volume, BatchOf(0, 40, 1, Codec::kRaw)));
  EXPECT_FALSE(stream->Receive(&response));
  EXPECT_STATUS(stream->Finish(), absl::StatusCode::kResourceExhausted, "131072");
  EXPECT_TRUE(client_->Write(volume, BatchOf(0, 16, 1, Codec::kRaw)).ok());
}

// 64 pages in flight, of which bulk requests get 56 and one stream 16, or a single request: so one
// stream has one request of 32 under way, and a second stream waits.
class PageWindowTest : public PageServiceTest {
 protected:
  void StartSmallServer() {
    ServerOptions options;
    options.max_pages_per_request = 32;
    options.max_pages_in_flight = 64;
    StartGatedServer(options);
    volume_ = CreateAndOpen("v", 1000);
  }
  uint64_t PagesInFlight() { return client_->Status().pages_in_flight(); }

  rpc::OpenVolumeResponse volume_;
};

TEST_F(PageWindowTest, RequestsBeyondTheWindowWaitAndDemandFetchesDoNot) {
  StartSmallServer();
  gate_.Close();
  auto bulk1 = client_->NewFetchStream();
  auto bulk2 = client_->NewFetchStream();
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(bulk1->Send(FetchOf(i, volume_.volume_id(), i * 32, 32)));
    ASSERT_TRUE(bulk2->Send(FetchOf(i, volume_.volume_id(), i * 32, 32)));
  }
  gate_.WaitForThreads(1);
  auto demand = client_->NewFetchStream();
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_TRUE(demand->Call(FetchOf(i, volume_.volume_id(), i, 1)).ok());
    EXPECT_LE(PagesInFlight(), 64u);
  }
  gate_.Open();
  for (FetchClient* stream : {bulk1.get(), bulk2.get()}) {
    std::set<uint64_t> answered;
    rpc::FetchResponse response;
    stream->HalfClose();
    while (stream->Receive(&response)) answered.insert(response.request_id());
    EXPECT_EQ(answered, (std::set<uint64_t>{0, 1, 2}));
    EXPECT_TRUE(stream->Finish().ok());
  }
  EXPECT_EQ(PagesInFlight(), 0u);
}

TEST_F(PageWindowTest, ARequestThatWaitsForTheWindowIsForgottenWithItsStream) {
  StartSmallServer();
  gate_.Close();
  auto running = client_->NewFetchStream();
  ASSERT_TRUE(running->Send(FetchOf(1, volume_.volume_id(), 0, 32)));
  gate_.WaitForThreads(1);
  auto waiting = client_->NewFetchStream();
  ASSERT_TRUE(waiting->Send(FetchOf(1, volume_.volume_id(), 0, 32)));
  auto also_waiting = client_->NewFetchStream();
  ASSERT_TRUE(also_waiting->Send(FetchOf(1, volume_.volume_id(), 0, 32)));
  waiting->Cancel();
  EXPECT_EQ(waiting->Finish().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(client_->WaitForStatus(
      [](const rpc::ServerStatus& status) { return status.fetch_streams() == 2; }));
  gate_.Open();
  rpc::FetchResponse response;
  EXPECT_TRUE(running->Receive(&response));
  EXPECT_TRUE(also_waiting->Receive(&response));
  EXPECT_EQ(response.code(), 0) << response.message();
}

TEST_F(PageWindowTest, StreamsThatAreCancelledGiveTheirPagesBack) {
  StartSmallServer();
  ASSERT_TRUE(client_->Write(volume_, BatchOf(0, 32, 1, Codec::kRaw)).ok());
  for (int round = 0; round < 50; ++round) {
    auto reader = client_->NewFetchStream();
    auto writer = client_->NewWriteStream();
    for (uint64_t i = 0; i < 8; ++i) {
      reader->Send(FetchOf(i, volume_.volume_id(), 0, i % 2 == 0 ? 32 : 1));
      writer->Send(WriteOf(i, volume_, BatchOf(100 + i * 8, 8, 1)));
    }
    reader->Cancel();
    writer->Cancel();
    // Answers that came before the cancel are still there to be received.
    rpc::FetchResponse fetched;
    while (reader->Receive(&fetched)) {
    }
    rpc::WriteResponse written;
    while (writer->Receive(&written)) {
    }
    reader->Finish().IgnoreError();
    writer->Finish().IgnoreError();
  }
  EXPECT_TRUE(client_->WaitForStatus([](const rpc::ServerStatus& status) {
    return status.fetch_streams() == 0 && status.write_streams() == 0 &&
           status.pages_in_flight() == 0;
  }));
  EXPECT_TRUE(client_->Write(volume_, BatchOf(0, 32, 2)).ok());
  ExpectPages(volume_.volume_id(), 0, 32, 2);
}

// A client that never reads its answers keeps its own pages and nobody else's.
TEST_F(PageWindowTest, AClientThatDoesNotReadDoesNotStopOthers) {
  StartSmallServer();
  ASSERT_TRUE(client_->Write(volume_, BatchOf(0, 32, 1, Codec::kRaw)).ok());
  TestClient other(address());
  auto deaf = other.NewFetchStream();
  // More than any flow control window takes would block Send(); 40 small requests never do.
  for (uint64_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(deaf->Send(FetchOf(i, volume_.volume_id(), 0, 32)));
  }
  for (int round = 0; round < 20; ++round) ExpectPages(volume_.volume_id(), 0, 16, 1);
  rpc::FetchResponse response;
  for (uint64_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(deaf->Receive(&response)) << i;
    EXPECT_EQ(response.code(), 0) << response.message();
  }
}

}  // namespace
}  // namespace faultline
