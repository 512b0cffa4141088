// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_message.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/attach/json_text_splitter.h"

namespace faultline {
namespace {

using Kind = HandoverRequest::Kind;

// One mapping that is right, with `more` keys.
std::string MappingText(absl::string_view more = "") {
  return absl::StrCat(R"({"base_host_virt_addr":4096,"size":8192,"offset":12288)", more, "}");
}

std::string Ours(absl::string_view more = "") {
  return absl::StrCat(R"({"volume":"vm","mappings":[)", MappingText(), "]", more, "}");
}

struct Refused {
  std::string name;
  std::string text;
  std::string message;  // that the error contains
};

void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.name; }

class HandoverMessageRefuses : public testing::TestWithParam<Refused> {};

TEST_P(HandoverMessageRefuses, SayingWhatIsWrong) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(GetParam().text);
  ASSERT_FALSE(request.ok());
  EXPECT_NE(request.status().message().find(GetParam().message), absl::string_view::npos)
      << request.status().message();
  // A message goes into one line of the log, whatever the peer sent.
  EXPECT_LT(request.status().message().size(), 400u);
  EXPECT_EQ(request.status().message().find('\n'), absl::string_view::npos);
}

std::string Repeated(absl::string_view text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) absl::StrAppend(&all, text);
  return all;
}

std::string VolumeNamed(absl::string_view name) {
  return absl::StrCat(R"({"volume":)", name, R"(,"mappings":[)", MappingText(), "]}");
}

// Wrong as JSON, or in a mapping.
std::vector<Refused> RefusedTexts() {
  const std::string m = MappingText();
  const std::string big = "18446744073709551616";  // 2^64
  const auto with_size = [](absl::string_view size) {
    return absl::StrCat(R"([{"base_host_virt_addr":4096,"offset":0,"size":)", size, "}]");
  };
  return {
      {"Nothing", "", "not JSON: parse error at line 1, column 1"},
      {"Word", "null", "null is neither an object nor an array"},
      {"TruncatedArray", "[" + m, "not JSON"},
      {"WrongBracket", "[" + m + "}", "not JSON"},
      {"TwoTexts", "[" + m + "] []", "not JSON"},
      {"InvalidUtf8", "{\"volume\":\"\xff\"}", "not JSON"},
      {"LineFeedInString", "{\"volume\":\"a\nb\"}", "not JSON"},
      {"TooDeep", Repeated("[", 100) + Repeated("]", 100), "nested deeper than 16 levels"},
      {"TooLong", Ours() + std::string(kMaxHandoverBytes, ' '), "a text may have 1048576"},
      {"KeyTwice", R"([{"size":1,"size":2}])", R"(the key "size" stands twice)"},
      {"KeyTwiceInOurForm", R"({"volume":"a","volume":"b"})", R"(the key "volume" stands twice)"},
      {"NoMappings", "[]", "no mappings"},
      {"NoMappingsInOurForm", R"({"volume":"vm","mappings":[]})", "no mappings"},
      {"MappingsMissing", R"({"volume":"vm"})", R"("mappings" is missing)"},
      {"MappingsNoArray", R"({"volume":"vm","mappings":{}})", R"("mappings" is {}, not an array)"},
      {"MappingNoObject", "[" + m + ",7]", "mapping 1: 7 is not an object"},
      {"TooManyMappings", "[" + Repeated(m + ",", 4096) + m + "]", "4097 mappings; at most 4096"},
      {"AddressMissing", R"([{"size":4096,"offset":0}])",
       R"(mapping 0: "base_host_virt_addr" is missing)"},
      {"SizeMissing", R"([{"base_host_virt_addr":0,"offset":0}])", R"("size" is missing)"},
      {"OffsetMissing", R"([{"base_host_virt_addr":0,"size":4096}])", R"("offset" is missing)"},
      {"SizeNegative", with_size("-4096"), R"("size" is -4096, not a whole number from 0)"},
      {"SizeFraction", with_size("4096.0"), R"("size" is 4096.0, not a whole number)"},
      {"SizeExponent", with_size("1e3"), "not a whole number"},
      {"SizeString", with_size("\"4096\""), R"("size" is "4096", not a whole number)"},
      {"SizeNull", with_size("null"), R"("size" is null, not a whole number)"},
      {"SizeBeyond64Bits", with_size(big), "not a whole number from 0 to 2^64-1"},
      {"SizeInfinite", with_size("1e999"), "not JSON"},
      {"HugePages", "[" + MappingText(R"(,"page_size":2097152)") + "]",
       R"("page_size" is 2097152 bytes; this agent serves pages of 4096 bytes only)"},
      {"HugePagesInOldForm", "[" + MappingText(R"(,"page_size_kib":2097152)") + "]",
       R"("page_size_kib" is 2097152 bytes)"},
      {"PageSizeInKib", "[" + MappingText(R"(,"page_size_kib":4)") + "]",
       R"("page_size_kib" is 4 bytes)"},
      {"PageSizeZero", "[" + MappingText(R"(,"page_size":0)") + "]", R"("page_size" is 0 bytes)"},
      {"PageSizeFraction", "[" + MappingText(R"(,"page_size":0.5)") + "]",
       R"("page_size" is 0.5, not a whole number)"},
  };
}

