// SPDX-License-Identifier: Apache-2.0
//
// For tests: what RADOS itself has.
#ifndef FAULTLINE_STORAGE_RADOS_OBJECTS_H_
#define FAULTLINE_STORAGE_RADOS_OBJECTS_H_

#include <absl/strings/strip.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "storage/rados_testing.h"

#include <rados/librados.hpp>

namespace faultline {

// The names of all objects in the namespace of `location`.
inline std::set<std::string> ObjectsOf(absl::string_view location) {
  absl::ConsumePrefix(&location, "rados:pages/");
  librados::Rados cluster;
  librados::IoCtx io;
  std::set<std::string> objects;
  EXPECT_EQ(cluster.init("admin"), 0);
  EXPECT_EQ(cluster.conf_read_file(RadosOptions().rados_conf.c_str()), 0);
  EXPECT_EQ(cluster.connect(), 0);
  EXPECT_EQ(cluster.ioctx_create("pages", io), 0);
  io.set_namespace(std::string(location));
  for (auto object = io.nobjects_begin(); object != io.nobjects_end(); ++object) {
    objects.insert(object->get_oid());
  }
  return objects;
}

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_OBJECTS_H_
