// SPDX-License-Identifier: Apache-2.0
//
// The cluster that the tests of rados: run on: made by deploy/rados-cluster, in the directory that
// FAULTLINE_RADOS names. ctest starts and stops it; by hand:
//
//   deploy/rados-cluster start /tmp/rados
//   FAULTLINE_RADOS=/tmp/rados rados_test
#ifndef FAULTLINE_STORAGE_RADOS_TESTING_H_
#define FAULTLINE_STORAGE_RADOS_TESTING_H_

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "storage/page_store.h"
#include "storage/storage_testing.h"

namespace faultline {

inline std::string FromEnvironment(const char* name) {
  const char* const value = getenv(name);
  if (value == nullptr) {
    fprintf(stderr, "%s is not set; see rados_testing.h\n", name);
    exit(1);
  }
  return value;
}

inline PageStoreOptions RadosOptions() {
  PageStoreOptions options;
  options.rados_conf = FromEnvironment("FAULTLINE_RADOS") + "/ceph.conf";
  return options;
}

// A namespace that no other test has.
inline std::string NewLocation() {
  static int number = 0;
  return absl::StrCat("rados:pages/", getpid(), ".", ++number);
}

inline std::unique_ptr<PageStore> OpenRados(const std::string& location) {
  auto store = OpenPageStore(location, RadosOptions());
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

// The layer of the one volume that a test has, where it has no catalog.
inline constexpr LayerId kLayer(1);
inline absl::Status Own(PageStore& store) {
  const LayerId layers[] = {kLayer};
  return store.Own(/*volume=*/7, layers);
}

// deploy/rados-cluster COMMAND DIR ARGUMENTS
inline void Cluster(const std::string& command, const std::string& arguments = "") {
  const std::string line =
      absl::StrCat(RADOS_CLUSTER_SCRIPT " ", command, " ", FromEnvironment("FAULTLINE_RADOS"), " ",
                   arguments, " </dev/null");
  ASSERT_EQ(system(line.c_str()), 0) << line;
}

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_TESTING_H_