// Wrong in what is around the mappings.
std::vector<Refused> RefusedRequests() {
  const auto query = [](absl::string_view rest) { return absl::StrCat(R"({"query":)", rest, "}"); };
  return {
      {"VolumeMissing", R"({"mappings":[]})", R"("volume" is missing)"},
      {"VolumeNumber", VolumeNamed("7"), R"("volume" is 7, not the name of a volume)"},
      {"VolumeEmpty", VolumeNamed(R"("")"),
       "\"\" cannot be the name of a volume; allowed are 1 to 128 letters"},
      {"VolumeWithSlash", VolumeNamed(R"("a/b")"), "\"a/b\" cannot be the name of a volume"},
      {"VolumeWithNul", VolumeNamed(R"("a\u0000b")"), "cannot be the name of a volume"},
      {"VolumeWithSpace", VolumeNamed(R"("a b")"), "cannot be the name of a volume"},
      {"VolumeName10kB", VolumeNamed("\"" + std::string(10'000, 'v') + "\""),
       "cannot be the name of a volume; allowed are 1 to 128 letters"},
      {"UnknownKey", Ours(R"(,"swap":true)"), R"(unknown key "swap")"},
      {"PrefetchNoName", Ours(R"(,"prefetch":true)"), R"("prefetch": unknown prefetch policy)"},
      {"PrefetchUnknown", Ours(R"(,"prefetch":"oracle")"), "known are none, sequential"},
      {"WorkingSetUnknown", Ours(R"(,"working_set":"keep")"), "known are none, record"},
      {"FirstPagesNumber", Ours(R"(,"first_pages":7)"), R"("first_pages" is 7, not an array)"},
      {"FirstPagesNegative", Ours(R"(,"first_pages":[0,-1])"), "not an array of numbers"},
      {"SharedDiscardUnknown", Ours(R"(,"shared_discard":"drop")"), R"("shared_discard": )"},
      {"FaultPolicyUnknown", Ours(R"(,"fault_policy":"stop")"), R"("fault_policy": )"},
      {"FaultDeadlineText", Ours(R"(,"fault_deadline_ms":"1s")"), R"("fault_deadline_ms" is "1s")"},
      {"UnknownKeyInMapping",
       R"({"volume":"vm","mappings":[)" + MappingText(R"(,"gpa_start":0)") + "]}",
       R"(mapping 0: unknown key "gpa_start")"},
      {"ModeUnknown", Ours(R"(,"mode":"eager")"), R"("mode" is "eager", not "lazy" or "far")"},
      {"DrainNumber", Ours(R"(,"drain":1)"), R"("drain" is 1, not true or false)"},
      {"RegisterNumber", Ours(R"(,"register":1)"), R"("register" is 1, not true or false)"},
      {"MemfdTooLarge", R"({"volume":"vm","mappings":[)" + MappingText(R"(,"memfd":15)") + "]}",
       R"("memfd" is 15; at most 15 descriptors may follow)"},
      {"MemfdNegative", R"({"volume":"vm","mappings":[)" + MappingText(R"(,"memfd":-1)") + "]}",
       R"("memfd" is -1, not a whole number)"},
      {"MemfdGap", R"({"volume":"vm","mappings":[)" + MappingText(R"(,"memfd":1)") + "]}",
       "nothing names the descriptor 0 after the userfaultfd, but something 1"},
      {"PidfdTooLarge", Ours(R"(,"pidfd":15)"), R"("pidfd" is 15; at most 15 descriptors)"},
      {"PidfdGap", Ours(R"(,"pidfd":2)"),
       "nothing names the descriptor 0 after the userfaultfd, but something 2"},
      {"PidfdText", Ours(R"(,"pidfd":"0")"), R"("pidfd" is "0", not a whole number)"},
      {"PidfdIsMemfd",
       R"({"volume":"vm","pidfd":0,"mappings":[)" + MappingText(R"(,"memfd":0)") + "]}",
       R"("pidfd" is 0, which is a mapping's "memfd", too)"},
      {"DetachFalse", R"({"detach":false})", R"("detach" is false, not true)"},
      {"DetachAndMore", R"({"detach":true,"volume":"vm"})", R"(unknown key "volume")"},
      {"QueryUnknown", query("\"pages\""), R"("query" is "pages", not "attachments" or "volume")"},
      {"QueryAttachmentsAndMore", query(R"("attachments","volume":"vm")"),
       R"(unknown key "volume")"},
      {"QueryVolumeWithoutName", query("\"volume\""), R"("volume" is missing)"},
      {"QueryVolumeBadName", query(R"("volume","volume":"../x")"),
       "cannot be the name of a volume"},
  };
}

// Wrong in what is said of far memory.
std::vector<Refused> RefusedFarMemory() {
  return {
      {"FarOfAnonymousMappings", Ours(R"(,"mode":"far")"),
       R"(each mapping of far memory needs its "memfd"; anonymous memory needs a "helper")"},
      {"FarInLazyMode", Ours(R"(,"far":{})"), R"("far" goes with "mode":"far" only)"},
      {"FarNumber", Ours(R"(,"mode":"far","far":1)"), R"("far" is 1, not an object)"},
      {"FarUnknownKey", Ours(R"(,"mode":"far","far":{"budget":1})"),
       R"(far: unknown key "budget")"},
      {"FarPolicyNumber", Ours(R"(,"mode":"far","far":{"policy":1})"),
       R"(far: "policy" is 1, not a name)"},
      {"FarVolumeOfNothing", Ours(R"(,"mode":"far","far":{"create_volume":0})"),
       R"(far: "create_volume" is of 0 bytes)"},
      {"FarVolumeMadeTwice",
       Ours(R"(,"mode":"far","far":{"create_volume":4096,"from_snapshot":"s"})"),
       R"("create_volume" and "from_snapshot" exclude each other)"},
      {"FarDurabilityAlone", Ours(R"(,"mode":"far","far":{"durability":"none"})"),
       R"(far: "durability" needs "create_volume")"},
      {"FarSnapshotNumber", Ours(R"(,"mode":"far","far":{"from_snapshot":1})"),
       R"(far: "from_snapshot" is 1, not a text)"},
      {"FarCommandUnknown", R"({"far_command":"forget","attachment":1})",
       R"(unknown far_command "forget")"},
      {"FarCommandOfNothing", R"({"far_command":"flush"})", R"("attachment" is missing)"},
      {"FarCommandUnknownKey", R"({"far_command":"flush","attachment":1,"volume":"v"})",
       R"(unknown key "volume")"},
      {"FarCommandOfNoRange", R"({"far_command":"pin","attachment":1,"offset":0})",
       R"("length" is missing)"},
      {"FarCommandOfHalfAPage", R"({"far_command":"pin","attachment":1,"offset":0,"length":5})",
       "offset 0 and length 5 are no range of whole pages"},
      {"FarCommandBeyondAll",
       R"({"far_command":"pin","attachment":1,"offset":18446744073709547520,"length":4096})",
       "are no range of whole pages"},
      {"FarCheckpointUnnamed", R"({"far_command":"checkpoint","attachment":1})",
       "cannot be the name of a volume"},
      {"FarLeastAlone", Ours(R"(,"mode":"far","far":{"least":4096})"),
       R"(far: "least" needs a "helper")"},
      {"FarHelperOfNothing", Ours(R"(,"mode":"far","far":{"helper":{}})"),
       R"(far: helper: "command" is missing)"},
      {"FarHelperUnaligned",
       Ours(R"(,"mode":"far","far":{"helper":{"command":0,"start":1,"size":4096,)"
            R"("staging":0,"staging_size":0}})"),
       R"(far: helper: "start" and "size" are no range of whole pages)"},
      {"FarHelperAndMappings",
       Ours(R"(,"mode":"far","far":{"helper":{"command":0,"start":4096,"size":4096,)"
            R"("staging":4096,"staging_size":4096}})"),
       R"(a "helper" is for all anonymous memory of a process: there can be no mappings)"},
      {"MemfdOffsetAlone",
       R"({"volume":"vm","mappings":[)" + MappingText(R"(,"memfd_offset":0)") + "]}",
       R"("memfd_offset" needs a "memfd")"},
  };
}

std::string NameOfRefused(const testing::TestParamInfo<Refused>& refused) {
  return refused.param.name;
}

INSTANTIATE_TEST_SUITE_P(Texts, HandoverMessageRefuses, testing::ValuesIn(RefusedTexts()),
                         NameOfRefused);
INSTANTIATE_TEST_SUITE_P(FarMemory, HandoverMessageRefuses, testing::ValuesIn(RefusedFarMemory()),
                         NameOfRefused);
INSTANTIATE_TEST_SUITE_P(Requests, HandoverMessageRefuses, testing::ValuesIn(RefusedRequests()),
                         NameOfRefused);

TEST(HandoverMessage, FirecrackerFormsOfAllVersionsAreUnderstood) {
  for (const std::string more : {"", R"(,"page_size_kib":4096)", R"(,"page_size":4096)",
                                 R"(,"page_size":4096,"page_size_kib":4096)"}) {
    absl::StatusOr<HandoverRequest> request =
        ParseHandover(absl::StrCat("[", MappingText(more), "]"));
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_EQ(request->kind, Kind::kFirecracker);
    ASSERT_EQ(request->mappings.size(), 1u);
    EXPECT_EQ(request->mappings[0].address, 4096u);
    EXPECT_EQ(request->mappings[0].size, 8192u);
    EXPECT_EQ(request->mappings[0].offset, 12288u);
    EXPECT_FALSE(request->register_ranges);
    EXPECT_EQ(request->drain, std::nullopt);
  }
}

TEST(HandoverMessage, FirecrackerFormMayHaveFieldsOfVersionsToCome) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(absl::StrCat(
      "[", MappingText(R"(,"gpa_start":0,"is_guest_memfd":false,"x":{"y":[1.5,null]})"), "]"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->mappings.size(), 1u);
}

// page_size_kib is wrong in versions that send both; the newer key decides.
TEST(HandoverMessage, PageSizeGoesBeforePageSizeKib) {
  EXPECT_TRUE(
      ParseHandover("[" + MappingText(R"(,"page_size":4096,"page_size_kib":4)") + "]").ok());
}

TEST(HandoverMessage, OurFormKeepsWhatItSays) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(absl::StrCat(
      R"( {"volume":"vm-1.mem","mode":"lazy","register":true,"drain":false,"mappings":[)",
      MappingText(R"(,"memfd":1)"), ",", MappingText(R"(,"memfd":0)"), ",", MappingText(), "]} "));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->kind, Kind::kAttach);
  EXPECT_EQ(request->volume, "vm-1.mem");
  EXPECT_TRUE(request->register_ranges);
  EXPECT_EQ(request->drain, std::optional<bool>(false));
  EXPECT_EQ(request->mappings.size(), 3u);
  EXPECT_EQ(request->further_descriptors, 2u);
}

