// SPDX-License-Identifier: Apache-2.0
//
// CallQueue: what waits for its turn, first come first served, in one piece of memory that is kept.
// A std::deque takes and gives back a block every few elements, even where never more than one is
// waiting.
#ifndef FAULTLINE_CLIENT_REMOTE_CALL_QUEUE_H_
#define FAULTLINE_CLIENT_REMOTE_CALL_QUEUE_H_

#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

namespace faultline {

// Not thread-safe. `T` can be moved; what is left of a moved one may stay in the queue's memory for
// a while, so it should own nothing. References hold until the next change.
template <typename T>
class CallQueue {
 public:
  using iterator = typename std::vector<T>::iterator;

  bool empty() const { return size() == 0; }
  size_t size() const { return slots_.size() - head_; }
  // Elements that the queue holds without taking memory, if those taken out did not count.
  size_t capacity() const { return slots_.capacity(); }

  // REQUIRES: i < size().
  T& operator[](size_t i) { return slots_[head_ + i]; }
  const T& operator[](size_t i) const { return slots_[head_ + i]; }
  T& front() { return slots_[head_]; }
  const T& front() const { return slots_[head_]; }
  iterator begin() { return std::next(slots_.begin(), static_cast<std::ptrdiff_t>(head_)); }
  iterator end() { return slots_.end(); }

  void push_back(T value) { slots_.push_back(std::move(value)); }

  // Takes time in proportion to size() where nothing was taken out before.
  void push_front(T value) {
    if (head_ > 0) {
      slots_[--head_] = std::move(value);
    } else {
      slots_.insert(slots_.begin(), std::move(value));
    }
  }

  // REQUIRES: !empty().
  T pop_front() {
    T value = std::move(slots_[head_++]);
    // Each element moves at most once for each one that is taken out.
    if (head_ * 2 >= slots_.size()) {
      slots_.erase(slots_.begin(), begin());
      head_ = 0;
    }
    return value;
  }

  // Drops `first` and all that come after it.
  void erase_from(iterator first) { slots_.erase(first, slots_.end()); }

  void clear() {
    slots_.clear();
    head_ = 0;
  }

 private:
  std::vector<T> slots_;
  size_t head_ = 0;  // slots before it were taken out
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_CALL_QUEUE_H_
