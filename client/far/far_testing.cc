// SPDX-License-Identifier: Apache-2.0
#include "client/far/far_testing.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace faultline {

FarProcess::FarProcess(size_t pages, const std::string& option) {
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const std::string count = std::to_string(pages);
  pid_ = fork();
  if (pid_ == 0) {
    dup2(ends[1], 3);  // ends[1] is another, since ends[0] is lower
    execl(FAULTLINE_FAR_TARGET, "far_target", count.c_str(), option.c_str(), nullptr);
    _exit(127);
  }
  socket_.reset(ends[0]);
  close(ends[1]);
  ReceiveHello();
}

FarProcess::~FarProcess() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void FarProcess::ReceiveHello() {
  iovec part{&hello_, sizeof hello_};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ASSERT_EQ(recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC), ssize_t{sizeof hello_})
      << "far_target has not begun; it says why on the standard error";
  int descriptors[2];
  memcpy(descriptors, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptors);
  uffd_.reset(descriptors[0]);
  command_.reset(descriptors[1]);
}

UniqueFd FarProcess::OpenPidfd() const {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
}

UniqueFd FarProcess::DuplicateCommand() const {
  return UniqueFd(fcntl(command_.get(), F_DUPFD_CLOEXEC, 0));
}

void FarProcess::Tell(const std::string& verb, size_t first, size_t count) {
  const std::string text = absl::StrCat(verb, " ", first, " ", count);
  EXPECT_EQ(send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL), ssize_t(text.size()));
}