TEST(HandoverMessage, FarMemoryOfFilesNamesThem) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(absl::StrCat(
      R"({"volume":"vm","mode":"far","far":{"local_memory":1048576,"policy":"fifo","fresh":true},)",
      R"("mappings":[)", MappingText(R"(,"memfd":0,"memfd_offset":8192)"), "]}"));
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_TRUE(request->far.has_value());
  EXPECT_EQ(request->far->local_memory, 1048576u);
  EXPECT_EQ(request->far->policy, "fifo");
  EXPECT_TRUE(request->far->fresh);
  EXPECT_FALSE(request->far->helper.has_value());
  ASSERT_EQ(request->far->files.size(), 1u);
  EXPECT_EQ(request->far->files[0].memfd, 0u);
  EXPECT_EQ(request->far->files[0].mapping, 0u);
  EXPECT_EQ(request->far->files[0].offset, 8192u);
  EXPECT_EQ(ParseHandover(Ours(""))->far.has_value(), false);
}

TEST(HandoverMessage, FarMemoryMayHaveItsVolumeMade) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(absl::StrCat(
      R"({"volume":"v","mode":"far","far":{"create_volume":8192,"durability":"none"},)",
      R"("mappings":[)", MappingText(R"(,"memfd":0)"), "]}"));
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_TRUE(request->far->new_volume.has_value());
  EXPECT_EQ(request->far->new_volume->name, "v");
  EXPECT_EQ(request->far->new_volume->size_bytes, 8192u);
  EXPECT_EQ(request->far->new_volume->durability, "none");
  EXPECT_EQ(request->far->new_volume->snapshot, "");
}

