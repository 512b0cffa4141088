// SPDX-License-Identifier: Apache-2.0
#include "client/workload/page_pattern.h"

#include <cinttypes>
#include <cstdio>

namespace faultline::workload {

std::string PagePattern::Describe(uint64_t page, uint64_t version, uint64_t index,
                                  uint64_t found) const {
  std::string text = DescribeWord(page * kWordsPerPage + index, found, Word(page, version, index)) +
                     " (written " + std::to_string(version) + " times)";
  const uint64_t belongs = churn::Unmix(found) ^ key_;
  const uint64_t of_page = belongs >> 9 & (kMaxPages - 1), of_version = belongs >> 40,
                 of_index = belongs % kWordsPerPage;
  if (found == 0) {
    text += "; zeros: the page was lost";
  } else if (of_page == page && of_index == index && of_version < version) {
    text += "; that is what it was after write " + std::to_string(of_version) +
            ": an older copy of the page";
  } else if (of_page == page && of_index == index && of_version == version + 1) {
    text += "; that is what the next write puts there";
  } else if (of_page != page && of_index == index && of_version <= version) {
    text += "; that belongs to page " + std::to_string(of_page);
  }
  return text;
}

std::string DescribeWord(uint64_t word_index, uint64_t found, uint64_t expected) {
  char text[192];
  snprintf(text, sizeof text,
           "page %" PRIu64 " of the memory, its byte %" PRIu64 " (byte %" PRIu64
           " of all): found 0x%016" PRIx64 ", expected 0x%016" PRIx64,
           word_index / kWordsPerPage, word_index % kWordsPerPage * sizeof(uint64_t),
           word_index * sizeof(uint64_t), found, expected);
  return text;
}

}  // namespace faultline::workload
