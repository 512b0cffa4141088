// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_INJECTOR_H_
#define FAULTLINE_CLIENT_SOURCE_INJECTOR_H_

#include <memory>

#include "client/source/injection.h"
#include "client/source/page_sink.h"
#include "client/timers.h"

namespace faultline {

// Puts an Injection in front of sources and sinks. All that one Injector is put around share its
// link. Thread-safe.
//
// A request that has to wait is passed on by a thread of the timers, some 20 us late. Where it has
// to wait for less than that, the caller's thread waits, awake. One whose deadline comes before its
// turn ends with DEADLINE_EXCEEDED then, and is not passed on.
//
// The link takes one request after the other, in the order in which they come, as if its pages were
// sent ahead of it; but a fetch that a thread waits for stands behind its like only, as on a link
// that connections share fairly. The seed and the order of the requests tell what each of them
// draws.
class Injector {
 public:
  // `timers` are borrowed and outlive the last request.
  Injector(const Injection& injection, Timers* timers);
  ~Injector();

  // What is returned may outlive the Injector.
  std::shared_ptr<PageSource> Around(std::shared_ptr<PageSource> inner) const;
  std::shared_ptr<PageSink> Around(std::shared_ptr<PageSink> inner) const;
  VolumeIo Around(VolumeIo inner) const;

 private:
  class Way;
  class Source;
  class Sink;

  const std::shared_ptr<Way> way_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_INJECTOR_H_