TEST(HandoverMessage, CommandsToFarMemoryKeepWhatTheySay) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(
      R"({"far_command":"will_need","attachment":7,"offset":8192,"length":4096,"timeout_ms":50})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->kind, Kind::kFarCommand);
  EXPECT_EQ(request->attachment, 7u);
  EXPECT_EQ(request->command.kind, FarCommand::Kind::kWillNeed);
  EXPECT_EQ(request->command.pages.first, PageIndex(2));
  EXPECT_EQ(request->command.pages.count, PageCount(1));
  EXPECT_EQ(request->command_timeout, absl::Milliseconds(50));
  request = ParseHandover(R"({"far_command":"checkpoint","attachment":7,"snapshot":"noon"})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->command.kind, FarCommand::Kind::kCheckpoint);
  EXPECT_EQ(request->command.snapshot, "noon");
  EXPECT_EQ(request->command_timeout, absl::Seconds(60));
}

TEST(HandoverMessage, FarMemoryOfAWholeProcessNamesItsHelper) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(
      R"({"volume":"vm","mode":"far","register":true,"far":{"least":65536,"helper":)"
      R"({"command":0,"start":8192,"size":16384,"staging":12288,"staging_size":4096}}})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->mappings.empty());
  EXPECT_EQ(request->further_descriptors, 1u);
  ASSERT_TRUE(request->far->helper.has_value());
  EXPECT_EQ(request->far->helper->command, 0u);
  EXPECT_EQ(request->far->helper->memory, (AddressRange{8192, 16384}));
  EXPECT_EQ(request->far->helper->staging, (AddressRange{12288, 4096}));
  EXPECT_EQ(request->far->helper->least, 65536u);
  EXPECT_EQ(request->far->local_memory, std::nullopt);
}

TEST(HandoverMessage, SharedDiscardIsByAttachment) {
  EXPECT_EQ(ParseHandover(Ours(""))->shared_discard, std::nullopt);
  EXPECT_EQ(ParseHandover(Ours(R"(,"shared_discard":"zero")"))->shared_discard,
            SharedDiscard::kZero);
  EXPECT_EQ(ParseHandover(Ours(R"(,"shared_discard":"keep")"))->shared_discard,
            SharedDiscard::kKeep);
}

TEST(HandoverMessage, WhenAFaultEndsAndHowIsByAttachment) {
  EXPECT_EQ(ParseHandover(Ours(""))->fault_policy, std::nullopt);
  EXPECT_EQ(ParseHandover(Ours(""))->fault_deadline, std::nullopt);
  const auto request = ParseHandover(Ours(R"(,"fault_policy":"wait","fault_deadline_ms":2500)"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->fault_policy, FaultPolicy::kWait);
  EXPECT_EQ(request->fault_deadline, absl::Milliseconds(2500));
  EXPECT_LT(*ParseHandover(Ours(R"(,"fault_deadline_ms":18446744073709551615)"))->fault_deadline,
            absl::InfiniteDuration());
}

TEST(HandoverMessage, PidfdMayStandAnywhereAmongTheDescriptors) {
  EXPECT_EQ(ParseHandover(Ours(""))->pidfd, std::nullopt);
  absl::StatusOr<HandoverRequest> alone = ParseHandover(Ours(R"(,"pidfd":0)"));
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->pidfd, std::optional<size_t>(0));
  EXPECT_EQ(alone->further_descriptors, 1u);
  absl::StatusOr<HandoverRequest> between = ParseHandover(
      absl::StrCat(R"({"volume":"vm","pidfd":1,"mappings":[)", MappingText(R"(,"memfd":0)"), ",",
                   MappingText(R"(,"memfd":2)"), "]}"));
  ASSERT_TRUE(between.ok()) << between.status();
  EXPECT_EQ(between->pidfd, std::optional<size_t>(1));
  EXPECT_EQ(between->further_descriptors, 3u);
}

TEST(HandoverMessage, LargestNumbersAreKept) {
  absl::StatusOr<HandoverRequest> request = ParseHandover(
      R"([{"base_host_virt_addr":18446744073709551615,"size":0,"offset":9223372036854775808}])");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->mappings[0].address, UINT64_MAX);
  EXPECT_EQ(request->mappings[0].size, 0u);
  EXPECT_EQ(request->mappings[0].offset, uint64_t{1} << 63);
}

