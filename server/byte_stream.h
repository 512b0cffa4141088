// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_BYTE_STREAM_H_
#define FAULTLINE_SERVER_BYTE_STREAM_H_

#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/byte_buffer.h>

#include "server/async_call.h"

namespace faultline {

// A bidirectional stream of raw messages. One read and one write may be under way; Finish() ends
// it, after the last write.
class ByteStream : public AsyncCall {
 public:
  using Rpc = grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

  explicit ByteStream(CallLoop* loop) : AsyncCall(loop) {}

 protected:
  Rpc* rpc() { return &rpc_; }

  void StartRead(grpc::ByteBuffer* message) {
    Hold();
    rpc_.Read(message, &read_done_);
  }
  void StartWrite(const grpc::ByteBuffer& message) {
    Hold();
    rpc_.Write(message, &write_done_);
  }
  // A read that is under way ends with !ok.
  void Finish(const grpc::Status& status) { rpc_.Finish(status, &finish_done_); }

  virtual void OnReadDone(bool ok) = 0;
  virtual void OnWriteDone(bool ok) = 0;

 private:
  void ReadDone(bool ok) { OnReadDone(ok); }
  void WriteDone(bool ok) { OnWriteDone(ok); }
  void FinishDone(bool) {}

  Rpc rpc_{context()};
  Then<ByteStream, &ByteStream::ReadDone> read_done_{this};
  Then<ByteStream, &ByteStream::WriteDone> write_done_{this};
  Then<ByteStream, &ByteStream::FinishDone> finish_done_{this};
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_BYTE_STREAM_H_
