// SPDX-License-Identifier: Apache-2.0
//
// sequential, stride and pointer-chase: every page in turn, lap after lap. They differ in the order
// and in how much of a page a visit takes: all of it, or one cache line.
//
// How often a page has been written after so many visits is a formula, not a record: each visit
// adds the share of writes to a number that starts between 0 and 1 for each page, and is a write
// where that passes a whole number. So the version that a visit must find is known without having
// kept it.
#include <algorithm>
#include <bit>

#include "client/workload/permutation.h"
#include "client/workload/work_context.h"

namespace faultline::workload {
namespace {

constexpr uint64_t kLineWords = 8;  // of a cache line

enum class Order { kSequential, kStride, kChase };

Order OrderOf(const std::string& name) {
  if (name == "stride") return Order::kStride;
  return name == "sequential" ? Order::kSequential : Order::kChase;
}

class LapWorkload final : public Workload {
 public:
  explicit LapWorkload(WorkContext* context)
      : context_(*context),
        order_(OrderOf(context->options().name)),
        pages_(context->pages()),
        stride_(context->options().stride_pages.value_or(1)),
        write_share_(static_cast<uint64_t>(*context->options().write_share * kOne)),
        visits_(context->options().operations.value_or(0)),
        seed_(context->options().seed),
        pattern_(seed_),
        chain_(pages_, seed_) {
    if (context->options().passes) visits_ = *context->options().passes * pages_;
  }

  void Prepare(uint64_t round) override;
  uint64_t Work() override;
  uint64_t Verify() override;
  std::span<std::byte> Content() const override { return context_.memory(); }

 private:
  static constexpr uint64_t kOne = uint64_t{1} << 32;

  // The place of a page in a lap, and back. A chain is walked by its links alone.
  uint64_t PageAt(uint64_t position) const;
  uint64_t PositionOf(uint64_t page) const;

  uint64_t FirstWord(uint64_t page) const {
    return order_ == Order::kSequential ? 0
                                        : Hash(page, 1) % (kWordsPerPage / kLineWords) * kLineWords;
  }
  uint64_t VisitedWords() const {
    return order_ == Order::kSequential ? kWordsPerPage : kLineWords;
  }
  uint64_t Version(uint64_t page, uint64_t visits) const {
    return ((Hash(page, 2) >> 32) + visits * write_share_) / kOne;
  }
  uint64_t Hash(uint64_t page, uint64_t purpose) const {
    return churn::Mix(page + churn::Mix(seed_ + purpose));
  }
  // A link is the first word of its line, on top of what would be there otherwise.
  uint64_t FirstLinked() const { return order_ == Order::kChase ? 1 : 0; }
  uint64_t Next(uint64_t page) const { return chain_.At((chain_.IndexOf(page) + 1) % pages_); }

  void WalkShare(unsigned thread);
  // `page` at `position` for the `lap`th time; which page is next.
  uint64_t Visit(unsigned thread, uint64_t lap, uint64_t position, uint64_t page);
  // False where a word is wrong, which is reported.
  bool CheckWords(uint64_t page, uint64_t version, uint64_t first, uint64_t count, uint64_t* sum);