TEST(HandoverMessage, OtherRequestsAreTold) {
  EXPECT_EQ(ParseHandover(R"({"detach":true})")->kind, Kind::kDetach);
  EXPECT_EQ(ParseHandover(R"({"detach":true})")->attachment, std::nullopt);
  EXPECT_EQ(ParseHandover(R"({"detach":true,"attachment":7})")->attachment, 7u);
  EXPECT_EQ(ParseHandover(R"({"query":"attachments"})")->kind, Kind::kQueryAttachments);
  absl::StatusOr<HandoverRequest> volume = ParseHandover(R"({"query":"volume","volume":"vm"})");
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->kind, Kind::kQueryVolume);
  EXPECT_EQ(volume->volume, "vm");
}

TEST(HandoverMessage, RepliesAreLinesOfJson) {
  EXPECT_EQ(AttachedReply(7), "{\"attachment\":7,\"status\":\"ok\"}\n");
  EXPECT_EQ(DoneReply(), "{\"status\":\"ok\"}\n");
  EXPECT_EQ(VolumeReply(8192), "{\"size\":8192,\"status\":\"ok\"}\n");
  // Whatever bytes a message holds, the answer is JSON.
  EXPECT_EQ(ErrorReply("bad \"\xff\n"),
            "{\"message\":\"bad \\\"\\ufffd\\n\",\"status\":\"error\"}\n");
  EXPECT_EQ(AttachmentsReply({}), "{\"attachments\":[],\"status\":\"ok\"}\n");
}

