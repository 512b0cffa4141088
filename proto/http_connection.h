// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_HTTP_CONNECTION_H_
#define FAULTLINE_PROTO_HTTP_CONNECTION_H_

#include <httplib.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <string>

namespace faultline {

// One connection of an HTTP server: one request, of a bounded size, and its answer, within a time
// that is bounded as a whole, the request's the most, since who says nothing costs nothing to be
// and is in the way of who asks. (The library's own bounds each read and write, of which somebody
// who sends a byte now and then needs thousands.) Ends at once when the server is to end.
class HttpConnection final : public httplib::Stream {
 public:
  static constexpr size_t kMostRequestBytes = 16384;
  static constexpr auto kMostRequestTime = std::chrono::milliseconds(500);
  static constexpr auto kMostTime = std::chrono::seconds(5);

  // Neither descriptor is owned; `stop` is readable once the server is to end.
  HttpConnection(int fd, int stop) : fd_(fd), stop_(stop) {}

  bool is_readable() const override { return begin_ < end_ || Wait(POLLIN); }
  bool is_writable() const override { return Wait(POLLOUT); }

  ssize_t read(char* bytes, size_t size) override {
    if (begin_ == end_) {
      const size_t room = std::min(buffer_.size(), kMostRequestBytes - total_);
      if (room == 0 || !Wait(POLLIN)) return -1;
      const ssize_t n = recv(fd_, buffer_.data(), room, 0);
      if (n <= 0) return n;
      begin_ = 0;
      end_ = static_cast<size_t>(n);
      total_ += end_;
    }
    const size_t n = std::min(size, end_ - begin_);
    std::copy_n(buffer_.data() + begin_, n, bytes);
    begin_ += n;
    return static_cast<ssize_t>(n);
  }

  ssize_t write(const char* bytes, size_t size) override {
    if (!Wait(POLLOUT)) return -1;
    return send(fd_, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  // Nobody asks who it is.
  void get_remote_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  void get_local_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  // The library refuses those that select() could not take; it is not used for anything else.
  socket_t socket() const override { return 0; }

 private:
  using Clock = std::chrono::steady_clock;

  bool Wait(short events) const {
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(
          begun_ + (events == POLLIN ? Clock::duration(kMostRequestTime) : kMostTime) -
          Clock::now());
      if (left.count() <= 0) return false;
      std::array<pollfd, 2> polled = {pollfd{fd_, events, 0}, pollfd{stop_, POLLIN, 0}};
      const int ready = poll(polled.data(), polled.size(), static_cast<int>(left.count()));
      if (ready < 0 && errno == EINTR) continue;
      return ready > 0 && polled[1].revents == 0;
    }
  }

  const int fd_, stop_;
  const Clock::time_point begun_ = Clock::now();
  std::array<char, 4096> buffer_;
  size_t begin_ = 0, end_ = 0;  // of what is in the buffer and was not read
  size_t total_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_HTTP_CONNECTION_H_