std::string FarProcess::Answer() {
  pollfd readable{socket_.get(), POLLIN, 0};
  if (poll(&readable, 1, 60'000) != 1) return "TIMEOUT";
  char packet[512];
  const ssize_t n = recv(socket_.get(), packet, sizeof packet, 0);
  return n <= 0 ? "GONE" : std::string(packet, static_cast<size_t>(n));
}

std::string FarProcess::Do(const std::string& verb, size_t first, size_t count) {
  Tell(verb, first, count);
  return Answer();
}

size_t FarProcess::PagesPresent(uint64_t start, size_t pages) const {
  const UniqueFd map(open(absl::StrCat("/proc/", pid_, "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<uint64_t> entries(pages);
  const size_t bytes = pages * sizeof(uint64_t);
  EXPECT_EQ(pread(map.get(), entries.data(), bytes, static_cast<off_t>(start / kPageSize * 8)),
            ssize_t(bytes));
  return std::count_if(entries.begin(), entries.end(), [](uint64_t e) { return e >> 62 != 0; });
}

FarAgent::FarAgent(FarProcess* process) : hello_(process->hello()) {
  absl::StatusOr<std::unique_ptr<Uffd>> uffd = AdoptUffd(process->TakeUffd());
  EXPECT_TRUE(uffd.ok()) << uffd.status();
  const Mapping mapping{hello_.memory_start, hello_.memory_bytes, 0, /*shared=*/false};
  parent_ = std::make_unique<Served>(*std::move(uffd), std::vector<Mapping>{mapping});
  ReplaceExtractor(process);
  reader_ = std::thread([this] { Run(); });
}

FarAgent::~FarAgent() {
  stop_ = true;
  reader_.join();
}

void FarAgent::ReplaceExtractor(FarProcess* process) {
  extractor_.reset();
  auto opened = HelperExtractor::Open(
      {process->DuplicateCommand(), process->OpenPidfd(), parent_->uffd.get()});
  ASSERT_TRUE(opened.ok()) << opened.status();
  extractor_ = *std::move(opened);
}

FarAgent::Taken FarAgent::Take(const std::vector<uint64_t>& addresses) {
  Served& served = *parent_;
  SharedLock lock(served.space.map_changing_lock());
  std::vector<uint64_t> asked;
  std::vector<PageIndex> pages;
  {
    MutexLock kept(served.mu);
    for (const uint64_t address : addresses) {
      const std::optional<PageIndex> page = served.space.PageAt(address);
      if (!page.has_value() || served.discarded.contains(*page)) continue;
      asked.push_back(address);
      pages.push_back(*page);
      served.leaving.insert(*page);
    }
  }
  Taken taken;
  taken.outcomes.resize(asked.size());
  std::vector<std::byte> bytes(asked.size() * kPageSize);
  taken.status = extractor_->Extract(asked, taken.outcomes, bytes.data());
  MutexLock kept(served.mu);
  for (size_t i = 0; i < asked.size(); ++i) {
    if (taken.outcomes[i] != Extraction::kTaken) continue;
    auto page = std::make_shared<Page>();
    memcpy(page->data(), bytes.data() + i * kPageSize, kPageSize);
    served.kept[pages[i]] = std::move(page);
  }
  served.leaving.clear();
  return taken;
}

FarAgent::Taken FarAgent::TakePages(size_t first, size_t pages) {
  std::vector<uint64_t> addresses;
  for (size_t i = first; i < first + pages; ++i) {
    addresses.push_back(hello_.memory_start + i * kPageSize);
  }
  return Take(addresses);
}

FarAgent::Taken FarAgent::TakeAny(size_t count, unsigned random) {
  std::vector<uint64_t> all;
  {
    SharedLock lock(parent_->space.map_changing_lock());
    for (const AddressRange& range : parent_->space.Ranges()) {
      for (uint64_t a = range.start; a < range.end(); a += kPageSize) all.push_back(a);
    }
  }
  // The addresses may be out of date when they are used, as those of an agent with no lock held.
  const size_t step = random % 2 == 0 ? 1 : 1 + random / 2 % 5;
  const size_t first = all.empty() ? 0 : random / 16 % all.size();
  std::vector<uint64_t> some;
  for (size_t i = first; i < all.size() && some.size() < count; i += step) some.push_back(all[i]);
  return Take(some);
}

void FarAgent::Hold() {
  ExclusiveLock lock(map_changing_lock());
  held_ = true;
}

void FarAgent::Release() { held_ = false; }

void FarAgent::Run() {
  while (!stop_) {
    std::vector<Served*> all = {parent_.get()};
    for (const auto& child : children_) all.push_back(child.get());
    std::vector<pollfd> readable;
    bool waiting = false;
    for (const Served* served : all) {
      readable.push_back({served->uffd->fd(), POLLIN, 0});
      waiting = waiting || !served->waiting.empty();
    }
    poll(readable.data(), readable.size(), waiting ? 0 : 20);
    for (Served* served : all) Read(served);
    children_.remove_if([](const auto& c) { return c->uffd->Probe() == SpaceState::kGone; });
  }
}

void FarAgent::Read(Served* served) {
  std::vector<UffdEvent> events;
  {
    ExclusiveLock lock(served->space.map_changing_lock());
    if (held_) return;
    served->space.Settle();
    const absl::StatusOr<size_t> read = served->uffd->Read(&events);
    EXPECT_TRUE(read.ok()) << read.status();
    for (UffdEvent& event : events) Apply(served, &event);
  }
  std::vector<FaultEvent> again;
  for (const FaultEvent& fault : served->waiting) {
    if (!Fill(served, fault)) again.push_back(fault);
  }
  served->waiting = std::move(again);
}

void FarAgent::Apply(Served* served, UffdEvent* event) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (const auto* fault = std::get_if<FaultEvent>(event)) {
    served->waiting.push_back(*fault);
  } else if (const auto* remap = std::get_if<RemapEvent>(event)) {
    served->space.Remap(remap->from, remap->to, remap->length);
    served->uffd->Wake({remap->from, remap->length});
  } else if (const auto* unmap = std::get_if<UnmapEvent>(event)) {
    served->space.Unmap(unmap->range,
                        [](AddressRange range) { return std::vector<AddressRange>{range}; });
    served->uffd->Wake(unmap->range);
  } else if (const auto* remove = std::get_if<RemoveEvent>(event)) {
    MutexLock kept(served->mu);
    served->space.ForEachPart(
        remove->range, [served](const AddressSpace::Part& part) ABSL_NO_THREAD_SAFETY_ANALYSIS {
          for (PageIndex page = part.first; page < part.pages().end(); ++page) {
            served->kept.erase(page);
            served->discarded.insert(page);
          }
        });
  } else {
    AddChild(served, std::move(std::get<ForkEvent>(*event).uffd));
  }
}

void FarAgent::AddChild(Served* parent, UniqueFd uffd) {
  auto child = std::make_unique<Served>(*AdoptForkedUffd(std::move(uffd), parent->uffd->features()),
                                        parent->space);
  MutexLock mine(child->mu);
  MutexLock theirs(parent->mu);
  child->kept = parent->kept;
  children_.push_back(std::move(child));
}

bool FarAgent::Fill(Served* served, const FaultEvent& fault) {
  SharedLock lock(served->space.map_changing_lock());
  MutexLock kept(served->mu);
  const std::optional<PageIndex> page = served->space.PageAt(fault.address);
  if (page.has_value() && served->leaving.contains(*page)) return false;
  const auto found = page.has_value() ? served->kept.find(*page) : served->kept.end();
  const FillResult result = found == served->kept.end()
                                ? served->uffd->Zero({fault.address, kPageSize})
                                : served->uffd->Copy(fault.address, *found->second);
  if (result.error == EAGAIN) return false;
  served->space.NoteSettled();
  if (result.error == 0 && page.has_value()) served->discarded.erase(*page);
  if (result.error == 0 && found != served->kept.end()) served->kept.erase(found);
  if (result.error != 0) served->uffd->Wake({fault.address, kPageSize});
  return true;
}

}  // namespace faultline