TEST(HandoverMessage, AttachmentsReplyNamesEveryField) {
  AttachmentStats stats;
  stats.id = 3;
  stats.pid = 42;
  stats.volume = "vm";
  stats.tracked_pages = 100;
  stats.fault_p99_us = 12.5;
  const nlohmann::json reply = nlohmann::json::parse(AttachmentsReply({stats}));
  const nlohmann::json& one = reply["attachments"][0];
  EXPECT_EQ(one["id"], 3);
  EXPECT_EQ(one["pid"], 42);
  EXPECT_EQ(one["volume"], "vm");
  EXPECT_EQ(one["tracked_pages"], 100);
  EXPECT_EQ(one["fault_p99_us"], 12.5);
  size_t fields = 0;
  VisitFields(stats, [&](const char* name, const auto&) {
    ++fields;
    EXPECT_TRUE(one.contains(name)) << name;
  });
  EXPECT_EQ(one.size(), fields);
}

TEST(JsonTextSplitter, FindsTextsWhereverTheStreamIsCut) {
  const std::string first = R"({"a":"]}\"\\","b":[{},[1]]})";
  const std::string second = R"([{"x":"\\\"{"}])";
  const std::string stream = absl::StrCat(" ", first, second, "\n", first);
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    JsonTextSplitter splitter(1000);
    std::vector<std::string> texts;
    for (const std::string& part : {stream.substr(0, cut), stream.substr(cut)}) {
      splitter.Append(part.data(), part.size());
      std::string text;
      while (splitter.Next(&text) == JsonTextSplitter::Result::kText) texts.push_back(text);
    }
    EXPECT_EQ(texts, (std::vector<std::string>{first, second, first})) << "cut at " << cut;
    EXPECT_EQ(splitter.begun(), 0);
  }
}

