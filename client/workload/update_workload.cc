// SPDX-License-Identifier: Apache-2.0
//
// zipf and gups: random words of the memory are read and updated. zipf has one such word in each
// page, and a few pages that are wanted most of the time; gups takes any word, and updates them all
// alike (the random-access benchmark of HPC Challenge, with sums that commute in place of its XOR,
// so that the number of updates can be read off).
#include <bit>
#include <optional>

#include "client/bench/touch_order.h"
#include "client/workload/counter.h"
#include "client/workload/permutation.h"
#include "client/workload/update_stream.h"
#include "client/workload/work_context.h"

namespace faultline::workload {
namespace {

using Multiplied = unsigned __int128;

class UpdateWorkload final : public Workload {
 public:
  explicit UpdateWorkload(WorkContext* context)
      : context_(*context),
        seed_(context->options().seed),
        pattern_(seed_),
        place_(context->pages(), seed_) {
    if (context->options().name == "zipf") zipf_.emplace(context->pages(), bench::kZipfExponent);
    stream_.emplace(*context->options().operations, seed_,
                    context->options().write_share.value_or(1),
                    [this](uint64_t bits) { return Choose(bits); });
  }

  void Prepare(uint64_t round) override;
  uint64_t Work() override;
  uint64_t Verify() override;
  std::span<std::byte> Content() const override { return context_.memory(); }

 private:
  // Targets are the pages of zipf and the words of gups.
  uint64_t Targets() const { return zipf_ ? context_.pages() : context_.pages() * kWordsPerPage; }
  uint64_t Choose(uint64_t bits) const {
    if (zipf_) return place_.At((*zipf_)(static_cast<double>(bits >> 11) * 0x1p-53));
    return static_cast<uint64_t>(Multiplied{bits} * Targets() >> 64);
  }
  uint64_t WordOf(uint64_t target) const {
    return zipf_ ? target * kWordsPerPage + churn::Mix(target + seed_) % kWordsPerPage : target;
  }
  Counter CounterAt(uint64_t word) const {
    return {context_.words() + word, pattern_.Word(word / kWordsPerPage, 0, word % kWordsPerPage)};
  }
  // What is no counter: of zipf's page, the words before and after it.
  bool CheckRest(uint64_t page, uint64_t first, uint64_t end, uint64_t* sum);
  void Locate();

  WorkContext& context_;
  const uint64_t seed_;
  const PagePattern pattern_;
  const Permutation place_;
  std::optional<bench::ZipfDistribution> zipf_;
  std::optional<UpdateStream> stream_;
};

void UpdateWorkload::Prepare(uint64_t) {
  for (uint64_t page = 0; page < context_.pages(); ++page) {
    context_.NoteAccess(0, page, AccessKind::kWrite);
    pattern_.Write(page, 0, 0, kWordsPerPage, context_.page(page));
  }
}

uint64_t UpdateWorkload::Work() {
  const uint64_t operations = stream_->operations();
  context_.RunThreads([&](unsigned thread) {
    OperationTimer timer(&context_, thread);
    const uint64_t end = context_.ShareBegin(operations, thread + 1);
    for (uint64_t i = context_.ShareBegin(operations, thread); i < end; ++i) {
      const Access access = stream_->At(i);
      const uint64_t word = WordOf(access.target);
      context_.NoteAccess(thread, word / kWordsPerPage,
                          access.updates ? AccessKind::kWrite : AccessKind::kRead);
      Counter counter = CounterAt(word);
      const uint64_t found = timer.Time([&] {
        const uint64_t count = counter.Count();
        if (access.updates) counter.Update();
        return count;
      });
      if (found > operations) context_.ReportWrong(counter.DescribeImpossible(word));
      if (context_.wrong()) return;
    }
  });
  return operations;
}

bool UpdateWorkload::CheckRest(uint64_t page, uint64_t first, uint64_t end, uint64_t* sum) {
  const uint64_t* words = context_.page(page);
  const uint64_t wrong = pattern_.Check(page, 0, first, end - first, words, sum);
  if (wrong == end) return true;
  context_.ReportWrong(pattern_.Describe(page, 0, wrong, words[wrong]));
  return false;
}

uint64_t UpdateWorkload::Verify() {
  uint64_t checksum = 0, weight = 0;
  for (uint64_t target = 0; target < Targets(); ++target) {
    const uint64_t word = WordOf(target);
    const uint64_t count = CounterAt(word).Count();
    uint64_t sum = context_.words()[word];
    if (zipf_) {
      const uint64_t index = word % kWordsPerPage;
      if (!CheckRest(target, 0, index, &sum)) return 0;
      if (!CheckRest(target, index + 1, kWordsPerPage, &sum)) return 0;
    }
    weight += count * UpdateStream::Weight(target);
    checksum = std::rotl(checksum, 7) + sum;
  }
  if (weight != stream_->WeightOfUpdates()) Locate();
  return checksum;
}

void UpdateWorkload::Locate() {
  stream_->CountUpdates(Targets(), [this](uint64_t target, uint64_t expected) {
    const Counter counter = CounterAt(WordOf(target));
    if (counter.Count() == expected) return true;
    context_.ReportWrong(counter.Describe(WordOf(target), expected));
    return false;
  });
}

}  // namespace

std::unique_ptr<Workload> MakeUpdateWorkload(WorkContext* context) {
  return std::make_unique<UpdateWorkload>(context);
}

}  // namespace faultline::workload
