// SPDX-License-Identifier: Apache-2.0
#include "server/test_client.h"

#include <absl/strings/match.h>
#include <errno.h>
#include <grpc/grpc.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>
#include <filesystem>
#include <utility>

namespace faultline {

testing::AssertionResult HasCodeAndText(const char* expression, const char*, const char*,
                                        const absl::Status& status, absl::StatusCode code,
                                        absl::string_view text) {
  if (status.code() == code && absl::StrContains(status.message(), text)) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << expression << " is " << status << "; expected " << code << " with \"" << text << "\"";
}

Page PageOf(uint64_t index, uint64_t version) {
  Page page{};
  if (version == 0) return page;
  for (uint64_t word = 0; word < kPageSize / sizeof(uint64_t); ++word) {
    const uint64_t value = (version << 48) ^ (index << 16) ^ word;
    memcpy(page.data() + word * sizeof value, &value, sizeof value);
  }
  return page;
}

rpc::PageBatch BatchOf(uint64_t first, uint64_t count, uint64_t version, Codec codec) {
  rpc::PageBatch batch;
  PageBatchBuilder builder(&batch);
  for (uint64_t page = first; page < first + count; ++page) {
    builder.Encode(PageIndex(page), PageOf(page, version), codec);
  }
  return batch;
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::StatusOr<std::map<uint64_t, Page>> PagesOf(const rpc::PageBatch& batch) {
  std::map<uint64_t, Page> pages;
  const absl::Status status = ForEachPage(
      batch,
      [&pages](PageIndex page, absl::string_view encoded) {
        Page scratch;
        const absl::StatusOr<PageBytes> bytes = DecodePage(page, encoded, scratch);
        if (!bytes.ok()) return bytes.status();
        memcpy(pages[page.raw()].data(), bytes->data(), kPageSize);
        return absl::OkStatus();
      },
      [&pages](PageRange zero) {
        for (PageIndex page = zero.first; page < zero.end(); ++page) pages[page.raw()] = Page{};
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return pages;
}

std::unique_ptr<grpc::ClientContext> NewContext() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_wait_for_ready(true);
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
  return context;
}

TemporaryDirectory::TemporaryDirectory() : path_(testing::TempDir() + "/faultline-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) {
    ADD_FAILURE() << "mkdtemp " << path_ << ": " << strerror(errno);
  }
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // what is left over harms no other test
  std::filesystem::remove_all(path_, ignored);
}

rpc::FetchRequest FetchOf(uint64_t request_id, uint64_t volume_id, uint64_t first, uint64_t count) {
  rpc::FetchRequest request;
  request.set_request_id(request_id);
  request.set_volume_id(volume_id);
  rpc::PageRun* run = request.add_runs();
  run->set_first(first);
  run->set_count(count);
  return request;
}

rpc::WriteRequest WriteOf(uint64_t request_id, const rpc::OpenVolumeResponse& volume,
                          rpc::PageBatch batch) {
  rpc::WriteRequest request;
  request.set_request_id(request_id);
  request.set_volume_id(volume.volume_id());
  request.set_epoch(volume.epoch());
  *request.mutable_batch() = std::move(batch);
  return request;
}

TestClient::TestClient(const std::string& address,
                       std::shared_ptr<grpc::ChannelCredentials> credentials) {
  // Held to the end of the process, as in main.cc: otherwise each test may end with a wait of 10 s.
  static const bool initialised = (grpc_init(), true);
  static_cast<void>(initialised);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // A connection of its own for each client.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  if (credentials == nullptr) credentials = grpc::InsecureChannelCredentials();
  channel_ = grpc::CreateCustomChannel(address, credentials, arguments);
  pages_ = rpc::PageService::NewStub(channel_);
  admin_ = rpc::AdminService::NewStub(channel_);
}

absl::StatusOr<rpc::Volume> TestClient::Create(const std::string& name, uint64_t size_bytes,
                                               rpc::Durability durability) {
  rpc::CreateVolumeRequest request;
  request.set_name(name);
  request.set_size_bytes(size_bytes);
  request.set_durability(durability);
  rpc::Volume volume;
  const absl::Status status = ToStatus(admin_->CreateVolume(NewContext().get(), request, &volume));
  if (!status.ok()) return status;
  return volume;
}

absl::StatusOr<rpc::Volume> TestClient::Stat(const std::string& name) {
  rpc::StatVolumeRequest request;
  request.set_name(name);
  rpc::Volume volume;
  const absl::Status status = ToStatus(admin_->StatVolume(NewContext().get(), request, &volume));
  if (!status.ok()) return status;
  return volume;
}

absl::StatusOr<rpc::OpenVolumeResponse> TestClient::Open(const std::string& name,
                                                         rpc::OpenVolumeRequest::Access access) {
  rpc::OpenVolumeRequest request;
  request.set_volume(name);
  request.set_access(access);
  rpc::OpenVolumeResponse response;
  const absl::Status status = ToStatus(pages_->OpenVolume(NewContext().get(), request, &response));
  if (!status.ok()) return status;
  return response;
}

absl::Status TestClient::Delete(const std::string& name) {
  rpc::DeleteVolumeRequest request;
  request.set_name(name);
  rpc::DeleteVolumeResponse response;
  return ToStatus(admin_->DeleteVolume(NewContext().get(), request, &response));
}

rpc::ServerStatus TestClient::Status() {
  rpc::ServerStatus status;
  const absl::Status result =
      ToStatus(admin_->GetServerStatus(NewContext().get(), rpc::GetServerStatusRequest(), &status));
  EXPECT_TRUE(result.ok()) << result;
  return status;
}

bool TestClient::WaitForStatus(const std::function<bool(const rpc::ServerStatus&)>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < deadline) {
    if (holds(Status())) return true;
  }
  return false;
}

std::unique_ptr<FetchClient> TestClient::NewFetchStream() {
  auto context = NewContext();
  auto stream = pages_->Fetch(context.get());
  return std::make_unique<FetchClient>(std::move(context), std::move(stream));
}

std::unique_ptr<WriteClient> TestClient::NewWriteStream() {
  auto context = NewContext();
  auto stream = pages_->Write(context.get());
  return std::make_unique<WriteClient>(std::move(context), std::move(stream));
}

absl::StatusOr<std::map<uint64_t, Page>> TestClient::Fetch(uint64_t volume_id, uint64_t first,
                                                           uint64_t count) {
  auto stream = NewFetchStream();
  absl::StatusOr<rpc::FetchResponse> response = stream->Call(FetchOf(1, volume_id, first, count));
  stream->HalfClose();
  if (!response.ok()) return response.status();
  if (absl::Status status = stream->Finish(); !status.ok()) return status;
  return PagesOf(response->batch());
}

absl::Status TestClient::Write(const rpc::OpenVolumeResponse& volume, const rpc::PageBatch& batch) {
  auto stream = NewWriteStream();
  absl::StatusOr<rpc::WriteResponse> response = stream->Call(WriteOf(1, volume, batch));
  stream->HalfClose();
  if (!response.ok()) return response.status();
  return stream->Finish();
}

absl::StatusOr<rpc::Volume> TestClient::Import(const rpc::ImportVolumeRequest::Begin& begin,
                                               const std::vector<rpc::PageBatch>& batches,
                                               bool commit) {
  auto context = NewContext();
  rpc::Volume volume;
  auto writer = admin_->ImportVolume(context.get(), &volume);
  rpc::ImportVolumeRequest request;
  *request.mutable_begin() = begin;
  bool open = writer->Write(request);
  for (const rpc::PageBatch& batch : batches) {
    if (!open) break;
    *request.mutable_batch() = batch;
    open = writer->Write(request);
  }
  if (open && commit) {
    request.mutable_commit();
    writer->Write(request);
  }
  writer->WritesDone();
  const absl::Status status = ToStatus(writer->Finish());
  if (!status.ok()) return status;
  return volume;
}

absl::StatusOr<std::vector<rpc::ExportVolumeResponse>> TestClient::Export(const std::string& name) {
  auto context = NewContext();
  rpc::ExportVolumeRequest request;
  request.set_name(name);
  auto reader = admin_->ExportVolume(context.get(), request);
  std::vector<rpc::ExportVolumeResponse> responses;
  rpc::ExportVolumeResponse response;
  while (reader->Read(&response)) responses.push_back(response);
  const absl::Status status = ToStatus(reader->Finish());
  if (!status.ok()) return status;
  return responses;
}

}  // namespace faultline