TEST(JsonTextSplitter, TellsOfATextThatHasBegun) {
  JsonTextSplitter splitter(1000);
  std::string text;
  splitter.Append("\n[1,", 4);
  EXPECT_EQ(splitter.Next(&text), JsonTextSplitter::Result::kNeedMore);
  EXPECT_EQ(splitter.begun(), '[');
  EXPECT_EQ(splitter.begun_bytes(), 3u);
}

TEST(JsonTextSplitter, WhatIsNoObjectOrArrayEndsTheStream) {
  for (const std::string bad : {"x", "\"[]\"", "1", "]", "}", ","}) {
    JsonTextSplitter splitter(1000);
    const std::string stream = "{} " + bad;
    splitter.Append(stream.data(), stream.size());
    std::string text;
    EXPECT_EQ(splitter.Next(&text), JsonTextSplitter::Result::kText);
    EXPECT_EQ(splitter.Next(&text), JsonTextSplitter::Result::kNotJson) << bad;
  }
}

TEST(JsonTextSplitter, BoundsOneTextAndNotTheStream) {
  JsonTextSplitter splitter(4);
  std::string text;
  for (int i = 0; i < 3; ++i) {
    splitter.Append("[12]", 4);
    EXPECT_EQ(splitter.Next(&text), JsonTextSplitter::Result::kText);
    EXPECT_EQ(text, "[12]");
  }
  splitter.Append("[123]", 5);
  EXPECT_EQ(splitter.Next(&text), JsonTextSplitter::Result::kTooLong);
}

}  // namespace
}  // namespace faultline
