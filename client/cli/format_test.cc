// SPDX-License-Identifier: Apache-2.0
#include "client/cli/format.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace faultline {
namespace {

rpc::Volume SampleVolume() {
  rpc::Volume volume;
  volume.set_name("disk");
  volume.set_id(3);
  volume.set_size_bytes(uint64_t{1} << 30);
  volume.set_stored_bytes(4096);
  volume.set_layers(2);
  volume.set_parent("golden");
  volume.set_epoch(5);
  volume.set_durability(rpc::DURABILITY_INTERVAL);
  volume.mutable_created()->set_seconds(1700000000);
  volume.set_owner("alice");
  volume.add_grants()->set_identity("agent1");
  volume.mutable_grants(0)->set_role(rpc::VOLUME_ROLE_READER);
  return volume;
}

TEST(FormatTable, ColumnsAreAsWideAsTheirWidestCellAndNumbersStandRight) {
  EXPECT_EQ(FormatTable({"NAME", "PAGES"}, {{"a", "1"}, {"longer", "12345678"}}),
            "NAME       PAGES\n"
            "a              1\n"
            "longer  12345678\n");
}

TEST(FormatTable, WithNoRowsIsItsHeader) { EXPECT_EQ(FormatTable({"A", "B"}, {}), "A  B\n"); }

TEST(FormatFields, ValuesStandBelowEachOther) {
  EXPECT_EQ(FormatFields({{"id", "1"}, {"volume", "disk"}}), "id:      1\nvolume:  disk\n");
}

TEST(FormatVolumes, ShowsOneLinePerVolume) {
  rpc::Volume snapshot;
  snapshot.set_name("golden");
  snapshot.set_kind(rpc::Volume::SNAPSHOT);
  snapshot.set_size_bytes(10000);
  snapshot.set_layers(1);
  EXPECT_EQ(FormatVolumes(std::vector<rpc::Volume>{SampleVolume(), snapshot}),
            "NAME    KIND        SIZE  STORED  LAYERS  PARENT  DURABILITY  CREATED\n"
            "disk    volume      1GiB    4KiB       2  golden  interval    "
            "2023-11-14T22:13:20Z\n"
            "golden  snapshot  9.8KiB      0B       1  -       sync        "
            "1970-01-01T00:00:00Z\n");
}

TEST(VolumeToJson, HoldsEveryFieldInPlainUnits) {
  EXPECT_EQ(VolumeToJson(SampleVolume()).dump(),
            R"({"name":"disk","id":3,"kind":"volume","size_bytes":1073741824,)"
            R"("stored_bytes":4096,"layers":2,"parent":"golden","epoch":5,)"
            R"("durability":"interval","created":"2023-11-14T22:13:20Z",)"
            R"("owner":"alice","grants":{"agent1":"reader"}})");
}

TEST(FormatServerStatus, TellsTheAgeAndWhatIsReadOnly) {
  rpc::ServerStatus status;
  status.set_version("0.1.0");
  status.set_store("file:/images/vm");
  status.set_read_only(true);
  status.mutable_started()->set_seconds(1700000000);
  const std::string text = FormatServerStatus(status, absl::FromUnixSeconds(1700003661));
  EXPECT_NE(text.find("store:            file:/images/vm (read-only)\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("started:          2023-11-14T22:13:20Z (1h1m1s ago)\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("free:             -\n"), std::string::npos) << text;
}

TEST(FormatVolume, TellsWhoMayDoWhat) {
  const std::string text = FormatVolume(SampleVolume());
  EXPECT_NE(text.find("owner:       alice\nreader:      agent1\n"), std::string::npos) << text;
}

TEST(ParseRole, RefusesOthersByName) {
  EXPECT_EQ(*ParseRole("writer"), rpc::VOLUME_ROLE_WRITER);
  EXPECT_EQ(ParseRole("none").status().message(),
            "unknown role \"none\"; known are reader, writer and owner");
}

TEST(ParseDurability, RefusesOthersByName) {
  EXPECT_EQ(*ParseDurability("none"), rpc::DURABILITY_NONE);
  EXPECT_EQ(ParseDurability("maybe").status().message(),
            "unknown durability \"maybe\"; known are sync, interval and none");
}

TEST(ParseAttachments, ReadsWhatAttachmentToJsonWrites) {
  AttachmentStats stats;
  stats.id = 4;
  stats.parent = 3;
  stats.drained = true;
  stats.pid = 77;
  stats.volume = "disk";
  stats.tracked_pages = 1024;
  stats.present_pages = 512;
  stats.faults_total = 600;
  stats.fault_p50_us = 61.5;
  stats.fault_max_us = 1234;
  const nlohmann::ordered_json answer = {{"status", "ok"},
                                         {"attachments", {AttachmentToJson(stats)}}};
  const auto parsed = ParseAttachments(answer.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->size(), 1u);
  EXPECT_EQ(AttachmentToJson(parsed->front()), AttachmentToJson(stats));
  EXPECT_EQ(
      FormatAttachments(*parsed),
      "ID  FORKED-FROM  PID  VOLUME  MEMORY  PRESENT  WAITING  FAULTS  FAILED   P50  P99    MAX\n"
      " 4            3   77  disk      4MiB    50.0%        0     600       0  62us  0us  1.2ms\n");
}

TEST(ParseAttachments, RefusalOfTheAgentIsAnErrorWithItsMessage) {
  const auto parsed = ParseAttachments(R"({"status":"error","message":"unknown query"})");
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(parsed.status().message(), "the agent refused: unknown query");
}

TEST(ParseAttachments, AnythingElseIsNamedAsWhatItIs) {
  EXPECT_EQ(ParseAttachments("HTTP/1.1 400").status().message(),
            "the agent's answer is no JSON object: HTTP/1.1 400; check that the socket is a "
            "faultline-agent's");
  EXPECT_EQ(ParseAttachments("{}").status().message(),
            "the agent's answer holds no attachments: {}; check that the socket is a "
            "faultline-agent's");
  for (const char* text :
       {R"({"attachments":[{"id":"x"}]})", R"({"attachments":[{"volume":1}]})"}) {
    EXPECT_EQ(ParseAttachments(text).status().code(), absl::StatusCode::kInternal) << text;
  }
}

TEST(FormatProgress, ShowsShareRateAndTimeLeft) {
  EXPECT_EQ(FormatProgress({.done_bytes = uint64_t{256} << 20,
                            .total_bytes = uint64_t{1} << 30,
                            .elapsed = absl::Seconds(2)}),
            " 25%  256 MiB of 1024 MiB  128 MiB/s  6s left");
}

TEST(FormatProgress, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(FormatProgress({.done_bytes = 0, .total_bytes = 0, .elapsed = absl::ZeroDuration()}),
            "0 MiB  0 MiB/s");
  EXPECT_EQ(
      FormatProgress({.done_bytes = 1 << 20, .total_bytes = 1 << 20, .elapsed = absl::Seconds(1)}),
      "100%  1 MiB of 1 MiB  1 MiB/s");
}

}  // namespace
}  // namespace faultline
