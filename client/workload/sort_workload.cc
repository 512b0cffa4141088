// SPDX-License-Identifier: Apache-2.0
//
// sort: random keys of eight bytes, by std::sort. They are a bijection of 0, 1, 2, ..., so that
// ascending keys, each of which is one of those that were there, are all of them.
#include <algorithm>
#include <bit>
#include <functional>

#include "client/workload/work_context.h"

namespace faultline::workload {
namespace {

class SortWorkload final : public Workload {
 public:
  explicit SortWorkload(WorkContext* context)
      : context_(*context), keys_(context->memory().size() / sizeof(uint64_t)) {}

  uint64_t Rounds() const override { return *context_.options().passes; }
  void Prepare(uint64_t round) override;
  uint64_t Work() override;
  uint64_t Verify() override;
  std::span<std::byte> Content() const override { return context_.memory(); }

 private:
  uint64_t* PartBegin(unsigned thread) const {
    return context_.words() + context_.ShareBegin(keys_, thread);
  }
  // Puts the keys of the threads [first, last) where each of these will sort its own.
  template <typename Less>
  void Divide(unsigned first, unsigned last, Less less) const;

  WorkContext& context_;
  const uint64_t keys_;
  uint64_t salt_ = 0;
};

void SortWorkload::Prepare(uint64_t round) {
  salt_ = churn::Random({context_.options().seed, round}).Next();
  for (uint64_t i = 0; i < keys_; ++i) {
    uint64_t* key = context_.words() + i;
    if (i % kWordsPerPage == 0) context_.NoteAccess(0, key, AccessKind::kWrite);
    *key = churn::Mix(i + salt_);
  }
}

// In place, so that it needs no further memory: the keys of each part come before those of the
// next.
template <typename Less>
void SortWorkload::Divide(unsigned first, unsigned last, Less less) const {
  if (last - first < 2) return;
  const unsigned middle = first + (last - first) / 2;
  std::nth_element(PartBegin(first), PartBegin(middle), PartBegin(last), less);
  Divide(first, middle, less);
  Divide(middle, last, less);
}

uint64_t SortWorkload::Work() {
  if (context_.hooks().accesses == nullptr) {
    Divide(0, context_.options().threads, std::less<>());
    context_.RunThreads(
        [this](unsigned thread) { std::sort(PartBegin(thread), PartBegin(thread + 1)); });
    return keys_;
  }
  // Which keys are compared; some are outside of the memory meanwhile.
  const auto noting = [this](unsigned thread) {
    return [this, thread](const uint64_t& a, const uint64_t& b) {
      for (const uint64_t* key : {&a, &b}) {
        if (key >= PartBegin(0) && key < PartBegin(0) + keys_) {
          context_.NoteAccess(thread, key, AccessKind::kWrite);
        }
      }
      return a < b;
    };
  };
  Divide(0, context_.options().threads, noting(0));
  context_.RunThreads([&](unsigned thread) {
    std::sort(PartBegin(thread), PartBegin(thread + 1), noting(thread));
  });
  return keys_;
}

uint64_t SortWorkload::Verify() {
  uint64_t checksum = 0, found = 0, expected = 0;
  for (uint64_t i = 0; i < keys_; ++i) {
    const uint64_t key = context_.words()[i];
    const uint64_t before = i == 0 ? 0 : context_.words()[i - 1];
    const bool known = churn::Unmix(key) - salt_ < keys_;
    if (!known || (i > 0 && key <= before)) {
      context_.ReportWrong(DescribeWord(i, key, before) + " or more, " +
                           (known ? "by the key before it" : "and one that was there at first"));
      return 0;
    }
    found += key;
    expected += churn::Mix(i + salt_);
    checksum = std::rotl(checksum, 7) + key;
  }
  if (found != expected) context_.ReportWrong("keys are in order, but not those that were there");
  return checksum;
}

}  // namespace

std::unique_ptr<Workload> MakeSortWorkload(WorkContext* context) {
  return std::make_unique<SortWorkload>(context);
}

}  // namespace faultline::workload