  WorkContext& context_;
  const Order order_;
  const uint64_t pages_, stride_, write_share_;
  uint64_t visits_;
  const uint64_t seed_;
  const PagePattern pattern_;
  const Permutation chain_;
};

uint64_t LapWorkload::PageAt(uint64_t position) const {
  if (order_ == Order::kChase) return chain_.At(position % pages_);
  if (order_ == Order::kSequential) return position % pages_;
  // The first `longer` of the passes over the memory have one page more than the others.
  position %= pages_;
  const uint64_t shorter = pages_ / stride_, longer = pages_ % stride_;
  const uint64_t in_longer = longer * (shorter + 1);
  if (position < in_longer) {
    return position / (shorter + 1) + position % (shorter + 1) * stride_;
  }
  position -= in_longer;
  return longer + position / shorter + position % shorter * stride_;
}

uint64_t LapWorkload::PositionOf(uint64_t page) const {
  if (order_ == Order::kChase) return chain_.IndexOf(page);
  if (order_ == Order::kSequential) return page;
  const uint64_t start = page % stride_;
  return start * (pages_ / stride_) + std::min(start, pages_ % stride_) + page / stride_;
}

void LapWorkload::Prepare(uint64_t) {
  for (uint64_t page = 0; page < pages_; ++page) {
    context_.NoteAccess(0, page, AccessKind::kWrite);
    pattern_.Write(page, 0, 0, kWordsPerPage, context_.page(page));
    if (order_ == Order::kChase) context_.page(page)[FirstWord(page)] ^= Next(page);
  }
}

uint64_t LapWorkload::Work() {
  context_.RunThreads([this](unsigned thread) { WalkShare(thread); });
  return visits_;
}

// Round and round the thread's own part of the lap, so that no page has two threads.
void LapWorkload::WalkShare(unsigned thread) {
  const uint64_t begin = context_.ShareBegin(pages_, thread);
  const uint64_t end = context_.ShareBegin(pages_, thread + 1);
  const uint64_t laps = visits_ / pages_, rest = visits_ % pages_;
  OperationTimer timer(&context_, thread);
  for (uint64_t lap = 0; lap <= laps; ++lap) {
    const uint64_t lap_end = lap < laps ? end : std::min(end, rest);
    uint64_t page = PageAt(begin);
    for (uint64_t position = begin; position < lap_end; ++position) {
      page = timer.Time([&] { return Visit(thread, lap, position, page); });
      if (context_.wrong()) return;
    }
  }
}

uint64_t LapWorkload::Visit(unsigned thread, uint64_t lap, uint64_t position, uint64_t page) {
  const uint64_t before = Version(page, lap), after = Version(page, lap + 1);
  context_.NoteAccess(thread, page, after == before ? AccessKind::kRead : AccessKind::kWrite);
  uint64_t* words = context_.page(page);
  const uint64_t first = FirstWord(page), linked = FirstLinked();
  uint64_t next = PageAt(position + 1), sum = 0;
  if (order_ == Order::kChase) {
    const uint64_t link = words[first];
    const uint64_t found = link ^ pattern_.Word(page, before, first);
    if (found != next) {
      // As if the link were right: what is left tells which version it is of.
      context_.ReportWrong(pattern_.Describe(page, before, first, link ^ next));
      return page;
    }
    next = found;
  }
  if (!CheckWords(page, before, first + linked, VisitedWords() - linked, &sum)) return page;
  if (after != before) {
    pattern_.Write(page, after, first, VisitedWords(), words);
    if (linked > 0) words[first] ^= next;
  }
  return next;
}

bool LapWorkload::CheckWords(uint64_t page, uint64_t version, uint64_t first, uint64_t count,
                             uint64_t* sum) {
  const uint64_t* words = context_.page(page);
  const uint64_t wrong = pattern_.Check(page, version, first, count, words, sum);
  if (wrong == first + count) return true;
  context_.ReportWrong(pattern_.Describe(page, version, wrong, words[wrong]));
  return false;
}

uint64_t LapWorkload::Verify() {
  const uint64_t laps = visits_ / pages_, rest = visits_ % pages_;
  uint64_t checksum = 0;
  for (uint64_t page = 0; page < pages_; ++page) {
    const uint64_t version = Version(page, laps + (PositionOf(page) < rest ? 1 : 0));
    const uint64_t first = FirstWord(page), end = first + VisitedWords();
    uint64_t sum = 0;
    if (!CheckWords(page, 0, 0, first, &sum)) return 0;
    if (order_ == Order::kChase) {
      const uint64_t link = context_.page(page)[first] ^ Next(page);
      if (link != pattern_.Word(page, version, first)) {
        context_.ReportWrong(pattern_.Describe(page, version, first, link));
        return 0;
      }
      sum += link;
    }
    const uint64_t checked = first + FirstLinked();
    if (!CheckWords(page, version, checked, end - checked, &sum)) return 0;
    if (!CheckWords(page, 0, end, kWordsPerPage - end, &sum)) return 0;
    checksum = std::rotl(checksum, 7) + sum;
  }
  return checksum;
}

}  // namespace

std::unique_ptr<Workload> MakeLapWorkload(WorkContext* context) {
  return std::make_unique<LapWorkload>(context);
}

}  // namespace faultline::workload
